"""A disk that doesn't answer: the daemon says so, serves what it can, and stops all the same.

In the place of a file that the daemon is to write there is a FIFO that nobody reads: opening it
hangs, as a system call does when a disk or a file server is gone. The daemon here has seconds of
patience instead of a minute; all else is as anywhere.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.journal.files import TEMPORARY_SUFFIX
from ganeti_masterd.luxi.failures import CallFailed
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.crashing import journal_rows
from tests.functional.waiting import containing, jobs_end, until

#: The wrapper that makes the daemon impatient.
IMPATIENT = str(Path(__file__).with_name("impatient.py"))
PATIENCE = 3

TAGS = {"OP_ID": "OP_TAGS_SET", "kind": "cluster", "name": None}
DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0.001}


class Site:
    """A daemon with its page of status, whose config.data can be made to hang."""

    def __init__(self, daemon: DaemonProcess, page: Path) -> None:
        self.daemon = daemon
        self.page = page
        self.fifo = daemon.paths.config + TEMPORARY_SUFFIX

    def ask(self, path: str) -> tuple[int, str]:
        """Returns the code and the body of a page."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30.0)
            client.connect(str(self.page))
            client.sendall(b"GET %b HTTP/1.0\r\n\r\n" % path.encode())
            with client.makefile("rb") as answer:
                head, _, body = answer.read().partition(b"\r\n\r\n")
        return int(head.split()[1]), body.decode()

    def faults(self) -> list[str]:
        """Returns what /status says is wrong."""
        faults: list[str] = json.loads(self.ask("/status")[1])["faults"]
        return faults

    @contextmanager
    def hanging(self, tag: str) -> Iterator[None]:
        """Lets the disk hang as config.data is to be written, once ``tag`` was acknowledged."""
        os.mkfifo(self.fifo)
        with self.daemon.client() as client:
            client.submit_job([{**TAGS, "tags": [tag]}])
            # The job ends with a commit, which comes before the files.
            jobs_end(client)
        until("the disk hangs", self.faults, lambda found: found != [])
        yield

    def let_go(self) -> None:
        """The disk goes on: what hangs fails, as this is no file, and the next try finds room."""
        reader = os.open(self.fifo, os.O_RDONLY | os.O_NONBLOCK)
        until("it is gone", lambda: os.path.exists(self.fifo), lambda there: not there)
        os.close(reader)

    def tags(self) -> list[str]:
        """Returns the tags that config.data has."""
        document = json.loads(Path(self.daemon.paths.config).read_bytes())
        tags: list[str] = document["cluster"]["tags"]
        return tags


@pytest.fixture
def site(make_daemon: Callable[..., Any], folder: Path) -> Site:
    """A daemon that waits for its disk for seconds."""
    page = folder / "page"
    wrapper = [sys.executable, IMPATIENT, str(PATIENCE)]
    daemon = make_daemon(f"--monitoring=unix:address={page}", wrapper=wrapper)
    daemon.start()
    site = Site(daemon, page)
    assert site.faults() == []
    return site


def test_served_and_told(site: Site) -> None:
    """What hangs is named, questions are answered, jobs are refused; then all goes on."""
    with site.hanging("hangs"):
        [fault] = site.faults()
        named = rf"The disk does not answer: writing {re.escape(site.fifo)} has not ended since"
        assert re.fullmatch(named + r" \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \(\d+ s\)", fault)
        assert site.ask("/healthz")[0] == 503
        seconds = re.search(
            r'^ganeti_disk_work_seconds\{thread="journal"\} (.*)$', site.ask("/metrics")[1], re.M
        )
        assert seconds is not None
        assert float(seconds[1]) >= PATIENCE
        until("it is in the log", site.daemon.log_text, containing("The disk does not answer"))
        with site.daemon.client() as client:
            assert client.call("QueryTags", "cluster", "") == ["hangs"]
            with pytest.raises(JobQueueError, match=r"has not ended since .* Submit again"):
                client.submit_job([DELAY])
        assert site.tags() == []
    site.let_go()
    until("the fault is over", site.faults, lambda found: found == [])
    until("config.data follows", site.tags, lambda tags: tags == ["hangs"])
    until("the end is in the log", site.daemon.log_text, containing("The disk answers again"))
    assert site.daemon.log_text().count("The disk does not answer") == 1
    with site.daemon.client() as client:
        client.submit_job([DELAY])
        jobs_end(client)
    assert site.daemon.stop() == -signal.SIGTERM
    assert journal_rows(site.daemon) == []


def test_acknowledged_late(site: Site) -> None:
    """A submission that comes as the disk hangs is acknowledged when it is durable, not before."""
    os.mkfifo(site.fifo)
    with site.daemon.client() as client:
        client.submit_job([{**TAGS, "tags": ["hangs"]}])
        jobs_end(client)
        until("the disk is at it", seconds_of(site), lambda seconds: seconds > 0.5)
        with site.daemon.client(timeout=1.0) as impatient, pytest.raises(CallFailed):
            impatient.submit_job([DELAY])
        until("the disk hangs", site.faults, lambda found: found != [])
        site.let_go()
        until("both are there", lambda: client.query_jobs(None, ["status"]), both_ended)


def both_ended(rows: list[Any]) -> bool:
    return rows == [["success"]] * 2


def seconds_of(site: Site) -> Callable[[], float]:
    """Returns a function that says for how long the disk has been at what it does."""

    def seconds() -> float:
        found = re.search(r'work_seconds\{thread="journal"\} (.*)$', site.ask("/metrics")[1], re.M)
        assert found is not None
        return float(found[1])

    return seconds


def test_stop(site: Site) -> None:
    """A stop while the disk hangs has an end, says why, and loses nothing acknowledged."""
    with site.hanging("hangs"):
        assert site.daemon.stop() == 1
    log = site.daemon.log_text()
    assert f"the daemon stops without that: writing {site.fifo} has not ended" in log
    assert journal_rows(site.daemon) != []
    site.daemon.start()
    with site.daemon.client() as client:
        assert client.call("QueryTags", "cluster", "") == ["hangs"]
    assert site.tags() == ["hangs"]
    assert site.faults() == []
