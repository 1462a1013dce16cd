"""OP_INSTANCE_MOVE: disks are copied to another node."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from ganeti_masterd.logical_units.disks.daemons import DaemonState, TransferDaemon
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.state import Device
from ganeti_masterd.simulation.switches import throw
from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.moving import Crash, MovingScene

MOVE = "OP_INSTANCE_MOVE"


class CopyingScene(MovingScene):
    """Base: an instance with two volumes on node2, of which each has something on it."""

    sizes: Sequence[int] = (64, 32)

    def prepare(self, template: str = "plain", *, up: bool = True) -> None:
        """Makes the cluster anew."""
        self.renew(description=Description(transfer_speed=16.0))
        self.make(template, ("node2",), sizes=self.sizes, up=up)
        for path, device in self.held("node2").items():
            self.world.nodes.node("node2").state.devices[path] = replace(
                device, content=(f"data of {path}",)
            )

    def held(self, node: str) -> dict[str, Device]:
        """Returns the volumes and files of a node, by path."""
        return {
            path: device
            for path, device in self.world.nodes.node(node).state.devices.items()
            if "disk" in path
        }

    def copy(self, target: str = "node3", **parameters: object) -> None:
        """Moves the instance."""
        self.move(MOVE, target_node=target, **parameters)

    def assertOn(self, node: str, *, up: bool = True) -> None:
        """Expects instance, disks and data on a node, and nothing anywhere else."""
        now = self.now()
        self.assertEqual(self.world.now.nodes[now.primary_node].name, node)
        self.assertEqual(self.where(), [node] if up else [])
        for disk in self.world.now.disks_of(now):
            self.assertEqual(disk.nodes, (now.primary_node,))
        for each in ("node1", "node2", "node3", "node4"):
            held = self.held(each)
            self.assertEqual(len(held), len(now.disks) if each == node else 0, each)
            for path, device in held.items():
                self.assertEqual(device.content, (f"data of {path}",))
        self.assertEqual(len(self.world.nodes.world.cluster.transfers), 0)
        self.assertEqual(self.world.faults(), [])


class MovingTests(CopyingScene):
    """There, and what is refused."""

    sizes = (64,)

    def test_plain(self) -> None:
        """The calls and the log of real daemon 3.0.2, and three questions of ours."""
        self.prepare()
        self.assertIsNone(self.move(MOVE, target_node="node3"))
        self.assertOn("node3")
        made = [each for each in self.made_calls() if each[1] != "impexp_status"]
        self.assertEqual(
            made,
            [
                ("node3", "node_info"),
                ("node3", "node_info"),
                ("node3", "instance_info"),
                ("node2", "instance_shutdown"),
                ("node3", "blockdev_find"),
                ("node3", "blockdev_create"),
                ("node3", "import_start"),
                ("node2", "export_start"),
                ("node3", "impexp_cleanup"),
                ("node2", "impexp_cleanup"),
                ("node2", "blockdev_remove"),
                ("node3", "blockdev_assemble"),
                ("node3", "blockdev_assemble"),
                ("node3", "instance_start"),
            ],
        )
        self.assertEqual(
            self.world.lines,
            [
                f" - INFO: Shutting down instance {NAME} on source node node2",
                "Exporting disk/0 from node2 to node3",
                "disk/0 is now listening, starting export",
                "disk/0 is receiving data on node3",
                "disk/0 is sending data on node2",
                "disk/0 finished receiving data",
                "disk/0 finished sending data",
                " - INFO: Removing the disks on the original node",
                f" - INFO: Starting instance {NAME} on node node3",
            ],
        )
        self.assertIn(" - INFO: disk/0 sent 8M, 16.0 MiB/s, 12%, ETA 4s", self.world.progressed)

    def test_file(self) -> None:
        """Files as well; their directory goes too."""
        self.prepare("file")
        self.copy()
        self.assertOn("node3")
        self.assertIn(("node3", "file_storage_dir_create"), self.calls)
        self.assertIn(("node2", "file_storage_dir_remove"), self.calls)

    def test_down(self) -> None:
        """One that is down stays down."""
        self.prepare(up=False)
        self.copy()
        self.assertOn("node3", up=False)

    def test_without_disks(self) -> None:
        """Nothing is copied; the log says the same as of others, as Ganeti's does."""
        self.renew()
        self.make("diskless", ("node2",), up=True)
        self.copy()
        self.assertIn(" - INFO: Removing the disks on the original node", self.world.lines)
        self.assertEqual(self.where(), ["node3"])
        self.assertFalse([name for _, name in self.calls if name.startswith(("block", "imp"))])

    def test_compress(self) -> None:
        """With one of the cluster's tools."""
        self.prepare()
        self.copy(compress="gzip")
        options = [
            arguments[0]["compress"]
            for (_, name), arguments in zip(self.calls, self.arguments, strict=True)
            if name in ("import_start", "export_start")
        ]
        self.assertEqual(options, ["gzip", "gzip"])

    def test_hooks(self) -> None:
        """On both nodes."""
        self.prepare()
        self.copy()
        variables = self.hook_variables()[0]
        self.assertEqual(variables["GANETI_TARGET_NODE"], "node3")
        self.assertEqual(variables["GANETI_SHUTDOWN_TIMEOUT"], "120")

    def test_locks(self) -> None:
        """Both nodes."""
        self.prepare()
        nodes = (sorted(self.world.now.node(name).uuid for name in ("node2", "node3")), True)
        self.assertEqual(
            self.locks_of(MOVE, instance_name=NAME, target_node="node3"),
            {"instance": ([NAME], True), "node": nodes, "node-res": nodes},
        )

    def test_refusals(self) -> None:
        """Each says why."""
        self.prepare()
        for text, code, parameters in (
            (
                f"Instance {NAME} is already on the node node2",
                "wrong_state",
                {"target_node": "node2"},
            ),
            ("Node 'nosuch' not known", "unknown_entity", {"target_node": "nosuch"}),
            (
                "Compression tool 'rar' is not among those of the cluster: none, gzip, gzip-fast, "
                "gzip-slow",
                "wrong_input",
                {"target_node": "node3", "compress": "rar"},
            ),
        ):
            self.assertRefused(text, code, MOVE, instance_name=NAME, **parameters)
        throw(self.world.nodes, ["fill", "node3", "xenvg", "16"])
        self.assertRefused(
            "Not enough disk space on target node node3 vg xenvg: required 64 MiB, available 16 "
            "MiB",
            "insufficient_resources",
            MOVE,
            instance_name=NAME,
            target_node="node3",
        )
        self.set_offline("node4")
        self.assertRefused(
            "Can't use offline node: node4",
            "wrong_state",
            MOVE,
            instance_name=NAME,
            target_node="node4",
        )
        self.set_offline("node2")
        self.assertRefused(
            "Can't use offline node: node2",
            "wrong_state",
            MOVE,
            instance_name=NAME,
            target_node="node1",
        )

    def test_not_copied(self) -> None:
        """A mirror has its other node."""
        self.make(up=True)
        self.assertRefused(
            "Instance disk 0 has disk type drbd and is not suitable for copying",
            "wrong_state",
            MOVE,
            instance_name=NAME,
            target_node="node4",
        )


class BrokenMoveTests(CopyingScene):
    """A move that breaks off: the instance runs where it was, or where it was to go."""

    def settle(self) -> str:
        """Does what the watcher would do, then moves it if it isn't there; returns its node."""
        self.world.nodes.faults.clear()
        self.lost.clear()
        self.world.run("OP_INSTANCE_STARTUP", instance_name=NAME)
        found = self.world.now.nodes[self.now().primary_node].name
        if found == "node2":
            self.copy()
        return found

    def test_each_call(self) -> None:
        """Before the change of the configuration all is taken back, and it runs again."""
        strays = {
            ("node2", "blockdev_remove"),
            ("node2", "impexp_cleanup"),
            ("node3", "impexp_cleanup"),
        }
        for node, procedure in self.each_call(self.prepare, MOVE, target_node="node3"):
            self.prepare()
            mend = self.break_call(procedure, node, count=1)
            self.world.try_run(MOVE, instance_name=NAME, target_node="node3")
            mend()
            primary = self.world.now.nodes[self.now().primary_node].name
            if primary == "node2":
                self.assertOn("node2")
            self.settle()
            if (node, procedure) not in strays:
                self.assertOn("node3")
            self.assertEqual(self.where(), ["node3"])

    def test_lost(self) -> None:
        """The same where the node did what it was asked to."""
        for each in self.each_call(self.prepare, MOVE, target_node="node3"):
            self.prepare()
            self.lost.append(each)
            self.world.try_run(MOVE, instance_name=NAME, target_node="node3")
            # A daemon whose start nobody heard of waits for the other end, then gives up.
            self.world.clock.advance(100)
            self.settle()
            self.world.clock.advance(200)
            self.assertEqual(self.where(), ["node3"])
            self.assertEqual(len(self.held("node2")), 0, each)
            self.assertEqual(len(self.held("node3")), 2, each)

    def test_killed(self) -> None:
        """A kill leaves it on one of its nodes, and nothing on the other."""
        found = set()
        for moment in self.each_kill(self.prepare, MOVE, instance_name=NAME, target_node="node3"):
            primary = self.world.now.nodes[self.now().primary_node].name
            found.add(primary)
            if primary == "node2":
                self.assertOn("node2")
            else:
                self.assertEqual(len(self.held("node2")), 0, moment)
                self.settle()
                self.assertOn("node3")
        self.assertEqual(found, {"node2", "node3"})

    def test_crashes(self) -> None:
        """The daemon ends at any call: the same command again goes on."""
        found = set()
        for number in range(200):
            self.prepare()
            self.crash_after = number
            try:
                self.copy()
            except Crash:
                self.crash_after = None
            else:
                break
            found.add(self.settle())
            self.world.clock.advance(200)
            self.assertEqual(self.where(), ["node3"], number)
            self.assertEqual(len(self.held("node3")), 2, number)
            for path, device in self.held("node3").items():
                self.assertEqual(device.content, (f"data of {path}",))
        self.assertGreater(number, 20)
        self.assertEqual(found, {"node2", "node3"})

    def test_link_cut(self) -> None:
        """The nodes lose each other: no data arrives, the instance runs on where it was."""
        self.prepare()
        throw(self.world.nodes, ["net", "node2", "node3", "down"])
        error = self.fails(MOVE, instance_name=NAME, target_node="node3")
        self.assertIn(
            "Errors during disk copy: Failed to transfer instance data of disk/0, disk/1",
            error.args[0],
        )
        self.assertOn("node2")
        self.assertIn(" - WARNING: Some disks failed to copy, aborting", self.world.lines)
        self.assertTrue(any("failed to send data" in line for line in self.world.lines))

    def test_somebody_elses(self) -> None:
        """A volume of that name that may be somebody else's is never removed."""
        self.prepare(up=False)
        disk = self.world.now.disks_of(self.now())[0]
        held = self.held("node2")
        adopted = replace(disk, logical_id=("xenvg", "database"))
        for path, device in held.items():
            if str((disk.logical_id or ("", ""))[1]) in path:
                self.world.nodes.node("node2").state.devices["/dev/xenvg/database"] = device
        self.modify(disk.uuid, lambda now: adopted)
        throw(self.world.nodes, ["make-lv", "node3", "xenvg/database", "8"])
        error = self.fails(MOVE, instance_name=NAME, target_node="node3")
        self.assertIn("already exists", error.args[0])
        self.assertIn("/dev/xenvg/database", self.world.nodes.node("node3").state.devices)


class DaemonTests(MovingScene):
    """What is known of one daemon, and when it fails."""

    def test_times(self) -> None:
        """Each has its time for each step."""
        for listens, told, now, reason in (
            (True, None, 9.0, ""),
            (True, None, 10.0, "Didn't become ready after 10 seconds"),
            (True, {}, 10.0, "Not listening after 10 seconds"),
            (False, {}, 59.0, ""),
            (False, {}, 60.0, "Not connected after 60 seconds"),
            (False, {"exit_status": 3}, 1.0, "Exited with status 3"),
            (
                False,
                {"exit_status": 0, "error_message": "no route"},
                1.0,
                "no route",
            ),
        ):
            daemon = TransferDaemon("n", "d", 0.0, listens=listens)
            daemon.update(told, now)
            self.assertEqual(daemon.reason, reason)
            self.assertEqual(daemon.state is DaemonState.FAILED, bool(reason))

    def test_listens_in_time(self) -> None:
        """An import waits from the time when it listened."""
        daemon = TransferDaemon("n", "d", 0.0, listens=True)
        daemon.update({"listen_port": 1}, 9.0)
        daemon.update({"listen_port": 1}, 68.0)
        self.assertIs(daemon.state, DaemonState.READY)
        daemon.update({"listen_port": 1}, 69.0)
        self.assertEqual(daemon.reason, "Not connected after 60 seconds")

    def test_unanswered(self) -> None:
        """A node may be silent for some seconds."""
        daemon = TransferDaemon("n", "d", 0.0, listens=True)
        daemon.unanswered(9.0)
        self.assertFalse(daemon.ended)
        daemon.unanswered(10.0)
        self.assertEqual(daemon.reason, "Too many errors while updating data")

    def test_quick(self) -> None:
        """One that has ended was not seen connected."""
        daemon = TransferDaemon("n", "d", 0.0, listens=False)
        daemon.update({"exit_status": 0, "connected": True}, 1.0)
        self.assertIs(daemon.state, DaemonState.SUCCESS)
