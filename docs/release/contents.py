"""What a wheel has to have, and what a release still lacks; pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from addresses import Project


def name_in_wheel(path: str) -> str | None:
    """Return the name that a file of the checkout has in the wheel, or None if it is not a part of the package."""
    if path == "lazysession/backends":  # the link to backends, for editors and uninstalled runs
        return None
    if path.startswith("backends/"):
        return f"lazysession/{path}"
    return path if path.startswith("lazysession/") else None


def differences(tracked: Iterable[str], wheel: Iterable[str], project: Project) -> list[str]:
    """Return one line for each file that the wheel lacks, and for each that it should not have.

    :param tracked: the files of the checkout that git knows, relative to its top.
    :param wheel: the names in the wheel.
    """
    expected = {name for name in map(name_in_wheel, tracked) if name}
    metadata = f"{project.name}-{project.version}.dist-info/"
    found = {name for name in wheel if not name.startswith(metadata)}
    missing = [f"the wheel lacks {name}" for name in sorted(expected - found)]
    return missing + [f"the wheel has {name}, which is no file of the package" for name in sorted(found - expected)]


def oldest(dependencies: Iterable[str]) -> list[str]:
    """Return the requirements that install the oldest supported version: ``flask>=3.0`` is ``flask==3.0``."""
    return [dependency.replace(">=", "==") for dependency in dependencies]


def not_tried(supported: Sequence[str], tried: Iterable[str]) -> list[str]:
    """Return what is missing if the wheel was not tried on the oldest and on the newest supported Python."""
    return [f"a run on Python {python}" for python in (supported[0], supported[-1]) if python not in tried]


def unreleased(changelog: str, fragments: Iterable[str], version: str) -> list[str]:
    """Return what the changelog of a version still lacks: fragments to put in, or its section with a date."""
    missing = []
    waiting = [name for name in fragments if name != "README.md"]
    if waiting:
        missing.append(f"{len(waiting)} fragments of docs/changes in the changelog (nox -s changelog)")
    if not re.search(rf"^## {re.escape(version)} \(\d{{4}}-\d\d-\d\d\)$", changelog, re.M):
        missing.append(f"a section '## {version} (date)' in CHANGELOG.md")
    return missing


def last_line(project: Project, missing: list[str], files: list[str]) -> str:
    """Return the line that says whether the files can be uploaded, or what is missing."""
    empty = f"{' and '.join(project.empty)} in [project.urls] of pyproject.toml"
    everything = [empty, *missing] if project.empty else missing
    if everything:
        return f"Not ready to upload. Missing: {'; '.join(everything)}."
    return f"Ready to upload: {' and '.join(files)}."
