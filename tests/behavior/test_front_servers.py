"""The nginx configurations of the guides, in front of the apps that they show, over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from flask import Flask
from werkzeug.serving import make_server

from tests.conftest import unless_missing
from tests.support.pages import blocks_of, run_python
from tests.support.servers import free_port, nginx_for_test, nginx_with

GUIDES = Path(__file__).parents[2] / "docs" / "guides"
#: Which of a guide's blocks of Python is the app behind its nginx.
APPS = {"static-files": 2, "caches": 0}


class Seen(NamedTuple):
    """A response as it came over HTTP."""

    status: int
    text: str
    headers: Any


class Front:
    """An nginx with the configuration of a guide, in front of the guide's app.

    :param app: the app; without one, its port is closed.
    """

    def __init__(self, url: str, app: Flask | None) -> None:
        self.url, self.app = url, app

    def get(self, path: str, cookie: str = "") -> Seen:
        """Send a request through nginx."""
        try:
            response = urlopen(Request(self.url + path, headers={"Cookie": cookie} if cookie else {}), timeout=30)
        except HTTPError as error:
            response = error
        with response:
            return Seen(response.status, response.read().decode(), response.headers)

    def log_in(self, user: str) -> str:
        """Log a visitor in and return the Cookie header that the browser then sends."""
        with urlopen(Request(f"{self.url}/login/{user}", method="POST"), timeout=30) as response:
            return "; ".join(cookie.partition(";")[0] for cookie in response.headers.get_all("Set-Cookie"))


OpenFront = Callable[..., Front]


@pytest.fixture
def open_front(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, close_connections: None
) -> Generator[OpenFront]:
    """A function that starts the nginx of a guide, and its app where that is not to be down."""
    monkeypatch.chdir(tmp_path)  # the app's SQLite and its static folder
    with ExitStack() as running:

        def start(guide: str, *, down: bool = False) -> Front:
            config, app = read_guide(guide)
            port = free_port()
            upstream = f"127.0.0.1:{free_port()}" if down else running.enter_context(served(app))
            with unless_missing(request):
                running.enter_context(nginx_with(nginx_for_test(config, tmp_path, port, upstream), port))
            return Front(f"http://127.0.0.1:{port}", None if down else app)

        yield start


def read_guide(name: str) -> tuple[str, Flask]:
    """Return a guide's configuration of nginx, and the app behind it."""
    blocks = blocks_of(name, (GUIDES / f"{name}.rst").read_text(encoding="utf-8"))
    names: dict[str, Any] = {"__name__": "shop"}
    run_python(names, [block for block in blocks if block.language == "python"][APPS[name]])
    for block in blocks:
        if block.language == "nginx":
            return block.source, names["app"]
    # The guide shows what the command prints: test_docs.py compares them.
    return names["app"].test_cli_runner().invoke(args=["lazysession", "nginx"]).output, names["app"]


@contextmanager
def served(app: Flask) -> Generator[str]:
    """Serve an app in threads, and yield its ``host:port``."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestStaticFiles:
    """The guide to static files."""

    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path) -> None:
        """A public file, and two for members."""
        (tmp_path / "static" / "members").mkdir(parents=True)
        for name in ("site.css", "members/plan.txt", "members/50% für Ada.txt"):
            (tmp_path / "static" / name).write_text(f"the file {name}")
        (tmp_path / "sessions.txt").write_text("outside of the folder")

    def test_files_are_served_while_the_app_is_down(self, open_front: OpenFront) -> None:
        """They have an age, and neither a cookie nor Vary."""
        front = open_front("static-files", down=True)
        seen = front.get("/static/site.css", "session=any")
        assert (seen.status, seen.text) == (200, "the file site.css")
        assert seen.headers["Content-Type"] == "text/css; charset=utf-8"
        assert seen.headers["Cache-Control"] == "public, max-age=3600"
        assert (seen.headers["Set-Cookie"], seen.headers["Vary"]) == (None, None)
        assert front.get("/static/members/plan.txt").status == 502

    def test_a_missing_file_is_the_404_of_the_app(self, open_front: OpenFront) -> None:
        """It has no age: the file may be there soon."""
        front = open_front("static-files")
        assert front.app is not None
        front.app.register_error_handler(404, lambda _error: ("No such tea", 404))
        seen = front.get("/static/oolong.css")
        assert (seen.status, seen.text, seen.headers["Cache-Control"]) == (404, "No such tea", None)

    @pytest.mark.parametrize("name", ["plan.txt", "50%25%20f%C3%BCr%20Ada.txt"])
    def test_protected_files_are_for_members(self, open_front: OpenFront, name: str) -> None:
        """nginx sends the file itself, and a shared cache must not store it."""
        front = open_front("static-files")
        assert front.app is not None
        front.app.after_request(lambda response: response.set_cookie("renewed", "yes") or response)
        cookie = front.log_in("Ada")
        seen = front.get(f"/static/members/{name}", cookie)
        assert seen.status == 200
        assert seen.text.startswith("the file members/")
        assert seen.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert seen.headers["Cache-Control"] == "private, no-cache"
        assert (seen.headers["Set-Cookie"], seen.headers["Vary"]) == ("renewed=yes; Path=/", None)
        assert seen.headers["X-Accel-Redirect"] is None
        assert [front.get(f"/static/members/{name}", sent).status for sent in ("", "session=unknown")] == [403, 403]

    @pytest.mark.parametrize(
        "path",
        [
            "/_protected/static/members/plan.txt",
            "/static/..%2Fsessions.txt",
            "/static/members/..%2F..%2Fsessions.txt",
            "/static/%2e%2e/sessions.txt",
            "/static/members/no.txt",
        ],
    )
    def test_no_other_way_leads_to_a_file(self, open_front: OpenFront, path: str) -> None:
        """Also for a member: not the internal path, and none out of the folder."""
        front = open_front("static-files")
        assert front.get(path, front.log_in("Ada")).status == 404


class TestCaches:
    """The guide to caches."""

    @pytest.fixture
    def front(self, open_front: OpenFront) -> Front:
        """The nginx with a cache."""
        return open_front("caches")

    def test_one_copy_for_all_visitors(self, front: Front) -> None:
        """Of a page that does not use the session."""
        cookies = ["", front.log_in("Ada"), front.log_in("Bob"), "session=unknown"]
        pages = [front.get("/tea/oolong", cookie) for cookie in cookies]
        assert [page.headers["X-Cache"] for page in pages] == ["MISS", "HIT", "HIT", "HIT"]
        assert {page.text for page in pages} == {"All about oolong"}

    def test_one_copy_for_all_without_a_session(self, front: Front) -> None:
        """Of a page that uses the session; other cookies do not matter, and members have their own page."""
        cookies = ["", "seen=1", "my_session=1; seen=2", front.log_in("Ada"), "a=1; remember_token=1", "seen=3"]
        pages = [front.get("/hello", cookie) for cookie in cookies]
        assert [page.headers["X-Cache"] for page in pages] == ["MISS", "HIT", "HIT", "BYPASS", "BYPASS", "HIT"]
        assert [page.text for page in pages] == ["Hello visitor"] * 3 + ["Hello Ada"] + ["Hello visitor"] * 2

    def test_a_page_of_a_member_is_not_kept(self, front: Front) -> None:
        """A member is the first who asks, in whatever form: the next visitor does not get this page."""
        ada, bob = front.log_in("Ada"), front.log_in("Bob")
        pages = [front.get("/hello", cookie) for cookie in (ada, bob, f"a=1;\t{ada}", ada.replace("=", " =", 1), "")]
        assert [page.text for page in pages] == ["Hello Ada", "Hello Bob", "Hello Ada", "Hello Ada", "Hello visitor"]

    def test_a_cookie_never_comes_from_the_cache(self, front: Front) -> None:
        """Each visitor gets a session of their own, also from a page that says it is public."""
        ada = front.log_in("Ada")
        pages = [front.get(path, cookie) for path in ("/basket/oolong", "/me") for cookie in ("", "", ada, ada)]
        assert [page.headers["X-Cache"] for page in pages] == ["MISS"] * 8
        new = [page.headers["Set-Cookie"] for page in pages[:2]]
        assert None not in new
        assert new[0] != new[1]
