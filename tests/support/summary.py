"""The end of a run: why tests were skipped, which servers they used, and which were not there."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

#: Seconds that a program may take to print its version.
TIMEOUT = 10.0


def skip_lines(texts: Iterable[str]) -> list[str]:
    """Return a line for each reason for which tests were skipped, the most frequent first.

    :param texts: what was reported of each test that was skipped.
    """
    counts = Counter(text.removeprefix("Skipped: ") for text in texts)
    return [f"Skipped {_tests(count)}: {reason}" for reason, count in counts.most_common()]


def servers_line(used: Mapping[str, str], missing: Mapping[str, int], outcome: str) -> str:
    """Return the line.

    :param used: the version of each server that was used.
    :param missing: how many tests needed each server that is not installed.
    :param outcome: what happened to these tests: "skipped" or "failed".
    """
    versions = ", ".join(f"{server} {version}".strip() for server, version in sorted(used.items(), key=_by_name))
    line = f"Servers used: {versions or 'none, fakes only'}."
    if missing:
        counts = [f"{server} ({_tests(count)} {outcome})" for server, count in sorted(missing.items(), key=_by_name)]
        line += f" Not installed: {', '.join(counts)}."
    return line


def count_missing(texts: Iterable[str], reasons: Mapping[str, str]) -> dict[str, int]:
    """Return how many tests needed each server that was not found.

    :param texts: what was reported of each test that was skipped or failed.
    :param reasons: the server of each reason that such a text contains.
    """
    return dict(Counter(server for text in texts for reason, server in reasons.items() if reason in text))


def version_of(program: str) -> str:
    """Return the version that a server's program prints, or nothing if it prints none in time."""
    package = Path(program).resolve().with_name("package.json")
    if package.exists():  # dynalite has no option for it: it would start
        return str(json.loads(package.read_text())["version"])
    option = {"nginx": "-v", "caddy": "version"}.get(Path(program).name, "--version")
    try:
        done = subprocess.run([program, option], capture_output=True, text=True, check=False, timeout=TIMEOUT)
    except (OSError, subprocess.TimeoutExpired):  # a run that passed does not fail for this line
        return ""
    return version_in(done.stdout + done.stderr)


def version_in(text: str) -> str:
    """Return the first version number in a text, or nothing."""
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else ""


def _by_name(item: tuple[str, object]) -> str:
    return item[0].lower()


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"
