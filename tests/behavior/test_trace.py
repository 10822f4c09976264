"""Who used the session: the header and the signal name the app's own line, not that of the library which it called."""

from __future__ import annotations

import functools
import inspect
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Generator
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from flask import Blueprint, Flask, abort, flash, render_template, render_template_string, session, stream_with_context
from flask.views import MethodView, View
from flask_login import LoginManager, UserMixin, current_user, login_required
from jinja2 import DictLoader, ModuleLoader

from lazysession import session_opened
from tests.support.stores import FakeRedisStore

ROOT = Path(__file__).parents[2]
MakeApp = Callable[..., Flask]

EXTENSION = '''
"""Stands for an extension: it looks at the session in each of the ways in which extensions do."""
from functools import wraps
from flask import session

def who():
    return _look()

def _look():
    return str(session.get("user"))

def offer():
    return {"who_is_it": who()}

def before():
    who()

def after(response):
    who()
    return response

def guarded(view):
    @wraps(view)
    def inside(*arguments, **named):
        who()
        return view(*arguments, **named)
    return inside

def page():
    return str(session.get("user"))

def hear(*_, **__):
    who()

def lines():
    yield who()

def deep(times):
    return deep(times - 1) if times else who()
'''


@pytest.fixture
def extension(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[ModuleType]:
    """An extension that is installed: its file is in a folder named site-packages."""
    folder = tmp_path / "env" / "site-packages"
    folder.mkdir(parents=True)
    (folder / "flask_fancy.py").write_text(EXTENSION)
    monkeypatch.syspath_prepend(folder)
    invalidate_caches()
    yield import_module("flask_fancy")
    sys.modules.pop("flask_fancy", None)


@pytest.fixture
def app(memory_app: MakeApp) -> Flask:
    return memory_app(LAZYSESSION_TRACE=True)


def timing(app: Flask, path: str = "/") -> str:
    """Return what the header says between "loaded by" and the time."""
    headers = app.test_client().get(path).headers
    found = re.fullmatch(r'session;desc="loaded by (.*) in [\d.]+ ms \w+"', headers.get("Server-Timing", ""))
    assert found is not None, headers
    return found[1]


def line_of(function: Any, text: str) -> int:
    """Return the number of the line of a function that holds a text."""
    lines, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(lines) if text in line)


def templates(app: Flask, **sources: str) -> None:
    app.jinja_env.loader = DictLoader({f"{name}.html": source for name, source in sources.items()})


def log_in_lazily(app: Flask) -> None:
    """Set up Flask-Login as its documentation does."""
    manager = LoginManager(app)

    class User(UserMixin):
        id = "1"

    manager.user_loader(lambda user_id: User())


HERE = __name__


class TestTheAppAlone:
    """Code of the app that uses the session itself."""

    def test_an_own_decorator(self, app: Flask) -> None:
        """A decorator of the app is the app's own line."""

        def guard(view: Any) -> Any:
            @functools.wraps(view)
            def inside() -> Any:
                return view() if session.get("user") else "no"

            return inside

        app.add_url_rule("/", view_func=guard(lambda: "yes"))
        assert timing(app) == f"{HERE}:inside:{line_of(guard, 'session.get')}"

    def test_functions_of_the_app(self, app: Flask) -> None:
        """A template that calls a function of the app: the function is the line that uses the session."""
        app.add_template_global(own_function, "own")
        app.add_url_rule("/", view_func=lambda: render_template_string("{{ own() }}"))
        assert timing(app) == f"{HERE}:own_function:{line_of(own_function, 'session')}"


class TestViews:
    """Code of the app, with or without a library in between."""

    @pytest.mark.parametrize("name", ["who", "_look"])
    def test_through_an_extension(self, app: Flask, extension: Any, name: str) -> None:
        """The app's line comes first, then the library's function that asked for the session."""

        @app.route("/")
        def view() -> str:
            return str(getattr(extension, name)())

        assert timing(app) == f"{HERE}:view:{line_of(view, 'getattr')} via flask_fancy:_look"

    def test_flask_login(self, app: Flask) -> None:
        """The user of Flask-Login, which loads it by three functions of its own."""
        log_in_lazily(app)

        @app.route("/")
        def view() -> str:
            return str(current_user.is_authenticated)

        received = timing(app)
        assert re.fullmatch(rf"{HERE}:view:{line_of(view, 'current_user')} via flask_login\.\w+:\w+", received)

    def test_flashed_messages(self, app: Flask) -> None:
        """A function of Flask is named as well, as it shows what the line does."""

        @app.route("/")
        def view() -> str:
            flash("hello")
            return ""

        assert timing(app) == f"{HERE}:view:{line_of(view, 'flash(')} via flask.helpers:flash"

    def test_jsonify(self, app: Flask) -> None:
        """A function of the standard library is not named."""

        @app.route("/")
        def view() -> Any:
            return app.json.response(session)

        assert timing(app).startswith(f"{HERE}:view:{line_of(view, 'app.json')}")
        assert "json.encoder" not in timing(app)

    def test_a_decorator_of_a_library(self, app: Flask, extension: Any) -> None:
        """It is named with the view that it decorates, as it has run before any line of that view."""

        @app.route("/")
        @extension.guarded
        def view() -> str:
            return "yes"

        number = line_of(extension.guarded, "who()")
        assert re.fullmatch(
            rf"extension flask_fancy:inside:{number} for {HERE}:view:\d+ via flask_fancy:_look", timing(app)
        )

    def test_login_required(self, app: Flask) -> None:
        """So is Flask-Login's, also around a view in a class."""
        log_in_lazily(app)

        class Account(View):
            decorators = [login_required]

            def dispatch_request(self) -> str:
                return ""

        app.add_url_rule("/", view_func=Account.as_view("account"))
        assert re.match(r"extension flask_login\.utils:decorated_view:\d+ for .*:Account\b", timing(app))

    @pytest.mark.parametrize("kind", [View, MethodView])
    def test_views_in_classes(self, app: Flask, extension: Any, kind: Any) -> None:
        """The method of the class is the app's line."""

        class Account(kind):  # type: ignore[misc]
            def dispatch_request(self) -> str:
                return str(extension.who())

        app.add_url_rule("/", view_func=Account.as_view("account"))
        number = line_of(Account.dispatch_request, "who()")
        assert timing(app) == f"{HERE}:dispatch_request:{number} via flask_fancy:_look"

    def test_async_views(self, app: Flask, extension: Any) -> None:
        """They run in a loop, maybe in another thread: their line is the innermost all the same."""

        @app.route("/")
        async def view() -> str:
            return str(extension.who())

        assert timing(app) == f"{HERE}:view:{line_of(view, 'who()')} via flask_fancy:_look"

    def test_hooks_and_handlers_of_the_app(self, app: Flask, extension: Any) -> None:
        """Functions before a blueprint's requests, and error handlers, are the app's as well."""
        pages = Blueprint("pages", __name__)

        @pages.before_request
        def load() -> None:
            extension.who()

        @app.errorhandler(418)
        def teapot(error: Exception) -> str:
            return str(extension.who())

        pages.add_url_rule("/page", "page", lambda: "")
        app.add_url_rule("/tea", "tea", lambda: abort(418))
        app.register_blueprint(pages)
        assert timing(app, "/page") == f"{HERE}:load:{line_of(load, 'who()')} via flask_fancy:_look"
        assert timing(app, "/tea") == f"{HERE}:teapot:{line_of(teapot, 'who()')} via flask_fancy:_look"

    def test_a_receiver_of_an_extension(self, app: Flask, extension: Any) -> None:
        """An extension receives a signal that the app sends: the app's line is named."""
        from blinker import Signal

        sent = Signal()
        sent.connect(extension.hear)

        @app.route("/")
        def view() -> str:
            sent.send(app)
            return ""

        assert timing(app) == f"{HERE}:view:{line_of(view, 'sent.send')} via flask_fancy:_look"

    def test_the_signal(self, app: Flask, extension: Any) -> None:
        """Receivers that take it get the text of the header, which is empty where nothing is traced."""
        app.add_url_rule("/", view_func=lambda: extension.who())
        heard: list[str] = []

        def record(sender: Flask, origin: str, **_: Any) -> None:
            heard.append(origin)

        def without(sender: Flask, session: Any, mode: str, rule: str) -> None:
            heard.append(f"{mode} {rule}")

        with session_opened.connected_to(without, sender=app):
            timing(app)
        assert heard == ["normal default"]
        heard.clear()
        with session_opened.connected_to(record, sender=app):
            received = timing(app)
            app.session_interface.trace = False  # type: ignore[attr-defined]
            app.test_client().get("/")
        assert heard == [received, ""]


class TestExtensions:
    """Use of the session by an extension alone is reported as such."""

    @pytest.mark.parametrize("hook", ["before", "after"])
    def test_hooks(self, app: Flask, extension: Any, hook: str) -> None:
        """The function that the extension has registered is named, not what it calls."""
        getattr(app, f"{hook}_request")(getattr(extension, hook))
        app.add_url_rule("/", view_func=lambda: "")
        number = line_of(getattr(extension, hook), "who()")
        assert timing(app) == f"extension flask_fancy:{hook}:{number} via flask_fancy:_look"

    def test_context_processors(self, app: Flask, extension: Any) -> None:
        """They run for a line that renders a template, which is named as well."""
        app.context_processor(extension.offer)
        templates(app, page="plain")

        @app.route("/")
        def view() -> str:
            return render_template("page.html")

        number, line = line_of(extension.offer, "who()"), line_of(view, "render_template")
        assert timing(app) == f"extension flask_fancy:offer:{number} for {HERE}:view:{line} via flask_fancy:_look"

    def test_views(self, app: Flask, extension: Any) -> None:
        """A page of the extension's own."""
        app.add_url_rule("/", view_func=extension.page)
        assert timing(app) == f"extension flask_fancy:page:{line_of(extension.page, 'session')}"

    def test_streams(self, app: Flask, extension: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """A generator runs when the view has returned; the server's call is none of the app's lines."""
        app.add_url_rule("/", view_func=lambda: app.response_class(stream_with_context(extension.lines())))
        heard: list[str] = []
        app.add_url_rule("/own", "own", lambda: app.response_class(stream_with_context(own_lines())))

        def own_lines() -> Generator[str]:
            yield extension.who()

        def record(sender: Flask, origin: str, **_: Any) -> None:
            heard.append(origin)

        with session_opened.connected_to(record, sender=app):
            for path in ("/", "/own"):
                assert app.test_client().get(path).text == "None"
        number = line_of(extension.lines, "who()")
        assert heard[0] == f"extension flask_fancy:lines:{number} via flask_fancy:_look"
        assert heard[1] == f"{HERE}:own_lines:{line_of(own_lines, 'who()')} via flask_fancy:_look"

    def test_a_deep_stack(self, app: Flask, extension: Any) -> None:
        """The walk ends after some hundred frames."""
        app.before_request(lambda: None)
        app.before_request(functools.partial(extension.deep, 600))
        app.add_url_rule("/", view_func=lambda: "")
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(2000)
        try:
            assert timing(app).startswith("extension flask_fancy:deep:")
        finally:
            sys.setrecursionlimit(limit)


class TestTemplates:
    """A template's own line."""

    def look(self, app: Flask, extension: Any, path: str = "page.html", **sources: str) -> str:
        app.jinja_env.globals["who"] = extension.who
        templates(app, **sources)
        app.add_url_rule("/", view_func=lambda: render_template(path))
        return timing(app)

    def test_a_line(self, app: Flask, extension: Any) -> None:
        """Name and line, and the function that it called."""
        received = self.look(app, extension, page="one\ntwo\n{{ who() }}")
        assert received == "template page.html:3 via flask_fancy:_look"

    def test_the_session_itself(self, app: Flask, extension: Any) -> None:
        """Nothing of Jinja is named."""
        assert self.look(app, extension, page="one\n{{ session.user }}") == "template page.html:2"

    def test_flashed_messages(self, app: Flask, extension: Any) -> None:
        """The loop over messages, as each layout has it, in the layout that a page extends."""
        received = self.look(
            app,
            extension,
            page="{% extends 'layout.html' %}\n{% block body %}{% endblock %}",
            layout="one\n{% for each in get_flashed_messages() %}{{ each }}{% endfor %}{% block body %}{% endblock %}",
        )
        assert received == "template layout.html:2 via flask.helpers:get_flashed_messages"

    def test_a_block(self, app: Flask, extension: Any) -> None:
        """A block of the page, which its layout calls."""
        received = self.look(
            app,
            extension,
            page="{% extends 'layout.html' %}\n\n{% block body %}\n{{ who() }}{% endblock %}",
            layout="{% block body %}{% endblock %}",
        )
        assert received == "template page.html:4 via flask_fancy:_look"

    def test_included(self, app: Flask, extension: Any) -> None:
        """A template that another one includes."""
        received = self.look(app, extension, page="{% include 'menu.html' %}", menu="\n\n{{ who() }}")
        assert received == "template menu.html:3 via flask_fancy:_look"

    def test_macros(self, app: Flask, extension: Any) -> None:
        """A macro is where it is written, not where it is called."""
        received = self.look(
            app,
            extension,
            page="{% from 'tools.html' import menu with context %}\n\n\n{{ menu() }}",
            tools="\n{% macro menu() %}\n{{ who() }}\n{% endmacro %}",
        )
        assert received == "template tools.html:3 via flask_fancy:_look"

    def test_a_text(self, app: Flask, extension: Any) -> None:
        """A template without a name."""
        app.jinja_env.globals["who"] = extension.who
        app.add_url_rule("/", view_func=lambda: render_template_string("\n{{ who() }}"))
        assert timing(app) == "template <string>:2 via flask_fancy:_look"

    def test_compiled(self, app: Flask, extension: Any, tmp_path: Path) -> None:
        """Templates that were compiled into Python files keep their names and lines."""
        app.jinja_env.globals["who"] = extension.who
        templates(app, page="one\n{{ who() }}")
        app.jinja_env.compile_templates(str(tmp_path / "compiled"), zip=None)
        app.jinja_env.loader = ModuleLoader(str(tmp_path / "compiled"))
        app.add_url_rule("/", view_func=lambda: render_template("page.html"))
        assert timing(app) == "template page.html:2 via flask_fancy:_look"

    def test_templates_of_an_extension(self, app: Flask, extension: Any, tmp_path: Path) -> None:
        """The app's page that extends an extension's layout is the app's line."""
        installed = tmp_path / "env" / "site-packages" / "templates"
        own = tmp_path / "templates"
        installed.mkdir()
        own.mkdir()
        (installed / "base.html").write_text("one\n{{ who() }}")
        (own / "page.html").write_text("\n{% extends 'base.html' %}")
        app.jinja_env.globals["who"] = extension.who
        app.template_folder = str(own)
        fancy = Blueprint("fancy", "flask_fancy", template_folder=str(installed))
        app.register_blueprint(fancy)
        app.add_url_rule("/", view_func=lambda: render_template("page.html"))
        assert timing(app) == "template page.html:2 via flask_fancy:_look"


def own_function() -> str:
    return str(session.get("user"))


SHOP = """
from flask import Flask
from lazysession import LazySession
import flask_fancy
from {views} import look

def create_app(config):
    app = Flask(__name__)
    app.config.update(config, LAZYSESSION_TRACE=True)
    LazySession(app)
    app.add_url_rule("/", view_func=look)
    return app
"""
VIEWS = "import flask_fancy\n\ndef look():\n    return flask_fancy.who()\n"


class TestWhatIsOwn:
    """Where the app's files are."""

    @pytest.fixture
    def put(self, monkeypatch: pytest.MonkeyPatch) -> Generator[Callable[[Path], Any]]:
        before = set(sys.modules)

        def put(folder: Path) -> Any:
            monkeypatch.syspath_prepend(folder)
            invalidate_caches()
            return import_module("cornershop")

        yield put
        for name in set(sys.modules) - before:
            if name.partition(".")[0].startswith("cornershop"):
                del sys.modules[name]

    @pytest.mark.parametrize("place", ["src", "env/site-packages", "vendor"])
    def test_packages(self, extension: Any, tmp_path: Path, put: Any, place: str) -> None:
        """A package of the app is its own, also where it is installed next to its libraries."""
        package = tmp_path / place / "cornershop"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(SHOP.format(views=".views"))
        (package / "views.py").write_text(VIEWS)
        app = put(tmp_path / place).create_app(FakeRedisStore().config())
        assert timing(app) == "cornershop.views:look:4 via flask_fancy:_look"

    def test_a_zip(self, extension: Any, tmp_path: Path, put: Any) -> None:
        """An app in a zip file."""
        with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
            archive.writestr("cornershop/__init__.py", SHOP.format(views=".views"))
            archive.writestr("cornershop/views.py", VIEWS)
        app = put(tmp_path / "app.zip").create_app(FakeRedisStore().config())
        assert timing(app) == "cornershop.views:look:4 via flask_fancy:_look"

    @pytest.mark.parametrize("how", ["file", "module"])
    def test_main(self, extension: Any, tmp_path: Path, how: str) -> None:
        """An app that is started as a script, with a module of its own next to it."""
        script = SHOP.format(views="cornershop_views") + (
            "from fakeredis import FakeRedis\n"
            "app = create_app({'SESSION_TYPE': 'redis', 'SESSION_REDIS': FakeRedis()})\n"
            "app.add_url_rule('/main', view_func=lambda: flask_fancy.who(), endpoint='main')\n"
            "for path in ('/', '/main'):\n"
            "    print(app.test_client().get(path).headers['Server-Timing'])\n"
        )
        (tmp_path / "cornershop_main.py").write_text(script)
        (tmp_path / "cornershop_views.py").write_text(VIEWS)
        command = ["cornershop_main.py"] if how == "file" else ["-m", "cornershop_main"]
        checkout = [ROOT] if (ROOT / "lazysession" / "backends").is_dir() else []  # no link on Windows: it is installed
        paths = os.pathsep.join(map(str, [*checkout, tmp_path / "env" / "site-packages"]))
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *command],
            cwd=tmp_path,
            env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        first, second = done.stdout.splitlines()
        assert "loaded by cornershop_views:look:4 via flask_fancy:_look in " in first
        assert re.search(r"loaded by __main__:<lambda>:\d+ via flask_fancy:_look in ", second)

    def test_libraries_next_to_the_app(
        self, extension: Any, memory_app: MakeApp, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where all is in one folder (``pip install --target``), a library is what a distribution has brought."""
        from lazysession import recorder

        monkeypatch.setattr(recorder, "_NEXT_TO_FLASK", str(Path(__file__).parent))
        monkeypatch.setattr(recorder, "packages_distributions", lambda: {"tests": ["tests"]})
        recorder.distributed.cache_clear()
        app = memory_app(LAZYSESSION_TRACE=True)
        app.add_url_rule("/", view_func=lambda: own_function())
        app.root_path = str(Path(__file__).parent)
        try:
            assert timing(app).startswith(f"extension {HERE}:")
            app.import_name = HERE
            assert timing(app).startswith(f"{HERE}:own_function:")
        finally:
            recorder.distributed.cache_clear()


class TestTheHeader:
    """What may stand in a header."""

    @pytest.mark.parametrize(
        "name", ["страница.html", 'a"b.html', "a\r\nSet-Cookie: a=b.html", "a\\b.html", "x" * 5000]
    )
    def test_names(self, app: Flask, extension: Any, name: str) -> None:
        """Any name of a template makes one short line in ASCII."""
        app.jinja_env.globals["who"] = extension.who
        app.jinja_env.loader = DictLoader({name: "{{ who() }}"})
        app.add_url_rule("/", view_func=lambda: render_template(name))
        response = app.test_client().get("/")
        (header,) = response.headers.getlist("Server-Timing")
        assert "Set-Cookie" not in response.headers
        assert header.isascii()
        assert header.isprintable()
        assert header.count('"') == 2
        assert len(header) < 300
        assert re.fullmatch(r'session;desc="loaded by template .* in [\d.]+ ms normal"', header)
        assert ":1 via flask_fancy:_look" in header

    def test_nothing_is_walked_without_a_trace(
        self, memory_app: MakeApp, extension: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Production does not look at the stack."""
        from lazysession import recorder

        monkeypatch.setattr(recorder, "walk_stack", lambda _: 1 / 0)
        app = memory_app()
        app.add_url_rule("/", view_func=lambda: extension.who())
        assert app.test_client().get("/").text == "None"

    def test_outside_of_a_request(self, app: Flask) -> None:
        """The test client's session_transaction names the line that used it."""
        heard: list[str] = []

        def record(sender: Flask, origin: str, **_: Any) -> None:
            heard.append(origin)

        with session_opened.connected_to(record, sender=app), app.test_client().session_transaction() as prepared:
            prepared["user"] = "ada"
        (origin,) = heard
        assert origin.startswith(f"{HERE}:test_outside_of_a_request:")
