"""How Sphinx builds the documentation: no network, every warning counts."""

import sys
import tomllib
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

_ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(_ROOT))  # tools/ isn't installed

with (_ROOT / "pyproject.toml").open("rb") as _file:
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

# `sphinx-build -b man` builds these two; the Debian package has them.
man_pages = [
    ("gnt-luxi", "gnt-luxi", "client of a Ganeti cluster's master daemon", [author], 8),
    ("gnt-masterd", "gnt-masterd", "master daemon of a Ganeti cluster", [author], 8),
]


class FromCode(SphinxDirective):
    """``.. from-code:: NAME``: a table of ``tools.doc_tables``."""

    required_arguments = 1

    def run(self):
        """Returns the table, parsed."""
        from tools.doc_tables import TABLES

        name = self.arguments[0]
        if name not in TABLES:
            raise self.error(f"tools.doc_tables has no table {name!r}")
        parsed = nodes.container()
        lines = StringList(TABLES[name]().splitlines(), source=f"tools.doc_tables.{name}")
        self.state.nested_parse(lines, self.content_offset, parsed)
        return parsed.children


def setup(app):
    """Adds the directive."""
    app.add_directive("from-code", FromCode)
