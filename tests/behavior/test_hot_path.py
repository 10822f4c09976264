"""What requests do not do: the work that is left out, and that the result is the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import Any

import fakeredis
import pytest
import redis
import valkey
from flask import Flask, Request, session
from flask.wrappers import Response
from hypothesis import given
from hypothesis import strategies as st
from redis.sentinel import Sentinel
from werkzeug.test import EnvironBuilder

from lazysession import LazySession
from lazysession import modes as rules
from lazysession.backends.redis.store import _reads_plainly
from lazysession.codec import Codec
from lazysession.cookies import cookie_value, vary_by_cookie
from lazysession.modes import Decision, Mode, Pattern, Rule, RuleTable
from lazysession.records.store import LOCAL_EXPIRY_LIFETIME
from lazysession.session import DeferredSession
from tests.support.stores import LIVE, FakeRedisStore, RedisStore
from tests.support.stores.base import let_pass

MakeApp = Callable[..., Flask]


def request_for(path: str = "/", cookies: str | None = None, method: str = "GET") -> Request:
    """Return a request that came with a Cookie header."""
    environ = EnvironBuilder(method=method).get_environ()
    environ["PATH_INFO"] = path
    if cookies is not None:
        environ["HTTP_COOKIE"] = cookies
    return Request(environ)


def test_an_untouched_request_does_nothing(memory_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """No rule is evaluated, no cookie parsed, no lock made; the session is one object with two attributes."""
    app = memory_app(LAZYSESSION_RULES=[(lambda request: 1 / 0, "skip")])
    interface, kept = app.session_interface, []
    open_session = interface.open_session

    def keep(app: Flask, request: Request) -> Any:
        kept.append((request, open_session(app, request)))
        return kept[-1][1]

    monkeypatch.setattr(interface, "open_session", keep)
    app.add_url_rule("/", view_func=lambda: "")
    client = app.test_client()
    client.set_cookie("session", LIVE)
    client.get("/")
    ((request, deferred),) = kept
    assert type(deferred) is DeferredSession
    assert "cookies" not in request.__dict__
    assert deferred.__dict__.keys() == {"lazy_owner", "lazy_request", "lazy_headers"}


def test_a_session_is_encoded_once(memory_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read encodes to see that nothing changed, a first write what it stores; a change also what it started from."""
    encode, encoded = Codec.encode, []

    def count(codec: Codec, data: Any) -> bytes:
        encoded.append(dict(data))
        return encode(codec, data)

    monkeypatch.setattr(Codec, "encode", count)
    app = memory_app()
    app.add_url_rule("/<int:value>", "write", lambda value: str(session.update(a=value)))
    app.add_url_rule("/", "read", lambda: str(session.get("a")))
    client = app.test_client()
    counts = []
    for path in ("/1", "/", "/1", "/2"):
        encoded.clear()
        client.get(path)
        counts.append(len(encoded))
    assert counts == [1, 1, 1, 2]


PIECES = st.sampled_from(["session", "=", ";", "; ", " ", '"', "a" * 43, "b", "\t", "\\", "sessions", "\xe9", "=="])
HEADERS = st.lists(PIECES, max_size=12).map("".join) | st.text(st.characters(max_codepoint=255), max_size=30)


@given(HEADERS)
def test_a_cookie_is_what_werkzeug_says(header: str) -> None:
    """One cookie is found without parsing the others, and is the one that parsing them finds."""
    assert cookie_value(request_for(cookies=header), "session") == request_for(cookies=header).cookies.get("session")


def test_no_cookies() -> None:
    """Without the header there is none."""
    assert cookie_value(request_for(), "session") is None


def test_cookies_that_a_request_class_reads_itself() -> None:
    """An app that takes its cookies from elsewhere is asked."""

    class HeaderRequest(Request):
        @property
        def cookies(self) -> Any:
            return {"session": "from elsewhere"}

    request = HeaderRequest(request_for(cookies="session=here").environ)
    assert cookie_value(request, "session") == "from elsewhere"


def test_cookies_that_a_request_class_keeps_otherwise() -> None:
    """With a dict for a storage, the last of two cookies counts."""

    class DictRequest(Request):
        dict_storage_class = dict  # type: ignore[assignment]

    request = DictRequest(request_for(cookies="session=first; session=last").environ)
    assert cookie_value(request, "session") == request.cookies.get("session") == "last"


def test_cookies_that_were_put_into_a_request() -> None:
    """What a hook made of the cookies counts."""
    request = request_for(cookies="session=here")
    request.__dict__["cookies"] = {"session": "changed"}
    assert cookie_value(request, "session") == "changed"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["Cookie"]),
        (["Accept-Encoding"], ["Accept-Encoding, Cookie"]),
        (["cookie"], ["cookie"]),
        (["*"], ["*, Cookie"]),
    ],
)
def test_vary(before: list[str], after: list[str]) -> None:
    """Cookie is added to what the response varies by, once."""
    response = Response()
    for value in before:
        response.headers.add("Vary", value)
    vary_by_cookie(response)
    vary_by_cookie(response)
    assert response.headers.getlist("Vary") == after


class TestRulesThatAreKnown:
    """What a table says of a place is cached; what a callable says never is."""

    @staticmethod
    def counted(pattern: str, mode: Mode, asked: list[str], *, asks: bool = False) -> Rule:
        """Make a rule that counts its calls."""

        def matches(request: Request) -> bool:
            asked.append(pattern)
            return re.search(pattern, request.path) is not None

        return Rule(pattern, mode, matches, Pattern("function" if asks else "regex", pattern))

    def test_a_place_is_looked_up_once(self) -> None:
        """The second request to a path matches no pattern, and calls every callable before the one that matched."""
        asked: list[str] = []
        table = RuleTable(
            [
                self.counted("^/a", Mode.SKIP, asked),
                self.counted("^/b/2", Mode.NO_REFRESH, asked, asks=True),
                self.counted("^/b", Mode.READONLY, asked),
                self.counted("^/", Mode.SKIP, asked, asks=True),
            ],
            skip_static=True,
        )
        app = Flask("shop")
        assert table.mode_of(app, request_for("/b/1")) == Decision(Mode.READONLY, "^/b")
        assert asked == ["^/a", "^/b", "^/b/2"]
        asked.clear()
        assert table.mode_of(app, request_for("/b/1")) == Decision(Mode.READONLY, "^/b")
        assert asked == ["^/b/2"]
        assert table.mode_of(app, request_for("/b/1", method="POST")).mode is Mode.READONLY
        assert table.mode_of(app, request_for("/b/2")).mode is Mode.NO_REFRESH

    @given(
        st.lists(st.tuples(st.sampled_from(["a", "b", "^/$", "ab", "."]), st.booleans()), max_size=6),
        st.lists(st.sampled_from(["/", "/a", "/b", "/ab", "/c"]), max_size=12),
    )
    def test_the_first_match_decides(self, patterns: list[tuple[str, bool]], paths: list[str]) -> None:
        """However often a path comes, and whichever rules are callables."""
        rules = [self.counted(pattern, Mode.NO_REFRESH, [], asks=asks) for pattern, asks in patterns]
        table, app = RuleTable(rules, skip_static=True), Flask("shop")
        for path in paths:
            first = next((pattern for pattern, _ in patterns if re.search(pattern, path)), "default")
            assert table.mode_of(app, request_for(path)).reason == first

    def test_what_is_known_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Clients choose the paths: neither many of them nor long ones fill the memory."""
        monkeypatch.setattr(rules, "PLACES", 10)
        table, app = RuleTable([self.counted("x", Mode.SKIP, [])], skip_static=True), Flask("shop")
        for number in range(25):
            table.mode_of(app, request_for(f"/{number}"))
            assert len(table._known) <= 10
        table._known.clear()
        table.mode_of(app, request_for("/" + "y" * 200))
        table.mode_of(app, request_for("/", method="Z" * 200))
        assert table._known == {}


class TestReadingFromRedis:
    """A GET, and a script in the same trip where the expiry may be due."""

    @pytest.fixture
    def store(self, redis_url: str) -> Generator[RedisStore]:
        store = RedisStore(redis_url)
        yield store
        store.close()

    def test_two_processes(self, store: RedisStore) -> None:
        """A process that has not read the session yet reads its expiry, and remembers it for a minute."""
        apps = [self.app(store), self.app(store)]
        sid = self.write(apps[0])
        names = [self.read(store, app, sid) for app in apps for _ in "12"]
        assert names == [["GET"], ["GET"], ["GET+EVALSHA"], ["GET"]]
        let_pass(apps[0], LOCAL_EXPIRY_LIFETIME + 1)
        assert [self.read(store, apps[0], sid) for _ in "12"] == [["GET+EVALSHA"], ["GET"]]

    def test_an_expiry_that_another_process_moved(self, store: RedisStore) -> None:
        """The server's expiry counts: what another process refreshed is not refreshed again."""
        apps = [self.app(store), self.app(store)]
        sid = self.write(apps[0])
        for app in apps:
            store.pass_time(app, 250)
        assert [self.read(store, app, sid) for app in reversed(apps)] == [["GET+EVALSHA"], ["GET+EVALSHA"]]
        assert 990 < store.ttl(apps[0], f"session:{sid}") <= 1000

    def test_a_session_that_went(self, store: RedisStore) -> None:
        """A local expiry says nothing about the session: one that was deleted is not found."""
        app = self.app(store)
        sid = self.write(app)
        store.server.flushall()
        assert self.read(store, app, sid, text="None") == ["GET"]
        assert self.read(store, self.app(store), sid, text="None") == ["GET+EVALSHA"]

    def test_a_server_that_lost_the_script(self, store: RedisStore) -> None:
        """It gets the script once more, and the session is read and refreshed all the same."""
        sid = self.write(self.app(store))
        app = self.app(store)
        store.pass_time(app, 500)
        store.server.script_flush()
        assert self.read(store, app, sid) == ["GET+EVALSHA", "EVAL"]
        assert 990 < store.ttl(app, f"session:{sid}") <= 1000

    def test_a_failed_get_is_an_error(self, store: RedisStore) -> None:
        """What is there and no session of ours raises the client's own error, as every fault of the store does."""
        app = self.app(store)
        store.server.hset(f"session:{LIVE}", "a", "1")
        backend = app.session_interface.handler.backend  # type: ignore[attr-defined]
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            backend.read_and_touch(f"session:{LIVE}", 1000, 900)

    @pytest.mark.parametrize(
        ("client", "plainly"),
        [
            (redis.Redis(), True),
            (valkey.Valkey(), True),
            (fakeredis.FakeRedis(), True),
            (FakeRedisStore().client, False),
            (redis.RedisCluster.__new__(redis.RedisCluster), False),
            (Sentinel([("localhost", 1)]).master_for("main"), True),
            (Sentinel([("localhost", 1)]).slave_for("main"), False),
        ],
        ids=["redis", "valkey", "fakeredis", "unknown", "cluster", "master", "replica"],
    )
    def test_which_clients_read_with_get(self, client: Any, plainly: bool) -> None:
        """A GET may go to a replica or a cache, and a script does not: it reads what a change compares with."""
        assert _reads_plainly(client) is plainly

    def test_a_client_that_caches(self) -> None:
        """Nor is the client's own cache asked for a session."""
        client = redis.Redis()
        client.connection_pool.cache = object()
        assert not _reads_plainly(client)

    @staticmethod
    def app(store: RedisStore) -> Flask:
        app = Flask("shop", static_folder=None)
        app.config.update(TESTING=True, PERMANENT_SESSION_LIFETIME=1000, **store.config())
        LazySession(app)
        app.add_url_rule("/write", view_func=lambda: str(session.update(a=1)), endpoint="write")
        app.add_url_rule("/read", view_func=lambda: str(session.get("a")), endpoint="read")
        return app

    @staticmethod
    def write(app: Flask) -> str:
        client = app.test_client()
        client.get("/write")
        cookie = client.get_cookie("session")
        assert cookie is not None
        return cookie.value

    @staticmethod
    def read(store: RedisStore, app: Flask, sid: str, text: str = "1") -> list[str]:
        client = app.test_client()
        client.set_cookie("session", sid)
        with store.counted() as names:
            assert client.get("/read").text == text
        return names
