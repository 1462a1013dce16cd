"""Opening a journal after a crash: what is replayed, what no longer fits, what is tidied."""

from __future__ import annotations

import os
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.journal.digests import NOTHING, Chain, digest_of
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.edits import apply_edit
from ganeti_masterd.journal.examination import judge
from ganeti_masterd.journal.faults import JournalSetAside
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.recovery import Identity, Recovered, misfit, recover
from ganeti_masterd.journal.rows import ConfigRow, JobRow, LogRow, Row, SerialRow
from ganeti_masterd.journal.states import first_after, last_states
from ganeti_masterd.journal.store import Entries, JournalHeader
from ganeti_masterd.journal.tip import Tip
from ganeti_masterd.testing.disk import ForgetfulDisk, MemoryStore, PowerCut
from tests.journal.scene import (
    FILES,
    IDENTITY,
    JOURNAL,
    Scene,
    check_job,
    job,
    merge_config,
    merge_log,
    put,
)


class ChainTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = ForgetfulDisk(["/queue"])
        put(self.disk, "/queue/job-1", b"old")
        self.chain = Chain(self.disk, FILES, [1])

    def bases(self, *rows: Row) -> list[bytes]:
        entries = self.chain.link(enumerate(rows, 1))
        return [entry.base for entry in entries.jobs] + [line.base for line in entries.logs]

    def test_first_touch(self) -> None:
        """The first row replaces the file on disk; of a new job, none."""
        self.assertEqual(self.bases(job(1), job(2)), [digest_of(b"old"), NOTHING])

    def test_links(self) -> None:
        """Each row replaces what the row before it makes; a log line adds to that."""
        first, second = job(1, 1), job(1, 2)
        expected = [digest_of(b"old"), digest_of(first.body), digest_of(second.body)]
        self.assertEqual(self.bases(first, second, LogRow(1, 0, b"1")), expected)

    def test_only_what_is_kept(self) -> None:
        """Rows that were not committed are no links."""
        self.bases(job(1, 1))
        self.assertEqual(self.bases(job(1, 2)), [digest_of(b"old")])
        self.chain.keep()
        self.assertEqual(self.bases(job(1, 3)), [digest_of(job(1, 2).body)])

    def test_forget(self) -> None:
        """An archived job is dropped, unless a newer row has come."""
        self.bases(job(1, 1))
        self.chain.keep()
        self.chain.forget(1, digest_of(job(1, 9).body))
        self.assertEqual(self.bases(job(1, 2)), [digest_of(job(1, 1).body)])
        self.chain.forget(1, digest_of(job(1, 1).body))
        self.assertEqual(self.bases(job(1, 2)), [NOTHING])


class EditTests(SynchronousTestCase):
    """Which rows of a large job are edits, and what they cost."""

    def setUp(self) -> None:
        self.chain = Chain(ForgetfulDisk(["/queue"]), FILES, [])
        self.number = 0

    def large(self, n: int, *, opcodes: int = 400, archived: bool = False) -> JobRow:
        """Returns a job of whose opcodes ``n`` have ended."""
        ops = [{"input": {"text": "x" * 900}, "status": i < n} for i in range(opcodes)]
        return JobRow(1, msgspec.json.encode({"id": 1, "ops": ops, "log": []}), archived)

    def append(self, *rows: Row, keep: bool = True) -> Entries:
        entries = self.chain.link(enumerate(rows, self.number + 1))
        if keep:
            self.number += len(rows)
            self.chain.keep()
        return entries

    def test_cost(self) -> None:
        """A job of 400 opcodes costs little more than its document, however many steps it has."""
        held = Entries()
        for n in range(401):
            entries = self.append(self.large(n))
            held.jobs += entries.jobs
            held.edits += entries.edits
        size = len(self.large(400).body)
        kept = sum(len(row.body) for row in held.jobs) + sum(len(row.edit) for row in held.edits)
        self.assertLess(kept, size * 1.1)
        last, broken = last_states(held)
        self.assertEqual((last[1].body, broken), (self.large(400).body, []))

    def test_followed(self) -> None:
        """The first row after those that the files hold is whole; one that came before is not."""
        self.append(self.large(0))
        self.append(self.large(1))
        self.chain.followed(1)
        self.assertEqual(len(self.append(self.large(2)).edits), 1)
        self.chain.followed(3)
        self.assertEqual(len(self.append(self.large(3)).jobs), 1)

    def test_refused(self) -> None:
        """What the disk refused is edited by nothing."""
        self.append(self.large(0))
        self.append(self.large(1), keep=False)
        edit = self.append(self.large(2)).edits[0]
        self.assertEqual(edit.base, digest_of(self.large(0).body))
        self.assertEqual(apply_edit(self.large(0).body, edit.edit), self.large(2).body)

    def test_one_batch(self) -> None:
        """Rows of one batch edit each other."""
        entries = self.append(*(self.large(n) for n in range(3)))
        self.assertEqual((len(entries.jobs), len(entries.edits)), (1, 2))

    def test_whole(self) -> None:
        """An archived job's row is whole, so is one of a small document, before or after."""
        self.append(self.large(0))
        self.assertEqual(len(self.append(self.large(0, archived=True)).jobs), 1)
        self.append(self.large(0))
        self.assertEqual(len(self.append(job(1)).jobs), 1)
        self.assertEqual(len(self.append(self.large(1)).jobs), 1)

    def test_broken(self) -> None:
        """An edit without its base is told, with those that follow it; the state before stays."""
        held = self.append(*(self.large(n) for n in range(4)))
        less = replace(held, edits=held.edits[1:])
        last, broken = last_states(less)
        self.assertEqual(last[1].body, self.large(0).body)
        self.assertEqual([edit.seq for edit in broken], [3, 4])
        self.assertRaises(ValueError, first_after, less, 2)
        self.assertEqual([row.body for row in first_after(held, 2)], [self.large(2).body])
        examined = judge(JournalHeader("", "", (), ()), less, Tip())
        self.assertEqual(
            examined.losses,
            [
                "row 3 (edits) lacks what it changes",
                "row 4 (edits) lacks what it changes",
                "row 2 is missing",
            ],
        )
        self.assertEqual(len(examined.entries), 1)

    def test_wrong_edit(self) -> None:
        """An edit that makes another document than it says is none."""
        held = self.append(self.large(0), self.large(1))
        for wrong in (b"", b"\xc1", msgspec.msgpack.encode([(5, 9, b"?")])):
            edits = [held.edits[0]._replace(edit=wrong)]
            self.assertEqual(last_states(replace(held, edits=edits))[1], edits)


class RecoveryTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.scene = Scene()
        self.disk, self.store = self.scene.disk, self.scene.store
        put(self.disk, "/queue/job-1", job(1, 0).body)
        put(self.disk, "/queue/serial", b"3\n")

    def crash_with(self, *rows: Row) -> None:
        """Leaves committed rows behind that no file holds."""
        self.scene.open()
        self.scene.journal.commit(rows)
        self.scene.thread.run()
        self.disk.crash(lambda n: 0)
        self.assertEqual(len(self.store.load()), len(rows))


class ReplayTests(RecoveryTestCase):
    def test_first_start(self) -> None:
        """A new journal takes the files as they are."""
        recovered = self.scene.recover()
        self.assertEqual((recovered.reserved, recovered.replayed), (3, 0))
        header = self.store.header()
        self.assertEqual(header.config, (digest_of(b"{}"),))
        self.assertEqual(header.serial, (digest_of(b"3\n"),))

    def test_all_kinds(self) -> None:
        """Jobs, archive, log lines, configuration and serial come into the files."""
        put(self.disk, "/queue/job-2", job(2, 0).body)
        put(self.disk, FILES.config, b'{"gone":1,"kept":1}')
        self.crash_with(
            job(1, 1),
            LogRow(1, 0, b'"a"'),
            job(2, 0, archived=True),
            LogRow(1, 0, b'"b"'),
            ConfigRow("nodes", "gone", None),
            ConfigRow("nodes", "new", b"7"),
            SerialRow(20),
            job(4, 4),
        )
        recovered = self.scene.recover()
        self.assertEqual((recovered.reserved, recovered.replayed), (20, 8))
        self.assertEqual(self.disk.read("/queue/job-1"), b'{"n":1,"log":["a","b"]}')
        self.assertEqual(self.disk.read("/queue/job-4"), job(4, 4).body)
        self.assertEqual(self.disk.names("/queue"), ["archive", "job-1", "job-4", "serial"])
        self.assertEqual(self.disk.read("/queue/archive/0/job-2"), job(2, 0).body)
        self.assertEqual(self.disk.read(FILES.config), b'{"kept":1,"new":7}')
        self.assertEqual(len(self.store.load()), 0)

    def test_log_lines_alone(self) -> None:
        """Lines whose job's row is in its file already come into that file."""
        self.crash_with(LogRow(1, 0, b'"a"'))
        self.scene.recover()
        self.assertEqual(self.disk.read("/queue/job-1"), b'{"n":0,"log":["a"]}')

    def test_log_lines_superseded(self) -> None:
        """Lines that a newer row holds are not added to it again."""
        self.crash_with(LogRow(1, 0, b'"a"'), JobRow(1, b'{"n":1,"log":["a"]}'))
        self.scene.recover()
        self.assertEqual(self.disk.read("/queue/job-1"), b'{"n":1,"log":["a"]}')

    def test_log_lines_that_do_not_fit(self) -> None:
        """A document that takes no lines stays as it is, and stops no start."""
        put(self.disk, "/queue/job-1", b"rubbish")
        self.crash_with(LogRow(1, 0, b'"a"'), LogRow(9, 0, b'"b"'))
        self.scene.recover()
        self.assertEqual(self.disk.read("/queue/job-1"), b"rubbish")
        self.assertEqual(len(self.store.load()), 0)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_serial_never_goes_down(self) -> None:
        """A serial on disk that is higher than what is reserved stays."""
        self.crash_with(SerialRow(2))
        self.scene.recover()
        self.assertEqual(self.disk.read("/queue/serial"), b"3\n")

    def test_configuration_that_cannot_be_merged(self) -> None:
        """The journal is set aside, its rows still there, and no file is touched."""
        self.crash_with(ConfigRow("nodes", "u", b"not JSON"), job(1, 1))
        put(self.disk, JOURNAL, b"the store is elsewhere")
        error = self.assertRaises(JournalSetAside, self.scene.recover)
        self.assertIn("make no configuration", error.reason)
        self.assertEqual(len(self.store.load()), 2)
        self.assertEqual(self.disk.read("/queue/job-1"), job(1, 0).body)

    def test_half_a_renaming(self) -> None:
        """A temporary name that a crash left to a job's own file is not written through."""
        self.crash_with(job(1, 1))
        # The new name is on disk, the end of the old one is not: both are one file.
        put(self.disk, "/queue/job-1.following", job(1, 1).body)
        self.disk.rename("/queue/job-1.following", "/queue/job-1")
        kept = iter([1, 0])
        self.disk.crash(lambda n: next(kept, n - 1))
        self.assertIn("job-1.following", self.disk.names("/queue"))
        body = self.disk.read("/queue/job-1")
        for effects in range(30):
            self.scene.power.cut_after(effects)
            try:
                self.scene.recover()
            except PowerCut:
                self.disk.crash(lambda n: n // 2)
                self.assertEqual(self.disk.read("/queue/job-1"), body)
        self.scene.power.restore()

    def test_half_written_files_go(self) -> None:
        """What a crash left under a temporary name is removed."""
        put(self.disk, "/queue/job-1.following", b"half")
        put(self.disk, "/etc/config.data.following", b"half")
        self.scene.recover()
        self.assertEqual(self.disk.names("/queue"), ["job-1", "serial"])
        self.assertEqual(self.disk.names("/etc"), ["config.data"])

    def test_no_header(self) -> None:
        """Rows without a header are a damaged journal."""
        self.crash_with(job(1, 1))
        self.store._header = None
        error = self.assertRaises(JournalSetAside, self.scene.recover)
        self.assertIn("no header", error.reason)


class MisfitTests(RecoveryTestCase):
    def reason(self, identity: Identity = IDENTITY) -> str | None:
        header = self.store.header()
        assert header is not None
        return misfit(self.store.load(), header, identity, self.disk, FILES)

    def test_fits(self) -> None:
        """What was left as it was fits."""
        self.crash_with(job(1, 1), job(2), LogRow(1, 0, b"1"))
        self.assertIsNone(self.reason())

    def test_identity(self) -> None:
        """Another cluster's or another master's journal does not fit."""
        self.crash_with(job(1, 1))
        self.assertIn("cluster", self.reason(Identity("else", "node1")) or "")
        self.assertIn("node2", self.reason(Identity("7f3a", "node2")) or "")

    def test_files_of_another_daemon(self) -> None:
        """Configuration, serial, or a job's file changed or gone: it does not fit."""
        rows = [job(1, 1), job(2), LogRow(3, 0, b"1")]
        put(self.disk, "/queue/job-3", job(3).body)
        self.crash_with(*rows)
        for path in (FILES.config, FILES.serial, *map(FILES.job, (1, 2, 3))):
            before = self.disk.read(path)
            put(self.disk, path, b"changed")
            self.assertEqual(self.reason(), f"{path} was changed by another daemon")
            if before is None:
                self.disk.unlink(path)
            else:
                self.disk.unlink(path)
                self.assertEqual(self.reason(), f"{path} was changed by another daemon")
                put(self.disk, path, before)
            self.assertIsNone(self.reason())

    def test_about_to_be_written(self) -> None:
        """Each state that a round under way could leave fits."""
        self.crash_with(job(1, 1), job(1, 2))
        for body in (job(1, 1).body, job(1, 2).body):
            put(self.disk, "/queue/job-1", body)
            self.assertIsNone(self.reason())

    def test_archive(self) -> None:
        """Half a move to the archive fits; another file in the archive does not."""
        self.crash_with(job(1, 0, archived=True))
        self.disk.unlink("/queue/job-1")
        self.assertIsNone(self.reason())
        for directory in ("/queue/archive", "/queue/archive/0"):
            self.disk.make_directory(directory, 0o750)
        put(self.disk, "/queue/archive/0/job-1", job(1, 0).body)
        self.assertIsNone(self.reason())
        put(self.disk, "/queue/archive/0/job-1", b"changed")
        self.assertIn("archive/0/job-1", self.reason() or "")

    def test_first_base_counts(self) -> None:
        """Of several rows the first one's base is what the disk may still hold."""
        self.crash_with(LogRow(1, 0, b"1"), job(1, 1), LogRow(1, 0, b"2"), job(1, 2))
        self.assertIsNone(self.reason())

    def test_empty_journal_adopts(self) -> None:
        """With an empty journal another daemon's clean work is taken as it is."""
        self.scene.recover()
        put(self.disk, FILES.config, b'{"else":1}')
        put(self.disk, FILES.serial, b"77\n")
        recovered = self.scene.recover(Identity("new", "node2"))
        self.assertEqual(recovered.reserved, 77)
        self.assertEqual(
            self.store.header(),
            JournalHeader("new", "node2", (digest_of(b'{"else":1}'),), (digest_of(b"77\n"),)),
        )


class RealRecoveryTests(SynchronousTestCase):
    """On a real file system, with SQLite."""

    def setUp(self) -> None:
        self.root = os.path.realpath(self.mktemp())
        os.makedirs(os.path.join(self.root, "queue"))
        self.files = QueueFiles(f"{self.root}/queue", f"{self.root}/config.data")
        put(RealDisk(), self.files.config, b"{}")

    def recover(self, **more: Any) -> Recovered:
        recovered = recover(
            f"{self.root}/masterd/journal.db",
            identity=IDENTITY,
            files=self.files,
            disk=RealDisk(),
            merge_log=merge_log,
            check_job=check_job,
            merge_config=merge_config,
            now=lambda: 0.0,
            **more,
        )
        self.addCleanup(recovered.store.close)
        return recovered

    def test_replay(self) -> None:
        """Rows left by one process are in the files when the next one opens."""
        recovered = self.recover()
        rows = [job(n, n) for n in range(1, 60)] + [SerialRow(60), ConfigRow("", "v", b"1")]
        recovered.store.append(recovered.chain.link(enumerate(rows, 1)))
        recovered.store.close()
        recovered = self.recover()
        self.assertEqual((recovered.replayed, recovered.reserved), (61, 60))
        self.assertEqual(len(os.listdir(self.files.queue)), 60)
        self.assertEqual(RealDisk().read(self.files.config), b'{"v":1}')
        self.assertEqual(len(recovered.store.load()), 0)
        mode = os.stat(f"{self.root}/masterd").st_mode & 0o777
        self.assertEqual(mode, 0o700)

    def test_closed_where_it_fails(self) -> None:
        """A store that could not be recovered is closed, so that it can be opened again."""
        closed: list[str] = []

        class Failing(MemoryStore):
            def load(self) -> Any:
                raise OSError("unreadable")

            def close(self) -> None:
                closed.append(self.path)

        self.assertRaises(OSError, self.recover, open_store=Failing)
        self.assertEqual(len(closed), 1)
