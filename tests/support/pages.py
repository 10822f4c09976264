"""The code blocks of a page of the documentation: how they are found and run; needs the standard library alone."""

from __future__ import annotations

import ast
import doctest
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import dedent
from typing import Any


@dataclass(frozen=True)
class Block:
    """One code block: ``line`` is the number of its first line of code in the file ``page``."""

    page: str
    line: int
    language: str
    source: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


RST_START = re.compile(r"( *)\.\. code-block::(?: +(\S+))? *")
MARKDOWN_START = re.compile(r"( *)```(\S*) *")


def blocks_of(page: str, text: str) -> list[Block]:
    """Find the code blocks of a page, in reStructuredText or Markdown."""
    find = _markdown_blocks if page.endswith(".md") else _rst_blocks
    return [
        Block(page, line, language, dedent("\n".join(lines)).strip("\n") + "\n")
        for line, language, lines in find(text.splitlines())
    ]


def _rst_blocks(lines: list[str]) -> Iterator[tuple[int, str, list[str]]]:
    for number, line in enumerate(lines):
        start = RST_START.fullmatch(line)
        if start is None:
            continue
        first = number + 1
        while first < len(lines) and lines[first].strip().startswith(":"):  # options of the directive
            first += 1
        while first < len(lines) and not lines[first].strip():
            first += 1
        last = first
        while last < len(lines) and (not lines[last].strip() or _indent(lines[last]) > len(start[1])):
            last += 1
        yield first + 1, start[2] or "", lines[first:last]


def _markdown_blocks(lines: list[str]) -> Iterator[tuple[int, str, list[str]]]:
    numbered = iter(enumerate(lines))
    for number, line in numbered:
        start = MARKDOWN_START.fullmatch(line)
        if start is not None:
            body = []
            for _, inside in numbered:
                if inside.strip() == "```":
                    break
                body.append(inside)
            yield number + 2, start[2], body


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


# Running blocks; ``names`` is the namespace of the page


def run_python(names: dict[str, Any], block: Block) -> None:
    """Execute; tracebacks show the page and its own line numbers."""
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


def run_console(names: dict[str, Any], block: Block) -> None:
    """Run ``$ flask --app shop ...`` on the page's app, and compare the whole output."""
    prompts = re.split(r"^\$ ", block.source, flags=re.MULTILINE)
    assert prompts.pop(0) == "", f"{block}: it starts without a command"
    for prompt in prompts:
        command, _, expected = prompt.partition("\n")
        flask, *arguments = shlex.split(command)
        assert [flask, *arguments[:2]] == ["flask", "--app", "shop"], f"{block}: {command!r} cannot be run here"
        result = names["app"].test_cli_runner().invoke(args=arguments[2:])
        assert result.output.strip() == expected.strip(), f"{block}: {command}"
