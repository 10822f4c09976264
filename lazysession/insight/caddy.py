"""The configuration of Caddy for the static files of an app: the text of a Caddyfile."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .configuration import Configuration, about, as_comment, commented, heading, view_lines
from .locations import Location, Plan, for_app_alone

#: Names that contain characters with a meaning in a Caddyfile or in a URL, and names of folders.
_NOT_NAMES = r"[?#\\\x7b\x7d]|/$"


def render_caddy(configuration: Configuration) -> str:
    """Return a complete Caddyfile."""
    lines = [
        *commented(heading(configuration, "flask lazysession nginx --caddy"), ""),
        *("", *_app(configuration)),
        *("", ":80 {"),
        *(_types(configuration) if configuration.serves or configuration.internal else ()),
        *_locations(configuration),
        *("\thandle {", f"\t\timport {configuration.name}", "\t}", "}"),
    ]
    return "\n".join(lines) + "\n"


def _app(configuration: Configuration) -> Iterator[str]:
    """Yield the snippet that sends a request to the app, and a file that the app names to the visitor."""
    upstream = configuration.upstream.replace("unix:", "unix/", 1)
    if configuration.internal:
        yield from commented(
            [
                "Only a response of the app can name the folders below. With these lines in the app, may_see and the "
                "hooks of the app decide who may see a file, and Caddy sends it:"
            ],
            "",
        )
        yield from as_comment(view_lines(configuration, 'path.encode().decode("latin-1")', ()), "")
    yield from (f"({configuration.name}) {{", f"\treverse_proxy {upstream} {{")
    yield from ("\t\ttransport http {", "\t\t\tcompression off # otherwise Caddy unpacks .gz files of the app", "\t\t}")
    for number, (url, folder) in enumerate(configuration.internal.items(), 1):
        yield from (
            f"\t\t@internal{number} header X-Accel-Redirect {url}*",
            f"\t\thandle_response @internal{number} {{",
            f"\t\t\troot * {quoted(folder)}",
            "\t\t\trewrite * {rp.header.X-Accel-Redirect}",
            f"\t\t\turi strip_prefix {url.rstrip('/')}",
            "\t\t\theader Content-Type {content_type}",
            "\t\t\t# Otherwise Caddy drops these headers of the app.",
            "\t\t\tcopy_response_headers {",
            "\t\t\t\tinclude Cache-Control Set-Cookie",
            "\t\t\t}",
            "\t\t\tfile_server",
            "\t\t}",
        )
    yield from ("\t}", "}")


def _types(configuration: Configuration) -> Iterator[str]:
    yield from ("\t# The content types that Flask sends.", "\tmap {path} {content_type} {")
    for name, suffixes in configuration.types.items():
        yield f'\t\t~(?i)\\.({"|".join(suffixes)})$ "{configuration.content_type(name)}"'
    yield from ("\t\tdefault application/octet-stream", "\t}", "")


def _locations(configuration: Configuration) -> Iterator[str]:
    """Yield the folders, those with the longest URL first: of two that match, the first gets the request."""
    locations = sorted(configuration.plan.locations, key=lambda location: len(location.url), reverse=True)
    for number, location in enumerate(locations, 1):
        yield from commented(about(location), "\t")
        if location.reason is None:
            yield from (*_matcher(configuration.plan, location, number), *_handle(configuration, location, number))
        yield ""


def _matcher(plan: Plan, location: Location, number: int) -> Iterator[str]:
    """Yield the matcher of the files that Caddy may send.

    Each line matches the path without ".."; the group of the first one is the name of the file that is sent. (The
    matcher "path" would ignore case.)
    """
    yield from (
        f"\t@static{number} {{",
        "\t\tmethod GET HEAD",
        f"\t\tpath_regexp static{number} `(?s)^{re.escape(location.url)}(.+)$`",
        f"\t\tnot path_regexp `{_NOT_NAMES}`",
        '\t\t# The app sends compressed files (Content-Encoding) and redirects "//".',
        f"\t\tnot path_regexp `{for_app_alone()}`",
    )
    for taken in location.taken_back:
        yield from commented([f"The app decides about these: {taken.reason}."], "\t\t")
        text = taken.text if taken.is_regex else f"^{re.escape(taken.text)}"
        yield f"\t\tnot path_regexp `{text}`"
    for other in plan.locations:
        if other is not location and other.url.startswith(location.url):
            yield from commented([f"See {other.endpoint}."], "\t\t")
            yield f"\t\tnot path_regexp `^{re.escape(other.url)}`"
    yield "\t}"


def _handle(configuration: Configuration, location: Location, number: int) -> Iterator[str]:
    found = f"{{re.static{number}.1}}"
    yield from (
        f"\thandle @static{number} {{",
        f"\t\t@found{number} file {{",
        f"\t\t\troot {quoted(location.folder)}",
        f"\t\t\ttry_files {found}",
        "\t\t}",
        f"\t\thandle @found{number} {{",
        f"\t\t\troot * {quoted(location.folder)}",
        f"\t\t\trewrite * /{found}",
        f'\t\t\theader Cache-Control "{location.cache_control}"',
        "\t\t\theader Content-Type {content_type}",
        "\t\t\tfile_server",
        "\t\t}",
        "\t\thandle {",
        f"\t\t\timport {configuration.name} # the app makes the 404 page",
        "\t\t}",
        "\t}",
    )


def quoted(text: str) -> str:
    """Return a word of a Caddyfile, in quotes where it needs them."""
    return text if re.fullmatch(r"[\w./-]+", text) else '"' + text.replace('"', '\\"') + '"'
