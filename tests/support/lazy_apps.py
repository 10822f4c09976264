"""A plugin that runs another project's tests with LazySession: ``pytest -p tests.support.lazy_apps --throttle 0``."""

from __future__ import annotations

from typing import Any

import pytest
from _pytest import monkeypatch
from flask import Flask

from lazysession import LazySession

if not hasattr(monkeypatch, "notset"):  # Flask's tests import it; pytest 9 has renamed it
    monkeypatch.notset = monkeypatch.NOTSET  # type: ignore[attr-defined]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--throttle", help="call LazySession with each app: seconds or 'default'; without it, Flask alone")


def pytest_configure(config: pytest.Config) -> None:
    throttle = config.getoption("--throttle")
    if throttle is not None:
        make_apps_lazy(None if throttle == "default" else float(throttle))


def make_apps_lazy(throttle: float | None) -> None:
    """Call LazySession with each app that is made in this process; None for the default throttle."""
    plain = Flask.__init__

    def make(app: Flask, *arguments: Any, **named: Any) -> None:
        plain(app, *arguments, **named)
        if throttle is not None:
            app.config["LAZYSESSION_REFRESH_THROTTLE"] = throttle
        LazySession(app)

    Flask.__init__ = make  # type: ignore[method-assign]
