"""Keys of other programs in a shared store: a cookie that names one must not touch it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
from flask import Flask, session
from redis.cluster import RedisCluster

from lazysession import LazySession
from lazysession.backend import Record, SupportsReadAndTouch
from lazysession.backends.redis import RedisBackend
from lazysession.backends.redis.store import DIGESTS
from lazysession.checks.app import find_problems
from tests.support.stores import LIVE, RedisStore, Store, prepare

PATHS = ["/read", "/write", "/clear", "/clear-and-write", "/remove", "/rotate", "/peek", "/peek-and-write"]


def shop(**settings: Any) -> Flask:
    """Make an app that uses its session in every way; each use refreshes, and errors are responses."""
    app = Flask("shop", static_folder=None)
    app.config.update(SECRET_KEY="key", LAZYSESSION_REFRESH_THROTTLE=0, LAZYSESSION_RULES=[("/peek**", "no_refresh")])
    app.config.update(settings)
    prepare(app)
    LazySession(app)
    app.logger.setLevel("CRITICAL")

    def clear_and_write() -> None:
        session.clear()
        session["user"] = "eve"

    def rotate() -> None:
        session["user"] = "eve"
        app.session_interface.regenerate(session)  # type: ignore[attr-defined]

    views: dict[str, Callable[[], object]] = {
        "/read": lambda: session.get("user"),
        "/write": lambda: session.update(user="eve"),
        "/clear": lambda: session.clear(),
        "/clear-and-write": clear_and_write,
        "/remove": lambda: session.pop("user", None),
        "/rotate": rotate,
        "/peek": lambda: session.get("user"),
        "/peek-and-write": lambda: session.update(user="eve"),
    }
    for path, view in views.items():
        app.add_url_rule(path, path, lambda view=view: str(view()))
    return app


def visit(app: Flask, path: str, sid: str) -> str:
    """Visit a path with a session cookie; return the text."""
    client = app.test_client()
    client.set_cookie("session", sid)
    return client.get(path).text


class TenantRedis(redis.Redis):
    """A client with an ``execute_command`` of its own: no pipeline is used with it."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        return super().execute_command(*args, **options)


@pytest.fixture(params=["redis", "own execute_command", "cluster"])
def client(request: pytest.FixtureRequest) -> Any:
    """Each client that reads in a way of its own: by pipeline, by script, and by script from a master."""
    if request.param == "cluster":
        url = request.getfixturevalue("redis_cluster_url")
        made: Any = RedisCluster.from_url(url.replace("+cluster", "").split(",")[0])
    else:
        kind = redis.Redis if request.param == "redis" else TenantRedis
        made = kind.from_url(request.getfixturevalue("redis_url"))
    made.flushall()
    for script in DIGESTS:  # a script that a server has not seen yet would not run next to a read that fails
        made.script_load(script)
    return made


def put_list(client: Any, key: str) -> None:
    client.rpush(key, "task")


KEYS = {
    "celery": put_list,
    LIVE: put_list,  # of the shape of our ids
    "basket": lambda client, key: client.hset(key, "apple", 1),
    "members": lambda client, key: client.sadd(key, "ada"),
    "counter": lambda client, key: client.set(key, 5),
    "names": lambda client, key: client.set(key, '["ada", "bob"]'),
    "page": lambda client, key: client.set(key, "<p>text</p>", px=50_000),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("key", KEYS)
def test_no_key_of_another_program_is_touched(key: str, path: str, client: Any) -> None:
    """Without a key prefix, a cookie that names another program's key leaves its expiry and its data alone."""
    KEYS[key](client, key)
    before = client.dump(key), client.pttl(key)
    visit(shop(SESSION_TYPE="redis", SESSION_REDIS=client, SESSION_KEY_PREFIX=""), path, key)
    assert client.dump(key) == before[0]
    assert before[1] - 10_000 < client.pttl(key) <= before[1]


@pytest.mark.parametrize("path", PATHS)
def test_a_list_behind_the_prefix(path: str, client: Any) -> None:
    """With a prefix too, a key of another type is left alone."""
    client.rpush("session:celery", "task")
    visit(shop(SESSION_TYPE="redis", SESSION_REDIS=client), path, "celery")
    assert client.pttl("session:celery") == -1
    assert client.lrange("session:celery", 0, -1) == [b"task"]


@pytest.mark.parametrize("path", PATHS)
def test_no_store_changes_it(path: str, any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every store, a record that is no session is read, and no other verb names its key."""
    app = shop(SESSION_KEY_PREFIX="", **any_store.config())
    backend: Any = app.session_interface.handler.backend  # type: ignore[attr-defined]
    asked: list[str] = []

    def read(key: str) -> Record:
        return Record(b"\xc1")

    def read_and_touch(key: str, ttl: float | None, unless_more_than: float) -> Record:
        asked.extend(["read_and_touch"] if key == "celery" and ttl is not None else [])
        return Record(b"\xc1")

    def refuse(verb: str) -> Callable[..., Any]:
        plain = getattr(backend, verb)

        def act(key: str, *arguments: Any, **options: Any) -> Any:
            asked.extend([verb] if key == "celery" else [])
            return plain(key, *arguments, **options)

        return act

    monkeypatch.setattr(backend, "read", read)
    if isinstance(backend, SupportsReadAndTouch):
        monkeypatch.setattr(backend, "read_and_touch", read_and_touch)
    for verb in ("create", "replace", "delete", "touch"):
        monkeypatch.setattr(backend, verb, refuse(verb))
    visit(app, path, "celery")
    assert asked == []


def test_an_id_of_another_length_is_a_session(any_store: Store) -> None:
    """Without a prefix, sessions from before SESSION_ID_LENGTH was changed are read, changed, refreshed and ended."""
    config = any_store.config()
    before = shop(SESSION_KEY_PREFIX="", SESSION_ID_LENGTH=24, **config).test_client()
    before.get("/write")
    cookie = before.get_cookie("session")
    assert cookie is not None
    app = shop(SESSION_KEY_PREFIX="", **config)
    assert visit(app, "/read", cookie.value) == "eve"
    assert visit(app, "/peek", cookie.value) == "eve"
    visit(app, "/clear", cookie.value)
    assert visit(app, "/read", cookie.value) == "None"


def test_it_is_refreshed(redis_url: str) -> None:
    """A session with an id of another length gets its new expiry in a trip of its own, once it was decoded."""
    store = RedisStore(redis_url)
    config = {**store.config(), "SESSION_KEY_PREFIX": "", "PERMANENT_SESSION_LIFETIME": 1000}
    before = shop(SESSION_ID_LENGTH=24, **config).test_client()
    before.get("/write")
    cookie = before.get_cookie("session")
    assert cookie is not None
    app = shop(**config)
    store.pass_time(app, 500)
    with store.counted() as trips:
        assert visit(app, "/read", cookie.value) == "eve"
    assert 990 < store.ttl(app, cookie.value) <= 1000
    assert trips[-1] == "EVALSHA"
    store.close()


def test_ids_of_our_shape_cost_one_trip(redis_url: str) -> None:
    """Without a prefix, a session with an id as we make them is read and refreshed in one trip, and ended in one."""
    store = RedisStore(redis_url)
    app = shop(SESSION_KEY_PREFIX="", PERMANENT_SESSION_LIFETIME=1000, **store.config())
    client = app.test_client()
    client.get("/write")
    store.pass_time(app, 500)
    for path, expected in (("/read", store.refresh), ("/clear", store.delete)):
        with store.counted() as trips:
            client.get(path)
        assert tuple(trips) == expected
    assert store.server.keys() == []
    store.close()


@pytest.mark.parametrize(
    ("prefix", "found"),
    [("", True), ("session:", False), ("s", False)],
)
def test_check_names_an_empty_prefix(prefix: str, found: bool, redis_url: str) -> None:
    """``flask lazysession check`` says what an empty prefix means in a store that other programs share."""
    app = shop(SESSION_TYPE="redis", SESSION_REDIS=redis_url, SESSION_KEY_PREFIX=prefix)
    problems: Any = find_problems(app, app.session_interface)  # type: ignore[arg-type]
    assert ("key-prefix" in {problem.name for problem in problems}) is found


def test_the_script_checks_the_type(redis_url: str) -> None:
    """A key that turned into a list is not refreshed by the script alone either."""
    server: Any = redis.Redis.from_url(redis_url)
    server.flushall()
    server.rpush("celery", "task")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        RedisBackend(server).delete("celery")
    assert server.exists("celery")
