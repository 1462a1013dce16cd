"""OP_INSTANCE_GROW_DISK."""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level, exclusive
from ganeti_masterd.logical_units.context import JobKilled
from tests.logical_units.made import made_instance
from tests.logical_units.test_instance_disks_life import NAME, LifeCase
from tests.logical_units.world import Refused, World


class GrowingTests(LifeCase):
    """A disk grows on all its nodes, or says why not."""

    @property
    def disk(self) -> Disk:
        """The first disk."""
        return self.world.now.disks_of(self.instance)[0]

    def grow(self, amount: int = 64, **parameters: object) -> None:
        """Grows the first disk."""
        self.world.run(
            "OP_INSTANCE_GROW_DISK", instance_name=NAME, disk=0, amount=amount, **parameters
        )

    def volumes(self) -> dict[str, list[int]]:
        """Returns the sizes of each node's data volumes or files, in MiB."""
        found = {}
        for node in self.world.now.nodes.values():
            held = self.world.nodes.node(node.name).state.devices
            sizes = [held[path].size for path in held if not path.endswith("_meta")]
            if sizes:
                found[node.name] = sizes
        return found

    def test_grows(self) -> None:
        """By an amount, or to a size; the configuration follows, the data child too."""
        for template in ("drbd", "plain", "file"):
            self.world = World()
            made_instance(self.world, template)
            self.grow(64)
            self.assertEqual(self.disk.size, 128)
            self.grow(256, absolute=True)
            self.assertEqual(self.disk.size, 256)
            nodes = ["node2", "node3"] if template == "drbd" else ["node2"]
            self.assertEqual(self.volumes(), {node: [256] for node in nodes})
            if template == "drbd":
                self.assertEqual([child.size for child in self.disk.children], [256, 128])
            self.assertIn("Growing disk 0 of instance 'db.example.com' by 128M to 256M", self.lines)
            self.assertEqual(self.world.faults(), [])

    @property
    def lines(self) -> list[str]:
        """The log of all jobs."""
        return self.world.lines

    def test_refusals(self) -> None:
        """Each says what is wrong; nothing grows."""
        made_instance(self.world, "drbd")
        grow = "OP_INSTANCE_GROW_DISK"
        for parameters, text, code in (
            (
                {"disk": 3, "amount": 64},
                f"Invalid disk index: 3 (instance {NAME} has disks 0 to 0)",
                "wrong_input",
            ),
            (
                {"disk": 0, "amount": 32, "absolute": True},
                "Requested size (32M) is smaller than current disk size (64M)",
                "wrong_state",
            ),
            (
                {"disk": 0, "amount": 1024 * 1024 * 1024},
                "Not enough disk space on target node node2 vg xenvg: required 1073741824 MiB",
                "insufficient_resources",
            ),
        ):
            error = self.refused(grow, **parameters)
            self.assertIn(text, error.args[0])
            self.assertEqual(error.args[1], code)
        self.assertEqual(self.volumes(), {"node2": [64], "node3": [64]})

    def test_policy(self) -> None:
        """Beyond the group's bounds it is refused, or only warned of if that is asked for."""
        made_instance(self.world)
        group = self.world.now.group("default")
        minmax = [
            {
                "min": dict.fromkeys(SPECS, 0),
                "max": {**dict.fromkeys(SPECS, 1000000), "disk-size": 100},
            }
        ]
        self.world.run("OP_GROUP_SET_PARAMS", group_name=group.name, ipolicy={"minmax": minmax})
        error = self.refused("OP_INSTANCE_GROW_DISK", disk=0, amount=64)
        self.assertIn("Growing disk 0 violates policy: disk-size", error.args[0])
        self.grow(64, ignore_ipolicy=True)
        self.assertIn("Growing disk 0 violates policy", "".join(self.lines))
        self.assertEqual(self.disk.size, 128)

    def test_offline_node(self) -> None:
        """All nodes are needed."""
        made_instance(self.world, "drbd")
        self.world.run("OP_NODE_SET_PARAMS", node_name="node3", offline=True)
        error = self.refused("OP_INSTANCE_GROW_DISK", disk=0, amount=64)
        self.assertEqual(error.args, ("Can't use offline node: node3", "wrong_state"))

    def test_template(self) -> None:
        """Devices that were adopted don't grow."""
        instance = made_instance(self.world)
        disk = self.disk
        self.world.store.change(disk.uuid, lambda now: _adopted(now))
        self.assertIsNotNone(instance)
        error = self.refused("OP_INSTANCE_GROW_DISK", disk=0, amount=64)
        self.assertEqual(
            error.args,
            ("Instance's disk layout blockdev does not support growing", "wrong_input"),
        )
        self.world.store.change(disk.uuid, lambda now: disk)

    def test_dry_run_fails(self) -> None:
        """A node that refuses beforehand: nothing has grown."""
        made_instance(self.world, "drbd")
        self.break_call("blockdev_grow", "node3")
        error = self.refused("OP_INSTANCE_GROW_DISK", disk=0, amount=64)
        self.assertIsInstance(error, OpExecError)
        self.assertEqual(error.args, ("Dry-run grow request failed to node node3: broken",))
        self.assertEqual(self.volumes(), {"node2": [64], "node3": [64]})

    def test_second_try(self) -> None:
        """After a failure half-way, each node grows by what it lacks."""
        made_instance(self.world, "drbd")
        self.break_call("blockdev_grow", "node3", after=1)
        error = self.refused("OP_INSTANCE_GROW_DISK", disk=0, amount=64)
        self.assertEqual(error.args, ("Grow request failed to node node3: broken",))
        self.assertEqual(self.volumes(), {"node2": [128], "node3": [64]})
        self.assertEqual(self.disk.size, 64)
        self.world.nodes.faults.clear()
        self.grow(64)
        self.assertEqual(self.volumes(), {"node2": [128], "node3": [128]})
        self.assertEqual(self.disk.size, 128)

    def test_killed(self) -> None:
        """A kill at any checkpoint leaves a disk that a second try grows to the size wanted."""
        for moment in range(60):
            self.world = World()
            made_instance(self.world, "drbd")
            self.world.kill_after = moment
            try:
                self.grow(128, absolute=True)
            except Refused as refused:
                self.assertIsInstance(refused.error, JobKilled)
                self.assertEqual(self.world.faults(), [])
                self.grow(128, absolute=True)
                self.assertEqual(self.volumes(), {"node2": [128], "node3": [128]}, moment)
                self.assertEqual(self.disk.size, 128)
            else:
                break
        self.assertGreater(moment, 5)

    def test_inactive_disks(self) -> None:
        """They are shut down again, those of an instance that is offline too."""
        for state in ("down", "offline"):
            self.world = World()
            made_instance(self.world, "drbd", admin_state=state)
            self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME, force=True)
            self.grow(64)
            self.assertEqual(list(self.world.nodes.cluster.ends), [])
            self.assertEqual((self.disk.size, self.instance.disks_active), (128, False))
        self.grow(64, wait_for_sync=False)
        self.assertIn("Not shutting down the disk", self.lines[-1])

    def test_wipes(self) -> None:
        """Only what is new is wiped, where the cluster wants that."""
        self.world.run("OP_CLUSTER_SET_PARAMS", prealloc_wipe_disks=True)
        made_instance(self.world)
        self.grow(64)
        self.assertIn(" - INFO: * Wiping disk 0 (from 64 to 128)", self.lines)

    def test_locks(self) -> None:
        """The instance and its nodes, at both levels."""
        made_instance(self.world, "drbd")
        nodes = exclusive(self.world.now.nodes_of(self.instance))
        self.assertEqual(
            self.locks("OP_INSTANCE_GROW_DISK", disk=0, amount=1),
            {Level.INSTANCE: exclusive(NAME), Level.NODE: nodes, Level.NODE_RES: nodes},
        )


SPECS = ("memory-size", "cpu-count", "disk-count", "disk-size", "nic-count", "spindle-use")


def _adopted(disk: Disk) -> Disk:
    return replace(disk, dev_type="blockdev", logical_id=("manual", "/dev/disk/x"))
