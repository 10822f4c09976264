"""Coverage-guided fuzzing of what reads hostile bytes: ``nox -s fuzz``, or ``nox -s fuzz -- --seconds 600``.

An input that breaks a promise ends the run: it is printed and kept in a file, and the exit status is not 0.
``--input FILE`` tries such a file again.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import atheris  # type: ignore[import-untyped]  # its stubs are incomplete

with atheris.instrument_imports(  # pyright: ignore[reportAttributeAccessIssue]
    include=["lazysession", "itsdangerous"]
):
    from flask import Flask
    from flask_session.base import ServerSideSession

    from lazysession.backend import Record
    from lazysession.codec import Codec
    from lazysession.cookies import SessionCookies
    from lazysession.flasksession import StoreInterface
    from lazysession.ids import SessionIds
    from lazysession.records.rotation import ROTATIONS, Forwarding, ForwardingRecord, forwarding_in

sys.path.append(str(Path(__file__).parents[2]))  # nox sets PYTHONSAFEPATH, which leaves this folder out

from tests.support.hostile.cookies import Cookies
from tests.support.hostile.payloads import EXECUTED, Payloads

SEED = 20261122
LIVE = ["a" * 43]
NOW = 1.8e9
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")

app = Flask("shop", static_folder=None)
app.config.update(SECRET_KEY="key", SECRET_KEY_FALLBACKS=["the key before"])
codecs = [Codec("msgpack"), Codec("json")]
nowhere: Any = None  # ids and cookies ask no store
interface = StoreInterface(app, nowhere, codecs[0], ServerSideSession)
ids = SessionIds(interface)


class Broken(Exception):
    """A promise that an input breaks."""


def demand(kept: bool, promise: str) -> None:
    """Raise when a promise is not kept."""
    if not kept:
        raise Broken(promise)


@atheris.instrument_func  # type: ignore[untyped-decorator, unused-ignore]
def walk(value: Any, depth: int = 0) -> int:
    """Take another branch for each kind of value at each depth: msgspec is compiled, and shows the fuzzer none."""
    if depth > 20:
        return 1
    if isinstance(value, dict):
        return sum(walk(key, depth + 1) + walk(inner, depth + 1) for key, inner in list(value.items())[:20])
    if isinstance(value, (list, tuple)):
        return sum(walk(inner, depth + 1) for inner in value[:20])
    if isinstance(value, str):
        return 3 if value.isascii() else 4
    if isinstance(value, bytes):
        return 5
    if isinstance(value, float):
        return 6 if math.isfinite(value) else 7
    if isinstance(value, bool):
        return 8
    if isinstance(value, int):
        return 9 if -(2**63) <= value < 2**64 else 10
    return 11 if value is None else 12 if depth == 1 else 13


def codec(data: bytes) -> None:
    """Decoding raises nothing; what was decoded can be encoded, and is the same when it is read again."""
    for each in codecs:
        items = each.decode(data)
        if items is None:
            continue
        demand(isinstance(items, dict), "a session is a dict")
        walk(items)
        if each is codecs[1]:
            items = each.decode(each.encode(items))  # in msgpack 1 and "1" are two keys, and one when JSON wrote them
            demand(items is not None, "what was encoded can be read")
        payload = each.encode(items or {})
        again = each.decode(payload)
        demand(again is not None and each.encode(again) == payload, "what was encoded once is stable")
        demand(again is not None and each.same(items, again), "what was encoded is the same as what was decoded")
    demand(not EXECUTED, "no code is run")


def id_check(data: bytes) -> None:
    """Only what has the shape of an id passes, and its key is the prefix and itself."""
    for value in (data.decode("latin-1"), data.decode("utf-8", "replace"), data.decode("utf-16", "replace")):
        demand(ids.may_be(value) == (_ID.match(value) is not None), "the shape of an id")
        if ids.may_be(value):
            demand(ids.key(value) == f"session:{value}", "the key of an id")


def cookie(data: bytes) -> None:
    """Of a whole header: nothing is raised, an id comes out only in its shape, and signed only with a right key."""
    environ: Any = {"HTTP_COOKIE": data.decode("latin-1")}
    request = app.request_class(environ)
    sent = request.cookies.get("session")
    plain, signed = (SessionCookies(interface, ids.may_be, signed=which) for which in (False, True))
    found = plain.read(app, request)
    demand(found is None or (found == sent and _ID.match(found) is not None), "an id is what was sent")
    trusted = signed.read(app, request)
    # The only sound signatures are those of the corpus: another cannot be guessed.
    demand(trusted is None or (_ID.match(trusted) is not None and str(sent).startswith(f"{trusted}.")), "signed")
    plain.sent(app, request)


class OneRecord:
    """A store that holds one payload, whatever is asked for."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.asked = 0

    def read(self, key: str) -> Record:
        """Return the payload."""
        self.asked += 1
        demand(_ID.match(key.removeprefix("session:")) is not None, "only ids are looked up")
        return Record(self.payload, 10.0, touched=True)

    def replace(self, key: str, payload: bytes, ttl: float | None, expected: bytes) -> None:
        """Take a ttl that every store takes."""
        demand(ttl is not None and 0 < ttl < 60 and math.isfinite(ttl), "a forwarding record is short")

    def delete(self, key: str, expected: bytes | None = None) -> None:
        """Take anything."""


def forwarding(data: bytes) -> None:
    """Whatever is stored as a forwarding record: following it raises nothing, ends, and reads ids alone."""
    for each in codecs:
        store: Any = OneRecord(data)
        forwarding = Forwarding(store, each, ids, lambda: NOW)
        items = each.decode(data)
        found = None if items is None else forwarding_in(items)
        demand(found == forwarding.forwarding_of(data), "one reading of a forwarding record")
        if found is None:
            continue
        demand(isinstance(found, ForwardingRecord) and isinstance(found.sid, str), "the shape of a forwarding record")
        forwarding.clean_up("session:" + "k" * 43, store.read("session:" + "k" * 43), found)
        forwarding.follow(found)
        demand(store.asked <= ROTATIONS + 5, "a chain of forwarding records ends")


TARGETS: dict[str, Callable[[bytes], None]] = {
    "codec": codec,
    "id_check": id_check,
    "cookie": cookie,
    "forwarding": forwarding,
}


def supply(target: str, seed: int) -> Iterator[bytes]:
    """Return inputs that come closer than random bytes do: the cookies and payloads of the tests."""
    if target in ("codec", "forwarding"):
        families = ("forwarding", "mutated") if target == "forwarding" else ()
        return (payload for family, payload in Payloads(seed, LIVE, NOW) if not families or family in families)
    headers = (header.encode("latin-1") for _, header in Cookies(seed, LIVE, signed=seed % 2 == 0))
    return (header.removeprefix(b"session=") for header in headers) if target == "id_check" else headers


def mutator(target: str) -> Callable[[bytes, int, int], bytes]:
    """Make what libFuzzer asks for its next input: now and then a new one, else a mutation of one that it chose."""
    fresh = supply(target, SEED)

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        if seed % 2 == 0 or not data:
            data = next(fresh)[:longest] or b"x"
        return bytes(atheris.Mutate(data, longest)) if seed % 5 else data

    return mutate


def main() -> None:
    """Fuzz one target in this process, which ends with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60, help="how long to go on")
    parser.add_argument("--input", help="try this one input instead")
    wanted = parser.parse_args()
    options = [f"-max_total_time={wanted.seconds}", "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"]
    options += [f"-artifact_prefix={wanted.target}-", "-max_len=8192", f"-seed={SEED}", "-use_value_profile=1"]
    options += [wanted.input] if wanted.input else []
    atheris.Setup([sys.argv[0], *options], TARGETS[wanted.target], custom_mutator=mutator(wanted.target))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
