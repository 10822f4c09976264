"""The paths of the code that the bench shares: servers, stores and proxy of the tests, and the demo's chart."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
DEMO = ROOT / "docs" / "demo"

for _folder in (HERE, ROOT):  # nox sets PYTHONSAFEPATH, which leaves out even the first
    if str(_folder) not in sys.path:
        sys.path.append(str(_folder))


@contextmanager
def demo_on_path() -> Generator[None]:
    """Make modules of the demo importable within the block: later, an app named "shop" must not find the demo's."""
    sys.path.append(str(DEMO))
    try:
        yield
    finally:
        sys.path.remove(str(DEMO))
