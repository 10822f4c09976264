"""The SQL adapter: the app's own database session is left alone, and no request waits for its own lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask, abort, session, stream_with_context
from flask.testing import FlaskClient
from flask_session import Session
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine, String, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Mapped, mapped_column

from lazysession import ConfigurationError, LazySession
from lazysession.backend import Outcome
from lazysession.backends.sqlalchemy import SqlAlchemyBackend
from lazysession.backends.sqlalchemy.connect import create_if_absent, own_engine, session_table
from tests.support.stores import SqlStore


class Shop:
    """An app with a table of its own in the database that holds the sessions too."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.url = f"sqlite:///{folder}/shop.db"
        self.db = db = SQLAlchemy()
        self.app = app = Flask("shop")
        app.config.update(SECRET_KEY="key", SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db, **settings)
        app.config["SQLALCHEMY_DATABASE_URI"] = self.url
        db.init_app(app)

        class Item(db.Model):  # type: ignore[name-defined, misc]
            name: Mapped[str] = mapped_column(String(20), primary_key=True)
            note: Mapped[str] = mapped_column(String(20), default="")

        self.Item = Item
        LazySession(app)
        with app.app_context():
            db.create_all()
            db.session.add(Item(name="first"))
            db.session.commit()
        app.add_url_rule("/start", view_func=lambda: session.update(user=1) or "", endpoint="start")

    def view(self, view: Callable[[], Any]) -> FlaskClient:
        """Serve a view at '/', and return a client that has a live session."""
        self.app.add_url_rule("/", view_func=view, endpoint="view")
        client = self.app.test_client()
        client.get("/start")
        return client

    def items(self) -> list[str]:
        with self.app.app_context():
            return sorted(self.db.session.scalars(self.db.select(self.Item.name)))


def started(value: Any, **options: Any) -> SqlAlchemyBackend:
    """Make a backend as an app does when it starts."""
    backend = SqlAlchemyBackend.from_setting(value, **options)
    assert backend is not None
    backend.prepare()
    return backend


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.mark.parametrize("error", [lambda: abort(400), lambda: 1 / 0], ids=["abort", "exception"])
def test_what_the_app_did_not_commit_is_not_committed(shop: Shop, error: Callable[[], Any]) -> None:
    """A view that adds a row, changes its session and fails leaves no row behind; its session is kept."""

    def view() -> str:
        shop.db.session.add(shop.Item(name="second"))
        session["tried"] = True
        return str(error())

    client = shop.view(view)
    assert client.get("/").status_code in (400, 500)
    assert shop.items() == ["first"]
    with client.session_transaction() as transaction:
        assert transaction["tried"]


def test_a_pending_duplicate_fails_at_the_apps_commit(shop: Shop) -> None:
    """A duplicate row fails at the app's commit and nowhere else: the session does not roll it back."""

    def view() -> str:
        shop.db.session.add(shop.Item(name="first"))
        session["tried"] = True
        _ = session.get("tried")
        with pytest.raises(IntegrityError):
            shop.db.session.commit()
        return ""

    assert shop.view(view).get("/").status_code == 200


def test_the_app_may_begin_its_own_transaction(shop: Shop) -> None:
    """Session work does not begin a transaction on the app's database session."""

    def view() -> str:
        session["tried"] = session.get("user")
        with shop.db.session.begin():
            shop.db.session.add(shop.Item(name="second"))
        return ""

    assert shop.view(view).get("/").status_code == 200
    assert shop.items() == ["first", "second"]


def test_opening_does_not_flush(shop: Shop) -> None:
    """A session that is opened in the middle of a view flushes none of the app's pending rows."""

    def view() -> str:
        pending = shop.Item(name="second")
        shop.db.session.add(pending)
        _ = session["user"]
        return str(pending in shop.db.session.new)

    assert shop.view(view).get("/").text == "True"


def test_objects_outlive_the_saving_of_the_session(shop: Shop) -> None:
    """Objects that are streamed after the session was saved are neither expired nor detached."""

    def view() -> Any:
        item = shop.db.session.get(shop.Item, "first")
        item.note = "unsaved"
        session["tried"] = True

        @stream_with_context
        def lines() -> Any:
            yield item.name + item.note

        return lines()

    assert shop.view(view).get("/").text == "firstunsaved"


def test_no_event_of_the_apps_session(shop: Shop) -> None:
    """Opening, refreshing, writing and deleting a session are no flush, commit or rollback of ``db.session``."""
    happened: list[str] = []
    with shop.app.app_context():
        registry = shop.db.session
        for name in ("before_flush", "after_commit", "after_rollback", "after_soft_rollback", "after_begin"):
            event.listen(registry, name, lambda *_, name=name: happened.append(name))
    shop.app.add_url_rule("/end", view_func=lambda: session.clear() or "", endpoint="end")
    client = shop.view(lambda: str(session.get("user")))
    SqlStore.pass_time(None, shop.app, 30 * 86400)  # type: ignore[arg-type]
    client.get("/")
    client.get("/end")
    assert happened == []


def test_no_connection_is_held_through_the_view(shop: Shop) -> None:
    """A used session has returned its connection before the view continues."""
    backend: SqlAlchemyBackend = shop.app.session_interface.handler.backend  # type: ignore[attr-defined]

    def view() -> str:
        session["tried"] = True
        return str(backend._engine.pool.checkedout())  # type: ignore[attr-defined]

    assert shop.view(view).get("/").text == "0"


def locked(shop: Shop) -> Any:
    """A view that uses the session while its own uncommitted write holds the lock of the SQLite file."""
    shop.db.session.add(shop.Item(name="second"))
    shop.db.session.flush()
    return session


def test_a_write_while_the_app_holds_the_lock(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """The request fails at once with the reason, and sends no cookie: nothing is lost silently."""
    client = shop.view(lambda: locked(shop).update(tried=True) or "")
    started = time.monotonic()
    response = client.get("/")
    assert time.monotonic() - started < 3  # SQLite's default is 5 s
    assert response.status_code == 503
    assert "Set-Cookie" not in response.headers
    assert "a file of their own" in caplog.text
    assert shop.items() == ["first"]
    with client.session_transaction() as transaction:
        assert "tried" not in transaction


def test_a_read_while_the_app_holds_the_lock(shop: Shop) -> None:
    """Reading works, and a refresh that is due does not wait."""
    client = shop.view(lambda: str(locked(shop)["user"]))
    SqlStore.pass_time(None, shop.app, 10 * 86400)  # type: ignore[arg-type]
    started = time.monotonic()
    response = client.get("/")
    assert response.text == "1"
    assert time.monotonic() - started < 3
    assert "Set-Cookie" not in response.headers  # the cookie is not renewed without the store


def test_the_pool_of_the_app_is_not_shared(tmp_path: Path) -> None:
    """A request that holds the app's only connection does not wait for itself when it uses its session."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.1}
    shop = Shop(tmp_path, SQLALCHEMY_ENGINE_OPTIONS=options)

    def view() -> str:
        shop.db.session.execute(text("SELECT 1"))
        return str(session["user"])

    assert shop.view(view).get("/").text == "1"


def test_a_read_transaction_of_the_app(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With SQLAlchemy's recipe for real transactions a mere SELECT locks the file: the error names the remedies."""
    shop = Shop(tmp_path)
    with shop.app.app_context():
        engine = shop.db.engine
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    engine.dispose()

    def view() -> str:
        item = shop.db.session.get(shop.Item, "first")
        session["seen"] = item.name
        return ""

    client = shop.view(view)
    assert client.get("/").status_code == 503
    assert "an open read without WAL" in caplog.text
    with engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.exec_driver_sql("BEGIN")
    assert client.get("/").status_code == 200  # as the message said


@pytest.mark.parametrize(("query", "timeout"), [("", 5), ("?timeout=30", 30)])
def test_a_timeout_of_the_users_own(tmp_path: Path, query: str, timeout: int) -> None:
    """A lock timeout that the app chose is kept, also after a refresh that did not wait."""
    backend = SqlAlchemyBackend.from_setting(f"sqlite:///{tmp_path}/sessions.db{query}")
    assert backend is not None
    backend.create("key", b"1", 1000)
    backend.read_and_touch("key", 1000, 1000)
    with backend._engine.connect() as connection:
        assert connection.info["lazysession_timeout"] == timeout


def test_execution_options_are_inherited(tmp_path: Path) -> None:
    """A schema that the app's engine translates is translated for its sessions too."""
    engine = create_engine(f"sqlite:///{tmp_path}/a.db", execution_options={"schema_translate_map": {None: "main"}})
    assert own_engine(engine).get_execution_options()["schema_translate_map"] == {None: "main"}


def test_wal_for_files_of_our_own(tmp_path: Path) -> None:
    """A URL's SQLite file is in WAL mode; the app's own file is left in the mode that it has."""

    def journal_mode(path: Path) -> Any:
        with create_engine(f"sqlite:///{path}").connect() as connection:
            return connection.execute(text("PRAGMA journal_mode")).scalar()

    started(f"sqlite:///{tmp_path}/own.db")
    Shop(tmp_path)
    assert journal_mode(tmp_path / "own.db") == "wal"
    assert journal_mode(tmp_path / "shop.db") == "delete"


def test_index_on_the_expiry(tmp_path: Path) -> None:
    """A table that is created here has an index on its expiry; one that exists is used as it stands."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    started(url)
    started(url)
    inspector = inspect(create_engine(url))
    assert [index["column_names"] for index in inspector.get_indexes("sessions")] == [["expiry"]]


def test_an_existing_table_is_used_as_it_stands(tmp_path: Path) -> None:
    """The table that Flask-Session created has no index, and gets none."""
    app, db = Flask("shop"), SQLAlchemy()
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db)
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/shop.db"
    db.init_app(app)
    Session(app)
    model = app.session_interface.sql_session_model  # type: ignore[attr-defined]
    LazySession(app)
    assert app.session_interface.sql_session_model is model  # type: ignore[attr-defined]
    with app.app_context():
        assert inspect(db.engine).get_indexes("sessions") == []


def test_two_processes_create_the_table_at_once(tmp_path: Path) -> None:
    """Losing the race to create the table is no error."""
    engine = create_engine(f"sqlite:///{tmp_path}/sessions.db")
    table = session_table("sessions")
    table.create(engine)
    create_if_absent(engine, table)  # as it is
    with pytest.raises(OperationalError):
        table.create(engine, checkfirst=False)
    raced = session_table("sessions")
    raced.create = lambda *_, **__: table.create(engine, checkfirst=False)  # type: ignore[method-assign]
    create_if_absent(engine, raced)


def test_two_apps_and_one_database_object(tmp_path: Path) -> None:
    """An app factory called twice works: the model is declared once for each Flask-SQLAlchemy object."""
    db = SQLAlchemy()
    clients = []
    for _ in range(2):
        app = Flask("shop")
        app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db)
        app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/shop.db"
        db.init_app(app)
        LazySession(app)
        app.add_url_rule("/", view_func=lambda: session.update(n=session.get("n", 0) + 1) or str(session["n"]))
        clients.append(app.test_client())
    assert clients[0].get("/").text == "1"
    cookie = clients[0].get_cookie("session")
    assert cookie is not None
    clients[1].set_cookie("session", cookie.value)
    assert clients[1].get("/").text == "2"


@pytest.mark.filterwarnings("ignore:'get_engine' is deprecated:DeprecationWarning")  # Flask-Session calls it
def test_options(tmp_path: Path) -> None:
    """Table name and bind key are those of Flask-Session's settings."""
    db = SQLAlchemy()
    app = Flask("shop")
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db, SESSION_SQLALCHEMY_TABLE="visits")
    app.config["SESSION_SQLALCHEMY_BIND_KEY"] = "other"
    app.config["SQLALCHEMY_BINDS"] = {"other": f"sqlite:///{tmp_path}/other.db"}
    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/shop.db"
    db.init_app(app)
    backend = SqlAlchemyBackend.from_setting
    with app.app_context():
        assert backend(db, table="visits", bind_key="other") is None  # Flask-Session declares it
        with pytest.raises(ValueError, match="known are"):
            backend(db, bind_key="nobody")
    LazySession(app)
    assert inspect(create_engine(f"sqlite:///{tmp_path}/other.db")).has_table("visits")
    assert not inspect(create_engine(f"sqlite:///{tmp_path}/shop.db")).has_table("visits")


def test_a_database_in_memory_is_one_of_its_own(tmp_path: Path) -> None:
    """With Flask-SQLAlchemy in memory the sessions have a memory of their own, as there is only one connection."""
    app, db = Flask("shop"), SQLAlchemy()
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=db, SQLALCHEMY_DATABASE_URI="sqlite://")
    db.init_app(app)
    LazySession(app)

    @app.route("/")
    def view() -> str:
        db.session.execute(text("CREATE TABLE IF NOT EXISTS pending (n)"))
        db.session.execute(text("INSERT INTO pending VALUES (1)"))
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    client = app.test_client()
    assert [client.get("/").text, client.get("/").text] == ["1", "2"]
    with app.app_context():
        assert db.session.execute(text("SELECT count(*) FROM pending")).scalar() == 0


def test_a_clean_up_that_fails_fails_no_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """SESSION_CLEANUP_N_REQUESTS runs in requests that may not need the store."""
    app = Flask("shop", static_folder=None)
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=f"sqlite:///{tmp_path / 'sessions.db'}")
    app.config["SESSION_CLEANUP_N_REQUESTS"] = 1
    LazySession(app)
    app.add_url_rule("/", view_func=lambda: "")
    backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
    with backend._engine.begin() as connection:
        connection.execute(text("DROP TABLE sessions"))
    assert {app.test_client().get("/").status_code for _ in range(20)} == {200}
    assert "Expired sessions were not removed: OperationalError" in caplog.text
    with pytest.raises(OperationalError):  # what a command or a timer runs fails as it should
        app.session_interface.wrapped._delete_expired_sessions()  # type: ignore[attr-defined]


def test_clean_up_has_a_connection_of_its_own(shop: Shop) -> None:
    """Flask-Session's command session_cleanup deletes what is expired and leaves the app's work alone."""
    client = shop.view(lambda: str(session.get("user")))
    client.get("/")
    SqlStore.pass_time(None, shop.app, 32 * 86400)  # type: ignore[arg-type]
    statements: list[str] = []

    def record(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", record)
    try:
        result = shop.app.test_cli_runner().invoke(args=["session_cleanup"])
    finally:
        event.remove(Engine, "before_cursor_execute", record)
    assert result.exit_code == 0
    assert [statement.split()[0] for statement in statements] == ["SELECT", "DELETE"]
    assert client.get("/").text == "None"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "neither a Flask-SQLAlchemy object nor a URL"),
        ("no url", "database URL is wrong"),
        ("nosuch://host/db", "database URL is wrong"),
        ("sqlite://", "SESSION_SQLALCHEMY_BIND_KEY goes with a Flask-SQLAlchemy object"),
    ],
)
def test_a_wrong_value(value: Any, message: str) -> None:
    """What can be neither a Flask-SQLAlchemy object nor a URL is refused at start-up."""
    app = Flask("shop")
    app.config.update(SESSION_TYPE="sqlalchemy", SESSION_SQLALCHEMY=value)
    if value == "sqlite://":
        app.config["SESSION_SQLALCHEMY_BIND_KEY"] = "other"
    with pytest.raises(ConfigurationError, match=f"SESSION_SQLALCHEMY cannot be used: .*{message}"):
        LazySession(app)


def test_errors_carry_no_session_id(tmp_path: Path) -> None:
    """The text of a database error, which ends up in logs, names no key and no payload."""
    backend = started(f"sqlite:///{tmp_path}/sessions.db")
    with backend._engine.connect() as connection:
        connection.execute(text("DROP TABLE sessions"))
    with pytest.raises(OperationalError) as caught:
        backend.create("session:secret", b"private", 60)
    assert "secret" not in str(caught.value)
    assert "private" not in str(caught.value)


def test_purging_in_batches_by_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expired rows are found through the index on their expiry, and deleted in batches, with progress for each."""
    monkeypatch.setattr("lazysession.backends.sqlalchemy.store.PURGED_AT_ONCE", 10)
    backend = SqlAlchemyBackend.from_setting(f"sqlite:///{tmp_path}/sessions.db")
    assert backend is not None
    for number in range(25):
        backend.create(f"key{number}", b"", 60)
    now = backend.clock
    backend.clock = lambda: now() + timedelta(seconds=61)
    statements: list[tuple[str, Any]] = []

    def record(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(backend._engine, "before_cursor_execute", record)
    received: list[tuple[int, int]] = []
    assert backend.purge(lambda done, total: received.append((done, total))) == 25
    assert received == [(10, 25), (20, 25), (25, 25)]
    event.remove(backend._engine, "before_cursor_execute", record)
    plans = []
    with backend._engine.connect() as connection:
        for statement, parameters in statements:
            if statement.startswith("SELECT"):
                rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                plans.append(" ".join(row.detail for row in rows))
    assert len(plans) == 4
    assert all("USING" in plan and "ix_sessions_expiry" in plan for plan in plans)


def test_purging_continues_next_to_another_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of which another process took a row is no reason to stop."""
    monkeypatch.setattr("lazysession.backends.sqlalchemy.store.PURGED_AT_ONCE", 10)
    backend = SqlAlchemyBackend.from_setting(f"sqlite:///{tmp_path}/sessions.db")
    assert backend is not None
    for number in range(50):
        backend.create(f"key{number}", b"", -60)
    taken: list[int] = []

    def take_one(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE") and not taken:
            taken.append(1)
            cursor.execute("DELETE FROM sessions WHERE session_id = 'key3'")

    event.listen(backend._engine, "before_cursor_execute", take_one)
    assert backend.purge() == 49
    assert backend.purge() == 0


def test_a_delete_that_is_repeated(tmp_path: Path) -> None:
    """A delete that is repeated after its connection broke does not look as if another request had ended it."""
    backend = SqlAlchemyBackend.from_setting(f"sqlite:///{tmp_path}/sessions.db")
    assert backend is not None
    lost: list[int] = []

    def lose(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE") and not lost:
            lost.append(1)
            raise DBAPIError(statement, None, Exception("gone"), connection_invalidated=True)

    event.listen(backend._engine, "after_cursor_execute", lose)
    backend.create("key", b"1", 60)
    assert backend.delete("key", b"1").outcome is Outcome.STORED
    assert backend.delete("key", b"1").outcome is Outcome.MISSING


@pytest.mark.parametrize(
    "value",
    ["postgresql://user:p@ss:SECRET@host:5432/db", "postgres//user:SECRET@db/shop", {"url": "SECRET"}, b"SECRET"],
)
def test_no_password_in_an_error(value: Any) -> None:
    """The error for a wrong URL does not contain the URL."""
    with pytest.raises(ValueError, match="URL") as caught:
        SqlAlchemyBackend.from_setting(value)
    assert "SECRET" not in str(caught.value)


def test_a_shared_database_in_memory() -> None:
    """SQLite's own form of a database in memory is one, too."""
    app = Flask("shop")
    app.config["SESSION_TYPE"] = "sqlalchemy"
    app.config["SESSION_SQLALCHEMY"] = "sqlite:///file:shared?mode=memory&cache=shared&uri=true"
    LazySession(app)
    app.add_url_rule("/", view_func=lambda: session.update(n=session.get("n", 0) + 1) or str(session["n"]))
    client = app.test_client()
    assert [client.get("/").text, client.get("/").text] == ["1", "2"]


def test_a_stale_connection_is_replaced(postgresql_url: str) -> None:
    """A pooled connection that the server has closed costs no request: the verb is done again on a new one."""
    backend = SqlAlchemyBackend.from_setting(postgresql_url)
    assert backend is not None
    backend.delete("stale")
    backend.create("stale", b"1", 60)
    with backend._engine.connect() as killer:
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        for verb in (
            lambda: backend.read("stale"),
            lambda: backend.replace("stale", b"2", 60, b"1"),
            lambda: backend.delete("stale", b"2"),
        ):
            with backend._engine.connect() as pooled:
                pooled.execute(text("SELECT 1"))
            killer.execute(text(others + " AND datname = current_database()"))
            assert verb() is not None
    backend._engine.dispose()


def test_a_socket_that_closes_while_psycopg_waits(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """psycopg then raises and leaves the connection marked as sound; it is treated as a stale one."""
    backend = SqlAlchemyBackend.from_setting(postgresql_url)
    assert backend is not None
    backend.delete("closed")
    wait, failures = psycopg.Connection.wait, [psycopg.OperationalError("connection socket closed")]

    def fail_once(connection: Any, gen: Any, *arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return wait(connection, gen, *arguments, **options)

    monkeypatch.setattr(psycopg.Connection, "wait", fail_once)
    assert backend.create("closed", b"1", 60)
    assert failures == []
    backend._engine.dispose()


def test_many_writers_on_one_file(tmp_path: Path) -> None:
    """Sixteen threads that each change a session of their own wait for each other on the one file."""
    store = SqlStore(tmp_path)
    app = Flask("shop")
    app.config.update(TESTING=True, **store.config())
    LazySession(app)
    app.add_url_rule("/", view_func=lambda: session.update(n=session.get("n", 0) + 1) or str(session["n"]))
    answers: list[str] = []

    def visit() -> None:
        client = app.test_client()
        answers.append([client.get("/").text for _ in range(10)][-1])

    threads = [threading.Thread(target=visit) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["10"] * 16
