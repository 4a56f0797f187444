"""Configuration of the documentation: `make docs` builds it into `build/docs`."""

import re

project = "Circinus"
author = "The Circinus developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "Circinus"
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "show-inheritance": True}
exclude_patterns = ["_build"]
nitpicky = False


def _escape_colons(app, what, name, obj, options, lines):
    """Keep napoleon from reading the beginning of `module:attribute` in an attribute's docstring as its type."""
    if what == "attribute":
        lines[:] = [re.sub(r"`([^`]*)`", lambda code: code[0].replace(":", r"\:"), line) for line in lines]


def setup(app):
    """Before napoleon, which listens at priority 500."""
    app.connect("autodoc-process-docstring", _escape_colons, priority=400)
