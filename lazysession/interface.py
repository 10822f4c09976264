"""The two doors that Flask knocks on: ``open_session`` before it routes, ``save_session`` when the response is there.

The life of a request: :meth:`LazySessionInterface.open_session` answers a deferred session and does nothing else. If
it is not used, :meth:`~LazySessionInterface.save_session` only remembers the response's headers. The first use
comes back through :meth:`~LazySessionInterface.open_now`, which asks the rules for the mode and the handler for the
data. At the end :meth:`~LazySessionInterface.save_session` saves the session if it changed.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from flask import Flask, Request, Response, has_app_context
from flask.sessions import SessionInterface, SessionMixin

from .attributes import METHODS_OF_WRAPPED, SerializerWatch, with_attribute, without_attribute
from .cookies import forbid_storing, vary_by_cookie
from .early import load_before_view, take_early
from .errors import ConfigurationError, SessionReadOnly
from .failures import is_current
from .finishing import Finishing
from .logs import is_called_from, place_of
from .modes import Decision, Mode, RuleTable
from .recorder import origin, server_timing
from .serverside import ServerSide
from .session import LOADED_UNDER, DeferredSession, assign, behind_proxy, has_own_ways
from .signals import send, session_opened
from .skipping import Skipping
from .streams import LateUses, may_use_session_later
from .use import Opened

logger = logging.getLogger("lazysession")

_OUTSIDE = Decision(Mode.NORMAL, "outside of a request")
#: What is set on the lazy interface itself. If an app sets one of Flask's methods, Flask calls that one.
_OWN = frozenset(
    {
        *("open_session", "save_session", "is_null_session", "regenerate"),
        *("handler", "rules", "transient_keys", "raises_on_skipped_write", "trace"),
        *("_app", "_finishing", "_opens_otherwise", "_session_class", "_has_own_ways", "_late_uses", "_skipping"),
        *("_again", "_watch", "before_first_use"),
    }
)
_FIXED = ("app", "wrapped")


class SessionHandler(Protocol):
    """Opens sessions and settles what they owe, over a backend or over any other session interface."""

    wrapped: SessionInterface
    session_class: type[SessionMixin]
    #: Whether ``unavailable`` is worth asking in every request.
    may_be_unavailable: bool
    #: Whether it uses a database session of the app's, which must not be used to load in the middle of a view.
    loads_before_view: bool

    def unavailable(self, app: Flask) -> bool:
        """Tell, without I/O, that the wrapped interface would answer None for every request."""
        ...

    def new(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Return an empty session without asking the store."""
        ...

    def open(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Return the session of the request's cookie, or an empty one."""
        ...

    def start_over(self, app: Flask, request: Request, decision: Decision) -> Opened:
        """Return an empty session in the place of the one that the cookie names."""
        ...

    def open_nothing(self, app: Flask, request: Request) -> Opened:
        """Return an empty session of which nothing is saved."""
        ...

    def end(self, opened: Opened) -> None:
        """Note that an opened session was cleared: what is written after that begins a new one."""
        ...

    def close(self, app: Flask, opened: Opened, response: Response) -> None:
        """Bring store and response up to date with the session."""
        ...

    def rotate(self, session: SessionMixin) -> None:
        """Give the session a new id, which is stored before the old record goes."""
        ...


class LazySessionInterface(SessionInterface):
    """The session interface of an app whose sessions are opened at first use.

    :param app: the app that it serves.
    :param handler: loads and saves sessions.
    :param rules: the modes of requests.
    :param transient_keys: keys answered as absent while the session is not opened.
    :param raises_on_skipped_write: a write in mode ``skip`` raises instead of being dropped.
    :param trace: record who opened each session; None while the app is in debug mode.
    :param again: returns the session handler that follows an attribute of the wrapped interface, which the app has set.
    :param before_first_use: called at the first use of a session, and at each later one until it raises nothing.
    """

    handler: SessionHandler
    wrapped: SessionInterface

    def __init__(
        self,
        app: Flask,
        handler: SessionHandler,
        rules: RuleTable,
        *,
        transient_keys: frozenset[str] = frozenset(),
        raises_on_skipped_write: bool = False,
        trace: bool | None = None,
        again: Callable[[Flask, SessionHandler, str], SessionHandler],
        before_first_use: Callable[[], None] | None = None,
    ) -> None:
        self.__dict__["wrapped"] = handler.wrapped
        self._again = again
        self._finishing = Finishing()
        self._app = weakref.ref(app)  # the app has the interface; a circle would keep dropped apps until a collection
        self._use_handler(handler)
        self.rules = rules
        self.transient_keys = transient_keys
        self.raises_on_skipped_write = raises_on_skipped_write
        self.trace = trace
        self.before_first_use = before_first_use
        self._session_class: type[SessionMixin] | None = None
        self._has_own_ways = False
        self._late_uses = LateUses()
        self._skipping = Skipping(rules)
        for name in METHODS_OF_WRAPPED:
            self._answer(name)

    if not TYPE_CHECKING:

        @property
        def __class__(self) -> type:  # isinstance() asks here: apps and extensions look for Flask-Session's classes
            return getattr(self.wrapped, "stands_for", None) or type(self.wrapped)

    def __getattr__(self, name: str) -> Any:
        # what the wrapped interface offers beside Flask's own methods: client, serializer, key_prefix, ...
        if name == "wrapped":  # not there yet: copied or unpickled without __init__
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    if not TYPE_CHECKING:  # so that type checkers find misspelled names

        def __setattr__(self, name: str, value: Any) -> None:
            if name in _OWN:
                object.__setattr__(self, name, value)
            elif name in _FIXED:
                raise ConfigurationError(f"session_interface.{name} cannot be set: call LazySession(app) for each app.")
            else:
                self._set_on_wrapped(name, value)

        def __delattr__(self, name: str) -> None:
            if name in _OWN:
                object.__delattr__(self, name)
            else:
                self._use_handler(without_attribute(self.handler, name, partial(self._again, self.app)))
                self._answer(name)

    def _set_on_wrapped(self, name: str, value: Any) -> None:
        self._use_handler(with_attribute(self.handler, name, value, partial(self._again, self.app)))
        self._answer(name)

    def _use_handler(self, handler: SessionHandler) -> None:
        """Use a session handler from now on."""
        self.handler = handler
        self._opens_otherwise = handler.may_be_unavailable or handler.loads_before_view
        self._watch = SerializerWatch(handler.wrapped)
        if "serializer" in vars(handler.wrapped):  # so that unittest.mock sets it again, and does not delete it
            self.__dict__["serializer"] = self._watch.serializer

    def _answer(self, name: str) -> None:
        """Take over what Flask asks of the wrapped interface, as far as there is such a method."""
        if name in METHODS_OF_WRAPPED and hasattr(self.wrapped, name):  # get_cookie_partitioned came with Flask 3.1
            self.__dict__[name] = getattr(self.wrapped, name)

    @property
    def app(self) -> Flask:
        """The app that the interface serves."""
        app = self._app()
        assert app is not None, "the app is gone"  # noqa: S101 - whoever asks holds a request of it
        return app

    @property
    def session_class(self) -> type[SessionMixin]:
        """The class of the sessions that are opened, as far as it is known before one is."""
        return self.handler.session_class

    @property
    def serializer(self) -> Any:
        """The serializer of the wrapped interface; any, as Flask-Session has no annotations.

        Setting it is Flask-Session's documented way to another format, encryption or compression: from then on every
        session is stored by it.

        :raises ConfigurationError: at the assignment, when it cannot be used. The one before stays.
        """
        return self.wrapped.serializer  # type: ignore[attr-defined]

    # Flask's doors

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        """Return a deferred session at once; never raises and does no I/O."""
        return self._open_otherwise(app, request) if self._opens_otherwise else DeferredSession(self, request)

    def _open_otherwise(self, app: Flask, request: Request) -> SessionMixin | None:
        if self.handler.may_be_unavailable and self.handler.unavailable(app):
            return None
        if self.handler.loads_before_view:
            return load_before_view(self, self.handler, self.rules, app, request)
        return DeferredSession(self, request)

    def is_null_session(self, obj: object) -> bool:
        """Return False for every deferred session: Flask passes each response to :meth:`save_session`."""
        if type(obj) is DeferredSession:
            return False
        current = behind_proxy(obj)
        return type(current) is not DeferredSession and self.wrapped.is_null_session(current)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Settle what an opened session owes, once; sessions that someone else made go to the wrapped interface."""
        if type(session) is not DeferredSession:
            self._save_other(app, session, response)
        elif LOADED_UNDER not in session.__dict__ or not self._finish_used(app, session, response):
            # The headers alone: a response may refer to the session, and the request would wait for the collector.
            session.__dict__["lazy_passed"] = response.headers
            if type(response.response) is not list and may_use_session_later(response):  # nearly all are lists
                self._vary_stream(app, session, response)

    def _save_other(self, app: Flask, session: SessionMixin, response: Response) -> None:
        current = behind_proxy(session)
        if current is session:
            self.wrapped.save_session(app, session, response)
        else:
            self.save_session(app, current, response)

    def _finish_used(self, app: Flask, session: DeferredSession, response: Response) -> bool:
        """Save a session, and return whether there is one: a first use that its mode forbids loads nothing."""
        opened = session.lazy_opened
        if session.lazy_failure is not None:
            self._finishing.after_failed_load(app, session, response)
        elif opened is None:
            return False
        else:
            self._finish_loaded(app, session, opened, response)
        return True

    def _finish_loaded(self, app: Flask, session: DeferredSession, opened: Opened, response: Response) -> None:
        if session.lazy_origin:
            how = f"in {session.lazy_took:.1f} ms {opened.mode}"
            response.headers.add("Server-Timing", server_timing(session.lazy_origin, how))
        if opened.mode is Mode.SKIP:
            self._skipping.finish(session.lazy_request, opened, response, self.get_cookie_name(app))
            return
        vary_by_cookie(response)
        if opened.missing:
            forbid_storing(response)
        self._finishing.save(self.handler, app, session, opened, response)

    def regenerate(self, session: SessionMixin) -> None:
        """Give the session a new id, as Flask-Session's method of this name; an empty session gets one too.

        The new id is stored at the end of the request, before the old record is deleted.

        :raises SessionReadOnly: where the mode forbids writes.
        """
        session = behind_proxy(session)
        if type(session) is not DeferredSession:
            self.handler.rotate(session)
            return
        opened = session.lazy_opened or session.lazy_open()
        changed = session.lazy_write()
        if opened.saves:
            self.handler.rotate(changed)

    def _vary_stream(self, app: Flask, session: DeferredSession, response: Response) -> None:
        """Add ``Vary: Cookie``, as the body may use the session when it is too late for headers."""
        decision = self.rules.mode_of(app, session.lazy_request)
        session.__dict__["lazy_decision"] = decision  # for that use, which may come without a request context
        if decision.mode is not Mode.SKIP:
            vary_by_cookie(response)
            if isinstance(session.lazy_early, Opened):  # refreshed now: in the body, the database session is gone
                opened = take_early(session.lazy_early, decision)
                self._finishing.save(self.handler, app, session, opened, response)

    # The first use

    def open_now(self, session: DeferredSession, *, cleared: bool) -> Opened:
        """Decide the mode of the request and open its session; called once for each session, under its lock."""
        app = self.app
        if self.before_first_use is not None:
            self._look_before_first_use()
        traced = app.debug if self.trace is None else self.trace
        started = time.perf_counter() if traced else 0.0
        opened = self._open(app, session, cleared=cleared)
        opened.session.accessed = True
        session_class = type(opened.session)
        if session_class is not self._session_class:  # an app may set another one at any time
            self._session_class, self._has_own_ways = session_class, has_own_ways(session_class)
        if self._has_own_ways:
            opened.keys.note_read_all()
        if session.lazy_passed is not None and not opened.missing:
            self._late_uses.note(session.lazy_request, session.lazy_passed)
        if traced:
            assign(session, "lazy_took", (time.perf_counter() - started) * 1000)
            assign(session, "lazy_origin", origin(app))
        return opened

    def _look_before_first_use(self) -> None:
        look = self.before_first_use
        if look is not None:  # another thread may have been quicker
            look()
            self.before_first_use = None  # after it: each use fails until the config is right

    def end_now(self, opened: Opened) -> None:
        """Let the session end that was opened, and cleared."""
        self.handler.end(opened)

    def tell_opened(self, session: DeferredSession, opened: Opened) -> None:
        """Send the signal; the session may be used by whoever hears it."""
        if session_opened.receivers:
            added = {"origin": session.lazy_origin}
            send(session_opened, self.app, added=added, session=session, mode=opened.mode, rule=opened.rule)

    def _open(self, app: Flask, session: DeferredSession, *, cleared: bool) -> Opened:
        request = session.lazy_request
        if session.lazy_failure is not None:  # the store is not asked again by the same request
            if not session.lazy_handled:
                raise session.lazy_failure.again()
            return self.handler.open_nothing(app, request)
        decision = session.lazy_decision or self._mode_of(app, session)
        if session.lazy_early is not None and decision.mode is not Mode.SKIP:
            if not cleared:
                return take_early(session.lazy_early, decision)
            if not isinstance(self.handler, ServerSide) and decision.mode is not Mode.READONLY:
                return take_early(session.lazy_early, decision)  # it would load to start over
        if (decision is not _OUTSIDE and session.lazy_passed is None) or has_app_context():
            return self._open_in(decision, app, request, cleared=cleared)
        with app.app_context():
            return self._open_in(decision, app, request, cleared=cleared)

    def _open_in(self, decision: Decision, app: Flask, request: Request, *, cleared: bool) -> Opened:
        if decision.mode is Mode.SKIP:
            opened = self.handler.new(app, request, decision)
            opened.missing = True
            return opened
        watch = self._watch  # spelled out, as each request that uses its session comes here
        if watch.attributes != watch.seen or watch.interface.get("serializer") is not watch.serializer:
            self._set_on_wrapped("serializer", self.serializer)
        handler = self.handler
        if not cleared:
            return handler.open(app, request, decision)
        if decision.mode is Mode.READONLY:
            raise SessionReadOnly(f"The session may not be cleared here: its mode is readonly ({decision.reason}).")
        return handler.start_over(app, request, decision)

    def _mode_of(self, app: Flask, session: DeferredSession) -> Decision:
        request = session.lazy_request
        if not is_current(request):
            return _OUTSIDE  # the test client's session_transaction
        return self.rules.mode_of(app, request)

    # What nobody may miss

    def note_late_write(self, session: DeferredSession) -> None:
        """Log a write that comes after the session was saved: it is lost, and Flask does not say so."""
        if not session.lazy_failed and is_called_from("dispatch_request"):
            return  # the view has called save_session by hand; Flask will save the session
        logger.warning(
            "The session is changed after the response of %s was made; the change is lost.",
            place_of(session.lazy_request),
        )
