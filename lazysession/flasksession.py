"""Everything that is known of Flask-Session: how it builds, which subclasses it has, what can take its place."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import timedelta
from difflib import get_close_matches
from importlib import import_module
from inspect import signature
from typing import Any

from flask import Flask
from flask.sessions import SessionInterface
from flask_session import Session
from flask_session.base import ServerSideSession, ServerSideSessionInterface
from flask_session.defaults import Defaults

from .backend import Backend, Outcome, PayloadCodec, SupportsPurge, Undecodable
from .codec import DECODER_OPTIONS, ENCODER_OPTIONS, Codec
from .errors import ConfigurationError
from .pages import Page, see
from .registry import missing_client, names
from .startup.values import shown

#: An interface with its own version of one of these loads and saves by itself: LazySession wraps it as a whole.
_REQUEST_METHODS = (
    "open_session",
    "save_session",
    "should_set_storage",
    "should_set_cookie",
    "regenerate",
    "_sign",
    "_unsign",
    "_get_signer",
)
#: One with its own version of one of these stores in its own format (encrypted, for example), by these methods.
_STORAGE_METHODS = ("_retrieve_session_data", "_upsert_session", "_delete_session")


def is_server_side(interface: SessionInterface) -> bool:
    """Return whether the interface is one of Flask-Session's, or derived from one."""
    return isinstance(interface, ServerSideSessionInterface)


def serves_requests_as_usual(interface: SessionInterface) -> bool:
    """Return whether an interface of Flask-Session's loads and saves sessions as its base class does."""
    return not _has_own(interface, ServerSideSessionInterface, _REQUEST_METHODS)


def stores_as(interface: SessionInterface, reference: str) -> bool:
    """Return whether an interface stores as Flask-Session's class ``module:name`` does.

    False for a subclass with storage methods of its own: only it can read what it stores.
    """
    return not _has_own(interface, load(reference), _STORAGE_METHODS)


def is_own(serializer: object) -> bool:
    """Return whether a serializer is the app's own: anything but one of Flask-Session's over msgspec, or none.

    A module or a class is the app's own, too, whatever class it is an instance of.
    """
    if serializer is None:
        return False
    changed = not {"encode", "decode", "dumps", "loads"}.isdisjoint(getattr(serializer, "__dict__", ()))
    usual = type(serializer).__module__.partition(".")[0] in ("flask_session", "lazysession")
    return changed or not usual or not all(map(_is_msgspec, _coders(serializer)))


def has_options(serializer: object) -> bool:
    """Return whether the encoder or decoder of a serializer has options that Flask-Session does not give it."""
    for coder in _coders(serializer):
        usual = type(coder)()
        options = ("enc_hook", *ENCODER_OPTIONS, *DECODER_OPTIONS)
        if any(getattr(coder, option, None) != getattr(usual, option, None) for option in options):
            return True
    return False


def codec_of(serializer: object, *, allow_pickle: bool) -> Codec:
    """Return a codec that stores what one of Flask-Session's serializers stores, with the same options."""
    if isinstance(serializer, _SafeSerializer):
        return serializer.codec
    encoder, decoder = _coders(serializer) if has_options(serializer) else (None, None)
    return Codec(format_of(serializer), allow_pickle=allow_pickle, encoder=encoder, decoder=decoder)


def _coders(serializer: object) -> list[Any]:
    coders = (getattr(serializer, name, None) for name in ("encoder", "decoder"))
    return [coder for coder in coders if coder is not None]


def _is_msgspec(coder: object) -> bool:
    return type(coder).__module__.partition(".")[0] == "msgspec"


def format_of(serializer: object) -> str:
    """Return the format of one of Flask-Session's serializers: ``"msgpack"`` or ``"json"``."""
    return "json" if "json" in type(getattr(serializer, "encoder", None)).__module__ else "msgpack"


def _has_own(interface: SessionInterface, base: Any, methods: tuple[str, ...]) -> bool:
    """Return whether the interface, or its class below ``base``, brings its own version of a method."""
    return any(
        name in vars(interface) or getattr(type(interface), name, None) is not getattr(base, name, None)
        for name in methods
    )


def load(reference: str) -> Any:
    """Import what a reference ``module:name`` names; any, as it names things of any kind."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def build(app: Flask, session_type: str) -> SessionInterface:
    """Make Flask-Session build its interface for SESSION_TYPE; the app keeps the interface that it has.

    :raises ConfigurationError: for an unknown SESSION_TYPE, or one whose client library is missing, and when the
        directory for the files cannot be made.
    """
    before = app.session_interface
    try:
        with _table_only_declared() if session_type == "sqlalchemy" else nullcontext():
            Session(app)
        return app.session_interface
    except OSError as error:
        if session_type not in ("filesystem", "cachelib"):
            raise
        name = "SESSION_FILE_DIR" if session_type == "filesystem" else "SESSION_CACHELIB"
        raise ConfigurationError(f"{name}: the directory of the sessions cannot be made ({error.strerror}).") from error
    except ImportError as error:
        raise missing_client(session_type, error) from error
    except ValueError as error:
        if session_type in KNOWN_TYPES:
            raise ConfigurationError(f"Flask-Session cannot set up SESSION_TYPE {session_type!r}: {error}") from error
        known = ", ".join(sorted({*KNOWN_TYPES, *names()}))
        raise ConfigurationError(
            f"SESSION_TYPE is {session_type!r}; known are {known}.{_hint(session_type)} {see(Page.WRONG_SESSION_TYPE)}"
        ) from error
    finally:
        app.session_interface = before


def _do_nothing(*_: object, **__: object) -> None:
    """Replace a method that would connect to the database."""


@contextmanager
def _table_only_declared() -> Generator[None]:
    """Make Flask-Session's SQL interface declare its table and not create it, which would need the database.

    Our adapter creates the table. Flask-Session declares it among the app's models, for migrations.
    """
    with ExitStack() as after:
        try:
            module: Any = import_module("flask_session.sqlalchemy.sqlalchemy")
        except ImportError:  # no Flask-SQLAlchemy
            yield
            return
        declare = getattr(module, "create_session_model", None)
        if declare is None:  # another version creates its table in another way
            yield
            return

        def declare_only(*args: Any, **options: Any) -> Any:
            table = (model := declare(*args, **options)).__table__
            table.create = _do_nothing
            after.callback(delattr, table, "create")
            return model

        module.create_session_model = declare_only
        after.callback(setattr, module, "create_session_model", declare)
        yield


#: Other names of stores, and the SESSION_TYPE of each.
_OTHER_NAMES = {
    "valkey": "redis",
    "postgres": "sqlalchemy",
    "postgresql": "sqlalchemy",
    "mysql": "sqlalchemy",
    "mariadb": "sqlalchemy",
    "sqlite": "sqlalchemy",
    "sql": "sqlalchemy",
    "mongo": "mongodb",
    "memcache": "memcached",
    "dynamo": "dynamodb",
    "file": "filesystem",
    "files": "filesystem",
    "fs": "filesystem",
    "disk": "filesystem",
    "memory": "cachelib",
    "simple": "cachelib",
    **dict.fromkeys(("cookie", "cookies", "securecookie", "secure_cookie", "signed", "none", "default"), "null"),
}


def session_type_of(config: Mapping[str, Any]) -> str:
    """Return SESSION_TYPE in lower case, ``"null"`` where it is not set.

    :raises ConfigurationError: if it is not text, or if it is a URL, which the message does not repeat.
    """
    value = config.get("SESSION_TYPE") or "null"
    if not isinstance(value, str):
        raise ConfigurationError(
            f"SESSION_TYPE is {shown(value)}; allowed is text, such as 'redis' or 'null'. "
            f"{see(Page.WRONG_SESSION_TYPE)}"
        )
    if "://" in value:
        scheme = re.split(r"\W", value.strip("\"' ").lower())[0]
        types = {**_OTHER_NAMES, "rediss": "redis", "unix": "redis", **{name: name for name in KNOWN_TYPES}}
        meant = types.get(scheme)
        advice = (
            f"set SESSION_TYPE = {meant!r}, and SESSION_{meant.upper()} to the URL"
            if meant
            else "allowed is the name of a store, such as 'redis'"
        )
        raise ConfigurationError(f"SESSION_TYPE is a URL; {advice}. {see(Page.WRONG_SESSION_TYPE)}")
    return value.lower()


def _hint(session_type: str) -> str:
    if session_type == "postgresql" and "sqlalchemy" in names():  # Flask-Session's development branch has it
        return (
            " This Flask-Session has no 'postgresql': set SESSION_TYPE = 'sqlalchemy', and SESSION_SQLALCHEMY to the "
            "URL of the database."
        )
    near = [_OTHER_NAMES.get(session_type), *get_close_matches(session_type, sorted({*KNOWN_TYPES, *names()}), n=1)]
    return next((f" Did you mean {name!r}?" for name in near if name), "")


def defaults() -> dict[str, Any]:
    """Return the settings of the Flask-Session that is installed, with the values that count where they are not set."""
    return {name: value for name, value in vars(Defaults).items() if name.startswith("SESSION_")}


#: The values of SESSION_TYPE that Flask-Session 0.8 takes; a later one may take more.
KNOWN_TYPES = ("redis", "memcached", "mongodb", "sqlalchemy", "dynamodb", "cachelib", "filesystem")


def make_codec(app: Flask, *, allow_pickle: bool) -> Codec:
    """Return the codec of SESSION_SERIALIZATION_FORMAT."""
    format = app.config.get("SESSION_SERIALIZATION_FORMAT", Defaults.SESSION_SERIALIZATION_FORMAT)
    return Codec(format, allow_pickle=allow_pickle)


class _SafeSerializer:
    __slots__ = ("codec",)
    codec: Codec

    def __init__(self, codec: Codec) -> None:
        object.__setattr__(self, "codec", codec)

    def __setattr__(self, name: str, value: object) -> None:
        raise ConfigurationError(
            f"This serializer takes no {name}: LazySession decodes for an interface that stores by its own methods. "
            "Set session_interface.serializer to one of your own."
        )

    def encode(self, session: dict[str, Any]) -> bytes:
        return self.codec.encode(session)

    def decode(self, serialized_data: bytes) -> dict[str, Any]:
        items = self.codec.decode(serialized_data)
        if items is None:
            raise Undecodable
        return items

    dumps, loads = encode, decode  # as Flask-Session's development branch calls them


def read_safely(interface: Any, *, allow_pickle: bool) -> None:
    """Make an interface encode and decode with our codec: Flask-Session's own serializer also unpickles.

    :param interface: any, as Flask-Session has no annotations; a serializer of the app's own is not changed.
    """
    serializer = interface.serializer
    if serializer is not None and not isinstance(serializer, _SafeSerializer) and not is_own(serializer):
        interface.serializer = _SafeSerializer(codec_of(serializer, allow_pickle=allow_pickle))


#: The parameters of Flask-Session's base class, and the settings that they come from.
_COMMON = {
    "key_prefix": "SESSION_KEY_PREFIX",
    "use_signer": "SESSION_USE_SIGNER",
    "permanent": "SESSION_PERMANENT",
    "sid_length": "SESSION_ID_LENGTH",
    "serialization_format": "SESSION_SERIALIZATION_FORMAT",
    "cleanup_n_requests": "SESSION_CLEANUP_N_REQUESTS",
}


class StoreInterface(ServerSideSessionInterface):  # type: ignore[misc]  # Flask-Session has no annotations
    """Takes the place of Flask-Session's interface where it cannot build one: for URLs, other clients, other stores.

    It reads the same common settings, so ids, keys and cookies are those of Flask-Session.

    :param backend: the store.
    :param session_class: the class of its sessions.
    """

    #: Flask-Session's class for this store, which ``isinstance`` is True for; None for a store of the app's own.
    stands_for: type[SessionInterface] | None = None

    def __init__(
        self, app: Flask, backend: Backend, codec: PayloadCodec, session_class: type[ServerSideSession]
    ) -> None:
        self.session_class = session_class
        # Flask-Session's interfaces have these, where there is one
        self.client = getattr(backend, "client", None)
        self.store = getattr(backend, "store", None)
        self.backend = backend
        self._codec = codec
        self.ttl = not isinstance(backend, SupportsPurge)
        known = signature(ServerSideSessionInterface.__init__).parameters
        settings: dict[str, Any] = {
            name: app.config.get(key, getattr(Defaults, key, None)) for name, key in _COMMON.items()
        }
        super().__init__(app, **{name: value for name, value in settings.items() if name in known})
        self.use_signer = bool(settings["use_signer"])  # we sign, also where Flask-Session does not any more

    def use(self, backend: Backend, codec: PayloadCodec) -> None:
        """Store through another backend from now on."""
        self.backend, self._codec = backend, codec

    # Flask-Session's own methods, for extensions that load and save sessions by this interface (Flask-SocketIO)

    def _retrieve_session_data(self, store_id: str) -> dict[str, Any] | None:
        record = self.backend.read(store_id)
        return None if record is None else self._codec.decode(record.payload)

    def _delete_session(self, store_id: str) -> None:
        self.backend.delete(store_id)

    def _upsert_session(self, session_lifetime: timedelta, session: ServerSideSession, store_id: str) -> None:
        payload, lifetime = self._codec.encode(dict(session)), session_lifetime.total_seconds()
        while not self.backend.create(store_id, payload, lifetime):
            record = self.backend.read(store_id)
            if record is None:  # expired, and some stores refuse the key until it is removed
                self.backend.delete(store_id)
            elif self.backend.replace(store_id, payload, lifetime, record.payload).outcome is Outcome.STORED:
                return


def interface_class_of(reference: str | None) -> type[SessionInterface] | None:
    """Return Flask-Session's interface class ``module:name``, or None where it cannot be imported."""
    if reference is None:
        return None
    try:
        interface_class: type[SessionInterface] = load(reference)
    except ImportError:  # Flask-Session's SQL interface needs Flask-SQLAlchemy; ours does not
        return None
    return interface_class


def session_class_of(reference: str | None) -> type[ServerSideSession]:
    """Return the session class of an interface ``module:name``, or its base class if it cannot be imported."""
    session_class: type[ServerSideSession] = getattr(interface_class_of(reference), "session_class", ServerSideSession)
    return session_class
