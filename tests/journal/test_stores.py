"""The SQLite store and its double keep the same promises; SQLite's own are checked alone."""

from __future__ import annotations

import os
import sqlite3
import stat
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ganeti_masterd.errors import JobQueueError, encode_error
from ganeti_masterd.journal.digests import digest_of
from ganeti_masterd.journal.edits import edit_between
from ganeti_masterd.journal.faults import JournalCorrupt, JournalInUse, JournalTooNew
from ganeti_masterd.journal.schema import SCHEMA_VERSION
from ganeti_masterd.journal.sqlite import SQLiteStore
from ganeti_masterd.journal.states import last_states
from ganeti_masterd.journal.store import (
    ConfigEntry,
    Entries,
    IStore,
    JobEdit,
    JobEntry,
    JournalHeader,
    SerialEntry,
    StoredLogEntry,
)
from ganeti_masterd.testing.disk import MemoryStore

BODY = '{"ä"}'.encode()
HEADER = JournalHeader("7f3a", "node1", (b"c" * 16,), (b"s" * 16,))


def job_entry(seq: int, job_id: int = 1, body: bytes = b"{}") -> JobEntry:
    return JobEntry(seq, job_id, False, body, bytes(16), digest_of(body))


def entries() -> Entries:
    return Entries(
        [job_entry(1), JobEntry(3, 2, True, BODY, b"b" * 16, digest_of(BODY))],
        [StoredLogEntry(1, 2, 0, b"[1]", b"m" * 16), StoredLogEntry(1, 4, 1, b"[2]", b"m" * 16)],
        [ConfigEntry(5, "nodes", "u", b"{}"), ConfigEntry(6, "nodes", "v", None)],
        [SerialEntry(7, 1 << 40)],
        [JobEdit(8, 1, b"[]", b"b" * 16, b"m" * 16)],
    )


def edited(seq: int, before: bytes, after: bytes) -> JobEdit:
    edit = edit_between(before, after)
    assert edit is not None
    return JobEdit(seq, 1, edit, digest_of(before), digest_of(after))


class StoreTests:
    """What any store must do; ``make`` returns a new one, ``again`` opens it anew."""

    def make(self) -> Any:
        raise NotImplementedError

    def again(self, store: Any) -> Any:
        raise NotImplementedError

    def test_interface(self: Any) -> None:
        """It is a store."""
        verifyObject(IStore, self.make())

    def test_new(self: Any) -> None:
        """A new store has neither rows nor a header."""
        store = self.make()
        self.assertEqual(store.load(), Entries())
        self.assertIsNone(store.header())
        self.assertEqual(store.load().last_seq, 0)

    def test_keeps(self: Any) -> None:
        """What is appended comes back as it was, also after opening anew."""
        store = self.make()
        store.adopt(HEADER)
        store.append(entries())
        store.append(Entries())
        store = self.again(store)
        self.assertEqual(store.load(), entries())
        self.assertEqual(len(store.load()), 8)
        self.assertEqual(store.load().last_seq, 8)
        self.assertEqual(store.header(), HEADER)

    def test_followed(self: Any) -> None:
        """What the files hold goes; newer rows, and log lines not superseded, stay."""
        store = self.make()
        store.adopt(HEADER)
        store.append(replace(entries(), edits=[]))
        store.followed(5, [(1, 3)], None, None)
        left = store.load()
        self.assertEqual(left.jobs, [])
        self.assertEqual([line.seq for line in left.logs], [4])
        self.assertEqual([entry.seq for entry in left.config], [6])
        self.assertEqual([entry.seq for entry in left.serials], [7])
        self.assertEqual(store.header(), replace(HEADER, followed=5))

    def test_edits(self: Any) -> None:
        """What the rows amount to stays the same, wherever the files have come to."""
        bodies = [bytes(5000) + b"%d" % n for n in range(6)]
        for seq in range(1, 7):
            store = self.make()
            store.adopt(HEADER)
            store.append(Entries([job_entry(1, body=bodies[0])]))
            for n in range(1, 6):
                store.append(Entries(edits=[edited(n + 1, bodies[n - 1], bodies[n])]))
            store.followed(seq, [], None, None)
            store = self.again(store)
            left = store.load()
            self.assertEqual(sorted(left.numbers()), [*range(seq + 1, 7)])
            self.assertEqual([row.body for row in left.jobs], bodies[seq : seq + 1])
            last, broken = last_states(left)
            self.assertEqual(broken, [])
            self.assertEqual([row.body for row in last.values()], bodies[5:] if left else [])
            store.followed(6, [], None, None)
            self.assertEqual(store.load(), Entries())
            store.close()
            self.forget()

    def test_edit_of_nothing(self: Any) -> None:
        """Rows aren't dropped while a later one can't be made whole."""
        store = self.make()
        store.adopt(HEADER)
        first, second, third = (bytes(5000) + b"%d" % n for n in range(3))
        store.append(Entries([job_entry(1, body=first)], edits=[edited(2, second, third)]))
        self.assertRaises((JournalCorrupt, ValueError), store.followed, 1, [], None, None)
        self.assertEqual(len(store.load()), 2)

    def test_digests(self: Any) -> None:
        """Digests gather until one is known to be on disk."""
        store = self.make()
        store.adopt(HEADER)
        store.expect(b"d" * 16, None)
        store.expect(b"e" * 16, b"t" * 16)
        header = store.header()
        self.assertEqual(header.config, (b"c" * 16, b"d" * 16, b"e" * 16))
        self.assertEqual(header.serial, (b"s" * 16, b"t" * 16))
        store.followed(0, [], b"e" * 16, None)
        header = store.header()
        self.assertEqual(header.config, (b"e" * 16,))
        self.assertEqual(len(header.serial), 2)
        store.followed(0, [], None, b"t" * 16)
        self.assertEqual(store.header().serial, (b"t" * 16,))


class MemoryStoreTests(StoreTests, SynchronousTestCase):
    def forget(self) -> None:
        pass

    def make(self) -> MemoryStore:
        return MemoryStore()

    def again(self, store: MemoryStore) -> MemoryStore:
        return store


class SQLiteStoreTests(StoreTests, SynchronousTestCase):
    def setUp(self) -> None:
        self.path = os.path.join(os.path.realpath(self.mktemp()), "journal.db")
        os.mkdir(os.path.dirname(self.path))

    def make(self) -> SQLiteStore:
        store = SQLiteStore(self.path)
        self.addCleanup(store.close)
        return store

    def forget(self) -> None:
        for name in os.listdir(os.path.dirname(self.path)):
            os.unlink(os.path.join(os.path.dirname(self.path), name))

    def again(self, store: SQLiteStore) -> SQLiteStore:
        store.close()
        return self.make()

    def test_mode(self) -> None:
        """Nobody else may read it, whatever the umask."""
        self.addCleanup(os.umask, os.umask(0))
        store = self.make()
        store.adopt(HEADER)
        for name in os.listdir(os.path.dirname(self.path)):
            mode = os.stat(os.path.join(os.path.dirname(self.path), name)).st_mode
            self.assertEqual(stat.S_IMODE(mode), 0o600, name)

    def test_settings(self) -> None:
        """Each commit is synced before it is answered."""
        store = self.make()
        for pragma, expected in (
            ("journal_mode", "wal"),
            ("synchronous", 2),
            ("locking_mode", "exclusive"),
        ):
            self.assertEqual(store._db.execute(f"PRAGMA {pragma}").fetchone()[0], expected)

    def test_nothing_is_left_of_deleted_rows(self) -> None:
        """Private parameters of a job that the files took are in no page of the closed journal."""
        store = self.make()
        store.adopt(HEADER)
        secret = b"private-parameter" * 1000
        store.append(Entries([job_entry(1, body=secret)]))
        store.followed(1, [], None, None)
        store.close()
        with open(store.path, "rb") as file:
            self.assertNotIn(b"private-parameter", file.read())

    def test_closed_in_one_file(self) -> None:
        """A closed store is one file, which may be renamed, beside its mark."""
        store = self.make()
        store.append(entries())
        store.close()
        self.assertEqual(
            sorted(os.listdir(os.path.dirname(self.path))), ["journal.db", "journal.tip"]
        )

    def test_many_rows(self) -> None:
        """A batch of any size goes in whole, in order."""
        store = self.make()
        seq = 0
        for count in (1, 47, 48, 49, 480, 481, 1009):
            batch = [job_entry(seq + n, n, b"%d" % n) for n in range(1, count + 1)]
            store.append(Entries(jobs=batch))
            self.assertEqual([*store.load().jobs], batch)
            seq += count
            store.followed(seq, [], None, None)

    def test_edits_of_many_jobs(self) -> None:
        """What a round costs that cuts through edits grows with the rows, not with their square."""

        def cost(jobs: int) -> int:
            """Returns how many instructions SQLite takes, in hundreds."""
            store = self.make()
            store.adopt(HEADER)
            bodies = [bytes(5000) + b"%d" % n for n in range(3)]
            number = 0
            for n in range(3):
                rows = Entries()
                for job_id in range(1, jobs + 1):
                    number += 1
                    if n:
                        edit = edited(number, bodies[n - 1], bodies[n])
                        rows.edits.append(edit._replace(job_id=job_id))
                    else:
                        rows.jobs.append(job_entry(number, job_id, bodies[0]))
                store.append(rows)
            taken = [0]

            def count() -> int:
                taken[0] += 1
                return 0

            store._db.set_progress_handler(count, 100)
            store.followed(2 * jobs, [], None, None)
            store._db.set_progress_handler(None, 0)
            left = store.load()
            self.assertEqual([row.body for row in left.jobs], [bodies[2]] * jobs)
            self.assertEqual(left.edits, [])
            store.close()
            self.forget()
            return taken[0]

        self.assertLess(cost(400), 6 * cost(100))

    def test_all_or_none(self) -> None:
        """A batch that the disk refuses is not there, nor any part of it; the next one is."""
        for count in (20, 2000):  # one statement, several
            store = self.make()
            store.followed(1 << 30, [], None, None)
            store.append(Entries(jobs=[job_entry(1)]))
            pages = store._db.execute("PRAGMA page_count").fetchone()[0]
            store._db.execute(f"PRAGMA max_page_count = {pages + 1}")
            big = [job_entry(n, n, bytes(4000)) for n in range(2, 2 + count)]
            self.assertRaises(sqlite3.OperationalError, store.append, Entries(jobs=big))
            self.assertEqual(store.load().jobs, [job_entry(1)])
            store._db.execute(f"PRAGMA max_page_count = {1 << 30}")
            store.append(Entries(jobs=[job_entry(5000)]))
            store = self.again(store)
            self.assertEqual([entry.seq for entry in store.load().jobs], [1, 5000])
            store.close()

    def test_second_statement_fails(self) -> None:
        """Nothing stays of a batch of which one table takes its rows and another doesn't."""
        store = self.make()
        store.append(Entries(serials=[SerialEntry(1, 100)]))
        half = Entries(jobs=[job_entry(2)], serials=[SerialEntry(1, 200)])
        self.assertRaises(sqlite3.IntegrityError, store.append, half)
        self.assertEqual(store.load(), Entries(serials=[SerialEntry(1, 100)]))

    def test_a_failure_is_overwritten(self) -> None:
        """After a failed transaction another one takes its place in the WAL."""
        store = self.make()
        store.adopt(HEADER)
        store.append(Entries(jobs=[job_entry(1)]))
        self.assertRaises(sqlite3.IntegrityError, store.append, Entries(jobs=[job_entry(1)]))
        failures = store._db.execute("SELECT failures FROM header").fetchone()
        self.assertEqual(failures, (1,))

    def test_wrong_values(self) -> None:
        """What SQLite can't hold fails and leaves the store usable."""
        store = self.make()
        wrong = Entries(jobs=[job_entry(1)], serials=[SerialEntry(2, 1 << 70)])
        self.assertRaises(OverflowError, store.append, wrong)
        self.assertEqual(store.load(), Entries())
        store.append(Entries(jobs=[job_entry(1)]))
        self.assertEqual(len(store.load()), 1)

    def test_in_use(self) -> None:
        """A second process is shut out."""
        self.make().adopt(HEADER)
        self.patch(sqlite3, "connect", _impatient(sqlite3.connect))
        error = self.assertRaises(JournalInUse, SQLiteStore, self.path)
        self.assertIn(self.path, str(error))

    def test_no_database(self) -> None:
        """A file that is no database is named, with the fault."""
        for content in (b"{}" * 4000, b"SQLite format 3\x00" + bytes(9000)):
            with open(self.path, "wb") as file:
                file.write(content)
            error = self.assertRaises(JournalCorrupt, SQLiteStore, self.path)
            self.assertIn(self.path, str(error))
            self.assertEqual(encode_error(error), ["JobQueueError", [str(error)]])
            self.assertIsInstance(error, JobQueueError)

    def test_damaged(self) -> None:
        """A database whose pages are damaged is refused."""
        store = self.make()
        store.append(Entries(jobs=[job_entry(n, n, bytes(3000)) for n in range(1, 50)]))
        store.close()
        with open(self.path, "r+b") as file:
            for page in range(7, 20):
                file.seek(page * 4096)
                file.write(b"\xff" * 4096)
        self.assertRaises(JournalCorrupt, SQLiteStore, self.path)

    def test_other_database(self) -> None:
        """Another program's database is not taken for a journal, and stays as it is."""
        for statement in ("CREATE TABLE t (x)", "PRAGMA application_id = 7"):
            db = sqlite3.connect(self.path)
            db.execute(statement)
            db.commit()
            db.close()
            self.assertRaises(JournalCorrupt, SQLiteStore, self.path)
            os.unlink(self.path)

    def test_newer_schema(self) -> None:
        """A later version's journal is refused, both versions named."""
        self.make().close()
        db = sqlite3.connect(self.path)
        db.execute("PRAGMA user_version = 9")
        db.close()
        error = self.assertRaises(JournalTooNew, SQLiteStore, self.path)
        self.assertEqual((error.found, error.known), (9, SCHEMA_VERSION))
        self.assertIn("9", str(error))

    def test_no_directory(self) -> None:
        """A directory that is missing is an error of the system, with its path."""
        self.assertRaises(
            FileNotFoundError, SQLiteStore, os.path.dirname(self.path) + "/x/journal.db"
        )


def _impatient(connect: Any) -> Any:
    return lambda path, timeout, **more: connect(path, timeout=0.0, **more)
