"""The completion of gnt-masterd's options by bash."""

from __future__ import annotations

import subprocess

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.options import Options
from tools.completion import bash_completion


class CompletionTests(SynchronousTestCase):
    """Bash itself is asked."""

    def complete(self, word: str, before: str = "gnt-masterd") -> list[str]:
        script = (
            f"{bash_completion()}\ncd /\n_gnt_masterd gnt-masterd '{word}' '{before}'\n"
            "printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        return done.stdout.split()

    def test_options(self) -> None:
        """All options are offered, and each is one of the daemon's."""
        found = self.complete("--")
        self.assertEqual(len(found), len(Options.optFlags) + len(Options.optParameters) + 2)
        usage = Options().getUsage(width=200)
        for option in found:
            self.assertIn(option, usage)
        self.assertEqual(self.complete("--check"), ["--check-only"])

    def test_values(self) -> None:
        """Paths where an option takes one; nothing where it takes another value."""
        self.assertIn("etc", self.complete("et", "--root"))
        self.assertEqual(self.complete("--", "--user"), [])
