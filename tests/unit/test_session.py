"""What loads a deferred session and what does not, and all the places it has to work in."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import (
    Flask,
    copy_current_request_context,
    flash,
    get_flashed_messages,
    render_template_string,
    session,
    stream_with_context,
)
from flask.sessions import NullSession, SecureCookieSession, SessionMixin
from flask_session.base import ServerSideSession
from flask_session.redis import RedisSession

from lazysession.session import DeferredSession

MakeApp = Callable[..., Flask]


def current() -> DeferredSession:
    found = session._get_current_object()  # type: ignore[attr-defined]
    assert type(found) is DeferredSession
    return found


def set_accessed() -> None:
    current().accessed = True


def set_permanent() -> None:
    session.permanent = True


def set_modified() -> None:
    session.modified = True


def set_unmodified() -> None:
    session.modified = False


NOT_USES: dict[str, Callable[[], Any]] = {
    "repr": lambda: repr(current()),
    "str": lambda: str(current()),
    "isinstance": lambda: isinstance(session, RedisSession) and isinstance(session, NullSession),
    "reading modified": lambda: session.modified,
    "reading accessed": lambda: session.accessed,
    "setting accessed": set_accessed,
    "setting permanent": set_permanent,
    "setting modified to False": set_unmodified,
    "a transient key": lambda: "_remember" in session or session.get("_remember"),
    "popping a transient key": lambda: session.pop("_remember", None),
    "a template that does not use it": lambda: render_template_string("hello"),
    "probing for an unknown dunder": lambda: hasattr(current(), "__html__"),
}
USES: dict[str, Callable[[], Any]] = {
    "in": lambda: "a" in session,
    "len": lambda: len(session),
    "bool": lambda: bool(session),
    "iteration": lambda: list(session),
    "==": lambda: session == {},
    "!=": lambda: session != {},
    "copy": lambda: session.copy(),  # type: ignore[attr-defined]
    "copy.copy": lambda: copy.copy(current()),
    "sid": lambda: session.sid,  # type: ignore[attr-defined]
    "new": lambda: session.new,
    "reading permanent": lambda: session.permanent,
    "setting modified": set_modified,
    "get": lambda: session.get("a"),
    "pickle": lambda: pickle.dumps(copy.copy(current()).keys() and {}),
    "a template that uses it": lambda: render_template_string("{{ session.get('a') }}"),
    "flashed messages": get_flashed_messages,
}


@pytest.mark.parametrize("use", NOT_USES.values(), ids=NOT_USES.keys())
def test_not_a_use(memory_app: MakeApp, use: Callable[[], Any]) -> None:
    """Neither loads the session nor sets Vary."""
    app = memory_app()
    app.add_url_rule("/", view_func=lambda: str(use()) + str(current().lazy_loaded))
    response = app.test_client().get("/")
    assert response.text.endswith("None")
    assert "Vary" not in response.headers


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_use(memory_app: MakeApp, use: Callable[[], Any]) -> None:
    """Loads the session and sets Vary."""
    app = memory_app()
    app.add_url_rule("/", view_func=lambda: str(use()) + str(current().lazy_loaded is not None))
    response = app.test_client().get("/")
    assert response.text.endswith("True")
    assert response.headers["Vary"] == "Cookie"


def in_view(app: Flask, view: Callable[[], Any]) -> Any:
    """Run a function in a view and return what it returned."""
    answers = []

    def wrapper() -> str:
        answers.append(view())
        return ""

    app.add_url_rule("/", view_func=wrapper)
    assert app.test_client().get("/").status_code == 200
    return answers[0]


def test_what_it_is_an_instance_of(memory_app: MakeApp) -> None:
    """It is an instance of the store's session class, before and after it is loaded, and of nothing else."""

    def classes() -> list[bool]:
        before = [isinstance(session, kind) for kind in (RedisSession, ServerSideSession, SessionMixin, dict)]
        len(session)
        after = [isinstance(session, kind) for kind in (RedisSession, ServerSideSession, SessionMixin, dict)]
        return before + after + [isinstance(session, NullSession), isinstance(session, SecureCookieSession)]

    assert in_view(memory_app(), classes) == [True] * 8 + [False] * 2


def test_conversions(memory_app: MakeApp) -> None:
    """The ways to make a dict of it see the data, also those that CPython has a fast path for."""

    def convert() -> list[Any]:
        session["a"] = 1
        deferred = current()
        return [
            dict(deferred),
            {**deferred},
            copy.copy(deferred),
            copy.deepcopy(deferred),
            json.loads(json.dumps(dict(session))),
            deferred | {},
            {} | deferred,
            pickle.loads(pickle.dumps(dict(deferred))),
            (lambda **items: items)(**deferred),
        ]

    assert in_view(memory_app(), convert) == [{"_permanent": True, "a": 1}] * 9


def test_repr(memory_app: MakeApp) -> None:
    """repr says that it is not loaded, and shows the data once it is."""

    def represent() -> tuple[str, str]:
        before = repr(current())
        session["a"] = 1
        return before, repr(current())

    before, after = in_view(memory_app(), represent)
    assert before == "<RedisSession (not loaded)>"
    assert "'a': 1" in after


def test_pattern_matching(memory_app: MakeApp) -> None:
    """A match statement treats it as a mapping."""

    def match() -> Any:
        session["a"] = 1
        match current():
            case {"a": value}:
                return value

    assert in_view(memory_app(), match) == 1


def test_flashes(memory_app: MakeApp) -> None:
    """A message flashed in one request is shown in the next, once."""
    app = memory_app()
    app.add_url_rule("/flash", view_func=lambda: flash("saved") or "", endpoint="flash")
    app.add_url_rule("/show", view_func=lambda: ",".join(get_flashed_messages()), endpoint="show")
    client = app.test_client()
    client.get("/flash")
    assert [client.get("/show").text, client.get("/show").text] == ["saved", ""]


def test_session_transaction(make_app: MakeApp) -> None:
    """The test client's transaction reads and writes outside of any context, on every store."""
    app = make_app()
    app.add_url_rule("/", view_func=lambda: str(session.get("a")))
    client = app.test_client()
    with client.session_transaction() as transaction:
        transaction["a"] = 1
    with client.session_transaction() as transaction:
        assert transaction["a"] == 1
        transaction["a"] = 2
    with client.session_transaction():
        pass
    assert client.get("/").text == "2"


def test_a_skipped_path_does_not_skip_the_transaction(memory_app: MakeApp) -> None:
    """Rules are for requests: a test sets up its session whatever the mode of '/'."""
    app = memory_app(LAZYSESSION_SKIP_PATHS=["/"])
    client = app.test_client()
    with client.session_transaction() as transaction:
        transaction["a"] = 1
    with client.session_transaction() as transaction:
        assert transaction["a"] == 1


def test_client_that_keeps_its_context(memory_app: MakeApp) -> None:
    """A test may look at the session of the request that it just made, used or not."""
    app = memory_app()
    app.add_url_rule("/set", view_func=lambda: session.update(a=1) or "", endpoint="set")
    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    with app.test_client() as client:
        client.get("/set")
        assert session["a"] == 1
        client.get("/untouched")
        assert session["a"] == 1


def test_threads_share_one_load(store: Any, make_app: MakeApp) -> None:
    """Threads of one request load its session once together, and see each other's changes."""
    app = make_app()

    def view() -> str:
        gate, arrived = threading.Barrier(8, timeout=20), threading.Semaphore(0)

        def work(number: int) -> None:
            arrived.release()
            gate.wait()
            session[f"key{number}"] = number

        threads = [threading.Thread(target=copy_current_request_context(work), args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
            assert arrived.acquire(timeout=20)  # one context after the other is pushed: they share their request
        for thread in threads:
            thread.join()
        return str(len([key for key in session if key.startswith("key")]))

    app.add_url_rule("/", view_func=view)
    client = app.test_client()
    with client.session_transaction() as transaction:
        transaction["a"] = 1
    with store.counted() as trips:
        assert client.get("/").text == "8"
    assert tuple(trips) == store.read + store.write


def test_streaming(memory_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """A stream may read the session after the response began; what it writes then is lost, and that is logged.

    The log names the endpoint: the path is the client's, and may hold a secret or a line of its own.
    """
    app = memory_app()

    @app.route("/stream/<secret>")
    def stream(secret: str) -> Any:
        @stream_with_context
        def lines() -> Any:
            yield str(session["a"])
            session["a"] = 2

        return lines()

    client = app.test_client()
    with client.session_transaction() as transaction:
        transaction["a"] = 1
    assert client.get("/stream/token%0aWARNING").text == "1"
    with client.session_transaction() as transaction:
        assert transaction["a"] == 1
    assert "after the response of stream was made" in caplog.text
    assert "token" not in caplog.text


def test_a_write_while_the_session_is_saved(memory_app: MakeApp, caplog: pytest.LogCaptureFixture) -> None:
    """A thread that outlives its view may write while the session is saved: what it writes is lost, and logged."""
    app = memory_app()
    handler: Any = app.session_interface.handler  # type: ignore[attr-defined]
    save = handler.save

    def save_slowly(*arguments: Any) -> None:
        save(*arguments)
        session["late"] = 1

    handler.save = save_slowly
    app.add_url_rule("/", "view", lambda: session.update(a=1) or "")
    client = app.test_client()
    assert client.get("/").status_code == 200
    assert "after the response of view was made" in caplog.text


def test_async_views(make_app: MakeApp) -> None:
    """An async view uses the session as any other."""
    app = make_app()

    @app.route("/")
    async def view() -> str:
        await asyncio.sleep(0)
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    client = app.test_client()
    assert [client.get("/").text for _ in range(3)] == ["1", "2", "3"]


def test_update_takes_what_a_dict_takes(memory_app: MakeApp) -> None:
    """A mapping, pairs, and any keyword."""

    def update() -> Any:
        session.update({"a": 1}, b=2)
        session.update([("c", 3)])
        session.update(None, items=4)
        session.update()
        return dict(session)

    assert in_view(memory_app(), update) == {"_permanent": True, "a": 1, "b": 2, "c": 3, "items": 4}


def test_attributes_of_the_session_class(memory_app: MakeApp) -> None:
    """Attributes that an app sets are those of the loaded session."""

    def attributes() -> Any:
        session.note = "x"  # type: ignore[attr-defined]
        value = (current().lazy_loaded.session.note, session.note)  # type: ignore[union-attr, attr-defined]
        del session.note  # type: ignore[attr-defined]
        return value, hasattr(session, "note")

    assert in_view(memory_app(), attributes) == (("x", "x"), False)


def test_accessed_is_true_after_a_use(memory_app: MakeApp) -> None:
    """A use sets ``accessed`` by itself, as Flask does so only since 3.1.3."""
    app = memory_app()
    with app.test_request_context() as context:
        opened: Any = app.session_interface.open_session(app, context.request)
        assert not opened.accessed
        opened.get("a")
        assert opened.accessed


def test_permanent_is_remembered(store: Any, make_app: MakeApp) -> None:
    """The widely copied before_request hook costs nothing by itself, and is applied when the session is used."""
    app = make_app(SESSION_PERMANENT=False)
    app.before_request(set_permanent)
    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/use", view_func=lambda: session.update(a=1) or str(session.permanent), endpoint="use")
    client = app.test_client()
    with store.counted() as trips:
        assert "Set-Cookie" not in client.get("/untouched").headers
    assert trips == []
    response = client.get("/use")
    assert response.text == "True"
    assert "Expires=" in response.headers["Set-Cookie"]
    with store.counted() as trips:
        client.get("/use")
    assert tuple(trips) == store.read


def test_a_rule_that_uses_the_session(memory_app: MakeApp) -> None:
    """A rule that uses the session gets one clear error, not an endless recursion."""
    app = memory_app(LAZYSESSION_RULES=[(lambda _request: "a" in session, "skip")])
    app.add_url_rule("/", view_func=lambda: str(session.get("a")))
    with pytest.raises(RuntimeError, match="must not use the session"):
        app.test_client().get("/")
