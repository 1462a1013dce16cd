"""``gnt-luxi recover`` on the files of a simulated cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli.main import program
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import Job, OpState, decode_job
from ganeti_masterd.journal.rows import JobRow
from ganeti_masterd.journal.writing import JournalWriting
from ganeti_masterd.startup import locks, simulated_root
from ganeti_masterd.startup.locks import LockedFile
from ganeti_masterd.startup.paths import Paths
from tests.startup.scene import recovered

NOOP = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0, "reason": []}


class RecoverTests(SynchronousTestCase):
    """The command, in this process."""

    def setUp(self) -> None:
        # A short path, because sockets are below the root.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.paths = Paths(folder.name)
        simulated_root.prepare(self.paths, 2)
        self.folder = QueueFolder(self.paths.queue)

    def run_it(self, *args: str, place: Any = None) -> Result:
        where = place or ("--root", self.paths.root)
        return CliRunner().invoke(program, [*where, "recover", *args])

    def job(self, job_id: int, status: str) -> Job:
        return Job(id=job_id, ops=(OpState(input=NOOP, status=status),))

    def put(self, *jobs: Job) -> None:
        for job in jobs:
            with open(self.folder.job(job.id), "wb") as file:
                file.write(model.encode_job(job))

    def in_journal(self, *jobs: Job) -> None:
        """Leaves jobs in the journal, like a daemon that was killed."""
        writing = JournalWriting(recovered(self.paths))
        writing.append(
            [(n, JobRow(job.id, model.encode_job(job))) for n, job in enumerate(jobs, 1)]
        )
        writing.close()

    def status(self, job_id: int) -> str:
        with open(self.folder.job(job_id), "rb") as file:
            return decode_job(file.read()).status

    def test_in_order(self) -> None:
        """A queue that is in order isn't changed."""
        self.put(self.job(1, "queued"), self.job(2, "success"))
        result = self.run_it()
        self.assertEqual((result.exit_code, result.output), (0, "The queue is in order\n"))

    def test_after_a_crash(self) -> None:
        """The journal is written to the files, and only queued and finished jobs are left."""
        self.put(self.job(1, "waiting"))
        self.in_journal(self.job(2, "running"), self.job(3, "queued"))
        result = self.run_it()
        self.assertEqual(
            (result.exit_code, result.output),
            (
                0,
                "2 changes of the journal written to the files\n"
                "Job 1 was waiting, is queued\n"
                "Job 2 was running, is error\n",
            ),
        )
        self.assertEqual([self.status(n) for n in (1, 2, 3)], ["queued", "error", "queued"])
        self.assertEqual(self.run_it().output, "The queue is in order\n")

    def test_json(self) -> None:
        """With --json the output is one document with everything that was done."""
        self.put(self.job(1, "running"))
        with open(self.folder.job(2), "wb") as file:
            file.write(b"{")
        document = json.loads(self.run_it("--json").output)
        self.assertEqual(
            document,
            {
                "replayed": 0,
                "dropped": None,
                "lost": [],
                "jobs": [{"id": 1, "before": "running", "now": "error"}],
                "corrupt": [2],
                "living": [],
            },
        )

    def contradict(self) -> None:
        """Makes another daemon change a job that the journal changed too."""
        self.put(self.job(1, "queued"))
        self.in_journal(self.job(1, "running"))
        self.put(self.job(1, "success"))

    def test_contradiction(self) -> None:
        """A journal that contradicts the files is set aside, and nothing else is done."""
        self.contradict()
        for _ in range(2):
            result = self.run_it()
            self.assertEqual(result.exit_code, 1)
            self.assertIn("was set aside", result.output)
            self.assertIn("1 (running)", result.output)
            self.assertIn("--keep", result.output)
            self.assertEqual(self.status(1), "success")

    def test_keep_files(self) -> None:
        """With --keep files the journal stays beside them under another name."""
        self.contradict()
        self.run_it()
        result = self.run_it("--keep", "files")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("is kept as", result.output)
        self.assertEqual(self.status(1), "success")
        self.assertEqual(self.run_it().output, "The queue is in order\n")

    def test_keep_journal(self) -> None:
        """With --keep journal it is written over the files, and jobs are restarted as usual."""
        self.contradict()
        result = self.run_it("--keep", "journal")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(self.status(1), "error")
        self.assertEqual(self.run_it().output, "The queue is in order\n")

    def test_daemon_runs(self) -> None:
        """While a master daemon is running nothing is changed."""
        self.patch(locks, "TRIES", 0)
        self.put(self.job(1, "running"))
        script = (
            "import sys; from ganeti_masterd.startup.locks import LockedFile; "
            "lock = LockedFile(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", script, self.paths.queue_lock],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            result = self.run_it()
        finally:
            holder.communicate(timeout=10)
        self.assertEqual(result.exit_code, 1)
        self.assertIn("stop the master daemon first", result.output)
        self.assertEqual(self.status(1), "running")

    def test_nothing_there(self) -> None:
        """A folder without a cluster, or a socket alone, is refused with a message."""
        result = self.run_it(place=("--root", self.paths.root + "/nowhere"))
        self.assertEqual(result.exit_code, 1)
        self.assertIn("No such file", result.output)
        result = self.run_it(place=("--socket", "/nowhere"))
        self.assertEqual(result.exit_code, 1)
        self.assertIn("--root", result.output)

    def test_damaged_journal(self) -> None:
        """A damaged journal is named in the error, and the files aren't changed."""
        self.put(self.job(1, "running"))
        os.makedirs(os.path.dirname(self.paths.journal), exist_ok=True)
        with open(self.paths.journal, "wb") as file:
            file.write(b"this is not SQLite" * 100)
        result = self.run_it()
        self.assertEqual(result.exit_code, 1)
        self.assertIn(self.paths.journal.removesuffix("db") + "set-aside-", result.output)
        self.assertIn("lost: SQLite can't read it", result.output)
        self.assertEqual(self.status(1), "running")
        result = self.run_it("--keep", "journal")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("Lost with the damaged journal: SQLite can't read it", result.output)
        self.assertIn(".dropped", result.output)
        self.assertEqual(self.status(1), "error")

    def test_locks_are_free_after(self) -> None:
        """After success and after failure, a daemon can start."""
        self.run_it()
        self.contradict()
        self.run_it()
        LockedFile(self.paths.queue_lock).release()
