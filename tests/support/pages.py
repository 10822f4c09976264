"""The code blocks of a page of the documentation: how they are found and run; needs the standard library alone."""

from __future__ import annotations

import ast
import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent
from typing import Any


@dataclass(frozen=True)
class Block:
    """One code block: ``line`` is the number of its first line of code in the file ``page``.

    :param caption: the file that the reader is told to put it into; empty if there is none.
    """

    page: str
    line: int
    language: str
    source: str
    caption: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


RST_START = re.compile(r"( *)\.\. code-block::(?: +(\S+))? *")
MARKDOWN_START = re.compile(r"( *)```(\S*) *")


def blocks_of(page: str, text: str) -> list[Block]:
    """Find the code blocks of a page, in reStructuredText or Markdown."""
    find = _markdown_blocks if page.endswith(".md") else _rst_blocks
    return [
        Block(page, line, language, dedent("\n".join(lines)).strip("\n") + "\n", caption)
        for line, language, lines, caption in find(text.splitlines())
    ]


def _rst_blocks(lines: list[str]) -> Iterator[tuple[int, str, list[str], str]]:
    for number, line in enumerate(lines):
        start = RST_START.fullmatch(line)
        if start is None:
            continue
        first, caption = number + 1, ""
        while first < len(lines) and lines[first].strip().startswith(":"):  # options of the directive
            caption = lines[first].partition(":caption: ")[2] or caption
            first += 1
        while first < len(lines) and not lines[first].strip():
            first += 1
        last = first
        while last < len(lines) and (not lines[last].strip() or _indent(lines[last]) > len(start[1])):
            last += 1
        yield first + 1, start[2] or "", lines[first:last], caption


def _markdown_blocks(lines: list[str]) -> Iterator[tuple[int, str, list[str], str]]:
    numbered = iter(enumerate(lines))
    for number, line in numbered:
        start = MARKDOWN_START.fullmatch(line)
        if start is not None:
            body = []
            for _, inside in numbered:
                if inside.strip() == "```":
                    break
                body.append(inside)
            yield number + 2, start[2], body, ""


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


# Running blocks; ``names`` is the namespace of the page


def run_python(names: dict[str, Any], block: Block) -> None:
    """Execute; tracebacks show the page and its own line numbers. With a caption, add it to the end of that file."""
    if block.caption:
        with Path(block.caption).open("a", encoding="utf-8") as file:
            file.write(f"\n\n{block.source}" if file.tell() else block.source)
        return
    tree = ast.parse(block.source, block.page)
    ast.increment_lineno(tree, block.line - 1)
    exec(compile(tree, block.page, "exec"), names)


def run_pycon(names: dict[str, Any], block: Block) -> None:
    """Execute as doctest does, and compare each output."""
    test = doctest.DocTestParser().get_doctest(block.source, {}, block.page, block.page, block.line - 1)
    assert test.examples, f"{block}: there is no >>> in it"
    test.globs = names
    try:
        doctest.DebugRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
    except doctest.DocTestFailure as failure:
        raise AssertionError(
            f"{block.page}:{block.line + failure.example.lineno}: {failure.example.source}"
            f"expected: {failure.example.want}got:      {failure.got}"
        ) from None
    except doctest.UnexpectedException as unexpected:
        raise unexpected.exc_info[1] from None


APP = ["--app", "shop"]
SERVER = [*APP, "run", "--debug"]
ADDRESS = "http://127.0.0.1:5000"


def run_console(names: dict[str, Any], block: Block) -> None:
    """Run ``$ flask --app shop ...`` and ``$ curl ...``, and compare the whole output; ``...`` stands for anything."""
    prompts = re.split(r"^\$ ", block.source, flags=re.MULTILINE)
    assert prompts.pop(0) == "", f"{block}: it starts without a command"
    with ExitStack() as opened:
        address = cache(lambda: opened.enter_context(_serving()))
        for prompt in prompts:
            command, _, expected = prompt.partition("\n")
            program, *arguments = shlex.split(command)
            if program == "curl":
                output = _curl([each.replace(ADDRESS, address()) for each in arguments])
            else:
                assert [program, *arguments[:2]] == ["flask", *APP], f"{block}: {command!r} cannot be run here"
                output = _flask(names, arguments[2:])
            same = doctest.OutputChecker().check_output(expected.strip(), output.strip(), doctest.ELLIPSIS)
            assert same, f"{block}: {command}\n{output}"


def _flask(names: dict[str, Any], arguments: list[str]) -> str:
    """Return what a command of Flask prints: for the page's file shop.py, or for its app if there is no file."""
    if not Path("shop.py").exists():
        return str(names["app"].test_cli_runner().invoke(args=arguments).output)
    with _start([*APP, *arguments]) as process:
        return process.communicate()[0]


def _curl(arguments: list[str]) -> str:
    assert shutil.which("curl"), "curl is not installed"
    return subprocess.run(["curl", "--silent", *arguments], capture_output=True, text=True, check=True).stdout


@contextmanager
def _serving() -> Iterator[str]:
    """Run the server of the page's file shop.py on a free port, and yield its address."""
    with _start([*SERVER, "--no-reload", "--port", "0"]) as server:
        try:
            printed = ""
            while (address := re.search(r"http://127\.0\.0\.1:\d+", printed)) is None:
                line = server.stdout.readline() if server.stdout else ""
                assert line, f"the server did not start: {printed}"
                printed += line
            yield address[0]
        finally:
            server.terminate()


def _start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start ``flask`` in a process that imports what this one imports."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "flask", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
