"""Build the package and try it as a stranger would: ``nox -s release``; the last line says what is missing.

``-- --write`` writes the addresses of ``[project.urls]`` into the files that name one, and builds nothing.
``-- --tag v1.2.3`` is for the workflow that uploads: the tag must be that of the version, and nothing may be missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

import addresses
import contents
from addresses import Project

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DIST = ROOT / "dist"
#: A checkout may belong to another user, as in a container of CI.
GIT = ("git", "-c", "safe.directory=*")
#: The extra that the quickstart needs.
EXTRA = "sqlalchemy"


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """Run a command and return what it printed.

    :raises SystemExit: when it fails, with its own words.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = list(map(str, command))
    try:
        done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:  # git, where the checkout is a copy on a bare machine
        raise SystemExit(f"Not ready to upload. {error.filename} is not installed.") from None
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}Not ready to upload. This failed: {' '.join(words)}")
    return done.stdout


def derived_files(project: Project) -> dict[Path, str]:
    """Return the text of each file of the checkout that has addresses."""
    security = ROOT / "SECURITY.md"
    return {
        ROOT / ".github/ISSUE_TEMPLATE/config.yml": addresses.issue_config(project),
        security: addresses.security_page(security.read_text(encoding="utf-8"), project),
    }


def outdated(project: Project) -> list[str]:
    """Return the names of the files whose addresses are not those of pyproject.toml."""
    files = derived_files(project).items()
    return [path.relative_to(ROOT).as_posix() for path, text in files if path.read_text(encoding="utf-8") != text]


def files_of_checkout() -> list[str]:
    """Return what git tracks and is there; in a copy without .git, all that .gitignore does not name."""
    if (ROOT / ".git").exists():
        names = run(*GIT, "ls-files")
    else:
        with tempfile.TemporaryDirectory() as folder:
            run("git", "init", "--quiet", "--bare", folder)
            listing = "ls-files", "--others", "--exclude-standard"
            names = run(*GIT, f"--git-dir={folder}", f"--work-tree={ROOT}", *listing)
    return [name for name in names.splitlines() if os.path.lexists(ROOT / name)]


def copy_checkout(folder: Path, project: Project) -> list[str]:
    """Copy the files of the checkout, with all addresses in the README and in pyproject.toml; return the names."""
    tracked = files_of_checkout()
    for name in tracked:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    for name, rewrite in (("README.md", addresses.package_page), ("pyproject.toml", addresses.package_toml)):
        text = (ROOT / name).read_text(encoding="utf-8")
        (folder / name).write_text(rewrite(text, project), encoding="utf-8")
    return tracked


def build(project: Project) -> list[Path]:
    """Build the sdist, and the wheel from it; check both, and return them.

    :raises SystemExit: when the wheel has not the files of the checkout.
    """
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        tracked = copy_checkout(Path(folder), project)
        run(sys.executable, "-m", "build", "--outdir", DIST, folder)
    files = sorted(DIST.iterdir())
    (wheel,) = DIST.glob("*.whl")
    print(run(sys.executable, "-m", "twine", "check", "--strict", *files), end="")
    print(run(sys.executable, "-m", "check_wheel_contents", wheel), end="")
    problems = contents.differences(tracked, zipfile.ZipFile(wheel).namelist(), project)
    if problems:
        raise SystemExit("\n".join([*problems, "Not ready to upload. The wheel has not the files of the checkout."]))
    return files


def installed(pythons: Sequence[str]) -> dict[str, str]:
    """Return the paths of the supported Pythons that are here, the oldest first; a shim of pyenv may not run."""
    found = {}
    for version in pythons:
        path = shutil.which(f"python{version}")
        if path and not subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode:
            found[version] = path
    return found


def try_wheel(wheel: Path, python: str, requirements: Sequence[str]) -> None:
    """Run the quickstart in an environment that has the wheel with its extra, the requirements, and nothing else."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "virtualenv", "--quiet", "--python", python, folder / "venv")
        (there,) = [*folder.glob("venv/bin/python"), *folder.glob("venv/Scripts/python.exe")]
        run(there, "-m", "pip", "install", "--quiet", f"{wheel}[{EXTRA}]", *requirements)
        print(run(there, HERE / "quickstart.py", ROOT / "docs/quickstart.rst", cwd=folder), end="")


def missing(project: Project) -> list[str]:
    """Return what has to be done before an upload, but for the addresses."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    fragments = [path.name for path in (ROOT / "docs/changes").glob("*.md")]
    found = contents.not_tried(project.pythons, installed(project.pythons))
    found += contents.unreleased(changelog, fragments, project.version)
    found += [f"addresses in {name} (nox -s release -- --write)" for name in outdated(project)]
    changed = len(run(*GIT, "status", "--porcelain").splitlines()) if (ROOT / ".git").exists() else 0
    return [*found, f"a commit of {changed} changed files"] if changed else found


def release(project: Project) -> list[str]:
    """Build the package, try it on the oldest and the newest Python and Flask, and return the names of its files."""
    files = build(project)
    (wheel,) = DIST.glob("*.whl")
    pythons = list(installed(project.pythons).values()) or [sys.executable]
    try_wheel(wheel, pythons[0], contents.oldest(project.dependencies))
    try_wheel(wheel, pythons[-1], [])
    if not project.repository:
        links = len(addresses.relative_links((ROOT / "README.md").read_text(encoding="utf-8")))
        print(f"Repository is empty: {links} links of README.md will lead nowhere on the package's page.")
    return [path.relative_to(ROOT).as_posix() for path in files]


def write(project: Project) -> None:
    """Write the addresses into the files that name one."""
    for path, text in derived_files(project).items():
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the addresses, and build nothing")
    parser.add_argument("--tag", help="the tag of the release; anything missing is then an error")
    options = parser.parse_args(arguments)
    project = Project.from_toml((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if options.write:
        write(project)
        return 0
    if options.tag not in (None, f"v{project.version}"):
        raise SystemExit(f"The tag is {options.tag}, and the version in pyproject.toml {project.version}.")
    files = release(project)
    lacking = missing(project)
    print(contents.last_line(project, lacking, files))
    return 1 if options.tag and (lacking or project.empty) else 0


if __name__ == "__main__":
    sys.exit(main())
