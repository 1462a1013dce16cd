"""Journals that don't fit: set aside whole, listed, in the way until the operator decides."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import encode_error
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.examination import Examined
from ganeti_masterd.journal.faults import JournalError, JournalSetAside
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.recovery import Identity, Recovered, recover
from ganeti_masterd.journal.rows import ConfigRow, JobRow, LogRow, Row, SerialRow
from ganeti_masterd.journal.setaside import (
    SPARE_IDS,
    Resolved,
    SetAsideDecision,
    resolve,
    standing,
    unused_from,
)
from ganeti_masterd.journal.store import Entries, JobEntry, JournalHeader, SerialEntry
from tests.journal.scene import IDENTITY, check_job, job, merge_config, merge_log, put
from tests.test_decoding import NONSENSE


def document(*statuses: str) -> bytes:
    """Returns a job's document with opcodes in these states."""
    return msgspec.json.encode({"ops": [{"status": status} for status in statuses], "log": []})


class SetAsideTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = os.path.realpath(self.mktemp())
        os.makedirs(os.path.join(self.root, "queue"))
        self.files = QueueFiles(f"{self.root}/queue", f"{self.root}/config.data")
        self.path = f"{self.root}/masterd/journal.db"
        self.disk = RealDisk()
        put(self.disk, self.files.config, b"{}")
        put(self.disk, self.files.serial, b"5\n")

    def recover(self, identity: Identity = IDENTITY) -> Recovered:
        recovered = recover(
            self.path,
            identity=identity,
            files=self.files,
            disk=self.disk,
            merge_log=merge_log,
            check_job=check_job,
            merge_config=merge_config,
            now=lambda: 1_000_000_000.0,
        )
        self.addCleanup(recovered.store.close)
        return recovered

    def crash_with(self, rows: Sequence[Row]) -> None:
        recovered = self.recover()
        recovered.store.append(recovered.chain.link(enumerate(rows, 1)))
        recovered.store.close()

    def set_aside(self, *rows: Row) -> JournalSetAside:
        """Leaves rows in a journal, lets another daemon work, and opens again."""
        self.crash_with(rows)
        put(self.disk, self.files.config, b'{"else":1}')
        return self.assertRaises(JournalSetAside, self.recover)

    def names(self) -> list[str]:
        """Returns what is in the journal's folder, without the marks."""
        return sorted(n for n in os.listdir(f"{self.root}/masterd") if not n.endswith(".tip"))

    def resolve(self, path: str, decision: SetAsideDecision) -> Resolved:
        return resolve(
            path,
            decision,
            disk=self.disk,
            files=self.files,
            merge_log=merge_log,
            check_job=check_job,
            merge_config=merge_config,
        )

    def test_set_aside(self) -> None:
        """The whole journal goes aside, named by its time, and nothing of it is replayed."""
        error = self.set_aside(job(1, 1), SerialRow(50))
        self.assertEqual(error.path, f"{self.root}/masterd/journal.set-aside-20010909T014640Z")
        self.assertEqual(self.names(), [os.path.basename(error.path)])
        self.assertEqual(error.reason, f"{self.files.config} was changed by another daemon")
        self.assertEqual(os.listdir(self.files.queue), ["serial"])
        self.assertEqual(self.disk.read(self.files.serial), b"5\n")

    def test_jobs_listed(self) -> None:
        """Its jobs are listed with the state that each would have."""
        bodies = {
            1: document("queued", "queued"),
            2: document("success", "success"),
            3: document("success", "error"),
            4: document("success", "running", "queued"),
            5: document("waiting", "queued"),
            6: document("success", "queued"),
            7: document("canceled", "canceled"),
            8: b"rubbish",
            9: NONSENSE[-1],
        }
        error = self.set_aside(job(1), *(JobRow(number, body) for number, body in bodies.items()))
        self.assertEqual(
            error.jobs,
            [
                *((1, "queued"), (2, "success"), (3, "error"), (4, "running")),
                *((5, "waiting"), (6, "queued"), (7, "canceled"), (8, "unknown")),
                (9, "unknown"),
            ],
        )
        self.assertIn("4 (running)", str(error))
        self.assertEqual(encode_error(error), ["JobQueueError", [str(error)]])

    def test_in_the_way(self) -> None:
        """As long as it stands, nothing opens, and the same is said each time."""
        first = self.set_aside(JobRow(1, document("running")))
        for _ in range(2):
            again = self.assertRaises(JournalSetAside, self.recover)
            self.assertEqual(
                (again.path, again.jobs, again.reason), (first.path, first.jobs, first.reason)
            )
        self.assertEqual(self.names(), [os.path.basename(first.path)])

    def test_another_master(self) -> None:
        """The journal of another master's time is set aside also where the files fit."""
        self.crash_with([job(1)])
        error = self.assertRaises(JournalSetAside, self.recover, Identity("7f3a", "node2"))
        self.assertIn("node1", error.reason)

    def test_decision_for_the_files(self) -> None:
        """The files stay, the journal is kept under a name that nobody reads."""
        error = self.set_aside(job(1, 1))
        dropped = self.resolve(error.path, "files").kept
        self.assertEqual(dropped, error.path + ".dropped")
        self.assertTrue(os.path.exists(error.path + ".dropped"))
        self.assertIsNone(standing(self.path, self.disk))
        self.assertEqual(self.recover().replayed, 0)
        self.assertEqual(os.listdir(self.files.queue), ["serial"])

    def test_decision_for_the_journal(self) -> None:
        """Its rows go over the files, whatever these hold; serial keeps the higher number."""
        error = self.set_aside(
            job(1, 1), LogRow(1, 0, b'"a"'), ConfigRow("", "v", b"1"), SerialRow(50)
        )
        put(self.disk, self.files.job(1), b"another daemon's")
        put(self.disk, self.files.serial, b"60\n")
        self.assertEqual(self.resolve(error.path, "journal"), Resolved(None, []))
        self.assertEqual(self.disk.read(self.files.job(1)), b'{"n":1,"log":["a"]}')
        self.assertEqual(self.disk.read(self.files.config), b'{"else":1,"v":1}')
        self.assertEqual(self.disk.read(self.files.serial), b"60\n")
        self.assertEqual(os.listdir(f"{self.root}/masterd"), [])
        self.assertEqual(self.recover().reserved, 60)

    def test_decision_cut_short(self) -> None:
        """A decision that could not be carried out can be given again."""
        error = self.set_aside(job(1, 1), job(2, 1))

        class Full(RealDisk):
            def write(self, path: str, content: bytes, mode: int) -> None:
                if path.startswith(error.path.rpartition("/masterd")[0] + "/queue/job-2"):
                    raise OSError("full")
                super().write(path, content, mode)

        disk, self.disk = self.disk, Full()
        self.assertRaises(OSError, self.resolve, error.path, "journal")
        self.disk = disk
        self.assertRaises(JournalSetAside, self.recover)
        self.resolve(error.path, "journal")
        self.assertEqual(self.disk.read(self.files.job(2)), job(2, 1).body)

    def test_unknown(self) -> None:
        """A journal that is not there is named."""
        os.mkdir(f"{self.root}/masterd")
        error = self.assertRaises(JournalError, self.resolve, self.path + "x", "files")
        self.assertIn(self.path + "x", str(error))

    def test_left_behind(self) -> None:
        """Where SQLite leaves a part beside it, the journal is not taken apart."""
        self.crash_with([job(1)])
        recovered_close = RealDisk.names

        def names(disk: RealDisk, directory: str) -> list[str]:
            found = recovered_close(disk, directory)
            return [*found, "journal.db-wal"] if directory.endswith("masterd") else found

        self.patch(RealDisk, "names", names)
        error = self.assertRaises(JournalError, self.recover, Identity("7f3a", "node2"))
        self.assertNotIsInstance(error, JournalSetAside)
        self.assertTrue(os.path.exists(self.path))


class UnusedIdTests(SynchronousTestCase):
    """Ids of jobs whose rows are lost are not given again."""

    def test_beyond_all_that_was_given(self) -> None:
        """Beyond what is known, by as many as there are rows that can't be read."""
        header = JournalHeader("c", "m", (), (), followed=40)
        job = JobEntry(50, 620, False, b"{}", bytes(16), bytes(16))
        for entries, serial, expected in (
            (Entries(), 0, 300 + SPARE_IDS),
            (Entries(), 500, 800 + SPARE_IDS),
            (Entries(jobs=[job]), 500, 920 + SPARE_IDS),
            (Entries(jobs=[job], serials=[SerialEntry(51, 800)]), 500, 1100 + SPARE_IDS),
        ):
            examined = Examined(header, entries, ["rows are missing"], 340)
            self.assertEqual(unused_from(examined, serial), expected)
        nothing = Examined(None, Entries(), ["no header"], 340)
        self.assertEqual(unused_from(nothing, 7), 347 + SPARE_IDS)
