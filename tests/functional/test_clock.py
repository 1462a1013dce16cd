"""The wall clock is set while the daemon works: nothing waits for it, and nothing is early."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.testing.daemon import DaemonProcess

MakeDaemon = Callable[..., DaemonProcess]

HOUR = 3600.0

DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0.1}

#: A field's value is there.
NORMAL = 0

#: Python runs it first: the wall clock is as far off as a file says.
SHIFTED = """
import time
real = time.time
def shifted():
    with open({offset!r}) as file:
        return real() + float(file.read())
time.time = shifted
"""


class Clock:
    """The wall clock of a daemon, as far off from the machine's as it is set."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self.set(0.0)
        modules = folder / "modules"
        modules.mkdir()
        (modules / "sitecustomize.py").write_text(SHIFTED.format(offset=str(self._offset)))
        self.wrapper = ("env", f"PYTHONPATH={modules}")

    def set(self, seconds: float) -> None:
        """Sets it in one step."""
        new = self._offset.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._offset)


def ended(client: BlockingClient, job: int) -> list[Any]:
    """Waits for a job's end as clients do; returns its status and when that was."""
    state: list[Any] = []
    while not state or state[0] in ("queued", "waiting", "running"):
        state, _ = client.wait_for_job_change(job, ["status", "end_ts"], state or None, timeout=10)
    return state


@pytest.mark.parametrize("step", [-30 * 24 * HOUR, -HOUR, HOUR, 30 * 24 * HOUR])
def test_the_clock_is_set(folder: Path, make_daemon: MakeDaemon, step: float) -> None:
    """Jobs that run or wait, and clients that wait for them, take no notice of it."""
    clock = Clock(folder)
    with make_daemon(wrapper=clock.wrapper) as daemon, daemon.client() as client:
        begun = time.monotonic()
        opcode = {**DELAY, "duration": 1.5, "on_nodes": ["node1"], "no_locks": False}
        first, second = (client.submit_job([opcode]) for _ in range(2))
        clock.set(step)
        third = client.submit_job([opcode])
        ends = [ended(client, job) for job in (first, second, third)]
        took = time.monotonic() - begun

        assert [status for status, _ in ends] == ["success"] * 3
        assert took >= 3 * 1.5
        assert first < second < third
        # The stamps tell what the clock told.
        assert abs(ends[2][1][0] - (time.time() + step)) < 30
        # Calls to nodes, whose time would be up, and queries.
        rows = client.query("node", ["name", "mfree"])["data"]
        assert all(status == NORMAL and value for row in rows for status, value in row)

        daemon.kill()
        clock.set(-step)
        daemon.start()
        with daemon.client() as again:
            assert again.submit_job([DELAY]) > third
