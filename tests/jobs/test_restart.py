"""What a restart makes of the jobs that it finds, and of their files."""

from __future__ import annotations

import os
from typing import Any

from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.jobs import files, model
from ganeti_masterd.jobs.devices import Fate, NotedDevice
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import Job, OpState, new_job
from ganeti_masterd.jobs.restart import after_restart, restore
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.rows import JobRow
from tests.jobs.scene import QueueScene
from tests.test_decoding import NONSENSE

NOOP = {"OP_ID": "OP_TEST_DELAY", "duration": 1.0, "reason": []}


class RestartScene(QueueScene):
    """A queue's folder with files in it."""

    def found(self, job_id: int, *statuses: str, **parameters: Any) -> None:
        """Puts a job file there."""
        ops = tuple(OpState(input=NOOP | parameters, status=status) for status in statuses)
        self.put(job_id, model.encode_job(Job(id=job_id, ops=ops)))

    def put(self, job_id: int, body: bytes, archived: bool = False) -> None:
        path = self.folder.archived_job(job_id) if archived else self.folder.job(job_id)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(body)

    def restart(self, *, own: bool = True) -> None:
        """Loads what is there into a fresh queue."""
        self.make_queue()
        loaded = files.load(self.folder)
        files.set_aside(self.folder, RealDisk(), loaded.corrupt)
        self.successResultOf(restore(self.queue, loaded, own=own))


class RestartTests(RestartScene):
    """States (protocol/startup.rst, Stop)."""

    def test_devices(self) -> None:
        """A job that was cut off with devices on nodes runs until these are cleared away."""
        sent = {"dev_type": "drbd", "dynamic_params": {"local-minor": 3}}
        device = NotedDevice(node="u", node_name="node2", owner="web", fate=Fate.REMOVE, disk=sent)
        ops = (OpState(input=NOOP, status="running"), OpState(input=NOOP))
        found = model.note_devices(Job(id=1, ops=ops), [device])
        self.put(1, model.encode_job(found))
        self.found(2, "running")
        self.restart()
        self.assertEqual(self.queue.cut_off, [1])
        self.assertEqual([self.queue.jobs[n].status for n in (1, 2)], ["running", "error"])
        # With nobody to clear away, as when the queue is handed back, they are named. So they
        # are on a new master, whose configuration may be older than what is on the nodes.
        command = "gnt-cluster command -n node2 drbdsetup down resource3"
        self.put(1, model.encode_job(found))
        self.restart(own=False)
        self.assertEqual(self.queue.cut_off, [])
        for ended in (after_restart(found, 5.0), self.queue.jobs[1]):
            self.assertIn(f"DRBD minor 3 on node node2 ({command})", str(ended.ops[0].result))
            self.assertEqual((ended.status, ended.devices), ("error", UNSET))

    def test_drained(self) -> None:
        """A queue that was drained stays drained, and one that wasn't stays open."""
        self.restart()
        self.assertFalse(self.queue.drained)
        with open(self.folder.drain, "wb"):
            pass
        self.restart()
        self.assertTrue(self.queue.drained)

    def test_states(self) -> None:
        """Waiting jobs are queued again, running ones end in error, ended ones stay."""
        self.found(1, "queued")
        self.found(2, "waiting", "queued")
        self.found(3, "success", "running", "queued")
        self.found(4, "canceling")
        self.found(5, "success")
        self.found(6, "success", "queued")
        self.restart()
        self.assertEqual(
            [self.status(n) for n in range(1, 7)],
            ["queued", "queued", "error", "error", "success", "queued"],
        )
        ended = self.queue.jobs[3]
        self.assertEqual([op.status for op in ended.ops], ["success", "error", "error"])
        self.assertIn("stopped uncleanly", ended.ops[1].result[1][0])
        changed = {row.job_id for row in self.journal.rows if isinstance(row, JobRow)}
        self.assertEqual(changed, {2, 3, 4})
        self.start()
        self.assertEqual(self.runner.begun, [1, 2])

    def test_goes_on_in_the_middle(self) -> None:
        """A job between two opcodes goes on with the second."""
        self.found(6, "success", "queued")
        self.restart()
        self.assertEqual(self.queue.jobs[6].current, 1)

    def test_secrets(self) -> None:
        """A job whose secrets are gone can't go on, and says to submit again."""
        self.found(1, "queued", OP_ID="OP_TEST_OS_PARAMS", osparams_secret={"a": "<redacted>"})
        body = self.folder.job(1)
        with open(body, "rb") as file:
            content = file.read().replace(b'"duration":1.0,', b"")
        self.put(1, content)
        self.restart()
        self.assertEqual(self.status(1), "error")
        self.assertIn("submit it again", self.queue.jobs[1].ops[0].result[1][0])

    def test_secrets_of_opcodes_within(self) -> None:
        """The same holds where the secrets are in an opcode that another one contains."""
        inner = {"OP_ID": "OP_INSTANCE_CREATE", "osparams_secret": {"a": "<redacted>"}}
        op = {"OP_ID": "OP_INSTANCE_MULTI_ALLOC", "instances": [inner]}
        for values, lost in ((op, True), ({**op, "instances": [{"OP_ID": inner["OP_ID"]}]}, False)):
            job = after_restart(new_job(1, [values], 1.0), 2.0)
            self.assertEqual(job.status, "error" if lost else "queued")

    def test_opcode_that_makes_no_sense(self) -> None:
        """A job with an opcode that can't be understood ends in error; the start goes on."""
        self.found(1, "queued", OP_ID="OP_NOT_KNOWN")
        self.found(2, "queued")
        self.restart()
        self.assertEqual((self.status(1), self.status(2)), ("error", "queued"))

    def test_dependencies(self) -> None:
        """Dependencies hold over a restart, also on archived jobs and on lost ones."""
        self.found(1, "queued")
        self.found(2, "queued", depends=[[1, []]])
        self.found(3, "queued", depends=[[90, []]])
        done = Job(id=80, ops=(OpState(input=NOOP, status="success"),))
        self.put(80, model.encode_job(done), archived=True)
        self.found(4, "queued", depends=[[80, ["success"]]])
        self.restart()
        self.start()
        self.assertEqual(self.runner.begun, [1, 4])
        self.assertEqual(self.status(3), "error")
        self.finish(1)
        self.assertIn(2, self.runner.begun)
        self.assertEqual(self.queue.status_of(80), "success")
        self.finish(4)
        self.assertEqual((self.queue.status_of(80), len(self.queue.endings)), (None, 0))


class IdTests(RestartScene):
    """No id is given twice (protocol/queue.rst, Restart, take-over, hand-back)."""

    def next_id(self) -> int:
        self.restart()
        return self.submit_one()

    def test_above_everything(self) -> None:
        """The next id is above serial, queue, archive, corrupt files and the journal."""
        self.assertEqual(self.next_id(), 1)
        self.journal.reserved = 0
        self.put_serial(b"10\n")
        self.assertEqual(self.next_id(), 11)
        self.journal.reserved = 0
        self.found(20, "success")
        self.assertEqual(self.next_id(), 21)
        self.journal.reserved = 0
        self.put(30_000, b"x", archived=True)
        self.assertEqual(self.next_id(), 30_001)
        self.journal.reserved = 0
        self.put(40_000, b"not a job")
        self.assertEqual(self.next_id(), 40_001)
        self.journal.reserved = 50_000
        self.assertEqual(self.next_id(), 50_001)

    def test_bad_serial(self) -> None:
        """A serial that is no number is not relied upon."""
        self.found(7, "success")
        for content in (b"", b"seven", b"-3\n", b"\xff"):
            self.put_serial(content)
            self.journal.reserved = 0
            self.assertEqual(self.next_id(), 8)

    def put_serial(self, content: bytes) -> None:
        with open(self.folder.serial, "wb") as file:
            file.write(content)


class CorruptFileTests(RestartScene):
    """Files that can't be understood."""

    def test_set_aside(self) -> None:
        """A corrupt file is kept in the archive under a name of its own."""
        self.put(1, b"{")
        self.found(2, "queued")
        self.put(3, model.encode_job(Job(id=9, ops=(OpState(input=NOOP),))))
        self.restart()
        self.assertEqual(sorted(self.queue.jobs), [2])
        self.assertFalse(os.path.exists(self.folder.job(1)))
        with open(self.folder.corrupt_job(1), "rb") as file:
            self.assertEqual(file.read(), b"{")
        self.assertTrue(os.path.exists(self.folder.corrupt_job(3)))

    def test_nonsense(self) -> None:
        """Whatever a file holds, it is set aside, and in the archive passed over."""
        for job_id, body in enumerate(NONSENSE, 1):
            self.put(job_id, body)
            self.put(job_id + 100, body, archived=True)
        self.found(50, "queued")
        self.restart()
        self.assertEqual(sorted(self.queue.jobs), [50])
        for job_id in range(1, len(NONSENSE) + 1):
            self.assertTrue(os.path.exists(self.folder.corrupt_job(job_id)))
        self.assertEqual(self.folder.read_archived(range(101, 101 + len(NONSENSE))), {})


class FolderTests(SynchronousTestCase):
    """Paths and listings."""

    def test_missing_folder(self) -> None:
        """A folder that isn't there holds nothing."""
        folder = QueueFolder(self.mktemp())
        self.assertEqual(folder.live_ids(), [])
        self.assertEqual(folder.archive_folders(), [])
        self.assertEqual((folder.read_serial(), folder.highest_archived()), (0, 0))
        self.assertIsNone(folder.read(1))

    def test_layout(self) -> None:
        """Archived jobs lie in folders of ten thousand."""
        folder = QueueFolder("/q")
        self.assertEqual(folder.job(12), "/q/job-12")
        self.assertEqual(folder.archived_job(9_999), "/q/archive/0/job-9999")
        self.assertEqual(folder.archived_job(123_456), "/q/archive/12/job-123456")

    def test_other_names(self) -> None:
        """Names that are no job files are left alone."""
        path = self.mktemp()
        for number in ("x", "²", "3", "12"):
            os.makedirs(f"{path}/archive/{number}")
        for name in ("job-1", "job-3", "job-", "job-2.new", "serial", "job-004"):
            with open(os.path.join(path, name), "wb"):
                pass
        folder = QueueFolder(path)
        self.assertEqual(folder.live_ids(), [1, 3])
        self.assertEqual(folder.archive_folders(), [f"{path}/archive/12", f"{path}/archive/3"])
