"""Opcodes that are interrupted at each of their calls: the nodes that do that, and the opcodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import DaemonStopping
from ganeti_masterd.rpc.interfaces import Arguments, INodeRPC, NodeResult, Target
from ganeti_masterd.testing.nodes import ScriptedNodes
from tests.logical_units.world import World

#: How a call fails: the node refuses it, or runs it and the answer is lost; or the daemon stops.
Mode = Literal["refused", "lost", "stopping"]

#: Calls that simulated nodes lack, as they have neither SSH nor switches.
UNBUILT: Mapping[str, Any] = {
    "node_configure_ovs": None,
    "node_ssh_key_add": [],
    "node_ssh_key_remove": [],
    "node_ssh_keys_renew": None,
}


@implementer(INodeRPC)
class BreakingNodes:
    """Nodes of which one fails at the call number ``at`` (from 0; None: never).

    A call to several nodes counts as several. ``calls`` has node and procedure of all calls made,
    ``broken`` those of the one that failed.
    """

    def __init__(self, nodes: INodeRPC, at: int | None = None, mode: Mode = "refused") -> None:
        self.nodes = nodes
        self.at = at
        self.mode = mode
        self.calls: list[tuple[str, str]] = []
        self.broken: tuple[str, str] | None = None
        self._unbuilt = ScriptedNodes(UNBUILT)

    @property
    def pending(self) -> int:
        """Calls in flight."""
        return int(self.nodes.pending)

    def call(
        self,
        targets: Sequence[Target],
        procedure: str,
        arguments: Arguments = (),
        *,
        timeout: float | None = None,
    ) -> Deferred[Mapping[str, NodeResult]]:
        """See :meth:`INodeRPC.call`."""
        victim: Target | None = None
        for target in targets:
            if len(self.calls) == self.at:
                victim = target
                self.broken = (target.name, procedure)
            self.calls.append((target.name, procedure))
        if victim is not None and self.mode == "stopping":
            return fail(DaemonStopping("The master daemon is stopping"))
        nodes = self._unbuilt if procedure in UNBUILT else self.nodes
        reached = [t for t in targets if t is not victim or self.mode == "lost"]
        done: Deferred[Mapping[str, NodeResult]] = nodes.call(
            reached, procedure, arguments, timeout=timeout
        )
        if victim is None:
            return done
        failed = NodeResult(victim.name, procedure, None, "it broke")
        return done.addCallback(lambda found: {**found, victim.key: failed})

    def close(self) -> Deferred[None]:
        """See :meth:`INodeRPC.close`."""
        closed: Deferred[None] = self.nodes.close()
        return closed


class Attempt(Struct, frozen=True):
    """An opcode, a check that it is done, and an opcode that repairs a failed one.

    ``settles`` is None if no other opcode can repair anything. ``sets_up`` changes the cluster
    first.
    """

    op_id: str
    parameters: Mapping[str, Any]
    is_done: Callable[[Snapshot], bool]
    settles: Callable[[Snapshot], tuple[str, Mapping[str, Any]] | None]
    sets_up: Callable[[World], object] = lambda world: None


_NODE5 = {"node_name": "node5", "primary_ip": "198.51.100.5"}
_NODE6 = {"node_name": "node6", "primary_ip": "198.51.100.6", "node_setup": True}
_LAN = {"group_name": "other", "network_name": "lan", "network_mode": "routed", "network_link": "x"}
_RENEWAL = {"node_certificates": True, "renew_ssh_keys": True, "ssh_key_type": "ecdsa"}
_PARAMETERS = {
    "candidate_pool_size": 2,
    "master_netdev": "eth0",
    "instance_communication_network": "talk",
}


def _has(name: str) -> Callable[[Snapshot], bool]:
    return lambda now: now.lookup("node", name) is not None


def _make_room(world: World) -> None:
    """Enlarges the pool, so that the next added node becomes a master candidate."""
    world.run("OP_NODE_SET_PARAMS", node_name="node5", master_capable=False)
    world.run("OP_CLUSTER_SET_PARAMS", candidate_pool_size=6)


def _again(
    op_id: str, parameters: Mapping[str, Any], is_done: Callable[[Snapshot], bool]
) -> Attempt:
    """Returns an opcode that is repaired by running it again."""
    return Attempt(op_id, parameters, is_done, lambda now: (op_id, parameters))


ATTEMPTS: Mapping[str, Attempt] = {
    "add": Attempt(
        "OP_NODE_ADD",
        {**_NODE6, "group": "default"},
        _has("node6"),
        lambda now: (
            "OP_NODE_ADD",
            {**_NODE6, "readd": True} if _has("node6")(now) else {**_NODE6, "group": "default"},
        ),
        _make_room,
    ),
    "add again": _again(
        "OP_NODE_ADD",
        {**_NODE5, "readd": True, "node_setup": True, "ndparams": {"spindle_count": 3}},
        lambda now: bool(now.node("node5").ndparams),
    ),
    "remove": Attempt(
        "OP_NODE_REMOVE",
        {"node_name": "node4"},
        lambda now: not _has("node4")(now),
        lambda now: ("OP_NODE_REMOVE", {"node_name": "node4"}) if _has("node4")(now) else None,
    ),
    "demote": _again(
        "OP_NODE_SET_PARAMS",
        {"node_name": "node4", "drained": True, "auto_promote": True},
        lambda now: now.node("node4").drained,
    ),
    "rename": Attempt(
        "OP_CLUSTER_RENAME",
        {"name": "new"},
        lambda now: now.cluster.cluster_name == "new.example.com",
        lambda now: (
            ("OP_CLUSTER_RENAME", {"name": "new"})
            if now.cluster.cluster_name == "cluster"
            else ("OP_CLUSTER_ACTIVATE_MASTER_IP", {})
        ),
    ),
    "renew": _again(
        "OP_CLUSTER_RENEW_CRYPTO", _RENEWAL, lambda now: now.cluster.ssh_key_type == "ecdsa"
    ),
    "set parameters": _again(
        "OP_CLUSTER_SET_PARAMS", _PARAMETERS, lambda now: now.cluster.candidate_pool_size == 2
    ),
    "connect": _again("OP_NETWORK_CONNECT", _LAN, lambda now: bool(now.group("other").networks)),
    "assign": _again(
        "OP_GROUP_ASSIGN_NODES",
        {"group_name": "other", "nodes": ["node4", "node5"]},
        lambda now: len(now.members(now.group("other"))) == 2,
    ),
}


def new_world() -> World:
    """Returns a cluster of five nodes, four candidates, that manages keys and host names."""
    world = World(5, candidate_pool_size=4)
    world.run("OP_GROUP_ADD", group_name="other")
    world.run("OP_NETWORK_ADD", network_name="lan", network="203.0.113.0/24")

    def managing(cluster: Cluster) -> Cluster:
        ndparams = {**cluster.ndparams, "ovs": True, "ovs_link": "eth1"}
        return replace(cluster, modify_ssh_setup=True, modify_etc_hosts=True, ndparams=ndparams)

    world.store.change(world.now.cluster.uuid, managing)
    world.lines.clear()
    return world
