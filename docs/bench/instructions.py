"""Count the instructions of a request with callgrind: the counts repeat even if times have too much noise.

Run as a script, this file is the program under callgrind: it sends the same number of requests to each contender in
turn, and makes callgrind dump its counts in between. Instructions in the kernel are not counted.
"""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

WARM_UP = 30


def count_instructions(url: str, requests: int) -> dict[str, float] | None:
    """Return the instructions per request by case; None if valgrind is not installed."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        command += [sys.executable, __file__, url, str(requests)]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise RuntimeError(f"callgrind ended with {done.returncode}: {done.stderr[-1500:]}")
        names: list[str] = json.loads(done.stdout)
        totals = [total(Path(folder, f"out.{number}")) for number in range(2, 2 * len(names) + 2)]
        return {name: (totals[2 * place + 1] - totals[2 * place]) / requests for place, name in enumerate(names)}


def total(dump: Path) -> int:
    """Return the instructions of one of callgrind's files."""
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError("a file of callgrind's has no total")
    return int(found[1])


def run_cases(url: str, requests: int) -> None:
    """Send the requests of each case between two marks, and print the names of the cases."""
    import places  # noqa: F401, I001 - the paths of what follows
    import floors
    from calling import BOGUS, Caller, log_in
    from contenders import FLASK_SESSION, LAZY, NULL, make_app
    from everystore import Visits
    from storage import settings_of

    rules = [(f"/area-{number}/**", "readonly") for number in range(1000)]
    null, flask_session = make_app(NULL, {}), make_app(FLASK_SESSION, settings_of(url))
    lazy, ruled, due = (
        make_app(LAZY, {**settings_of(url), **more})
        for more in ({}, {"LAZYSESSION_RULES": rules}, {"LAZYSESSION_REFRESH_THROTTLE": 0})
    )
    cases: dict[str, Caller | Visits] = {
        "null": Caller(null, "/untouched", BOGUS),
        "lazy": Caller(lazy, "/untouched", BOGUS),
        "lazy, 1,000 rules": Caller(ruled, "/untouched", BOGUS),
        **floors.callers(url),
        "lazy read with refresh": Caller(due, "/read", log_in(due)),
    }
    for name, app in (("lazy", lazy), ("flask-session", flask_session)):
        cases[f"{name} first write"] = Caller(app, "/login")
        cases[f"{name} visit"] = Visits(app)
    for caller in cases.values():
        caller.send(WARM_UP)
    gc.collect()
    gc.disable()
    _dump()
    for caller in cases.values():
        for times in (1, 2):  # the difference between both is the requests alone, without the cost of a dump
            caller.send(times * requests)
            _dump()
    sys.stdout.write(json.dumps(list(cases)))


def _dump() -> None:
    subprocess.run(["callgrind_control", "--dump", str(os.getpid())], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))  # nox sets PYTHONSAFEPATH, which leaves this folder out
    run_cases(sys.argv[1], int(sys.argv[2]))
