"""The configuration of nginx for the static files of an app: the text of a file for ``conf.d``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .configuration import Configuration, about, as_comment, commented, heading, view_lines
from .locations import Location, for_app_alone

#: With a longer one in charset_types, nginx does not start ("could not build test_types_hash").
_LONGEST_TYPE = 46


def render_nginx(configuration: Configuration) -> str:
    """Return a complete file for ``conf.d``."""
    name = configuration.name
    lines = [
        *commented(heading(configuration, "flask lazysession nginx"), ""),
        *("", f"upstream {name} {{", f"    server {configuration.upstream};  # the app", "}", ""),
        *_page_cache(configuration),
        *("", "server {"),
        *_server(configuration),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _server(configuration: Configuration) -> Iterator[str]:
    yield from (
        "    listen 80;",
        "",
        "    # For the app: what the browser asked for.",
        "    proxy_set_header Host $http_host;",
        "    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "    proxy_set_header X-Forwarded-Proto $scheme;",
    )
    if configuration.serves:
        yield from _types(configuration)
    for location in configuration.plan.locations:
        yield from ("", *_location(configuration, location))
    if configuration.serves:
        yield from ("", '    # The app sends compressed files (Content-Encoding) and redirects "//".')
        yield from _to_app(configuration, f"~ {quoted(for_app_alone())}")
    if configuration.internal:
        yield from ("", *_internal(configuration))
    yield from ("", *_to_app(configuration, "/"), "", *_to_app(configuration, "@app"))
    yield from ("", *_cached_page(configuration))


def _types(configuration: Configuration) -> Iterator[str]:
    yield from ("", "    # The content types that Flask sends.", "    default_type application/octet-stream;")
    yield "    types {"
    for name, suffixes in configuration.types.items():
        yield f"        {name} {' '.join(suffixes)};"
    yield "    }"


def _location(configuration: Configuration, location: Location) -> Iterator[str]:
    yield from commented(about(location), "    ")
    if location.reason is None:
        yield from (
            f"    location {quoted(location.url)} {{",
            f"        alias {quoted(location.folder + '/')};",
            "        try_files $uri @app;  # the app makes the 404 page",
            "        error_page 403 405 = @app;  # it gets all methods but GET and HEAD",
            f'        add_header Cache-Control "{location.cache_control}";',
            *_charset(configuration),
            "    }",
        )
    else:
        yield from _to_app(configuration, f"^~ {quoted(location.url)}")
    for taken in location.taken_back if location.reason is None else ():
        yield from ("", *commented([f"The app decides about these: {taken.reason}."], "    "))
        yield from _to_app(configuration, f"{'~' if taken.is_regex else '^~'} {quoted(taken.text)}")


def _charset(configuration: Configuration) -> Iterator[str]:
    shorter = (name for name in configuration.with_charset if len(name) <= _LONGEST_TYPE)
    types = [name for name in shorter if name != "text/html"]  # which nginx has by itself
    yield from ("        charset utf-8;", f"        charset_types {' '.join(types)};")


def _internal(configuration: Configuration) -> Iterator[str]:
    yield from commented(
        [
            "Only a response of the app can name the folders below: a browser that asks for them gets a 404 "
            '("internal"). With these lines in the app, may_see and the hooks of the app decide who may see a file, '
            "and nginx sends it:"
        ],
        "    ",
    )
    yield from as_comment(view_lines(configuration, "quote(path)", ["from urllib.parse import quote"]), "    ")
    for url, folder in configuration.internal.items():
        yield f"    location ^~ {url} {{"
        yield from ("        internal;", f"        alias {quoted(folder + '/')};")
        yield from ("        try_files $uri =404;  # not a folder", *_charset(configuration), "    }")


def _to_app(configuration: Configuration, location: str) -> tuple[str, ...]:
    return f"    location {location} {{", f"        proxy_pass http://{configuration.name};", "    }"


def quoted(text: str) -> str:
    """Return a word of nginx's configuration, in quotes where it needs them."""
    if re.fullmatch(r"[\w./-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# The cache for pages, as comments


def _page_cache(configuration: Configuration) -> Iterator[str]:
    """Yield what is outside of the server block: whether a request has a cookie of a session.

    Flask strips whitespace from the name of a cookie, so any character that no name has may stand next to it.
    """
    names = "|".join(re.escape(name) for name in configuration.cookies)
    yield from commented(
        [
            "nginx can cache pages that are the same for all visitors without a session. For that, remove the # in "
            'front of the lines below, and of the block "location = /hello" at the end. nginx caches a page only if '
            'the app sets a max-age ("public, max-age=60"), and never one with Set-Cookie.'
        ],
        "",
    )
    cache = f"proxy_cache_path /var/cache/nginx/{configuration.name} keys_zone={configuration.name}:10m max_size=1g;"
    pattern = quoted(rf"~(^|[^\w-])({names})([^\w-]|$)")
    yield from as_comment([cache, "map $http_cookie $has_session {", '    default "";', f'    {pattern} "1";', "}"], "")


def _cached_page(configuration: Configuration) -> Iterator[str]:
    yield from as_comment(
        [
            "location = /hello {",
            f"    proxy_pass http://{configuration.name};",
            f"    proxy_cache {configuration.name};",
            "    proxy_cache_key $scheme$http_host$request_uri;",
            "    proxy_cache_bypass $has_session;",
            "    proxy_no_cache $has_session;",
            "    proxy_ignore_headers Vary;  # safe only with the two lines above",
            "    add_header X-Cache $upstream_cache_status;",
            "}",
        ],
        "    ",
    )
