"""Compare Flask-Session alone with LazySession on real page views: ``python docs/demo/demo.py``."""

from __future__ import annotations

import argparse
import re
import sqlite3
import sys
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # nox sets PYTHONSAFEPATH, which leaves this folder out

from contender import Contender, ContenderError
from counting import RedisCounter
from measuring import Comparison, Measurement
from redis import Redis, RedisError
from report import write_readme, write_report
from results import notes, rows, sentences
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scenario import REQUESTS_OF_A_VIEW
from stores import Sessions, Store, StoreError, parse_store

#: The table is at most this many columns wide.
WIDTH = 100
#: Page views of each contender: four visitors of ten.
VIEWS = 40


def positive(text: str) -> int:
    """Read a number of page views."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--store",
        action="append",
        help="redis://HOST:PORT/DB (a server without other clients: it counts for all of them), "
        "or sqlite:///FILE, or sqlite:// for temporary files (default); may be repeated",
    )
    parser.add_argument(
        "--views", type=positive, default=VIEWS, help="page views of each contender (default: %(default)s)"
    )
    parser.add_argument("--report", type=Path, default=Path("demo-report.html"), help="default: demo-report.html")
    parser.add_argument("--readme", type=Path, help="put the table between the markers of this file as well")
    return parser.parse_args(arguments)


def compare(store: Store, views: int, console: Console) -> Comparison:
    """Start both shops, measure them with a progress bar, stop them."""
    with ExitStack() as closing:
        redis = closing.enter_context(Redis.from_url(store.url)) if store.is_redis else None
        comparison = Comparison(store.title, store_versions(redis))
        counter = RedisCounter(redis) if redis is not None else None
        contenders = []
        for sessions in Sessions:
            share = store.share_of(sessions)
            if redis is not None:
                closing.callback(forget, redis, share.key_prefix)
            contenders.append(closing.enter_context(Contender(sessions, share)))
        with progress_bar(console) as progress:
            task = progress.add_task(f"Page views on {store.title}", total=views * len(contenders))
            Measurement(contenders, counter).run(comparison, views, lambda: progress.advance(task))
    return comparison


def store_versions(redis: Redis | None) -> list[str]:
    """Return the versions of the store and of its client."""
    if redis is not None:
        return [f"Redis {redis.info('server')['redis_version']}", f"redis-py {version('redis')}"]
    return [f"SQLite {sqlite3.sqlite_version}", f"SQLAlchemy {version('SQLAlchemy')}"]


def forget(redis: Redis, key_prefix: str) -> None:
    """Delete the sessions that this run left in Redis."""
    for key in redis.scan_iter(match=f"{key_prefix}*"):
        redis.delete(key)


def progress_bar(console: Console) -> Progress:
    """Make the progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def print_table(comparison: Comparison, views: int, console: Console) -> None:
    """Print the comparison: each figure in a row of a table, and below it how it adds up."""
    console.print(
        f"\n[bold]{views} page views of {REQUESTS_OF_A_VIEW} requests each, sessions in {comparison.store}[/]\n"
    )
    width = min(WIDTH, console.width)
    print_row(console, width, "", "Flask-Session", "LazySession", "ratio", style="bold")
    for row in rows(comparison):
        indent = "  " if row.part else ""
        print_row(console, width, indent + row.label, row.before, f"[green]{row.after}[/]", row.ratio,
                  style="" if row.part else "bold")  # fmt: skip
        for sentence in sentences(row):
            console.print(Padding(sentence, (0, 0, 0, 4)), style="dim", width=width)
    for note in ("", *notes(comparison)):
        console.print(note, width=width)


def print_row(console: Console, width: int, label: str, *cells: str, style: str) -> None:
    """Print one row of the table; the columns of its figures are as wide in every row."""
    grid = Table.grid(expand=True)
    grid.add_column(ratio=1)
    for _ in cells:
        grid.add_column(justify="right", width=14)
    grid.add_row(label, *cells, style=style)
    console.print(grid, width=width)


def command_of(arguments: argparse.Namespace) -> str:
    """Return the command of this run, without the address of a server, which may contain a password."""
    stores = [f"--store {re.sub('://.+', '://...', url)}" for url in arguments.store or []]
    options = [*stores, *([f"--views {arguments.views}"] if arguments.views != VIEWS else [])]
    return " ".join(["nox -s demo", *(["--", *options] if options else [])])


def run(arguments: argparse.Namespace, console: Console) -> list[Comparison]:
    """Compare on each store, with files that are deleted in the end where none is named."""
    console.print("Visits a tea shop twice: once with Flask-Session alone, once with LazySession.")
    with tempfile.TemporaryDirectory(prefix="lazysession-demo-") as folder:
        temporary = f"sqlite:///{folder}/sessions.db"
        stores = [parse_store(temporary if url == "sqlite://" else url) for url in arguments.store or ["sqlite://"]]
        return [compare(store, arguments.views, console) for store in stores]


def path_of_report(arguments: argparse.Namespace, comparison: Comparison) -> Path:
    """Return where a report goes: of several stores, each has its own file."""
    report: Path = arguments.report
    if len(arguments.store or ()) < 2:
        return report
    return report.with_stem(f"{report.stem}-{comparison.store.lower()}")


def main() -> int:
    """Run the demo; return 1 if responses of the two shops differ, 2 if it could not run, 130 after Ctrl-C."""
    arguments = parse_arguments()
    console = Console(highlight=False)
    try:
        comparisons = run(arguments, console)
    except (StoreError, RedisError, ContenderError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("demo: stopped", style="red")
        return 130
    for comparison in comparisons:
        print_table(comparison, arguments.views, console)
        report = path_of_report(arguments, comparison)
        write_report(comparison, arguments.views, command_of(arguments), report)
        console.print(f"\nReport, with charts: {report.resolve().as_uri()}", markup=False, soft_wrap=True)
        for difference in comparison.differences[:10]:
            console.print(difference, style="red", markup=False)
    if arguments.readme:
        write_readme(comparisons, arguments.views, command_of(arguments), arguments.readme)
    nox = ".venv/bin/nox" if Path(".venv/bin/nox").exists() else "nox"  # as the README installs it, or as on the PATH
    console.print(f"Look first at the store round trips. To see each page's cost: {nox} -s shop")
    return 1 if any(comparison.differences for comparison in comparisons) else 0


if __name__ == "__main__":
    sys.exit(main())
