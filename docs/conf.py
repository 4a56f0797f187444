"""Configuration of the documentation: `make docs` builds it into `build/docs`."""

import os
import re

os.environ["EAGER_IMPORT"] = "1"  # packages that import lazily show their names

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
exclude_patterns = ["_build", "notebooks"]
nitpicky = False


def _backticks_are_code(app, what, name, obj, options, lines):
    """Docstrings write code as in Markdown; napoleon must not read the colon of `module:attribute` either."""
    lines[:] = [re.sub(r"(?<![`:])`([^`]+)`(?!`)", r"``\1``", line) for line in lines]


def setup(app):
    """Before napoleon, which listens at priority 500."""
    app.connect("autodoc-process-docstring", _backticks_are_code, priority=400)
