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

#: What runs functions for after_request and teardown.
_HOOKS = ("process_response", "do_teardown_request", "do_teardown_appcontext")
_OUTSIDE = Decision(Mode.NORMAL, "outside of a request")
#: After a failed load: an error handler may flash a message in every mode, although nothing of it is saved.
_AFTER_FAILURE = Decision(Mode.NORMAL, "the session store is not available")


class Origin(Enum):
    """Where the items of a loaded session come from."""

    STORED = "the store"
    NEW = "nowhere: nothing is stored for the request"
    CLEARED = "nowhere: clear() came first, and what is stored was not read"
    SKIPPED = "nowhere: the mode is skip"
    STORE_DOWN = "nowhere: the load failed"


#: It is unknown what is stored: nothing of such a session is saved.
_UNKNOWN = (Origin.SKIPPED, Origin.STORE_DOWN)


class Phase(Enum):
    """How far the use of a session has come."""

    UNUSED = "unused, though it may have been loaded before the view"
    LOADING = "being loaded"
    LOADED = "loaded"
    SAVING = "being saved"
    SAVED = "saved"
    NOT_SAVED = "could not be saved"


class Failure(NamedTuple):
    """Why the session could not be loaded or saved.

    :param traceback: where the error came from; each further raise would add to the error's own.
    """

    error: Exception
    traceback: TracebackType | None

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Return the failure of an error; one that only interrupts (a timeout of gevent's) counts as the store's."""
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
    #: Whether ``unavailable`` is worth asking in every request.
    may_be_unavailable: bool
    #: Whether it uses a database session of the app's, which must not be used to load in the middle of a view.
    loads_before_view: bool
    #: Whether :meth:`start_over` loads nothing.
    clears_unread: bool

    def unavailable(self, app: Flask) -> bool:
        """Return, without I/O, whether the wrapped interface would return None for every request."""
        ...

    def load(self, app: Flask, use: SessionUse) -> None:
        """Load the session of the request's cookie, or begin an empty one."""
        ...

    def start_over(self, app: Flask, use: SessionUse) -> None:
        """Begin an empty session in the place of the one that the cookie names."""
        ...

    def begin_empty(self, use: SessionUse, origin: Origin) -> None:
        """Begin an empty session without asking the store."""
        ...

    def end(self, use: SessionUse) -> None:
        """End a session that was cleared: what is written after that begins a new one."""
        ...

    def save(self, app: Flask, use: SessionUse, response: Response) -> None:
        """Bring store and response up to date with the session."""
        ...

    def rotate(self, session: SessionMixin) -> None:
        """Give the session a new id, which is stored before the old record goes."""
        ...


class LateUseLog(Protocol):
    """Logs uses that come after the response was made."""

    def note_first_use(self, use: SessionUse, headers: Headers) -> None:
        """Log a first use; ``headers`` are those of the response."""

    def note_write(self, use: SessionUse) -> None:
        """Log a change."""


class Owner(Protocol):
    """The session interface that a use belongs to."""

    handler: Handler
    rules: RuleTable
    transient_keys: frozenset[str]
    raises_on_skipped_write: bool
    late_uses: LateUseLog
    #: Record which code uses sessions; None while the app is in debug mode.
    trace: bool | None
    #: Called at the first use of a session, and at each later one until it raises nothing.
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
        """Follow what the app has changed of the serializer since the last load."""
        ...

    def get_cookie_name(self, app: Flask) -> str:
        """Return the name of the session cookie."""
        ...

    def regenerate(self, session: SessionMixin) -> None:
        """Give the session a new id."""


class Deferred(Protocol):
    """The session as the app knows it."""

    #: Set before the load.
    lazy_permanent: bool | None
    #: Those of the response that was made while the session was not used; None while there is none.
    lazy_headers: Headers | None


class SessionUse:
    """One request's use of its session.

    Made at the first use, so that a request that does not use its session pays nothing for it. Class attributes are the
    defaults.

    :param owner: the session interface of the app.
    """

    phase = Phase.UNUSED
    #: There is a session, in every phase from LOADED on.
    is_loaded = False
    #: The object of the wrapped interface's own session class.
    session: SessionMixin
    origin = Origin.NEW
    #: Whether anything of this session may reach the store.
    is_saveable = True
    #: The mode that the first use got, and the reason for it.
    mode = Mode.NORMAL
    rule = ""
    #: The id of the stored record, also of one that was not read (CLEARED); None when there is none.
    sid: str | None = None
    #: What the store said when the session was loaded, or saved last; None when there is no record or it was not read.
    snapshot: Snapshot | None = None
    #: When the session began, in seconds since the epoch; None when that is not known.
    created_at: float | None = None
    #: The load has moved the expiry.
    refreshed = False
    #: ``clear()`` came after the load: what is stored ends, also if another request has changed it meanwhile.
    ended = False
    #: When it was loaded, in seconds since the epoch.
    since = 0.0
    #: Keys that a login set, also where they had the same values before; keys that a logout removed.
    login_keys: frozenset[str] = frozenset()
    logout_keys: frozenset[str] = frozenset()

    #: The mode, when it is decided: with the first use, or with a streamed response, whose body has no request context.
    decision: Decision | None = None
    #: Loaded before the view, for an interface that needs that; or the error of that load.
    is_early = False
    early_failure: Failure | None = None

    #: Why it could not be loaded: raised at every use, until Flask handles an exception of the request.
    load_failure: Failure | None = None
    #: Why it could not be saved.
    save_failure: Failure | None = None
    #: Flask has handled an exception of the request, or runs after_request: a failed load is an empty session now.
    is_handled = False
    #: The app's error handlers were asked for the response to the failure.
    failure_was_handled = False
    #: The headers of the response that was made the response to the failure.
    rendered: Headers | None = None

    #: The code that used the session first, and the milliseconds of the load, if that is traced.
    used_by = ""
    took = 0.0

    def __init__(self, owner: Owner, request: Request) -> None:
        self.owner = owner
        self.request = request
        #: Which keys the request has read and changed since the load, or the last save.
        self.keys = KeyUse()
        self._lock = RLock()

    @property
    def payload(self) -> Payload | None:
        """The stored payload, None when there is no record or it was not read."""
        return None if self.snapshot is None else self.snapshot.payload

    @property
    def is_late(self) -> bool:
        """Whether its id was rotated away before it was loaded (:mod:`lazysession.records.rotation`)."""
        return self.snapshot is not None and self.snapshot.late

    def begin(
        self, session: SessionMixin, origin: Origin, sid: str | None = None, snapshot: Snapshot | None = None
    ) -> None:
        """Take the session that a handler has loaded or begun."""
        self.session, self.origin, self.sid, self.snapshot = session, origin, sid, snapshot
        self.is_saveable = origin not in _UNKNOWN
        if snapshot is None:
            self.refreshed, self.created_at = False, None
        else:
            self.refreshed, self.created_at = snapshot.refreshed, snapshot.created

    @property
    def begins_anew(self) -> bool:
        """Whether it was cleared and has a new id."""
        return self.ended and self._current_id() != self.sid

    def _current_id(self) -> str:
        return str(self.session.sid)  # type: ignore[attr-defined]  # of server-side sessions

    def seconds_left(self, now: float) -> float | None:
        """Return the seconds that the record has left; None when that is not known, or another session begins.

        :param now: seconds since the epoch.
        """
        if self.ended or self.snapshot is None or self.snapshot.ttl is None:
            return None
        return self.snapshot.ttl - (now - self.since)

    def show(self, items: Mapping[str, Any], same: Callable[[Any, Any], bool]) -> None:
        """Give the session other items, in their order; a value that is the same stays the object that a view may hold.

        :param same: returns whether two values are stored as the same bytes.
        """
        session = self.session
        values = {
            key: session[key] if key in session and same(session[key], value) else value for key, value in items.items()
        }
        for key in list(session):
            del session[key]
        session.update(values)

    def show_loaded_id(self) -> None:
        """Give a session that was not saved the id that it was loaded with."""
        if self.sid is not None:
            self.session.sid = self.sid  # type: ignore[attr-defined]

    def take_over(self, payload: Payload | None, *, here: bool) -> None:
        """Make what is stored what was loaded, in case that the session is saved again.

        :param payload: what is stored; None when the session has ended.
        :param here: it is stored under the session's id; otherwise another request has rotated or ended the session.
        """
        self.refreshed = self.ended = False
        self.keys, self.origin = self.keys.after_save(), Origin.STORED
        if payload is None:
            self.sid = self.snapshot = self.created_at = None
            return
        snapshot = self.snapshot or Snapshot({}, payload)
        self.snapshot = snapshot._replace(payload=payload, late=snapshot.late and not here)
        if here:
            self.sid = self._current_id()

    # The load

    def load(self, deferred: Deferred, *, cleared: bool = False) -> None:
        """Load the session, once; a second thread waits for the first.

        :param cleared: begin an empty session, without reading where the store allows that.
        :raises Exception: the error of the load, also when an earlier one has failed.
        """
        with self._lock:
            if self.is_loaded:
                return
            if self.phase is Phase.LOADING:
                raise RuntimeError("The session is used by the very code that loads it (a rule, a backend).")
            self.phase = Phase.LOADING
            try:
                self._load(deferred.lazy_headers, cleared=cleared)
            except Exception as error:
                if not self._goes_on_empty(error):
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
        """Set what was set before the load."""
        if self.is_saveable and self.mode in (Mode.NORMAL, Mode.NO_REFRESH) and not says_permanent(self.session, value):
            self.session.permanent = value

    def _load(self, headers: Headers | None, *, cleared: bool) -> None:
        owner = self.owner
        app = owner.app
        if owner.before_first_use is not None:
            _look_before_first_use(owner)
        is_traced = app.debug if owner.trace is None else owner.trace
        started = time.perf_counter() if is_traced else 0.0
        self._fill(app, headers, cleared=cleared)
        self.session.accessed = True
        if has_own_ways(type(self.session)):
            self.keys.note_read_all()
        if headers is not None and self.is_saveable:
            owner.late_uses.note_first_use(self, headers)
        if is_traced:
            self.took, self.used_by = (time.perf_counter() - started) * 1000, used_by(app)

    def _fill(self, app: Flask, headers: Headers | None, *, cleared: bool) -> None:
        if self.load_failure is not None:  # the store is not asked again by the same request
            if not self.is_handled:
                raise self.load_failure.again()
            self.mode, self.rule = _AFTER_FAILURE
            self.owner.handler.begin_empty(self, Origin.STORE_DOWN)
            return
        decision = self.decide(app)
        if self.is_early and self._takes_early(decision, cleared=cleared):
            self.take_early()
            return
        self.mode, self.rule = decision
        if (decision is not _OUTSIDE and headers is None) or has_app_context():
            self._fill_anew(app, cleared=cleared)
            return
        with app.app_context():
            self._fill_anew(app, cleared=cleared)

    def _fill_anew(self, app: Flask, *, cleared: bool) -> None:
        handler = self.owner.handler
        if self.mode is Mode.SKIP:
            handler.begin_empty(self, Origin.SKIPPED)
            return
        self.owner.follow_serializer()
        handler = self.owner.handler
        if not cleared:
            handler.load(app, self)
            return
        if self.mode is Mode.READONLY:
            raise SessionReadOnly(f"The session may not be cleared here: its mode is readonly ({self.rule}).")
        handler.start_over(app, self)

    def decide(self, app: Flask) -> Decision:
        """Return the mode of the request; from then on it stays: a later use may come without a request context."""
        if self.decision is None:
            is_outside = not is_current(self.request)  # in the test client's session_transaction
            self.decision = _OUTSIDE if is_outside else self.owner.rules.mode_of(app, self.request)
        return self.decision

    # A load before the view

    def load_early(self, app: Flask) -> None:
        """Load the session before the view, without using it; nothing for a skipped request.

        For interfaces that store through the app's ``db.session``: in the middle of a view, loading would flush the
        app's pending rows, report the app's own errors as the store's, and commit what the app then rolls back.
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

    def _takes_early(self, decision: Decision, *, cleared: bool) -> bool:
        if decision.mode is Mode.SKIP:
            return False
        return not cleared or not (self.owner.handler.clears_unread or decision.mode is Mode.READONLY)

    def take_early(self) -> None:
        """Use what was loaded before the view, in the mode of the first use.

        :raises Exception: the error of that load.
        """
        if self.early_failure is not None:
            raise self.early_failure.again()
        if self.origin is not Origin.STORE_DOWN and self.decision is not None:  # readonly then (ON_READ_ERROR "empty")
            self.mode, self.rule = self.decision

    # A failed load

    def _goes_on_empty(self, error: Exception) -> bool:
        """Remember why the session could not be loaded, and return whether an empty session takes its place already."""
        if isinstance(error, SessionReadOnly):  # clear() where the mode forbids it; reading may follow
            return False
        if self.load_failure is None:
            self.load_failure = Failure.of(error)
            if is_current(self.request):
                after_this_request(self._handled_by)
        if not self.is_handled and is_called_from(*_HOOKS):
            self.is_handled = True
        return self.is_handled

    def _handled_by(self, response: Response) -> Response:
        """Called by Flask before all functions for after_request, also before those that run in other threads."""
        self.is_handled = True
        return response

    def note_handled(self, error: object) -> None:
        """Note that Flask handles an exception of the request; the session then is empty if its load has failed."""
        self.is_handled = True
        for failure in (self.load_failure, self.save_failure):
            if failure is not None and failure.error is error:
                self.failure_was_handled = True

    # Changes

    def check_write(self, headers: Headers | None) -> None:
        """Refuse a change that the mode forbids, and log one that comes too late.

        :raises SessionReadOnly: where the mode forbids writes.
        """
        mode = self.mode
        if mode is Mode.READONLY or (mode is Mode.SKIP and self.owner.raises_on_skipped_write):
            raise SessionReadOnly(f"The session may not be changed here: its mode is {mode} ({self.rule}).")
        if headers is not None or self.phase is not Phase.LOADED:
            self.owner.late_uses.note_write(self)

    @property
    def is_failed(self) -> bool:
        """Whether saving has begun and not succeeded."""
        return self.phase in (Phase.SAVING, Phase.NOT_SAVED)


def says_permanent(session: SessionMixin, value: bool) -> bool:
    """Return whether a session has this value for ``permanent`` already: setting an equal value is no change."""
    return session.permanent == value and "_permanent" in session


def _look_before_first_use(owner: Owner) -> None:
    look = owner.before_first_use
    if look is not None:  # another thread may have been quicker
        look()
        owner.before_first_use = None  # after it: each use fails until the config is right


def is_current(request: Request) -> bool:
    """Return whether this is the request that Flask works on in this thread."""
    try:
        current = current_request._get_current_object()  # type: ignore[attr-defined]  # documented by Werkzeug
    except RuntimeError:
        return False
    return current is request


_KNOWN_PACKAGES = frozenset({"flask", "flask_session", "werkzeug", "collections", "builtins"})
_WAYS = frozenset(
    {
        *("__init__", "__new__", "__getattr__", "__getattribute__", "__getitem__", "__setitem__", "__delitem__"),
        *("__contains__", "__iter__", "__len__", "__bool__", "__eq__", "get", "pop", "popitem", "setdefault"),
        *("update", "clear", "keys", "values", "items", "copy"),
    }
)


@lru_cache(maxsize=16)
def has_own_ways(session_class: type[SessionMixin]) -> bool:
    """Return whether a session class of an app's own reads or changes its items in ways that only it knows.

    The keys that it reads are then not known one by one: all of them count as read.
    """
    return any(
        base.__module__.partition(".")[0] not in _KNOWN_PACKAGES and not _WAYS.isdisjoint(vars(base))
        for base in session_class.__mro__
    )
