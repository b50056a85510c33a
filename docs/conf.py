"""How Sphinx builds the site: `make docs`. Nothing is fetched, and every warning is an error."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

import inventories  # noqa: E402 - in the folder that was just added

from ollama_sc import __version__  # noqa: E402

project = "ollama-sc"
author = "the authors of ollama-sc"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",  # docstrings in Google's style
    "sphinx.ext.intersphinx",
    "names",  # what docstrings and annotations call things by
    "tables",  # for narrow screens
    "options",  # the command's options, from the command
]
exclude_patterns = ["_build", "_ext"]

nitpicky = True
default_role = "name"
intersphinx_mapping = inventories.written(HERE / "_ext" / "inventories", HERE / "_build")

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Differences in Python, and cells with a top-level `await`: neither is what a lexer calls Python.
suppress_warnings = ["misc.highlighting_failure"]

autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = []

html_theme = "furo"
html_title = "ollama-sc"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
