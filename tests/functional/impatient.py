"""A wrapper of the daemon's command: it waits seconds, not minutes, for its process for job files.

And for its disk.

``python impatient.py SECONDS COMMAND ARGUMENT...``; the command is a Python script.
"""

from __future__ import annotations

import runpy
import sys

from ganeti_masterd.journal import clerk, hanging
from ganeti_masterd.startup import stopping

seconds = float(sys.argv[1])
defaults = clerk.Clerk.__init__.__kwdefaults__
assert defaults is not None
assert defaults["patience"] == clerk.ANSWER_PATIENCE
defaults["patience"] = seconds
clerk.LOOK = seconds / 16
clerk.PATIENCE = seconds
defaults = hanging.DiskWatch.__init__.__kwdefaults__
assert defaults is not None
assert defaults == {"patience": hanging.PATIENCE, "refusal": hanging.REFUSAL}
defaults.update(patience=seconds, refusal=seconds)
assert seconds < stopping.DISK_BOUND
stopping.DISK_BOUND = seconds
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
