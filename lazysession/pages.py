"""The places in the docs that messages name: a person who meets an error can read there what to do."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from importlib.metadata import metadata


class Page(Enum):
    """A page of the docs, without its suffix, and mostly a label on it."""

    CANNOT_BE_STORED = "troubleshooting#cannot-be-stored"
    CLIENT_LIBRARY_MISSING = "troubleshooting#client-library-missing"
    EMPTY_SESSION = "troubleshooting#empty-session"
    NO_SECRET_KEY = "troubleshooting#no-secret-key"  # noqa: S105 - the name of a label
    NOT_CACHED = "troubleshooting#not-cached"
    NOT_SAVED = "troubleshooting#not-saved"
    OLD_PICKLES = "troubleshooting#old-pickles"
    OWN_BACKEND = "guides/own-backend"
    SESSION_TWICE = "troubleshooting#session-twice"
    SETTINGS = "reference/settings"
    SETTING_TOO_LATE = "troubleshooting#setting-too-late"
    STATIC_403 = "troubleshooting#static-403"
    STORE_UNREACHABLE = "troubleshooting#store-unreachable"
    WHO_GETS_A_409 = "troubleshooting#who-gets-a-409"
    WRONG_SESSION_TYPE = "troubleshooting#wrong-session-type"


def see(page: Page) -> str:
    """Return the last sentence of a message, which names a place in the docs.

    It has no period at its end, which would be copied with the URL. Without an address it names the file in the
    repository, where the label is text that can be searched for.
    """
    name, mark, label = page.value.partition("#")
    address = address_of_docs()
    file = f"{address}/{name}.html" if address else f"LazySession's docs/{name}.rst"
    return f"See {file}{mark}{label}"


@lru_cache(maxsize=1)
def address_of_docs() -> str | None:
    """Return the URL of the docs, from ``Documentation`` in ``[project.urls]`` of pyproject.toml; None without one.

    It is read with the first message that needs it, and not when an app starts or serves a request. That message may
    be about a process that can open no file: it names the file of the docs then.
    """
    try:
        urls: list[str] = metadata("lazysession").get_all("Project-URL") or []
    except Exception:  # not installed, or not readable; a message never fails for its last sentence
        return None
    by_label = {label.strip().lower(): url.strip() for label, _, url in (each.partition(",") for each in urls)}
    return by_label.get("documentation", "").rstrip("/") or None
