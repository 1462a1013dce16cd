"""The built-in allocator: placing instances, moving them, and refusals."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.allocation import builtin, results
from ganeti_masterd.opcodes.instance_moves import InstanceMigrate
from tests.allocation.clusters import (
    ANYTHING,
    LEAST,
    MOST,
    allocate,
    document,
    group,
    instance,
    node,
)
from tests.examples import examples
from tests.work import calls_of

EXAMPLES = examples(100, 1000)


class BuiltinScene(SynchronousTestCase):
    """Sends requests and checks the answers."""

    def found(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the result of a request that must succeed."""
        said = builtin.answer(document(*args, **kwargs))
        self.assertTrue(said["success"], said["info"])
        return said["result"]

    def refused(self, *args: Any, **kwargs: Any) -> str:
        """Returns why a request doesn't succeed."""
        said = builtin.answer(document(*args, **kwargs))
        self.assertEqual((said["success"], said["result"]), (False, []))
        return str(said["info"])


class AllocateTests(BuiltinScene):
    """New instances."""

    def test_emptiest(self) -> None:
        """The node that will be the emptiest gets the instance."""
        nodes = {"node1": node(free_memory=4096), "node2": node(), "node3": node(free_disk=10)}
        self.assertEqual(self.found(nodes, allocate()), ["node2"])

    def test_ties(self) -> None:
        """Between equal nodes the natural order of names decides."""
        nodes = {name: node() for name in ("node10", "node9", "node2")}
        self.assertEqual(self.found(nodes, allocate()), ["node2"])

    def test_processors_count(self) -> None:
        """Virtual processors already in use make a node's score worse."""
        self.assertEqual(
            self.found(
                {"node1": node(free_memory=9216), "node2": node()},
                allocate(),
                instances={"busy": instance(["node1"], "diskless", vcpus=20)},
            ),
            ["node2"],
        )

    def test_nodes_that_take_none(self) -> None:
        """Nodes that are offline, drained or not VM capable get no instance."""
        nodes = {
            "node1": node(offline=True),
            "node2": node(drained=True),
            "node3": node(vm_capable=False),
            "node4": node(free_memory=2000),
        }
        self.assertEqual(self.found(nodes, allocate()), ["node4"])
        del nodes["node4"]
        self.assertEqual(
            self.refused(nodes, allocate()),
            "No place found: group default: no node can be the primary: drained (node2);"
            " not able to run instances (node3); offline (node1)",
        )

    def test_a_node_that_says_nothing(self) -> None:
        """An offline node without live data is accepted in a document."""
        silent = {"group": "uuid-default", "offline": True, "drained": False, "vm_capable": True}
        self.assertEqual(self.found({"node1": silent, "node2": node()}, allocate()), ["node2"])

    def test_limits(self) -> None:
        """Memory, disk, processors and spindles are limits, each with its own message."""
        for about, template, words in (
            ({"memory": 9000}, "diskless", "too little memory"),
            ({"disk_space_total": 200000}, "plain", "too little disk"),
            ({"vcpus": 33}, "diskless", "too many virtual processors"),
            ({"spindle_use": 33}, "plain", "too few spindles"),
        ):
            info = self.refused({"node1": node()}, allocate(template=template, **about))
            self.assertIn(f"no node can be the primary: {words} (node1)", info)

    def test_disks_elsewhere(self) -> None:
        """A disk that every node reaches takes no space on a node."""
        request = allocate(template="rbd", disk_space_total=200000)
        self.assertEqual(self.found({"node1": node()}, request), ["node1"])

    def test_pair(self) -> None:
        """With DRBD there are two nodes in one group; both need the disk space."""
        nodes = {
            "node1": node("a"),
            "node2": node("b", free_memory=6000),
            "node3": node("b", free_memory=6000),
        }
        groups = [group("a"), group("b")]
        request = allocate(template="drbd")
        self.assertEqual(self.found(nodes, request, groups=groups), ["node2", "node3"])
        nodes["node3"]["free_disk"] = 1000
        self.assertIn(
            "group b: no node can be the secondary", self.refused(nodes, request, groups=groups)
        )

    def test_a_primary_without_a_secondary(self) -> None:
        """The best primary is skipped if no node could be its secondary."""
        nodes = {
            "node1": node(free_memory=2000),
            "node2": node(free_memory=1500, free_disk=500),
            "node3": node(free_memory=1800),
        }
        self.assertEqual(self.found(nodes, allocate(template="drbd")), ["node1", "node3"])

    def test_standing_in(self) -> None:
        """A secondary needs the memory for all instances of that primary, not only the new one."""
        nodes = {"node1": node(), "node2": node(free_memory=1500), "node3": node(free_memory=1400)}
        busy = {"busy": instance(["node1", "node2"])}
        self.assertEqual(
            self.found(nodes, allocate(template="drbd"), instances=busy), ["node1", "node3"]
        )

    def test_large_cluster(self) -> None:
        """Of many nodes that lack the same, the first few are named; the most frequent lack first.

        One name more is told rather than left out.
        """
        nodes = {f"node{number}": node(free_memory=10) for number in range(1, 13)}
        nodes |= {f"other{number}": node(free_disk=10) for number in range(1, 7)}
        self.assertEqual(
            self.refused(nodes, allocate(template="plain")),
            "No place found: group default: no node can be the primary: too little memory "
            "(node1, node2, node3, node4, node5, 7 more); too little disk "
            "(other1, other2, other3, other4, other5, other6)",
        )

    def test_memory_kept_for_others(self) -> None:
        """A node keeps the memory to start the instances of another node that fails."""
        nodes = {
            "node1": node(free_memory=9999, total_memory=64000),
            "node2": node(free_memory=2000),
            "node3": node(free_memory=1100),
        }
        busy = {"busy": instance(["node1", "node2"])}
        request = {**allocate(), "restrict-to-nodes": ["node2", "node3"]}
        self.assertEqual(self.found(nodes, request, instances=busy), ["node3"])

    def test_memory_that_cannot_be_kept(self) -> None:
        """Where every place loses the memory for a failure, one is taken, with a warning."""
        nodes = {"node1": node(free_memory=9999), "node2": node(free_memory=2000)}
        busy = {"busy": instance(["node1", "node2"])}
        request = {**allocate(), "restrict-to-nodes": ["node2"]}
        said = builtin.answer(document(nodes, request, instances=busy))
        self.assertEqual((said["success"], said["result"]), (True, ["node2"]))
        self.assertEqual(
            said["warnings"],
            [
                "No place for instance new keeps the memory for the failure of a node (N+1); with "
                "it on node2, not all instances can fail over"
            ],
        )
        several = {"type": "multi-allocate", "instances": [request]}
        said = builtin.answer(document(nodes, several, instances=busy))
        self.assertEqual(said["result"], [[["new", ["node2"]]], []])
        self.assertEqual(len(said["warnings"]), 1)

    def test_spread(self) -> None:
        """Equal instances are spread over equal nodes; with mirrors almost evenly in each role."""
        for template, roles, most in (("plain", 1, 1), ("drbd", 2, 3)):
            nodes = {f"node{number}": node() for number in range(7)}
            asked = [allocate(f"new{number}", template, memory=256) for number in range(60)]
            request = {"type": "multi-allocate", "instances": asked}
            placed, failed = self.found(nodes, request)
            self.assertEqual(failed, [])
            for role in range(roles):
                counts = Counter(where[role] for _, where in placed)
                self.assertEqual(len(counts), len(nodes))
                self.assertLessEqual(max(counts.values()) - min(counts.values()), most)

    def test_restricted(self) -> None:
        """Only the nodes given are considered."""
        nodes = {"node1": node(), "node2": node(free_memory=2000)}
        request = {**allocate(), "restrict-to-nodes": ["node2"]}
        self.assertEqual(self.found(nodes, request), ["node2"])
        self.assertIn("there is none", self.refused(nodes, {**request, "restrict-to-nodes": []}))

    def test_groups(self) -> None:
        """A preferred group comes before an emptier last resort; others only if named."""
        nodes = {
            "node1": node("first", free_memory=2000),
            "node2": node("last"),
            "node3": node("never"),
        }
        groups = [group("first"), group("last", "last_resort"), group("never", "unallocable")]
        self.assertEqual(self.found(nodes, allocate(), groups=groups), ["node1"])
        self.assertEqual(self.found(nodes, allocate(memory=3000), groups=groups), ["node2"])
        for name in ("never", "uuid-never"):
            request = {**allocate(), "group_name": name}
            self.assertEqual(self.found(nodes, request, groups=groups), ["node3"])
        self.assertEqual(
            self.refused(nodes, {**allocate(), "group_name": "nosuch"}, groups=groups),
            "No place found: there is no group nosuch",
        )
        self.assertEqual(
            self.refused({"node3": nodes["node3"]}, allocate(), groups=groups[2:]),
            "No place found: no group may be allocated to",
        )

    def test_policy_of_the_group(self) -> None:
        """A group whose policy the instance violates is skipped, and the answer says so."""
        small = {**MOST, "memory-size": 512}
        strict = {**ANYTHING, "minmax": [{"min": LEAST, "max": small}]}
        nodes = {"node1": node("strict"), "node2": node("open", free_memory=2000)}
        groups = [group("strict", ipolicy=strict), group("open")]
        self.assertEqual(self.found(nodes, allocate(), groups=groups), ["node2"])
        del nodes["node2"]
        info = self.refused(nodes, allocate(), groups=groups)
        self.assertIn("group strict: memory-size value 1024 is not in range [0, 512]", info)
        self.assertIn("group open: no node can be the primary: there is none", info)

    def test_networks(self) -> None:
        """A group must be connected to the networks of the instance's NICs."""
        nodes = {"node1": node("a"), "node2": node("b", free_memory=2000)}
        groups = [group("a"), group("b", networks=["uuid-lan"])]
        request = allocate(nics=[{"network": "uuid-lan"}, {"network": None}])
        self.assertEqual(self.found(nodes, request, groups=groups), ["node2"])

    def test_ratio_of_processors(self) -> None:
        """The group's own ratio of virtual processors is used as the limit."""
        strict = {**ANYTHING, "vcpu-ratio": 1}
        info = self.refused(
            {"node1": node()}, allocate(vcpus=9), groups=[group("default", ipolicy=strict)]
        )
        self.assertIn("too many virtual processors", info)

    def test_several(self) -> None:
        """Several instances are placed one after the other; those without a place are named."""
        nodes = {"node1": node(free_memory=2500), "node2": node(free_memory=1500)}
        asked = [allocate(f"new{number}") for number in range(5)]
        request = {"type": "multi-allocate", "instances": asked}
        said = builtin.answer(document(nodes, request))
        self.assertEqual(
            said["result"],
            [[["new0", ["node1"]], ["new1", ["node2"]], ["new2", ["node1"]]], ["new3", "new4"]],
        )
        self.assertTrue(said["info"].startswith("3 of 5 instances placed; new3: group default"))
        self.assertEqual(len(results.placements(said["result"]).placed), 3)

    def test_nonsense(self) -> None:
        """For a document or request that makes no sense, the answer has no success."""
        self.assertEqual(self.refused({}, {"type": "nosuch"}), "Unknown request 'nosuch'")
        self.assertEqual(self.refused({}, {"type": "relocate"}), "The document has no 'name'")
        self.assertIn("makes no sense", self.refused({"node1": node(offline="no")}, allocate()))
        self.assertEqual(
            builtin.answer({"request": {"type": "allocate"}})["info"],
            "The document has no 'nodegroups'",
        )


class MoveTests(BuiltinScene):
    """Existing instances."""

    def setUp(self) -> None:
        self.nodes = {f"node{number}": node() for number in range(1, 5)}

    def test_another_secondary(self) -> None:
        """An instance with DRBD gets another secondary in its group."""
        self.nodes["node3"]["free_memory"] = 5000
        self.nodes["node5"] = node("far")
        request = {"type": "relocate", "name": "db", "relocate_from": ["node2"]}
        groups = [group("default"), group("far")]
        found = self.found(
            self.nodes, request, groups=groups, instances={"db": instance(["node1", "node2"])}
        )
        self.assertEqual(found, ["node4"])

    def test_another_primary(self) -> None:
        """An externally mirrored instance gets another primary."""
        request = {"type": "relocate", "name": "db", "relocate_from": ["node1", "node2"]}
        found = self.found(self.nodes, request, instances={"db": instance(["node1"], "rbd")})
        self.assertEqual(found, ["node3"])

    def test_a_mirror(self) -> None:
        """A node for a new mirror must have space for DRBD's metadata too."""
        request = {"type": "allocate-secondary", "name": "db"}
        busy = {"db": instance(["node1"], "plain")}
        self.assertEqual(self.found(self.nodes, request, instances=busy), "node2")
        for name in ("node2", "node3", "node4"):
            self.nodes[name]["free_disk"] = 1000
        self.assertIn("too little disk", self.refused(self.nodes, request, instances=busy))

    def evacuate(self, mode: str, instances: dict[str, Any], *names: str) -> results.Moves:
        request = {"type": "node-evacuate", "instances": names or [*instances], "evac_mode": mode}
        return results.moves(self.found(self.nodes, request, instances=instances))

    def test_off_the_primary(self) -> None:
        """With DRBD the secondary takes over, else another node does."""
        moves = self.evacuate(
            "primary-only",
            {"db": instance(["node1", "node2"]), "web": instance(["node1"], "rbd")},
        )
        self.assertEqual(
            [(one.name, one.group, one.nodes) for one in moves.moved],
            [("db", "default", ["node2", "node1"]), ("web", "default", ["node3"])],
        )
        self.assertEqual(
            [[(op.op_id, getattr(op, "target_node", None)) for op in job] for job in moves.jobs],
            [[("OP_INSTANCE_MIGRATE", None)], [("OP_INSTANCE_MIGRATE", "node3")]],
        )

    def test_off_the_secondary(self) -> None:
        """The mirror moves to a node that isn't being evacuated."""
        moves = self.evacuate(
            "secondary-only",
            {"db": instance(["node1", "node2"]), "web": instance(["node1"], "rbd")},
        )
        self.assertEqual([one.nodes for one in moves.moved], [["node1", "node3"]])
        ((op,),) = moves.jobs
        self.assertEqual(
            (op.op_id, getattr(op, "remote_node", "")), ("OP_INSTANCE_REPLACE_DISKS", "node3")
        )
        self.assertEqual(
            [(one.name, one.reason) for one in moves.failed],
            [("web", "Instances of type rbd have no secondary node")],
        )

    def test_off_both(self) -> None:
        """For two new nodes: replace the secondary, migrate, replace the secondary again."""
        moves = self.evacuate("all", {"db": instance(["node1", "node2"])})
        self.assertEqual([one.nodes for one in moves.moved], [["node3", "node4"]])
        self.assertEqual(
            [op.op_id for op in moves.jobs[0]],
            [
                "OP_INSTANCE_REPLACE_DISKS",
                "OP_INSTANCE_MIGRATE",
                "OP_INSTANCE_REPLACE_DISKS",
            ],
        )

    def test_off_a_dead_primary(self) -> None:
        """There is nothing to copy from at a dead node: the secondary takes over first."""
        self.nodes["node1"] |= {"offline": True}
        moves = self.evacuate("all", {"db": instance(["node1", "node2"])})
        self.assertEqual([one.nodes for one in moves.moved], [["node3", "node4"]])
        self.assertEqual(
            [(op.op_id, getattr(op, "remote_node", None)) for op in moves.jobs[0]],
            [
                ("OP_INSTANCE_MIGRATE", None),
                ("OP_INSTANCE_REPLACE_DISKS", "node3"),
                ("OP_INSTANCE_MIGRATE", None),
                ("OP_INSTANCE_REPLACE_DISKS", "node4"),
            ],
        )

    def test_how_it_migrates(self) -> None:
        """Memory stays as it is, one that is down fails over, versions may differ: as with hail."""
        moves = self.evacuate("primary-only", {"db": instance(["node1", "node2"])})
        ((op,),) = moves.jobs
        assert isinstance(op, InstanceMigrate)
        self.assertEqual(
            (op.allow_failover, op.allow_runtime_changes, op.ignore_hvversions),
            (True, False, True),
        )

    def test_mirrors_are_spread(self) -> None:
        """A node that stands in for many isn't chosen again only as no two are of one primary."""
        self.nodes |= {f"node{number}": node() for number in range(5, 11)}
        self.nodes["node2"]["free_memory"] = 7000
        primaries = range(3, 11)
        busy = {f"db{each}": instance([f"node{each}", "node1"]) for each in primaries}
        for number in primaries:
            self.nodes[f"node{number}"]["free_memory"] = 7000
        moves = self.evacuate("secondary-only", busy)
        found = Counter(one.nodes[1] for one in moves.moved)
        self.assertLessEqual(max(found.values()), 2, found)

    def test_overcommitted(self) -> None:
        """Ratios of processors and spindles are no limits if they are to be ignored."""
        request = {"type": "node-evacuate", "instances": ["db"], "evac_mode": "primary-only"}
        busy = {"db": instance(["node1", "node2"], vcpus=33)}
        told = document(self.nodes, request, instances=busy)
        _, ((name, reason),), _ = builtin.answer(told)["result"]
        self.assertEqual(
            (name, reason),
            ("db", "its secondary node node2 can't take over: too many virtual processors"),
        )
        moved, failed, _ = builtin.answer(told, {"ignore-soft-errors": None})["result"]
        self.assertEqual((moved, failed), ([["db", "default", ["node2", "node1"]]], []))
        told["nodes"]["node2"]["free_memory"] = 10
        _, failed, _ = builtin.answer(told, {"ignore-soft-errors": None})["result"]
        self.assertEqual(len(failed), 1)

    def test_what_can_not_move(self) -> None:
        """Instances that can't move are reported with the reason; the others move."""
        self.nodes["node2"]["free_memory"] = 512
        moves = self.evacuate(
            "primary-only",
            {
                "local": instance(["node1"], "plain"),
                "tight": instance(["node1", "node2"]),
                "turn": instance(["node3", "node1"]),
                "fine": instance(["node1"], "diskless"),
            },
        )
        self.assertEqual([one.name for one in moves.moved], ["fine"])
        self.assertEqual(
            {one.name: one.reason for one in moves.failed},
            {
                "local": "Instances of type plain cannot be relocated",
                "tight": "its secondary node node2 can't take over: too little memory",
                "turn": "its secondary node node1 can't take over: it is to be left too",
            },
        )

    def test_the_largest_first(self) -> None:
        """The largest moves first, so that it finds room."""
        for name in ("node2", "node3", "node4"):
            self.nodes[name]["free_memory"] = 1500
        self.nodes["node2"]["free_memory"] = 4000
        moves = self.evacuate(
            "primary-only",
            {
                "small": instance(["node1"], "diskless"),
                "large": instance(["node1"], "diskless", memory=3500),
            },
        )
        self.assertEqual(
            [(one.name, one.nodes) for one in moves.moved],
            [("large", ["node2"]), ("small", ["node3"])],
        )

    def test_an_instance_that_is_down(self) -> None:
        """An instance that is down frees no memory when it moves."""
        self.nodes = {"node1": node(free_memory=100), "node2": node(free_memory=100)}
        moves = self.evacuate(
            "primary-only",
            {
                "down": instance(["node1"], "rbd", admin_state="down", memory=4096),
                "up": instance(["node2"], "rbd", memory=50),
            },
            "down",
            "up",
        )
        self.assertEqual(len(moves.failed), 2)

    def change_group(self, *targets: str, **instances: Any) -> results.Moves:
        request = {
            "type": "change-group",
            "instances": [*instances],
            "target_groups": [*targets],
        }
        groups = [
            group("default"),
            group("b", "last_resort"),
            group("c"),
            group("d", "unallocable"),
        ]
        self.nodes |= {
            "node5": node("b"),
            "node6": node("b"),
            "node7": node("c", free_memory=4000),
            "node8": node("c"),
            "node9": node("d"),
        }
        found = self.found(self.nodes, request, groups=groups, instances=instances)
        return results.moves(found)

    def test_into_another_group(self) -> None:
        """Without targets any other group that isn't unallocable is tried, in order of policy."""
        moves = self.change_group(db=instance(["node1", "node2"]), web=instance(["node1"], "rbd"))
        self.assertEqual(
            [(one.name, one.group, one.nodes) for one in moves.moved],
            [("db", "c", ["node8", "node7"]), ("web", "c", ["node8"])],
        )
        self.assertEqual([len(job) for job in moves.jobs], [3, 1])

    def test_into_a_group_that_is_named(self) -> None:
        """A named group is used whatever its policy, but never the instance's own."""
        moves = self.change_group("uuid-d", web=instance(["node1"], "rbd"))
        self.assertEqual(moves.moved[0].nodes, ["node9"])
        moves = self.change_group("uuid-default", web=instance(["node1"], "rbd"))
        self.assertEqual(moves.failed[0].reason, "no group may be allocated to")

    def split(self, nodes: list[str], target: str) -> tuple[list[str], list[str]]:
        """Returns where a mirror goes from two nodes of two groups, and by which opcodes."""
        self.nodes["node7"] = node("c")
        self.nodes.setdefault("node8", node("c", free_memory=5000))
        self.nodes["node9"] = node("c")
        request = {"type": "change-group", "instances": ["db"], "target_groups": [target]}
        groups = [group("default"), group("c")]
        busy = {"db": instance(nodes)}
        moves = results.moves(self.found(self.nodes, request, groups=groups, instances=busy))
        return moves.moved[0].nodes, [op.op_id for op in moves.jobs[0]]

    def test_a_split_mirror(self) -> None:
        """The end that is in the target group stays, even if others would be emptier."""
        for nodes, opcodes in (
            (["node1", "node8"], ["OP_INSTANCE_MIGRATE", "OP_INSTANCE_REPLACE_DISKS"]),
            (["node8", "node1"], ["OP_INSTANCE_REPLACE_DISKS"]),
        ):
            self.assertEqual(self.split(nodes, "uuid-c"), (["node8", "node7"], opcodes))
            self.assertEqual(self.split(nodes[::-1], "uuid-default")[0], ["node1", "node2"])

    def test_a_split_mirror_on_a_bad_node(self) -> None:
        """An end that can't stay moves, within the target group if there is room."""
        self.nodes["node8"] = node("c", drained=True)
        for nodes in (["node1", "node8"], ["node8", "node1"]):
            self.assertEqual(set(self.split(nodes, "uuid-c")[0]), {"node7", "node9"})

    def test_networks_of_the_target(self) -> None:
        """An instance goes only to a group that is connected to all of its networks."""
        nics = [{"network": "uuid-lan"}, {"network": None}, {}]
        moves = self.change_group("uuid-c", "uuid-b", db=instance(["node1", "node2"], nics=nics))
        ((name, reason),) = [(one.name, one.reason) for one in moves.failed]
        self.assertEqual(
            (name, reason),
            (
                "db",
                "group b: not connected to network uuid-lan; "
                "group c: not connected to network uuid-lan",
            ),
        )

    def test_disk_room_of_the_target(self) -> None:
        """Both ends need room, of each instance that goes there."""
        half = {"disk_space_total": 60000}
        moves = self.change_group(
            "uuid-c",
            db=instance(["node1", "node2"], **half),
            web=instance(["node1", "node2"], **half),
        )
        self.assertEqual([one.name for one in moves.moved], ["db"])
        self.assertEqual([one.name for one in moves.failed], ["web"])
        self.assertIn("too little disk", moves.failed[0].reason or "")

    def test_unknown_groups(self) -> None:
        """A target group that doesn't exist is refused by name."""
        request = {"type": "change-group", "instances": [], "target_groups": ["uuid-x"]}
        self.assertEqual(
            self.refused(self.nodes, request), "No place found: there is no group uuid-x"
        )


NODES = st.lists(
    st.builds(
        node,
        st.sampled_from(["a", "b"]),
        free_memory=st.integers(0, 8192),
        free_disk=st.integers(0, 8192),
        offline=st.booleans(),
        drained=st.booleans(),
        vm_capable=st.sampled_from([True, True, True, False]),
    ),
    min_size=1,
    max_size=6,
)


#: Requests, each with the nodes of its instance.
Placed = list[tuple[dict[str, Any], tuple[str, ...]]]


def fits(nodes: dict[str, Any], placed: Placed) -> bool:
    """Whether instances are on usable nodes, each in one group, and these have the room."""
    for name, about in nodes.items():
        primary = [one for one, where in placed if where[0] == name]
        here = [one for one, where in placed if name in where]
        disk = sum(one["disk_space_total"] for one in here if one["disk_template"] != "diskless")
        if here and (about["offline"] or about["drained"] or not about["vm_capable"]):
            return False
        if primary and sum(one["memory"] for one in primary) > about["free_memory"]:
            return False
        if disk > about["free_disk"] or sum(one["vcpus"] for one in primary) > 32:
            return False
    return all(len({nodes[name]["group"] for name in where}) == 1 for _, where in placed)


def any_may_fail(nodes: dict[str, Any], placed: Placed) -> bool:
    """Whether each node has the memory for the instances of any other that it stands in for.

    Only nodes of the last instance are looked at: others can't be helped by its place.
    """
    for name in placed[-1][1]:
        used = sum(one["memory"] for one, where in placed if where[0] == name)
        for other in nodes:
            needed = sum(one["memory"] for one, where in placed if where == (other, name))
            if needed and used + needed > nodes[name]["free_memory"]:
                return False
    return True


class LimitTests(BuiltinScene):
    """In any cluster, no limit is ever exceeded."""

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(
        NODES,
        st.lists(
            st.tuples(
                st.sampled_from(["drbd", "plain", "diskless"]),
                st.integers(0, 4096),
                st.integers(1, 12),
            ),
            max_size=8,
        ),
    )
    def test_of_nodes(self, nodes: list[Any], wanted: list[tuple[str, int, int]]) -> None:
        """All placed instances fit, and any node may fail, if one choice allows that."""
        named = {f"node{number}": about for number, about in enumerate(nodes)}
        asked = {
            f"new{number}": allocate(f"new{number}", template, memory=memory, vcpus=vcpus)
            for number, (template, memory, vcpus) in enumerate(wanted)
        }
        request = {"type": "multi-allocate", "instances": list(asked.values())}
        said = builtin.answer(document(named, request, groups=[group("a"), group("b")]))
        placed, failed = said["result"]
        self.assertEqual({name for name, _ in placed} | set(failed), set(asked))
        chosen = dict(placed)
        so_far: Placed = []
        warned = " ".join(said["warnings"])
        for name, one in asked.items():
            choices = [
                where
                for where in permutations(named, 2 if one["disk_template"] == "drbd" else 1)
                if fits(named, [*so_far, (one, where)])
            ]
            spare = [where for where in choices if any_may_fail(named, [*so_far, (one, where)])]
            if name not in chosen:
                self.assertEqual(choices, [])
                continue
            self.assertIn(tuple(chosen[name]), spare or choices)
            self.assertEqual(f"instance {name} " in warned, not spare)
            so_far.append((one, tuple(chosen[name])))

    def test_work(self) -> None:
        """A cluster of 500 nodes and 5,000 instances takes only a few calls for each of them."""
        nodes = {f"node{number}": node(free_memory=65536) for number in range(500)}
        policy = {**ANYTHING, "vcpu-ratio": 64}
        busy = {
            f"db{number}": instance([f"node{number % 500}", f"node{(number * 7 + 1) % 500}"])
            for number in range(5000)
        }
        asked = document(
            nodes,
            allocate(template="drbd"),
            groups=[group("default", ipolicy=policy)],
            instances=busy,
        )
        answer, calls = calls_of(builtin.answer, asked)
        self.assertTrue(answer["success"])
        self.assertLess(calls, 20 * (len(nodes) + len(busy)))
