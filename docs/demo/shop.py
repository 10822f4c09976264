"""The Lazy Kettle, a small tea shop: ``python docs/demo/shop.py``, then open the address that it prints."""

from __future__ import annotations

import argparse
import logging
import secrets
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # nox sets PYTHONSAFEPATH, which leaves this folder out

from accounts import DEMO_NAME, DEMO_PASSWORD, install_login
from api import api
from costs import PATH, SideBySide
from counting import SqlCounter, count_by_connection
from flask import Flask
from pages import not_found, pages
from stores import Sessions, Store, StoreError, install_sessions, parse_store

#: One thread for each connection of a browser, and two to spare.
THREADS = 8
logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # do not log each request that waits for a thread


def create_app(store: Store, sessions: Sessions) -> Flask:
    """Build the shop. The two contenders differ only in ``sessions``."""
    app = Flask(__name__, root_path=str(Path(__file__).parent))
    app.config.update(SECRET_KEY=secrets.token_hex(), SESSION_COOKIE_SAMESITE="Lax")
    install_sessions(app, store, sessions)
    install_login(app)
    app.register_blueprint(pages)
    app.register_blueprint(api)
    app.register_error_handler(404, not_found)
    return app


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", help="redis://HOST:PORT/DB or sqlite:///FILE (default: a temporary SQLite file)")
    parser.add_argument("--sessions", choices=[one.value for one in Sessions], default=Sessions.LAZY.value)
    parser.add_argument("--port", type=int, default=5000)
    return parser.parse_args(arguments)


def side_by_side(store: Store, shown: Sessions) -> SideBySide:
    """Build both shops, each on its own part of the store, with a footer that shows what each page cost."""
    counter = SqlCounter().install()
    shops = {one: create_app(store.share_of(one), one) for one in Sessions}
    for app in shops.values():
        app.config["COSTS"] = PATH
        if store.is_redis:
            count_by_connection(app.config["SESSION_REDIS"], counter)
    return SideBySide({one: app.wsgi_app for one, app in shops.items()}, shown, counter)


def serve(store: Store, sessions: Sessions, port: int) -> None:
    """Serve the shop on this machine only, until Ctrl-C."""
    from waitress import create_server  # type: ignore[import-untyped]  # not installed where the tests run

    server = create_server(side_by_side(store, sessions), host="127.0.0.1", port=port, threads=THREADS)
    print(f"The Lazy Kettle: http://127.0.0.1:{server.effective_port}/  ({store.title}, {sessions.title})")
    print(f"Sign in as {DEMO_NAME!r} with {DEMO_PASSWORD!r}, then look at the end of a page: it shows what the page")
    print("cost, with LazySession and with Flask-Session alone. Ctrl-C closes the shop.", flush=True)
    server.run()


def main() -> int:
    """Run the shop."""
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="lazy-kettle-") as folder:
        try:
            store = parse_store(arguments.store or f"sqlite:///{folder}/sessions.db")
            serve(store, Sessions(arguments.sessions), arguments.port)
        except (StoreError, OSError) as error:  # OSError: the port is taken
            print(f"shop: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
