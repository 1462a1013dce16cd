"""How Sphinx builds the documentation: no network, every warning counts."""

import tomllib
from pathlib import Path

with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as _file:
    _project = tomllib.load(_file)["project"]

project = "ganeti_masterd"
author = "The ganeti_masterd authors"
copyright = author
version = release = _project["version"]

extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "newsfragments"]
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_sphinx = False
