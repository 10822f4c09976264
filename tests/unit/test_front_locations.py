"""Which static files a front server may send: never one that the app does not skip."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Blueprint, Flask, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.routing import BaseConverter

from lazysession import LazySession, session_mode
from lazysession.insight.configuration import _view_name, configuration_of
from lazysession.insight.locations import Plan, find_locations
from lazysession.modes import Mode, RuleTable
from lazysession.staticfiles import reason_against_route
from tests.support.static_shop import GuardedApp, blueprint_of, guard_with_hook, guard_with_preprocessor

FOLDERS = ("", "members/", "docs/", "docs/members/")
NAMES = ("a.css", "b.pdf", "ü.txt", "members.txt", "x.tar.gz", "a b.txt", "50%.txt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files, of which some are for members."""
    return write_tree(tmp_path_factory.mktemp("static"))


def write_tree(root: Path) -> Path:
    for inside in FOLDERS:
        for name in NAMES:
            (root / inside).mkdir(parents=True, exist_ok=True)
            (root / inside / name).write_text(name)
    return root


def app_with(folder: Path, *, rules: Any = (), kind: type[Flask] = Flask, **settings: Any) -> Flask:
    options = {
        name: settings.pop(name)
        for name in ("static_url_path", "static_host", "host_matching", "subdomain_matching")
        if name in settings
    }
    app = kind("shop", static_folder=str(folder), **{"static_url_path": "/static", **options})
    app.config.update(SECRET_KEY="key", LAZYSESSION_RULES=list(rules), **settings)
    LazySession(app)
    return app


def rules_of(app: Flask) -> RuleTable:
    return app.session_interface.rules  # type: ignore[attr-defined, no-any-return]


def plan_of(app: Flask) -> Plan:
    return find_locations(app, rules_of(app))


def is_skipped(app: Flask, path: str) -> bool:
    """Return whether a real request for a static file is skipped, and meets no guard of its route."""
    with app.test_request_context(path):
        endpoint = request.endpoint
        static = endpoint is not None and endpoint.rpartition(".")[2] == "static"
        decision = rules_of(app).mode_of(app, request)
        return static and decision.mode is Mode.SKIP and reason_against_route(app, str(endpoint)) is None


FILES = [inside + name for inside in FOLDERS for name in NAMES]
STARTS = [
    "/static/",
    "/static/docs/",
    "/admin/files/",
    "/files/",
    "/static/members/",
    "/static/files/",
    "/static/docs/static/",
    "/static/members/x/y/",
]


def served_by(plan: Plan) -> list[str]:
    """Return the paths of the files that a front server sends."""
    paths = [start + name for start in STARTS for name in FILES if plan.serves(start + name)]
    places = [(path, plan.location_of(path)) for path in paths]
    return [path for path, at in places if at and Path(at.folder, path.removeprefix(at.url)).is_file()]


def static_served(folder: Path, *rules: tuple[Any, str], **settings: Any) -> set[str]:
    """Return the files below /static/ that a front server sends for an app with these rules."""
    plan = plan_of(app_with(folder, rules=rules, **settings))
    return {path.removeprefix("/static/") for path in served_by(plan) if path.startswith("/static/")}


ALL = {inside + name for inside in FOLDERS for name in NAMES if name != "x.tar.gz"}


def test_every_file_is_served_where_nothing_is_in_the_way(folder: Path) -> None:
    """Without rules, the front server sends all files but those to which Flask adds a Content-Encoding."""
    assert static_served(folder) == ALL


@pytest.mark.parametrize(
    ("pattern", "taken"),
    [
        ("/static/members/**", "^members/"),
        ("/static/**/members/**", "^.*/members/"),
        ("/static/*/?.pdf", "^[^/]*/.[.]pdf$"),
        ("/static/?.txt", "^(ü|a b|50%)[.]txt$"),
        ("/static/**/????/**/b.pdf", "/"),  # after two wildcards, the rest is left out
        ("/static/*/*/*/b.pdf", "^[^/]*/[^/]*/"),
        ("/static/a b.txt", "^a b[.]txt$"),
        (re.compile(r"[.]css$"), ".*"),  # a class of characters is not translated
        (re.compile(r"\.css$"), "[.]css$"),
        (re.compile(r"^/static/(members|docs)/"), "^(members|docs)/"),
        (re.compile(r"^/static/[^/]*\.pdf\Z"), ".*"),
        (re.compile(r"^/STATIC/MEMBERS/", re.IGNORECASE), ".*"),
        (re.compile(r"^/staticx?/members/"), ".*"),
        (re.compile(r"^/static/(?:docs)?a"), ".*"),
        (re.compile(r"^/api/v\d+"), "^$"),
        (re.compile(r"^/api/|/members/"), "(^|/)members/"),
        ("/api/**", "^$"),
        ("/static/`**", ".*"),
        ("/static/`*.css", ".*"),
        ("endpoint:static", ".*"),
        ("endpoint:other", "^$"),
        ("method:GET", ".*"),
        ("method:POST", "^$"),
        (lambda request: False, ".*"),
    ],
)
@pytest.mark.filterwarnings("ignore:The session rule")
def test_what_a_rule_takes_back(folder: Path, pattern: Any, taken: str) -> None:
    """The files that a rule matches go to the app, and all of them where its pattern cannot be translated."""
    expected = {name for name in ALL if not re.search(taken, name)}
    assert static_served(folder, (pattern, "normal")) == expected


@pytest.mark.parametrize(
    "rules",
    [
        [("endpoint:static", "skip"), ("/static/members/**", "normal")],
        [("/static/**", "skip"), (lambda request: True, "normal")],
        [(lambda request: False, "skip")],
        [("method:POST", "normal"), ("/static/docs/**", "skip")],
    ],
)
def test_rules_that_take_nothing_back(folder: Path, rules: Any) -> None:
    """Behind a rule that skips all files no other rule counts, and a rule that skips takes nothing back."""
    assert static_served(folder, *rules) == ALL


@pytest.mark.parametrize("first", ["/static/docs/**", "method:GET", re.compile("^/static/"), lambda request: True])
def test_a_rule_that_skips_some_files_does_not_hide_the_next(folder: Path, first: Any) -> None:
    """What is skipped by some requests only goes to the app where a later rule takes it back."""
    served = static_served(folder, (first, "skip"), ("/static/members/**", "normal"))
    assert served == {name for name in ALL if not name.startswith("members/")}


def guarded_by(protect: Any) -> Callable[[Flask, Path], None]:
    def register(app: Flask, folder: Path) -> None:
        outer, inner = blueprint_of("outer"), blueprint_of("inner", folder)
        protect(outer)
        outer.register_blueprint(inner)
        app.register_blueprint(outer)

    return register


def wrap(app: Flask, folder: Path) -> None:
    app.register_blueprint(blueprint_of("inner", folder))
    view = app.view_functions["inner.static"]
    app.view_functions["inner.static"] = lambda **values: view(**values)


def mark(app: Flask, folder: Path) -> None:
    app.register_blueprint(blueprint_of("inner", folder))
    app.view_functions["inner.static"] = session_mode("normal")(lambda filename: "")


@pytest.mark.filterwarnings("ignore:The session rule")
@pytest.mark.parametrize(
    ("protect", "reason"),
    [
        (guarded_by(guard_with_hook), "the blueprint 'outer' has a before_request hook"),
        (guarded_by(guard_with_preprocessor), "the blueprint 'outer' has a URL preprocessor"),
        (wrap, "its view is wrapped or overridden"),
        (mark, "@session_mode gives its view another mode than skip"),
    ],
)
def test_a_guarded_blueprint(folder: Path, protect: Callable[[Flask, Path], None], reason: str) -> None:
    """Its files go to the app, also where a rule of the app's own skips them; those of the app do not."""
    app = app_with(folder, rules=[("/**/files/**", "skip"), ("endpoint:*", "skip")])
    protect(app, folder)
    found = {location.url: location.reason for location in plan_of(app).locations}
    assert found.pop("/static/") is None
    assert list(found.values()) == [reason]


def test_an_overridden_app(folder: Path) -> None:
    """A subclass of Flask that guards its files sends them itself."""
    [location] = plan_of(app_with(folder, kind=GuardedApp)).locations
    assert location.reason == "its view is wrapped or overridden"


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("/static/members/<path:name>", "members/"),
        ("/static/docs/a.css", "docs/a.css"),
        ("/static/mem<name>/a.css", "mem"),
        ("/static/<int:number>", ""),
        ("/static/<name>", ""),
        ("/static/`<name>", ""),
    ],
)
def test_a_view_among_the_files(folder: Path, rule: str, kept: str) -> None:
    """A route that is more specific than the static one may have a guard: its paths go to the app."""
    app = app_with(folder)
    app.add_url_rule(rule, "view", lambda **values: "a page")
    served = {path.removeprefix("/static/") for path in served_by(plan_of(app)) if path.startswith("/static/")}
    assert served == {name for name in ALL if not name.startswith(kept)}


def test_the_longest_url_decides(folder: Path) -> None:
    """The files of a guarded blueprint whose URL is within that of the app's files are not sent."""
    app = app_with(folder)
    inner = Blueprint("inner", "inner", static_folder=str(folder), url_prefix="/static", static_url_path="/docs")
    guard_with_hook(inner)
    app.register_blueprint(inner)
    plan = plan_of(app)
    assert [plan.serves(f"/static/{name}") for name in ("a.css", "docs/a.css", "docsx/a.css")] == [True, False, True]


class Anything(BaseConverter):
    regex = ".*"
    part_isolating = False


def replace_converter(app: Flask) -> None:
    app.url_map.converters["path"] = Anything


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"static_url_path": ""}, None),
        ({"static_url_path": "/<lang>/static"}, None),
        ({"static_url_path": "/a`b"}, None),
        ({"static_url_path": "/.well-known"}, None),
        ({"static_host": "files.shop.example", "host_matching": True}, None),
        ({"subdomain_matching": True}, None),
        ({}, replace_converter),
    ],
)
def test_routes_without_a_location(folder: Path, options: dict[str, Any], change: Any) -> None:
    """Where it is not certain which requests are for files, the app gets all of them, and a comment says so."""
    app = app_with(folder, **options)
    if change is not None:
        change(app)
    plan = plan_of(app)
    assert (plan.locations, len(plan.without)) == ((), 1)


def test_another_route_of_the_same_endpoint(folder: Path) -> None:
    """A single file at another URL is no folder."""
    app = app_with(folder)
    app.add_url_rule("/robots.txt", "static", defaults={"filename": "a.css"})
    assert plan_of(app).without == ("static (/robots.txt): it is not a folder of files",)


def test_two_folders_with_one_url(folder: Path) -> None:
    """The route that Flask would choose has the location."""
    app = app_with(folder)
    app.register_blueprint(Blueprint("aside", "aside", static_folder=str(folder), static_url_path="/static"))
    plan = plan_of(app)
    assert [location.endpoint for location in plan.locations] == ["static"]
    assert plan.without == (
        "aside.static (/static/<path:filename>): another route has the same URL, and gets the requests",
    )
    assert plan.serves("/static/a.css")


@pytest.mark.parametrize("name", ["$shop", "a{b}", "a`b", "a\\b", "a\nb"])
def test_a_folder_that_no_configuration_can_hold(tmp_path: Path, name: str) -> None:
    """Files of a folder whose name a server would read as something else are sent by the app."""
    app = app_with(tmp_path / name)
    [location] = plan_of(app).locations
    assert location.reason == "the name of its folder has a special character"
    assert configuration_of(app, rules_of(app), "127.0.0.1:8000").internal == {}


def test_a_folder_behind_a_link(tmp_path: Path) -> None:
    """The folder is the one that Flask opens: with "current" a link to "releases/1", "current/.." is "releases"."""
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "releases" / "static").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "releases" / "1")
    for name, found in (("current/../static", "releases/static"), ("current/static", "current/static")):
        [location] = plan_of(app_with(tmp_path / name)).locations
        assert location.folder == str(tmp_path / found)


def test_each_folder_has_a_protected_path_of_its_own(tmp_path: Path) -> None:
    """Also where the names of two blueprints differ only in odd characters: each guards its own files."""
    app = app_with(tmp_path / "static")
    names = ("ü", "ö", "my admin", "my_admin", "my~20~admin", "a\nb")
    for number, name in enumerate(names):
        inner = Blueprint(name, "inner", static_folder=str(tmp_path / str(number)), url_prefix=f"/{number}")
        guard_with_hook(inner)
        app.register_blueprint(inner)
    internal = configuration_of(app, rules_of(app), "127.0.0.1:8000").internal
    assert sorted(internal.values()) == [str(tmp_path / str(number)) for number in range(len(names))]
    assert all(re.fullmatch(r"/_protected/[\w.~-]+/", url, re.ASCII) for url in internal)


@pytest.mark.parametrize(
    ("age", "said"), [(None, "no-cache"), (0, "no-cache, max-age=0"), (3600, "public, max-age=3600")]
)
def test_cache_headers(folder: Path, age: int | None, said: str) -> None:
    """They are Flask's own."""
    app = app_with(folder, SEND_FILE_MAX_AGE_DEFAULT=age)
    with app.test_client() as client:
        assert client.get("/static/a.css", buffered=True).headers["Cache-Control"] == said
    assert plan_of(app).locations[0].cache_control == said


def test_no_hook_runs(folder: Path) -> None:
    """A hook for the end of a request may need what another prepared, and here is no request."""
    app = app_with(folder, rules=[("endpoint:other", "normal"), ("blueprint:other", "normal")])
    app.teardown_request(lambda _error: pytest.fail("a hook ran"))
    assert plan_of(app).serves("/static/a.css")


def test_an_age_of_its_own(folder: Path) -> None:
    """What get_send_file_max_age returns for each file is not known: the file is asked for each time."""

    class Shop(Flask):
        def get_send_file_max_age(self, filename: str | None) -> int | None:
            return 60

    [location] = plan_of(app_with(folder, kind=Shop)).locations
    assert location.cache_control == "no-cache"
    assert "get_send_file_max_age is overridden" in location.note


def test_hooks_and_middleware_are_named(folder: Path) -> None:
    """A person can see what does not run, and no value of the app is printed."""

    class Shop(Flask):
        def dispatch_request(self) -> Any:
            return super().dispatch_request()

    def load_user() -> None: ...

    app = app_with(folder, kind=Shop)
    app.before_request(load_user)
    app.after_request(lambda response: response)
    app.wsgi_app = SimpleNamespace(key="secret", __call__=app.wsgi_app)  # type: ignore[assignment]
    named = " ".join(configuration_of(app, rules_of(app), "").passed_over)
    for part in (
        "before_request: ",
        ".load_user",
        "after_request: ",
        "WSGI middleware: types.SimpleNamespace",
        ".Shop.dispatch",
    ):
        assert part in named
    assert "secret" not in named
    assert "lazysession." not in named


# Any rules, any routes

segment = st.sampled_from(
    ["static", "members", "docs", "admin", "files", "a.css", "b.pdf", "x", "ü.txt", "*", "**", "?.txt"]
)
glob = st.lists(segment, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))
below = st.sampled_from(["/static/", "/static/docs/", "/admin/files/", "/stat", "/"])
tail = st.sampled_from(
    ["**", "*", "*.css", "members/**", "**/members/**", "?.css", "a.css", "*/*", "???.txt", "", "**.*"]
)
globs = glob | st.builds(str.__add__, below, tail)
regexes = st.sampled_from(
    [
        r"\.pdf$", r"^/static/members/", r"^/static/", r"^/(static|admin)/docs/", r"members", r"^/api/", r".*",
        r"^/static/[^/]*\.css$", r"^/static/.\.css", r"^/stat(ic)?/members", r"\w\.txt$", r"^/static/(?!docs)",
        r"^/static/members?/", r"(?i)MEMBERS", r"^/staticx*/", r"/[a-z]\.css$", r"^/static/.*a.*\Z", r"^/admin",
        "[^a]*.css",         r"^/x|/members/", r"^/static/(docs|members)/.*", r"\A/static/docs/",
    ]
).map(re.compile)  # fmt: skip
names = st.sampled_from(
    ["endpoint:static", "endpoint:*", "endpoint:admin.*", "endpoint:*static", "blueprint:admin", "blueprint:a*",
     "method:GET", "method:HEAD", "method:POST", "endpoint:other"]
)  # fmt: skip


def ends_with_css(req: Any) -> bool:
    return bool(req.path.endswith(".css"))


functions = st.sampled_from([ends_with_css, lambda req: False, lambda req: "admin" in req.path])
rule_pairs = st.tuples(
    globs | regexes | names | functions, st.sampled_from(["normal", "readonly", "no_refresh", "skip"])
)
routes = st.sampled_from(
    ["/static/members/<path:name>", "/static/<int:number>", "/static/docs/a.css", "/static/mem<x>", "/<path:any>",
     "/<one>/<two>", "/static/admin/<name>", "/stat<x>/a.css", "/static/docs/members/<path:filename>", "/static/a.css"]
)  # fmt: skip
prefixes = st.sampled_from([None, "/admin", "/static/docs", "/static", "/static/members"])


@st.composite
def apps(draw: st.DrawFn) -> Callable[[Path], Flask]:
    pairs = draw(st.lists(rule_pairs, max_size=4))
    extra = draw(st.lists(routes, max_size=2, unique=True))
    blueprints = draw(
        st.lists(st.tuples(prefixes, st.sampled_from(["/files", "/static", "/x/y"]), st.booleans()), max_size=2)
    )
    skip_static, paths = draw(st.booleans() | st.just(True)), draw(st.lists(globs, max_size=1))

    def make(folder: Path) -> Flask:
        app = app_with(folder, rules=pairs, LAZYSESSION_SKIP_STATIC=skip_static, LAZYSESSION_SKIP_PATHS=paths)
        for number, rule in enumerate(extra):
            app.add_url_rule(rule, f"view{number}", lambda **values: "a page")
        for name, (prefix, url, guarded) in zip(("admin", "aside"), blueprints, strict=False):
            made = Blueprint(name, name, url_prefix=prefix, static_folder=str(folder), static_url_path=url)
            if guarded:
                guard_with_hook(made)
            app.register_blueprint(made)
        return app

    return make


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:The session rule")
@given(make=apps())
def test_only_skipped_files_are_served(folder: Path, make: Callable[[Path], Flask]) -> None:
    """The front server sends no file whose request the app would not skip."""
    app = make(folder)
    plan = plan_of(app)
    taken = [each.text for location in plan.locations for each in location.taken_back if not each.is_regex]
    urls = [location.url for location in plan.locations]
    assert len({*taken, *urls}) == len(taken) + len(urls)  # nginx refuses two locations with one name
    assert [path for path in served_by(plan) if not is_skipped(app, path.replace("%", "%25"))] == []


def test_each_printed_view_has_a_name_of_its_own() -> None:
    """Flask refuses two views with one name, and a name is one in Python."""
    taken: set[str] = set()
    urls = ["/static/a-b/", "/static/a_b/", "/static/a b/", "/static/m²/"]
    names = [_view_name(url, taken) for url in urls]
    assert len(set(names)) == len(urls)
    assert all(name.isidentifier() and name.isascii() for name in names)
