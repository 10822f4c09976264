"""Loads before the view, for interfaces that store through the app's ``db.session``: as they did without us.

In the middle of a view, loading would flush the app's pending rows, report the app's own errors as the store's, and
commit rows that the app then rolls back.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Protocol

from flask import Flask, Request, has_app_context

from .failures import Failure
from .modes import Decision, Mode, RuleTable
from .session import DeferredSession, Opener, assign
from .use import Opened

_BEFORE_THE_VIEW = Decision(Mode.NORMAL, "before the view")


class _Loader(Protocol):
    """What is needed of a session handler."""

    def open(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Return the session of the request's cookie, or an empty one."""
        ...


def load_before_view(
    opener: Opener, loader: _Loader, rules: RuleTable, app: Flask, request: Request
) -> DeferredSession:
    """Return a deferred session whose data are loaded already, and neither used nor refreshed."""
    session = DeferredSession(opener, request)
    decision = _decide_early(rules, app, request)
    if decision.mode is Mode.SKIP:
        return session
    early: Opened | Failure
    try:
        with nullcontext() if has_app_context() else app.app_context():
            early = loader.open(app, request, decision)
    except Exception as error:  # raised by the first use, if there is one
        early = Failure.of(error)
    assign(session, "lazy_early", early)
    return session


def take_early(early: Opened | Failure, decision: Decision) -> Opened:
    """Return what was loaded before the view, in the mode of the first use.

    :raises Exception: the error of that load.
    """
    if isinstance(early, Failure):
        raise early.again()
    if early.saves or not early.missing:  # otherwise the store failed (ON_READ_ERROR "empty"): it stays readonly
        early.mode, early.rule = decision
    return early


def _decide_early(rules: RuleTable, app: Flask, request: Request) -> Decision:
    """Return the mode as far as it can be decided before Flask routes; the first use decides it again.

    A skipped request is not loaded.
    """
    before = request.url_rule, request.view_args
    try:
        adapter = app.create_url_adapter(request)
        if adapter is not None:
            request.url_rule, arguments = adapter.match(return_rule=True)
            request.view_args = dict(arguments)
        return rules.mode_of(app, request)
    except Exception:  # no such page, a host that Flask refuses later, or a rule that needs more than there is now
        return _BEFORE_THE_VIEW
    finally:
        request.url_rule, request.view_args = before
