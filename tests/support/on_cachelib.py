"""Caches of cachelib, some of which count, and apps on them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from flask import Flask, session

ONE_DAY = 86400
LIVE = "a" * 43


def expiry_of(folder: Path | str) -> int:
    (path,) = sessions_in(folder)
    return int(struct.unpack("I", path.read_bytes()[:4])[0])


def sessions_in(folder: Path | str) -> list[Path]:
    return [path for path in Path(folder).iterdir() if not path.name.endswith(".__wz_cache")]


def make_app(extension: type, **config: Any) -> Flask:
    app = Flask("shop", static_folder=None)
    app.config.update(TESTING=True, SECRET_KEY="key", PERMANENT_SESSION_LIFETIME=ONE_DAY, **config)
    extension(app)

    def change() -> str:
        session["a"] = 2
        return session.sid  # type: ignore[attr-defined, no-any-return]

    def same() -> str:
        session["a"] = 1
        return ""

    app.add_url_rule("/untouched", view_func=lambda: "", endpoint="untouched")
    app.add_url_rule("/read", view_func=lambda: repr(dict(session)), endpoint="read")
    app.add_url_rule("/change", view_func=change, endpoint="change")
    app.add_url_rule("/same", view_func=same, endpoint="same")
    app.add_url_rule("/clear", view_func=lambda: session.clear() or "", endpoint="clear")
    return app


def findings(backend: Any) -> str:
    return "\n".join(f"{problem.severity}: {problem.what} {problem.remedy}" for problem in backend.check())
