"""Node groups: adding, renaming, changing, assigning nodes, removing, and refusals."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import NodeGroup
from ganeti_masterd.config.verify import verify
from ganeti_masterd.errors import (
    OpExecError,
    OpPrereqError,
    ReservationError,
    TypeEnforcementError,
)
from ganeti_masterd.locking.levels import BGL, Level, exclusive, shared
from ganeti_masterd.logical_units.context import JobKilled
from tests.logical_units.cluster import with_instance
from tests.logical_units.scene import UnitScene
from tests.logical_units.world import MustWait, World


class GroupScene(UnitScene):
    """Two groups: "default" with three nodes, and "other" without any."""

    def setUp(self) -> None:
        super().setUp()
        self.add("other")

    def add(self, name: str, **parameters: Any) -> Any:
        return self.run_unit("OP_GROUP_ADD", group_name=name, **parameters)

    def set(self, **parameters: Any) -> Any:
        return self.run_unit("OP_GROUP_SET_PARAMS", group_name="default", **parameters)

    def assign(self, *nodes: str, group: str = "other", **parameters: Any) -> Any:
        return self.run_unit("OP_GROUP_ASSIGN_NODES", group_name=group, nodes=nodes, **parameters)

    def group(self, name: str = "default") -> NodeGroup:
        return self.ctx.snapshot().group(name)

    def refused(self, *args: Any, **parameters: Any) -> tuple[Any, ...]:
        """Runs an opcode; returns the arguments of the ``OpPrereqError`` that it must raise."""
        before = self.ctx.snapshot()
        error = self.assertRaises(OpPrereqError, self.run_unit, *args, **parameters)
        self.assertIs(self.ctx.snapshot(), before)
        return error.args

    def put(self, name: str, *nodes: str, **about: Any) -> None:
        """Gives the cluster one more instance."""
        self.renew(with_instance(self.ctx.snapshot(), name, nodes, **about))


class AddTests(GroupScene):
    """OP_GROUP_ADD."""

    def test_new(self) -> None:
        """A new group has the requested values and a lock, and the serial increases."""
        serial = self.ctx.snapshot().cluster.serial_no
        result = self.add(
            "third",
            alloc_policy="last_resort",
            ndparams={"spindle_count": "3"},
            diskparams={"drbd": {"metavg": "fast"}},
            hv_state={"fake": {"cpu_total": 4}},
            disk_state={"plain": {"vg": {"disk_total": 10}}},
            ipolicy={"vcpu-ratio": 2},
        )
        self.assertIsNone(result)
        third = self.group("third")
        self.assertEqual(third.alloc_policy, "last_resort")
        self.assertEqual(third.ndparams, {"spindle_count": 3})
        self.assertEqual(third.diskparams, {"drbd": {"metavg": "fast"}})
        self.assertEqual(third.ipolicy, {"vcpu-ratio": 2.0})
        assert third.hv_state_static is not None
        self.assertEqual(third.hv_state_static["fake"]["cpu_total"], 4)
        assert third.disk_state_static is not None
        self.assertEqual(third.disk_state_static["plain"]["vg"]["disk_total"], 10)
        self.assertIn(third.uuid, self.ctx.owned(Level.NODEGROUP))
        self.assertEqual(self.ctx.snapshot().cluster.serial_no, serial + 1)
        self.assertEqual(verify(self.ctx.snapshot()), [])

    def test_names_that_can_not_be(self) -> None:
        """A name in use or reserved by a job, or that looks like a uuid, is refused."""
        uuid = self.group("other").uuid
        for name in ("other", uuid):
            self.assertEqual(
                self.refused("OP_GROUP_ADD", group_name=name),
                (
                    f"Desired group name '{name}' already exists as a node group (UUID: {uuid})",
                    "already_exists",
                ),
            )
        self.ctx.reservations.reserve(99, "nodegroup", "third", self.ctx.snapshot())
        self.assertRaises(ReservationError, self.add, "third")
        looks = "0" * 8 + "-0000-0000-0000-" + "0" * 12
        self.assertIn("looks like a uuid", self.refused("OP_GROUP_ADD", group_name=looks)[0])
        for name in ("a\nb", "a\x1b[31m", "a\u2028b", "a\x07"):
            text, code = self.refused("OP_GROUP_ADD", group_name=name)
            self.assertEqual(code, "wrong_input")
            self.assertIn("control character", text)
            self.assertTrue(text.isprintable())
            self.refused("OP_GROUP_RENAME", group_name="other", new_name=name)
        text, _ = self.refused("OP_GROUP_ADD", group_name="\u00fc" * 128)
        self.assertIn("longer than 255 bytes", text)
        self.assertLess(len(text), 120)

    def test_parameters_that_can_not_be(self) -> None:
        """Parameters are checked like those of an existing group."""
        self.assertRaises(TypeEnforcementError, self.add, "third", ndparams={"nosuch": 1})
        error = self.refused(
            "OP_GROUP_ADD", group_name="third", diskparams={"plain": {"metavg": "x"}}
        )
        self.assertEqual(error[1], "wrong_input")
        error = self.refused("OP_GROUP_ADD", group_name="third", ipolicy={"nosuch": 1})
        self.assertEqual(error, ("Invalid key in new ipolicy: nosuch", "wrong_input"))
        error = self.refused(
            "OP_GROUP_ADD", group_name="third", ipolicy={"disk-templates": ["rbd"]}
        )
        self.assertIn("not enabled on the cluster: rbd", error[0])

    def test_network_of_instances(self) -> None:
        """If the cluster has a communication network, a job connects the group to it."""
        cluster = self.ctx.snapshot().cluster
        self.ctx.change(
            cluster.uuid, lambda now: replace(now, instance_communication_network="talk")
        )
        self.assertIsNone(self.add("third"))
        self.run_unit("OP_NETWORK_ADD", network_name="talk", network="169.254.0.0/16")
        result = self.add("fourth")
        self.assertEqual(result, {"jobs": [(True, 2)]})
        ((op,),) = self.ctx.submitted
        self.assertEqual(
            (op.op_id, op.group_name, op.network_name),
            ("OP_NETWORK_CONNECT", self.group("fourth").uuid, "talk"),
        )

    def test_killed(self) -> None:
        """A kill leaves neither a group nor its lock."""
        self.ctx.locks.clear()
        self.ctx.kill_after = 0
        self.assertRaises(JobKilled, self.add, "third")
        self.assertEqual(self.ctx.owned(Level.NODEGROUP), frozenset())

    def test_locks_and_hooks(self) -> None:
        """Only the new group is locked; hooks get its name."""
        unit = self.unit("OP_GROUP_ADD", group_name="third")
        self.assertEqual(
            self.wanted(unit),
            {Level.CLUSTER: shared(BGL), Level.NODEGROUP: exclusive((), creating=unit.uuid)},
        )
        self.assertEqual(unit.hook_environment(self.ctx.snapshot()), {"GROUP_NAME": "third"})


class RemoveTests(GroupScene):
    """OP_GROUP_REMOVE."""

    def test_removed(self) -> None:
        """A group without nodes is removed with its lock."""
        uuid = self.group("other").uuid
        unit = self.unit("OP_GROUP_REMOVE", group_name="other")
        self.assertEqual(
            self.wanted(unit), {Level.CLUSTER: shared(BGL), Level.NODEGROUP: exclusive(uuid)}
        )
        self.assertEqual(unit.hook_environment(self.ctx.snapshot()), {"GROUP_NAME": "other"})
        self.run_unit("OP_GROUP_REMOVE", group_name="other")
        self.assertNotIn(uuid, self.ctx.snapshot().groups)
        self.assertNotIn(uuid, self.ctx.owned(Level.NODEGROUP))

    def test_refusals(self) -> None:
        """A group with nodes, the last group, and an unknown one are refused."""
        self.assertEqual(
            self.refused("OP_GROUP_REMOVE", group_name="default"),
            (
                "Group 'default' not empty, has the following nodes: node1, node2, node3",
                "wrong_state",
            ),
        )
        self.assertEqual(
            self.refused("OP_GROUP_REMOVE", group_name="nosuch"),
            ("Node group 'nosuch' not found", "unknown_entity"),
        )
        snapshot = self.ctx.snapshot()
        for node in snapshot.nodes:
            snapshot = snapshot.without("nodes", node)
        self.renew(snapshot)
        self.run_unit("OP_GROUP_REMOVE", group_name="other")
        self.assertEqual(
            self.refused("OP_GROUP_REMOVE", group_name="default"),
            ("Group 'default' is the only group, cannot be removed", "wrong_state"),
        )


class RenameTests(GroupScene):
    """OP_GROUP_RENAME."""

    def test_renamed(self) -> None:
        """The new name is the result, and hooks run where the group's nodes are."""
        unit = self.unit("OP_GROUP_RENAME", group_name="default", new_name="first")
        uuid = self.group().uuid
        self.assertEqual(
            self.wanted(unit), {Level.CLUSTER: shared(BGL), Level.NODEGROUP: exclusive(uuid)}
        )
        self.assertEqual(len(unit.hook_nodes(self.ctx.snapshot()).before), 3)
        self.assertEqual(
            unit.hook_environment(self.ctx.snapshot()),
            {"OLD_NAME": "default", "NEW_NAME": "first"},
        )
        result = self.run_unit("OP_GROUP_RENAME", group_name="default", new_name="first")
        self.assertEqual(result, "first")
        self.assertEqual(self.group("first").uuid, uuid)

    def test_refusals(self) -> None:
        """A group's name, even its own, and an unknown group are refused."""
        for name in ("default", "other"):
            uuid = self.group(name).uuid
            self.assertEqual(
                self.refused("OP_GROUP_RENAME", group_name="default", new_name=name),
                (
                    f"Desired new name '{name}' clashes with existing node group (UUID: {uuid})",
                    "already_exists",
                ),
            )
        self.assertEqual(
            self.refused("OP_GROUP_RENAME", group_name="nosuch", new_name="x")[1],
            "unknown_entity",
        )


class SetParametersTests(GroupScene):
    """OP_GROUP_SET_PARAMS."""

    def test_node_and_disk_parameters(self) -> None:
        """They update the group's own, "default" removes one, and both are returned."""
        self.set(ndparams={"spindle_count": 3, "ssh_port": 23})
        result = self.set(ndparams={"ssh_port": "default"}, diskparams={"plain": {"stripes": "2"}})
        self.assertEqual(
            result,
            [("ndparams", "{'spindle_count': 3}"), ("diskparams", "{'plain': {'stripes': 2}}")],
        )
        self.set(diskparams={"plain": {"stripes": "default"}, "rbd": {"pool": "fast"}})
        self.assertEqual(self.group().diskparams, {"plain": {}, "rbd": {"pool": "fast"}})
        self.assertEqual(self.group().ndparams, {"spindle_count": 3})

    def test_the_others(self) -> None:
        """The allocation policy, states and the instance policy change without a result."""
        serial = self.group().serial_no
        result = self.set(
            alloc_policy="unallocable",
            hv_state={"fake": {"mem_node": 512}},
            disk_state={"plain": {"vg": {"disk_reserved": 5}}},
            ipolicy={"spindle-ratio": 4},
        )
        self.assertEqual(result, [])
        group = self.group()
        self.assertEqual((group.alloc_policy, group.ipolicy), ("unallocable", {"spindle-ratio": 4}))
        self.assertEqual(group.serial_no, serial + 1)

    def test_nothing(self) -> None:
        """There must be something to change."""
        self.assertEqual(
            self.refused("OP_GROUP_SET_PARAMS", group_name="default"),
            ("Please pass at least one modification", "wrong_input"),
        )
        self.assertEqual(
            self.refused("OP_GROUP_SET_PARAMS", group_name="nosuch", alloc_policy="preferred"),
            ("Node group 'nosuch' not found", "unknown_entity"),
        )

    def test_parameters_that_can_not_be(self) -> None:
        """Each wrong parameter is refused by name, and nothing changes."""
        for parameters, kind in (
            ({"ndparams": {"spindle_count": "many"}}, TypeEnforcementError),
            ({"ndparams": {"nosuch": 1}}, TypeEnforcementError),
            ({"hv_state": {"nosuch": {}}}, OpPrereqError),
            ({"hv_state": {"fake": {"cpu_total": "x"}}}, TypeEnforcementError),
            ({"disk_state": {"nosuch": {}}}, OpPrereqError),
            ({"ipolicy": {"std": {"cpu-count": 1}}}, OpPrereqError),
            ({"diskparams": {"rbd": {"access": "pink"}}}, OpPrereqError),
        ):
            before = self.ctx.snapshot()
            self.assertRaises(kind, self.set, **parameters)
            self.assertIs(self.ctx.snapshot(), before)

    def test_access(self) -> None:
        """An unsupported access mode is refused, naming the instance."""
        self.put("db", "node1", template="rbd")
        error = self.refused(
            "OP_GROUP_SET_PARAMS",
            group_name="default",
            diskparams={"rbd": {"access": "userspace"}},
        )
        self.assertIn("Instance db: cannot use 'userspace' access setting with fake", error[0])
        self.put("db", "node1", template="rbd", hypervisor="kvm")
        self.set(diskparams={"rbd": {"access": "userspace"}})

    def test_instances_that_break_the_policy(self) -> None:
        """Instances that satisfied the old policy and break the new one are only logged."""
        self.put("db10", "node1", beparams={"vcpus": 4})
        self.put("db9", "node2", beparams={"vcpus": 4})
        self.put("db1", "node2", beparams={"vcpus": 99})
        most = {
            "memory-size": 32768,
            "disk-size": 1048576,
            "disk-count": 16,
            "cpu-count": 2,
            "nic-count": 8,
            "spindle-use": 12,
        }
        least = {**dict.fromkeys(most, 0), "cpu-count": 1}
        self.set(ipolicy={"minmax": [{"min": least, "max": most}]})
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: After the ipolicy change the following instances violate them:"
                " db9, db10"
            ],
        )

    def test_spindles_of_whole_disks(self) -> None:
        """If nodes assign spindles, those of the disks are checked if they are known."""
        self.set(ndparams={"exclusive_storage": True})
        self.put("db", "node1", template="plain")
        one = {"memory-size": 1, "disk-size": 1, "disk-count": 1, "nic-count": 1, "cpu-count": 1}
        bounds = {
            "min": {**dict.fromkeys(one, 0), "spindle-use": 0},
            "max": {**dict.fromkeys(one, 99999), "spindle-use": 2},
        }
        self.set(ipolicy={"minmax": [bounds]})
        self.assertEqual(self.ctx.lines, [])
        disk = replace(self.ctx.snapshot().disks["d-db"], spindles=2)
        self.renew(self.ctx.snapshot().with_object("disks", disk))
        bounds["max"]["spindle-use"] = 1
        self.set(ipolicy={"minmax": [bounds]})
        self.assertIn("violate them: db", self.ctx.lines[0])

    def test_locks_and_hooks(self) -> None:
        """The group is held alone; hooks are told the policy that was asked for."""
        unit = self.unit("OP_GROUP_SET_PARAMS", group_name="default", alloc_policy="last_resort")
        self.assertEqual(
            self.wanted(unit),
            {Level.CLUSTER: shared(BGL), Level.NODEGROUP: exclusive(self.group().uuid)},
        )
        self.assertEqual(
            unit.hook_environment(self.ctx.snapshot()),
            {"GROUP_NAME": "default", "NEW_ALLOC_POLICY": "last_resort"},
        )


class AssignTests(GroupScene):
    """OP_GROUP_ASSIGN_NODES."""

    def members(self, name: str) -> list[str]:
        return sorted(node.name for node in self.ctx.snapshot().members(self.group(name)))

    def test_assigned(self) -> None:
        """Nodes are moved; their serials, both groups' and the cluster's increase by one."""
        before = self.ctx.snapshot()
        self.assign("node2", "node3", "node2")
        after = self.ctx.snapshot()
        self.assertEqual(self.members("other"), ["node2", "node3"])
        for kind, name in (
            ("node", "node2"),
            ("node", "node3"),
            ("nodegroup", "default"),
            ("nodegroup", "other"),
        ):
            moved = after.find(kind, name).serial_no - before.find(kind, name).serial_no
            self.assertEqual(moved, 1, name)
        self.assertEqual(after.node("node1"), before.node("node1"))
        self.assertEqual(after.cluster.serial_no, before.cluster.serial_no + 1)
        self.assertEqual(verify(after), [])

    def test_already_there(self) -> None:
        """Nodes that are in the group already change nothing."""
        before = self.ctx.snapshot()
        self.assign("node1", group="default")
        self.assertIs(self.ctx.snapshot(), before)

    def test_all(self) -> None:
        """Naming no node means all of them; uuids work like names."""
        self.assign()
        self.assertEqual(self.members("default"), [])
        self.run_unit(
            "OP_GROUP_ASSIGN_NODES",
            group_name="default",
            nodes=[],
            node_uuids=[self.ctx.snapshot().node("node2").uuid],
        )
        self.assertEqual(self.members("default"), ["node2"])

    def test_splits(self) -> None:
        """A mirrored instance isn't split unless forced, which is then logged."""
        self.put("db10", "node1", "node2", template="drbd")
        self.put("db9", "node3", "node2", template="drbd")
        self.put("file", "node2", template="file")
        error = self.assertRaises(OpExecError, self.assign, "node2")
        self.assertEqual(
            str(error),
            "The following instances get split by this change and --force was not given: db9, db10",
        )
        self.assign("node2", force=True)
        self.assertEqual(
            self.ctx.lines,
            [" - WARNING: This operation will split the following instances: db9, db10"],
        )

    def test_splits_that_last(self) -> None:
        """Instances that were split before are no refusal, and only named with new ones."""
        self.put("old", "node1", "node2", template="drbd")
        self.assign("node2", force=True)
        self.ctx.lines.clear()
        self.assign("node3")
        self.assertEqual(self.ctx.lines, [])
        self.put("new", "node2", "node3", template="drbd")
        self.add("third")
        self.assign("node2", group="third", force=True)
        self.assertEqual(
            self.ctx.lines,
            [
                " - WARNING: This operation will split the following instances: new",
                " - WARNING: In addition, these already-split instances continue to be split"
                " across groups: old",
            ],
        )
        self.assign("node1", group="third")
        self.assertEqual(self.members("third"), ["node1", "node2"])

    def test_unknown(self) -> None:
        """Groups and nodes that aren't there are refused by name."""
        self.assertEqual(
            self.refused("OP_GROUP_ASSIGN_NODES", group_name="nosuch", nodes=["node1"]),
            ("Node group 'nosuch' not found", "unknown_entity"),
        )
        self.assertEqual(
            self.refused("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["nosuch"]),
            ("Node 'nosuch' not known", "unknown_entity"),
        )

    def test_locks(self) -> None:
        """The nodes, and the groups that they leave and enter, are held exclusively."""
        snapshot = self.ctx.snapshot()
        unit = self.unit("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node2"])
        groups = {self.group("other").uuid, self.group().uuid}
        self.assertEqual(
            self.wanted(unit),
            {
                Level.CLUSTER: shared(BGL),
                Level.NODEGROUP: exclusive(groups),
                Level.NODE: exclusive(snapshot.node("node2").uuid),
            },
        )


class BesideTests(SynchronousTestCase):
    """Opcodes run in parallel unless they are about the same object."""

    def setUp(self) -> None:
        self.world = World(4)
        self.world.run("OP_GROUP_ADD", group_name="other")
        self.world.run(
            "OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node3", "node4"], force=True
        )
        self.world.run("OP_NETWORK_ADD", network_name="lan", network="203.0.113.0/24")

    def beside(self, op_id: str, **parameters: Any) -> str:
        """Returns "ran" or "waited" for an opcode that is begun while the other group's runs."""
        said = []

        def begin() -> None:
            try:
                self.world.run(op_id, **parameters)
            except MustWait:
                said.append("waited")
            else:
                said.append("ran")

        self.world.at_hooks = [begin]
        self.world.run(
            "OP_NETWORK_CONNECT",
            group_name="other",
            network_name="lan",
            network_mode="routed",
            network_link="x",
        )
        self.assertEqual(self.world.faults(), [])
        return said[0]

    def test_on_other_objects(self) -> None:
        """Opcodes about other groups, nodes and networks don't wait."""
        for op_id, parameters in (
            ("OP_GROUP_SET_PARAMS", {"group_name": "default", "alloc_policy": "last_resort"}),
            ("OP_GROUP_ADD", {"group_name": "third"}),
            ("OP_GROUP_ASSIGN_NODES", {"group_name": "third", "nodes": ["node2"]}),
            ("OP_GROUP_RENAME", {"group_name": "third", "new_name": "fourth"}),
            ("OP_NETWORK_ADD", {"network_name": "wan", "network": "192.0.2.0/24"}),
            ("OP_NETWORK_SET_PARAMS", {"network_name": "wan", "mac_prefix": "aa:00:02"}),
            ("OP_NETWORK_REMOVE", {"network_name": "wan"}),
            (
                "OP_NETWORK_CONNECT",
                {
                    "group_name": "default",
                    "network_name": "lan",
                    "network_mode": "routed",
                    "network_link": "x",
                },
            ),
            ("OP_NODE_SET_PARAMS", {"node_name": "node3", "ndparams": {"spindle_count": 2}}),
            ("OP_TAGS_SET", {"kind": "node", "name": "node3", "tags": ["x"]}),
        ):
            self.assertEqual(self.beside(op_id, **parameters), "ran", op_id)

    def test_on_the_same_objects(self) -> None:
        """Opcodes about the group, or that change the network, wait."""
        for op_id, parameters in (
            ("OP_GROUP_SET_PARAMS", {"group_name": "other", "alloc_policy": "last_resort"}),
            ("OP_GROUP_REMOVE", {"group_name": "other"}),
            ("OP_GROUP_ASSIGN_NODES", {"group_name": "default", "nodes": ["node3"]}),
            ("OP_NETWORK_REMOVE", {"network_name": "lan"}),
            ("OP_NETWORK_SET_PARAMS", {"network_name": "lan", "mac_prefix": "aa:00:02"}),
            ("OP_NETWORK_DISCONNECT", {"group_name": "other", "network_name": "lan"}),
        ):
            self.assertEqual(self.beside(op_id, **parameters), "waited", op_id)
