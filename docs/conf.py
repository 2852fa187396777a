"""Settings of Sphinx: ``sphinx-build -W docs docs/_build`` makes the site, without a network."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "site"))  # the programs that make pages and drawings

import api_pages  # noqa: E402
import config_pages  # noqa: E402
import verb_page  # noqa: E402

project = "learned_opt"
author = "The learned_opt authors"
copyright = author
html_title = "learned_opt"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "math_pictures"]
html_math_renderer = "matplotlib"
exclude_patterns = ["_build", "site", "reference/verbs.md"]
myst_enable_extensions = ["strikethrough"]
myst_heading_anchors = 4
suppress_warnings = ["myst.strikethrough"]  # only HTML is built

# autodoc: signatures without hints stay readable; types stand in the text of Args
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # those of torch and Lightning name labels of other sites
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_custom_sections = [("Source", "notes_style"), ("Shapes", "notes_style")]
napoleon_use_rtype = False

# no file of the page comes from another host
html_theme = "furo"
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


def _make_pages(app: object) -> None:
    api_pages.write_all(DOCS / "reference" / "api")
    config_pages.write_all(DOCS / "reference" / "configs")
    verb_page.write(DOCS / "reference" / "verbs.md")


def setup(app) -> None:  # noqa: D103
    app.connect("builder-inited", _make_pages)
