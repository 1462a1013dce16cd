"""What an instance needs of its nodes, asked of scripted nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.objects import Nic
from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.logical_units.disks.trees import DiskSpecification
from ganeti_masterd.logical_units.instances.requirements import (
    check_access,
    check_bridges,
    check_cpu_mask,
    check_exclusive_storage,
    check_hypervisor_on_nodes,
    check_system_on_nodes,
    free_memory,
    processors_needed,
    require_memory,
    require_processors,
    require_room,
    room_in_groups,
)
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import Failed, ScriptedNodes


def space(free: int = 512, cpus: int = 4) -> dict[str, int]:
    """Returns what a hypervisor says of a node."""
    return {"memory_total": 1024, "memory_free": free, "memory_dom0": 0, "cpu_total": cpus}


def group(name: str, free: int | None) -> dict[str, Any]:
    """Returns what a node says of a volume group."""
    return {"type": "lvm-vg", "name": name, "storage_size": 9999, "storage_free": free}


class RequirementsCase(SynchronousTestCase):
    """Base: three nodes that answer as the test says."""

    def setUp(self) -> None:
        self.nodes = ScriptedNodes()
        self.ctx = SynchronousContext(
            new_cluster("cluster", 3, 1000.0, hypervisors=("fake", "kvm")), self.nodes
        )
        self.uuids = [self.ctx.snapshot().node(f"node{number}").uuid for number in (1, 2, 3)]

    def answer(self, procedure: str, payload: Any, node: str | None = None) -> None:
        """Says what a node (None: each) answers."""
        self.nodes.answers[procedure if node is None else (node, procedure)] = payload

    def modify(self, number: int, **about: Any) -> None:
        """Changes a node."""
        self.ctx.change(self.uuids[number - 1], lambda node: replace(node, **about))

    def asked(self) -> list[tuple[str, str, list[Any]]]:
        """Returns the calls that were made: node, procedure, arguments."""
        return [(each.node, each.procedure, each.arguments) for each in self.nodes.asked]

    def assertRefused(self, text: str, code: str, function: Callable[[], object]) -> None:
        """Expects an ``OpPrereqError`` with exactly this text and code."""
        error = self.assertRaises(OpPrereqError, function)
        self.assertEqual(error.args, (text, code))


class NodeCheckTests(RequirementsCase):
    """Hypervisors, operating systems and bridges."""

    def test_hypervisor_parameters(self) -> None:
        """Nodes that are online and run instances get the cluster's under those given."""
        self.modify(2, offline=True, master_candidate=False)
        self.modify(3, vm_capable=False)
        check_hypervisor_on_nodes(self.ctx, self.uuids, "fake", {"extra": 1})
        sent = ["fake", {"migration_mode": "live", "extra": 1}]
        self.assertEqual(self.asked(), [("node1", "hypervisor_validate_params", sent)])

    def test_hypervisor_refuses(self) -> None:
        """The message names the node, and is no failure of the work."""
        self.answer("hypervisor_validate_params", Failed("no kernel"), "node2")
        self.assertRefused(
            "Hypervisor parameter validation failed on node node2: no kernel",
            "environment_error",
            lambda: check_hypervisor_on_nodes(self.ctx, self.uuids, "fake", {}),
        )
        self.assertEqual(len(self.asked()), 3)

    def test_system(self) -> None:
        """Nodes that run no instances aren't asked; one without the system is told of."""
        self.modify(3, vm_capable=False)
        self.answer("os_validate", True)
        self.answer("os_validate", False, "node2")
        check_system_on_nodes(self.ctx, self.uuids, "demo+a", {"fs": "x"}, force_variant=True)
        sent = [True, "demo+a", ["parameters"], {"fs": "x"}, True]
        self.assertEqual(self.asked(), [(node, "os_validate", sent) for node in ("node1", "node2")])
        self.assertEqual(
            self.ctx.lines, [" - INFO: OS demo+a not found on node node2, validation skipped"]
        )

    def test_system_refused(self) -> None:
        """A node's refusal is the opcode's; so is a node that can't be asked."""
        self.answer("os_validate", Failed("bad variant"), "node1")
        self.assertRefused(
            "OS Parameters validation failed on node node1: bad variant",
            "environment_error",
            lambda: check_system_on_nodes(self.ctx, self.uuids, "demo", {}),
        )
        self.modify(2, offline=True, master_candidate=False)
        self.assertRefused(
            "OS Parameters validation failed on node node2: Node is marked offline",
            "environment_error",
            lambda: check_system_on_nodes(self.ctx, self.uuids[1:2], "demo", {}),
        )

    def test_bridges(self) -> None:
        """Bridges are those of bridged interfaces alone, with the cluster's link as default."""
        nics = [
            Nic(mac="aa:00:00:00:00:01", uuid="a"),
            Nic(mac="aa:00:00:00:00:02", uuid="b", nicparams={"mode": "routed", "link": "eth0"}),
            Nic(mac="aa:00:00:00:00:03", uuid="c", nicparams={"link": "br9"}),
        ]
        check_bridges(self.ctx, nics[1:2], self.uuids)
        self.assertEqual(self.asked(), [])
        check_bridges(self.ctx, nics, self.uuids[:2])
        link = self.ctx.snapshot().cluster.nicparams["default"]["link"]
        self.assertEqual(
            self.asked(), [(node, "bridges_exist", [[link, "br9"]]) for node in ("node1", "node2")]
        )
        self.answer("bridges_exist", Failed("Missing bridges br9"))
        self.assertRefused(
            "Error checking bridges on destination node 'node1': Missing bridges br9",
            "environment_error",
            lambda: check_bridges(self.ctx, nics, self.uuids[:1]),
        )


class SpaceTests(RequirementsCase):
    """Memory, processors and room in volume groups."""

    def test_memory(self) -> None:
        """What is left is told; exactly enough is enough."""
        self.answer("node_info", ["boot", None, [space(512)]])
        self.assertEqual(require_memory(self.ctx, self.uuids[0], "fake", 512, "x"), 512)
        sent = [None, [["fake", {"migration_mode": "live"}]]]
        self.assertEqual(self.asked(), [("node1", "node_info", sent)])
        self.assertRefused(
            "Not enough memory on node node1 for starting instance web: needed 513 MiB, available "
            "512 MiB",
            "insufficient_resources",
            lambda: require_memory(self.ctx, self.uuids[0], "fake", 513, "starting instance web"),
        )

    def test_memory_unknown(self) -> None:
        """A node that can't say refuses, with its own words or with what it said."""
        self.answer("node_info", Failed("no xl"), "node1")
        self.answer("node_info", ["boot", None, None], "node2")
        self.assertRefused(
            "Can't get data from node node1: no xl",
            "environment_error",
            lambda: free_memory(self.ctx, self.uuids[0], "fake"),
        )
        self.assertRefused(
            "Can't compute free memory on node node2, result was 'None'",
            "environment_error",
            lambda: free_memory(self.ctx, self.uuids[1], "fake"),
        )

    def test_room_needed(self) -> None:
        """Metadata counts in its own group; templates without volumes need none."""
        wanted = [
            DiskSpecification(size=100, group="a", meta_group="b"),
            DiskSpecification(size=50, group="b", meta_group="b"),
        ]
        self.assertEqual(room_in_groups("drbd", wanted), {"a": 100, "b": 128 + 50 + 128})
        self.assertEqual(room_in_groups("plain", wanted), {"a": 100, "b": 50})
        self.assertEqual(room_in_groups("file", wanted), {})

    def test_room(self) -> None:
        """All groups are asked for in one call to all nodes, each with its kind of storage."""
        self.modify(2, ndparams={"exclusive_storage": True})
        self.answer("node_info", ["boot", [group("a", 100), group("b", 50)], None])
        require_room(self.ctx, self.uuids[:2], {"a": 100, "b": 50})
        self.assertEqual(
            self.asked(),
            [
                (node, "node_info", [[["lvm-vg", vg, [exclusive]] for vg in "ab"], None])
                for node, exclusive in (("node1", False), ("node2", True))
            ],
        )
        self.assertRefused(
            "Not enough disk space on target node node1 vg b: required 51 MiB, available 50 MiB",
            "insufficient_resources",
            lambda: require_room(self.ctx, self.uuids, {"a": 100, "b": 51}),
        )

    def test_no_room_needed(self) -> None:
        """Disks without volumes ask nobody."""
        require_room(self.ctx, self.uuids, {})
        self.assertEqual(self.asked(), [])

    def test_room_unknown(self) -> None:
        """A group that a node lacks, and a node that can't say, refuse."""
        self.answer("node_info", ["boot", [group("a", None)], None], "node1")
        self.answer("node_info", Failed("gone"), "node2")
        self.assertRefused(
            "Can't compute free disk space on node node1 for vg a, result was 'None'",
            "environment_error",
            lambda: require_room(self.ctx, self.uuids[:1], {"a": 1}),
        )
        self.assertRefused(
            "Cannot get current information from node node2: gone",
            "environment_error",
            lambda: require_room(self.ctx, self.uuids[1:2], {"a": 1}),
        )

    def test_cpu_mask(self) -> None:
        """A mask with several entries has one for each virtual CPU."""
        check_cpu_mask("all", 3)
        check_cpu_mask("0-2", 3)
        check_cpu_mask("0:all:2", 3)
        self.assertRefused(
            "Number of vCPUs [2] does not match the CPU mask [0:1:2]",
            "wrong_input",
            lambda: check_cpu_mask("0:1:2", 2),
        )

    def test_processors_needed(self) -> None:
        """The highest number in a mask counts, wherever it stands."""
        masks = {"all": 0, "": 0, "all::all": 0, "0": 1, "1-3,2": 4, "0:7,9-10:all": 11}
        self.assertEqual({mask: processors_needed(mask) for mask in masks}, masks)

    def test_processors(self) -> None:
        """Each node must have the highest processor; a mask that names none asks nobody."""
        require_processors(self.ctx, self.uuids, "fake", "all")
        self.assertEqual(self.asked(), [])
        self.answer("node_info", ["boot", None, [space(cpus=4)]])
        self.answer("node_info", ["boot", None, [space(cpus=3)]], "node2")
        self.answer("node_info", ["boot", None, []], "node3")
        require_processors(self.ctx, self.uuids[:1], "fake", "0-3")
        self.assertRefused(
            "Node node2 has 3 physical CPUs, but 4 are required",
            "insufficient_resources",
            lambda: require_processors(self.ctx, self.uuids[:2], "fake", "0-3"),
        )
        self.assertRefused(
            "Can't compute the number of CPUs on node node3, result was '[]'",
            "environment_error",
            lambda: require_processors(self.ctx, self.uuids[2:], "fake", "0-3"),
        )


class StorageRuleTests(RequirementsCase):
    """Exclusive storage and the way in which disks are opened."""

    def test_exclusive_storage(self) -> None:
        """Where one node is exclusive, templates are few and each disk has spindles."""
        self.modify(2, ndparams={"exclusive_storage": True})
        bare, whole = DiskSpecification(size=1), DiskSpecification(size=1, spindles=2)

        def check(nodes: list[str], template: str, *wanted: DiskSpecification) -> None:
            check_exclusive_storage(self.ctx.snapshot(), nodes, template, wanted)

        check(self.uuids[:1], "drbd", bare)
        check(self.uuids[:2], "plain", whole)
        self.assertRefused(
            "Disk template drbd not supported with exclusive storage",
            "wrong_state",
            lambda: check(self.uuids[:2], "drbd", whole),
        )
        self.assertRefused(
            "You must specify spindles in instance disks when exclusive storage is active",
            "wrong_input",
            lambda: check(self.uuids[:2], "plain", whole, bare),
        )
        self.assertRefused(
            "Spindles in instance disks cannot be specified when exclusive storage is not active",
            "wrong_input",
            lambda: check(self.uuids[:1], "plain", bare, whole),
        )

    def test_access(self) -> None:
        """A disk's own way of access counts before its group's."""
        node = self.uuids[0]
        group = self.ctx.snapshot().nodes[node].group
        self.ctx.change(
            group, lambda group: replace(group, diskparams={"rbd": {"access": "userspace"}})
        )

        def check(hypervisor: str, template: str, *given: dict[str, str]) -> None:
            check_access(self.ctx.snapshot(), node, hypervisor, template, given)

        check("kvm", "rbd", {})
        check("fake", "rbd", {"access": "kernelspace"})
        check("fake", "plain", {})
        for hypervisor, template, given in (
            ("fake", "rbd", {}),
            ("kvm", "plain", {"access": "userspace"}),
        ):
            self.assertRefused(
                f"Selected hypervisor ({hypervisor}) cannot be used with userspace disk access "
                "param",
                "wrong_state",
                lambda hypervisor=hypervisor, template=template, given=given: check(  # type: ignore[misc]
                    hypervisor, template, given
                ),
            )
