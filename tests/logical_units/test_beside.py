"""Two jobs at once: in parallel on different objects, one after the other on the same one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.changes import Add
from ganeti_masterd.locking.levels import Level
from tests.logical_units.cluster import with_instance
from tests.logical_units.world import MustWait, World

Request = tuple[str, Mapping[str, Any]]


def _lan(name: str, group: str) -> Request:
    link = {"network_mode": "routed", "network_link": "x"}
    return "OP_NETWORK_CONNECT", {"network_name": name, "group_name": group, **link}


def _node(number: int) -> Request:
    name, address = f"node{number}", f"198.51.100.{number}"
    return "OP_NODE_ADD", {"node_name": name, "primary_ip": address, "group": "default"}


def _pv(name: str) -> Request:
    about = {"storage_type": "lvm-pv", "name": "/dev/sda2", "changes": {"allocatable": False}}
    return "OP_NODE_MODIFY_STORAGE", {"node_name": name, **about}


def _vg(name: str) -> Request:
    return "OP_REPAIR_NODE_STORAGE", {"node_name": name, "storage_type": "lvm-vg", "name": "xenvg"}


def _modify(name: str, **wish: Any) -> Request:
    return "OP_NODE_SET_PARAMS", {"node_name": name, **wish}


def _cluster(**wish: Any) -> Request:
    return "OP_CLUSTER_SET_PARAMS", wish


#: Pairs that don't wait for each other, whichever starts first.
SIDE_BY_SIDE: tuple[tuple[Request, Request], ...] = (
    (_modify("node5", drained=True), _modify("node6", drained=True)),
    (_modify("node3", drained=True, auto_promote=True), _modify("node6", master_candidate=True)),
    (_node(7), _node(8)),
    (_node(7), ("OP_NODE_REMOVE", {"node_name": "node6"})),
    (("OP_NODE_REMOVE", {"node_name": "node5"}), ("OP_NODE_REMOVE", {"node_name": "node6"})),
    (("OP_NODE_REMOVE", {"node_name": "node6"}), _modify("node5", vm_capable=False)),
    (_pv("node5"), _pv("node6")),
    (_vg("node5"), _vg("node6")),
    (
        ("OP_OOB_COMMAND", {"command": "health", "node_names": ["node5"]}),
        ("OP_OOB_COMMAND", {"command": "health", "node_names": ["node6"]}),
    ),
    (
        ("OP_NODE_QUERY_STORAGE", {"storage_type": "lvm-vg", "output_fields": ["name"]}),
        ("OP_NODE_QUERYVOLS", {"output_fields": ["name"]}),
    ),
    (
        ("OP_GROUP_SET_PARAMS", {"group_name": "default", "alloc_policy": "last_resort"}),
        ("OP_GROUP_SET_PARAMS", {"group_name": "other", "alloc_policy": "last_resort"}),
    ),
    (
        ("OP_GROUP_ADD", {"group_name": "fourth"}),
        ("OP_GROUP_ADD", {"group_name": "fifth"}),
    ),
    (
        ("OP_GROUP_REMOVE", {"group_name": "third"}),
        ("OP_GROUP_RENAME", {"group_name": "other", "new_name": "fourth"}),
    ),
    (
        ("OP_GROUP_ASSIGN_NODES", {"group_name": "other", "nodes": ["node6"]}),
        ("OP_GROUP_SET_PARAMS", {"group_name": "third", "alloc_policy": "last_resort"}),
    ),
    (
        ("OP_GROUP_ASSIGN_NODES", {"group_name": "other", "nodes": ["node6"]}),
        _modify("node5", drained=True),
    ),
    (
        ("OP_NETWORK_ADD", {"network_name": "n1", "network": "192.0.2.0/25"}),
        ("OP_NETWORK_ADD", {"network_name": "n2", "network": "192.0.2.128/25"}),
    ),
    (
        ("OP_NETWORK_SET_PARAMS", {"network_name": "lan", "mac_prefix": "aa:00:02"}),
        ("OP_NETWORK_SET_PARAMS", {"network_name": "wan", "mac_prefix": "aa:00:02"}),
    ),
    (
        ("OP_NETWORK_REMOVE", {"network_name": "lan"}),
        ("OP_NETWORK_REMOVE", {"network_name": "wan"}),
    ),
    (_lan("lan", "default"), _lan("lan", "other")),
    (
        ("OP_NETWORK_DISCONNECT", {"network_name": "lan", "group_name": "third"}),
        _lan("wan", "other"),
    ),
    (
        ("OP_CLUSTER_VERIFY_GROUP", {"group_name": "default"}),
        ("OP_CLUSTER_VERIFY_GROUP", {"group_name": "other"}),
    ),
    (
        ("OP_GROUP_VERIFY_DISKS", {"group_name": "default"}),
        ("OP_GROUP_VERIFY_DISKS", {"group_name": "other"}),
    ),
    (
        ("OP_CLUSTER_REPAIR_DISK_SIZES", {"instances": ["web.example.com"]}),
        ("OP_CLUSTER_REPAIR_DISK_SIZES", {"instances": ["db.example.com"]}),
    ),
    (_cluster(max_running_jobs=5), _cluster(mac_prefix="aa:00:03")),
    (_cluster(max_running_jobs=5), ("OP_NODE_REMOVE", {"node_name": "node6"})),
    (_cluster(candidate_pool_size=2), _modify("node5", drained=True)),
    (_cluster(candidate_pool_size=2), _modify("node2", drained=True, auto_promote=True)),
    (
        _cluster(nicparams={"link": "br1"}),
        ("OP_GROUP_SET_PARAMS", {"group_name": "other", "alloc_policy": "last_resort"}),
    ),
    (("OP_CLUSTER_REDIST_CONF", {}), ("OP_CLUSTER_REDIST_CONF", {})),
    (
        ("OP_TAGS_SET", {"kind": "node", "name": "node5", "tags": ["x"]}),
        ("OP_TAGS_SET", {"kind": "node", "name": "node6", "tags": ["x"]}),
    ),
)

#: Pairs of which the second waits for the first.
ONE_AFTER_THE_OTHER: tuple[tuple[Request, Request], ...] = (
    (_modify("node5", drained=True), _modify("node5", offline=True)),
    (_modify("node5", drained=True), ("OP_NODE_REMOVE", {"node_name": "node5"})),
    (_modify("node5", drained=True), ("OP_CLUSTER_REDIST_CONF", {})),
    (_pv("node5"), _vg("node5")),
    (
        ("OP_GROUP_SET_PARAMS", {"group_name": "other", "alloc_policy": "last_resort"}),
        ("OP_GROUP_RENAME", {"group_name": "other", "new_name": "fourth"}),
    ),
    (
        ("OP_GROUP_ASSIGN_NODES", {"group_name": "other", "nodes": ["node6"]}),
        ("OP_GROUP_ASSIGN_NODES", {"group_name": "third", "nodes": ["node6"]}),
    ),
    (_lan("lan", "other"), _lan("wan", "other")),
    (
        ("OP_NETWORK_SET_PARAMS", {"network_name": "lan", "mac_prefix": "aa:00:02"}),
        ("OP_NETWORK_REMOVE", {"network_name": "lan"}),
    ),
    (_cluster(candidate_pool_size=2), _modify("node3", drained=True, auto_promote=True)),
    (
        ("OP_CLUSTER_REPAIR_DISK_SIZES", {"instances": ["web.example.com"]}),
        ("OP_CLUSTER_REPAIR_DISK_SIZES", {"instances": ["web.example.com"]}),
    ),
    (
        ("OP_CLUSTER_RENEW_CRYPTO", {"node_certificates": True}),
        _modify("node5", drained=True),
    ),
)


def new_world() -> World:
    """Returns six nodes, three candidates; three groups, of which one is of one node, one empty."""
    world = World(6, candidate_pool_size=3)
    world.run("OP_GROUP_ADD", group_name="other")
    world.run("OP_GROUP_ADD", group_name="third")
    world.run("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node4"])
    world.run("OP_NETWORK_ADD", network_name="lan", network="203.0.113.0/24")
    world.run("OP_NETWORK_ADD", network_name="wan", network="198.18.0.0/24")
    for name in ("node5", "node6"):
        world.store.change(
            world.now.node(name).uuid, lambda node: replace(node, ndparams={"oob_program": "/oob"})
        )
    for name, node in (("db.example.com", "node4"), ("app.example.com", "node2")):
        after = with_instance(world.now, name, [node], template="plain", disks_active=True)
        instance = after.instance(name)
        world.locks.add_lock(Level.INSTANCE, name)
        world.store.apply([Add("disks", after.disks_of(instance)[0]), Add("instances", instance)])
    return world


class BesideTests(SynchronousTestCase):
    """A job is started while another one runs, at that one's first call to nodes."""

    def beside(self, first: Request, second: Request) -> str:
        """Returns "ran" or "waited", for the second."""
        world = new_world()
        said: list[str] = []

        def begin() -> None:
            if said:
                return
            said.append("ran")
            try:
                world.run(second[0], **second[1])
            except MustWait:
                said[0] = "waited"

        world.meanwhile = [begin]
        world.at_hooks = [begin]
        world.run(first[0], **first[1])
        self.assertEqual(world.faults(), [], (first, second))
        return said[0] if said else "not begun"

    def test_side_by_side(self) -> None:
        """Jobs about different objects run in parallel."""
        for one, other in SIDE_BY_SIDE:
            for first, second in ((one, other), (other, one)):
                self.assertEqual(self.beside(first, second), "ran", (first, second))

    def test_one_after_the_other(self) -> None:
        """Jobs about the same object wait for each other."""
        for first, second in ONE_AFTER_THE_OTHER:
            self.assertEqual(self.beside(first, second), "waited", (first, second))
