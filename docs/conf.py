"""How Sphinx builds the documentation: ``nox -s docs``."""

from importlib.metadata import version as version_of
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

project = "LazySession"
author = "the LazySession contributors"
project_copyright = author
version = release = version_of("lazysession")

extensions = ["sphinx.ext.autodoc", "myst_parser"]  # the latter for the changelog
exclude_patterns = ["_build", "_generated", "bench", "changes", "demo", "release"]
default_role = "code"
nitpicky = False
highlight_language = "none"  # every block names its language; tests/project/test_docs.py runs it

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_mock_imports = ["pytest"]  # of lazysession.testing

html_theme = "furo"
html_title = "LazySession"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_show_sourcelink = False


def name_levels(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: object) -> None:
    """Give the headings of the navigation their level: Sphinx writes role="heading" without the aria-level it needs."""
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            context[part] = context[part].replace('role="heading">', 'role="heading" aria-level="2">')


def setup(app: Sphinx) -> None:
    app.add_lexer("caddyfile", TextLexer)  # Pygments has none for it
    app.connect("html-page-context", name_levels, priority=900)  # after the theme's own
