"""Flask's own signed cookie: when it is read, and when it is sent again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import pytest
from flask import Flask, Response, session
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from hypothesis import example, given, settings
from hypothesis import strategies as st
from itsdangerous import TimestampSigner

from lazysession import LazySession, SessionReadOnly
from lazysession.signedcookie import SignedCookie, is_signed_cookie
from lazysession.wrapped import Wrapped

LIFETIME, THROTTLE = 1000, 100
MODES = ("normal", "readonly", "no_refresh", "skip")
#: What a view does with its session.
CHANGES: dict[str, Callable[[], object]] = {
    "none": lambda: session.get("cart"),
    "assigned": lambda: session.update(a=1),
    "inside": lambda: session["cart"].append("pen"),
    "emptied": lambda: session.clear(),
}


class Clock:
    """The time of an app, and of the signatures that are made and checked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: float = 1_800_000_000.0) -> None:
        self.now = now
        monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _: int(self.now))

    def drive(self, app: Flask) -> None:
        """Make this the clock of an app."""
        app.session_interface.handler.clock = lambda: self.now  # type: ignore[attr-defined]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of the test, which passes only when the test says so."""
    return Clock(monkeypatch)


def make_app(clock: Clock | None = None, interface: Any = None, **settings: Any) -> Flask:
    """Make a lazy app over Flask's signed cookie, with a view per change, in each mode."""
    app = Flask("shop", static_folder=None)
    if interface is not None:
        app.session_interface = interface
    app.config.update(
        SECRET_KEY="key",
        PERMANENT_SESSION_LIFETIME=LIFETIME,
        LAZYSESSION_RULES=[(f"/{mode}/**", mode) for mode in MODES],
    )
    app.config.update(LAZYSESSION_REFRESH_THROTTLE=THROTTLE)
    app.config.update(settings)
    LazySession(app)
    if clock is not None:
        clock.drive(app)
    app.add_url_rule("/unused", "unused", lambda: "")
    app.add_url_rule("/<mode>/<change>", "change", lambda mode, change: str(CHANGES[change]() and ""))
    app.add_url_rule("/items", "items", lambda: {key: session[key] for key in session if key != "_permanent"})
    return app


def client_of(app: Flask, *, permanent: bool = True, **items: Any) -> FlaskClient:
    """Return a browser that got its cookie just now."""
    client = app.test_client()
    with client.session_transaction() as stored:
        stored.update(items or {"cart": ["book"]})
        stored.permanent = permanent
    return client


def cookie_sent(client: FlaskClient, path: str) -> str:
    """Request a path and return what becomes of the cookie: ``set``, ``deleted``, ``kept``, or ``refused``."""
    try:
        response = client.get(path)
    except SessionReadOnly:
        return "refused"
    assert response.status_code == 200
    header = response.headers.get("Set-Cookie")
    return "kept" if header is None else "deleted" if "session=;" in header else "set"


# When the cookie is sent

#: Of a changed session, whatever its age.
CHANGED = {
    ("normal", "assigned"): "set",
    ("normal", "emptied"): "deleted",
    ("no_refresh", "assigned"): "set",
    ("no_refresh", "emptied"): "deleted",
    ("readonly", "assigned"): "refused",
    ("readonly", "emptied"): "refused",
}
#: Only of a session that Flask would save with every response.
CHANGED_INSIDE = {"normal": "set", "no_refresh": "set", "readonly": "refused"}


def expected(mode: str, change: str, age: int, *, permanent: bool, each: bool) -> str:
    """Return what is to become of the cookie, by the tables above."""
    if (mode, change) in CHANGED:
        return CHANGED[mode, change]
    if mode == "skip" or not (permanent and each):
        return "kept"
    if change == "inside":
        return CHANGED_INSIDE[mode]
    return "set" if age >= THROTTLE and mode in ("normal", "readonly") else "kept"


@pytest.mark.parametrize("each", [True, False], ids=["each", "not-each"])
@pytest.mark.parametrize("permanent", [True, False], ids=["permanent", "not-permanent"])
@pytest.mark.parametrize("age", [0, THROTTLE - 1, THROTTLE, LIFETIME])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", MODES)
def test_when_the_cookie_is_sent(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, mode: str, change: str, age: int, permanent: bool, each: bool
) -> None:
    """It depends on mode, change, age, ``session.permanent`` and SESSION_REFRESH_EACH_REQUEST."""
    app = make_app(clock, SESSION_REFRESH_EACH_REQUEST=each, TESTING=True)
    client = client_of(app, permanent=permanent)
    if mode == "skip":
        monkeypatch.setitem(CHANGES, "inside", lambda: session.get("cart", []).append("pen"))
    clock.now += age
    assert cookie_sent(client, f"/{mode}/{change}") == expected(mode, change, age, permanent=permanent, each=each)


def test_an_unused_session_is_not_sent(clock: Clock) -> None:
    """A request that does not use its session sends no cookie and no ``Vary``, however old the cookie is."""
    client = client_of(make_app(clock))
    clock.now += LIFETIME
    response = client.get("/unused")
    assert {"Set-Cookie", "Vary"}.isdisjoint(response.headers.keys())


def test_without_a_throttle(clock: Clock) -> None:
    """With a throttle of 0, each use sends the cookie, as Flask does; also in the same second."""
    client = client_of(make_app(clock, LAZYSESSION_REFRESH_THROTTLE=0))
    for seconds in (0, 0.5, 0):
        clock.now += seconds
        response = client.get("/normal/none")
        assert ("Set-Cookie" in response.headers, response.headers["Vary"]) == (True, "Cookie")


def test_the_default_throttle(clock: Clock) -> None:
    """It is a tenth of the lifetime, as for stores."""
    client = client_of(make_app(clock, LAZYSESSION_REFRESH_THROTTLE=None, PERMANENT_SESSION_LIFETIME=500))
    clock.now += 49
    assert cookie_sent(client, "/normal/none") == "kept"
    clock.now += 1
    assert cookie_sent(client, "/normal/none") == "set"


def test_a_renewal_has_a_full_lifetime(clock: Clock) -> None:
    """A renewed cookie has the same items, a new age, and a date that is a lifetime from now."""
    app = make_app(clock)
    client = client_of(app)
    for _ in range(5):
        clock.now += LIFETIME - 1
        assert cookie_sent(client, "/normal/none") == "set"
        assert client.get("/items").json == {"cart": ["book"]}
    clock.now += LIFETIME + 1
    assert client.get("/items").json == {}


def test_a_change_inside_a_value_is_kept(clock: Clock) -> None:
    """Flask saves one in a permanent session, as it sends the cookie each time, and the throttle must not lose it."""
    client = client_of(make_app(clock))
    for _ in range(3):
        client.get("/normal/inside")
    assert client.get("/items").json == {"cart": ["book", "pen", "pen", "pen"]}


def test_a_lifetime_that_was_changed(clock: Clock) -> None:
    """Each cookie from before the change is due, as its date in the browser is of the lifetime before."""
    app = make_app(clock, LAZYSESSION_REFRESH_THROTTLE=None)
    client, other = client_of(app), client_of(app)
    assert cookie_sent(client, "/normal/none") == "kept"
    clock.now += 10.5
    app.permanent_session_lifetime = timedelta(days=30)
    assert [cookie_sent(client, "/normal/none") for _ in range(2)] == ["set", "set"]  # whole seconds
    clock.now += 1
    assert cookie_sent(client, "/normal/none") == "set"
    clock.now += 30
    assert [cookie_sent(each, "/normal/none") for each in (client, other, other)] == ["kept", "set", "kept"]


STEPS = st.lists(st.tuples(st.sampled_from([1, 60, 600, 86400]), st.integers(0, 40)).map(lambda two: two[0] * two[1]))
LIFETIMES = st.integers(1, 100_000)


@example(steps=[0, 0], lifetimes=[1, 2], share=0.5, start=0.0)  # changed in the second of the signature
@settings(deadline=None)
@given(
    steps=STEPS, lifetimes=st.lists(LIFETIMES, min_size=1, max_size=3), share=st.floats(0, 0.99), start=st.floats(0, 1)
)
def test_the_cookie_outlives_each_use(steps: list[float], lifetimes: list[int], share: float, start: float) -> None:
    """The browser keeps it for the lifetime minus the throttle after each use; it is not renewed more often."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        clock = Clock(monkeypatch, 1_800_000_000 + start)
        throttle = share * lifetimes[0]
        app = make_app(clock, LAZYSESSION_REFRESH_THROTTLE=throttle, PERMANENT_SESSION_LIFETIME=lifetimes[0])
        client, signed_at, lifetime = client_of(app), int(clock.now), lifetimes[0]
        for number, step in enumerate(steps):
            clock.now += step
            app.config["PERMANENT_SESSION_LIFETIME"] = now_lasts = lifetimes[number % len(lifetimes)]
            if clock.now >= signed_at + lifetime or int(clock.now) - signed_at > now_lasts:
                return  # the browser has dropped the cookie, or Flask does not accept it any more
            age, least = clock.now - signed_at, throttle if throttle < now_lasts else now_lasts / 10
            is_sent = cookie_sent(client, "/normal/none") == "set"
            assert is_sent == (age >= least) or len(lifetimes) > 1
            if is_sent:
                signed_at, lifetime = int(clock.now), now_lasts
            assert signed_at + lifetime >= int(clock.now) + now_lasts - least


def test_a_cookie_from_the_future(clock: Clock) -> None:
    """Flask does not accept one that a machine with another clock has signed, so there is nothing to renew."""
    client = client_of(make_app(clock))
    clock.now -= 1
    assert (cookie_sent(client, "/normal/none"), client.get("/items").json) == ("kept", {})


# As Flask reads it

HAS_FALLBACKS = version("flask") >= "3.1"


def cookies_of_a_browser(clock: Clock) -> dict[str, str]:
    """Return valid cookies and others, by a name for each."""
    interface, values = SecureCookieSessionInterface(), {}
    for key in ("key", "old", "gone"):
        serializer = interface.get_signing_serializer(make_app(SECRET_KEY=key))
        assert serializer is not None
        values[key] = str(serializer.dumps({"a": 1, "_permanent": True}))
        values[f"{key} long"] = str(serializer.dumps({"a": "long" * 500}))
    clock.now -= LIFETIME + 1
    assert serializer is not None
    values["expired"] = str(serializer.dumps({"a": 1}))
    clock.now += LIFETIME + 1
    payload, time, signature = values["key"].split(".")
    values |= {
        "no time": f"{payload}.{signature}",
        "moved": f"{payload}.{time[::-1]}.{signature}",
        "dots": "...",
        "": "",
    }
    return values | {"other": f"e30.{time}.{signature}", "letters": "ä.b.c", "quotes": f'"{values["key"]}"'}


def test_every_cookie_is_read_as_flask_reads_it(clock: Clock) -> None:
    """Valid ones, by old keys as well, and those that are expired, tampered with or no cookie of Flask's at all."""
    app = make_app(clock, SECRET_KEY_FALLBACKS=["old"])
    values = cookies_of_a_browser(clock)
    loaded = 0
    for name, value in values.items():
        header = f"session={value}"
        with app.test_request_context(headers={"Cookie": header}) as context:
            plain = SecureCookieSessionInterface().open_session(app, context.request)
            assert dict(session) == plain, name
            loaded += bool(plain)
    assert (loaded, len(values)) == (5 if HAS_FALLBACKS else 3, 14)


@pytest.mark.skipif(not HAS_FALLBACKS, reason="needs Flask 3.1, which has SECRET_KEY_FALLBACKS: pip install -U flask")
def test_a_cookie_that_an_old_key_signed(clock: Clock) -> None:
    """It has an age like any other, and its renewal is signed by the new key."""
    app = make_app(clock)
    client = client_of(app)
    app.config.update(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["key"])
    assert cookie_sent(client, "/normal/none") == "kept"
    clock.now += THROTTLE
    assert cookie_sent(client, "/normal/none") == "set"
    app.config.update(SECRET_KEY_FALLBACKS=None)
    assert client.get("/items").json == {"cart": ["book"]}


def count_calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count how often signatures are verified and made from now on."""
    calls = {"unsign": 0, "sign": 0}
    for name in calls:
        plain = getattr(TimestampSigner, name)

        def counted(*values: Any, _name: str = name, _plain: Any = plain, **named: Any) -> Any:
            calls[_name] += 1
            return _plain(*values, **named)

        monkeypatch.setattr(TimestampSigner, name, counted)
    return calls


def test_what_is_verified_and_signed(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unused session costs nothing, a used one one verification, and only a cookie that is sent a signature."""
    client = client_of(make_app(clock))
    calls = count_calls(monkeypatch)
    client.get("/unused")
    assert calls == {"unsign": 0, "sign": 0}
    client.get("/items")
    assert calls == {"unsign": 1, "sign": 0}
    clock.now += THROTTLE
    client.get("/items")
    assert calls == {"unsign": 2, "sign": 1}


# Caches, and the trace


def test_public_responses(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A renewal is left off a response for shared caches; a changed session's cookie makes it private."""
    app = make_app(clock)

    @app.after_request
    def allow_caches(response: Response) -> Response:
        response.cache_control.public = True
        return response

    client = client_of(app)
    clock.now += THROTTLE
    response = client.get("/normal/none")
    assert ("Set-Cookie" in response.headers, response.headers["Cache-Control"]) == (False, "public")
    for path in ("/normal/inside", "/normal/assigned", "/normal/emptied"):
        response = client.get(path)
        assert ("Set-Cookie" in response.headers, response.headers["Cache-Control"]) == (True, "private")
    assert caplog.text.count("Shared caches may store the response of change") == 1


@pytest.mark.parametrize(("permanent", "expected"), [(True, "max-age=60, private"), (False, "max-age=60")])
def test_responses_with_an_age(clock: Clock, permanent: bool, expected: str) -> None:
    """A renewal makes a response private that shared caches may keep by its age; without a cookie, it stays so."""
    app = make_app(clock)

    @app.after_request
    def allow_caches(response: Response) -> Response:
        response.cache_control.max_age = 60
        return response

    client = client_of(app, permanent=permanent)
    clock.now += THROTTLE
    response = client.get("/normal/none")
    assert ("Set-Cookie" in response.headers, response.headers["Cache-Control"]) == (permanent, expected)


@pytest.mark.parametrize("mode", MODES)
def test_the_trace(clock: Clock, mode: str) -> None:
    """Server-Timing names the line that used the session, and the mode."""
    client = client_of(make_app(clock, LAZYSESSION_TRACE=True))
    header = client.get(f"/{mode}/none").headers["Server-Timing"]
    assert "test_signed_cookie" in header
    assert f" {mode}" in header
    assert "Server-Timing" not in client.get("/unused").headers


# Interfaces that are left alone


def replaced(name: str) -> type[SecureCookieSessionInterface]:
    """Return a class that overrides one method of Flask's."""
    plain = getattr(SecureCookieSessionInterface, name)
    return type("Own", (SecureCookieSessionInterface,), {name: lambda *values: plain(*values)})


REPLACED = ("get_signing_serializer", "open_session", "save_session", "should_set_cookie", "get_expiration_time")


@pytest.mark.parametrize(
    ("name", "how"),
    [(name, how) for name in REPLACED for how in ("by its class", "before")]
    + [(name, "after") for name in REPLACED if name not in ("open_session", "save_session")],  # those replace ours
)
def test_an_interface_of_the_apps_own(name: str, how: str) -> None:
    """Where one of these methods is the app's own, the interface is called at each use, without a throttle."""
    interface = (replaced(name) if how == "by its class" else SecureCookieSessionInterface)()
    own = getattr(replaced(name)(), name)
    if how == "before":
        setattr(interface, name, own)
    app = make_app(interface=interface)
    if how == "after":
        assert cookie_sent(client_of(app), "/normal/none") == "kept"
        setattr(app.session_interface, name, own)
    assert type(app.session_interface.handler) is Wrapped  # type: ignore[attr-defined]
    client = client_of(app)
    assert (cookie_sent(client, "/normal/none"), cookie_sent(client, "/readonly/none")) == ("set", "kept")


def test_an_interface_with_other_attributes() -> None:
    """The salt, the digest, the format and the attributes of the cookie may be the app's own."""

    class Own(SecureCookieSessionInterface):
        salt = "other"
        key_derivation = "django-concat"

        def get_cookie_name(self, app: Flask) -> str:
            return "own"

    assert is_signed_cookie(Own())
    app = make_app(interface=Own())
    assert type(app.session_interface.handler) is SignedCookie  # type: ignore[attr-defined]
    client = client_of(app)
    assert (cookie_sent(client, "/normal/none"), client.get("/items").json) == ("kept", {"cart": ["book"]})
