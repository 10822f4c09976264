"""Wrong URLs of stores: one clear line at start-up that names the fault, and no piece of a password."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from lazysession import ConfigurationError, LazySession
from lazysession.backends.redis import RedisBackend


def error_of(session_type: str, value: Any) -> str:
    """Return the message of the error at start-up; no error in its chain repeats a password."""
    app = Flask("shop", static_folder=None)
    name = f"SESSION_{session_type.upper()}"
    app.config.update({"SESSION_TYPE": session_type, name: value})
    with pytest.raises(ConfigurationError) as raised:
        LazySession(app)
    message = str(raised.value)
    assert message.startswith(f"{name} ")
    assert "\n" not in message
    error: BaseException | None = raised.value
    while error is not None:  # as a traceback shows it
        assert "cret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://me:secret@host/abc", "names a database that is not a number"),
        ("redis://me:secret@host/0/1", "names a database that is not a number"),
        ("redis://me:secret@host/-1", "names a database that is not a number"),
        ("redis+cluster://me:secret@host/1", "names a database, but a cluster has only database 0"),
        ("redis+sentinel://me:secret@host/sessions/abc", "names a database that is not a number"),
        ("redis+sentinel://me:secret@host", "names no service: write redis+sentinel://host:26379/SERVICE"),
        ("redis://host:abc", "has a port that is not a number from 1 to 65535"),
        ("redis://host:99999/0", "has a port that is not a number from 1 to 65535"),
        ("redis+cluster://one:1,two:port", "has a port that is not a number from 1 to 65535"),
        ("redis://:6379/0", "names no host"),
        ("redis:///0", "names no host"),
        ("redis://me:secret@/0", "names no host"),
        ("redis+cluster://one,,two", "names no host"),
        ("redis://one,two", "names several hosts: write redis+cluster:// or redis+sentinel://"),
        ("redis://[::1", "has an invalid host"),
        ("unix://", "names no socket: write unix:///run/redis.sock"),
        ("unix://run/redis.sock", "names no socket: write unix:///run/redis.sock"),
        ("unix:///", "names no socket: write unix:///run/redis.sock"),
        ("redis://me:secret@host#x", "has '#' in it"),
        ("redis://me:se#cret@host", "has '/', '?' or '#' in its password: write %2F, %3F or %23"),
        ("redis://me:se/cret@host", "has '/', '?' or '#' in its password: write %2F, %3F or %23"),
        ("redis://me:se?cret@host", "has '/', '?' or '#' in its password: write %2F, %3F or %23"),
        ("redis://host/0?socket_timout=1", "has the unknown option 'socket_timout'. Did you mean 'socket_timeout'?"),
        ("redis://host/0?pasword=secret", "has the unknown option 'pasword'. Did you mean 'password'?"),
        ("redis://host/0?xyzzy=1", "has the unknown option 'xyzzy'."),
        ("redis+sentinel://host/s?sentinel_pasword=x", "has the unknown option 'sentinel_pasword'. Did you mean 'sent"),
        ("redis://host?db=abc", "has a wrong value for its option 'db'"),
        ("redis://host?db=", "has no value for its option 'db'"),
        ("redis://host?socket_timeout=secret", "has a wrong value for its option 'socket_timeout'"),
        ("redis://host?socket_timeout=0", "has a wrong value for its option 'socket_timeout'"),
        ("redis://host?socket_connect_timeout=-1", "has a wrong value for its option 'socket_connect_timeout'"),
        ("rediss://host?ssl_cert_reqs=secret", "has a wrong value for its option 'ssl_cert_reqs'"),
        ("redis://host?ssl_ca_certs=ca.pem", "has the option 'ssl_ca_certs', which needs rediss://"),
        ("redis://ho st/0", "has a blank in it"),
    ],
)
def test_redis(url: str, words: str) -> None:
    """The fault is named, and the option where it is one."""
    message = error_of("redis", url)
    assert message.startswith(f"SESSION_REDIS cannot be used: its URL {words}")
    assert len(message) < 200


@pytest.mark.parametrize(
    "url",
    [
        "redis://host",
        "redis://host/",
        "redis://host:6380/15",
        "redis://me:p%2Fw@[::1]:6379/0?socket_timeout=0.5&client_name=a@b&max_connections=5",
        "redis://:p@ss@host",
        "redis://host?db=3&protocol=3&health_check_interval=30",
        "rediss://host/0?ssl_cert_reqs=none&ssl_check_hostname=false",
        "rediss://host/0?ssl_cert_reqs=required&ssl_ca_certs=ca.pem",
        "unix:///run/redis.sock?db=2",
        "unix://me:p%40ss@/run/redis.sock",
        "redis+cluster://one:1,two:2",
        "redis+sentinel://one,two/sessions/4?sentinel_password=theirs&socket_timeout=1",
    ],
)
def test_right_urls_of_redis(url: str) -> None:
    """What the client takes is taken."""
    assert RedisBackend.from_setting(url) is not None


@pytest.mark.parametrize("query", ["timout=1", "timeout=0", "timeout=abc", "timeout"])
def test_options_of_memcached(query: str) -> None:
    """The error for an unknown option, or one without a number, names the options that there are."""
    message = error_of("memcached", f"memcached://host?{query}")
    assert "its options are timeout and connect_timeout, in seconds and more than 0" in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("session_type", "value", "words"),
    [
        ("redis", "", "SESSION_REDIS cannot be used: it is empty"),
        ("memcached", " ", "SESSION_MEMCACHED cannot be used: it is empty"),
        ("mongodb", "", "SESSION_MONGODB cannot be used: it is empty"),
        ("sqlalchemy", "", "SESSION_SQLALCHEMY cannot be used: it is empty"),
        ("cachelib", "", "SESSION_CACHELIB cannot be used: it is empty"),
        ("redis", "redis://${REDIS_HOST}:6379", "SESSION_REDIS cannot be used: a variable in it"),
        ("sqlalchemy", "${DATABASE_URL}", "SESSION_SQLALCHEMY cannot be used: a variable in it"),
        (
            "sqlalchemy",
            "postgres://me:secret@host/db",
            "Write postgresql+psycopg://",
        ),
        ("mongodb", "mongodb://me:se/cret@host/db", "is each port a number"),
        ("mongodb", "mongodb://host:abc", "is each port a number"),
    ],
)
def test_other_stores(session_type: str, value: str, words: str) -> None:
    """A value that is empty, in quotes or an unfilled placeholder is the same error for each store."""
    assert words in error_of(session_type, value)


@pytest.mark.parametrize(
    ("session_type", "value", "words"),
    [
        ("mongodb", '"mongodb://me:secret@host"', "SESSION_MONGODB cannot be used: it has quotes around it"),
        ("memcached", "memcached://host\n", "SESSION_MEMCACHED cannot be used: it has blanks around it"),
        (
            "sqlalchemy",
            "'postgresql://me:secret@host/db'",
            "cannot be used: it has quotes around it",
        ),
    ],
)
def test_what_stands_around_a_url(session_type: str, value: str, words: str) -> None:
    """A .env file leaves quotes and blanks for each store."""
    assert words in error_of(session_type, value)
