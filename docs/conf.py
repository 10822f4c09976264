"""How Sphinx builds the documentation: ``nox -s docs``."""

from importlib.metadata import version as version_of

project = "LazySession"
author = "the LazySession contributors"
project_copyright = author
version = release = version_of("lazysession")

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build", "_generated", "bench", "demo"]
default_role = "code"
nitpicky = False
highlight_language = "none"  # every block names its language; tests/project/test_docs.py runs it

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"

html_theme = "furo"
html_title = "LazySession"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_copy_source = False
html_show_sourcelink = False
