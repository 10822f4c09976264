"""The session interface that Flask calls: ``open_session`` before routing, ``save_session`` for the response.

In each request, :meth:`LazySessionInterface.open_session` returns a deferred session and does nothing else. Its first
use loads the session (:class:`lazysession.use.SessionUse`). At the end,
:meth:`~LazySessionInterface.save_session` saves the session if it changed; if it was not used, that method only
remembers the headers of the response.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, has_app_context
from flask.sessions import NullSession, SessionInterface, SessionMixin

from .attributes import METHODS_OF_WRAPPED, SerializerWatch, with_attribute, without_attribute
from .errors import ConfigurationError
from .finishing import Finishing
from .modes import RuleTable
from .session import DeferredSession, behind_proxy
from .settings import Settings
from .streams import LateUses, announce_use, may_use_session_later
from .use import Handler, LateUseLog
from .wrapped import NoSecretKey

#: The attributes of this interface itself; all others are set on the wrapped interface.
_OWN = frozenset(
    {
        *("open_session", "save_session", "is_null_session", "regenerate"),
        *("handler", "rules", "transient_keys", "raises_on_skipped_write", "trace"),
        *("_app", "_finishing", "_opens_eagerly", "late_uses"),
        *("_follow", "_watch", "before_first_use"),
    }
)
_FIXED = ("app", "wrapped")


class LazySessionInterface(SessionInterface):
    """The session interface of an app whose sessions are loaded at first use.

    :param app: the app that it serves.
    :param handler: loads and saves sessions.
    :param rules: the modes of requests.
    :param follow: returns the session handler that follows an attribute of the wrapped interface, which was just set.
    :param before_first_use: called at the first use of a session, and again at each later one until it succeeds.
    """

    handler: Handler
    wrapped: SessionInterface
    before_first_use: Callable[[], None] | None
    late_uses: LateUseLog

    def __init__(
        self,
        app: Flask,
        handler: Handler,
        rules: RuleTable,
        settings: Settings,
        *,
        follow: Callable[[Flask, Handler, str], Handler],
        before_first_use: Callable[[], None] | None = None,
    ) -> None:
        self.__dict__["wrapped"] = handler.wrapped
        self._follow = follow
        self._finishing = Finishing()
        self._app = weakref.ref(app)  # weak, as the app refers to the interface: a dropped app is freed at once
        self._use_handler(handler)
        self.rules = rules
        self.transient_keys = settings.transient_keys
        self.raises_on_skipped_write = settings.skipped_write == "raise"
        self.trace = settings.trace
        self.before_first_use = before_first_use
        self.late_uses = LateUses()
        for name in METHODS_OF_WRAPPED:
            self._pass_on(name)

    if not TYPE_CHECKING:

        @property
        def __class__(self) -> type:  # for isinstance(): apps and extensions look for Flask-Session's classes
            return getattr(self.wrapped, "stands_for", None) or type(self.wrapped)

    def __getattr__(self, name: str) -> Any:
        # what the wrapped interface has besides Flask's own methods: client, serializer, key_prefix, ...
        if name == "wrapped":  # not set yet: copied or unpickled without __init__
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
                self._use_handler(without_attribute(self.handler, name, partial(self._follow, self.app)))
                self._pass_on(name)

    def _set_on_wrapped(self, name: str, value: Any) -> None:
        self._use_handler(with_attribute(self.handler, name, value, partial(self._follow, self.app)))
        self._pass_on(name)

    def _use_handler(self, handler: Handler) -> None:
        """Use a session handler from now on."""
        self.handler = handler
        self._opens_eagerly = handler.may_be_unavailable or handler.loads_before_view
        self._watch = SerializerWatch(handler.wrapped)
        if "serializer" in vars(handler.wrapped):  # so that unittest.mock restores it by setting, not deleting, it
            self.__dict__["serializer"] = self._watch.serializer

    def _pass_on(self, name: str) -> None:
        """Make Flask call this method of the wrapped interface, if that has it."""
        if name in METHODS_OF_WRAPPED and hasattr(self.wrapped, name):  # get_cookie_partitioned came with Flask 3.1
            self.__dict__[name] = getattr(self.wrapped, name)

    @property
    def app(self) -> Flask:
        """The app that the interface serves."""
        app = self._app()
        assert app is not None, "the app is gone"  # noqa: S101 - the caller holds a request of it
        return app

    @property
    def session_class(self) -> type[SessionMixin]:
        """The class of loaded sessions; a guess if the handler learns it from the first load."""
        return self.handler.session_class

    @property
    def serializer(self) -> Any:
        """The serializer of the wrapped interface.

        Setting it is Flask-Session's documented way to change the format, or to encrypt or compress: it then encodes
        and decodes every session.

        :raises ConfigurationError: at the assignment, when it cannot be used. The old one is kept.
        """
        return self.wrapped.serializer  # type: ignore[attr-defined]

    # What Flask calls

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        """Return a deferred session at once; never raises and does no I/O."""
        return self._open_eagerly(app, request) if self._opens_eagerly else DeferredSession(self, request)

    def _open_eagerly(self, app: Flask, request: Request) -> SessionMixin | None:
        if self.handler.may_be_unavailable and self.handler.unavailable(app):
            return None
        session = DeferredSession(self, request)
        if self.handler.loads_before_view:
            with nullcontext() if has_app_context() else app.app_context():
                session.lazy_begin().load_early(app)
        return session

    def make_null_session(self, app: Flask) -> NullSession:
        """Return the session of a request for which there is none; Flask's own with an error that names the docs."""
        null = self.wrapped.make_null_session(app)
        return NoSecretKey(self.before_first_use) if type(null) is NullSession else null

    def is_null_session(self, obj: object) -> bool:
        """Return False for every deferred session: Flask passes each response to :meth:`save_session`."""
        if type(obj) is DeferredSession:
            return False
        current = behind_proxy(obj)
        return type(current) is not DeferredSession and self.wrapped.is_null_session(current)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save a session if it was used and changed; the wrapped interface saves one that is not deferred."""
        if type(session) is not DeferredSession:
            self._save_other(app, session, response)
        elif session.lazy_use is None or not self._finishing.finish(app, session.lazy_use, response):
            # Not the response: it may refer to the session, and such a cycle is freed only by the garbage collector.
            session.__dict__["lazy_headers"] = response.headers
            if type(response.response) is not list and may_use_session_later(response):  # fast: nearly all are lists
                self._finish_stream(app, session, response)

    def _save_other(self, app: Flask, session: SessionMixin, response: Response) -> None:
        current = behind_proxy(session)
        if current is session:
            self.wrapped.save_session(app, session, response)
        else:
            self.save_session(app, current, response)

    def _finish_stream(self, app: Flask, session: DeferredSession, response: Response) -> None:
        use = session.lazy_begin()
        if announce_use(app, use, response) and use.is_early and use.early_failure is None:
            use.use_early_load()  # saved now, as the database session is closed when the body runs
            self._finishing.save(app, use, response)

    def regenerate(self, session: SessionMixin) -> None:
        """Give the session a new id, even if it is empty; as Flask-Session's method of this name.

        At the end of the request, the session is stored under the new id, and then a forwarding record replaces the old
        one for ten seconds.

        :raises SessionReadOnly: where the mode forbids writes.
        """
        session = behind_proxy(session)
        if type(session) is not DeferredSession:
            self.handler.rotate(session)
            return
        session.lazy_load()
        use = session.lazy_write()
        if use.is_saveable:
            self.handler.rotate(use.session)

    # What a use calls

    def follow_serializer(self) -> None:
        """Use the serializer as the app has set or changed it since the last load."""
        watch = self._watch
        if watch.attributes != watch.seen or watch.interface.get("serializer") is not watch.serializer:
            self._set_on_wrapped("serializer", self.serializer)
