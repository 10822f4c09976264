"""The patterns of rules and routes as a front server can test them: they match all that the app matches, or more.

Sending a request to the app is always correct. So a pattern may be translated to one that matches more, but never to
one that matches less. Front servers compare bytes, Python compares characters: a translated pattern never counts
characters, except that one character is one to four bytes.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class TakenBack(NamedTuple):
    """Files of a static route that go to the app.

    :param text: the beginning of their paths, or a regular expression that is searched for in the path. It means the
        same in Python, in PCRE and in Go.
    :param reason: the rule or the route that takes them, for a comment.
    :param by_rule: whether it is a rule.
    """

    text: str
    is_regex: bool
    reason: str
    by_rule: bool = True

    def matches(self, path: str) -> bool:
        """Return whether a path goes to the app, comparing bytes."""
        if self.is_regex:
            return re.search(self.text.encode(), path.encode("utf-8", "surrogateescape")) is not None
        return path.startswith(self.text)


_WILDCARDS = re.compile(r"(\*\*+|\*|\?)")
#: A wildcard of a glob; ``?`` is one character, which has up to four bytes.
_OF_GLOBS = {"*": "[^/]*", "?": "[^/]{1,4}"}
#: With more wildcards, an attacker could choose a path for which the regular expression takes very long.
_MOST_WILDCARDS = 2

#: Regular expressions that mean the same in Python, PCRE and Go, whether they see characters or bytes. Other
#: repetitions, such as ``\\d+`` or ``(ab)*``, may not.
_PORTABLE = re.compile(
    r"""(?:
      \^ | \$ | \|                 # these mean the same without flags
    | [A-Za-z0-9/_,:;=@!~%&<> -]   # a letter
    | \\[./_+*?()\[\]$^|-]         # a character that has a meaning without the backslash
    | \\A
    | (?:\.|\[\^/\])[*+]\??        # any text, or any text within a segment
    | \((?:\?:)? | \)(?![*+?{])    # a group, but not a repeated one
    )*""",
    re.VERBOSE,
)
#: Text that can be quoted in any configuration; U+FFFD stands for bytes that are not UTF-8.
_PLAIN = re.compile(r"[\w./~@+ -]*")
_NOT_QUOTABLE = re.compile(r"[\x00-\x1f\x7f`{}\ufffd\ud800-\udfff]")
#: The beginning of a regular expression that is anchored to the beginning of the path.
_TIED = re.compile(r"(?:\^|\\A)((?:[A-Za-z0-9/_-]|\\[./_-])*)([*+?{]?)")


def prefix_taken_back(first: str, below: str, reason: str, *, by_rule: bool = True) -> TakenBack:
    """Return the paths that begin with a text, which begins with ``below``; more if it has special characters."""
    plain = _PLAIN.match(first)
    return TakenBack(max(plain[0] if plain else "", below, key=len), False, reason, by_rule)


def glob_taken_back(glob: str, below: str, reason: str) -> TakenBack | None:
    """Return what a path glob takes back of the paths that begin with ``below``; None where it matches none of them."""
    parts = _WILDCARDS.split(glob)
    first = parts[0]
    if not (first.startswith(below) or (len(parts) > 1 and below.startswith(first))):
        return None
    if len(parts) == 3 and parts[1].startswith("**") and not parts[2]:
        return prefix_taken_back(max(first, below, key=len), below, reason)
    if _NOT_QUOTABLE.search(glob):
        return TakenBack(below, False, reason)
    shown = parts[: 2 * _MOST_WILDCARDS + 1]
    regex = "".join(
        re.escape(part) if place % 2 == 0 else _OF_GLOBS.get(part, ".*") for place, part in enumerate(shown)
    )
    end = "" if len(shown) < len(parts) else "$"
    return TakenBack(f"(?s)^{regex}{end}", True, reason)


def regex_taken_back(regex: str, flags: object, below: str, reason: str) -> TakenBack | bool:
    """Return what a regular expression takes back of the paths that begin with ``below``.

    :return: False where it matches none of them, True where that cannot be known.
    """
    if flags != re.UNICODE:  # the only flag that each pattern of text has
        return True
    tied = _TIED.match(regex) if "|" not in regex else None
    if tied is not None:
        end = tied[1][:-1] if tied[2] and not tied[1].endswith("\\") else tied[1]
        first = end.replace("\\", "")
        if not (first.startswith(below) or below.startswith(first)):
            return False
    return TakenBack(f"(?s){regex}", True, reason) if _PORTABLE.fullmatch(regex) else True
