"""A real daemon whose journal is damaged, or taken away from it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.testing.daemon import DaemonFailed, DaemonProcess
from tests.functional.waiting import until

MakeDaemon = Callable[..., DaemonProcess]

DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0.01}


def flip(path: Path, place: int) -> None:
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def recover(daemon: DaemonProcess, *options: str, code: int = 0) -> str:
    """Runs ``gnt-luxi recover``; returns what it says."""
    luxi = str(Path(sys.executable).parent / "gnt-luxi")
    done = daemon.tool([luxi, "--root", str(daemon.root), "recover", *options])
    assert done.returncode == code, done
    return done.stdout + done.stderr


def refused(daemon: DaemonProcess) -> str:
    """Starts a daemon in vain; returns what it printed then."""
    before = len(daemon.log_text())
    with pytest.raises(DaemonFailed):
        daemon.start()
    said = daemon.log_text()[before:]
    assert "Traceback" not in said
    return said


def files(daemon: DaemonProcess) -> dict[str, bytes]:
    """Returns what the queue and the configuration are on disk."""
    paths = [Path(daemon.paths.config), *Path(daemon.paths.queue).glob("job-*")]
    return {path.name: path.read_bytes() for path in paths}


def test_a_damaged_log_is_said_and_what_can_be_saved_is(make_daemon: MakeDaemon) -> None:
    """One bit in SQLite's log: nothing is replayed until it is decided, and then all but that."""
    with make_daemon() as daemon:
        # Many at once, so that most are in the journal alone when it is killed.
        jobs = [job for _, job in daemon.client().submit_many_jobs([[DELAY]] * 300)]
        daemon.kill()
    flip(Path(daemon.paths.journal + "-wal"), 3 * 4120)
    before = files(daemon)
    said = refused(daemon)
    assert "the journal is set aside: it is damaged" in said
    assert files(daemon) == before
    said = recover(daemon, code=1)
    assert "Rows that can be read" in said
    named = {int(number) for number in re.findall(r"(\d+) \(queued\)", said)}
    said = recover(daemon, "--keep", "journal")
    assert "is kept as" in said
    with daemon:
        found = dict(daemon.client().query_jobs(None, ["id", "status"]))
        assert named <= set(found)
        lost = set(jobs) - set(found)
        assert not lost or "Lost with the damaged journal" in said
        assert daemon.client().submit_job([DELAY]) > max(jobs)


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_journal_that_is_removed_is_noticed(make_daemon: MakeDaemon, suffix: str) -> None:
    """Nothing more is acknowledged, the log says why; the next start has all that was."""
    with make_daemon() as daemon:
        client = daemon.client()
        jobs = [client.submit_job([DELAY]) for _ in range(3)]
        path = Path(daemon.paths.journal + suffix)
        path.unlink()
        for _ in range(2):
            with pytest.raises(JobQueueError, match="file was removed"):
                client.submit_job([DELAY])
        assert "Commits fail: the journal can't be written: [Errno 116]" in daemon.log_text()
        names = {f"job-{job}" for job in jobs}
        until("the files have them", lambda: set(files(daemon)), lambda found: names <= found)
        daemon.kill()
        start_or_decide(daemon)
        found: dict[int, Any] = dict(daemon.client().query_jobs(None, ["id", "status"]))
        assert set(jobs) <= set(found)
        daemon.client().submit_job([DELAY])


def start_or_decide(daemon: DaemonProcess) -> None:
    """Starts; where rows may be missing, that is said, and the files are chosen first."""
    try:
        daemon.start()
    except DaemonFailed:
        assert "missing" in recover(daemon, code=1)
        recover(daemon, "--keep", "files")
        daemon.start()


def test_whatever_config_data_holds(make_daemon: MakeDaemon) -> None:
    """A configuration with a changed byte is refused by name, or loaded; never a traceback."""
    with make_daemon() as daemon:
        daemon.stop()
    config = Path(daemon.paths.config)
    good = config.read_bytes()
    for place in (0, len(good) // 2, len(good) - 2):
        flip(config, place)
        changed = config.read_bytes()
        try:
            json.loads(changed)
        except ValueError:
            assert str(config) in refused(daemon)
        assert config.read_bytes() == changed
        config.write_bytes(good)
    with daemon:
        pass
