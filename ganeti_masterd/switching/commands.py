"""Runs other programs for a switch. Blocking."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from msgspec import Struct

from ganeti_masterd.switching.steps import SwitchFault

#: The most of a program's output that a message repeats, characters.
_SHOWN = 2000


class ProgramRun(Struct, frozen=True):
    """How a program ended: its command as one would type it, exit code and all its output."""

    command: str
    code: int
    output: str

    def checked(self) -> ProgramRun:
        """Returns itself; raises ``SwitchFault`` with the output if the program failed."""
        if self.code != 0:
            text = self.output.strip()[-_SHOWN:]
            raise SwitchFault(
                f"{self.command} ended with exit code {self.code}" + (f": {text}" if text else "")
            )
        return self


def run_program(command: Sequence[str], environment: Mapping[str, str], limit: float) -> ProgramRun:
    """Runs a program to its end; raises ``SwitchFault`` if it takes more than ``limit`` seconds.

    It has a session of its own: Ctrl-C must not hit a daemon's start or stop half way. Its output
    goes to a file, because daemons that it starts may keep that open.
    """
    shown = shlex.join(command)
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=limit,
                check=False,
                cwd="/",
            )
        except subprocess.TimeoutExpired:
            raise SwitchFault(f"{shown} has not ended within {limit:g} seconds") from None
        except OSError as error:
            raise SwitchFault(f"{shown} can't be run: {error.strerror}") from None
        output.seek(0)
        return ProgramRun(shown, done.returncode, output.read().decode("utf-8", "replace"))


def environment_below(root: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment for Ganeti's programs on this root; '' is the system's own."""
    found = dict(environment)
    if root:
        found["GANETI_ROOTDIR"] = root
    else:
        found.pop("GANETI_ROOTDIR", None)
    found["PATH"] = os.pathsep.join(
        filter(None, (found.get("PATH"), "/usr/local/sbin", "/usr/sbin", "/sbin"))
    )
    return found
