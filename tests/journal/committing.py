"""A process that commits until it is killed, and says on stdout what was acknowledged.

Its arguments: the root directory. Each line: ``job id, n, configuration, reserved``.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import react

from ganeti_masterd.journal.clerk import Clerk
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.following import EncodedImage
from ganeti_masterd.journal.journal import Journal
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.recovery import Recovered, recover
from ganeti_masterd.journal.rounds import FollowingPace
from ganeti_masterd.journal.rows import ConfigRow, LogRow, SerialRow
from ganeti_masterd.journal.thread import DiskThread
from ganeti_masterd.timing import Timers
from tests.journal.scene import IDENTITY, check_job, encode_config, job, merge_config, merge_log


def opened(root: str) -> Recovered:
    """Returns the journal below a root directory."""
    return recover(
        f"{root}/masterd/journal.db",
        identity=IDENTITY,
        files=QueueFiles(f"{root}/queue", f"{root}/config.data"),
        disk=RealDisk(),
        merge_log=merge_log,
        check_job=check_job,
        merge_config=merge_config,
        now=time.time,
    )


def locked(root: str) -> int:
    """Waits until no process, nor its clerk, has the lock; returns the descriptor that has it."""
    lock = os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


@inlineCallbacks
def commit_for_ever(reactor: Any, root: str) -> Any:
    """Eight committers with a job each, until the process is killed."""
    lock = locked(root)
    recovered = opened(root)
    thread = DiskThread(reactor)
    config = msgspec.json.decode(recovered.disk.read(recovered.files.config) or b"{}")
    journal = Journal(
        recovered,
        thread,
        Timers(reactor),
        pace=FollowingPace(pause=0.001, config_interval=0.005),
        job_files=Clerk(thread.resume, keep=[lock], worth=1),
    )
    journal.config_from(lambda: EncodedImage(encode_config(config)))
    journal.start()
    count = max(config.values(), default=0)

    def committer() -> Any:
        nonlocal count
        job_id = journal.reserved + 1
        yield journal.commit([SerialRow(job_id)])
        while True:
            count += 1
            n = count
            rows = [ConfigRow("", str(job_id), b"%d" % n), LogRow(job_id, 0, b"1"), job(job_id, n)]
            yield journal.commit(rows, lambda n=n: config.__setitem__(str(job_id), n))
            sys.stdout.write(f"{job_id} {n}\n")
            sys.stdout.flush()

    for _ in range(8):
        inlineCallbacks(committer)()
        yield journal.settle()
    yield Deferred()


if __name__ == "__main__":
    react(commit_for_ever, sys.argv[1:])
