"""The pages of the shop that a browser shows, and the forms that they post."""

from __future__ import annotations

import cart
from accounts import DEMO_NAME, DEMO_PASSWORD, authenticate
from catalog import BY_SLUG, TEAS, Tea
from flask import Blueprint, abort, flash, redirect, render_template, request, session, url_for
from flask_login import login_user, logout_user
from werkzeug.wrappers import Response

pages = Blueprint("pages", __name__)


def tea_or_404(slug: str) -> Tea:
    """Return the tea with this slug, or fail with a 404."""
    tea = BY_SLUG.get(slug)
    return tea if tea is not None else abort(404)


def not_found(_error: Exception) -> tuple[str, int]:
    """Show the 404 page. Unlike the other pages, it does not use the session."""
    return render_template("not_found.html", teas=TEAS), 404


@pages.get("/")
def home() -> str:
    """Show all twelve teas."""
    return render_template("home.html", teas=TEAS)


@pages.get("/tea/<slug>")
def product(slug: str) -> str:
    """Show one tea."""
    return render_template("product.html", tea=tea_or_404(slug), teas=TEAS)


@pages.get("/cart")
def show_cart() -> str:
    """Show the cart."""
    return render_template("cart.html", cart=cart.current(), teas=TEAS)


@pages.get("/cart/preview")
def preview_cart() -> str:
    """Return the small cart of the header: a fragment of HTML."""
    return render_template("cart_preview.html", cart=cart.current())


@pages.post("/cart/add")
def add_to_cart() -> Response:
    """Put tins into the cart, then show it."""
    tea = tea_or_404(request.form.get("tea", ""))
    cart.put(tea, request.form.get("tins", 1, type=int))
    flash(f"{tea.name} is in your cart.")
    return redirect(url_for("pages.show_cart"), 303)


@pages.post("/cart/remove")
def remove_from_cart() -> Response:
    """Take a tea out of the cart again."""
    cart.take_out(tea_or_404(request.form.get("tea", "")))
    return redirect(url_for("pages.show_cart"), 303)


@pages.get("/login")
def login() -> str:
    """Show the sign-in form."""
    return render_template("login.html", hint=(DEMO_NAME, DEMO_PASSWORD), teas=TEAS)


@pages.post("/login")
def sign_in() -> Response:
    """Check name and password, then show the home page."""
    customer = authenticate(request.form.get("name", ""), request.form.get("password", ""))
    if customer is None:
        flash("That name and password do not go together.")
        return redirect(url_for("pages.login"), 303)
    login_user(customer)
    flash(f"Welcome back, {customer.first_name}. The kettle is on.")
    return redirect(url_for("pages.home"), 303)


@pages.post("/logout")
def logout() -> Response:
    """Sign out and clear the session."""
    session.clear()
    logout_user()  # last: it notes in the session that the remember cookie has to go
    return redirect(url_for("pages.home"), 303)
