"""Clients that ask for a long answer and go away: the daemon stops working for them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from bench.queues import full_queue
from ganeti_masterd.luxi.messages import encode_request
from ganeti_masterd.testing.daemon import DaemonProcess

JOBS = 30_000
LOST = 20

FIELDS = ["id", "status", "ops", "oplog", "opresult"]

#: A daemon that uses less than that of the processor in that time is at rest, both in seconds.
REST = 0.05
WHILE = 1.0


def processor_time(daemon: DaemonProcess) -> float:
    """Returns the seconds of the processor that the daemon has used."""
    fields = Path(f"/proc/{daemon.pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def at_rest(daemon: DaemonProcess, limit: float = 60.0) -> float:
    """Waits until the daemon has nothing to do; returns the processor time used by then."""
    until = time.monotonic() + limit
    used = processor_time(daemon)
    while time.monotonic() < until:
        time.sleep(WHILE)
        before, used = used, processor_time(daemon)
        if used - before < REST:
            return used
    raise AssertionError(f"the daemon is still at work after {limit:g} s")


def test_long_answers(make_daemon: Callable[..., DaemonProcess], folder: Path) -> None:
    """Twenty answers that nobody waits for cost less than six that somebody reads."""
    full_queue(0, JOBS)(folder / "node1")
    daemon = make_daemon()
    daemon.start(60.0)
    begun = at_rest(daemon)
    with daemon.client(60.0) as master:
        assert len(master.query_jobs(None, FIELDS)) == JOBS
    whole = at_rest(daemon) - begun
    question = encode_request("QueryJobs", [None, FIELDS]) + b"\x03"
    begun = at_rest(daemon)
    for _ in range(LOST):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(daemon.socket)
            client.sendall(question)
            time.sleep(0.05)
    lost = at_rest(daemon) - begun
    print(f"{whole:.2f} s for one that is read, {lost:.2f} s for {LOST} that are lost")
    assert lost < 6 * whole
    assert "Traceback" not in daemon.log_text()
