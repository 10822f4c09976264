"""Hostile stored payloads: damaged sessions, foreign bytes, bombs, and pickles that would run code."""

from __future__ import annotations

import json
import pickle
import random
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import msgspec

#: What pickles ran that should not have been loaded.
EXECUTED: list[str] = []
#: Stands in every payload, and so must stand in no log record.
LURE = "lure-5e1f9c"

_SESSIONS: list[dict[str, Any]] = [
    {"_permanent": True, "name": LURE},
    {"_permanent": True, "_user_id": "7", "_fresh": True, "_id": "9f" * 32, "cart": [1, 2, {"n": 1.5}], "name": LURE},
    {"_flashes": [["message", LURE]], "csrf_token": "a1" * 20, "n": -(2**40), "none": None, "ok": False},
    {"deep": {"er": {"est": [[], {}, [LURE] * 20]}}, "text": "é\n\0" * 50 + LURE},
    {"_permanent": True, "_lazysession_created": 1.7e9, "name": LURE},
]
#: Headers of MessagePack that promise more than there is, or what few expect.
_HEADERS = [
    *(code + b"\xff" * size for code, size in ((b"\xdd", 4), (b"\xdf", 4), (b"\xc6", 4), (b"\xdb", 4), (b"\xc9", 5))),
    *(code + b"\x05\xff\xff\xff" for code in (b"\xdd", b"\xdf", b"\xc6", b"\xdb")),
    *(bytes([code]) for code in (0xC1, 0xC0, 0xC7, 0xD4, 0xD6, 0xD7, 0xD8, 0xCA, 0xCB, 0xCF, 0xD3, 0x80, 0x90, 0xFF)),
]
_ODD: list[Any] = [
    *(
        "yes",
        "",
        0,
        1,
        -1,
        2**63,
        2**64 - 1,
        -(2**63),
        1.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
        None,
        True,
        b"\xff",
    ),
    *([], [1], {}, {"a": {}}, {"": None}, [[[]]], LURE, "\0", "é", "\U0010ffff"),
]
_KNOWN_KEYS = [
    "_permanent",
    "_lazysession_created",
    "_user_id",
    "_fresh",
    "_id",
    "_remember",
    "_flashes",
    "n",
    "",
    "sid",
]
_FOREIGN = [
    *(
        b"",
        b"\0",
        b"null",
        b"true",
        b"[]",
        b'"x"',
        b"1",
        b"{}",
        b"\x80",
        b"\xc0",
        b"\x90",
        b"NaN",
        b"{",
        b"}",
        b"\xef\xbb\xbf{}",
    ),
    *(b"<?xml version='1.0'?><a/>", b"!!python/object/apply:hostile.payloads.run [yaml]", b"\x1f\x8b\x08\0", b"PK\3\4"),
    *(
        b'a:1:{s:1:"a";O:1:"X":0:{}}',
        b"\xac\xed\0\5sr",
        b"gAAAAA",
        b".eJw",
        b"\xe3\0\0\0\0",
        b"REDIS0011",
        b"\x80\x05.",
    ),
]


def run(what: str) -> str:
    """Leave a trace; only a pickle calls this."""
    EXECUTED.append(what)
    return what


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._reduced


class Payloads:
    """An endless supply of stored payloads, the same for the same seed.

    :param known: ids that the store knows, for forwarding records that lead there.
    :param now: seconds since the epoch, for forwarding records that are still good.
    """

    def __init__(self, seed: int, known: Sequence[str], now: float) -> None:
        self.random = random.Random(seed)
        self._known = known
        self._now = now
        self._families = [self._sound, self._mutated, self._mutated, self._mutated, self._bomb, self._header]
        self._families += [
            self._foreign,
            self._pickled,
            self._extension,
            self._keys,
            self._odd,
            self._number,
            self._forwarding,
        ]

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Return what each payload tries, and the payload."""
        while True:
            make = self.random.choice(self._families)
            yield make.__name__.strip("_"), make()

    def _encode(self, data: Any) -> bytes:
        return msgspec.msgpack.encode(data) if self.random.random() < 0.5 else msgspec.json.encode(data)

    def _sound(self) -> bytes:
        return self._encode(self.random.choice(_SESSIONS))

    def _mutated(self) -> bytes:
        payload = bytearray(
            self.random.choice([self._sound, self._sound, self._forwarding, self._odd, self._pickled])()
        )
        for _ in range(self.random.choice([1, 1, 2, 5])):
            at = self.random.randrange(len(payload) + 1)
            end = at + int(2 ** self.random.uniform(0, 6))
            change = self.random.randrange(6)
            if change == 0 and at < len(payload):
                payload[at] ^= 1 << self.random.randrange(8)
            elif change == 1:
                payload[at : at + 1] = bytes([self.random.randrange(256)])
            elif change == 2:
                payload[at:at] = self.random.choice([self.random.randbytes(end - at), *_HEADERS])
            elif change == 3:
                del payload[at:end]
            elif change == 4:
                del payload[at:]
            else:
                payload[at:at] = self.random.choice([bytes(payload[at:end]), self._sound()])
        return bytes(payload)

    def _bomb(self) -> bytes:
        """Nested as deeply as the interpreter can just follow, a little less, and much more."""
        depth = self.random.choice([self.random.randrange(1100), self.random.randrange(850, 1010), 5_000, 20_000])
        opening, closing = self.random.choice(
            [(b"\x91", b"\xc0"), (b"\x81\xa1a", b"\xc0"), (b"[", b"]"), (b'{"a":', b"}")]
        )
        if opening in (b"[", b'{"a":'):
            inside = b"1" if opening != b"[" else b""
            return b'{"name":"%s","a":' % LURE.encode() + opening * depth + inside + closing * depth + b"}"
        key = self.random.choice([b"\xa1a", opening * self.random.randrange(900) + b"\xc0"])  # an array may be a key
        return b"\x81" + key + opening * depth + closing

    def _header(self) -> bytes:
        start = self.random.choice([b"", b"\x81\xa1a", b"\x82\xa1a\x01", b"\x81"])
        return start + self.random.choice(_HEADERS) * self.random.choice([1, 2, 300]) + self.random.randbytes(3)

    def _foreign(self) -> bytes:
        if self.random.random() < 0.5:
            return self._encode(self.random.choice([*_ODD[:3], LURE, [LURE], None, 1.5, [[LURE, 1]]]))
        return self.random.choice(_FOREIGN) + self.random.choice([b"", self.random.randbytes(20)])

    def _pickled(self) -> bytes:
        protocol = self.random.randrange(pickle.HIGHEST_PROTOCOL + 1)
        source = "import tests.support.hostile.payloads as p; p.run('exec')"
        traps = [Trap(run, "call"), Trap(exec, source), {"a": 1, "name": LURE}, {"a": Trap(run, "value")}]
        traps += [
            {
                **_SESSIONS[0],
                "x": [Trap(eval, "__import__('tests.support.hostile.payloads').support.hostile.payloads.run('eval')")],
            }
        ]
        return pickle.dumps(self.random.choice(traps), protocol)

    def _extension(self) -> bytes:
        code, body = (
            self.random.randrange(-128, 128),
            self.random.randbytes(self.random.choice([0, 1, 4, 8, 12, 16, 17])),
        )
        if self.random.random() < 0.5:
            code = -1  # a time
        extension = b"\xc7" + struct.pack(">Bb", len(body), code) + body
        return self.random.choice([b"\x81\xa1a", b"\x82\xa1a\x01\xa1b", b"\x81", b"", b"\x81\xa1a\x91"]) + extension

    def _keys(self) -> bytes:
        keys: list[Any] = [None, True, 1, -1, 1.5, b"a", b"\xff", (1, "a"), ((),), float("nan")]
        inner = dict.fromkeys(self.random.sample(keys, self.random.randrange(1, 5)), LURE)
        data = self.random.choice([inner, {"a": inner}, {"n": 1, **inner}, {"_permanent": True, "a": [inner]}])
        utf8 = b"\x81\xa2\xc3\x28\x01", b"\x81\xa1\xff\x01", b"\x81\xa1a\xa1\xff", b'{"\xff":1}', b'{"a":"\\ud800"}'
        return self.random.choice([msgspec.msgpack.encode(data), *utf8])

    def _odd(self) -> bytes:
        keys = self.random.sample(_KNOWN_KEYS, self.random.randrange(1, 4))
        data = {key: self.random.choice(_ODD) for key in keys}
        return self._encode({**data, **self.random.choice([{}, {"name": LURE}])})

    def _number(self) -> bytes:
        """JSON has numbers that MessagePack has not, and floats have not either."""
        number = self.random.choice(
            ["1" + "0" * self.random.randrange(20, 500), "-" + "9" * 30, "1e400", "-0", "1E5", "0.1e-999"]
        )
        key = self.random.choice(_KNOWN_KEYS)
        inside = self.random.choice(["%s", "[%s]", '{"a":%s}']) % number
        return f'{{"{key}": {inside}, "name": "{LURE}"}}'.encode()

    def _forwarding(self) -> bytes:
        """What a rotation leaves behind under the old id, to ids that are known, unknown and no ids at all."""
        sids: list[Any] = [*self._known, "b" * 43, "../x", "", "a" * 129, LURE, "\0", *_ODD]
        ends: list[Any] = [self._now + 1e6, self._now - 1, 1e300, 2**64 - 1, *_ODD]
        befores: list[Any] = [{}, {"n": 1}, {"_permanent": True}, _SESSIONS[0], {"a": {"b": [1]}}, *_ODD]
        inside: dict[str, Any] = {
            "moved_to": self.random.choice(sids),
            "until": self.random.choice(ends),
            "before": self.random.choice(befores),
        }
        if self.random.random() < 0.2:
            inside.pop(self.random.choice(list(inside)))
        if self.random.random() < 0.1:
            inside["until"] = 10**400  # only JSON holds it
            return json.dumps({"_permanent": inside}, default=str).encode()
        return self._encode({"_permanent": inside, **self.random.choice([{}, {}, {}, {"n": 1}])})


def beginning_of(payload: bytes) -> list[str]:
    """Return how a log record would show a payload: what of it must not be logged."""
    return [repr(payload[:16])[2:-1]] if len(payload) >= 16 else []


def is_session(payload: bytes) -> bool:
    """Return whether bytes are a session in either format, by other means than the library's."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(limit + 200)  # msgspec counts the frames of its caller: those of the tests are too many
    try:
        for decode in (msgspec.msgpack.decode, msgspec.json.decode):
            with suppress(ValueError, RecursionError):
                return isinstance(decode(payload), dict)
        return False
    finally:
        sys.setrecursionlimit(limit)
