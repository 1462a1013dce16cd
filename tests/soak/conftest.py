"""The long profiles of what tests/functional does; ``make soak`` runs them, nothing else does."""

from __future__ import annotations

import os

# Fixtures are found by their names.
from tests.functional.conftest import folder, make_daemon

__all__ = ["folder", "make_daemon"]

if not os.environ.get("GANETI_MASTERD_SOAK"):
    collect_ignore_glob = ["*"]
