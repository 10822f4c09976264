"""Run the code of a page with the installed wheel: ``python docs/release/quickstart.py docs/quickstart.rst``."""

from __future__ import annotations

import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[2]))  # the last place: lazysession is the installed one

from tests.support import pages

RUNNERS = {"python": pages.run_python, "pycon": pages.run_pycon, "console": pages.run_console}


def run(page: Path) -> str:
    """Run the page's blocks in one namespace, and return what was run, and what was not."""
    names: dict[str, Any] = {"__name__": "shop"}
    counts: Counter[str] = Counter()
    for block in pages.blocks_of(page.name, page.read_text(encoding="utf-8")):
        runner = RUNNERS.get(block.language)
        if runner is not None:
            runner(names, block)
        counts[block.language if runner is not None else f"{block.language} (not run)"] += 1
    return ", ".join(f"{count} {language}" for language, count in sorted(counts.items()))


def main() -> None:
    """Run the page, and say with which versions."""
    import lazysession

    if not Path(lazysession.__file__).is_relative_to(sys.prefix):
        sys.exit(f"lazysession was imported from {lazysession.__file__}, not from the wheel")
    page = Path(sys.argv[1])
    ran = run(page)
    if not ran:
        sys.exit(f"{page} has no block")
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    versions = [f"{name} {version(name)}" for name in ("flask", "flask-session")]
    print(f"{page.name} works with {', '.join([python, *versions])}: blocks: {ran}")


if __name__ == "__main__":
    main()
