"""Jobs of luxid that live on, and files made fit for whoever comes next."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.handback import HandedBack, hand_back
from ganeti_masterd.jobs.model import Job, OpState, decode_job
from ganeti_masterd.jobs.takeover import LivingJob, is_locked, living
from ganeti_masterd.journal.disk import RealDisk

NOOP = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0, "reason": []}


def job(job_id: int, *statuses: str, **attributes: Any) -> Job:
    """Returns a job whose opcodes have these statuses."""
    ops = tuple(OpState(input=NOOP, status=status) for status in statuses)
    return Job(id=job_id, ops=ops, **attributes)


class LivingTests(SynchronousTestCase):
    """Which jobs another process runs."""

    def test_living(self) -> None:
        """Unfinished jobs whose livelock is held, by id; the others are dead or ours."""
        jobs = [
            job(5, "running", livelock="/held", process_id=77),
            job(1, "waiting", livelock="/held", process_id=None),
            job(2, "running", livelock="/free", process_id=78),
            job(3, "success", livelock="/held", process_id=79),
            job(4, "running"),
            job(6, "queued", livelock=None),
        ]
        found = living(jobs, lambda path: path == "/held")
        self.assertEqual(
            found,
            [LivingJob(1, "waiting", "/held", None), LivingJob(5, "running", "/held", 77)],
        )
        self.assertEqual(list(map(str, found)), ["job 1 (waiting)", "job 5 (running, process 77)"])

    def test_is_locked(self) -> None:
        """A POSIX lock of another process counts; no file, or none on it, means dead."""
        path = os.path.abspath(self.mktemp())
        self.assertFalse(is_locked(path))
        with open(path, "wb"):
            pass
        self.assertFalse(is_locked(path))
        holder = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); "
                "print('held', flush=True); sys.stdin.read()",
                path,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None
            self.assertEqual(holder.stdout.readline(), b"held\n")
            self.assertTrue(is_locked(path))
            self.assertTrue(is_locked(path))
        finally:
            holder.communicate(timeout=10)
        self.assertFalse(is_locked(path))


class HandBackTests(SynchronousTestCase):
    """The queue's files after a daemon that died."""

    def setUp(self) -> None:
        self.folder = QueueFolder(os.path.abspath(self.mktemp()))
        os.makedirs(self.folder.queue + "/archive")

    def put(self, found: Job) -> None:
        with open(self.folder.job(found.id), "wb") as file:
            file.write(model.encode_job(found))

    def run_it(self) -> HandedBack:
        return hand_back(self.folder, RealDisk(), 1000.0, lambda path: path == "/held")

    def states(self) -> dict[int, str]:
        found = {}
        for job_id in self.folder.live_ids():
            with open(self.folder.job(job_id), "rb") as file:
                found[job_id] = decode_job(file.read()).status
        return found

    def test_states(self) -> None:
        """Only queued and finished jobs are left; what luxid still runs is as it was."""
        for found in (
            job(1, "queued"),
            job(2, "waiting", "queued"),
            job(3, "success", "running"),
            job(4, "canceling"),
            job(5, "success"),
            job(6, "running", livelock="/held", process_id=7),
            job(7, "running", livelock="/free", process_id=8),
        ):
            self.put(found)
        with open(self.folder.job(8), "wb") as file:
            file.write(b"{")
        done = self.run_it()
        self.assertEqual(
            self.states(),
            {
                1: "queued",
                2: "queued",
                3: "error",
                4: "error",
                5: "success",
                6: "running",
                7: "error",
            },
        )
        self.assertEqual(
            done.changed,
            [
                (2, "waiting", "queued"),
                (3, "running", "error"),
                (4, "canceling", "error"),
                (7, "running", "error"),
            ],
        )
        self.assertEqual((done.corrupt, [one.job_id for one in done.living]), ([8], [6]))
        self.assertTrue(os.path.exists(self.folder.corrupt_job(8)))

    def test_twice(self) -> None:
        """A second run has nothing to do."""
        self.put(job(2, "waiting"))
        self.run_it()
        self.assertEqual(self.run_it(), HandedBack([], [], []))

    def test_secrets(self) -> None:
        """A job whose secrets are gone ends in error: nobody may run it with what stands there."""
        op = {"OP_ID": "OP_TEST_OS_PARAMS", "osparams_secret": {"a": "<redacted>"}}
        self.put(Job(id=1, ops=(OpState(input=op),)))
        self.run_it()
        self.assertEqual(self.states(), {1: "error"})

    def test_opcode_of_another_version(self) -> None:
        """An opcode that this daemon doesn't know is left to those who do."""
        self.put(Job(id=1, ops=(OpState(input={"OP_ID": "OP_LATER"}),)))
        self.assertEqual(self.run_it().changed, [])
        self.assertEqual(self.states(), {1: "queued"})
