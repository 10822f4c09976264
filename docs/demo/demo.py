"""Compare Flask-Session alone with LazySession on real page views: ``python docs/demo/demo.py``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # nox sets PYTHONSAFEPATH, which leaves this folder out

from contender import Contender, ContenderError
from counting import RedisCounter
from measuring import Comparison, Measurement
from redis import Redis, RedisError
from report import write_report
from results import notes, rows
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from scenario import REQUESTS_OF_A_VIEW
from stores import Sessions, Store, StoreError, parse_store

#: The table fits into this many columns.
WIDTH = 96


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
        help="redis://HOST:PORT/DB (a server without other clients: it counts for all of them), "
        "or sqlite:///FILE (default: temporary files)",
    )
    parser.add_argument("--views", type=positive, default=40, help="page views of each contender (default: 40)")
    parser.add_argument("--report", type=Path, default=Path("demo-report.html"), help="default: demo-report.html")
    return parser.parse_args(arguments)


def compare(store: Store, views: int, console: Console) -> Comparison:
    """Start both shops, measure them with a progress bar, stop them."""
    comparison = Comparison(store.title)
    with ExitStack() as closing:
        redis = closing.enter_context(Redis.from_url(store.url)) if store.is_redis else None
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


def forget(redis: Redis, key_prefix: str) -> None:
    """Delete the sessions that this run left in Redis."""
    for key in redis.scan_iter(match=f"{key_prefix}*"):
        redis.delete(key)


def progress_bar(console: Console) -> Progress:
    """Make the progress bar."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def print_table(comparison: Comparison, views: int, console: Console) -> None:
    """Print the comparison as one table."""
    table = Table(
        title=f"{views} page views of {REQUESTS_OF_A_VIEW} requests each, sessions in {comparison.store}",
        caption="\n".join(notes(comparison)), caption_justify="left",
        box=box.ROUNDED, width=min(WIDTH, console.width),
    )  # fmt: skip
    table.add_column("", ratio=1)
    table.add_column("Flask-Session", justify="right")
    table.add_column("LazySession", justify="right", style="bold green")
    table.add_column("ratio", justify="right")
    for line in rows(comparison):
        label = f"  [dim]{line.label}[/]" if line.part else line.label
        table.add_row(label, line.before, line.after, line.ratio, style="dim" if line.part else "")
    console.print(table)


def main() -> int:
    """Run the demo; return 1 if responses of the two shops differ, 2 if it could not run, 130 after Ctrl-C."""
    arguments = parse_arguments()
    console = Console(highlight=False)
    try:
        with tempfile.TemporaryDirectory(prefix="lazysession-demo-") as folder:
            store = parse_store(arguments.store or f"sqlite:///{folder}/sessions.db")
            comparison = compare(store, arguments.views, console)
    except (StoreError, RedisError, ContenderError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("demo: stopped", style="red")
        return 130
    print_table(comparison, arguments.views, console)
    write_report(comparison, arguments.views, arguments.report)
    console.print(f"Report: {arguments.report}", markup=False)
    for difference in comparison.differences[:10]:
        console.print(difference, style="red", markup=False)
    return 1 if comparison.differences else 0


if __name__ == "__main__":
    sys.exit(main())
