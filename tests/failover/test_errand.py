"""A whole fail-over, on files of three nodes."""

from __future__ import annotations

import os
from pathlib import Path

from msgspec.structs import replace

from ganeti_masterd.config.changes import SERIAL_STEP
from ganeti_masterd.config.document import apply_rows
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.jobs.model import decode_job_of, encode_job, merge_log
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.recovery import Identity, recover
from ganeti_masterd.journal.rows import JobRow
from ganeti_masterd.journal.writing import JournalWriting
from ganeti_masterd.startup import locks
from ganeti_masterd.startup.locks import LockedFile
from ganeti_masterd.testing.nodes import Failed
from tests.failover.scene import DOWN, NOW, SceneTestCase, config_of, ended, queued, running


class DoneTests(SceneTestCase):
    """Fail-overs that succeed."""

    def test_everybody_is_told(self) -> None:
        """The old master is stopped first, and this node's own ssconf is written last."""
        before = config_of(self.own)
        report = self.succeeds()
        self.assertEqual((report.old, report.own, report.running), ("node1", "node2", True))
        for root in self.roots.values():
            after = config_of(root)
            self.assertEqual((after.master.name, root.master()), ("node2", "node2"))
            self.assertEqual(after.header.serial_no, before.header.serial_no + SERIAL_STEP)
            self.assertEqual(after.cluster.serial_no, before.cluster.serial_no + 1)
        calls = self.nodes.procedures()
        self.assertLess(
            calls.index(("node1", "node_stop_master")),
            min(place for place, call in enumerate(calls) if call[1] == "node_verify"),
        )
        self.assertEqual(
            calls[-2:], [("node2", "write_ssconf_files"), ("node2", "node_start_master_daemons")]
        )
        self.assertEqual(self.warnings, [])

    def test_old_address(self) -> None:
        """The old master is asked to take down its master address; a failure is a warning."""
        self.nodes.answers["node_deactivate_master_ip"] = Failed("no such device")
        self.succeeds()
        (asked,) = [a for a in self.nodes.asked if a.procedure == "node_deactivate_master_ip"]
        self.assertEqual(asked.node, "node1")
        self.assertEqual(asked.arguments[0]["uuid"], self.own.snapshot.nodes.named("node1").uuid)
        self.assertIn("no such device", self.warnings[0])

    def test_no_queue_call_to_this_node(self) -> None:
        """No queue call is made to this node, as the fail-over holds its queue's lock."""
        self.succeeds()
        own = {call for node, call in self.nodes.procedures() if node == "node2"}
        self.assertEqual(own, {"version", "write_ssconf_files", "node_start_master_daemons"})

    def test_dead_master(self) -> None:
        """A node that doesn't answer gives a warning, and is sent no more calls."""
        self.down("node1")
        self.succeeds()
        self.assertEqual(len(self.warnings), 1)
        self.assertIn("node1 does not answer", self.warnings[0])
        asked = {call for node, call in self.nodes.procedures() if node == "node1"}
        self.assertEqual(asked, {"master_node_name", "version"})

    def test_master_that_names_nobody(self) -> None:
        """A master with broken ssconf has no vote, but its daemon is stopped, as it may run."""
        self.nodes.answers["node1", "master_node_name"] = Failed("no such file")
        self.succeeds()
        self.assertIn(("node1", "node_stop_master"), self.nodes.procedures())
        self.assertEqual(self.roots["node1"].master(), "node2")

    def test_drained(self) -> None:
        """A drained queue stays drained, with a warning."""
        self.own.write(self.own.paths.queue + "/drain", b"")
        self.succeeds()
        self.assertIn("The queue is drained", self.warnings[0])

    def test_offline_master(self) -> None:
        """A master that is marked offline is still asked and stopped if it answers."""

        def mark(snapshot: Snapshot) -> Snapshot:
            node = snapshot.master
            return snapshot.with_object("nodes", replace(node, offline=True))

        for root in self.roots.values():
            root.configure(mark)
        self.succeeds()
        self.assertIn(("node1", "node_stop_master"), self.nodes.procedures())
        self.assertNotIn(("node1", "write_ssconf_files"), self.nodes.procedures())

    def test_no_start(self) -> None:
        """With --no-start everything is done except the start."""
        self.assertFalse(self.succeeds(start=False).running)
        self.assertNotIn(("node2", "node_start_master_daemons"), self.nodes.procedures())
        self.assertEqual(self.own.master(), "node2")

    def test_start_fails(self) -> None:
        """If the daemon doesn't run after its start, that is reported."""
        self.nodes.answers["node_start_master_daemons"] = Failed("exit code 1")
        self.assertFalse(self.succeeds().running)
        self.assertIn("exit code 1", self.warnings[0])

    def test_luxid_starts(self) -> None:
        """If daemon-util doesn't know this daemon, the report says that luxid was started."""
        path = self.own.paths.peers_pids[0]
        self.nodes.answers["node_start_master_daemons"] = lambda *_: self.daemon.take(path)
        self.assertFalse(self.succeeds().running)
        self.assertIn("luxid was started", self.warnings[0])

    def test_voting_of_the_start(self) -> None:
        """The daemon that is started votes, or not, as the fail-over did."""
        for vote in (True, False):
            self.succeeds(vote=vote)
            (asked,) = [a for a in self.nodes.asked if a.procedure == "node_start_master_daemons"]
            self.assertEqual(asked.arguments, [not vote])
            self.daemon.release()
            self.nodes.asked.clear()
            for root in self.roots.values():
                root.write(root.paths.ssconf("master_node"), b"node1\n")

    def test_again(self) -> None:
        """An interrupted fail-over can be run again."""
        self.nodes.answers["node2", "write_ssconf_files"] = Failed("no space left")
        outcome = self.fail_over()
        self.assertIn("no space left", outcome.refusal or "")
        self.assertEqual((self.own.master(), self.roots["node3"].master()), ("node1", "node2"))
        del self.nodes.answers["node2", "write_ssconf_files"]
        self.succeeds()
        self.assertEqual(self.own.master(), "node2")


class NewestTests(SceneTestCase):
    """The newest files of all candidates that answer are taken over."""

    def test_newer_elsewhere(self) -> None:
        """A candidate that missed the last changes gets them from the one that has them."""
        self.own.put(running(1), queued(2), serial=100)
        self.roots["node3"].put(ended(1), running(2), queued(3), serial=200)
        self.roots["node3"].tag("newest")
        self.down("node1")
        report = self.succeeds()
        self.assertEqual((report.config_of, report.serial, report.jobs), ("node3", 200, [1, 2, 3]))
        self.assertEqual(self.own.jobs(), {1: "success", 2: "running", 3: "queued"})
        self.assertEqual(config_of(self.own).cluster.tags, ("newest",))
        serial = Path(self.own.paths.queue, "serial").read_text(encoding="ascii")
        self.assertEqual(serial, "200\n")

    def test_older_elsewhere(self) -> None:
        """Of candidates that are behind only the configuration is read, and nothing is taken."""
        self.own.put(ended(1), serial=200)
        self.own.tag("newest")
        self.roots["node3"].put(running(1), serial=100)
        self.down("node1")
        report = self.succeeds()
        self.assertEqual((report.config_of, report.serial, report.jobs), ("node2", 200, []))
        self.assertEqual(config_of(self.roots["node3"]).cluster.tags, ("newest",))

    def test_some_here_some_there(self) -> None:
        """The newest version of each file is taken, wherever it is."""
        self.own.put(ended(1), queued(2))
        self.roots["node3"].put(running(1), ended(2))
        self.own.tag("here")
        self.succeeds()
        self.assertEqual(self.own.jobs(), {1: "success", 2: "success"})
        self.assertEqual(config_of(self.own).cluster.tags, ("here",))

    def test_archived_elsewhere(self) -> None:
        """A job that another candidate has archived does not run again here."""
        self.own.put(queued(7))
        self.roots["node3"].archive(ended(7))
        self.down("node1")
        self.assertEqual(self.succeeds().jobs, [7])
        self.assertEqual(self.own.jobs(), {})
        archived = Path(self.own.paths.queue, "archive/0/job-7")
        self.assertEqual(archived.read_bytes(), encode_job(ended(7)))

    def test_archived_here(self) -> None:
        """A job in this node's archive does not return to the queue."""
        self.own.archive(ended(7))
        self.roots["node3"].put(running(7))
        self.succeeds()
        self.assertEqual(self.own.jobs(), {})

    def test_stopped_master_knows_most(self) -> None:
        """What the old master wrote when it stopped counts as another candidate's."""
        self.roots["node1"].put(ended(4), serial=9)
        self.assertEqual(self.succeeds().serial, 9)
        self.assertEqual(self.own.jobs(), {4: "success"})

    def test_another_reign(self) -> None:
        """Files written under another master are left out, whatever their serial."""
        stale = self.roots["node3"]
        stale.tag("stale", serial=5000)
        stale.configure(
            lambda one: one.with_object(
                "cluster", replace(one.cluster, master_node=one.nodes.named("node3").uuid)
            )
        )
        stale.put(ended(50))
        self.succeeds()
        self.assertEqual(self.own.jobs(), {})
        self.assertEqual(config_of(self.own).cluster.tags, ())
        self.assertIn("is from when node3 was the master, not node1", self.warnings[0])

    def test_two_histories(self) -> None:
        """Two different configurations with the same serial are a refusal."""
        self.own.tag("here")
        self.roots["node3"].tag("there")
        self.refused("two masters were at work")
        self.assertIn("The master daemon on node1 was stopped", self.warnings[-1])

    def test_unreadable(self) -> None:
        """Differing files that can't be read are a refusal, unless --keep-own is given."""
        self.own.put(queued(1), serial=10)
        self.roots["node3"].put(ended(1), queued(30), serial=40)
        self.roots["node3"].tag("there")
        self.unreadable = {"node3"}
        text = self.refused("its configuration and 2 of its jobs (1, 30)")
        self.assertIn("no route to host", text)
        self.assertIn("run this on node3", text)
        report = self.succeeds(keep_own=True)
        self.assertEqual((report.config_of, report.jobs), ("node2", []))
        self.assertEqual(report.serial, 40)
        self.assertIn("Not read, and not taken", self.warnings[0])

    def test_unknown(self) -> None:
        """A candidate that doesn't answer which files it holds is treated as unreadable."""
        self.nodes.answers["node3", "node_verify"] = Failed("out of memory")
        self.refused("Which files node3 holds is not known")
        self.succeeds(keep_own=True)
        self.assertIn("out of memory", self.warnings[0])

    def test_rubbish(self) -> None:
        """An answer without digests is treated as none."""
        self.nodes.answers["node3", "node_verify"] = {"filelist": None}
        self.refused("node_verify told no digests")

    def test_changes_under_way(self) -> None:
        """Files that change while they are read are a refusal: some master daemon is running."""
        there = self.roots["node3"]
        there.put(queued(1))
        fetch = self._fetch

        def late(*args: object) -> object:
            there.put(running(1))
            return fetch(*args)  # type: ignore[arg-type]

        self._fetch = late  # type: ignore[method-assign, assignment]
        self.refused("changes while it is read")

    def test_candidate_without_files(self) -> None:
        """A candidate without files is ignored, with a warning."""
        os.unlink(self.roots["node3"].paths.config)
        self.own.put(queued(1))
        self.assertEqual(self.succeeds().jobs, [])
        self.assertIn("node3 holds no configuration", self.warnings[0])

    def test_no_candidate(self) -> None:
        """A node that isn't a candidate votes and gets ssconf, but its files don't count."""

        def demote(snapshot: Snapshot) -> Snapshot:
            node = snapshot.nodes.named("node3")
            assert node is not None
            return snapshot.with_object("nodes", replace(node, master_candidate=False))

        for root in self.roots.values():
            root.configure(demote)
        self.roots["node3"].put(queued(1))
        self.succeeds()
        self.assertEqual(self.own.jobs(), {})
        self.assertNotIn(("node3", "upload_file_single"), self.nodes.procedures())
        self.assertEqual(self.roots["node3"].master(), "node2")


class JournalTests(SceneTestCase):
    """A journal from when this node was the master itself."""

    def leave(self, **identity: str) -> None:
        """Leaves a row in the journal, as a killed daemon does."""
        paths = self.own.paths
        snapshot = self.own.snapshot
        recovered = recover(
            paths.journal,
            identity=Identity(snapshot.cluster.uuid, identity.get("master", "node2")),
            files=QueueFiles(queue=paths.queue, config=paths.config),
            disk=RealDisk(),
            merge_log=merge_log,
            check_job=decode_job_of,
            merge_config=apply_rows,
            now=lambda: NOW,
        )
        writing = JournalWriting(recovered)
        writing.append([(1, JobRow(1, encode_job(running(1))))])
        writing.close()

    def test_does_not_win(self) -> None:
        """The journal is renamed and not replayed, even if it would fit the files."""
        self.own.put(queued(1))
        self.leave()
        self.roots["node3"].put(ended(1))
        (kept,) = self.succeeds().journals
        self.assertTrue(os.path.exists(kept))
        self.assertFalse(os.path.exists(self.own.paths.journal))
        self.assertEqual(self.own.jobs(), {1: "success"})
        self.reopen()

    def test_undecided(self) -> None:
        """A journal that the daemon set aside earlier is renamed, too."""
        self.leave()
        os.rename(
            self.own.paths.journal,
            self.own.paths.journal.removesuffix(".db") + ".set-aside-20260101T000000Z",
        )
        (kept,) = self.succeeds().journals
        self.assertTrue(kept.endswith(".dropped"))
        self.reopen()

    def test_empty(self) -> None:
        """An empty journal stays."""
        self.leave()
        self.reopen(rows=1, master="node2")
        self.assertEqual(self.succeeds().journals, [])

    def reopen(self, rows: int = 0, master: str = "node2") -> None:
        """Opens the journal as the daemon does, and checks how many rows are replayed."""
        paths = self.own.paths
        recovered = recover(
            paths.journal,
            identity=Identity(self.own.snapshot.cluster.uuid, master),
            files=QueueFiles(queue=paths.queue, config=paths.config),
            disk=RealDisk(),
            merge_log=merge_log,
            check_job=decode_job_of,
            merge_config=apply_rows,
            now=lambda: NOW,
        )
        recovered.store.close()
        self.assertEqual(recovered.replayed, rows)


class RefusedTests(SceneTestCase):
    """Refused fail-overs, which change nothing."""

    def nothing_stopped(self) -> None:
        self.assertNotIn("node_stop_master", {call for _, call in self.nodes.procedures()})

    def test_master_already(self) -> None:
        """The master can't take over from itself."""
        self.host.name = "node1"
        self.refused("node1 is the master already")
        self.assertEqual(self.nodes.asked, [])

    def test_unknown_node(self) -> None:
        """A host that isn't a node can't become the master."""
        self.host.name = "node9"
        self.refused("knows no node node9")

    def test_ssconf_without_a_master(self) -> None:
        """An ssconf that names no master, or a node that doesn't exist, is a refusal."""
        self.own.write(self.own.paths.ssconf("master_node"), b"node8\n")
        self.refused("knows no node node8, which ssconf names as master")
        self.own.write(self.own.paths.ssconf("master_node"), b"\n")
        self.refused("names no node")

    def change_own(self, **values: bool) -> None:
        node = self.own.snapshot.nodes.named("node2")
        assert node is not None
        self.own.configure(lambda one: one.with_object("nodes", replace(node, **values)))

    def test_no_candidate(self) -> None:
        """Only a candidate can become the master; the message names the candidates."""
        self.change_own(master_candidate=False)
        self.refused("node2 is no master candidate: only one can become the master. These are: ")
        self.nothing_stopped()

    def test_offline(self) -> None:
        """A node that is marked offline can't become the master."""
        self.change_own(offline=True)
        self.refused("marks node2 as offline")

    def test_no_configuration(self) -> None:
        """A node with a missing or broken configuration can't become the master."""
        self.own.write(self.own.paths.config, b"{")
        self.refused("config.data")
        os.unlink(self.own.paths.config)
        outcome = self.fail_over()
        self.assertIn("config.data can't be read", outcome.refusal or "")

    def test_daemon_runs_here(self) -> None:
        """A master daemon on this node, ours or luxid, must be stopped first."""
        self.patch(locks, "TRIES", 0)
        for path in (self.own.paths.pid, *self.own.paths.peers_pids, self.own.paths.queue_lock):
            lock = LockedFile(path)
            self.refused("A master daemon runs on this node")
            lock.release()
        self.assertEqual(self.nodes.asked, [])

    def test_own_node_daemon(self) -> None:
        """A node whose own node daemon doesn't run can't become the master."""
        self.nodes.answers["node2", "version"] = DOWN
        self.refused("This node's own node daemon must run")

    def test_minority(self) -> None:
        """A node that reaches only a minority must not make itself the master."""
        self.down("node1", "node3")
        self.refused("only 1 of 3 nodes answer")
        self.succeeds(vote=False)
        self.assertIn("Without the vote: only 1 of 3", self.warnings[0])

    def test_out_of_date(self) -> None:
        """A node whose ssconf names another master than most do must not become the master."""
        for name in ("node1", "node3"):
            self.nodes.answers[name, "master_node_name"] = "node3"
        self.refused("2 of 3 nodes take node3 for the master")
        self.nothing_stopped()

    def test_from_another_reign(self) -> None:
        """Nor must one whose ssconf has a new master, but whose configuration has not."""
        for root in self.roots.values():
            root.write(root.paths.ssconf("master_node"), b"node3\n")
        self.refused("is from when node1 was the master, not node3")

    def test_old_master_goes_on(self) -> None:
        """An old master that answers but can't be stopped is a refusal, with or without a vote."""
        self.nodes.answers["node1", "jobqueue_rename"] = Failed("Failed to lock the queue")
        for vote in (True, False):
            self.refused("is not stopped for certain", vote=vote)
        self.assertNotIn(("node1", "node_deactivate_master_ip"), self.nodes.procedures())

    def test_daemon_starts_meanwhile(self) -> None:
        """A daemon that locks the queue while the old master is being stopped is a refusal."""
        self.patch(locks, "TRIES", 0)
        held: list[LockedFile] = []
        self.nodes.answers["node1", "node_stop_master"] = lambda *_: held.append(
            LockedFile(self.own.paths.queue_lock)
        )
        self.refused("stop the master daemon on this node first")
        held[0].release()
