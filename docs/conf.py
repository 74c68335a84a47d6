"""Sphinx configuration of the guide, which `make docs` builds."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from figures import write_figures  # noqa: E402
from settings_page import write_settings_page  # noqa: E402

project = "astromorph"
author = "the astromorph developers"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "astromorph"
html_theme_options = {
    # The colours of the pages of a run, in astromorph/pages/templates/style.css.
    "light_css_variables": {
        "color-brand-primary": "#0550ae",
        "color-brand-content": "#0550ae",
    },
    "dark_css_variables": {
        "color-brand-primary": "#7cc0ff",
        "color-brand-content": "#7cc0ff",
    },
}
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 3
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"
# Members inherited from torch have docstrings in torch's own markup.
autodoc_inherit_docstrings = False
nitpicky = False

write_settings_page(HERE / "settings.md")
write_figures(HERE / "figures")
