"""What GitHub reads names what is there: sessions of the noxfile, supported Pythons, versions of the tools."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project import test_release
from tests.project.test_docs import nox_sessions

ROOT = Path(__file__).parents[2]
WORKFLOWS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in ROOT.glob(".github/workflows/*")}
JOBS = {f"{file} {name}": job for file, workflow in WORKFLOWS.items() for name, job in workflow["jobs"].items()}
#: A command of nox, and the sessions that it names, up to the options of these.
NOX = re.compile(r"^nox (.*)$", re.M)
SESSIONS = re.compile(r"^(?:--\S+ )*-s ((?:[^-\s]\S*(?: |$))+)(?:-- .*)?$")
#: Sessions that no workflow runs, and why.
ELSEWHERE = {
    "quick": "a part of the tests",
    "coverage": "runs the tests again, to find lines that no test reaches",
    "processes": "makes a table of the docs; .ci/run does not run it either",
    "bench": "the other load on a shared machine changes the figures",
    "shop": "opens a browser",
    "changelog": "writes CHANGELOG.md; the maintainer who makes a release commits it",
}
every_job = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)


def steps(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the steps of a job; one that calls another workflow has none."""
    found: list[dict[str, Any]] = job.get("steps", [])
    return found


def sessions(job: dict[str, Any]) -> set[str]:
    """Return the sessions that a job runs; ``$SESSION`` stands for those of its matrix, and so does ``$PYTHON``."""
    found = set[str]()
    commands = [each for step in steps(job) for each in NOX.findall(step.get("run", ""))]
    for name in [name.strip('"') for command in commands for name in named(command)]:
        before, _, variable = name.partition("$")
        values = job["strategy"]["matrix"][variable.lower()] if variable else [""]
        found |= {f"{before}{value}" for value in values}
    return found


def named(command: str) -> list[str]:
    """Return the sessions that the rest of a command of nox names."""
    found = SESSIONS.match(command)
    assert found, f"nox {command}: write it as nox [--OPTION] -s SESSION... [-- ARGUMENTS]"
    return found[1].split()


def pythons_of_the_noxfile() -> list[str]:
    """Return the Pythons of the noxfile."""
    found = re.search(r"^PYTHONS = (\[.*\])$", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.M)
    return list(ast.literal_eval(found[1])) if found else []


def all_sessions() -> set[str]:
    """Return the sessions of the noxfile, with one for each Python in the place of ``tests``, which runs these."""
    return nox_sessions() - {"tests"} | {f"tests-{python}" for python in pythons_of_the_noxfile()}


def test_the_classifiers_name_the_pythons_that_are_tested() -> None:
    """The package says that it supports what the noxfile tests."""
    assert list(test_release.this_project().pythons) == pythons_of_the_noxfile()


@every_job
def test_the_sessions_of_the_workflows_are_there(job: dict[str, Any]) -> None:
    """No job runs a session that the noxfile does not have."""
    assert sessions(job) <= all_sessions()


def test_every_session_is_run_or_left_out_for_a_reason() -> None:
    """A session that is added to the noxfile is added to a workflow as well, or to the list above."""
    run = set[str]().union(*map(sessions, JOBS.values()))
    assert run | set(ELSEWHERE) == all_sessions()
    assert not run & set(ELSEWHERE)


def pythons(job: dict[str, Any]) -> list[str]:
    """Return the Pythons that a job installs; the last one runs nox."""
    found = [
        step["with"]["python-version"].split("\n") for step in steps(job) if "setup-python" in step.get("uses", "")
    ]
    return [python for versions in found for python in versions if python]


@pytest.mark.parametrize("job", ["tests.yml package", "release.yml build"])
def test_the_wheel_is_tried_on_the_oldest_and_the_newest_python(job: str) -> None:
    """Those that pyproject.toml supports are installed where the wheel is built."""
    supported = test_release.this_project().pythons
    assert {supported[0], supported[-1]} <= set(pythons(JOBS[job]))


@every_job
def test_a_job_that_hangs_is_ended(job: dict[str, Any]) -> None:
    """Each job has a limit of its own; a called workflow has those of its jobs."""
    assert ("timeout-minutes" in job) != job.get("uses", "").startswith("./")


@pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)
def test_a_workflow_may_only_read(workflow: dict[str, Any]) -> None:
    """Only the job that uploads has one more right: to prove to the index which workflow it is."""
    assert workflow["permissions"] in ({}, {"contents": "read"})
    rights = {name: job.get("permissions") or {} for name, job in workflow["jobs"].items()}
    more = {name: right for name, right in rights.items() if right not in ({}, {"contents": "read"})}
    assert more in ({}, {"upload": {"id-token": "write"}})
    assert "concurrency" in workflow


def test_pre_commit_has_the_versions_of_the_lint_session() -> None:
    """A commit that passes one passes the other."""
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    used = {requirement for hook in hooks for requirement in hook["additional_dependencies"]}
    pinned = re.findall(r'^  "([\w-]+==[\w.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert used == set(pinned)


def test_every_session_of_a_command_counts() -> None:
    """Also those after the first, and none of what follows ``--``."""
    assert named("-s docs types") == ["docs", "types"]
    assert named('--error-on-missing-interpreters -s "tests-$PYTHON" -- -k x') == ['"tests-$PYTHON"']


def test_a_package_is_uploaded_from_a_tag_after_the_tests() -> None:
    """No branch and no pull request starts the upload, and it needs all tests and the check of the tag."""
    release = WORKFLOWS["release.yml"]
    assert release[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key "on" as true
    assert release["jobs"]["tests"]["uses"] == "./.github/workflows/tests.yml"
    assert set(release["jobs"]["upload"]["needs"]) == {"tests", "build"}
    assert release["jobs"]["upload"]["environment"] == "pypi"
    commands = [step.get("run", "") for step in release["jobs"]["build"]["steps"]]
    assert 'nox --error-on-missing-interpreters -s release -- --tag "$GITHUB_REF_NAME"' in commands
