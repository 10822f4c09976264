"""The parser of redis-py: that of hiredis where it is installed, unless the environment says that it is not to be.

Imported before redis. Everything is measured without hiredis, except what compares the two.
"""

from __future__ import annotations

import importlib.util
import os
import sys

NAME = "BENCH_REDIS_PARSER"
PYTHON, HIREDIS = "python", "hiredis"
INSTALLED = importlib.util.find_spec("hiredis") is not None

if os.environ.get(NAME) == PYTHON:
    sys.modules["hiredis"] = None  # type: ignore[assignment]  # makes an import of it fail


def check() -> None:
    """Raise an error if redis-py does not use the parser that the environment names."""
    from redis.utils import HIREDIS_AVAILABLE

    wanted = os.environ.get(NAME)
    if wanted is not None and HIREDIS_AVAILABLE is not (wanted == HIREDIS):
        raise RuntimeError(f"redis-py does not use the parser of {wanted}")
