"""The commands ``flask lazysession ...``."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable
from difflib import get_close_matches

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from werkzeug.routing import Rule

from .backend import Backend, Problem, SupportsCheck, SupportsPurge, explanation
from .checks.app import find_problems, find_useless_rules
from .checks.findings import FINDINGS
from .interface import LazySessionInterface
from .modes import Decision, Mode, RuleTable
from .pages import Page, see
from .serverside import ServerSide

#: Of findings, the worst first.
SEVERITIES = ("error", "warning", "info")

lazysession_commands = AppGroup("lazysession", help="Look into the lazy sessions of this app.")


@lazysession_commands.command("rules")
@click.argument("path", required=False)
@click.option("--method", default="GET", show_default=True, help="The method of the request to PATH.")
def rules_command(path: str | None, method: str) -> None:
    """Show the session mode of every route, and the rule that decides it.

    With PATH, show the mode of a request to that path; give a whole URL if routes depend on the host.
    """
    interface = _lazy_interface()
    app = interface.app
    if path is None:
        _print_table(("Endpoint", "Methods", "Rule", "Mode", "Decided by"), _route_rows(app, interface.rules))
        useless = [problem.what for problem in find_useless_rules(app, interface.rules)]
        click.echo("\n".join(["", *useless] if useless else []), nl=bool(useless))
        return
    if not path.startswith(("/", "http://", "https://")):
        raise click.BadParameter(f"{path!r} does not start with '/'.", param_hint="PATH")
    endpoint, decision = _decide_path(app, interface.rules, path, method.upper())
    _print_table(("Endpoint", "Mode", "Decided by"), [(endpoint or "(no route)", decision.mode, decision.reason)])


@lazysession_commands.command("purge")
def purge_command() -> None:
    """Remove expired sessions from a store that does not do so itself."""
    backend = _backend()
    if not isinstance(backend, SupportsPurge):
        click.echo(
            "Nothing to purge from here: the store expires sessions itself, or Flask-Session's own command does "
            "(flask session_cleanup)."
        )
        return
    with click.progressbar(length=1, label="Purging expired sessions") as bar:

        def progress(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        count = backend.purge(progress)
    click.echo(f"Purged {count} expired session{'' if count == 1 else 's'}.")


@lazysession_commands.command("check")
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    default="error",
    show_default=True,
    help="The least severity that makes the exit status 1.",
)
@click.option("--ignore", "ignored", multiple=True, metavar="NAME", help="Leave out the finding of this name.")
@click.option("--offline", is_flag=True, help="Look at the settings alone; do not ask the store.")
def check_command(fail_on: str, ignored: tuple[str, ...], offline: bool) -> None:
    """Look for problems of the session's settings, cookie and store.

    The exit status is 0 when all is well, 1 when there are errors (or what --fail-on names), and 3 when there are none
    as far as is known, but the store could not be asked.
    """
    interface = _lazy_interface()
    problems = list(find_problems(interface.app, interface))
    failure = None if offline else _ask_store(problems)
    _refuse_unknown(ignored, problems)
    shown = sorted((problem for problem in problems if problem.name not in ignored), key=_rank)
    for problem in shown:
        _print_problem(problem)
    click.echo(_summary(shown, len(problems) - len(shown)))
    if failure is not None:
        said = f"The store could not be asked: {explanation(_backend(), failure)}. {see(Page.STORE_UNREACHABLE)}"
        click.echo(said, err=True)
    if any(_rank(problem) <= SEVERITIES.index(fail_on) for problem in shown):
        raise SystemExit(1)
    if failure is not None:
        raise SystemExit(3)  # 2 is that of a wrong option


@lazysession_commands.command("nginx")
@click.option("--caddy", is_flag=True, help="Print a Caddyfile instead.")
@click.option("--upstream", default="127.0.0.1:8000", show_default=True, help="Where the app listens, or unix:/PATH.")
@click.option("--verify", "url", metavar="URL", help="Print nothing; compare the front server at URL with the app.")
def nginx_command(caddy: bool, upstream: str, url: str | None) -> None:
    """Print the configuration of a front server that sends the static files.

    With --verify, fetch a few files from the front server and from the app. The exit status is 1 if they differ.
    """
    from .insight.caddy import render_caddy  # here: an app that starts does not need what these import
    from .insight.configuration import configuration_of
    from .insight.nginx import render_nginx
    from .insight.verify import is_address, verify

    interface = _lazy_interface()
    app = interface.app
    if not re.fullmatch(r"[\w.-]+:\d+|\[[\da-fA-F:]+\]:\d+|unix:/[\w./-]+", upstream):
        raise click.BadParameter(f"{upstream!r} is neither HOST:PORT nor unix:/PATH.", param_hint="--upstream")
    if app.config["APPLICATION_ROOT"] != "/":
        raise click.ClickException("APPLICATION_ROOT is set: a configuration can only be printed for an app at '/'.")
    configuration = configuration_of(app, interface.rules, upstream)
    if url is None:
        click.echo((render_caddy if caddy else render_nginx)(configuration), nl=False)
        return
    if not is_address(url):
        raise click.BadParameter("it is not http://HOST or https://HOST, perhaps with a port.", param_hint="--verify")
    compared, differences = verify(app, configuration.plan, url)
    for difference in differences:
        click.echo(difference)
    count = len(differences)
    click.echo(f"Compared {compared} requests: {count or 'no'} difference{'' if count == 1 else 's'}.")
    if differences:
        raise SystemExit(1)


def _refuse_unknown(ignored: Iterable[str], problems: Iterable[Problem]) -> None:
    """Refuse a name that no finding has; those of another package's adapter are known only once they are reported."""
    known = sorted({*FINDINGS, *(problem.name for problem in problems if problem.name)})
    own = (_backend() is None) or type(_backend()).__module__.startswith("lazysession.")
    for name in set(ignored).difference(known):
        close = get_close_matches(name.lower(), known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        if own:
            raise click.BadParameter(
                f"{name!r} is not a finding.{hint} Known are {', '.join(known)}.", param_hint="--ignore"
            )
        click.echo(f"{name!r} is not a finding of LazySession, and the store has none of this name.{hint}", err=True)


def _lazy_interface() -> LazySessionInterface:
    interface = current_app.session_interface
    if not isinstance(interface, LazySessionInterface):
        raise click.ClickException(
            f"The app's sessions are not lazy: its interface is {type(interface).__name__}. "
            f"Was another extension set up after LazySession(app)? {see(Page.SESSION_TWICE)}"
        )
    return interface


def _backend() -> Backend | None:
    handler = _lazy_interface().handler
    return handler.backend if isinstance(handler, ServerSide) else None


def _ask_store(problems: list[Problem]) -> Exception | None:
    """Add what the backend finds, even if it fails before its end; return the error that it raised."""
    backend = _backend()
    try:
        if isinstance(backend, SupportsCheck):
            for problem in backend.check():
                problems.append(problem)  # noqa: PERF402 - those before an error count
    except Exception as error:  # whatever the client raises when its server is down
        return error
    return None


def _rank(problem: Problem) -> int:
    """Order by severity; one that only its adapter knows counts as a warning."""
    return SEVERITIES.index(problem.severity) if problem.severity in SEVERITIES else SEVERITIES.index("warning")


def _print_problem(problem: Problem) -> None:
    """Print a finding and its remedy, wrapped in a terminal; elsewhere one line each, which can be searched."""
    width = max(shutil.get_terminal_size().columns, 40) if sys.stdout.isatty() else sys.maxsize
    wrap = textwrap.TextWrapper(width, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False).wrap
    name = f" [{problem.name}]" if problem.name else ""
    first, *rest = wrap(f"{problem.severity}: {problem.what}{name}")
    colour = {"error": "red", "info": "cyan"}.get(problem.severity, "yellow")
    click.echo(click.style(problem.severity, fg=colour, bold=True) + first.removeprefix(problem.severity))
    for line in (*rest, *wrap(f"    {problem.remedy}")):
        click.echo(line)


def _summary(problems: list[Problem], ignored: int) -> str:
    counts = [sum(_rank(problem) == rank for problem in problems) for rank in range(len(SEVERITIES))]
    parts = [
        f"{count} {severity}{'' if count == 1 or severity == 'info' else 's'}"
        for severity, count in zip(SEVERITIES, counts, strict=True)
        if count
    ]
    return f"{', '.join(parts) or 'No findings'}{f' ({ignored} ignored)' if ignored else ''}."


def _route_rows(app: Flask, rules: RuleTable) -> Iterable[tuple[str, ...]]:
    for route in sorted(app.url_map.iter_rules(), key=lambda route: route.endpoint):
        methods = sorted((route.methods or set()) - {"HEAD", "OPTIONS"}) or ["GET"]
        by_decision: dict[Decision, list[str]] = {}
        for method in methods:
            by_decision.setdefault(_decide_route(app, rules, route, method), []).append(method)
        for decision, alike in by_decision.items():
            yield route.endpoint, ", ".join(alike), route.rule, decision.mode, decision.reason


def _decide_route(app: Flask, rules: RuleTable, route: Rule, method: str) -> Decision:
    return _decision_of(lambda: rules.mode_of_route(app, route, method))


def _decide_path(app: Flask, rules: RuleTable, path: str, method: str) -> tuple[str | None, Decision]:
    with app.test_request_context(path, method=method) as context:  # which matches the route
        return context.request.endpoint, _decision_of(lambda: rules.mode_of(app, context.request))


def _decision_of(decide: Callable[[], Decision]) -> Decision:
    try:
        return decide()
    except Exception as error:  # a callable rule may ask for what only a real request has
        return Decision(Mode.NORMAL, f"a rule needs a real request ({type(error).__name__})")


def _print_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows as ``flask routes`` does: padded columns under a dashed line."""
    lines = [tuple(map(str, row)) for row in (head, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, tuple("-" * width for width in widths))
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
