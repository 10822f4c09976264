"""Hostile Cookie headers, as a WSGI server hands them over: a text in which each character stands for one byte."""

from __future__ import annotations

import hashlib
import random
import string
from collections.abc import Callable, Iterator, Sequence

from itsdangerous import Signer

KEY = "key"  # SECRET_KEY of the apps under test
OLD_KEY = "the key before"  # SECRET_KEY_FALLBACKS
SALT = "flask-session"  # Flask-Session's own
LONGEST = 64 * 1024

_LETTERS = string.ascii_letters + string.digits + "_-"
_TRICKS = """../ ../../../../etc/passwd ..\\..\\ ..%2f..%2f %00 /dev/zero C:\\con file:///etc/passwd
\\\\host\\share ~root $(id) `id` ${jndi:ldap://x} {{7*7}} %n%s <script> ' " \\ * ? [a-z]* session: {session}:1
{"$gt":""} 'OR'1'='1 --;DROP;-- a:b:c __proto__ None null nan -1 0 \\x00 .lock .__wz_cache con nul""".split()  # noqa: SIM905
_CONTROLS = [
    "\r\nSet-Cookie: a=b",
    "\r\n\r\n",
    "\r\nflush_all\r\n",
    "\n",
    "\r",
    "\0",
    "\x0b",
    "\x1b[2J",
    "\x7f",
    "\x85",
]
_UNICODE = [
    *"\uff41\uff21\uff10\u0131\u0130\u017f\u212a\u01c5",  # fold or normalise to letters of an id
    *"\xe9\U0001f600\u202e\u200b\ufeff\u2028\ufffd\ufdfa\u0301\U0010ffff",
    "\ud800",  # no UTF-8
]
_BROKEN = """; ;;;; = == session session= =session ;session=; session==x $Version=1;session=x session=x;Path=/;HttpOnly
session="x session=x" session="\\" session="\\777 session="\\000" , session=x,session=y Session=x SESSION=x session[]=x
session%3Dx __Secure-session=x session;=x =;session=x""".split()  # noqa: SIM905


class Cookies:
    """An endless supply of Cookie headers, the same for the same seed.

    :param live: ids that the store knows; what resembles them must not be taken for them.
    :param signed: the app signs its ids.
    """

    def __init__(self, seed: int, live: Sequence[str], *, signed: bool) -> None:
        self.random = random.Random(seed)
        self.live = live
        self.signed = signed
        self._values = [self._noise, self._any_byte, self._letters, self._trick, self._control, self._unicode]
        self._values += [self._almost, self._unknown]
        self._headers: list[Callable[[], str]] = [self._several, self._quoted, self._broken, self._crowd]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Return what each header tries, and the header."""
        families: list[tuple[Callable[[], str], bool]] = [(make, True) for make in self._values]
        families += [(make, False) for make in self._headers]
        if self.signed:
            families += [(self._signature, True)] * 4
        while True:
            make, is_value = self.random.choice(families)
            text = make()
            yield make.__name__.strip("_"), f"session={self._sometimes_signed(text)}" if is_value else text

    def header_of(self, sid: str) -> str:
        """Return the header that a browser sends for an id which the app gave it."""
        return f"session={self.sign(sid)}"

    def sign(self, sid: str) -> str:
        """Sign as the app does, where it does."""
        return _signed(sid, KEY) if self.signed else sid

    # Values

    def _noise(self) -> str:
        size = min(LONGEST, int(2 ** self.random.uniform(0, 16.01)) - 1)
        return self.random.randbytes(size).decode("latin-1")

    def _any_byte(self) -> str:
        sid, byte = self._id(), chr(self.random.randrange(256))
        at = self.random.randrange(len(sid) + 1)
        return sid[:at] + byte + sid[at + self.random.randrange(2) :]

    def _letters(self) -> str:
        """All of the right alphabet, of any length; the longest allowed and its neighbours come often."""
        size = self.random.choice(
            [0, 1, 42, 44, 127, 128, 129, 250, 251, 4096, LONGEST, self.random.randrange(LONGEST)]
        )
        return (self._id(64) * (size // 64 + 1))[:size]

    def _trick(self) -> str:
        return self.random.choice(["", self._id()]) + self.random.choice(_TRICKS) * self.random.choice([1, 1, 40])

    def _control(self) -> str:
        sid, control = self._id(), self.random.choice(_CONTROLS)
        return self.random.choice([sid + control, control + sid, sid[:20] + control + sid[20:]])

    def _unicode(self) -> str:
        sid = list(self._id())
        for _ in range(self.random.choice([1, 3, 43])):
            sid[self.random.randrange(len(sid))] = self.random.choice(_UNICODE)
        return "".join(sid).encode("utf-8", "surrogatepass").decode("latin-1")

    def _almost(self) -> str:
        live = self.random.choice(self.live)
        at = self.random.randrange(len(live))
        other = self.random.choice(_LETTERS.replace(live[at], ""))
        near = [live[:-1], live + other, live[:at] + other + live[at + 1 :], live.swapcase(), live[::-1], live.upper()]
        return self.random.choice(
            [*near, f"session:{live}", f" {live} x", live + "%20", live + "=", live * 2, live + "."]
        )

    def _unknown(self) -> str:
        return self._id()

    def _id(self, size: int = 43) -> str:
        return "".join(self.random.choices(_LETTERS, k=size))

    # Signatures

    def _sometimes_signed(self, text: str) -> str:
        """A right signature lets what it signs come as far as the check of its shape."""
        if not self.signed or len(text) > 300 or self.random.random() < 0.5:
            return text
        return _signed(text, self.random.choice([KEY, KEY, OLD_KEY]))

    def _signature(self) -> str:
        sid = self.random.choice([self._id(), self.random.choice(self.live), ""])
        right = _signed(sid, KEY)
        wrong = [
            _signed(sid, self.random.choice(["", "other", KEY.upper(), KEY + "\0"]) or "\0"),
            _signed(
                sid, KEY, salt=self.random.choice(["", "cookie-session", "itsdangerous.Signer", SALT + " "]) or " "
            ),
            _signed(sid, KEY, key_derivation=self.random.choice(["concat", "django-concat", "none"])),
            _signed(sid, KEY, digest_method=self.random.choice([hashlib.sha256, hashlib.sha512, hashlib.md5])),
            right[: self.random.randrange(len(right))],
            right + self.random.choice([".", "=", "A", "\xff", right]),
            right.replace(".", self.random.choice(["..", "", ":", "%2e"])),
            self._id() + right[len(sid) :],
            "." * self.random.randrange(1, 2000),
            self._noise()[:200] + right[len(sid) :],
            sid + "." + self._noise()[:40],
        ]
        return self.random.choice(wrong)

    # Whole headers

    def _several(self) -> str:
        """Several cookies of one name, hostile ones and one that the store knows: the first one counts, or none."""
        values = [self._id(), self._trick(), self._any_byte(), self.sign(self._id()), "", self.sign(self.live[0])]
        self.random.shuffle(values)
        return self.random.choice([";", "; ", ",", " ; "]).join(f"session={value}" for value in values)

    def _quoted(self) -> str:
        """Inside of quotes, octal numbers stand for any byte: the value that arrives is not the one that is sent."""
        text = self.random.choice([self._id, self._control, self._trick, self._any_byte])()
        if self.random.random() < 0.5:
            text = "".join(f"\\{ord(each):03o}" for each in text)
        return f'session="{text}"'

    def _broken(self) -> str:
        return self.random.choice(_BROKEN).replace("x", self.random.choice(["x", self._id()]))

    def _crowd(self) -> str:
        pairs = [f"{self._id(4)}={self._id(4)}" for _ in range(self.random.choice([1, 20, 500]))]
        pairs.insert(self.random.randrange(len(pairs)), f"session={self._id()}")
        return "; ".join(pairs)


def _signed(
    text: str, key: str, *, salt: str = SALT, key_derivation: str = "hmac", digest_method: object = None
) -> str:
    options = {} if digest_method is None else {"digest_method": digest_method}
    signer = Signer(key, salt=salt, key_derivation=key_derivation, **options)  # type: ignore[arg-type]
    return signer.sign(text).decode()
