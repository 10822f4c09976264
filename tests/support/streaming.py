"""An app's streamed pages, each with a generator of another maker; all greet the visitor by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Flask, Response, request, session, stream_template, stream_with_context
from jinja2 import DictLoader

#: The endpoints of :func:`add_streams`.
STREAMS = ("decorated", "generated", "wrapped", "template", "extension", "captured", "iterable")


def add_streams(app: Flask) -> None:
    """Add a page for each way to stream; none uses the session before the response is made."""
    app.jinja_loader = DictLoader({"page.html": "<p>Hello {{ session.get('name') }}</p>"})
    app.after_request(_append_greeting)
    views: dict[str, Callable[[], Any]] = {
        "decorated": stream_with_context(greeting),
        "generated": lambda: stream_with_context(greeting()),
        "wrapped": lambda: Response(stream_with_context(greeting()), mimetype="text/plain"),
        "template": lambda: stream_template("page.html"),
        "extension": lambda: "a page",
        "captured": lambda: Response(greeting(session._get_current_object())),
        "iterable": lambda: Response(Greeting()),
    }
    assert views.keys() == set(STREAMS)
    for name, view in views.items():
        app.add_url_rule(f"/{name}", name, view)


def greeting(visitor: Any = session) -> Iterator[str]:
    """Yield a greeting; the session is used for its second half."""
    yield "Hello "
    yield str(visitor.get("name"))


class Greeting:
    """An iterable that is no generator, with the session of the request that made it."""

    def __init__(self) -> None:
        self._lines = stream_with_context(greeting())

    def __iter__(self) -> Iterator[str]:
        return self._lines


def _append_greeting(response: Response) -> Response:
    """Add a footer to a page, as an extension does that knows nothing of sessions."""
    if request.endpoint == "extension":
        del response.headers["Content-Length"]
        response.response = stream_with_context(_then(response.iter_encoded(), greeting()))
    return response


def _then(*parts: Iterable[Any]) -> Iterator[Any]:
    for part in parts:
        yield from part
