"""What ``flask lazysession nginx`` prints, in a real nginx and a real Caddy in front of the app, over HTTP."""

from __future__ import annotations

import gzip
import http.client
import importlib
import itertools
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlsplit

import pytest
from flask import Blueprint, Flask, abort, make_response, request, session
from hypothesis import HealthCheck, given, settings

from lazysession import LazySession
from lazysession.insight.locations import find_locations
from tests.behavior.test_front_servers import served
from tests.conftest import unless_missing
from tests.support.servers import (
    caddy_command,
    caddy_environment,
    caddy_with,
    free_port,
    nginx_command,
    nginx_with,
)
from tests.support.static_shop import guard_with_hook, log_in
from tests.unit.test_front_locations import FILES, STARTS, apps, served_by, write_tree

DEMO = Path(__file__).parents[2] / "docs" / "demo"
SERVERS = ("nginx", "caddy")
NAMES = (
    "site.css",
    "app.js",
    "logo.svg",
    "a b.txt",
    "50%.txt",
    "ü.json",
    "x.unknown",
    "plain",
    "data.tar.gz",
    "f.woff2",
)
#: What a server may read as something else; to Flask, a name with a line feed is not there.
ODD_NAMES = ("what?.txt", "a#b.txt", "a{b}.txt", "a$b.css", "line\nfeed.css")
TYPES = ("Content-Type", "Cache-Control", "Content-Length", "Content-Encoding", "Vary", "Set-Cookie")


class Seen(NamedTuple):
    """A response as it came over HTTP."""

    status: int
    body: bytes
    headers: Any


class Front:
    """A front server, and the app behind it."""

    def __init__(self, url: str, app: Flask) -> None:
        self.url, self.app = url, app

    def get(self, path: str, cookie: str = "", method: str = "GET") -> Seen:
        """Send a request with the path as it is."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            connection.request(method, path, headers={"Cookie": cookie} if cookie else {})
            response = connection.getresponse()
            return Seen(response.status, response.read(), response.headers)
        finally:
            connection.close()

    def log_in(self, name: str) -> str:
        """Log a visitor in and return the Cookie header that the browser then sends."""
        [cookie] = [each for each in self.get(f"/login/{name}").headers.get_all("Set-Cookie") if "session=" in each]
        return str(cookie).partition(";")[0]


OpenFront = Callable[..., Front]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The static files of a shop; its name needs quotes."""
    folder = tmp_path / "the 'shop'; static"
    for inside in ("", "members/", "members/deep/", "docs/", "club/static/"):
        (folder / inside).mkdir(parents=True)
        for name in NAMES:
            (folder / inside / name).write_text(f"{inside}{name}")
    (folder / "docs" / "index.html").write_text("not shown for the folder")
    (folder / ".dot.txt").write_text("Flask sends it")
    (folder / "link.css").symlink_to(folder / "site.css")
    for name in ODD_NAMES:
        (folder / name).write_text(name)
    (folder / "members-only.txt").write_text("for members")
    (tmp_path / "secret.txt").write_text("outside")
    return folder


@pytest.fixture
def app(folder: Path) -> Flask:
    """A shop: files for members in the static folder, and those of a guarded blueprint."""
    return shop(folder)


def shop(folder: Path, **settings: Any) -> Flask:
    app = Flask("shop", static_folder=str(folder), static_url_path="/static")
    app.config.update(SECRET_KEY="key", **settings)
    app.config["LAZYSESSION_RULES"] = [
        ("/static/members/**", "normal"),
        ("/static/**/?.json", "readonly"),
        (re.compile(r"^/static/.*\.unknown$"), "normal"),
        ("/static/members-only.txt", "normal"),
    ]
    LazySession(app)

    @app.before_request
    def guard() -> None:
        if request.path.startswith(("/static/members/", "/static/members-only")) and "user" not in session:
            abort(403)

    app.add_url_rule("/login/<name>", "login", log_in)
    app.add_url_rule("/static/docs/site.css", "view", lambda: "a view")
    app.register_error_handler(404, lambda _error: ("No such tea", 404))
    members = Blueprint(
        "members",
        "members",
        static_folder=str(folder / "members"),
        url_prefix="/static/club",
        static_url_path="/static",
    )
    guard_with_hook(members)
    app.register_blueprint(members)
    app.register_blueprint(Blueprint("docs", "docs", static_folder=str(folder / "docs"), static_url_path="/docs"))
    return app


def print_configuration(app: Flask, *options: str) -> str:
    result = app.test_cli_runner().invoke(args=["lazysession", "nginx", *options])
    assert result.exit_code == 0, result.output
    return str(result.output)


def configuration_for(server: str, app: Flask, port: int, upstream: str) -> str:
    """Print the configuration, and put in the port of the test."""
    text = print_configuration(app, "--upstream", upstream, *(["--caddy"] if server == "caddy" else []))
    shown, here = {
        "nginx": ("    listen 80;\n", f"    listen 127.0.0.1:{port};\n"),
        "caddy": (":80 {\n", f"http://127.0.0.1:{port} {{\n"),
    }[server]
    assert text.count(shown) == 1
    return text.replace(shown, here)


@pytest.fixture
def open_front(request: pytest.FixtureRequest, tmp_path: Path, close_connections: None) -> Generator[OpenFront]:
    """A function that starts a front server, and the app where that is not to be down."""
    with ExitStack() as running:

        def start(server: str, app: Flask, *, down: bool = False, change: Callable[[str], str] = str) -> Front:
            port = free_port()
            upstream = running.enter_context(nullcontext(f"127.0.0.1:{free_port()}") if down else served(app))
            text = change(configuration_for(server, app, port, upstream))
            with unless_missing(request):
                if server == "nginx":
                    running.enter_context(nginx_with(text, port))
                else:
                    running.enter_context(caddy_with(text, tmp_path, port))
            return Front(f"http://127.0.0.1:{port}", app)

        yield start


both_servers = pytest.mark.parametrize("server", SERVERS)


@both_servers
@pytest.mark.usefixtures("open_front")  # which "--fakes" looks for
def test_the_server_accepts_it(request: pytest.FixtureRequest, app: Flask, tmp_path: Path, server: str) -> None:
    """``nginx -t`` and ``caddy validate`` find nothing wrong."""
    text = configuration_for(server, app, free_port(), "127.0.0.1:1")
    with unless_missing(request):
        command = (
            [*nginx_command(tmp_path, text), "-t"] if server == "nginx" else caddy_command("validate", text, tmp_path)
        )
    done = subprocess.run(command, env=caddy_environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "not formatted" not in done.stderr


@pytest.mark.usefixtures("open_front")
@pytest.mark.parametrize("length", [46, 47, 200])
def test_nginx_accepts_long_content_types(
    request: pytest.FixtureRequest,
    app: Flask,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    length: int,
) -> None:
    """One that is too long for nginx's table of types with a charset is left out of it."""
    (folder / "score.osfpvg").write_text("music")
    name = f"application/{'x' * (length - 16)}+xml"
    found = {"": (None, None), "css": ("text/css", None), "osfpvg": (name, None)}
    monkeypatch.setattr("mimetypes.guess_type", lambda path: found.get(path.rpartition(".")[2], found[""]))
    text = configuration_for("nginx", app, free_port(), "127.0.0.1:1")
    assert (f"charset_types {name} text/css;" in text) is (length == 46)
    with unless_missing(request):
        command = [*nginx_command(tmp_path, text), "-t"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@both_servers
def test_it_serves_what_the_plan_says(open_front: OpenFront, app: Flask, folder: Path, server: str) -> None:
    """While the app is down, exactly the files that the plan gives to the front server are sent, unchanged."""
    front = open_front(server, app, down=True)
    plan = find_locations(app, app.session_interface.rules)  # type: ignore[attr-defined]
    starts = (
        "/static/",
        "/static/members/",
        "/static/docs/",
        "/static/club/static/",
        "/docs/",
        "/STATIC/",
        "/static/x/",
    )
    paths = [
        start + name
        for start in starts
        for name in (*NAMES, ".dot.txt", "link.css", "members/site.css", "members-only.txt", "")
    ]
    served_here = {path for path in paths if plan.serves(path) and is_file(plan, path)}
    assert {path for path in paths if front.get(quote(path)).status == 200} == served_here
    assert {"/static/site.css", "/static/50%.txt", "/static/.dot.txt", "/docs/site.css"} <= served_here
    assert not any("members" in path or "club" in path for path in served_here)


def is_file(plan: Any, path: str) -> bool:
    location = plan.location_of(path)
    return Path(location.folder, path.removeprefix(location.url)).is_file()


@pytest.mark.usefixtures("open_front")
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore:The session rule")
@given(make=apps())
def test_it_serves_what_the_plan_of_any_app_says(
    request: pytest.FixtureRequest, make: Callable[[Path], Flask]
) -> None:  # fmt: skip
    """nginx chooses locations as the plan does, for any routes and rules."""
    port = free_port()
    with unless_missing(request), tempfile.TemporaryDirectory() as name:
        write_tree(Path(name))
        app = make(Path(name))
        plan = find_locations(app, app.session_interface.rules)  # type: ignore[attr-defined]
        with nginx_with(configuration_for("nginx", app, port, "127.0.0.1:1"), port):
            front = Front(f"http://127.0.0.1:{port}", app)
            paths = [start + file for start in STARTS for file in FILES]
            sent = [path for path in paths if front.get(quote(path)).status == 200]
            assert sent == served_by(plan)


@both_servers
def test_the_same_through_both_doors(open_front: OpenFront, folder: Path, server: str) -> None:
    """Status, headers and bytes of each file are those of Flask, for a visitor without a session."""
    for age in (None, 60):
        front = open_front(server, shop(folder, SEND_FILE_MAX_AGE_DEFAULT=age))
        names = [
            *NAMES,
            *ODD_NAMES,
            ".dot.txt",
            "link.css",
            "no.css",
            "docs",
            "docs/",
            "docs/site.css",
            "members/site.css",
            "\\site.css",
            "*.css",
            "[s]ite.css",
        ]
        for path in [f"/static/{quote(name)}" for name in names] + ["/static/club/static/site.css", "/docs/site.css"]:
            seen, flask = front.get(path), front.app.test_client().get(path, buffered=True)
            assert (seen.status, seen.body) == (flask.status_code, flask.data), path
            assert {name: seen.headers[name] for name in TYPES} == {name: flask.headers.get(name) for name in TYPES}, (
                path
            )
        if server == "nginx":
            assert front.get("/static/site.css").headers["ETag"].count("-") == 1  # that of nginx, not of Flask


@both_servers
def test_a_compressed_file_arrives_as_it_is(open_front: OpenFront, app: Flask, folder: Path, server: str) -> None:
    """Also at a client without Accept-Encoding, such as a program that downloads archives."""
    archive = gzip.compress(b"tea")
    (folder / "tea.tar.gz").write_bytes(archive)
    connection = http.client.HTTPConnection(urlsplit(open_front(server, app).url).netloc, timeout=30)
    connection.putrequest("GET", "/static/tea.tar.gz", skip_accept_encoding=True)
    connection.endheaders()
    response = connection.getresponse()
    assert (response.read(), response.headers["Content-Encoding"]) == (archive, "gzip")
    connection.close()


@both_servers
def test_other_methods_go_to_the_app(open_front: OpenFront, app: Flask, server: str) -> None:
    """The front server has GET and HEAD only."""
    front = open_front(server, app)
    for method, status in (("POST", 405), ("DELETE", 405), ("PUT", 405), ("OPTIONS", 200)):
        seen = front.get("/static/site.css", method=method)
        assert (seen.status, "OPTIONS" in seen.headers["Allow"]) == (status, True)
    assert front.get("/static/site.css", method="HEAD").headers["Content-Length"] == "8"


def is_rewritten(path: str) -> bool:
    """Return whether a path has ".." or ".", which Flask removes after the hook of the app has compared the path."""
    return "/." in path or "%2e" in path or "/..%2F" in path


DETOURS = [
    "/static//members/site.css",
    "/static/./members/site.css",
    "/static/docs/../members/site.css",
    "/static/%6dembers/site.css",
    "/static/m*mbers/site.css",
    "/static/members%2Fsite.css",
    "/static%2Fmembers/site.css",
    "//static/members/site.css",
    "/static/docs/%2e%2e/members/site.css",
    "/docs/../static/members/site.css",
    "/docs/..%2Fmembers/site.css",
    "/STATIC/members/site.css",
    "/Static/members/site.css",
    "/static/members/site.css?x=1",
    "/static/site.css/../members/site.css",
    "/static/club/static/site.css",
    "/static/club/./static/site.css",
    "/static/../secret.txt",
    "/static/..%2Fsecret.txt",
    "/static/%2e%2e/secret.txt",
    "/static/members/site.css%00",
    "/static/members/site.css%3F",
    "/static;x/members/site.css",
    "/static/members\\site.css",
    *(f"/static/{{re.static{number}.1}}members-only.txt" for number in range(1, 5)),
    *(f"/static/%7Bre.static{number}.1%7Dmembers-only.txt" for number in range(1, 5)),
    "/static/{http.request.header.X}members-only.txt",
    "/static/{re.static3.1}members/site.css",
    "/static/members-only.txt/",
    "/static/members-only.txt/.",
    "/static/members-only.txt%0A",
    "/_protected/static/members/site.css",
    "/_protected/static/site.css",
    "/_protected/../_protected/static/site.css",
]


@both_servers
@pytest.mark.parametrize("down", [True, False])
def test_no_detour_leads_to_a_protected_file(open_front: OpenFront, app: Flask, server: str, down: bool) -> None:
    """The front server sends it to no visitor, and the app makes of each detour what it makes without one."""
    front = open_front(server, app, down=down)
    for path in DETOURS:
        seen = front.get(path)
        assert seen.status != 200 or (not down and is_rewritten(path)), path


def with_the_printed_view(app: Flask, *options: str) -> None:
    """Add the lines of the configuration's comment to the app."""
    text = print_configuration(app, *options)
    [lines] = re.findall(r"^ *#((?:from .*\n)(?:^ *#.*\n)+)", text, re.MULTILINE)
    code = re.sub(r"^ *#", "", lines, flags=re.MULTILINE)
    exec(code, {"app": app, "may_see": lambda name: "user" in session and name != "plain"})


@both_servers
def test_the_printed_view(open_front: OpenFront, app: Flask, server: str) -> None:
    """With the lines of the comment, members get the files from the front server, and others the refusal."""
    app.after_request(lambda response: response.set_cookie("renewed", "yes") or response)
    with_the_printed_view(app, *(["--caddy"] if server == "caddy" else []))
    front = open_front(server, app)
    ada, bob = front.log_in("ada"), front.log_in("bob")
    for name in ("site.css", "a b.txt", "50%.txt", "ü.json", "deep/app.js", "data.tar.gz"):
        seen = front.get(f"/static/members/{quote(name)}", ada)
        assert (seen.status, seen.body.decode()) == (200, f"members/{name}")
        assert seen.headers["X-Accel-Redirect"] is None
        assert seen.headers["Cache-Control"] == "private, no-cache"
        assert seen.headers["Set-Cookie"] == "renewed=yes; Path=/"
        flask_type = app.response_class(
            mimetype={"css": "text/css", "js": "text/javascript"}.get(name[-3:].strip("."), "")
        )
        if name.endswith((".css", ".js")):
            assert seen.headers["Content-Type"] == flask_type.headers["Content-Type"]
        assert [front.get(f"/static/members/{quote(name)}", cookie).status for cookie in ("", "session=x")] == [
            403,
            403,
        ]
    assert front.get("/static/club/static/site.css", ada).body == b"members/site.css"
    assert front.get("/static/club/static/site.css", bob).status == 403  # the blueprint is for Ada alone
    for path in ("plain", "deep/../plain", "deep/%2e%2e/plain", "deep/..%2Fplain", "./plain", "plain/"):
        assert front.get(f"/static/members/{path}", ada).status == 403, path  # may_see sees the file that is sent
    for path in ("no.css", "deep", "deep/", "."):
        seen = front.get(f"/static/members/{path}", ada)
        assert (seen.status, seen.headers["Location"]) == (404, None), path
    assert front.get("/static/site.css").body == b"site.css"


def test_the_printed_cache_for_pages(open_front: OpenFront, app: Flask, tmp_path: Path) -> None:
    """Without its '#', nginx keeps one page for visitors without a session, and no cookie and no page of a member."""

    @app.get("/hello")
    def hello() -> Any:
        if request.args:
            session["seen"] = True
        response = make_response(f"Hello {session.get('user')}")
        response.cache_control.public, response.cache_control.max_age = True, 60
        return response

    def change(text: str) -> str:
        text = re.sub(r"^ *#from (?:.*\n +#)*.*\n", "", text, flags=re.MULTILINE)  # the lines of Python
        return re.sub(r"^( *)#(?=\S|    )", r"\1", text, flags=re.MULTILINE).replace("/var/cache/nginx", str(tmp_path))

    front = open_front("nginx", app, change=change)
    ada = front.log_in("ada")
    cookies = [
        "",
        "seen=1",
        "my_session=1",
        ada,
        f"a=1;\t{ada}",
        f"a=1;{ada}",
        f"\x85{ada}",
        ada.replace("=", " ="),
        "",
    ]
    pages = [front.get("/hello", cookie) for cookie in cookies]
    assert [page.headers["X-Cache"] for page in pages] == ["MISS", "HIT", "HIT", *["BYPASS"] * 5, "HIT"]
    assert [page.body for page in pages if page.headers["X-Cache"] == "HIT"] == [b"Hello None"] * 3
    new = [front.get("/hello?new", cookie) for cookie in ("", "", "seen=1")]
    assert [page.headers["X-Cache"] for page in new] == ["MISS"] * 3
    assert all("session=" in page.headers["Set-Cookie"] for page in new)


@both_servers
def test_the_shop_of_the_demo(open_front: OpenFront, tmp_path: Path, server: str) -> None:
    """Each of its files comes from the front server as Flask would send it, also while the app is down."""
    app = demo_shop(tmp_path)
    front = open_front(server, app, down=True)
    folder = Path(str(app.static_folder))
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert len(names) > 40
    for name in names:
        seen, flask = front.get(f"/static/{name}"), app.test_client().get(f"/static/{name}", buffered=True)
        assert (seen.status, seen.body) == (200, flask.data), name
        assert {each: seen.headers[each] for each in TYPES} == {each: flask.headers.get(each) for each in TYPES}, name
    up = open_front(server, app)
    result = app.test_cli_runner().invoke(args=["lazysession", "nginx", "--verify", up.url])
    assert (result.exit_code, result.output[-15:]) == (0, "no differences.\n"[-15:])


def demo_shop(folder: Path) -> Flask:
    """Return the shop of docs/demo, whose modules have names that other tests use as well."""
    before = set(sys.modules)
    sys.path.insert(0, str(DEMO))
    try:
        shop, stores = importlib.import_module("shop"), importlib.import_module("stores")
        store = stores.parse_store(f"sqlite:///{folder}/sessions.db")
        return cast("Flask", shop.create_app(store, stores.Sessions.LAZY))
    finally:
        sys.path = [path for path in sys.path if path != str(DEMO)]
        for name in set(sys.modules) - before:
            if str(DEMO) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


@both_servers
def test_verify_finds_no_difference(open_front: OpenFront, app: Flask, server: str) -> None:
    """Behind its own configuration, the app and the front server say the same."""
    front = open_front(server, app)
    result = app.test_cli_runner().invoke(args=["lazysession", "nginx", "--verify", front.url])
    assert (result.exit_code, result.output) == (0, "Compared 30 requests: no differences.\n")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "location ^~ /static/members/ {",
            "location ^~ /elsewhere/ {",
            "/static/members/plain: the status is 200 from",
        ),
        ('"no-cache"', '"no-store"', "/docs/site.css: Cache-Control is 'no-store' from the front server, 'no-cache'"),
        ("text/css css;", "text/plain css;", "/docs/site.css: Content-Type is 'text/plain; charset=utf-8' from"),
        ("try_files $uri @app;", "try_files $uri =410;", "/static/lazysession-verify.missing: the status is 410 from"),
        ("charset utf-8;", "add_header Set-Cookie a=b;", "/docs/site.css: the front server sets a cookie, the app"),
        ("the 'shop'; static/\";", "the 'shop'; static/docs/\";", "/static/app.js: the bytes of the file differ"),
        ("charset utf-8;", "add_header Vary Cookie;", "/docs/site.css: Vary is 'Cookie' from the front server, None"),
    ],
)
def test_verify_finds_a_difference(open_front: OpenFront, app: Flask, old: str, new: str, line: str) -> None:
    """Each line says what differs, the exit status is 1, and nothing secret is printed."""

    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    front = open_front("nginx", app, change=change)
    result = app.test_cli_runner().invoke(args=["lazysession", "nginx", "--verify", front.url])
    assert result.exit_code == 1
    assert line in result.output


@pytest.mark.parametrize(
    ("options", "config", "code", "message"),
    [
        (["--upstream", "shop; evil"], {}, 2, "'shop; evil' is neither HOST:PORT nor unix:/PATH."),
        (["--upstream", "unix:/run/shop.sock"], {}, 0, "server unix:/run/shop.sock;"),
        (["--caddy", "--upstream", "unix:/run/shop.sock"], {}, 0, "reverse_proxy unix//run/shop.sock {"),
        (["--verify", "file:///etc"], {}, 2, "it is not http://HOST or https://HOST, perhaps with a port."),
        (["--verify", "http://ada:key@shop.example"], {}, 2, "it is not http://HOST"),
        (["--verify", "http://shop.example/static"], {}, 2, "it is not http://HOST"),
        (["--verify", "http://shop.example:99999"], {}, 2, "it is not http://HOST"),
        (["--verify", "http://127.0.0.1:1"], {}, 1, "(ConnectionRefusedError)\nCompared 0 requests: 1 difference."),
        (["--verify", "http://shop..example"], {}, 1, "the request to the front server failed (Unicode"),
        (["--verify", "http://the shop"], {}, 1, "the request to the front server failed (InvalidURL)"),
        ([], {"APPLICATION_ROOT": "/shop"}, 1, "APPLICATION_ROOT is set"),
        ([], {"SESSION_COOKIE_NAME": "__Host-tea"}, 0, r"(__Host\\-tea)"),
    ],
)
def test_options(folder: Path, options: list[str], config: dict[str, Any], code: int, message: str) -> None:
    """A wrong option is refused, and no secret of a URL is repeated."""
    result = shop(folder, **config).test_cli_runner().invoke(args=["lazysession", "nginx", *options])
    assert (result.exit_code, message in result.output) == (code, True), result.output
    assert "key@" not in result.output


def test_verify_reads_no_more_than_it_compares(app: Flask) -> None:
    """A front server that sends a body without an end is a difference, and no use of all memory."""

    def send(_environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return itertools.repeat(b"x" * 1_000_000)

    with served(cast("Flask", send)) as address:
        result = app.test_cli_runner().invoke(args=["lazysession", "nginx", "--verify", f"http://{address}"])
    assert result.exit_code == 1
    assert "/docs/site.css: the bytes of the file differ" in result.output
