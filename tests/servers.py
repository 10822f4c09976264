"""Real servers as child processes on free ports of 127.0.0.1."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

INSTALL = {"redis-server": "apt-get install redis-server"}


def free_port() -> int:
    """Ask the system for a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def missing(program: str) -> str | None:
    """Say how to install a server that is not there."""
    return None if shutil.which(program) else f"{program} is not installed: {INSTALL[program]}"


@contextmanager
def running_redis(folder: Path) -> Generator[str]:
    """Run a redis-server and answer its URL."""
    port = free_port()
    command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        wait_for_port(port, server)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


def wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server takes connections; a server that ends meanwhile is an error."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert server.poll() is None, f"{server.args!r} ended with status {server.returncode}"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)  # for a process of the system, not for the code under test
        else:
            return
    raise TimeoutError(f"{server.args!r} takes no connections")
