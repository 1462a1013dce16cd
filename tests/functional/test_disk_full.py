"""The master's disk is full for a while: what can't be kept is refused, nothing else is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import need_root
from tests.functional.waiting import containing, job_is, jobs_end, until

DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0.01}
TAG = {"OP_ID": "OP_TAGS_SET", "kind": "cluster", "tags": ["full"], "name": None}


class Disk:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leaves no room at all."""
        with open(self._filler, "ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                return

    def make_room(self) -> None:
        """Takes away what filled it."""
        self._filler.unlink()


@pytest.fixture
def disk(folder: Path) -> Iterator[Disk]:
    """A file system of 8 MiB in memory, for the root of a daemon."""
    need_root("only root can mount a file system")
    root = folder / "node1"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(root)], check=True)
    try:
        yield Disk(root)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


@pytest.fixture
def daemon(disk: Disk) -> Iterator[DaemonProcess]:
    """A daemon on that file system, whose simulated nodes need no room."""
    with DaemonProcess(disk.folder, "--simulate-log=off") as made:
        yield made


def statuses(client: BlockingClient) -> dict[int, str]:
    """Returns the status of each job in the queue."""
    return dict(client.query_jobs(None, ["id", "status"]))


def submit_until_refused(client: BlockingClient) -> list[int]:
    """Submits jobs until one is refused; returns the others."""
    taken: list[int] = []
    with pytest.raises(JobQueueError, match="can't be written: database or disk is full"):
        submit(client, 1000, taken)
    return taken


def submit(client: BlockingClient, count: int, taken: list[int]) -> None:
    """Submits so many jobs, one after another, and adds each that is acknowledged."""
    for _ in range(count):
        taken.append(client.submit_job([{**DELAY, "comment": "x" * 2000}]))


def test_service_resumes(daemon: DaemonProcess, disk: Disk) -> None:
    """Submissions get an error until there is room; a job that ends meanwhile ends in order."""
    client = daemon.client()
    taken = [client.submit_job([DELAY]) for _ in range(10)]
    running = client.submit_job([{**DELAY, "duration": 1}])
    job_is(client, running, "running")
    disk.fill()
    taken += submit_until_refused(client)
    for opcode in (DELAY, TAG):
        with pytest.raises(JobQueueError):
            client.submit_job([opcode])
    assert client.config_values(["cluster_name"]) == ["cluster"]
    told = f"The end of job {running} can't be recorded"
    until("the log tells of the fault", daemon.log_text, containing(told))
    assert statuses(client)[running] == "running"

    disk.make_room()
    job_is(client, running, "success")
    taken += [running, client.submit_job([DELAY]), client.submit_job([TAG])]
    jobs_end(client)
    assert set(statuses(client).values()) == {"success"}
    assert sorted(statuses(client)) == sorted(taken)
    assert client.query_tags("cluster") == ["full"]
    assert len(set(taken)) == len(taken)
    for path in daemon.root.rglob("*.new"):
        raise AssertionError(f"{path} was left behind")


def test_killed_while_it_is_full(daemon: DaemonProcess, disk: Disk) -> None:
    """What was acknowledged before is there after the next start, and no more."""
    client = daemon.client()
    taken = [client.submit_job([DELAY]) for _ in range(10)]
    disk.fill()
    taken += submit_until_refused(client)
    daemon.kill()
    disk.make_room()
    daemon.start()
    again = daemon.client()
    # Those that ran have ended as errors.
    jobs_end(again)
    assert set(statuses(again).values()) <= {"success", "error"}
    assert sorted(statuses(again)) == sorted(taken)
    assert again.submit_job([DELAY]) > max(taken)


def test_started_while_it_is_full(daemon: DaemonProcess, disk: Disk) -> None:
    """A start without room is refused in words, and leaves the queue as it was."""
    client = daemon.client()
    taken = [client.submit_job([DELAY]) for _ in range(10)]
    jobs_end(client)
    assert set(statuses(client).values()) == {"success"}
    daemon.kill()
    disk.fill()
    daemon.launch()
    assert daemon.exit_code() == 1
    said = daemon.log_text().splitlines()[-1]
    assert said.startswith(f"gnt-masterd: The daemon can't work below {disk.folder}/var/lib/ganeti")
    assert said.endswith("No space left on device")
    disk.make_room()
    daemon.start()
    assert sorted(statuses(daemon.client())) == taken
