"""Patterns, the order of the table, modes at the view, and what each mode allows."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, get_flashed_messages, request, session
from flask.sessions import SecureCookieSessionInterface
from flask.views import MethodView
from flask_login import LoginManager, logout_user
from hypothesis import given, settings
from hypothesis import strategies as st

from lazysession import ConfigurationError, LazySession, SessionReadOnly, session_mode
from lazysession.modes import RuleTable
from lazysession.pages import Page, see
from lazysession.patterns import compile_rule, glob_to_regex
from tests.support.stores import LIVE

MakeApp = Callable[..., Flask]


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("/a/*.css", "/a/b.css", True),
        ("/a/*.css", "/a/b/c.css", False),
        ("/a/**", "/a/b/c.css", True),
        ("/a/**", "/a/", True),
        ("/a/**", "/a", False),
        ("/a/**/c", "/a/b/b/c", True),
        ("/a?", "/ab", True),
        ("/a?", "/a/", False),
        ("/a.b", "/axb", False),
        ("/a", "/a/b", False),
        ("/a/**", "/a/line\nbreak", True),
        ("/[a]", "/[a]", True),
    ],
)
def test_globs(glob: str, path: str, matches: bool) -> None:
    """``*`` matches within a segment, ``**`` across segments; all else is literal."""
    assert (glob_to_regex(glob).fullmatch(path) is not None) is matches


GLOBS = st.lists(st.sampled_from(["a", "b", "/", "*", "**", "?", "ab"]), max_size=7).map("".join)


def matches(glob: str, path: str) -> bool:
    """Match by the definition, trying every way."""
    if not glob:
        return not path
    if glob.startswith("**"):
        return any(matches(glob[2:], path[taken:]) for taken in range(len(path) + 1))
    if glob.startswith("*"):
        longest = (path + "/").index("/")
        return any(matches(glob[1:], path[taken:]) for taken in range(longest + 1))
    return bool(path) and (path[0] == glob[0] or (glob[0] == "?" and path[0] != "/")) and matches(glob[1:], path[1:])


@given(glob=GLOBS, path=st.text(alphabet="ab/", max_size=8))
@settings(max_examples=2000, deadline=None)
def test_globs_match_by_their_definition(glob: str, path: str) -> None:
    """The regex, which gives up early, finds what trying everything finds."""
    assert (glob_to_regex(glob).fullmatch(path) is not None) == matches(re.sub(r"\*\*+", "**", glob), path)


def test_hostile_paths_are_matched_in_time() -> None:
    """A pattern with many stars takes no time that grows with their number; without that, this test does not end."""
    assert glob_to_regex("/**/**/**/**/**/x").fullmatch("/" * 4000) is None
    assert glob_to_regex("/**/a/**/b/**/c/**/d").fullmatch("/a/b" * 1000) is None
    assert glob_to_regex("/*a*a*a*a*a*b").fullmatch("/" + "a" * 4000) is None


def decide(rules: list[tuple[Any, str]], path: str = "/admin/users", method: str = "GET") -> str:
    """Decide a request to an app with a blueprint ``admin``."""
    app = Flask("shop")
    admin = Blueprint("admin", "admin", url_prefix="/admin")
    admin.add_url_rule("/users", "users", lambda: "", methods=["GET", "POST"])
    outer = Blueprint("outer", "outer", url_prefix="/outer")
    outer.register_blueprint(admin)
    app.register_blueprint(admin)
    app.register_blueprint(outer)
    table = RuleTable([compile_rule(*rule, "RULES") for rule in rules], skip_static=True)
    with app.test_request_context(path, method=method):
        return table.mode_of(app, request._get_current_object()).mode.value  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    "pattern",
    [
        "/admin/*",
        "/**",
        "endpoint:admin.users",
        "endpoint:admin.*",
        "blueprint:admin",
        "method:get",
        re.compile("/users$"),
        re.compile("^/admin"),
        lambda asked: asked.path.endswith("users"),
    ],
)
def test_patterns_that_match(pattern: Any) -> None:
    """Every kind of pattern finds the request."""
    assert decide([(pattern, "no_refresh")]) == "no_refresh"


@pytest.mark.parametrize(
    "pattern",
    ["/admin", "endpoint:users", "blueprint:adm", "method:POST", re.compile("^users"), lambda _: False],
)
def test_patterns_that_do_not_match(pattern: Any) -> None:
    """Every other request is left to the next rule."""
    assert decide([(pattern, "no_refresh")]) == "normal"


def test_a_nested_blueprint_is_in_both() -> None:
    """A rule for a blueprint holds for those nested in it."""
    assert decide([("blueprint:outer", "readonly")], "/outer/admin/users") == "readonly"


def test_the_first_match_decides() -> None:
    """The order of the table is the order of the question."""
    assert decide([("/admin/*", "no_refresh"), ("/**", "readonly")]) == "no_refresh"
    assert decide([("/x/*", "no_refresh"), ("/**", "readonly")]) == "readonly"


@pytest.mark.parametrize(
    ("pattern", "mode", "message"),
    [
        ("assets/**", "skip", "A path starts with '/'"),
        ("endpoint:", "skip", "is not a pattern"),
        ("view:x", "skip", "is not a pattern"),
        (7, "skip", "7 is not a pattern"),
        (re.compile(b"/a"), "skip", "matches bytes"),
        (
            "/a",
            "passive",
            "allowed are 'normal', 'no_refresh', 'readonly', 'skip'. It is called 'no_refresh' now.",
        ),
        ("/a", "skipp", "'skipp' is not a session mode; allowed are 'normal', 'no_refresh', 'readonly', 'skip'"),
    ],
)
def test_wrong_rules(pattern: Any, mode: str, message: str) -> None:
    """A pattern or mode that is none is refused, with what is allowed."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        compile_rule(pattern, mode, "LAZYSESSION_RULES")


@pytest.mark.parametrize("pattern", ["/**", "endpoint:*", re.compile(".*"), re.compile("^/")])
def test_skipping_everything_warns(memory_app: MakeApp, pattern: Any) -> None:
    """A rule that skips every request is warned of at start-up."""
    with pytest.warns(UserWarning, match="matches every request"):
        memory_app(LAZYSESSION_RULES=[(pattern, "skip")])


@pytest.mark.parametrize("rule", [("/assets/**", "skip"), ("/**", "no_refresh"), (lambda _: True, "skip")])
def test_other_rules_do_not_warn(memory_app: MakeApp, rule: Any) -> None:
    """Narrow rules, and wide ones that do no harm, cause no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        memory_app(LAZYSESSION_RULES=[rule])


class PollView(MethodView):
    init_every_request = False

    def get(self) -> str:
        return str(session.get("a"))


def test_session_mode_at_the_view(store: Any, make_app: MakeApp) -> None:
    """The decorator works on either side of ``@app.route``, on classes, and beats the table."""
    app = make_app(LAZYSESSION_RULES=[("/**", "no_refresh")])
    path = session_mode("skip")

    @app.route("/below")
    @path
    def below() -> str:
        return str(session.get("a"))

    @path
    @app.route("/above")
    def above() -> str:
        return str(session.get("a"))

    app.add_url_rule("/class", view_func=path(PollView).as_view("poll"))
    client = client_with_session(store, app)
    with store.counted() as trips:
        assert [client.get(path).text for path in ("/below", "/above", "/class")] == ["None"] * 3
    assert trips == []


class MixedView(MethodView):
    init_every_request = False

    @session_mode("skip")
    def get(self) -> str:
        return str(session.get("a"))

    def post(self) -> str:
        return str(session.get("a"))


def test_session_mode_at_a_method(store: Any, make_app: MakeApp) -> None:
    """The methods of a class-based view may differ."""
    app = make_app()
    app.add_url_rule("/mixed", view_func=MixedView.as_view("mixed"))
    client = client_with_session(store, app)
    assert (client.get("/mixed").text, client.post("/mixed").text) == ("None", "1")


class HeadView(MixedView):
    @session_mode("skip")
    def get(self) -> str:
        return str(session.get("a"))

    @session_mode("no_refresh")
    def head(self) -> str:
        return str(session.get("a"))


def test_session_mode_at_get_counts_for_head(store: Any, make_app: MakeApp) -> None:
    """Flask answers HEAD with ``get``, unless the class has a ``head`` of its own."""
    app = make_app()
    app.add_url_rule("/mixed", view_func=MixedView.as_view("mixed"))
    app.add_url_rule("/head", view_func=HeadView.as_view("head"))
    client = client_with_session(store, app)
    with store.counted() as trips:
        client.head("/mixed")
    assert trips == []
    with store.counted() as trips:
        client.head("/head")
    assert len(trips) == 1


def test_session_mode_refuses_other_modes() -> None:
    """A mode that is none is refused where it is written."""
    with pytest.raises(ConfigurationError, match="@session_mode: 'lazy' is not a session mode"):
        session_mode("lazy")


def client_with_session(store: Any, app: Flask) -> Any:
    store.put(app, f"session:{LIVE}", b"\x82\xaa_permanent\xc3\xa1a\x01", 1000)
    client = app.test_client()
    client.set_cookie("session", LIVE)
    return client


def add_views(app: Flask, mode: str) -> None:
    def write() -> str:
        session["a"] = 2
        return str(session["a"])

    for name, view in {
        "read": lambda: str(session.get("a")),
        "write": write,
        "nested": lambda: session.setdefault("b", {}).update(c=1) or "",
        "clear": lambda: session.clear() or "",
        "pop": lambda: str(session.pop("missing", "default")) + str(session.setdefault("a", 5)),
        "permanent": lambda: str([setattr(session, "permanent", False), session.get("a")]),
    }.items():
        app.add_url_rule(f"/{name}", name, session_mode(mode)(view))


@pytest.fixture
def in_mode(store: Any, make_app: MakeApp) -> Callable[..., Any]:
    """A function that returns a client with a live session, two thirds through its life, in an app of one mode."""

    def make(mode: str, **settings: Any) -> Any:
        app = make_app(PERMANENT_SESSION_LIFETIME=1000, **settings)
        add_views(app, mode)
        client = client_with_session(store, app)
        store.pass_time(app, 600)
        return client

    return make


def test_no_refresh_reads_without_a_refresh(store: Any, in_mode: Callable[..., Any]) -> None:
    """A poll reads the session and never keeps it alive."""
    client = in_mode("no_refresh")
    response = client.get("/read")
    assert response.text == "1"
    assert response.headers["Vary"] == "Cookie"
    assert "Set-Cookie" not in response.headers
    assert 395 < store.ttl(client.application, f"session:{LIVE}") <= 400


def test_no_refresh_writes_keep_the_remaining_life(store: Any, in_mode: Callable[..., Any]) -> None:
    """A change in no_refresh mode is stored and the expiry stays where it is."""
    client = in_mode("no_refresh")
    assert "Set-Cookie" not in client.get("/write").headers
    assert client.get("/read").text == "2"
    assert 395 < store.ttl(client.application, f"session:{LIVE}") <= 400


def test_normal_writes_begin_a_new_life(store: Any, in_mode: Callable[..., Any]) -> None:
    """For comparison, a change in normal mode."""
    client = in_mode("normal")
    assert "Set-Cookie" in client.get("/write").headers
    assert 995 < store.ttl(client.application, f"session:{LIVE}") <= 1000


@pytest.mark.parametrize("path", ["/write", "/clear", "/nested"])
def test_readonly_refuses_writes(store: Any, in_mode: Callable[..., Any], path: str) -> None:
    """A write raises at once; a nested change, which is found only at the end, raises there."""
    client = in_mode("readonly")
    before = store.payloads(client.application)
    with pytest.raises(SessionReadOnly, match="readonly"):
        client.get(path)
    assert store.payloads(client.application) == before


def test_readonly_reads_and_refreshes(store: Any, in_mode: Callable[..., Any]) -> None:
    """Reading is a use like any other, and what changes nothing is no write."""
    client = in_mode("readonly")
    response = client.get("/pop")
    assert response.text == "default1"
    assert "Set-Cookie" in response.headers
    assert 995 < store.ttl(client.application, f"session:{LIVE}") <= 1000


def test_readonly_drops_a_permanent_set_before(store: Any, in_mode: Callable[..., Any]) -> None:
    """A hook that sets ``permanent`` in every request does not break the views that only read."""
    client = in_mode("readonly")
    before = store.payloads(client.application)
    assert client.get("/permanent").text == "[None, 1]"
    assert store.payloads(client.application) == before


def test_skip_drops_writes(store: Any, in_mode: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """A skipped request sees an empty session; its write is dropped, and logged once per endpoint."""
    client = in_mode("skip")
    with store.counted() as trips:
        assert client.get("/read").text == "None"
        response = client.get("/write")
        client.get("/write")
        client.get("/clear")
    assert trips == []
    assert response.text == "2"
    assert "Vary" not in response.headers
    assert "Set-Cookie" not in response.headers
    assert [record.getMessage() for record in caplog.records if record.name == "lazysession"] == [
        f"A change of the session was dropped: requests to {endpoint} skip it (@session_mode). Keys: {keys}. To use "
        f"it, take @session_mode off the view. Logged once per endpoint. {see(Page.EMPTY_SESSION)}"
        for endpoint, keys in (("write", "'a'"), ("clear", "unknown"))
    ]


@pytest.mark.parametrize("path", ["/pop", "/logout"])
def test_skip_logs_a_dropped_logout(in_mode: Callable[..., Any], caplog: pytest.LogCaptureFixture, path: str) -> None:
    """What a skipped request removes may be stored, and stays there: the dropped logout is logged."""
    client = in_mode("skip")
    LoginManager(client.application).user_loader(lambda user_id: None)
    client.application.add_url_rule("/logout", "logout", session_mode("skip")(lambda: str(logout_user())))
    assert client.get(path).status_code == 200
    assert f"A change of the session was dropped: requests to {path[1:]} skip it" in caplog.text


def test_skip_is_silent_without_a_change(in_mode: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """Neither a read nor the removal of what one request leaves for the next is logged."""
    client = in_mode("skip")
    client.application.add_url_rule("/flashes", "flashes", session_mode("skip")(lambda: str(get_flashed_messages())))
    assert (client.get("/read").text, client.get("/flashes").text) == ("None", "[]")
    assert "lazysession" not in {record.name for record in caplog.records}


def test_skip_rotates_nothing() -> None:
    """A new id that an extension asks for in a skipped request (after a remembered login) is not made."""

    class Interface(SecureCookieSessionInterface):
        def regenerate(self, _session: Any) -> None:
            raise AssertionError("asked")

    app = Flask("shop")
    app.secret_key, app.session_interface = "key", Interface()
    app.config["LAZYSESSION_SKIP_PATHS"] = ["/skipped"]
    LazySession(app)
    app.add_url_rule("/skipped", view_func=lambda: str(app.session_interface.regenerate(session)))  # type: ignore[attr-defined]
    assert app.test_client().get("/skipped").text == "None"


def test_skip_may_raise(in_mode: Callable[..., Any]) -> None:
    """With SKIPPED_WRITE "raise" a write in a skipped request is an error at its place."""
    client = in_mode("skip", LAZYSESSION_SKIPPED_WRITE="raise")
    assert client.get("/read").text == "None"
    with pytest.raises(SessionReadOnly, match="skip"):
        client.get("/write")


def test_static_files_are_skipped(store: Any, tmp_path: Path) -> None:
    """Even when an extension uses the session for a static file, the store is left alone; a rule excepts some."""
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "a.txt").write_text("x")
    (tmp_path / "b.txt").write_text("x")
    app = Flask("shop", static_folder=str(tmp_path), static_url_path="/static")
    parts = Blueprint("parts", "parts", static_folder=str(tmp_path), static_url_path="/s", url_prefix="/parts")
    app.register_blueprint(parts)
    app.config.update(TESTING=True, PERMANENT_SESSION_LIFETIME=1000, **store.config())
    app.config["LAZYSESSION_RULES"] = [("/static/private/**", "normal")]
    if "SQLALCHEMY_DATABASE_URI" in app.config:
        app.config["SESSION_SQLALCHEMY"].init_app(app)
    LazySession(app)
    app.before_request(lambda: session.get("missing"))  # as many extensions do
    client = client_with_session(store, app)
    with store.counted() as trips:
        client.get("/static/b.txt", buffered=True)
        client.get("/parts/s/b.txt", buffered=True)
    assert trips == []
    with store.counted() as trips:
        client.get("/static/private/a.txt", buffered=True)
    assert tuple(trips) == store.read


def test_static_may_be_kept(memory_app: MakeApp) -> None:
    """SKIP_STATIC = False leaves static files to the rules."""
    table = RuleTable([], skip_static=False)
    app = Flask("shop", static_folder="static")
    with app.test_request_context("/static/a"):
        assert table.mode_of(app, request._get_current_object()).mode == "normal"  # type: ignore[attr-defined]


def test_a_view_named_static_is_no_static_file() -> None:
    """Only the routes that Flask makes for static folders count."""
    app = Flask("shop", static_folder=None)
    app.add_url_rule("/s", "static", lambda: "")
    with app.test_request_context("/s"):
        decision = RuleTable([], skip_static=True).mode_of(app, request._get_current_object())  # type: ignore[attr-defined]
    assert decision.mode == "normal"


def test_unused_requests_ask_no_rule(memory_app: MakeApp) -> None:
    """A request that never uses the session never evaluates a rule."""
    asked: list[str] = []

    def rule(asking: Any) -> bool:
        asked.append(asking.path)
        return False

    app = memory_app(LAZYSESSION_RULES=[(rule, "no_refresh")])
    app.add_url_rule("/untouched", "untouched", lambda: "")
    app.add_url_rule("/read", "read", lambda: str(session.get("a")))
    client = app.test_client()
    client.get("/untouched")
    client.get("/nowhere")
    assert asked == []
    client.get("/read")
    assert asked == ["/read"]


def test_a_clear_that_is_forbidden(make_app: MakeApp, store: Any) -> None:
    """A view that catches the refusal of its first use continues: nothing was loaded, and nothing is saved."""
    app = make_app()

    @app.get("/catch")
    @session_mode("readonly")
    def catch() -> str:
        with pytest.raises(SessionReadOnly):
            session.clear()
        return "done"

    client = client_with_session(store, app)
    with store.counted() as trips:
        response = client.get("/catch")
    assert (response.status_code, response.text, trips) == (200, "done", [])
