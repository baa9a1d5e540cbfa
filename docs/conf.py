"""The site that `make docs` builds into build/site. It needs no network: fonts and scripts are its own."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "tools"), str(HERE / "extensions")]

import gallery_pages  # noqa: E402

import fastbp  # noqa: E402

gallery_pages.prepare()

project = "fastbp"
author = "The fastbp developers"
release = version = fastbp.__version__
copyright = "2026, the fastbp developers"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_gallery.gen_gallery",
    "api_pages",
    "repository_links",
]
exclude_patterns = ["extensions", "_static"]
nitpicky = True

myst_heading_anchors = 4  # GitHub's anchors

autodoc_typehints = "none"  # numpydoc's sections say the types, with shapes
autodoc_inherit_docstrings = False
autosummary_generate = False
numpydoc_show_class_members = False

sphinx_gallery_conf = gallery_pages.CONFIGURATION

html_theme = "furo"
html_title = f"fastbp {release}"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
pygments_style = "default"  # this one and the next have enough contrast: tests/test_site.py
pygments_dark_style = "github-dark"
