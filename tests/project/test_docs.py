"""Every code block of the documentation and of the README runs here, in order, in one namespace for each page.

What each language means is in :data:`RUNNERS`; a block in any other language fails. Nothing here needs a network:
clients of Redis are fakeredis, SQL is SQLite in a temporary directory.
"""

from __future__ import annotations

import ast
import json
import logging
import re
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import fakeredis
import flask_session.redis.redis  # before redis.Redis is replaced: it asks whether a client is one
import flask_session.sqlalchemy.sqlalchemy  # noqa: F401 - likewise
import pytest
import redis
import redis.cluster
from flask import Flask
from sqlalchemy import event
from sqlalchemy.pool import Pool

from lazysession.modes import Mode
from lazysession.settings import NAMES, PREFIX, Settings
from tests.conftest import unless_missing
from tests.support import pages
from tests.support.pages import Block, blocks_of
from tests.support.servers import NotInstalled, free_port, need, nginx_command, nginx_for_test

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GENERATED = ("_build", "_generated", "demo")  # none is a page of the documentation
PAGES = [
    README,
    *sorted(page for page in (ROOT / "docs").rglob("*.rst") if not set(page.parts).intersection(GENERATED)),
]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


# Running blocks


@dataclass
class Reader:
    """Reads a page from top to bottom and does what its blocks say."""

    environment: pytest.MonkeyPatch
    log: pytest.LogCaptureFixture
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "shop"})

    def read(self, page: str, text: str) -> None:
        for block in blocks_of(page, text):
            run = RUNNERS.get(block.language)
            assert run is not None, f"{block}: the language {block.language!r} is not one of {sorted(RUNNERS)}"
            run(self, block)


def run_sh(reader: Reader, block: Block) -> None:
    """Set the environment for ``export``; see that what is to be installed or started exists."""
    for step in re.split(r" && |\n", block.source.strip()):
        command, *arguments = shlex.split(step, comments=True)
        check = SHELL_COMMANDS.get(command.rpartition("/")[2])
        assert check is not None, f"{block}: {step!r} is not checked"
        assert check(reader, arguments), f"{block}: {step}"


def export(reader: Reader, arguments: list[str]) -> bool:
    """``export NAME=value``: set it for the rest of the page."""
    for name, _, value in (argument.partition("=") for argument in arguments):
        reader.environment.setenv(name, value)
    return True


def install(_reader: Reader, arguments: list[str]) -> bool:
    """``pip install '.[redis]'``: the extras exist; ``pip wheel`` makes a file that another step installs."""
    extras = [extra for group in re.findall(r"\[([\w,]+)\]", " ".join(arguments)) for extra in group.split(",")]
    known = metadata("lazysession").get_all("Provides-Extra") or ()
    return arguments[0] in {"install", "wheel"} and set(extras) <= set(known)


def curl(reader: Reader, arguments: list[str]) -> bool:
    """``curl -s ... URL``: the page's app has the path."""
    return reader.names["app"].test_client().get(urlsplit(arguments[-1]).path, buffered=True).status_code < 400


#: Options of the servers that the pages start: ``nox -s processes`` runs servers with them.
SERVER_OPTIONS = {"--workers", "--threads", "--worker-class", "--bind", "--http-socket", "--master", "--processes"}


def serve(_reader: Reader, arguments: list[str]) -> bool:
    """``gunicorn ... shop:app``: the options exist, and the last argument is the page's app."""
    options = {each.partition("=")[0] for each in arguments if each.startswith("-")}
    return options <= SERVER_OPTIONS | {"--need-app", "--module"} and arguments[-1] == "shop:app"


SHELL_COMMANDS: dict[str, Callable[[Reader, list[str]], bool]] = {
    "export": export,
    "pip": install,
    "curl": curl,
    "gunicorn": serve,
    "uwsgi": serve,
    "flask": lambda _reader, arguments: arguments == pages.SERVER,  # it runs while curl does
    "mkdir": lambda _reader, arguments: len(arguments) == 1,
    "cd": lambda _reader, arguments: len(arguments) == 1,
    ".": lambda _reader, arguments: arguments == [".venv/bin/activate"],
    "pytest": lambda _reader, arguments: not arguments,  # tests/backends/shelf is run with the other tests
    "python3": lambda _reader, arguments: arguments == ["-m", "venv", ".venv"],
    "nox": lambda _reader, arguments: arguments[0] == "-s" and set(arguments[1:]) <= nox_sessions(),
}


def nox_sessions() -> set[str]:
    """Return the names of the sessions in the noxfile, without running it."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("session" in ast.unparse(each) for each in node.decorator_list)
    }


def run_text(reader: Reader, block: Block) -> None:
    """See that each line was logged by the blocks before it."""
    logged = {record.getMessage() for record in reader.log.records}
    for line in block.source.splitlines():
        assert line in logged, f"{block}: {line!r} was not logged, but {sorted(logged)}"


def run_nginx(_reader: Reader, block: Block) -> None:
    """See that nginx accepts it; where nginx is missing, test_front_servers.py is skipped, and says so."""
    assert block.source.count("{") == block.source.count("}") > 0, f"{block}: braces"
    with tempfile.TemporaryDirectory() as folder, suppress(NotInstalled):
        http = nginx_for_test(block.source, Path(folder), free_port(), "127.0.0.1:1")
        command = [*nginx_command(Path(folder), http), "-t"]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, f"{block}: {checked.stderr}"


def run_dockerfile(reader: Reader, block: Block) -> None:
    """Check the instructions, and the commands in them; no image is built."""
    for line in block.source.splitlines():
        instruction, _, rest = line.partition(" ")
        if instruction in {"RUN", "CMD"}:
            command = rest if instruction == "RUN" else shlex.join(json.loads(rest))
            run_sh(reader, replace(block, source=command))
        else:
            assert instruction in {"FROM", "WORKDIR", "COPY", "ENV", "USER"}, f"{block}: {line!r} is not checked"
        if instruction == "ENV":
            export(reader, shlex.split(rest))


def in_the_page(run: Callable[[dict[str, Any], Block], None]) -> Callable[[Reader, Block], None]:
    """Run a block in the reader's namespace of the page."""
    return lambda reader, block: run(reader.names, block)


RUNNERS: dict[str, Callable[[Reader, Block], None]] = {
    "python": in_the_page(pages.run_python),
    "pycon": in_the_page(pages.run_pycon),
    "console": in_the_page(pages.run_console),
    "sh": run_sh,
    "text": run_text,
    "nginx": run_nginx,
    "dockerfile": run_dockerfile,
}


# The world of a page: no network, no file outside of its directory, no connection left open


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> Generator[Reader]:
    """A reader in a directory of its own, whose Redis is fakeredis."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket.socket, "connect", _refuse_to_connect)
    server = fakeredis.FakeServer()

    class Redis(fakeredis.FakeRedis):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{"server": server, **options})

        @classmethod
        def from_url(cls, url: str, **options: Any) -> Redis:
            assert url.startswith("redis://localhost:6379"), f"{url} is no URL of the documentation"
            return cls(**options)

    class RedisCluster:
        """Behaves as a cluster does, and is no subclass of redis.Redis either."""

        def __init__(self, host: str, port: int) -> None:
            self._client = Redis()

        def execute_command(self, *command: Any, **options: Any) -> Any:
            return self._client.execute_command(*command, **options)

    monkeypatch.setattr("lazysession.pages.address_of_docs", lambda: None)  # messages name files
    monkeypatch.setattr(redis, "Redis", Redis)
    monkeypatch.setattr(redis.cluster, "RedisCluster", RedisCluster)
    caplog.set_level(logging.INFO)
    with every_connection_closed():
        yield Reader(monkeypatch, caplog)


def _refuse_to_connect(_socket: socket.socket, address: Any) -> None:
    raise AssertionError(f"a block of the documentation connects to {address}")


class every_connection_closed:  # noqa: N801 - reads as a statement
    """Close what the engines of a page opened: they live until the garbage collector comes, and it complains."""

    def __enter__(self) -> None:
        self._opened: list[Any] = []
        event.listen(Pool, "connect", self._note)

    def __exit__(self, *_: object) -> None:
        event.remove(Pool, "connect", self._note)
        for connection in self._opened:
            connection.close()

    def _note(self, connection: Any, _record: object) -> None:
        self._opened.append(connection)


# The tests


@every_page
def test_page_runs(reader: Reader, page: Path, request: pytest.FixtureRequest) -> None:
    """Every block of the page does what the page says."""
    text = page.read_text(encoding="utf-8")
    if re.search(r"^ *\$ curl ", text, re.MULTILINE):
        with unless_missing(request):
            need("curl", "apt-get install curl")
    reader.read(name_of(page), text)


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", "assert 1 == 2"),
        ("python", "this is no Python"),
        ("pycon", ">>> 1 + 1\n3"),
        ("pycon", ">>> missing"),
        ("pycon", "1 + 1"),
        ("console", "$ flask --app shop lazysession rules\nEndpoint"),
        ("console", "$ rm -rf build"),
        ("console", "no command"),
        ("console", "$ curl http://127.0.0.1:5000/"),
        ("sh", "rm -rf build"),
        ("sh", "pip install '.[mysql]'"),
        ("sh", "nox -s holidays"),
        ("sh", "curl -s http://localhost/nowhere"),
        ("text", "Nobody says this."),
        ("nginx", "server { listen 80;"),
        ("sh", "gunicorn --daemons=2 shop:app"),
        ("dockerfile", "ADVANCE 3"),
        ("dockerfile", 'CMD ["gunicorn", "--daemons=2", "shop:app"]'),
        ("cobol", "DISPLAY 'HELLO'."),
        ("", "no language"),
    ],
)
@pytest.mark.parametrize("suffix", ["rst", "md"])
def test_a_wrong_block_fails(reader: Reader, language: str, source: str, suffix: str) -> None:
    """The checks of each language can fail, in both formats."""
    reader.names["app"] = Flask("shop")
    indented = "".join(f"   {line}\n" for line in source.splitlines())
    page = f".. code-block:: {language}\n\n{indented}" if suffix == "rst" else f"```{language}\n{source}\n```\n"
    with pytest.raises((AssertionError, SyntaxError, NameError, pytest.fail.Exception)):
        reader.read(f"page.{suffix}", page)


@every_page
def test_no_code_stands_outside_of_blocks(page: Path) -> None:
    """Code is in ``code-block``, where it is found: not in literal blocks, and not in another directive."""
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"^ *\.\. (?:code|sourcecode|parsed-literal|doctest|testcode)::.*", text, re.M)
    for included in re.findall(r"^ *\.\. literalinclude:: *(.*)", text, re.M):  # only what other tests run
        path = (page.parent / included).resolve()
        assert path.is_file(), f"{name_of(page)}: {included} is not there"
        assert path.is_relative_to(ROOT / "tests"), f"{name_of(page)}: {included} is not tested"
    if page.suffix == ".rst":
        assert not re.findall(r"^(?! *\.\. [\w:-]+::).*::$", text, re.M)


@every_page
def test_every_page_with_code_checks_something(page: Path) -> None:
    """A page whose blocks only define things cannot fail for the right reason."""
    blocks = [b for b in blocks_of(name_of(page), page.read_text(encoding="utf-8")) if b.language in RUNNERS]
    checks = [b for b in blocks if b.language in {"pycon", "console"} or "assert " in b.source]
    assert checks or not any(b.language == "python" for b in blocks)


def test_the_readme_starts_with_the_two_commands() -> None:
    """The first two ``sh`` blocks run the demo and the tests, on a fresh clone with nothing but Python and pip."""
    commands = [block.source for block in blocks_of("README.md", README.read_text()) if block.language == "sh"][:2]
    start = "python3 -m venv .venv && .venv/bin/pip install nox && .venv/bin/nox -s"
    assert commands == [f"{start} demo\n", f"{start} tests\n"]


def test_the_readme_has_a_place_for_the_result_of_the_demo() -> None:
    """The markers between which the demo's table is put stand there once."""
    text = README.read_text(encoding="utf-8")
    assert text.count("<!-- demo:begin -->") == text.count("<!-- demo:end -->") == 1


def test_the_table_of_settings() -> None:
    """The table names every setting in its order, with the default that it has, and so does each section."""
    text = (ROOT / "docs" / "reference" / "settings.rst").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^   \* - :ref:`(\w+) <.*>`\n     - (.+)$", text, re.M))
    assert [name.removeprefix(PREFIX) for name in shown] == list(NAMES)
    assert dict(re.findall(r"^``(\w+)``\n-+\n\n:Type: .+\n:Default: (.+)$", text, re.M)) == shown
    defaults = Settings.from_config({}, 3600)
    for name, cell in shown.items():
        value = getattr(defaults, name.removeprefix(PREFIX).lower())
        code = re.fullmatch(r"``([^`]+)``", cell)
        if code is None or code[1] == "app.debug":  # described in words: None stands for it
            assert value is None, name
        else:
            shown_value = ast.literal_eval(code[1])
            assert (frozenset(shown_value) if isinstance(value, frozenset) else shown_value) == value, name


def test_every_mode_is_described() -> None:
    """The page about modes has a row for each mode."""
    text = (ROOT / "docs" / "reference" / "modes.rst").read_text(encoding="utf-8")
    assert re.findall(r"^   \* - ``(\w+)``$", text, re.M)[: len(Mode)] == [str(mode) for mode in Mode]


@pytest.mark.parametrize("module", ["lazysession", "lazysession.backend", "lazysession.testing"])
def test_every_public_name_is_in_the_api(module: str) -> None:
    """The page describes each public name under its module; the signals, which it lists, have a page of their own."""
    reference = ROOT / "docs" / "reference"
    pages = [(reference / name).read_text(encoding="utf-8") for name in ("api.rst", "signals.rst")]
    described: set[str] = set()
    for part in re.split(r"^\.\. (?=(?:current)?module:: )", "\n".join(pages), flags=re.M):
        if part.partition("\n")[0].endswith(f"module:: {module}"):
            described.update(re.findall(r"^\.\. (?:auto)?(?:class|function|exception|data):: (\w+)$", part, re.M))
    assert described == public_names(import_module(module))
    assert all(f":data:`{name}`" in pages[0] for name in re.findall(r"^\.\. data:: (\w+)$", pages[1], re.M))


def public_names(module: ModuleType) -> set[str]:
    """Return the names that a module exports, or else those without an underscore that it defines itself."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    own = [
        name
        for name, value in vars(module).items()
        if getattr(value, "__module__", module.__name__) == module.__name__ and not isinstance(value, ModuleType)
    ]
    return {name for name in (*own, *module.__annotations__) if not name.startswith("_")}


def test_reading_needs_no_other_host() -> None:
    """No picture, font or style comes from another host, and no file names a machine's path."""
    for page in [*PAGES, *(ROOT / "docs" / "_figures").iterdir(), *(ROOT / "docs" / "_static").iterdir()]:
        text = page.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.findall(r"""(?:src=|image:: |figure:: |url\(|!\[.*\]\(|@import)['" ]*https?:.*""", text), page
        assert not re.findall(r"/(?:home|work|root|Users)/\S*", text), page
