"""What a run of the tests says: packages that are missing, and, at its end, skips and servers."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import summary
from tests.support.summary import count_missing, servers_line, skip_lines, version_in

ROOT = Path(__file__).parents[2]


def test_each_reason_of_skips_is_one_line() -> None:
    """However many tests were skipped for it."""
    nginx, pylibmc = "Skipped: nginx is not installed: apt-get", "Skipped: pylibmc is not installed: pip"
    assert skip_lines([pylibmc, nginx, nginx]) == [
        "Skipped 2 tests: nginx is not installed: apt-get",
        "Skipped 1 test: pylibmc is not installed: pip",
    ]


def test_servers_that_were_used() -> None:
    """They are named with their versions, in the order of the alphabet."""
    line = servers_line({"Redis": "7.0.15", "memcached": "1.6.18", "nginx": ""}, {}, "skipped")
    assert line == "Servers used: memcached 1.6.18, nginx, Redis 7.0.15."


def test_servers_that_are_not_installed() -> None:
    """They are named with the number of tests that needed them, and what happened to these."""
    used, missing = {"Redis": "7.0.15"}, {"PgBouncer": 1, "MariaDB": 2}
    end = "Not installed: MariaDB (2 tests failed), PgBouncer (1 test failed)."
    assert servers_line(used, missing, "failed") == f"Servers used: Redis 7.0.15. {end}"


def test_no_server() -> None:
    """A run without servers says that it used fakes."""
    assert servers_line({}, {}, "skipped") == "Servers used: none, fakes only."


def test_tests_are_counted_by_the_reason_of_their_report() -> None:
    """Tests that were skipped for something else do not count."""
    reasons = {"Redis is not installed: apt-get": "Redis", "nginx is not installed: apt-get": "nginx"}
    texts = ["('a.py', 1, 'Skipped: Redis is not installed: apt-get')", "E  Redis is not installed: apt-get", "other"]
    assert count_missing(texts, reasons) == {"Redis": 2}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("Redis server v=7.0.15 sha=00000000:0", "7.0.15"),
        ("postgres (PostgreSQL) 15.20 (Debian 15.20-0)", "15.20"),
        ("mariadbd  Ver 10.11.19-MariaDB", "10.11.19"),
        ("usage: server PORT", ""),
    ],
)
def test_the_version_in_what_a_program_prints(text: str, version: str) -> None:
    """The first number with a point is the version."""
    assert version_in(text) == version


def test_a_program_that_does_not_print_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs, as on a busy machine, or is gone by now, is named without a version; the run does not fail."""
    monkeypatch.setattr(summary, "TIMEOUT", 0.1)
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 5\n")
    hanging.chmod(0o755)
    assert summary.version_of(str(hanging)) == ""
    assert summary.version_of(str(tmp_path / "gone")) == ""


@pytest.mark.parametrize(("options", "outcome"), [([], "skipped"), (["--require-servers"], "failed")])
def test_the_end_of_a_run(tmp_path: Path, options: list[str], outcome: str) -> None:
    """Where no server is found, the line before pytest's last one says what that meant."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    chosen = "tests/behavior/test_nginx.py::test_a_streamed_page_is_not_shared"
    environment = {**os.environ, "PATH": str(tmp_path)}
    run = subprocess.run([*command, chosen], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout.splitlines()[-2].startswith("Servers used: none, fakes only. Not installed: nginx (")
    assert f"{outcome})." in run.stdout.splitlines()[-2]


def test_fakes_alone() -> None:
    """With ``--fakes`` no test is chosen that needs a server, and of the stores the one that stands for all."""
    files = ["tests/behavior/test_nginx.py", "tests/behavior/test_late_logouts.py"]
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", "--fakes", *files]
    chosen = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n\n")[0]
    assert len(chosen.splitlines()) > 10
    assert all("test_late_logouts.py" in line and "fakeredis]" in line for line in chosen.splitlines())


def test_packages_that_are_not_installed() -> None:
    """The packages of the group are looked for, without those that this Python may not have."""
    missing_packages = runpy.run_path(str(ROOT / "conftest.py"))["missing_packages"]
    group = '[dependency-groups]\ntest = [\n  "pytest>=8",\n  "not-here[a]>=1",  # why\n  "nor-this; marker",\n]\n'
    assert missing_packages(f'{group}docs = [\n  "another",\n]\n') == ["not-here"]


def test_a_checkout_without_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git has made a text file of lazysession/backends, as on Windows, the tests name the command that helps."""
    monkeypatch.setitem(sys.modules, "lazysession.backends", None)
    with pytest.raises(SystemExit, match=r"no links, as on Windows\. Install it first: pip install -e \."):
        runpy.run_path(str(ROOT / "conftest.py"))
