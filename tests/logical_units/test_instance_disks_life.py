"""Disks of instances made ready and shut down by opcodes, and instances removed."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.addresspool import pool_of
from ganeti_masterd.config.objects import Instance, Nic
from ganeti_masterd.errors import OpExecError, OpPrereqError
from ganeti_masterd.locking.levels import Level, exclusive
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.logical_units.registry import unit_for
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.made import devices, made_instance
from tests.logical_units.world import Refused, World

NAME = "db.example.com"


class LifeCase(SynchronousTestCase):
    """Base: a world in which nothing may be left over."""

    def setUp(self) -> None:
        self.world = World()

    def tearDown(self) -> None:
        self.assertEqual(self.world.faults(), [])

    @property
    def instance(self) -> Instance:
        """The instance as it is."""
        return self.world.now.instance(NAME)

    def break_call(self, call: str, node: str = "node2", *, after: int = 0) -> None:
        """Makes a call fail at a node."""
        fault = SimulatedFault(kind="error", call=call, node=node, after=after, text="broken")
        self.world.nodes.faults.add(fault)

    def refused(self, op_id: str, **parameters: object) -> Exception:
        """Returns the error of an opcode on the instance."""
        refused = self.assertRaises(
            Refused, self.world.run, op_id, instance_name=NAME, **parameters
        )
        error: Exception = refused.error
        return error

    def locks(self, op_id: str, **parameters: object) -> dict[Level, object]:
        """Returns what an opcode locks below the cluster."""
        unit = unit_for(decode_opcode({"OP_ID": op_id, "instance_name": NAME, **parameters}))
        assert unit is not None
        unit.expand(self.world.now)
        wanted = {level: unit.locks(level, self.world.now) for level in Level if level}
        return {level: names for level, names in wanted.items() if not names.empty}


class ActivationTests(LifeCase):
    """OP_INSTANCE_ACTIVATE_DISKS and OP_INSTANCE_DEACTIVATE_DISKS."""

    def test_there_and_back(self) -> None:
        """Twice is as good as once, both ways."""
        made_instance(self.world, "drbd", sizes=(64, 32))
        for _ in range(2):
            self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)
            self.assertFalse(self.instance.disks_active)
        for _ in range(2):
            result = self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
            self.assertEqual(
                result, [("node2", "disk/0", "/dev/drbd1"), ("node2", "disk/1", "/dev/drbd2")]
            )
            self.assertTrue(self.instance.disks_active)
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME, wait_for_sync=True)

    def test_locks(self) -> None:
        """The instance and its nodes."""
        made_instance(self.world, "drbd")
        wanted = {
            Level.INSTANCE: exclusive(NAME),
            Level.NODE: exclusive(self.world.now.nodes_of(self.instance)),
        }
        for op_id in ("OP_INSTANCE_ACTIVATE_DISKS", "OP_INSTANCE_DEACTIVATE_DISKS"):
            self.assertEqual(self.locks(op_id), wanted)

    def test_fails(self) -> None:
        """What was inactive is shut down again, so that a second try finds it clean."""
        made_instance(self.world, "drbd")
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)
        self.break_call("blockdev_assemble", "node3")
        error = self.refused("OP_INSTANCE_ACTIVATE_DISKS")
        self.assertIsInstance(error, OpExecError)
        self.assertEqual(error.args, ("Cannot activate block devices",))
        self.assertFalse(self.instance.disks_active)
        self.assertEqual(self.assembled(), [])
        self.world.nodes.faults.clear()
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.assertNotEqual(self.assembled(), [])

    def assembled(self) -> list[str]:
        """Returns the keys of all mirror ends that are up."""
        return sorted(map(str, self.world.nodes.cluster.ends))

    def test_killed(self) -> None:
        """A kill at any checkpoint leaves disks as they were, or all of them ready."""
        for moment in range(60):
            self.world = World()
            made_instance(self.world, "drbd")
            self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)
            self.world.kill_after = moment
            try:
                self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
            except Refused as refused:
                self.assertIsInstance(refused.error, JobKilled)
                self.assertEqual(bool(self.assembled()), self.instance.disks_active, moment)
                self.assertEqual(self.world.faults(), [])
            else:
                break
        self.assertGreater(moment, 2)

    def test_degraded(self) -> None:
        """A mirror that stays degraded is an error where it is waited for."""
        made_instance(self.world, "drbd")
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)
        self.world.nodes.cluster.facts["cut"] = [["node2", "node3"]]
        error = self.refused("OP_INSTANCE_ACTIVATE_DISKS", wait_for_sync=True)
        self.assertEqual(error.args, ("Some disks of the instance are degraded!",))
        self.assertFalse(self.instance.disks_active)

    def test_offline_primary(self) -> None:
        """Nothing can be made ready there."""
        made_instance(self.world)
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)
        self.world.run("OP_NODE_SET_PARAMS", node_name="node2", offline=True, force=True)
        error = self.refused("OP_INSTANCE_ACTIVATE_DISKS")
        self.assertIsInstance(error, OpPrereqError)
        self.assertEqual(error.args, ("Can't use offline node: node2", "wrong_state"))

    def test_marked_up(self) -> None:
        """Disks of an instance that is meant to run are shut down by force only."""
        made_instance(self.world, admin_state="up")
        error = self.refused("OP_INSTANCE_DEACTIVATE_DISKS")
        self.assertEqual(
            error.args,
            (f"Instance '{NAME}' is marked to be up, cannot shutdown disks", "wrong_state"),
        )
        self.assertTrue(self.instance.disks_active)
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME, force=True)
        self.assertFalse(self.instance.disks_active)

    def test_refusing_device(self) -> None:
        """A device that doesn't shut down is a warning, as in the real daemon."""
        made_instance(self.world)
        self.break_call("blockdev_shutdown")
        self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)
        self.assertIn("Could not shutdown block device disk/0 on node node2", self.world.lines[-1])


class RemovalTests(LifeCase):
    """OP_INSTANCE_REMOVE."""

    def test_nothing_is_left(self) -> None:
        """Devices, directory, configuration, ports and locks go, for each template."""
        for template in ("drbd", "plain", "file", "sharedfile", "diskless"):
            made_instance(self.world, template, sizes=(64, 32))
            before = self.world.now.cluster.tcpudp_port_pool
            self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME)
            self.assertIsNone(self.world.now.lookup("instance", NAME))
            self.assertEqual(devices(self.world), {}, template)
            directories = self.world.nodes.node("node2").state.directories
            self.assertEqual([path for path in directories if NAME in path], [])
            given = set(self.world.now.cluster.tcpudp_port_pool) - set(before)
            self.assertEqual(len(given), 2 if template == "drbd" else 0)
            self.assertEqual(self.world.faults(), [])

    def test_one_transaction(self) -> None:
        """No half-removed instance is ever published."""
        made_instance(self.world, "drbd", sizes=(64, 32))
        seen: list[tuple[bool, int]] = []
        self.world.store.on_change(
            lambda before, after: seen.append(
                (after.lookup("instance", NAME) is not None, len(after.disks))
            )
        )
        count = len(self.world.now.disks)
        self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME)
        self.assertEqual(seen, [(True, count), (False, count - 2)])

    def test_addresses(self) -> None:
        """An address on a network can be given again."""
        self.world.run("OP_NETWORK_ADD", network_name="lan", network="192.0.2.0/28")
        network = self.world.now.network("lan")
        taken = pool_of(network).reserve("192.0.2.5").applied_to(network)
        self.world.store.change(network.uuid, lambda now: taken)
        nic = Nic(mac="aa:00:00:00:00:01", ip="192.0.2.5", network=network.uuid, uuid="n")
        made_instance(self.world, nics=(nic,))
        self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME)
        after = pool_of(self.world.now.network("lan"))
        self.assertNotEqual(after.map, pool_of(taken).map)
        self.assertEqual(after.map, pool_of(network).map)

    def test_shutdown_fails(self) -> None:
        """Nothing is removed, and the error says how the instance stands."""
        made_instance(self.world, admin_state="up")
        self.break_call("instance_shutdown")
        error = self.refused("OP_INSTANCE_REMOVE")
        self.assertIsInstance(error, OpExecError)
        self.assertIn(f"Could not shutdown instance {NAME} on node node2", error.args[0])
        self.assertIn("may still run", error.args[0])
        self.assertEqual(self.instance.admin_state, "down")
        self.assertEqual(devices(self.world), {"node2": 1})
        self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME, ignore_failures=True)
        self.assertEqual(devices(self.world), {})

    def test_removal_fails(self) -> None:
        """The instance stays, down; a second try gets everything clean."""
        made_instance(self.world, "drbd", admin_state="up")
        self.break_call("blockdev_remove", "node3")
        error = self.refused("OP_INSTANCE_REMOVE")
        self.assertEqual(error.args, ("Can't remove instance's disks",))
        self.assertEqual(self.instance.admin_state, "down")
        self.world.nodes.faults.clear()
        self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME)
        self.assertEqual(devices(self.world), {})

    def test_ignored(self) -> None:
        """With failures ignored it goes, and the log says what was left where."""
        made_instance(self.world, "drbd")
        self.break_call("blockdev_remove", "node3")
        self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME, ignore_failures=True)
        self.assertEqual(list(devices(self.world)), ["node3"])
        self.assertIn("Could not remove disk 0 on node node3", "".join(self.world.lines))
        self.assertIn("Warning: can't remove instance's disks", self.world.lines)

    def test_forthcoming(self) -> None:
        """One that is only planned goes without a call to its nodes."""
        made_instance(self.world, "diskless", forthcoming=True)
        self.break_call("instance_shutdown")
        self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME)
        self.assertIsNone(self.world.now.lookup("instance", NAME))

    def test_killed(self) -> None:
        """A kill leaves all the disks, or nothing of the instance."""
        for moment in range(60):
            self.world = World()
            made_instance(self.world, "drbd", admin_state="up")
            self.world.kill_after = moment
            try:
                self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME)
            except Refused as refused:
                self.assertIsInstance(refused.error, JobKilled)
                if self.world.now.lookup("instance", NAME) is None:
                    self.assertEqual(devices(self.world), {}, moment)
                else:
                    self.assertEqual(devices(self.world), {"node2": 2, "node3": 2}, moment)
                self.assertEqual(self.world.faults(), [])
            else:
                break
        self.assertGreater(moment, 3)

    def test_locks(self) -> None:
        """The instance and its nodes, at both levels."""
        made_instance(self.world, "drbd")
        nodes = exclusive(self.world.now.nodes_of(self.instance))
        self.assertEqual(
            self.locks("OP_INSTANCE_REMOVE"),
            {Level.INSTANCE: exclusive(NAME), Level.NODE: nodes, Level.NODE_RES: nodes},
        )

    def test_hooks(self) -> None:
        """Before it on the master alone; after it they are told what was."""
        made_instance(self.world, "drbd")
        unit = unit_for(decode_opcode({"OP_ID": "OP_INSTANCE_REMOVE", "instance_name": NAME}))
        assert unit is not None
        unit.expand(self.world.now)
        unit.check(self.context())
        names = [self.world.now.nodes[uuid].name for uuid in unit.hook_nodes(self.world.now).after]
        self.assertEqual(names, ["node1", "node2", "node3"])
        self.assertEqual(unit.hook_nodes(self.world.now).before, (self.world.now.master.uuid,))
        told = dict(unit.hook_environment(self.world.now))
        self.assertEqual(told["SHUTDOWN_TIMEOUT"], 120)
        self.assertEqual((told["INSTANCE_NAME"], told["INSTANCE_PRIMARY"]), (NAME, "node2"))
        self.assertEqual(told["INSTANCE_SECONDARIES"], "node3")
        self.assertEqual(told["INSTANCE_DISK0_DEV_TYPE"], "drbd")
        self.assertEqual(told["INSTANCE_DISK0_DATA_VG"], "xenvg")

    def context(self) -> SynchronousContext:
        """Returns a context on the world's configuration."""
        return SynchronousContext(self.world.now, self.world.nodes)
