"""Where the bench finds what it shares: the servers, stores and proxy of the tests, and the demo's chart."""

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
    """Let modules of the demo be imported, and no longer: an app named "shop" would be taken for the demo's module."""
    sys.path.append(str(DEMO))
    try:
        yield
    finally:
        sys.path.remove(str(DEMO))
