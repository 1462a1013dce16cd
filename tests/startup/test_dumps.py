"""Core dumps of the daemon."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

SCRIPT = """
import ctypes, resource, subprocess, sys
from ganeti_masterd.startup.dumps import forbid_dumps
forbid_dumps()
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
sys.stdout.flush()
subprocess.run([sys.executable, "-c", "import resource as r; print(r.getrlimit(r.RLIMIT_CORE))"])
"""


class DumpTests(SynchronousTestCase):
    """In a process of its own, as the flags don't come back."""

    def test_none(self) -> None:
        """Neither the process nor its children can leave their memory in a file."""
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
        self.assertEqual(done.stdout.decode().splitlines(), ["0 (0, 0)", "(0, 0)"])
