"""Bytes that aren't what was written: whatever is changed, nothing is lost in silence."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from random import Random
from unittest import mock

import msgspec
from msgspec import Struct
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import GenericError
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.examination import examine
from ganeti_masterd.journal.faults import JournalSetAside
from ganeti_masterd.journal.layout import QueueFiles, encode_serial, job_number, parse_serial
from ganeti_masterd.journal.recovery import Recovered, recover
from ganeti_masterd.journal.rows import ConfigRow, JobRow, LogRow, Row, SerialRow
from ganeti_masterd.journal.schema import (
    SCHEMA_VERSION,
    expected_tables,
    statements,
    tables_of,
)
from ganeti_masterd.journal.setaside import resolve
from ganeti_masterd.journal.sqlite import SQLiteStore
from ganeti_masterd.journal.tip import TipFile, encode_tip, tip_path
from ganeti_masterd.journal.writing import JournalWriting
from tests.examples import examples
from tests.journal.scene import IDENTITY, check_job, job, merge_config, merge_log, put

SEEDS = examples(300, 10_000)


class Root:
    """A journal and its files below a directory, used as one process after another does."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.files = QueueFiles(f"{root}/queue", f"{root}/config.data")
        self.journal = f"{root}/masterd/journal.db"
        self.disk = RealDisk()

    def make(self) -> Root:
        """Makes it, with two jobs in files."""
        os.makedirs(self.files.queue)
        put(self.disk, self.files.config, b'{"a":1}')
        put(self.disk, self.files.serial, encode_serial(2))
        for number in (1, 2):
            put(self.disk, self.files.job(number), document(number, 0).body)
        return self

    def recover(self) -> Recovered:
        return recover(
            self.journal,
            identity=IDENTITY,
            files=self.files,
            disk=self.disk,
            merge_log=merge_log,
            check_job=check_job,
            merge_config=merge_config,
            now=lambda: 1_000_000_000.0,
        )

    def resolve(self, error: JournalSetAside, keep: str) -> list[str]:
        """Carries a decision out; returns what is said to be lost."""
        return resolve(
            error.path,
            "files" if keep == "files" else "journal",
            disk=self.disk,
            files=self.files,
            merge_log=merge_log,
            check_job=check_job,
            merge_config=merge_config,
        ).lost

    def contents(self) -> dict[str, bytes]:
        """Returns the files that Ganeti knows, by path."""
        found = {}
        for folder, _, names in os.walk(self.root):
            if not folder.endswith("/masterd"):
                for name in names:
                    with open(f"{folder}/{name}", "rb") as file:
                        found[f"{folder}/{name}".removeprefix(self.root)] = file.read()
        return found


def document(job_id: int, n: int, archived: bool = False) -> JobRow:
    """Returns a row of a job, of some size."""
    return job(job_id, n, archived, id=job_id, padding="x" * (200 + 37 * n))


def large(job_id: int, n: int, archived: bool = False) -> JobRow:
    """Returns a row of a job whose document is worth an edit, and has opcodes like real ones."""
    ops = [{"input": {"OP_ID": "OP"}, "result": "x" * 290, "done": i < n} for i in range(20)]
    return job(job_id, n, archived, id=job_id, ops=ops)


class Image(Struct, frozen=True):
    """What a crash leaves, and what the files must hold after the next start."""

    root: str
    jobs: dict[int, tuple[bool, bytes]]
    config: bytes
    serial: int


#: What a process does with the journal before it is killed: rows, True for a round of the
#: files, None for one that begins before the last rows, False for a checkpoint of SQLite.
Life = Sequence[list[Row] | bool | None]

LIVES: tuple[Life, ...] = (
    # All is in the write-ahead log.
    [
        [SerialRow(10), document(3, 1), document(4, 1)],
        [document(3, 2), ConfigRow("", "b", b"2")],
        [LogRow(3, 0, b'"line"')],
        [document(1, 3, archived=True)],
        [document(5, 1), ConfigRow("", "a", None)],
    ],
    # A part is in the files.
    [
        [SerialRow(10), document(3, 1)],
        [document(4, 1), ConfigRow("", "b", b"2")],
        True,
        [document(3, 2)],
        [LogRow(4, 0, b'"line"'), document(5, 1)],
    ],
    # A part is in the database itself, which is several pages long.
    [
        [SerialRow(40), *(document(number, number) for number in range(3, 30))],
        False,
        [ConfigRow("", "b", b"2"), document(3, 4)],
        [document(2, 2, archived=True)],
    ],
    [
        [SerialRow(40), *(document(number, number) for number in range(3, 30))],
        [ConfigRow("", "b", b"2"), LogRow(3, 0, b'"line"')],
        False,
    ],
    # Most rows are edits of a large document.
    [
        [SerialRow(10), large(3, 1)],
        [large(3, 2), large(3, 3), large(4, 1)],
        [LogRow(3, 0, b'"line"'), ConfigRow("", "b", b"2")],
        [large(3, 4), large(4, 2)],
        None,
        [large(3, 5)],
        [large(4, 3, archived=True)],
        [large(3, 6)],
    ],
    [
        [SerialRow(10), *(large(3, n) for n in range(20))],
        False,
        [large(3, 20), large(3, 21)],
    ],
    # All is in the files.
    [[SerialRow(10), document(3, 1), ConfigRow("", "b", b"2")], True],
)


def lived(root: Root, life: Life) -> Recovered:
    """Lives a life in a root; its store stays open."""
    recovered = root.recover()
    writing = JournalWriting(recovered)
    store = recovered.store
    assert isinstance(store, SQLiteStore)
    number = recovered.numbered
    rows: list[tuple[int, Row]] = []
    batch: list[tuple[int, Row]] = []
    for deed in life:
        if deed is True or deed is None:
            taken = rows if deed else rows[: -len(batch)]
            carry(root, writing, taken)
            rows = rows[len(taken) :]
        elif deed is False:
            store._db.execute("PRAGMA wal_checkpoint(FULL)")
        else:
            assert isinstance(deed, list)
            batch = list(enumerate(deed, number + 1))
            number += len(batch)
            writing.append(batch)
            rows += batch
    return recovered


def carry(root: Root, writing: JournalWriting, rows: list[tuple[int, Row]]) -> None:
    """Lets the files follow, as a round does."""
    from ganeti_masterd.journal.backlog import Backlog
    from ganeti_masterd.journal.following import EncodedImage

    backlog = Backlog()
    backlog.publish(rows)
    merged = merge_config(
        root.disk.read(root.files.config) or b"",
        [row for _, row in rows if isinstance(row, ConfigRow)],
    )
    for _ in writing.steps(backlog.take(rows[-1][0], lambda: EncodedImage(merged)).round):
        pass


class DamageTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = os.path.realpath(self.mktemp())
        os.mkdir(self.top)

    def crashed(self, life: Life, name: str = "image") -> Root:
        """Returns the copy of a root as a kill leaves it."""
        made = Root(f"{self.top}/{name}-alive").make()
        recovered = lived(made, life)
        shutil.copytree(made.root, f"{self.top}/{name}")
        recovered.store.close()
        shutil.rmtree(made.root)
        return Root(f"{self.top}/{name}")


def change(path: str, random: Random) -> None:
    """Changes bytes of a file in one of the ways in which disks and people do."""
    with open(path, "rb") as file:
        content = bytearray(file.read())
    size = len(content)
    if not size:
        return
    place, other = random.randrange(size), random.randrange(size)
    match random.randrange(7):
        case 0 | 1 | 2:
            content[place] ^= 1 << random.randrange(8)
        case 3:
            content[place] = (content[place] + random.randrange(1, 256)) % 256
        case 4:  # a sector of zeros
            start = place // 512 * 512
            content[start : start + 512] = bytes(len(content[start : start + 512]))
        case 5:  # another sector's content
            start, source = place // 512 * 512, other // 512 * 512
            sector = content[source : source + 512]
            content[start : start + len(sector)] = sector
        case 6:
            del content[place:]
    with open(path, "wb") as file:
        file.write(content)


class ByteTests(DamageTestCase):
    """Any byte of any file is changed; a start then has all, or says what it lacks."""

    def test_changed_bytes(self) -> None:
        """Nothing acknowledged is lost in silence, no file is replaced by a broken one."""
        images = [self.image(number) for number in range(len(LIVES))]
        refused = 0
        for seed in range(SEEDS):
            random = Random(seed)
            image = random.choice(images)
            root = Root(f"{self.top}/now")
            shutil.copytree(image.root, root.root)
            target = random.choice(self.targets(root))
            path = root.root + target
            if random.randrange(20) == 0:
                os.unlink(path)
            else:
                change(path, random)
            try:
                refused += self.start(root, image, target, random)
            except Exception:
                print(f"seed {seed}: {target}")
                raise
            self.flushLoggedErrors()  # of log lines that don't fit a document that was changed
            shutil.rmtree(root.root)
        self.assertGreater(refused, SEEDS // 10)

    def image(self, number: int) -> Image:
        """Returns an image, with what an undisturbed start makes of it."""
        crashed = self.crashed(LIVES[number], f"image{number}")
        whole = Root(f"{self.top}/whole")
        shutil.copytree(crashed.root, whole.root)
        recovered = whole.recover()
        recovered.store.close()
        jobs = self.jobs(whole)
        config = whole.disk.read(whole.files.config)
        assert config is not None
        shutil.rmtree(whole.root)
        return Image(crashed.root, jobs, config, recovered.reserved)

    def jobs(self, root: Root) -> dict[int, tuple[bool, bytes]]:
        found = {}
        for path, content in root.contents().items():
            number = job_number(os.path.basename(path))
            if number is not None:
                found[number] = "/archive/" in path, content
        return found

    def targets(self, root: Root) -> list[str]:
        """Returns the paths that are changed, the log and the database more often than others."""
        files = sorted(root.contents())
        journal = [f"/masterd/{name}" for name in sorted(os.listdir(f"{root.root}/masterd"))]
        return [*files, *(path for path in journal for _ in range(5))]

    def start(self, root: Root, image: Image, target: str, random: Random) -> bool:
        """Starts, checks what is there, and decides where that is asked for."""
        before = root.contents()
        try:
            recovered = root.recover()
        except JournalSetAside as error:
            self.assertEqual(root.contents(), before, "a file was touched")
            self.assertNotEqual(str(error), "")
            keep = random.choice(["files", "journal"])
            lost = root.resolve(error, keep)
            after = root.contents()
            if keep == "files":
                # Only the number of the next job may be a higher one.
                serials = [found.pop("/queue/serial", b"0") for found in (before, after)]
                self.assertEqual(after, before)
                if serials[0] != serials[1]:
                    self.assertGreater(parse_serial(serials[1]) or 0, parse_serial(serials[0]) or 0)
            elif not target.startswith("/masterd"):
                lost = [target]
            self.lawful(root, image, target)
            again = root.recover()
            again.store.close()
            self.assertEqual(again.replayed, 0)
            if keep == "journal" and not lost:
                self.complete(root, image, target)
            return True
        except GenericError:
            self.assertEqual(root.contents(), before, "a file was touched")
            return True
        recovered.store.close()
        self.lawful(root, image, target)
        self.complete(root, image, target)
        return False

    def complete(self, root: Root, image: Image, target: str) -> None:
        """All that was acknowledged is there, but what stood in the changed file alone."""
        jobs, lost = self.jobs(root), job_number(os.path.basename(target))
        for number, expected in image.jobs.items():
            if number != lost:
                self.assertEqual(jobs[number], expected)
        if target != "/config.data":
            self.assertEqual(root.disk.read(root.files.config), image.config)
        if target != "/queue/serial":
            self.assertEqual(root.disk.read(root.files.serial), encode_serial(image.serial))

    def lawful(self, root: Root, image: Image, target: str) -> None:
        """No file but the changed one holds anything that was never written."""
        written = {body for _, body in image.jobs.values()}
        for life in LIVES:
            for deed in life:
                if isinstance(deed, list):
                    written |= {row.body for row in deed if isinstance(row, JobRow)}
        written |= {document(number, 0).body for number in (1, 2)}
        for number, (_, body) in self.jobs(root).items():
            if number != job_number(os.path.basename(target)):
                parsed = msgspec.json.decode(body)
                parsed["log"] = []
                self.assertIn(msgspec.json.encode(parsed), written | {body} & written)
        if target != "/config.data":
            msgspec.json.decode(root.disk.read(root.files.config) or b"")


class ExaminationTests(DamageTestCase):
    """What is told apart, and what is said."""

    def test_whole(self) -> None:
        """What a kill leaves is whole, and reading it changes no byte."""
        for number, life in enumerate(LIVES):
            root = self.crashed(life, f"image{number}")
            before = self.bytes(root)
            examined = examine(root.journal)
            self.assertEqual(examined.losses, [])
            self.assertEqual(self.bytes(root), before)

    def bytes(self, root: Root) -> dict[str, bytes]:
        found = {}
        for name in os.listdir(f"{root.root}/masterd"):
            with open(f"{root.root}/masterd/{name}", "rb") as file:
                found[name] = file.read()
        return found

    def test_torn_last_write(self) -> None:
        """A write that was cut off before it was acknowledged is no damage, wherever it ends."""
        made = Root(f"{self.top}/torn").make()
        recovered = lived(made, LIVES[0])
        whole = os.path.getsize(made.journal + "-wal")
        entries = recovered.chain.link([(recovered.numbered + 11, document(9, 9))])
        numbered = examine_copy(made, self.top).reached
        entries = recovered.chain.link([(numbered + 1, document(9, 9))])
        with mock.patch.object(TipFile, "advance"):
            recovered.store.append(entries)
        torn = os.path.getsize(made.journal + "-wal")
        for size in (*range(whole, torn, 701), torn):
            copy = Root(f"{self.top}/copy")
            shutil.copytree(made.root, copy.root)
            os.truncate(copy.journal + "-wal", size)
            examined = examine(copy.journal)
            self.assertEqual(examined.losses, [])
            self.assertEqual(examined.entries.last_seq, numbered + (size == torn))
            shutil.rmtree(copy.root)
        recovered.store.close()

    def test_lost_end(self) -> None:
        """An end of the log that was acknowledged is missed, and read behind the damage."""
        root = self.crashed(LIVES[0])
        flip(root.journal + "-wal", -3 * 4120)
        error = self.assertRaises(JournalSetAside, root.recover)
        self.assertIn("damaged", error.reason)
        self.assertIn("5 (unknown)", str(error))

    def test_row(self) -> None:
        """A changed row is named by number and kind; the others are listed."""
        root = self.crashed(LIVES[2])
        body = document(7, 7).body
        for path in (root.journal, root.journal + "-wal"):
            with open(path, "rb") as file:
                content = file.read()
            with open(path, "wb") as file:  # a split leaves copies that are in no use
                file.write(content.replace(body, body[:-9] + b"y" + body[-8:]))
        error = self.assertRaises(JournalSetAside, root.recover)
        self.assertEqual(error.losses, ["row 6 (jobs) is damaged"])
        self.assertEqual(error.saved["jobs"], 28)
        self.assertNotIn(7, [job_id for job_id, _ in error.jobs])
        self.assertEqual(root.resolve(error, "journal"), error.losses)
        self.assertIsNone(root.disk.read(root.files.job(7)))
        self.assertEqual(root.disk.read(root.files.job(8)), document(8, 8).body)
        names = os.listdir(f"{root.root}/masterd")
        self.assertIn(os.path.basename(error.path) + ".dropped", names)
        root.recover().store.close()

    def test_what_sqlite_cannot_say(self) -> None:
        """A message of SQLite that quotes bytes of the damage is a fault, no traceback."""
        root = Root(f"{self.top}/closed").make()
        root.recover().store.close()
        with open(root.journal, "rb") as file:
            content = file.read()
        self.assertIn(b"CREATE TABLE jobs", content)
        with open(root.journal, "wb") as file:
            file.write(content.replace(b"CREATE TABLE jobs", b"CREATE TABL\xd3 jobs"))
        error = self.assertRaises(JournalSetAside, root.recover)
        self.assertIn("SQLite can't read it", error.reason)

    def test_parts_stay_together(self) -> None:
        """The log and the mark go aside with the database, every byte as it was found."""
        root = self.crashed(LIVES[0])
        flip(root.journal + "-wal", 5000)
        before = self.bytes(root)
        error = self.assertRaises(JournalSetAside, root.recover)
        aside = os.path.basename(error.path)
        names = {
            "journal.db": aside,
            "journal.db-wal": f"{aside}-wal",
            "journal.tip": f"{aside}.tip",
        }
        self.assertEqual(self.bytes(root), {names[name]: before[name] for name in names})
        again = self.assertRaises(JournalSetAside, root.recover)
        self.assertEqual((again.losses, again.jobs), (error.losses, error.jobs))

    def test_cut_short(self) -> None:
        """Parts that a crash left behind go along at the next start."""
        root = self.crashed(LIVES[0])
        flip(root.journal + "-wal", 5000)
        aside = f"{root.root}/masterd/journal.set-aside-20010909T014640Z"
        os.rename(root.journal, aside)
        error = self.assertRaises(JournalSetAside, root.recover)
        self.assertEqual(error.path, aside)
        self.assertGreater(error.saved["jobs"], 0)
        self.assertEqual(len(os.listdir(f"{root.root}/masterd")), 3)

    def test_removed(self) -> None:
        """A journal that is gone is missed if it held anything; what it held is not known."""
        root = self.crashed(LIVES[0])
        os.unlink(root.journal)
        os.unlink(root.journal + "-wal")
        error = self.assertRaises(JournalSetAside, root.recover)
        self.assertEqual(error.losses, ["rows 1 to 9 are missing"])
        self.assertEqual(root.resolve(error, "journal"), error.losses)
        root.recover().store.close()

    def test_removed_when_empty(self) -> None:
        """One that held nothing isn't missed, and an older empty one will do."""
        root = self.crashed(LIVES[-1])
        os.unlink(root.journal)
        os.unlink(root.journal + "-wal")
        recovered = root.recover()
        recovered.store.close()
        self.assertEqual((recovered.replayed, recovered.numbered), (0, 3))

    def test_mark_unreadable(self) -> None:
        """A mark that is missing or damaged is logged, and the journal taken as it is."""
        for content in (None, b"", b"rubbish"):
            root = self.crashed(LIVES[0], f"image{content!r}")
            os.unlink(tip_path(root.journal))
            if content is not None:
                with open(tip_path(root.journal), "wb") as file:
                    file.write(content)
            recovered = root.recover()
            recovered.store.close()
            self.assertEqual(recovered.replayed, 9)

    def test_typed_columns(self) -> None:
        """Values of other types in a row are damage, not tracebacks."""
        for column, value in (
            ("job_id", "seven"),
            ("job_id", 7.5),
            ("archived", 5),
            ("body", "text"),
            ("body", 8),
            ("base", b""),
            ("seal", b""),
        ):
            root = self.crashed(LIVES[0], f"{column}-{value!r}")
            db = sqlite3.connect(root.journal)
            db.execute(f"UPDATE jobs SET {column} = ? WHERE seq = 2", (value,))
            db.commit()
            db.close()
            error = self.assertRaises(JournalSetAside, root.recover)
            self.assertEqual(error.losses, ["row 2 (jobs) is damaged"], (column, value))

    def test_documents_that_make_no_sense(self) -> None:
        """A row that is as it was written, but no document of its job, touches no file."""
        root = self.crashed([[document(3, 1), JobRow(4, document(5, 1).body)]])
        before = root.contents()
        error = self.assertRaises(JournalSetAside, root.recover)
        self.assertIn("job 4", error.reason)
        self.assertEqual(root.contents(), before)
        (lost,) = root.resolve(error, "journal")
        self.assertIn("job 4", lost)
        self.assertEqual(sorted(set(root.contents()) - set(before)), ["/queue/job-3"])
        root.recover().store.close()


class SecondVersionTests(DamageTestCase):
    """Journals of schema version 2, which have no edits."""

    def test_replayed(self) -> None:
        """One is read whole, and takes edits from then on."""
        root = Root(f"{self.top}/old").make()
        recovered = root.recover()
        recovered.store.append(recovered.chain.link([(1, document(3, 1)), (2, SerialRow(9))]))
        recovered.store.close()
        db = sqlite3.connect(root.journal, isolation_level=None)
        db.execute("DROP TABLE edits")
        db.execute("PRAGMA user_version = 2")
        self.assertEqual(tables_of(db), expected_tables(2))
        db.close()
        shutil.copytree(root.root, f"{self.top}/cut-short")
        before = examine(root.journal)
        self.assertEqual((len(before.entries), before.losses), (2, []))
        recovered = root.recover()
        self.assertEqual((recovered.replayed, recovered.numbered), (2, 2))
        self.assertEqual(root.disk.read(root.files.job(3)), document(3, 1).body)
        recovered.store.append(recovered.chain.link([(3, large(3, 1)), (4, large(3, 2))]))
        recovered.store.close()
        self.assertEqual(len(examine(root.journal).entries.edits), 1)
        root.recover().store.close()
        self.assertEqual(root.disk.read(root.files.job(3)), large(3, 2).body)
        # A start that dies between the two leaves all rows.
        again = Root(f"{self.top}/cut-short")
        SQLiteStore(again.journal).close()
        self.assertEqual(examine(again.journal).entries, before.entries)


class VersionTests(DamageTestCase):
    """Journals of schema version 1, which have neither seals nor a mark."""

    def left(self, *rows: tuple[int, Row]) -> Root:
        """Returns a root whose journal an earlier release left, with these rows."""
        root = Root(f"{self.top}/{len(os.listdir(self.top))}").make()
        recovered = root.recover()
        recovered.store.close()
        header = examine(root.journal).header
        assert header is not None
        os.unlink(root.journal)
        os.unlink(tip_path(root.journal))
        linked = recovered.chain.link(rows)
        db = sqlite3.connect(root.journal, isolation_level=None)
        for statement in statements(1):
            db.execute(statement)
        db.execute(
            "INSERT INTO header VALUES (1, ?, ?, ?, ?, '', 0)",
            (IDENTITY.cluster, IDENTITY.master, header.config[0], header.serial[0]),
        )
        for table in ("jobs", "logs", "config", "serials"):
            for entry in getattr(linked, table):
                db.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(entry))})", entry)
        db.close()
        return root

    ROWS: tuple[tuple[int, Row], ...] = (
        (1, SerialRow(9)),
        (4, document(3, 1)),
        (6, ConfigRow("", "b", b"2")),
    )

    def test_replayed(self) -> None:
        """It is read, gaps and all, and is one of this version from then on."""
        root = self.left(*self.ROWS)
        recovered = root.recover()
        self.addCleanup(recovered.store.close)
        self.assertEqual((recovered.replayed, recovered.numbered), (3, 6))
        self.assertEqual(root.disk.read(root.files.job(3)), document(3, 1).body)
        self.assertEqual(recovered.reserved, 9)
        store = recovered.store
        assert isinstance(store, SQLiteStore)
        self.assertEqual(store._db.execute("PRAGMA user_version").fetchone(), (SCHEMA_VERSION,))

    def test_rewritten(self) -> None:
        """A start that is cut short after it was rewritten leaves all rows, with seals."""
        root = self.left(*self.ROWS)
        before = examine(root.journal)
        SQLiteStore(root.journal).close()
        after = examine(root.journal)
        self.assertEqual((after.header, after.entries), (before.header, before.entries))
        self.assertEqual(after.losses, [])

    def test_mark_of_another_journal(self) -> None:
        """A mark from before an earlier release was put back says nothing about its journal."""
        root = self.left(*self.ROWS)
        with open(tip_path(root.journal), "wb") as file:
            file.write(encode_tip(100, 100))
        self.assertEqual(len(examine(root.journal).entries), 3)
        SQLiteStore(root.journal).close()
        recovered = root.recover()
        self.assertEqual((recovered.replayed, recovered.numbered), (3, 6))
        recovered.store.append(recovered.chain.link([(7, document(4, 4))]))
        shutil.copytree(root.root, root.root + "-killed")
        recovered.store.close()
        again = Root(root.root + "-killed")
        recovered = again.recover()
        recovered.store.close()
        self.assertEqual(again.disk.read(again.files.job(4)), document(4, 4).body)

    def test_values(self) -> None:
        """Values of wrong types are damage there, too."""
        root = self.left(*self.ROWS)
        db = sqlite3.connect(root.journal)
        db.execute("UPDATE jobs SET body = 7")
        db.commit()
        db.close()
        error = self.assertRaises(JournalSetAside, root.recover)
        self.assertEqual(error.losses, ["row 4 (jobs) is damaged"])


class GoneTests(DamageTestCase):
    """Files of the journal that are taken away under the process."""

    def test_noticed(self) -> None:
        """The next commit fails, and what it wrote is not acknowledged nor there later."""
        deeds: dict[str, Callable[[str], object]] = {
            "removed": os.unlink,
            "replaced": lambda path: shutil.copy(path, path + "2") and os.rename(path + "2", path),
            "cut off": lambda path: os.truncate(path, os.path.getsize(path) // 2),
        }
        for suffix in ("", "-wal"):
            for said, deed in deeds.items():
                root = Root(f"{self.top}/{said}{suffix}").make()
                recovered = lived(root, LIVES[0])
                numbered = examine_copy(root, self.top).reached
                deed(root.journal + suffix)
                for _ in range(2):
                    entries = recovered.chain.link([(numbered + 1, document(9, 9))])
                    error = self.assertRaises(OSError, recovered.store.append, entries)
                    self.assertIn(said, str(error))
                    self.assertIn(root.journal + suffix, str(error))
                recovered.store.close()

    def test_files_follow_all_the_same(self) -> None:
        """What was acknowledged before goes into the files; the rows count as not followed."""
        root = Root(f"{self.top}/following").make()
        recovered = root.recover()
        self.addCleanup(recovered.store.close)
        writing = JournalWriting(recovered)
        rows: list[tuple[int, Row]] = [(1, SerialRow(9)), (2, document(3, 1))]
        writing.append(rows)
        os.unlink(root.journal)
        self.assertRaises(OSError, carry, root, writing, rows)
        self.assertEqual(root.disk.read(root.files.job(3)), document(3, 1).body)
        self.assertEqual(root.disk.read(root.files.serial), b"9\n")

    def test_put_back(self) -> None:
        """Once the file is back, commits succeed again, with the same numbers."""
        root = Root(f"{self.top}/back").make()
        recovered = lived(root, LIVES[0])
        numbered = examine_copy(root, self.top).reached
        os.rename(root.journal, root.journal + ".moved")
        entries = recovered.chain.link([(numbered + 1, document(9, 9))])
        self.assertRaises(OSError, recovered.store.append, entries)
        os.rename(root.journal + ".moved", root.journal)
        recovered.store.append(entries)
        recovered.store.close()
        again = root.recover()
        again.store.close()
        self.assertEqual(root.disk.read(root.files.job(9)), document(9, 9).body)


def examine_copy(root: Root, top: str) -> object:
    """Examines the journal of a process that is alive."""
    shutil.copytree(f"{root.root}/masterd", f"{top}/examined")
    try:
        return examine(f"{top}/examined/journal.db")
    finally:
        shutil.rmtree(f"{top}/examined")


def flip(path: str, place: int) -> None:
    """Changes one bit; a negative place counts from the end."""
    with open(path, "r+b") as file:
        file.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
