"""Ganeti's own command line tools, run against a daemon, and what they said."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import NamedTuple

from ganeti_masterd.testing.daemon import DaemonProcess


class Said(NamedTuple):
    """What a command did: exit code, standard output and error."""

    code: int
    out: str = ""
    err: str = ""


#: Runs a command line.
Gnt = Callable[[str], Said]


def on(daemon: DaemonProcess, plain: Callable[[str], str] = str) -> Gnt:
    """Returns the function that runs a command line where the tools find this daemon.

    ``plain`` takes out of both outputs what differs from run to run.
    """

    def run(command: str) -> Said:
        done = daemon.tool(shlex.split(command))
        return Said(done.returncode, plain(done.stdout), plain(done.stderr))

    return run
