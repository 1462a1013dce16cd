"""The steps on disks that opcodes share, on simulated nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.changes import Add
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.errors import OpExecError, RemoteError
from ganeti_masterd.jobs.devices import NotedDevice
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.logical_units.disks.activating import (
    activate_disks,
    current,
    remove_disks,
    shut_disks,
    start_disks,
)
from ganeti_masterd.logical_units.disks.making import create_disks
from ganeti_masterd.logical_units.disks.naming import ReservedNaming
from ganeti_masterd.logical_units.disks.snapshots import Snapshots
from ganeti_masterd.logical_units.disks.syncing import wait_for_sync, wipe_disks
from ganeti_masterd.logical_units.disks.trees import DiskLocation, DiskSpecification, build_disks
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.ends import SyncPace
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.mirrors import Mirrors
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.world import World


class StepsCase(SynchronousTestCase):
    """Base: a world, and an instance of a template that is only in the configuration."""

    def setUp(self) -> None:
        self.world = World()
        self.ctx = SynchronousContext(
            self.world.now, self.world.nodes, job_id=7, clock=self.world.clock
        )

    def planned(self, template: str, *sizes: int) -> tuple[Instance, list[Disk]]:
        """Returns an instance on node2 (and node3) and its disks, not in the configuration."""
        snapshot = self.ctx.snapshot()
        nodes = [snapshot.node(name).uuid for name in ("node2", "node3")]
        place = DiskLocation(instance_uuid="i", nodes=tuple(nodes), directory="/srv/x/db")
        wanted = [DiskSpecification(size=size, group="xenvg", meta_group="xenvg") for size in sizes]
        disks = build_disks(template, wanted, place, ReservedNaming(self.ctx))
        instance = Instance(
            name="db.example.com",
            uuid="i",
            primary_node=nodes[0],
            hypervisor="fake",
            disks=tuple(disk.uuid for disk in disks),
        )
        return instance, disks

    def made(self, template: str, *sizes: int) -> Instance:
        """Returns an instance that was made, in the configuration."""
        instance, disks = self.planned(template, *sizes)
        with UndoStack(self.ctx) as undo:
            create_disks(self.ctx, undo, instance, disks)
            undo.keep()
        adds = [Add("disks", disk) for disk in disks]
        self.ctx.change_all([*adds, Add("instances", instance)])
        return current(self.ctx, instance)

    def devices(self) -> dict[str, int]:
        """Returns how many volumes and files each node has, without nodes that have none."""
        found = {}
        for node in self.world.now.nodes.values():
            state = self.world.nodes.node(node.name).state
            if len(state.devices):
                found[node.name] = len(state.devices)
        return found

    def directories(self) -> list[str]:
        """Returns the directories that node2 has for files of instances."""
        found = self.world.nodes.node("node2").state.directories
        return sorted(path for path in found if path.startswith("/srv/x/"))

    def break_call(self, call: str, node: str = "node2", *, after: int = 0) -> Callable[[], object]:
        """Makes a call fail at a node, when it was made so often; returns what mends it."""
        fault = SimulatedFault(kind="error", call=call, node=node, after=after, text="broken")
        return self.world.nodes.faults.add(fault)


class MakingTests(StepsCase):
    """Disks are made, or nothing of them is left."""

    def make(self, template: str, *sizes: int) -> None:
        """Makes disks; what is pushed is taken back if that fails."""
        instance, disks = self.planned(template, *sizes)
        with UndoStack(self.ctx) as undo:
            create_disks(self.ctx, undo, instance, disks)
            undo.keep()

    def test_made(self) -> None:
        """A mirror stands on two volumes at each of its nodes; other disks are on the primary."""
        self.make("drbd", 64, 128)
        self.assertEqual(self.devices(), {"node2": 4, "node3": 4})
        self.make("plain", 64)
        self.make("file", 16)
        self.assertEqual(self.devices(), {"node2": 6, "node3": 4})
        self.assertEqual(self.directories(), ["/srv/x/db"])

    def test_each_failing_call(self) -> None:
        """Whichever call fails, nothing is left, and the error names disk, node and instance."""
        for template in ("drbd", "plain", "file"):
            for after in range(3):
                for node in ("node2", "node3"):
                    mend = self.break_call("blockdev_create", node, after=after)
                    with self.subTest(template=template, after=after, node=node):
                        try:
                            self.make(template, 64, 64)
                        except OpExecError as error:
                            text = f"on node {node} for instance db.example.com: broken"
                            self.assertIn(text, str(error))
                            self.assertIn("Can't create block device disk/", str(error))
                            self.assertEqual(self.devices(), {})
                        else:
                            self.assertNotEqual((template, node), ("drbd", "node3"))
                            self.assertTrue(after == 2 or node == "node3")
                    mend()
                    self.clear()
        self.assertEqual(self.ctx.lines, [])

    def clear(self) -> None:
        """Starts anew, with nodes that hold nothing."""
        self.setUp()

    def test_directory_fails(self) -> None:
        """No file is made then."""
        self.break_call("file_storage_dir_create")
        error = self.assertRaises(OpExecError, self.make, "file", 16)
        self.assertIn("Failed to create directory '/srv/x/db' on node node2: broken", str(error))
        self.assertEqual((self.devices(), self.directories()), ({}, []))

    def test_directory_is_removed(self) -> None:
        """The directory that was made for the first file goes with it."""
        self.break_call("blockdev_create")
        self.assertRaises(OpExecError, self.make, "file", 16)
        self.assertEqual((self.devices(), self.directories()), ({}, []))

    def test_killed(self) -> None:
        """A kill at any checkpoint leaves nothing either."""
        for moment in range(100):
            self.clear()
            self.ctx.kill_after = moment
            try:
                self.make("drbd", 64)
            except JobKilled:
                self.assertEqual(self.devices(), {}, f"killed at checkpoint {moment}")
            else:
                break
        self.assertGreater(moment, 2)

    def test_what_stays(self) -> None:
        """What can't be taken back is named in the log, with its node; the rest is taken back."""
        self.break_call("blockdev_create", "node3", after=1)
        self.break_call("blockdev_remove", "node2")
        self.assertRaises(OpExecError, self.make, "drbd", 64)
        self.assertEqual(list(self.devices()), ["node2"])
        line, hint = self.ctx.lines
        self.assertEqual(
            line,
            " - WARNING: Could not remove disk/0 of instance db.example.com from node node2: "
            "the node refuses: broken",
        )
        # The mirror is taken down before the volumes below it are removed.
        command = r"gnt-cluster command -n node2 "
        self.assertRegex(
            hint,
            rf"Hint: {command}drbdsetup down resource\d+; {command}lvremove -f xenvg/\S+_meta; "
            rf"{command}lvremove -f xenvg/\S+_data$",
        )

    def test_noted_first(self) -> None:
        """Devices are noted before the first call, below a mirror first, without its secret."""
        self.patch(self.ctx, "note_devices", self.fail)
        self.assertRaises(self.failureException, self.make, "drbd", 64)
        self.assertEqual(self.devices(), {})
        for template, noted in (
            ("drbd", 2 * [("plain", "remove"), ("plain", "remove"), ("drbd", "remove")]),
            ("plain", [("plain", "remove")]),
            ("file", [(None, "directory"), ("file", "remove")]),
        ):
            found: list[NotedDevice] = []
            self.patch(self.ctx, "note_devices", found.extend)
            self.make(template, 64)
            kinds = [(each.disk.get("dev_type"), each.fate.value) for each in found]
            self.assertEqual(kinds, noted)
            for each in found:
                self.assertNotIn("children", each.disk)
                if each.disk.get("dev_type") == "drbd":
                    self.assertEqual(each.logical_id[5], "")
                    self.assertIsNotNone(each.minor)

    def test_snapshots_noted(self) -> None:
        """Snapshots are noted, under the names that they are to get, before the first is taken."""
        instance = self.made("drbd", 64, 32)
        disks = self.ctx.snapshot().disks_of(instance)
        self.ctx.devices.clear()
        with UndoStack(self.ctx) as undo:
            taken = Snapshots(self.ctx, instance).take(undo, disks)
        noted = [each.logical_id for each in self.ctx.devices]
        self.assertEqual(noted, [each.logical_id for each in taken])
        self.assertEqual({each.fate.value for each in self.ctx.devices}, {"remove"})


class ActivatingTests(StepsCase):
    """Disks are made ready, shut down and removed."""

    def shut(self, template: str = "drbd") -> Instance:
        """Returns an instance whose disks are shut."""
        instance = self.made(template, 64)
        self.assertTrue(shut_disks(self.ctx, instance))
        return current(self.ctx, instance)

    def test_there_and_back(self) -> None:
        """Disks are marked as active while they are ready."""
        for template in ("drbd", "plain", "file"):
            instance = self.shut(template)
            self.assertFalse(instance.disks_active)
            good, devices = activate_disks(self.ctx, instance)
            self.assertTrue(good)
            ((node, name, path),) = devices
            self.assertEqual((node, name), ("node2", "disk/0"))
            self.assertTrue(path and path.startswith("/"), path)
            instance = current(self.ctx, instance)
            self.assertTrue(instance.disks_active)
            self.assertTrue(wait_for_sync(self.ctx, instance))
            self.assertTrue(shut_disks(self.ctx, instance))
            self.assertTrue(
                remove_disks(self.ctx, instance, self.ctx.snapshot().disks_of(instance))
            )
            self.assertEqual((self.devices(), self.directories()), ({}, []))
            self.clear()

    def clear(self) -> None:
        """Starts anew."""
        self.setUp()

    def test_a_failing_node(self) -> None:
        """A failure is a warning and counts; what was inactive is marked inactive again."""
        instance = self.shut()
        self.break_call("blockdev_assemble", "node3")
        self.assertFalse(activate_disks(self.ctx, instance).good)
        self.assertFalse(current(self.ctx, instance).disks_active)
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: Could not prepare block device disk/0 on node node3 "
                "(is_primary=False, pass=1): broken"
            ],
        )
        self.assertTrue(activate_disks(self.ctx, instance, ignore_secondaries=True).good)

    def test_of_a_running_instance(self) -> None:
        """Disks that were active stay marked so, whatever fails."""
        instance = self.shut()
        activate_disks(self.ctx, instance)
        self.break_call("blockdev_assemble", "node3")
        self.assertFalse(activate_disks(self.ctx, current(self.ctx, instance)).good)
        self.assertTrue(current(self.ctx, instance).disks_active)

    def test_start_fails(self) -> None:
        """All are shut down again, with the hint only where force was a choice."""
        for force, hinted in ((False, True), (None, False)):
            self.clear()
            instance = self.shut()
            self.break_call("blockdev_assemble", "node3")
            error = self.assertRaises(OpExecError, start_disks, self.ctx, instance, force=force)
            self.assertEqual(error.args, ("Disk consistency error",))
            self.assertFalse(current(self.ctx, instance).disks_active)
            self.assertEqual(any("'--force'" in line for line in self.ctx.lines), hinted)
        start_disks(self.ctx, instance, force=True)
        self.assertTrue(current(self.ctx, instance).disks_active)

    def test_shutdown_fails(self) -> None:
        """It counts on the primary, unless that is said not to."""
        instance = self.shut()
        activate_disks(self.ctx, instance)
        self.break_call("blockdev_shutdown")
        self.assertFalse(shut_disks(self.ctx, instance))
        self.assertTrue(shut_disks(self.ctx, instance, ignore_primary=True))
        self.assertIn(
            "Could not shutdown block device disk/0 on node node2: broken", self.ctx.lines[0]
        )

    def test_removal_fails(self) -> None:
        """The others are removed all the same."""
        instance = self.shut()
        self.break_call("blockdev_remove", "node3")
        self.assertFalse(remove_disks(self.ctx, instance, self.ctx.snapshot().disks_of(instance)))
        self.assertEqual(list(self.devices()), ["node3"])
        text = "Could not remove disk 0 on node node3, continuing anyway: broken"
        self.assertIn(text, self.ctx.lines[0])


class SyncTests(StepsCase):
    """Waiting for mirrors, and wiping."""

    def test_waits_off_slot(self) -> None:
        """Each pause is without a slot, of one to ten seconds; the log says how far it is."""
        self.world = World(description=Description(pace=SyncPace(speed=1.0)))
        self.ctx = SynchronousContext(
            self.world.now, self.world.nodes, job_id=7, clock=self.world.clock
        )
        instance = self.made("drbd", 200)
        self.assertTrue(wait_for_sync(self.ctx, instance))
        self.assertEqual(self.ctx.slept, self.ctx.off_slot)
        self.assertGreaterEqual(sum(self.ctx.slept), 190)
        self.assertTrue(all(1 <= pause <= 10 for pause in self.ctx.slept))
        self.assertEqual(
            self.ctx.lines[0], " - INFO: Waiting for instance db.example.com to sync disks"
        )
        self.assertIn("% done, ", self.ctx.lines[1])
        self.assertIn("remaining (estimated)", self.ctx.lines[1])
        self.assertIn("Instance db.example.com's disks are in sync", self.ctx.lines[-1])
        self.assertLess(len(self.ctx.lines), 8)
        self.assertGreater(len(self.ctx.progressed), 10)
        self.assertIn("% done, ", self.ctx.progressed[-1])

    def test_nearly_done(self) -> None:
        """A mirror that is said to be done within half a second is looked at again after one."""
        self.world = World(description=Description(pace=SyncPace(speed=100.0)))
        self.ctx = SynchronousContext(
            self.world.now, self.world.nodes, job_id=7, clock=self.world.clock
        )
        instance = self.made("drbd", 24)
        self.assertTrue(wait_for_sync(self.ctx, instance))
        self.assertEqual(self.ctx.slept, [1.0])

    def test_no_estimate(self) -> None:
        """Without an estimate of the time left it is looked at every five seconds."""
        self.world = World(description=Description(pace=SyncPace(speed=10.0)))
        self.ctx = SynchronousContext(
            self.world.now, self.world.nodes, job_id=7, clock=self.world.clock
        )
        instance = self.made("drbd", 100)
        original = Mirrors.status

        def unknown(*args: Any) -> Any:
            return replace(original(*args), left=None)

        self.patch(Mirrors, "status", unknown)
        self.assertTrue(wait_for_sync(self.ctx, instance))
        self.assertEqual(self.ctx.slept, [5.0] * len(self.ctx.slept))
        self.assertIn("no time estimate", "".join(self.ctx.lines))

    def test_degraded(self) -> None:
        """A mirror that stays degraded is looked at ten times more, and that is said."""
        instance = self.made("drbd", 64)
        disk = self.ctx.snapshot().disks_of(instance)[0]
        shut_at = [self.ctx.snapshot().node("node3").uuid]
        remove_disks(self.ctx, instance, [disk], nodes=shut_at)
        self.ctx.lines.clear()
        self.assertFalse(wait_for_sync(self.ctx, instance))
        self.assertEqual(self.ctx.slept, [1.0] * 10)
        self.assertNotIn("in sync", self.ctx.lines[-1])

    def test_no_answer(self) -> None:
        """After ten failures one after another it is given up."""
        instance = self.made("drbd", 64)
        self.break_call("blockdev_getmirrorstatus")
        error = self.assertRaises(RemoteError, wait_for_sync, self.ctx, instance)
        self.assertEqual(error.args, ("Can't contact node node2 for mirror data, aborting.",))
        self.assertEqual(len(self.ctx.slept), 9)

    def test_without_mirrors(self) -> None:
        """Nothing is called and nothing said."""
        instance = self.made("plain", 64)
        self.break_call("blockdev_getmirrorstatus")
        self.assertTrue(wait_for_sync(self.ctx, instance))
        self.assertEqual(self.ctx.lines, [])

    def test_wipes(self) -> None:
        """Small disks too; a failing piece is named, and the mirror goes on to synchronize."""
        for size in (5, 64, 20000):
            instance = self.made("plain", size)
            self.wipe(instance)
            self.clear()
        instance = self.made("plain", 64)
        self.break_call("blockdev_wipe", after=2)
        error = self.assertRaises(OpExecError, self.wipe, instance)
        self.assertEqual(error.args, ("Could not wipe disk 0 at offset 12 for size 6: broken",))

    def wipe(self, instance: Instance) -> None:
        """Wipes all disks."""
        disks = self.ctx.snapshot().disks_of(instance)
        wipe_disks(self.ctx, instance, [(i, disk, 0) for i, disk in enumerate(disks)])

    def clear(self) -> None:
        """Starts anew."""
        self.setUp()
