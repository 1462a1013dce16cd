"""The process for job files is stopped by SIGSTOP: the daemon serves on, says so, and stops.

The daemon here has seconds of patience instead of a minute; all else is as anywhere.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.crashing import clerk_of, journal_rows
from tests.functional.waiting import containing, jobs_end, process_ends, until

#: The wrapper that makes the daemon impatient.
IMPATIENT = str(Path(__file__).with_name("impatient.py"))
PATIENCE = 6
#: So many jobs that their files are worth a process.
BURST = 300

OPCODE = {"OP_ID": "OP_TEST_DELAY", "duration": 0.001, "no_locks": True}


class Site:
    """A daemon with its page of status."""

    def __init__(self, daemon: DaemonProcess, page: Path) -> None:
        self.daemon = daemon
        self.page = page
        self.acknowledged: list[int] = []

    def burst(self, client: BlockingClient) -> None:
        """Submits many jobs in a request; each must be acknowledged."""
        for accepted, job in client.submit_many_jobs([[OPCODE]] * BURST):
            assert accepted, job
            self.acknowledged.append(job)

    def faults(self) -> list[str]:
        """Returns what /status says is wrong."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30.0)
            client.connect(str(self.page))
            client.sendall(b"GET /status HTTP/1.0\r\n\r\n")
            with client.makefile("rb") as answer:
                body = answer.read().partition(b"\r\n\r\n")[2]
        faults: list[str] = json.loads(body)["faults"]
        return faults

    def files(self) -> dict[int, str]:
        """Returns the status that each job file of an acknowledged job has."""
        queue = Path(self.daemon.paths.queue)
        found = {}
        for job in self.acknowledged:
            path = queue / f"job-{job}"
            if path.exists():
                found[job] = json.loads(path.read_bytes())["ops"][0]["status"]
        return found

    def all_written(self) -> dict[int, str]:
        """Returns what the files should say once they have followed."""
        return dict.fromkeys(self.acknowledged, "success")

    def assert_all_there(self) -> None:
        """Asserts that a daemon started again knows every acknowledged job and its result."""
        self.daemon.start()
        with self.daemon.client() as client:
            rows = client.query_jobs(self.acknowledged, ["status"])
        assert rows == [["success"]] * len(self.acknowledged)
        assert self.faults() == []


@pytest.fixture
def site(make_daemon: Callable[..., Any], folder: Path) -> Site:
    """A daemon whose process for job files has been at work and is stopped now."""
    page = folder / "page"
    wrapper = [sys.executable, IMPATIENT, str(PATIENCE)]
    daemon = make_daemon(f"--monitoring=unix:address={page}", wrapper=wrapper)
    daemon.start()
    site = Site(daemon, page)
    with daemon.client() as client:
        site.burst(client)
        jobs_end(client)
    until("the files follow", site.files, lambda files: files == site.all_written())
    assert site.faults() == []
    return site


def stopped_clerk(site: Site) -> int:
    """Stops the process for job files by SIGSTOP; returns which it is."""
    clerk = clerk_of(site.daemon)
    assert clerk is not None
    os.kill(clerk, signal.SIGSTOP)
    return clerk


def test_served_and_told(site: Site) -> None:
    """Jobs are acknowledged and run; /status and log say what hangs; then files follow again."""
    clerk = stopped_clerk(site)
    with site.daemon.client() as client:
        site.burst(client)
        until("/status says so", site.faults, lambda found: "does not answer" in "".join(found))
        assert site.files() != site.all_written()
        # While it hangs, others are served, and what they are told is true.
        site.burst(client)
        jobs_end(client)
        rows = client.query_jobs(site.acknowledged, ["status"])
        assert rows == [["success"]] * len(site.acknowledged)
    process_ends(clerk)
    until("the files follow", site.files, lambda files: files == site.all_written())
    [fault] = site.faults()
    assert fault == (
        "Job files are written more slowly: their process did not answer for "
        f"{PATIENCE} s and was killed"
    )
    until("it is in the log", site.daemon.log_text, containing("did not answer for 6 s and was"))
    site.daemon.stop()
    assert journal_rows(site.daemon) == []
    site.assert_all_there()


def test_clean_stop(site: Site) -> None:
    """A stop has an end, with all that was acknowledged in its files."""
    clerk = stopped_clerk(site)
    with site.daemon.client() as client:
        site.burst(client)
        jobs_end(client)
    assert site.files() != site.all_written()
    assert site.daemon.stop() == -signal.SIGTERM
    process_ends(clerk)
    assert site.files() == site.all_written()
    assert journal_rows(site.daemon) == []
    site.assert_all_there()


def test_stopped_while_idle(site: Site) -> None:
    """A stop has an end also if the process has nothing to do."""
    clerk = stopped_clerk(site)
    assert site.daemon.stop() == -signal.SIGTERM
    process_ends(clerk)
    site.assert_all_there()


def test_killed(site: Site) -> None:
    """A kill of the daemon takes the stopped process along, and loses nothing acknowledged."""
    clerk = stopped_clerk(site)
    with site.daemon.client() as client:
        site.burst(client)
        jobs_end(client)
    site.daemon.kill()
    process_ends(clerk)
    assert site.files() != site.all_written()
    site.assert_all_there()
