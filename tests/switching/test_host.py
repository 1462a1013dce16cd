"""What a switch does to a node: programs that it runs, files that it writes, what it waits for."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.luxi.failures import DaemonUnreachable
from ganeti_masterd.startup import simulated_root
from ganeti_masterd.startup.checks import SimulatedMachine
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.switching import checks, host
from ganeti_masterd.switching.commands import ProgramRun, environment_below, run_program
from ganeti_masterd.switching.hook import is_hooked
from ganeti_masterd.switching.host import LOOK_AGAIN, UNIT_FILE, UNIT_NOTE, SwitchedNode
from ganeti_masterd.switching.plan import LUXID, WCONFD
from ganeti_masterd.switching.steps import SwitchFault
from tests.test_packaging import PROJECT


class Client:
    """A master daemon: ``jobs`` are the rows of each question in turn, the last for ever."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.jobs: list[list[list[Any]]] = [[]]
        self.absent = 0
        self.drains: list[bool] = []

    def query_jobs(self, jobs: Any, fields: list[str]) -> list[list[Any]]:
        rows = self.jobs.pop(0) if len(self.jobs) > 1 else self.jobs[0]
        return [row[: len(fields)] for row in rows]

    def set_drain_flag(self, drained: bool) -> None:
        self.drains.append(drained)

    def call(self, method: str, *args: Any) -> Any:
        assert method == "QueryClusterInfo"
        if self.absent:
            self.absent -= 1
            raise DaemonUnreachable("nobody listens")
        return {"uuid": self.uuid}


class NodeCase(SynchronousTestCase):
    """A node below a folder of its own, on which no daemon runs."""

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="gnt-")
        self.addCleanup(shutil.rmtree, folder)
        self.paths = Paths(folder)
        simulated_root.prepare(self.paths, 1)
        os.makedirs(f"{folder}/etc/default")
        self.client = Client(read_config(self.paths).cluster.uuid)
        self.clock = Clock()
        self.said: list[str] = []
        self.commands: list[str] = []
        self.effects: dict[str, Callable[[], object]] = {}
        self.results: dict[str, ProgramRun] = {}
        self.is_interrupted = False
        self.node = self.make_node()

    def make_node(self, **settings: Any) -> SwitchedNode:
        return SwitchedNode(
            self.paths,
            self.client,
            programs="/opt/p/bin",
            share=str(PROJECT / "deploy"),
            patience=10.0,
            environment={"PATH": os.environ["PATH"]},
            machine=SimulatedMachine({}, self.paths),
            say=self.said.append,
            interrupted=lambda: self.is_interrupted,
            sleep=self.clock.advance,
            now=self.clock.seconds,
            run=self.run_command,
            **settings,
        )

    def run_command(
        self, command: list[str], environment: Mapping[str, str], limit: float
    ) -> ProgramRun:
        shown = " ".join(os.path.basename(word) for word in command)
        self.commands.append(shown)
        self.effects.get(shown, lambda: None)()
        return self.results.get(shown, ProgramRun(shown, 0, ""))

    def hold(self, path: str) -> Callable[[], None]:
        """Has another process hold a PID file; returns what ends it."""
        held = {path}
        self.patch(host, "_held", held.__contains__)
        return held.clear


class DaemonTests(NodeCase):
    """Starting and stopping."""

    def test_start_that_fails(self) -> None:
        """The message has the command, its exit code and its output."""
        self.results["daemon-util start ganeti-luxid"] = ProgramRun("daemon-util", 1, "no vote\n")
        error = self.assertRaises(SwitchFault, self.node.start_own)
        self.assertEqual(str(error), "daemon-util ended with exit code 1: no vote")

    def test_start_without_effect(self) -> None:
        """A daemon that isn't there after its start is a failure, after a while."""
        error = self.assertRaises(SwitchFault, self.node.start_peer, LUXID)
        self.assertIn("ganeti-luxid: not seen within 120 seconds", str(error))

    def test_runs_already(self) -> None:
        """One that runs isn't started again, and one that doesn't isn't stopped."""
        self.hold(f"{self.paths.run}/{LUXID}.pid")
        self.node.start_peer(LUXID)
        self.node.stop_peer(WCONFD)
        self.assertEqual(self.commands, [])

    def test_stop(self) -> None:
        """The daemon is stopped by what daemon-util is; if it goes on that is a failure."""
        end = self.hold(f"{self.paths.run}/{LUXID}.pid")
        error = self.assertRaises(SwitchFault, self.node.stop_peer, LUXID)
        self.assertEqual(str(error), "ganeti-luxid still runs")
        self.effects["daemon-util stop ganeti-luxid"] = end
        self.node.stop_peer(LUXID)
        self.assertEqual(self.commands, ["daemon-util stop ganeti-luxid"] * 2)

    def test_stop_of_its_own(self) -> None:
        """By daemon-util, if that knows it; the queue is put in order in any case."""
        self.node.hook(True)
        self.effects["daemon-util stop ganeti-luxid"] = self.hold(self.paths.pid)
        self.node.stop_own()
        self.node.stop_own()
        self.assertEqual(
            self.commands, ["daemon-util stop ganeti-luxid", "gnt-luxi recover", "gnt-luxi recover"]
        )

    def test_queue_that_is_not_in_order(self) -> None:
        """A journal that recover can't write fails the step: luxid must not go on."""
        self.results["gnt-luxi recover"] = ProgramRun("gnt-luxi recover", 1, "set aside")
        error = self.assertRaises(SwitchFault, self.node.stop_own)
        self.assertEqual(str(error), "gnt-luxi recover ended with exit code 1: set aside")

    def test_own_holds_the_files_of_others(self) -> None:
        """While this daemon runs, PID files of luxid's and wconfd's that are held are its."""
        locks = [self.paths.pid, *self.paths.peers_pids]
        self.patch(host, "_held", locks.__contains__)
        now = self.node.standing()
        self.assertEqual((now.own, now.luxid, now.wconfd), (True, False, False))
        locks.remove(self.paths.pid)
        now = self.node.standing()
        self.assertEqual((now.own, now.luxid, now.wconfd), (False, True, True))


class JobTests(NodeCase):
    """Waiting for jobs, and seeing that the other daemon has them."""

    def test_waits(self) -> None:
        """Jobs that have begun are waited for, and said when they change; queued ones aren't."""
        self.client.jobs = [
            [[1, "running", ["A"]], [2, "waiting", ["B", "C"]], [3, "queued", ["D"]]],
            [[1, "success", ["A"]], [2, "canceling", ["B", "C"]], [3, "queued", ["D"]]],
            [[1, "success", ["A"]], [2, "canceling", ["B", "C"]], [3, "queued", ["D"]]],
            [[1, "success", ["A"]], [2, "canceled", ["B", "C"]], [3, "queued", ["D"]]],
        ]
        self.node.wait_for_jobs()
        self.assertEqual(
            self.said,
            [
                "  waiting for job 1 (running, A), 2 (waiting, B, C)",
                "  waiting for job 2 (canceling, B, C)",
            ],
        )
        self.assertAlmostEqual(self.clock.seconds(), 3 * LOOK_AGAIN)

    def test_too_long(self) -> None:
        """The patience has an end."""
        self.client.jobs = [[[7, "running", ["A"]]]]
        error = self.assertRaises(SwitchFault, self.node.wait_for_jobs)
        self.assertIn("Still there after 10 seconds: job 7 (running, A)", str(error))

    def test_interrupted(self) -> None:
        """Ctrl-C ends the wait."""
        self.client.jobs = [[[7, "running", ["A"]]]]
        self.is_interrupted = True
        error = self.assertRaises(SwitchFault, self.node.wait_for_jobs)
        self.assertEqual(str(error), "interrupted")

    def test_answers(self) -> None:
        """The daemon gets time to begin; it must be the right one, and have all."""
        self.hold(self.paths.pid)
        self.client.jobs = [[[1, "success", []], [2, "error", []]]]
        self.client.absent = 3
        self.node.wait_for_jobs()
        self.node.answers(True)
        for own, change, reason in (
            (False, {"absent": 1}, "What answers is not luxid"),
            (True, {"jobs": [[[2, "error", []]]]}, "doesn't know jobs that there were: [1]"),
            (True, {"uuid": "other"}, "has cluster other"),
            (True, {"absent": 10**6}, "No master daemon answers within 120 seconds"),
        ):
            with mock.patch.multiple(self.client, **change):
                error = self.assertRaises(SwitchFault, self.node.answers, own)
            self.assertIn(reason, str(error))

    def test_drain(self) -> None:
        """Luxid hangs when it is to open a queue that is open: it isn't asked to."""
        self.client.absent = 2
        self.node.drain(False)
        self.node.drain(True)
        with open(f"{self.paths.queue}/drain", "w", encoding="ascii"):
            pass
        self.node.drain(True)
        self.node.drain(False)
        self.assertEqual(self.client.drains, [True, False])


class FileTests(NodeCase):
    """daemon-util's settings, and the unit."""

    def settings(self) -> str:
        with open(self.node.settings_file, encoding="utf-8") as file:
            return file.read()

    def test_hook_keeps_the_file(self) -> None:
        """Its owner, mode and other lines stay; the undo brings back what there was."""
        before = "A=1\nGNT_MASTERD_BIN=/elsewhere\n. /elsewhere/daemon-util.sh\n"
        with open(self.node.settings_file, "w", encoding="utf-8") as file:
            file.write(before)
        os.chmod(self.node.settings_file, 0o600)
        self.node.hook(True)
        self.assertIn("GNT_MASTERD_BIN=/opt/p/bin\n", self.settings())
        self.assertEqual(os.stat(self.node.settings_file).st_mode & 0o777, 0o600)
        self.assertTrue(self.node.standing().hook_current)
        self.node.hook(False)
        self.assertEqual(self.settings(), before)
        self.assertEqual(os.listdir(os.path.dirname(self.node.settings_file)), ["ganeti"])

    def test_no_file(self) -> None:
        """Where there is none, one is made that others can read."""
        self.node.hook(True)
        self.assertTrue(is_hooked(self.settings()))
        self.assertEqual(os.stat(self.node.settings_file).st_mode & 0o777, 0o644)

    def test_link(self) -> None:
        """A link to a file stays a link."""
        target = f"{self.paths.root}/kept"
        os.symlink(target, self.node.settings_file)
        self.node.hook(True)
        self.assertTrue(os.path.islink(self.node.settings_file))
        self.assertTrue(os.path.exists(target))

    def test_full_disk(self) -> None:
        """If it can't be written the old one is whole, and nothing is left beside it."""
        self.node.hook(True)
        before = self.settings()
        other = self.make_node()
        with mock.patch("os.fsync", side_effect=OSError(28, "No space left on device")):
            self.assertRaises(OSError, other.hook, False)
        self.assertEqual(self.settings(), before)
        self.assertEqual(os.listdir(os.path.dirname(self.node.settings_file)), ["ganeti"])

    def test_unit(self) -> None:
        """It names the programs that there are, and is removed if a switch wrote it."""
        root = self.paths.root
        os.makedirs(f"{root}/run/systemd/system")
        os.makedirs(f"{root}/etc/systemd/system")
        node = self.make_node(system=root)
        node.unit(True)
        with open(root + UNIT_FILE, encoding="utf-8") as file:
            text = file.read()
        self.assertTrue(text.startswith(UNIT_NOTE))
        self.assertIn("\nExecStart=/opt/p/bin/twistd ", text)
        self.assertNotIn("/opt/ganeti-masterd/bin", text)
        node.unit(False)
        self.assertFalse(os.path.exists(root + UNIT_FILE))
        with open(root + UNIT_FILE, "w", encoding="utf-8") as file:
            file.write("[Unit]\n")
        node.unit(False)
        self.assertTrue(os.path.exists(root + UNIT_FILE))
        self.assertEqual(self.commands, ["systemctl daemon-reload"] * 3)


class CheckTests(NodeCase):
    """What is found before anything is done."""

    def faults(self, table: tuple[checks.SwitchCheck, ...]) -> str:
        found = checks.faults(table, self.node, self.node.standing())
        return "\n".join(found)

    def test_programs(self) -> None:
        """Each program that is missing is named."""
        found = self.faults((checks.programs_are_there,))
        for name in ("twistd", "gnt-luxi"):
            self.assertIn(f"/opt/p/bin/{name} is missing", found)
        self.assertNotIn("daemon-util.sh", found)

    def test_room(self) -> None:
        """A disk with too little room, or no inode, is named with what is needed."""
        full = os.statvfs_result((4096, 4096, 0, 0, 100, 10, 0, 0, 0, 255))
        with mock.patch("os.statvfs", return_value=full):
            found = self.faults((checks.disk_has_room,))
        self.assertIn(f"{self.paths.data} has 0 MiB free, and 65 MiB are needed", found)
        self.assertIn(f"{self.paths.data} has no inode free", found)
        self.assertEqual(self.faults((checks.disk_has_room,)), "")

    def test_own_checks(self) -> None:
        """The daemon's own checks run where it is to start, and their output is shown."""
        self.patch(os, "access", lambda *_: True)
        shown = "twistd --pidfile= gnt-masterd --check-only"
        self.results[shown] = ProgramRun(shown, 1, "two nodes name node2\n")
        found = self.faults((checks.daemon_would_start,))
        self.assertEqual(found, f"{shown} ended with exit code 1: two nodes name node2")
        self.hold(self.paths.pid)
        self.assertEqual(self.faults((checks.daemon_would_start,)), "")

    def test_configuration(self) -> None:
        """The way back is not begun with a configuration that can't be read."""
        self.assertEqual(self.faults((checks.configuration_can_be_read,)), "")
        with open(self.paths.config, "w", encoding="utf-8") as file:
            file.write("{")
        self.assertIn("config.data", self.faults((checks.configuration_can_be_read,)))

    def test_another_node_is_the_master(self) -> None:
        """A daemon that runs on a node that isn't the master is not touched."""
        with open(self.paths.ssconf("master_node"), "w", encoding="ascii") as file:
            file.write("node7\n")
        self.node = self.make_node()
        machine = SimulatedMachine({"GANETI_HOSTNAME": "node1"}, self.paths)
        self.patch(self.node, "_machine", machine)
        self.assertEqual(self.faults((checks.master_runs_it,)), "")
        self.hold(f"{self.paths.run}/{LUXID}.pid")
        self.assertIn("this node is not the master", self.faults((checks.master_runs_it,)))

    def test_silent_daemon(self) -> None:
        """One that runs and doesn't answer can't say which jobs run."""
        self.hold(f"{self.paths.run}/{LUXID}.pid")
        self.assertEqual(self.faults((checks.master_daemon_answers,)), "")
        self.client.absent = 1
        found = self.faults((checks.master_daemon_answers,))
        self.assertEqual(found, "The master daemon that runs doesn't answer: nobody listens")

    def test_no_cluster(self) -> None:
        """Without ssconf there is nothing to switch."""
        os.unlink(self.paths.ssconf("master_node"))
        machine = SimulatedMachine({"GANETI_HOSTNAME": "node1"}, self.paths)
        self.patch(self.node, "_machine", machine)
        error = self.assertRaises(SwitchFault, self.node.standing)
        self.assertIn("ssconf_master_node", str(error))


class ProgramTests(SynchronousTestCase):
    """Programs that are run."""

    def test_output(self) -> None:
        """What it prints on both streams, and its exit code."""
        done = run_program(["sh", "-c", "echo a; echo b >&2; exit 3"], os.environ, 60)
        self.assertEqual((done.code, done.output), (3, "a\nb\n"))

    def test_background(self) -> None:
        """A daemon that keeps its output open is not waited for."""
        done = run_program(["sh", "-c", "sleep 600 & echo $!"], os.environ, 60)
        os.kill(int(done.output), 9)
        self.assertEqual(done.code, 0)

    def test_hangs(self) -> None:
        """One that doesn't end is killed, and named."""
        error = self.assertRaises(SwitchFault, run_program, ["sleep", "600"], os.environ, 0.1)
        self.assertEqual(str(error), "sleep 600 has not ended within 0.1 seconds")

    def test_missing(self) -> None:
        """One that isn't there is named."""
        error = self.assertRaises(SwitchFault, run_program, ["/no/such"], os.environ, 1)
        self.assertEqual(str(error), "/no/such can't be run: No such file or directory")

    def test_environment(self) -> None:
        """Ganeti's programs look below the root that was asked for, and no other."""
        self.assertEqual(environment_below("/r", {})["GANETI_ROOTDIR"], "/r")
        self.assertNotIn("GANETI_ROOTDIR", environment_below("", {"GANETI_ROOTDIR": "/x"}))
        self.assertEqual(
            environment_below("", {"PATH": "/bin"})["PATH"], "/bin:/usr/local/sbin:/usr/sbin:/sbin"
        )
