"""OP_NODE_ADD: adds a node to the cluster, or adds it again.

The node already runs its daemon with the cluster's keys (the client sets that up). The order of
calls is the real master daemon's (3.0.2, protocol/rpc.rst, Order of calls), except that the
certificate's digest is asked for before the node is added. So the node is added completely or not
at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from msgspec.structs import replace

from ganeti_masterd.config.candidates import has_room
from ganeti_masterd.config.changes import Add, Update
from ganeti_masterd.config.objects import Node, NodeGroup
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.merging import (
    NODE_GLOBALS,
    disk_state,
    hypervisor_state,
    refuse_globals,
)
from ganeti_masterd.config.parameters.types import NODE, enforce
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import PROTOCOL_VERSION
from ganeti_masterd.errors import (
    ECODE_ENVIRON,
    ECODE_EXISTS,
    ECODE_NOENT,
    ECODE_STATE,
    OpExecError,
    OpPrereqError,
    prereq,
)
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes import addresses, ancillary, setup
from ganeti_masterd.logical_units.nodes.physical import check_physical_volumes
from ganeti_masterd.logical_units.nodes.pool import PoolChange, change_pool
from ganeti_masterd.logical_units.steps.half_done import leaving
from ganeti_masterd.opcodes.nodes import NodeAdd
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import Target


class AddNode(LogicalUnit[NodeAdd], runs=NodeAdd):
    """Adds a node; shares its group, and holds the node if it is added again.

    The lock of a new node is created with it. The host's address is looked up unless the opcode has
    it (``primary_ip``; the real daemon always looks it up).
    """

    known: Node | None
    group: NodeGroup
    node: Node

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the group, and the existing node if it is added again."""
        op = self.op
        self.known = snapshot.lookup("node", op.node_name) if op.readd else None
        if not op.readd:
            self.uuid = str(uuid4())
            self.group = _group(snapshot, op.group)
            return
        if self.known is None:
            raise prereq(f"Node {op.node_name} is not in the configuration", ECODE_NOENT)
        if self.known.uuid == snapshot.cluster.master_node:
            raise prereq("Cannot readd the master node", ECODE_STATE)
        if op.group:
            raise prereq("Cannot pass a node group when a node is being readded")
        self.uuid = self.known.uuid
        self.group = snapshot.group_of(self.known)

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares the group; holds a node that is added again exclusively."""
        if level is Level.NODEGROUP:
            return shared(self.group.uuid)
        if level in (Level.NODE, Level.NODE_RES) and self.known is not None:
            return exclusive(self.uuid)
        return super().locks(level, snapshot)

    # Checks

    def check(self, ctx: Context) -> None:
        """Refuses names and addresses in use, and nodes that don't answer or don't fit."""
        snapshot = ctx.snapshot()
        host = self._host(snapshot)
        self.known = self._known(snapshot, host.name)
        secondary = self._secondary(snapshot, host)
        others = [node for node in snapshot.nodes.values() if node is not self.known]
        if self.known is not None and self.known.secondary_ip != secondary:
            raise prereq("Readded node doesn't have the same IP address configuration as before")
        addresses.check_unused(others, host.address, secondary)
        self.node = self._node(snapshot, host, secondary)
        self._reserve(ctx)
        self._check_instances(snapshot)
        addresses.check_homing(snapshot.master, host.address, secondary)
        self._check_version(ctx)
        if secondary != host.address:
            addresses.check_reachable(ctx, snapshot, self.node)
        check_physical_volumes(ctx, snapshot, self.node)

    def _host(self, snapshot: Snapshot) -> addresses.ResolvedHost:
        family = snapshot.cluster.primary_ip_family
        if self.op.primary_ip is not None:
            name = self.op.node_name if self.known is None else self.known.name
            return addresses.given(name, self.op.primary_ip, family)
        if self.known is not None:
            # What the node is called by now in DNS doesn't matter: it is known.
            return addresses.ResolvedHost(self.known.name, self.known.primary_ip)
        return addresses.look_up(self.op.node_name, family)

    def _known(self, snapshot: Snapshot, name: str) -> Node | None:
        known = snapshot.nodes.named(name)
        if not self.op.readd:
            if known is not None:
                raise prereq(f"Node {name} is already in the configuration", ECODE_EXISTS)
            return None
        if known is None or known.uuid != self.uuid:
            raise prereq(f"Node {name} is not in the configuration", ECODE_NOENT)
        return known

    def _secondary(self, snapshot: Snapshot, host: addresses.ResolvedHost) -> str:
        secondary = self.op.secondary_ip
        if secondary is None and self.known is not None:
            secondary = self.known.secondary_ip
        if secondary is None:
            if ":" in host.address:
                raise prereq(
                    "When using a IPv6 primary address, a valid IPv4 address must be given as"
                    " secondary"
                )
            secondary = host.address
        addresses.check_secondary(secondary)
        return secondary

    def _node(self, snapshot: Snapshot, host: addresses.ResolvedHost, secondary: str) -> Node:
        """Returns the node as it will be, not yet as a candidate."""
        op, known = self.op, self.known
        ndparams = enforce(op.ndparams or {}, NODE)
        refuse_globals(ndparams, NODE_GLOBALS, "node", "node", "cluster or group")
        node = known or Node(
            name=host.name,
            primary_ip=host.address,
            secondary_ip=secondary,
            group=self.group.uuid,
            uuid=self.uuid,
        )
        return replace(
            node,
            primary_ip=host.address,
            master_candidate=False,
            offline=False,
            drained=False,
            powered=True,
            master_capable=_chosen(op.master_capable, node.master_capable),
            vm_capable=_chosen(op.vm_capable, node.vm_capable),
            ndparams=ndparams,
            hv_state_static=(
                hypervisor_state(None, op.hv_state) if op.hv_state else node.hv_state_static
            ),
            disk_state_static=(
                disk_state(None, op.disk_state) if op.disk_state else node.disk_state_static
            ),
        )

    def _reserve(self, ctx: Context) -> None:
        node, known = self.node, self.known
        if known is None:
            ctx.reserve("node", node.name)
        if known is None or known.primary_ip != node.primary_ip:
            ctx.reserve("address", node.primary_ip)
        if known is None and node.secondary_ip != node.primary_ip:
            ctx.reserve("address", node.secondary_ip)

    def _check_instances(self, snapshot: Snapshot) -> None:
        known = self.known
        if known is None or self.node.vm_capable:
            return
        if snapshot.instances_on(known) or snapshot.secondaries_on(known):
            raise prereq(
                f"Node {known.name} being re-added with vm_capable flag set to false, but it"
                " already holds instances",
                ECODE_STATE,
            )

    def _check_version(self, ctx: Context) -> None:
        name = self.node.name
        answer = ctx.call_one(Target.anyway(self.node), calls.VERSION)
        version = answer.require(f"Can't get version information from node {name}", prereq=True)
        if version != PROTOCOL_VERSION:
            raise prereq(
                f"Version mismatch master version {PROTOCOL_VERSION}, node version {version}",
                ECODE_ENVIRON,
            )

    # Hooks

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns all other nodes for pre hooks, and for post hooks also this one."""
        others = tuple(uuid for uuid in snapshot.nodes if uuid != self.uuid)
        return HookNodes(others, (*others, self.uuid))

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the node's name, addresses and capabilities."""
        node = self.node
        return {
            "OP_TARGET": node.name,
            "NODE_NAME": node.name,
            "NODE_PIP": node.primary_ip,
            "NODE_SIP": node.secondary_ip,
            "MASTER_CAPABLE": node.master_capable,
            "VM_CAPABLE": node.vm_capable,
        }

    # Execution

    def exec(self, ctx: Context) -> None:
        """Adds the node, then sets it up."""
        snapshot, node = ctx.snapshot(), self.node
        if self.op.readd:
            ctx.info("Readding a node, the offline/drained flags were reset")
        state = f"Node {node.name} is not added{' again' if self.op.readd else ''}"
        if snapshot.cluster.modify_etc_hosts:
            state += "; the master's hosts file may name it"
        with leaving(ctx, state, hint="Mend what failed, then add it once more"):
            if snapshot.cluster.modify_etc_hosts:
                setup.change_hosts(ctx, "add", node.name, node.primary_ip)
            if node.secondary_ip != node.primary_ip:
                addresses.check_holds(ctx, node, node.secondary_ip, prerequisite=False)
            self._verify(ctx, snapshot)
            setup.set_up_switch(ctx, effective.of_node(snapshot, node), node)
            if self.known is not None:
                ancillary.distribute(ctx, [node])
            with ctx.shielded():
                self._join(ctx)
        with ctx.shielded():
            self._set_up(ctx)

    def _verify(self, ctx: Context, snapshot: Snapshot) -> None:
        """Has the master check that it can log in to the node."""
        name = self.node.name
        checks: dict[str, object] = {"nodelist": [[name], {}, []]}
        failures = addresses.verify_on_master(ctx, snapshot, checks).get("nodelist") or {}
        for text in failures.values():
            ctx.feedback(
                f"ssh/hostname verification failed (checking from {snapshot.master.name}): {text}"
            )
        if failures:
            raise OpExecError("ssh/hostname verification failed")

    def _join(self, ctx: Context) -> None:
        """Creates the node's locks, then adds it to the configuration together with its role."""
        levels = () if self.known is not None else (Level.NODE, Level.NODE_RES)
        for level in levels:
            ctx.add_lock(level, self.uuid)
        try:
            change_pool(ctx, self._change)
        except BaseException:
            for level in levels:
                ctx.remove_lock(level, self.uuid)
            raise
        self.node = ctx.snapshot().nodes[self.uuid]
        if self.node.master_candidate:
            ctx.info("Node will be a master candidate")

    def _change(self, snapshot: Snapshot) -> PoolChange:
        """Returns the change that adds the node to the current configuration."""
        candidate = self.node.master_capable and has_room(snapshot, without={self.uuid})
        node = replace(self.node, master_candidate=candidate)
        if self.known is None:
            if node.group not in snapshot.groups:
                raise OpPrereqError(f"Node group '{self.group.name}' is gone", ECODE_NOENT)
            change: Add | Update = Add("nodes", node)
        else:
            change = Update(self.uuid, lambda current: _rejoined(current, node))
        return PoolChange(
            (change,),
            joining=(node,) if candidate else (),
            leaving=frozenset(() if candidate else (self.uuid,)),
        )

    def _set_up(self, ctx: Context) -> None:
        """Sets the node up; it stays in the configuration even if that fails."""
        node = self.node
        if self.known is None:
            ancillary.distribute(ctx)
        elif not node.master_candidate:
            setup.tell_demoted(ctx, [node])
        setup.ensure_kvm_daemon(ctx, (node.uuid,), silent=True)
        if self.op.node_setup:
            with leaving(
                ctx,
                f"Node {node.name} is in the cluster, but its SSH keys are not set up everywhere",
                hint=f"gnt-node add --readd {node.name}",
            ):
                self._exchange_keys(ctx)

    def _exchange_keys(self, ctx: Context) -> None:
        node = self.node
        if self.known is not None:
            setup.remove_ssh_key(
                ctx,
                node,
                authorized=True,
                public=True,
                clear=(False, True),
                readd=True,
                failing=f"Could not remove SSH keys of node {node.name} before readding,"
                f" (UUID: {node.uuid}).",
            )
        setup.add_ssh_key(
            ctx,
            node,
            candidate=node.master_candidate,
            fetch=True,
            failing="Could not update the node's SSH setup.",
        )


def _group(snapshot: Snapshot, name: str | None) -> NodeGroup:
    """Returns the group of a new node: the one named, or the only one."""
    if name is not None:
        return snapshot.group(name)
    if len(snapshot.groups) != 1:
        # The real daemon gives no error code here.
        raise OpPrereqError(
            "More than one node group exists. Target group must be specified explicitly."
        )
    (group,) = snapshot.groups.values()
    return group


def _chosen(wanted: bool | None, otherwise: bool) -> bool:
    return otherwise if wanted is None else wanted


def _rejoined(current: Node, node: Node) -> Node:
    """Returns a node that is added again, keeping what other jobs may have changed."""
    return replace(node, group=current.group, tags=current.tags)
