"""Calls to nodes are logged, and nodes' state is stored, both in time."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.simulation.calllog import CallLog, summary
from ganeti_masterd.simulation.faults import SimulatedFault
from tests.simulation.nodes import SimulationCase, file_disk, instance, mirror, target


class SummaryTests(SynchronousTestCase):
    def shown(self, call: str, *arguments: Any) -> list[Any]:
        return summary(CALLS[call], arguments)

    def test_small(self) -> None:
        """Small plain values are logged unchanged."""
        self.assertEqual(self.shown("test_delay", 1.5), [1.5])
        self.assertEqual(self.shown("instance_list", ["kvm"], {"kvm": {}}), [["kvm"], {"kvm": {}}])

    def test_long(self) -> None:
        """Long values are logged as digests."""
        (found,) = self.shown("write_ssconf_files", {"node_list": ["n" * 200]})
        self.assertTrue(found.startswith("sha256:"))

    def test_entities(self) -> None:
        """Instances and disks are logged as their names."""
        self.assertEqual(self.shown("instance_start", instance(), False, [])[0], "web")
        self.assertEqual(self.shown("blockdev_find", file_disk("/x"))[0], "uuid-/x")
        self.assertEqual(self.shown("blockdev_getmirrorstatus", [mirror(1)])[0], ["uuid-drbd1"])

    def test_secrets(self) -> None:
        """No secret is shown in any form."""
        secret = "hunter2"
        shown = [
            self.shown("instance_start", instance(osparams={"password": secret}), False, []),
            self.shown("blockdev_find", {"logical_id": [secret], "uuid": "x"}),
            self.shown("os_validate", True, "noop", [], {"password": secret}, False),
            self.shown("upload_file", ["/x", [0, secret], 1, "a", "b", 1, 1]),
            self.shown("jobqueue_update", "/x", [0, secret]),
            self.shown("hooks_runner", "x", "pre", {"PASSWORD": secret}),
            self.shown("instance_console_info", {"web": {"instance": {"x": secret}}}),
        ]
        self.assertNotIn(secret, json.dumps(shown))


class LogCase(SimulationCase):
    def setUp(self) -> None:
        super().setUp()
        self.root = self.mktemp()

    def lines(self) -> list[dict[str, Any]]:
        """Returns the lines of the log on the disk."""
        try:
            with open(os.path.join(self.root, "simulation", "calls.log")) as file:
                return [json.loads(line) for line in file]
        except FileNotFoundError:
            return []

    def kept(self, mode: str = "off") -> Any:
        """Returns nodes that have read this root, as after a restart."""
        return self.make(root=self.root, log=mode)


class SyncedTests(LogCase):
    def setUp(self) -> None:
        super().setUp()
        self.nodes = self.kept("synced")
        self.disk.held = True

    def test_answer_waits(self) -> None:
        """A call is answered only after its line and change are on the disk."""
        done = self.nodes.call([target("a")], "instance_start", [instance(), False, []])
        self.clock.advance(0)
        self.assertNoResult(done)
        self.assertEqual(self.lines(), [])
        self.disk.release()
        self.assertFalse(self.successResultOf(done)["uuid-a"].failed)
        (line,) = self.lines()
        self.assertEqual(
            (line["node"], line["call"], line["arguments"], line["error"]),
            ("a", "instance_start", ["web", False, []], None),
        )
        self.disk.held = False
        after = self.kept("synced")
        self.assertIn("web", after.node("a").state.instances)

    def test_grouped(self) -> None:
        """Calls of one reactor turn share a write; calls during that share the next."""
        first = [self.nodes.call([target("a")], "version") for _ in range(5)]
        self.clock.advance(0)
        second = [self.nodes.call([target("a")], "version") for _ in range(5)]
        self.clock.advance(1)
        self.assertEqual(len(self.disk.jobs), 1)
        self.disk.release()
        for done in first:
            self.successResultOf(done)
        for done in second:
            self.assertNoResult(done)
        self.clock.advance(0)
        self.assertEqual(len(self.disk.jobs), 1)
        self.disk.release()
        for done in second:
            self.successResultOf(done)
        self.assertEqual(len(self.lines()), 10)
        self.clock.advance(5)
        self.assertEqual((self.disk.jobs, len(self.timers)), ([], 0))

    def test_disk_fails(self) -> None:
        """A disk error fails the call; the changes are written with the next call's."""
        done = self.nodes.call([target("a")], "instance_start", [instance(), False, []])
        self.disk.broken = OSError(28, "No space left on device")
        self.clock.advance(0)
        error = self.successResultOf(done)["uuid-a"].error
        self.assertIn("No space left on device", str(error))
        self.disk.broken = None
        self.disk.held = False
        self.nodes.call([target("a")], "version")
        self.clock.advance(0)
        after = self.kept()
        self.assertIn("web", after.node("a").state.instances)

    def test_one_that_raises(self) -> None:
        """If a callback of a write raises, others are still answered, and closing works."""
        heard: list[str | None] = []
        for told in (heard.append, lambda _: 1 // 0, heard.append):
            self.nodes.log.add("a", CALLS["version"], [], None, told)
        self.clock.advance(0)
        self.disk.release()
        self.assertEqual(heard, [None, None])
        self.disk.held = False
        self.successResultOf(self.nodes.close())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_failures_and_silence(self) -> None:
        """Failed calls are logged with their error, silent nodes too, unreachable ones not."""
        self.disk.held = False
        self.nodes.faults.add(SimulatedFault(kind="silent", node="b"))
        self.nodes.faults.add(SimulatedFault(kind="unreachable", node="c"))
        self.nodes.call([target(name) for name in "abc"], "test_delay", [-1])
        self.clock.advance(0)
        self.assertEqual(
            [(line["node"], line["error"]) for line in self.lines()],
            [("a", "Invalid sleep duration"), ("b", "(no answer)")],
        )

    def test_close_waits(self) -> None:
        """Closing writes what is left, after the write in progress."""
        self.nodes.call([target("a")], "version")
        self.clock.advance(0)
        self.nodes.call([target("b")], "version")
        closed = self.nodes.close()
        self.assertNoResult(closed)
        while self.disk.jobs:
            self.disk.release()
        self.successResultOf(closed)
        self.assertEqual(len(self.lines()), 2)
        self.assertEqual(len(self.timers), 0)

    def test_close_on_a_full_disk(self) -> None:
        """Closing ends even if nothing can be written."""
        self.nodes.call([target("a")], "instance_start", [instance(), False, []])
        self.clock.advance(0)

        def full(changes: object) -> None:
            raise OSError(28, "No space left on device")

        self.patch(self.nodes._store, "write", full)
        closed = self.nodes.close()
        for _ in range(10):
            self.disk.release()
        self.successResultOf(closed)
        self.assertEqual(len(self.timers), 0)

    def test_no_disk_thread(self) -> None:
        """If the disk thread refuses work, the call fails; later calls are written."""
        self.disk.held = False
        run = self.disk.run

        def refuse(function: object, *args: object) -> None:
            raise RuntimeError("no thread")

        self.patch(self.nodes.log, "_in_disk_thread", refuse)
        done = self.nodes.call([target("a")], "version")
        self.clock.advance(0)
        self.assertIn("no thread", str(self.successResultOf(done)["uuid-a"].error))
        self.patch(self.nodes.log, "_in_disk_thread", run)
        self.ask_later("a")

    def test_one_who_cannot_be_told(self) -> None:
        """If one callback raises, the others are still called."""
        self.disk.held = False

        def fail(error: str | None) -> None:
            raise ValueError("deaf")

        self.nodes.log.add("b", CALLS["version"], [], None, fail)
        self.ask_later("a")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.ask_later("a")

    def ask_later(self, name: str) -> None:
        """Calls a node and waits until its line is written."""
        done = self.nodes.call([target(name)], "version")
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(done)[f"uuid-{name}"].error)


class BufferedTests(LogCase):
    def test_behind(self) -> None:
        """Calls are answered at once, and logged within half a second."""
        self.nodes = self.kept("buffered")
        self.ask("a", "version")
        self.assertEqual(self.lines(), [])
        self.clock.advance(CallLog.BEHIND)
        self.assertEqual(len(self.lines()), 1)

    def test_turned_over(self) -> None:
        """A long log is rotated, and one old log is kept."""
        self.patch(CallLog, "LONG", 100)
        self.nodes = self.kept("buffered")
        for _ in range(4):
            self.ask("a", "version")
            self.clock.advance(CallLog.BEHIND)
        self.assertEqual(len(self.lines()), 2)
        self.assertTrue(os.path.exists(os.path.join(self.root, "simulation", "calls.log.1")))


class KeptTests(LogCase):
    def test_restart(self) -> None:
        """Nodes have the same state after a restart as before."""
        self.nodes = self.kept()
        self.ask("a", "instance_start", instance(), False, [])
        self.ask("a", "instance_start", instance("mail"), False, [])
        self.ask("b", "file_storage_dir_create", "/srv/web")
        self.ask("b", "blockdev_create", file_disk("/srv/web/0"), 16, "web", True, "", False)
        self.ask("b", "write_ssconf_files", {"master_node": ["a"]})
        self.ask("b", "set_watcher_pause", 1_800_000_000)
        self.clock.advance(1)
        self.ask("a", "instance_shutdown", instance("mail"), 120, [])
        self.successResultOf(self.nodes.close())
        self.nodes = self.kept()
        found = self.ask("a", "all_instances_info", ["fake"], {"fake": {}})
        self.assertEqual(list(found), ["web"])
        self.assertIsNotNone(self.ask("b", "blockdev_find", file_disk("/srv/web/0")))
        self.assertEqual(self.ask("b", "master_node_name"), "a")
        self.assertEqual(self.ask("b", "get_watcher_pause"), 1_800_000_000)

    def test_only_changes(self) -> None:
        """Calls that change nothing write nothing."""
        self.nodes = self.kept()
        self.disk.held = True
        for _ in range(3):
            self.ask("a", "version")
            self.ask("a", "instance_shutdown", instance(), 120, [])
        self.clock.advance(10)
        self.assertEqual(self.disk.jobs, [])

    def test_change_while_writing(self) -> None:
        """Changes made while the disk is busy are written afterwards."""
        self.nodes = self.kept()
        self.disk.held = True
        self.ask("a", "instance_start", instance(), False, [])
        self.clock.advance(CallLog.BEHIND)
        self.ask("a", "instance_start", instance("mail"), False, [])
        self.disk.release()
        self.clock.advance(CallLog.BEHIND)
        self.disk.release()
        self.disk.held = False
        self.assertEqual(len(self.kept().node("a").state.instances), 2)
        self.assertEqual(len(self.timers), 0)

    def test_archive(self) -> None:
        """Archived job files are removed from memory once written, and from disk by a purge."""
        self.nodes = self.kept()
        queue = "/var/lib/ganeti/queue/"
        self.ask("a", "jobqueue_update", queue + "job-1", [0, "{}"])
        self.ask("a", "jobqueue_rename", [[queue + "job-1", queue + "archive/0/job-1"]])
        self.assertEqual(len(self.nodes.node("a").state.archive), 1)
        self.clock.advance(1)
        self.assertEqual(len(self.nodes.node("a").state.archive), 0)
        self.ask("a", "jobqueue_purge")
        self.successResultOf(self.nodes.close())
        with contextlib.closing(
            sqlite3.connect(os.path.join(self.root, "simulation", "nodes.sqlite"))
        ) as connection:
            self.assertEqual(connection.execute("SELECT count(*) FROM held").fetchone(), (0,))

    def test_leaving(self) -> None:
        """A node that has left the cluster is empty after a restart, too."""
        self.nodes = self.kept()
        self.ask("a", "instance_start", instance(), False, [])
        self.clock.advance(1)
        self.assertEqual(self.ask("a", "node_leave_cluster", True), "Shutdown scheduled")
        self.successResultOf(self.nodes.close())
        self.assertEqual(len(self.kept().node("a").state.instances), 0)
