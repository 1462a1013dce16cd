"""What the README shows of Ganeti's tools is what they say."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import require
from tests.functional.gnt import Said, on
from tests.functional.waiting import equal_to, until

README = Path(__file__).resolve().parents[2] / "README.md"

#: A command after a prompt and, up to the next one, what it says.
COMMAND = re.compile(r"^    \$ (.+)\n((?:    (?!\$).*\n)*)", re.MULTILINE)


def terminal(said: Said) -> tuple[int, str]:
    """Returns the exit code and what a terminal shows: both outputs."""
    return said.code, said.out + said.err


def test_session(make_daemon: Callable[..., DaemonProcess]) -> None:
    """The commands, one after the other, on three simulated nodes; the kill is a kill."""
    require("gnt-job", "ganeti-3.0")
    daemon = make_daemon()
    daemon.start()
    gnt = on(daemon, lambda text: re.sub(r"(?m) +$", "", text))
    kills = 0
    session = COMMAND.findall(README.read_text("utf-8"))
    for command, shown in session:
        if command.startswith("kill -9"):
            kills += 1
            daemon.kill()
            daemon.start()
            continue
        wanted = 0, re.sub(r"(?m)^    ", "", shown)
        if command.startswith(("gnt-job list", "gnt-instance list")):
            # A job that was just submitted may not be as far yet.
            until(command, lambda line=command: terminal(gnt(line)), equal_to(wanted))
        else:
            assert terminal(gnt(command)) == wanted, command
    assert kills == 1
    assert len(session) == 10
