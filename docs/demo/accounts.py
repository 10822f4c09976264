"""The only customer who can sign in, defined in code, and the setup of Flask-Login."""

from __future__ import annotations

from flask import Flask
from flask_login import LoginManager, UserMixin
from werkzeug.security import check_password_hash, generate_password_hash

#: The sign-in page shows both as a hint: this is a demo.
DEMO_NAME, DEMO_PASSWORD = "ada", "kettle"


class Customer(UserMixin):  # type: ignore[misc]  # Flask-Login ships no types
    """A customer that Flask-Login can load."""

    def __init__(self, login: str, first_name: str, password: str) -> None:
        self.id = login
        self.first_name = first_name
        self._password_hash = generate_password_hash(password)

    def has_password(self, password: str) -> bool:
        """Return whether this is her password."""
        return check_password_hash(self._password_hash, password)


_CUSTOMERS = {DEMO_NAME: Customer(DEMO_NAME, "Ada", DEMO_PASSWORD)}


def authenticate(login: str, password: str) -> Customer | None:
    """Return the customer, or None if name or password are wrong."""
    customer = _CUSTOMERS.get(login.strip().lower())
    return customer if customer is not None and customer.has_password(password) else None


def install_login(app: Flask) -> None:
    """Set up Flask-Login, with its default settings."""
    login_manager = LoginManager(app)
    login_manager.login_view = "pages.login"
    login_manager.user_loader(_CUSTOMERS.get)
