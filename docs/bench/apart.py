"""Requests in processes of their own, where redis-py has one parser or the other: what hiredis brings.

Run as a script, this file is such a process: it reads how many requests of which kind to send, and writes the seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # nox sets PYTHONSAFEPATH, which leaves this folder out

import places  # noqa: F401 - the paths of what follows
import redisparser
from rounds import Block, interleave
from spread import ratio, spread

KINDS = ("read", "change")
BLOCK = 50


def measure(url: str, rounds: int) -> dict[str, Any]:
    """Return the seconds of a request by contender and kind: in Python, with hiredis, and the ratio."""
    blocks: dict[str, Block] = {}
    with ExitStack() as stack:
        for parser in (redisparser.PYTHON, redisparser.HIREDIS):
            process = stack.enter_context(_process(url, parser))
            for case in _cases():
                blocks[f"{case} {parser}"] = lambda process=process, case=case: _send(process, case)  # type: ignore[misc]
        told = interleave(blocks, rounds)
    found = {}
    for case in _cases():
        python, hiredis = (told[f"{case} {parser}"] for parser in (redisparser.PYTHON, redisparser.HIREDIS))
        found[case] = {"python": spread(python), "hiredis": spread(hiredis), "ratio": ratio(hiredis, python)}
    return found


def _cases() -> list[str]:
    return [f"{name} {kind}" for name in ("flask-session", "lazy") for kind in KINDS]


@contextmanager
def _process(url: str, parser: str) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-W", "ignore", __file__, url]
    environment = {**os.environ, redisparser.NAME: parser}
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment, bufsize=1) as process:
        try:
            yield process
        finally:
            process.stdin.close()  # type: ignore[union-attr]  # which ends it


def _send(process: Any, case: str) -> float:
    process.stdin.write(f"{case}\n")
    return float(process.stdout.readline())


def serve(url: str) -> None:
    """Send the requests that are asked for, until there is nothing more to read."""
    from calling import Caller, log_in
    from contenders import BY_NAME, make_app
    from rounds import timed
    from storage import settings_of

    redisparser.check()
    blocks = {}
    for case in _cases():
        name, kind = case.split()
        app = make_app(BY_NAME[name], settings_of(url))
        caller = Caller(app, f"/{kind}", log_in(app))
        blocks[case] = timed(lambda caller=caller: caller.send(BLOCK), BLOCK)  # type: ignore[misc]
    for line in sys.stdin:
        sys.stdout.write(f"{blocks[line.strip()]()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
