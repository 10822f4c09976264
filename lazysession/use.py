"""One request's use of its session: loaded at first use, in one mode, and saved once at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import Enum
from functools import lru_cache
from threading import RLock
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from flask import Flask, Request, Response, after_this_request, has_app_context
from flask import request as current_request
from flask.sessions import SessionInterface, SessionMixin
from werkzeug.datastructures import Headers

from .backend import Payload
from .errors import SessionReadOnly, SessionUnavailable
from .logs import is_called_from
from .modes import Decision, Mode, RuleTable
from .recorder import origin as used_by
from .records.loading import Snapshot
from .records.merging import KeyUse
from .signals import send, session_opened

#: The methods of Flask that call functions for after_request and teardown.
_HOOKS = ("process_response", "do_teardown_request", "do_teardown_appcontext")
_OUTSIDE = Decision(Mode.NORMAL, "outside of a request")
#: The rule of a request whose session could not be loaded.
STORE_DOWN = "the session store is not available"
#: After a failed load: an error handler may change the session in every mode, although it is not saved.
_AFTER_FAILURE = Decision(Mode.NORMAL, STORE_DOWN)


class Origin(Enum):
    """Where the items of a loaded session come from; all but STORED begin empty."""

    STORED = "the store"
    NEW = "empty: nothing is stored for the request"
    CLEARED = "empty: clear() came first, and the stored session was not read"
    SKIPPED = "empty: the mode is skip"
    STORE_DOWN = "empty: the load failed"


#: The stored session is unknown, so a session of such an origin is never saved.
_UNKNOWN = (Origin.SKIPPED, Origin.STORE_DOWN)


class Phase(Enum):
    """The state of a session in its request."""

    UNUSED = "not used; it may have been loaded before the view"
    LOADING = "being loaded"
    LOADED = "loaded"
    SAVING = "being saved"
    SAVED = "saved"
    NOT_SAVED = "could not be saved"


class Failure(NamedTuple):
    """Why the session could not be loaded or saved.

    :param traceback: the original one; raising the error again adds frames to its own.
    """

    error: Exception
    traceback: TracebackType | None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return the failure of an error; a ``BaseException`` (a timeout of gevent's) becomes SessionUnavailable."""
        if isinstance(error, Exception):
            return cls(error, error.__traceback__)
        unavailable = SessionUnavailable()
        unavailable.__cause__ = error
        return cls(unavailable, None)

    def again(self) -> Exception:
        """Return the error, to be raised once more."""
        return self.error.with_traceback(self.traceback)


class Handler(Protocol):
    """A session handler: loads and saves sessions, over a backend or over any other session interface."""

    wrapped: SessionInterface
    session_class: type[SessionMixin]
    #: Whether ``unavailable`` has to be called in every request.
    may_be_unavailable: bool
    #: Whether it uses the app's database session, with which nothing may be loaded in the middle of a view.
    loads_before_view: bool
    #: Whether :meth:`start_over` reads nothing.
    clears_unread: bool

    def unavailable(self, app: Flask) -> bool:
        """Return, without I/O, whether the wrapped interface would return None for every request."""
        ...

    def load(self, app: Flask, use: SessionUse) -> None:
        """Load the session of the request's cookie, or begin an empty one."""
        ...

    def start_over(self, app: Flask, use: SessionUse) -> None:
        """Begin an empty session instead of the one of the request's cookie."""
        ...

    def begin_empty(self, use: SessionUse, origin: Origin) -> None:
        """Begin an empty session without asking the store."""
        ...

    def end(self, use: SessionUse) -> None:
        """End a session that was cleared: later writes begin a new one."""
        ...

    def save(self, app: Flask, use: SessionUse, response: Response) -> None:
        """Save the session if it changed, and set or delete the response's cookie."""
        ...

    def rotate(self, session: SessionMixin) -> None:
        """Give the session a new id; the save stores it before it deletes the old record."""
        ...


class LateUseLog(Protocol):
    """Logs uses that come after the response was made."""

    def log_first_use(self, use: SessionUse, headers: Headers) -> None:
        """Log a first use; ``headers`` are those of the response."""

    def log_write(self, use: SessionUse) -> None:
        """Log a change."""


class Owner(Protocol):
    """The session interface that a use belongs to."""

    handler: Handler
    rules: RuleTable
    transient_keys: frozenset[str]
    raises_on_skipped_write: bool
    late_uses: LateUseLog
    #: Whether to trace which code uses sessions; None: only if the app is in debug mode.
    trace: bool | None
    #: Called at the first use of a session, and again at each later one until it succeeds.
    before_first_use: Callable[[], None] | None

    @property
    def app(self) -> Flask:
        """The app that the interface serves."""
        ...

    @property
    def session_class(self) -> type[SessionMixin]:
        """The class that loaded sessions will have."""
        ...

    def follow_serializer(self) -> None:
        """Use the serializer as the app has set or changed it since the last load."""
        ...

    def get_cookie_name(self, app: Flask) -> str:
        """Return the name of the session cookie."""
        ...

    def regenerate(self, session: SessionMixin) -> None:
        """Give the session a new id."""


class Deferred(Protocol):
    """The deferred session, as far as a use needs it."""

    #: The value of ``permanent`` that was set before the load.
    lazy_permanent: bool | None
    #: The headers of the response, if that was made while the session was not used.
    lazy_headers: Headers | None


class SessionUse:
    """One request's use of its session.

    It is made at the first use: requests that do not use their session pay nothing for it. Class attributes hold the
    defaults.

    :param owner: the session interface of the app.
    """

    phase = Phase.UNUSED
    #: Set in every phase from LOADED on.
    is_loaded = False
    #: The loaded session, of the wrapped interface's own class.
    session: SessionMixin
    origin = Origin.NEW
    #: Whether the session may be saved.
    is_saveable = True
    #: The mode of the first use, and the rule that decided it.
    mode = Mode.NORMAL
    rule = ""
    #: The id of the stored record, even if that was not read (CLEARED); None when there is none.
    sid: str | None = None
    #: The stored payload, as loaded or saved last; None when nothing is stored, or it was not read.
    payload: Payload | None = None
    #: Seconds that the record had left when it was loaded; None when that is not known.
    ttl: float | None = None
    #: The id was rotated away before the load (:mod:`lazysession.records.rotation`).
    is_late = False
    #: When the session began, in seconds since the epoch; None when that is not known.
    created_at: float | None = None
    #: Whether the load moved the expiry.
    refreshed = False
    #: ``clear()`` came after the load: saving deletes the record, even if another request has changed it meanwhile.
    ended = False
    #: When the session was loaded, in seconds since the epoch.
    loaded_at = 0.0
    #: The keys that a login set, also to the values that they had before, and those that a logout removed.
    login_keys: frozenset[str] = frozenset()
    logout_keys: frozenset[str] = frozenset()

    #: The mode, decided at the first use, or for a streamed response, as its body has no request context.
    decision: Decision | None = None
    #: The session was loaded before the view, as its interface requires; the error of that load.
    is_early = False
    early_failure: Failure | None = None

    #: The error of the load: raised at every use, until Flask handles an exception of the request.
    load_failure: Failure | None = None
    #: The error of the save.
    save_failure: Failure | None = None
    #: Flask has handled an exception of the request, or runs after_request: after a failed load, the session is empty.
    is_handled = False
    #: Flask has handled the error of the load or the save: the app's error handlers have made the response.
    failure_was_handled = False
    #: The headers of the response that LazySession has replaced by an error response.
    rendered: Headers | None = None

    #: The code that used the session first, and the milliseconds of the load, if that is traced.
    used_by = ""
    load_time = 0.0

    def __init__(self, owner: Owner, request: Request) -> None:
        self.owner = owner
        self.request = request
        #: The keys that the request has read and changed since the load or the last save.
        self.keys = KeyUse()
        self._lock = RLock()

    def begin(
        self, session: SessionMixin, origin: Origin, sid: str | None = None, snapshot: Snapshot | None = None
    ) -> None:
        """Set the session that a handler has loaded or begun."""
        self.session, self.origin, self.sid = session, origin, sid
        self.is_saveable = origin not in _UNKNOWN
        if snapshot is None:
            self.payload = self.ttl = self.created_at = None
            self.refreshed = self.is_late = False
        else:
            _, self.payload, self.ttl, self.refreshed, self.created_at, self.is_late = snapshot

    @property
    def starts_over(self) -> bool:
        """Whether the session was cleared after the load, and has got a new id."""
        return self.ended and self._current_id() != self.sid

    def _current_id(self) -> str:
        return str(self.session.sid)  # type: ignore[attr-defined]  # of server-side sessions

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds that the record has left; None when that is not known, or another session begins.

        :param now: seconds since the epoch.
        """
        return None if self.ended or self.ttl is None else self.ttl - (now - self.loaded_at)

    def replace_items(self, items: Mapping[str, Any], same: Callable[[Any, Any], bool]) -> None:
        """Give the session other items; a value that is the same stays the same object, as the app may refer to it.

        :param same: returns whether two values have the same encoding.
        """
        session = self.session
        values = {
            key: session[key] if key in session and same(session[key], value) else value for key, value in items.items()
        }
        for key in list(session):
            del session[key]
        session.update(values)

    def restore_id(self) -> None:
        """Give a session that was not saved the id that it was loaded with."""
        if self.sid is not None:
            self.session.sid = self.sid  # type: ignore[attr-defined]

    def reset_after_save(self, payload: Payload | None, *, under_own_id: bool) -> None:
        """Treat what was stored as what was loaded, so that the session can be saved again.

        :param payload: what is stored; None when the session has ended.
        :param under_own_id: it is stored under the session's id. Otherwise another request has rotated or ended the
            session.
        """
        self.refreshed = self.ended = False
        self.keys, self.origin = self.keys.after_save(), Origin.STORED
        self.payload = payload
        if under_own_id:
            self.is_late, self.sid = False, self._current_id()
        if payload is None:
            self.sid = self.ttl = self.created_at = None

    # The load

    def load(self, deferred: Deferred, *, cleared: bool = False) -> None:
        """Load the session, once; a second thread waits for the first.

        :param cleared: begin an empty session, without reading the stored one if the handler can do that.
        :raises Exception: the error of the load; that of the first one, if that has failed.
        """
        with self._lock:
            if self.is_loaded:
                return
            if self.phase is Phase.LOADING:
                raise RuntimeError("The code that loads the session (a rule, a backend) must not use the session.")
            self.phase = Phase.LOADING
            try:
                self._load(deferred.lazy_headers, cleared=cleared)
            except Exception as error:
                if not self._continues_empty(error):
                    raise
                self._load(deferred.lazy_headers, cleared=False)
            finally:
                self.phase = Phase.UNUSED
            if deferred.lazy_permanent is not None:
                self._apply_permanent(deferred.lazy_permanent)
            self.phase, self.is_loaded = Phase.LOADED, True
        if session_opened.receivers:
            added = {"origin": self.used_by}
            send(session_opened, self.owner.app, added=added, session=deferred, mode=self.mode, rule=self.rule)

    def _apply_permanent(self, value: bool) -> None:
        """Set ``permanent`` to the value that it got before the load."""
        if self.is_saveable and self.mode in (Mode.NORMAL, Mode.NO_REFRESH) and not has_permanent(self.session, value):
            self.session.permanent = value

    def _load(self, headers: Headers | None, *, cleared: bool) -> None:
        owner = self.owner
        app = owner.app
        if owner.before_first_use is not None:
            _check_before_first_use(owner)
        is_traced = app.debug if owner.trace is None else owner.trace
        started = time.perf_counter() if is_traced else 0.0
        self._fill(app, headers, cleared=cleared)
        self.session.accessed = True
        if overrides_access(type(self.session)):
            self.keys.add_read_all()
        if headers is not None and self.is_saveable:
            owner.late_uses.log_first_use(self, headers)
        if is_traced:
            self.load_time, self.used_by = (time.perf_counter() - started) * 1000, used_by(app)

    def _fill(self, app: Flask, headers: Headers | None, *, cleared: bool) -> None:
        if self.load_failure is not None:  # a request does not try a failed load again
            if not self.is_handled:
                raise self.load_failure.again()
            self.mode, self.rule = _AFTER_FAILURE
            self.owner.handler.begin_empty(self, Origin.STORE_DOWN)
            return
        decision = self.decide(app)
        if self.is_early and self._uses_early_load(decision, cleared=cleared):
            self.use_early_load()
            return
        self.mode, self.rule = decision
        if (decision is not _OUTSIDE and headers is None) or has_app_context():
            self._fill_now(app, cleared=cleared)
            return
        with app.app_context():
            self._fill_now(app, cleared=cleared)

    def _fill_now(self, app: Flask, *, cleared: bool) -> None:
        if self.mode is Mode.SKIP:
            self.owner.handler.begin_empty(self, Origin.SKIPPED)
            return
        self.owner.follow_serializer()
        handler = self.owner.handler  # after that, which may set another one
        if not cleared:
            handler.load(app, self)
            return
        if self.mode is Mode.READONLY:
            raise SessionReadOnly(f"The session may not be cleared here: its mode is readonly ({self.rule}).")
        handler.start_over(app, self)

    def decide(self, app: Flask) -> Decision:
        """Return the mode of the request, which is decided once: a later use may have no request context."""
        if self.decision is None:
            is_outside = not is_current(self.request)  # in the test client's session_transaction
            self.decision = _OUTSIDE if is_outside else self.owner.rules.mode_of(app, self.request)
        return self.decision

    # A load before the view

    def load_early(self, app: Flask) -> None:
        """Load the session before the view, unless the request is skipped; that is no use of the session.

        For interfaces that store through the app's ``db.session``: in the middle of a view, a load would flush the
        app's pending rows, report the app's errors as errors of the store, and commit what the app then rolls back.
        """
        decision = self.owner.rules.mode_before_routing(app, self.request)
        if decision.mode is Mode.SKIP:
            return
        self.mode, self.rule = decision
        self.is_early = True
        try:
            self.owner.handler.load(app, self)
        except Exception as error:  # raised by the first use, if there is one
            self.early_failure = Failure.of(error)

    def _uses_early_load(self, decision: Decision, *, cleared: bool) -> bool:
        if decision.mode is Mode.SKIP:
            return False
        return not cleared or not (self.owner.handler.clears_unread or decision.mode is Mode.READONLY)

    def use_early_load(self) -> None:
        """Use the session that was loaded before the view, in the mode of the first use.

        :raises Exception: the error of that load.
        """
        if self.early_failure is not None:
            raise self.early_failure.again()
        if self.origin is not Origin.STORE_DOWN and self.decision is not None:  # else readonly (ON_READ_ERROR "empty")
            self.mode, self.rule = self.decision

    # A failed load

    def _continues_empty(self, error: Exception) -> bool:
        """Remember the error of a load; return whether Flask has handled an error, so that the session is empty now."""
        if isinstance(error, SessionReadOnly):  # of clear(), which the mode forbids; reads are allowed
            return False
        if self.load_failure is None:
            self.load_failure = Failure.of(error)
            if is_current(self.request):
                after_this_request(self._begin_after_request)
        if not self.is_handled and is_called_from(*_HOOKS):
            self.is_handled = True
        return self.is_handled

    def _begin_after_request(self, response: Response) -> Response:
        """Run by Flask before all functions for after_request."""
        self.is_handled = True
        return response

    def begin_error_handling(self, error: object) -> None:
        """Record that Flask handles an exception of the request; if the load failed, the session is empty now."""
        self.is_handled = True
        for failure in (self.load_failure, self.save_failure):
            if failure is not None and failure.error is error:
                self.failure_was_handled = True

    # Changes

    def check_write(self, headers: Headers | None) -> None:
        """Refuse a change that the mode forbids, and log one that comes after the save.

        :raises SessionReadOnly: where the mode forbids writes.
        """
        mode = self.mode
        if mode is Mode.READONLY or (mode is Mode.SKIP and self.owner.raises_on_skipped_write):
            raise SessionReadOnly(f"The session may not be changed here: its mode is {mode} ({self.rule}).")
        if headers is not None or self.phase is not Phase.LOADED:
            self.owner.late_uses.log_write(self)

    @property
    def is_failed(self) -> bool:
        """Whether saving has begun and not succeeded."""
        return self.phase in (Phase.SAVING, Phase.NOT_SAVED)


def has_permanent(session: SessionMixin, value: bool) -> bool:
    """Return whether ``permanent`` of a session has this value: setting it again is no change."""
    return session.permanent == value and "_permanent" in session


def _check_before_first_use(owner: Owner) -> None:
    check = owner.before_first_use
    if check is not None:  # None if another thread has just called it
        check()
        owner.before_first_use = None  # only if it succeeds: each use fails until the config is right


def is_current(request: Request) -> bool:
    """Return whether this is Flask's current request in this thread."""
    try:
        current = current_request._get_current_object()  # type: ignore[attr-defined]  # documented by Werkzeug
    except RuntimeError:
        return False
    return current is request


_KNOWN_PACKAGES = frozenset({"flask", "flask_session", "werkzeug", "collections", "builtins"})
_ACCESS_METHODS = frozenset(
    {
        *("__init__", "__new__", "__getattr__", "__getattribute__", "__getitem__", "__setitem__", "__delitem__"),
        *("__contains__", "__iter__", "__len__", "__bool__", "__eq__", "get", "pop", "popitem", "setdefault"),
        *("update", "clear", "keys", "values", "items", "copy"),
    }
)


@lru_cache(maxsize=16)
def overrides_access(session_class: type[SessionMixin]) -> bool:
    """Return whether a session class overrides access to its items, so that it is unknown which keys that reads.

    All keys then count as read.
    """
    return any(
        base.__module__.partition(".")[0] not in _KNOWN_PACKAGES and not _ACCESS_METHODS.isdisjoint(vars(base))
        for base in session_class.__mro__
    )
