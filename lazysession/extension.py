"""``LazySession(app)``: from the settings to the rules, the backend and the session interface of an app."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import click
from flask import Flask, has_request_context
from flask.cli import ScriptInfo
from flask.sessions import SecureCookieSessionInterface, SessionInterface

from . import flasksession, registry
from .attributes import is_made_by_flask_session
from .backend import (
    Adapter,
    Backend,
    BringsCodec,
    DeclaresTables,
    PayloadCodec,
    SupportsPrepare,
    SupportsPurge,
    explanation,
)
from .cli import lazysession_commands
from .dbsession import uses_db_session
from .errors import ConfigurationError
from .flasklogin import follow_flask_login
from .following import follow, with_serializer
from .handling import follow_error_handling
from .ids import signs_ids
from .interface import LazySessionInterface
from .jsonable import encode_sessions
from .modes import RuleTable
from .pages import Page, see
from .patterns import compile_rules, log_unmatched, warn_of_doubtful
from .serverside import ServerSide
from .settings import Settings, items_of
from .signedcookie import SignedCookie, is_signed_cookie
from .startup import names
from .startup.clients import refuse_unusable
from .startup.values import refuse_wrong_flask_settings, refuse_wrong_key, refuse_wrong_session_settings
from .use import Handler
from .wrapped import Wrapped

logger = logging.getLogger("lazysession")


class LazySession:
    """Makes the sessions of Flask apps lazy.

    With ``SESSION_TYPE``, it builds the session interface as Flask-Session's ``Session(app)`` does. After
    ``Session(app)``, it uses the client and table of that interface. Without ``SESSION_TYPE``, it wraps the interface
    that the app has. One object serves any number of apps.

    :param app: the app to set up at once; None to call :meth:`init_app` later.
    :raises ConfigurationError: as :meth:`init_app`.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Check the settings of an app and give it its lazy session interface.

        :raises ConfigurationError: for a setting that cannot work, a missing client library, or an app that is set up
            already. The app is then as it was.
        """
        if isinstance(app.session_interface, LazySessionInterface):
            raise ConfigurationError(
                f"LazySession is set up on the app {app.name!r} already: call LazySession(app) or init_app(app) once. "
                f"{see(Page.SESSION_TWICE)}"
            )
        refuse_wrong_flask_settings(app)
        settings = Settings.from_config(app.config, app.permanent_session_lifetime.total_seconds())
        rules = compile_rules(settings.rules, settings.skip_paths)
        warn_of_doubtful(rules)
        interface = LazySessionInterface(
            app,
            _make_handler(app, settings),
            RuleTable(rules, skip_static=settings.skip_static, before_first=partial(log_unmatched, rules)),
            settings,
            follow=partial(follow, again=partial(_handler_again, settings=settings)),
            before_first_use=names.SettingsRead(app.config, flasksession.session_type_of(app.config)).refuse_changes,
        )
        app.session_interface = interface
        app.extensions["lazysession"] = self
        follow_error_handling(app)
        encode_sessions(app)
        app.cli.add_command(lazysession_commands)
        follow_flask_login(app, rotate=settings.rotate_on_login)


def _make_handler(app: Flask, settings: Settings) -> Handler:
    present = app.session_interface
    session_type = flasksession.session_type_of(app.config)
    refuse_unusable(
        f"SESSION_{session_type.upper()}", app.config.get(f"SESSION_{session_type.upper()}"), app.extensions
    )
    if flasksession.is_server_side(present):
        _look_at_names(app, None)
        refuse_wrong_session_settings(app.config, "null")
        if signs_ids(present):
            _look_at_key(app)
        return _handler_over_present(app, present, settings)
    if session_type == "null":
        if type(present) is SecureCookieSessionInterface and not app.config.get("SESSION_TYPE"):
            _look_at_names(app, "null")  # first: SESSION_TYPE itself may be misspelled
            names.refuse_store_without_type(app.config)
        if isinstance(present, SecureCookieSessionInterface):
            refuse_wrong_key(app.config)
        return _wrapped(present, settings)
    _look_at_names(app, session_type)
    refuse_wrong_session_settings(app.config, session_type)
    if app.config.get("SESSION_USE_SIGNER"):
        _look_at_key(app)
    return _handler_of_type(app, session_type, settings)


def _wrapped(interface: SessionInterface, settings: Settings) -> Wrapped:
    if is_signed_cookie(interface) and not uses_db_session(interface):
        return SignedCookie(interface, settings.refresh_throttle)
    return Wrapped(interface, loads_before_view=uses_db_session(interface))


def _look_at_key(app: Flask) -> None:
    """Check the key that signs session ids. A factory may set it later: until then, no session can be saved."""
    refuse_wrong_key(app.config)
    if not app.secret_key:
        logger.warning(
            "SESSION_USE_SIGNER is on, and SECRET_KEY is not set: set it before the first request. %s",
            see(Page.NO_SECRET_KEY),
        )


def _look_at_names(app: Flask, session_type: str | None) -> None:
    """Refuse misspelled settings, and log those that nothing reads."""
    names.refuse_misread_names(app.config, app.default_config, session_type)
    for sentence in names.unread(app.config, session_type):
        logger.warning("%s", sentence)
    own = names.unknown(app.config, session_type)
    if own:
        logger.info("Settings that LazySession does not read: %s.", ", ".join(own))


def _handler_again(app: Flask, interface: SessionInterface, *, settings: Settings) -> Handler:
    """Make the session handler of an interface again, after something was set on it."""
    return (
        _handler_over_present(app, interface, settings)
        if flasksession.is_server_side(interface)
        else _wrapped(interface, settings)
    )


def _handler_over_present(app: Flask, interface: SessionInterface, settings: Settings) -> Handler:
    """Return the handler over what Flask-Session built: with our adapter, or else with the interface's own methods."""
    if not flasksession.serves_requests_as_usual(interface):
        return _wrapped(interface, settings)
    backend = _from_interface(app, _adapter_of(interface), interface)
    if backend is not None:
        return _over_backend(app, interface, backend, settings)
    flasksession.read_safely(interface, allow_pickle=settings.allow_pickle)
    backend = _from_interface(app, registry.find(registry.GENERIC), interface)
    if backend is None:  # a fork of this package without the generic adapter
        return _wrapped(interface, settings)
    handler = _over_backend(app, interface, backend, settings)
    handler.loads_before_view = uses_db_session(interface)
    return handler


def _adapter_of(interface: SessionInterface) -> type[Adapter] | None:
    """Return the adapter of an interface's store; None for an interface that stores in a way of its own."""
    adapter = registry.find_for_interface(interface)
    own = (
        adapter is not None
        and adapter.interface_class is not None
        and flasksession.stores_as(interface, adapter.interface_class)
    )
    return adapter if own else None


def _from_interface(app: Flask, adapter: type[Adapter] | None, interface: SessionInterface) -> Backend | None:
    if adapter is None:
        return None
    try:
        with app.app_context():
            backend = adapter.from_interface(interface)
    except ValueError as error:
        raise ConfigurationError(f"The {type(interface).__name__} of this app cannot be used: {error}") from error
    if backend is not None:
        registry.check_backend(backend, adapter, "from_interface")
    return backend


def _handler_of_type(app: Flask, session_type: str, settings: Settings) -> Handler:
    adapter = registry.find(session_type) if session_type != registry.GENERIC else None
    backend = None if adapter is None else _from_setting(app, adapter, session_type)
    if adapter is None or backend is None:
        return _handler_over_present(app, flasksession.build(app, session_type), settings)
    codec = _codec_of(app, backend, settings)
    session_class = flasksession.session_class_of(adapter.interface_class)
    interface = flasksession.StoreInterface(app, backend, codec, session_class)
    interface.stands_for = flasksession.interface_class_of(adapter.interface_class)
    return _over_backend(app, interface, backend, settings)


def _store_settings(app: Flask, session_type: str) -> tuple[Any, dict[str, Any]]:
    """Return the value of ``SESSION_<TYPE>``, and each ``SESSION_<TYPE>_<NAME>`` by its name; any, as users set it."""
    name = f"SESSION_{session_type.upper()}"
    prefix = f"{name}_"
    options = {key.removeprefix(prefix).lower(): each for key, each in items_of(app.config) if key.startswith(prefix)}
    return app.config.get(name), options


def _from_setting(app: Flask, adapter: type[Adapter], session_type: str) -> Backend | None:
    """Return the backend that an adapter makes of its settings; None where Flask-Session builds its interface."""
    value, options = _store_settings(app, session_type)
    registry.check_options(adapter, session_type, options)
    try:
        with app.app_context():
            backend = adapter.from_setting(value, **options)
    except ImportError as error:
        raise registry.missing_client(session_type, error) from error
    except ValueError as error:
        raise ConfigurationError(f"SESSION_{session_type.upper()} cannot be used: {error}") from error
    if backend is not None:
        registry.check_backend(backend, adapter, "from_setting")
    elif adapter.interface_class is None:
        raise ConfigurationError(f"SESSION_{session_type.upper()} is not set: SESSION_TYPE {session_type!r} needs it.")
    return backend


#: Commands of Flask-Migrate that change the database as its migrations say.
_MIGRATING = ("upgrade", "downgrade", "stamp")


def _prepare(app: Flask, interface: SessionInterface, backend: Backend) -> bool:
    """Create what the store needs, such as a table, and return False if the store is down.

    This is logged, and the store is prepared at the first use. Nothing is created for ``flask db upgrade``: a migration
    may be about to create the table itself.
    """
    if not isinstance(backend, SupportsPrepare) or _applies_migrations():
        return True
    session_type = flasksession.session_type_of(app.config)
    name = type(interface).__name__ if session_type == "null" else f"SESSION_{session_type.upper()}"
    try:
        backend.prepare()
    except ValueError as error:
        raise ConfigurationError(f"{name} cannot be used: {error}") from error
    except (AttributeError, ImportError, NameError, TypeError):  # faults of the program, not of the store
        raise
    except Exception as error:  # whatever the client raises
        logger.warning(
            "The store of %s does not answer: %s. The app starts; requests that use the session fail until it does. %s",
            name,
            explanation(backend, error),
            see(Page.STORE_UNREACHABLE),
        )
        return False
    return True


def _applies_migrations() -> bool:
    """Return whether the app is loaded for a command of Flask-Migrate that changes the database."""
    context = click.get_current_context(silent=True)  # there is one for Celery's worker as well, for example
    return context is not None and context.find_object(ScriptInfo) is not None and context.info_name in _MIGRATING


def _over_backend(app: Flask, interface: SessionInterface, backend: Backend, settings: Settings) -> ServerSide:
    is_up = _prepare(app, interface, backend)
    if isinstance(backend, SupportsPurge) and not _has_own_clean_up(interface):
        # Flask-Session's clean-up commits the app's own database session; this one has a connection of its own.
        interface._delete_expired_sessions = _CleanUp(backend)  # type: ignore[attr-defined]
    if is_up and isinstance(backend, DeclaresTables) and "sqlalchemy" in app.extensions:  # it connects as well
        with app.app_context():
            backend.declare_tables(app.extensions["sqlalchemy"])
    if settings.allow_pickle:
        logger.warning("LAZYSESSION_ALLOW_PICKLE is on: anyone who can write to the session store can run code here.")
    codec = _codec_of(app, backend, settings)
    serializer: Any = getattr(interface, "serializer", None)  # Flask-Session has no annotations
    if is_made_by_flask_session(serializer) and not isinstance(backend, BringsCodec):
        codec = flasksession.codec_of(serializer, allow_pickle=settings.allow_pickle)
    handler = ServerSide(interface, backend, codec, settings)
    if not flasksession.is_own(serializer):
        return handler
    try:
        return with_serializer(handler)
    except ValueError as error:
        raise ConfigurationError(f"The {type(interface).__name__} of this app cannot be used: {error}") from error


def _codec_of(app: Flask, backend: Backend, settings: Settings) -> PayloadCodec:
    if isinstance(backend, BringsCodec):
        return backend.codec
    return flasksession.make_codec(app, allow_pickle=settings.allow_pickle)


def _has_own_clean_up(interface: SessionInterface) -> bool:
    clean_up = vars(interface).get("_delete_expired_sessions")
    return clean_up is not None and not isinstance(clean_up, _CleanUp)


class _CleanUp:
    """The clean-up that Flask-Session runs by a command, and in some requests."""

    def __init__(self, backend: SupportsPurge) -> None:
        self._backend = backend

    def __call__(self) -> None:
        try:
            self._backend.purge()
        except Exception as error:  # whatever the client raises
            if not has_request_context():
                raise
            logger.warning("Expired sessions were not removed: %s", type(error).__name__)
