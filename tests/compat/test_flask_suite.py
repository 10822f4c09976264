"""Flask's own tests, from its source distribution, with LazySession around the signed cookie of each app."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import unless_missing
from tests.support.servers import NotInstalled, run

DIFFERENCES = Path(__file__).parents[2] / "docs" / "reference" / "differences.rst"
#: An entry of that page for a test of Flask that fails.
ENTRY = re.compile(r"^``(tests/\S+)``( \(only with the default throttle\))?$", re.MULTILINE)
PASSED = re.compile(r"^PASSED (.+)\n", re.MULTILINE)
OPTIONS = ["-q", "-rp", "--tb=short", "--show-capture=no", "-p", "no:cacheprovider", "-p", "tests.support.lazy_apps"]
#: Seconds for a run, which takes 3 to 15.
TIMEOUT = 300
#: The runs: Flask alone, and LazySession by its throttle.
ALONE, DEFAULT, EACH_USE = "alone", "default", "0"


class Run(NamedTuple):
    """The tests of Flask that passed, and what else pytest printed."""

    passed: set[str]
    output: str


def documented(throttle: str) -> set[str]:
    """Return the tests of Flask that fail with a throttle, by the page of differences."""
    entries = ENTRY.findall(DIFFERENCES.read_text(encoding="utf-8"))
    return {test for test, only_default in entries if throttle == DEFAULT or not only_default}


def download(folder: Path) -> Path:
    """Download the source distribution of the installed Flask, and return the folder that it is unpacked into.

    :raises NotInstalled: if pip cannot download it.
    """
    name = f"flask-{version('flask')}"
    options = ["--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=10", "--no-deps"]
    source = ["--no-binary=flask", name.replace("-", "=="), f"--dest={folder}"]
    try:
        run([sys.executable, "-m", "pip", "download", *options, *source])
    except RuntimeError as error:
        raise NotInstalled(f"Flask's own tests are not here: pip cannot download {name} from an index") from error
    run(["tar", "-xzf", str(folder / f"{name}.tar.gz"), "-C", str(folder)])
    return folder / name


def run_suite(folder: Path, throttle: str) -> Run:
    """Run Flask's tests in a process of their own."""
    lazy = [] if throttle == ALONE else [f"--throttle={throttle}"]
    command = [sys.executable, "-m", "pytest", *OPTIONS, *lazy, f"--basetemp={folder.parent / f'run-{throttle}'}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment, timeout=TIMEOUT
    )
    output = done.stdout + done.stderr
    return Run(set(PASSED.findall(output)), PASSED.sub("", output))


@pytest.fixture(scope="module")
def flask_suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """The three runs, which take place at the same time."""
    throttles = (ALONE, DEFAULT, EACH_USE)
    with unless_missing(request):
        folder = download(tmp_path_factory.mktemp("flask"))
    with ThreadPoolExecutor() as pool:
        return dict(zip(throttles, pool.map(lambda throttle: run_suite(folder, throttle), throttles), strict=True))


def test_flask_alone(flask_suite: dict[str, Run]) -> None:
    """Flask's tests pass without LazySession, apart from a few that newer versions of other packages make fail."""
    alone = flask_suite[ALONE]
    assert len(alone.passed) > 400, alone.output


@pytest.mark.parametrize("throttle", [DEFAULT, EACH_USE])
def test_no_test_is_lost_but_the_documented_ones(flask_suite: dict[str, Run], throttle: str) -> None:
    """The tests that pass with Flask alone and fail with LazySession are those on the page of differences."""
    lazy = flask_suite[throttle]
    assert flask_suite[ALONE].passed - lazy.passed == documented(throttle), lazy.output
