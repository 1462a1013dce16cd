"""The documentation's monitor of events, as a program beside a daemon that comes and goes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.waiting import containing, equal_to, job_is, until

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "failures.py"

FAILING = {"OP_ID": "OP_INSTANCE_STARTUP", "instance_name": "nobody"}


def test_prints_failures(make_daemon: Callable[..., DaemonProcess], folder: Path) -> None:
    """A job that fails is printed with its error, also after the daemon was killed and is back."""
    socket = folder / "events"
    daemon = make_daemon(f"--monitoring=unix:{socket}")
    daemon.start()
    printed = folder / "printed"

    def text() -> str:
        return printed.read_text("utf-8")

    def fails() -> None:
        client = daemon.client()
        job = client.submit_job([FAILING])
        job_is(client, job, "error")
        until("the failure", text, containing(f"Job {job} failed: Instance 'nobody' not known\n"))

    with printed.open("wb") as out:
        monitor = subprocess.Popen(
            [sys.executable, str(EXAMPLE), f"unix:{socket}"], stdout=out, stderr=out
        )
    try:
        until("it looks", text, containing("Watching cluster"))
        fails()
        daemon.kill()
        until("the loss", text, containing("lost"))
        daemon.start()
        until("it looks again", lambda: text().count("Watching cluster"), equal_to(2))
        fails()
        assert monitor.poll() is None
    finally:
        monitor.kill()
        monitor.wait()
