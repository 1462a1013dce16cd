"""The checks of ``--check-only``: what is noted, what is refused, and that nothing changes."""

from __future__ import annotations

import os
import sqlite3
from hashlib import sha1
from pathlib import Path

from msgspec import json, structs

from ganeti_masterd.config.document import encode
from ganeti_masterd.constants import STATUS_RUNNING
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.journal.digests import digest_of
from ganeti_masterd.journal.sqlite import SQLiteStore
from ganeti_masterd.journal.store import Entries, JournalHeader, SerialEntry
from ganeti_masterd.startup import locks
from ganeti_masterd.startup.checks import StartRefused, WantedStart
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.rehearsal import Rehearsed, copied_simulation, rehearse
from tests.startup.scene import Host, RootTestCase

Tree = dict[str, tuple[object, ...]]


class RehearsalCase(RootTestCase):
    """Checks after each test that nothing below the root has changed."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(locks, "TRIES", 0)
        self.host = Host()
        self.wanted = WantedStart(self.paths, False, "gnt-masterd", "gnt-daemons")

    def tree(self) -> Tree:
        """Returns every file and folder with its type, owner, modification time and content."""
        found: Tree = {}
        for path in (Path(self.root), *Path(self.root).rglob("*")):
            state = path.lstat()
            content = sha1(path.read_bytes()).hexdigest() if path.is_file() else None
            found[str(path)] = (state.st_ino, state.st_mode, state.st_ctime_ns, content)
        return found

    def rehearsed(self, *, simulated: bool = False) -> Rehearsed:
        """Returns the results of a rehearsal that must pass."""
        before = self.tree()
        found = rehearse(structs.replace(self.wanted, simulated=simulated), self.host)
        self.assertEqual(self.tree(), before)
        return found

    def refused(self) -> str:
        """Returns why a start would fail."""
        before = self.tree()
        error = self.assertRaises(StartRefused, rehearse, self.wanted, self.host)
        self.assertEqual(self.tree(), before)
        return str(error.message)


class MachineTests(RehearsalCase):
    """Other daemons, accounts, the configuration."""

    def test_passes(self) -> None:
        """A sound root gives no notes."""
        found = self.rehearsed()
        self.assertEqual((found.notes, found.own), ([], False))
        self.assertEqual(found.passed.snapshot, read_config(self.paths))
        self.assertEqual(found.passed.account, self.host.accounts["gnt-masterd", "gnt-daemons"])

    def test_own_daemon(self) -> None:
        """A running daemon is named; its journal is not read, as the daemon writes to it."""
        os.makedirs(os.path.dirname(self.paths.journal))
        Path(self.paths.journal).write_bytes(b"half of a page")
        self.hold(self.paths.pid, "flock")
        found = self.rehearsed()
        self.assertTrue(found.own)
        self.assertEqual(len(found.notes), 1)
        self.assertIn(f"This daemon runs already: {self.paths.pid} is locked", found.notes[0])

    def test_luxid_and_wconfd(self) -> None:
        """Both luxid and wconfd must be stopped first; in a simulation they don't matter."""
        for path in self.paths.peers_pids:
            self.hold(path, "lockf")
        found = self.rehearsed()
        self.assertFalse(found.own)
        self.assertEqual(len(found.notes), len(self.paths.peers_pids))
        for note, path in zip(found.notes, self.paths.peers_pids, strict=True):
            self.assertIn(f"To be stopped before the start: {path} is locked", note)
        self.assertEqual(self.rehearsed(simulated=True).notes, [])

    def test_queue_held(self) -> None:
        """A process that locks the queue is named, unless it is a daemon that is named already."""
        self.hold(self.paths.queue_lock, "flock")
        (note,) = self.rehearsed().notes
        self.assertIn(f"The job queue is another daemon's: {self.paths.queue_lock}", note)
        self.hold(self.paths.pid, "flock")
        (note,) = self.rehearsed().notes
        self.assertIn("This daemon runs already", note)

    def test_refused(self) -> None:
        """Another master and a missing account, queue or configuration are refused."""
        self.host.name = "node2"
        self.assertEqual(self.refused(), "Not master")
        self.host = Host()
        self.host.accounts = {}
        self.assertIn("'gnt-masterd'", self.refused())
        self.host = Host()
        self.host.user = 1000
        self.assertIn("uid 1000", self.refused())
        self.host = Host()
        os.rename(self.paths.queue, self.root + "/elsewhere")
        self.assertIn(f"{self.paths.queue}, the folder of the job queue, is", self.refused())
        os.rename(self.root + "/elsewhere", self.paths.queue)
        os.unlink(self.paths.config)
        self.assertIn(f"{self.paths.config} can't be read", self.refused())

    def test_faulty_configuration(self) -> None:
        """Faults in the configuration are noted only, as the daemon would start with them."""
        document = json.decode(Path(self.paths.config).read_bytes())
        document["cluster"]["tags"] = ["not a tag"]
        Path(self.paths.config).write_bytes(json.encode(document))
        (note,) = self.rehearsed().notes
        self.assertRegex(note, "The configuration has a fault: .*not a tag")


class JournalTests(RehearsalCase):
    """The journal that a killed daemon left."""

    def setUp(self) -> None:
        super().setUp()
        self.aside = os.path.dirname(self.paths.journal)

    def leave(self, *, cluster: str | None = None) -> None:
        """Writes a journal with one row that fits the files, or that is another cluster's."""
        os.makedirs(self.aside)
        snapshot = read_config(self.paths)
        files = [Path(self.paths.config).read_bytes(), None]
        store = SQLiteStore(self.paths.journal)
        store.adopt(
            JournalHeader(
                cluster or snapshot.cluster.uuid,
                snapshot.master.name,
                *[(digest_of(content),) for content in files],
            )
        )
        store.append(Entries(serials=[SerialEntry(1, 200)]))
        store.close()

    def test_fits(self) -> None:
        """A journal whose rows fit the files is no obstacle, and is not replayed."""
        self.leave()
        self.assertEqual(self.rehearsed().notes, [])

    def test_would_be_set_aside(self) -> None:
        """A journal that doesn't fit is named by its path, and stays in place."""
        self.leave(cluster="another")
        reason = self.refused()
        self.assertIn(f"A start would set the journal {self.paths.journal} aside: ", reason)
        self.assertIn("it belongs to cluster another", reason)
        self.assertNotIn("gnt-masterd-", reason)  # the copy that was read
        self.assertEqual(self.refused(), reason)

    def test_of_a_later_version(self) -> None:
        """A journal that can't be read is named by its path, not by that of the copy."""
        self.leave()
        database = sqlite3.connect(self.paths.journal)
        database.execute("PRAGMA user_version = 9")
        database.close()
        reason = self.refused()
        self.assertIn(self.paths.journal, reason)
        self.assertNotIn("gnt-masterd-", reason)

    def test_config_was_changed(self) -> None:
        """So is a journal if another program has written the configuration since."""
        self.leave()
        snapshot = read_config(self.paths)
        Path(self.paths.config).write_bytes(encode(snapshot.with_serial(1.0)))
        self.assertIn(f"{self.paths.config} was changed by another daemon", self.refused())

    def test_damaged(self) -> None:
        """A damaged journal is named by its own path."""
        os.makedirs(self.aside)
        Path(self.paths.journal).write_bytes(b"no journal at all" * 500)
        said = f"A start would set the journal {self.paths.journal} aside: it is damaged: "
        self.assertIn(said, self.refused())


class JobTests(RehearsalCase):
    """The jobs in the queue."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = QueueFolder(self.paths.queue)
        self.livelock = self.root + "/livelock"

    def running(self) -> None:
        """Adds a job to the queue that a process of luxid runs."""
        job = model.new_job(7, [{"OP_ID": "OP_TEST_DELAY", "duration": 1.0}], 1.0)
        op = structs.replace(job.ops[0], status=STATUS_RUNNING)
        job = structs.replace(job, ops=(op,), livelock=self.livelock, process_id=4711)
        Path(self.folder.job(7)).write_bytes(model.encode_job(job))

    def test_unreadable(self) -> None:
        """A job that can't be read is noted, and stays where it is."""
        Path(self.folder.job(3)).write_bytes(b"{")
        self.assertEqual(self.rehearsed().notes, ["Job 3 can't be read, and would be set aside"])

    def test_left_by_luxid(self) -> None:
        """A job whose process has gone is no obstacle."""
        self.running()
        self.assertEqual(self.rehearsed().notes, [])

    def test_outlives_luxid(self) -> None:
        """A job process that survived luxid is a refusal; while luxid runs it is only noted."""
        self.running()
        self.hold(self.livelock, "lockf")
        self.assertEqual(
            self.refused(),
            "Processes of luxid still run jobs: job 7 (running, process 4711)",
        )
        self.hold(self.paths.peers_pids[0], "lockf")
        self.assertEqual(
            self.rehearsed().notes[-1],
            "To end before the start: job 7 (running, process 4711)",
        )

    def test_archived_meanwhile(self) -> None:
        """If a job is archived while the queue is read, the queue is read again."""
        self.running()
        answers = [[7, 8], [7]]
        self.patch(QueueFolder, "live_ids", lambda folder: answers.pop(0))
        self.assertEqual(self.rehearsed().notes, [])
        self.assertEqual(answers, [])


class CopyTests(RehearsalCase):
    """The simulated nodes that are asked for their votes."""

    def test_copy(self) -> None:
        """The nodes write to the copy while they answer, and the copy is removed afterwards."""
        folder = Path(self.root, "simulation")
        folder.mkdir()
        (folder / "state").write_text("as it was")
        before = self.tree()
        with copied_simulation(self.paths) as copy:
            self.assertEqual(Path(copy.root, "simulation/state").read_text(), "as it was")
            Path(copy.root, "simulation/state").write_text("changed")
            self.assertEqual(
                Path(copy.ssconf("master_node")).read_bytes(),
                Path(self.paths.ssconf("master_node")).read_bytes(),
            )
            self.assertNotEqual(copy.root, self.paths.root)
        self.assertEqual(self.tree(), before)
        self.assertFalse(os.path.exists(copy.root))

    def test_nothing_there(self) -> None:
        """Nodes that were never called have no files to copy."""
        with copied_simulation(self.paths) as copy:
            self.assertTrue(os.path.isdir(copy.data))
