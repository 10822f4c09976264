"""What a message says of the docs: a URL where the project has an address, and the file in the repository elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from email.message import Message
from importlib.metadata import PackageNotFoundError

import pytest

from lazysession import pages
from lazysession.pages import Page, address_of_docs, see


@pytest.fixture(autouse=True)
def read_again() -> Generator[None]:
    """The address is read once for each process."""
    address_of_docs.cache_clear()
    yield
    address_of_docs.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, *urls: str) -> list[str]:
    """Install lazysession with these URLs of the project; return a list that each read of them is added to."""
    reads: list[str] = []

    def metadata(package: str) -> Message:
        reads.append(package)
        message = Message()
        for url in urls:
            message["Project-URL"] = url
        return message

    monkeypatch.setattr(pages, "metadata", metadata)
    return reads


def test_without_an_address_it_is_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person who installed a checkout has the file, and can search it for the label."""
    install(monkeypatch, "Changelog, https://example.org/changelog")
    assert see(Page.NO_SECRET_KEY) == "See LazySession's docs/troubleshooting.rst#no-secret-key"
    assert see(Page.OWN_BACKEND) == "See LazySession's docs/guides/own-backend.rst"


@pytest.mark.parametrize("url", ["Documentation, https://example.org/docs/", "documentation,https://example.org/docs"])
def test_with_an_address_it_is_a_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The URL of the docs comes from the metadata of the installed package, and has one slash before the page."""
    reads = install(monkeypatch, "Source, https://example.org/source", url)
    assert see(Page.NO_SECRET_KEY) == "See https://example.org/docs/troubleshooting.html#no-secret-key"
    assert see(Page.OWN_BACKEND) == "See https://example.org/docs/guides/own-backend.html"
    assert reads == ["lazysession"]


@pytest.mark.parametrize("url", ["Documentation, ", "Documentation"])
def test_an_empty_address_is_none(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """A table with a name and nothing behind it counts as none."""
    install(monkeypatch, url)
    assert see(Page.NOT_SAVED) == "See LazySession's docs/troubleshooting.rst#not-saved"


@pytest.mark.parametrize(
    "error", [PackageNotFoundError("lazysession"), OSError(24, "Too many open files"), TypeError()]
)
def test_without_metadata_it_is_the_file(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A checkout that is not installed has none; a process that can open no file may have to say so just then."""

    def metadata(_package: str) -> Message:
        raise error

    monkeypatch.setattr(pages, "metadata", metadata)
    assert see(Page.NOT_SAVED) == "See LazySession's docs/troubleshooting.rst#not-saved"
