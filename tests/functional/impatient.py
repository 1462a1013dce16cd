"""A wrapper of the daemon's command: it waits seconds, not minutes, for its process for job files.

``python impatient.py SECONDS COMMAND ARGUMENT...``; the command is a Python script.
"""

from __future__ import annotations

import runpy
import sys

from ganeti_masterd.journal import clerk

seconds = float(sys.argv[1])
defaults = clerk.Clerk.__init__.__kwdefaults__
assert defaults is not None
assert defaults["patience"] == clerk.ANSWER_PATIENCE
defaults["patience"] = seconds
clerk.LOOK = seconds / 16
clerk.PATIENCE = seconds
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
