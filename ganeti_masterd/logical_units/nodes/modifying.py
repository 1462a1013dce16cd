"""OP_NODE_SET_PARAMS: a node's parameters, addresses and role.

The configuration changes in one transaction, including other nodes that are promoted instead and
the list of candidates' certificates. The node is notified afterwards. (The real master daemon 3.0.2
makes several changes, and takes every node's lock if it promotes.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.candidates import pool
from ganeti_masterd.config.changes import Update
from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.merging import (
    NODE_GLOBALS,
    disk_state,
    hypervisor_state,
    refuse_globals,
    updated,
)
from ganeti_masterd.config.parameters.types import NODE, enforce
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_STATE, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes import roles, setup
from ganeti_masterd.logical_units.nodes.addresses import check_secondary
from ganeti_masterd.logical_units.nodes.finding import node_of
from ganeti_masterd.logical_units.nodes.pool import PoolChange, PoolMoved, change_pool
from ganeti_masterd.logical_units.nodes.roles import FLAGS, Role, RoleDecision
from ganeti_masterd.logical_units.nodes.secondary import affected_instances, check_change
from ganeti_masterd.logical_units.steps.half_done import leaving
from ganeti_masterd.opcodes.nodes import NodeSetParams
from ganeti_masterd.rpc import calls

#: Parameters of the opcode that count as a requested change, as in the real daemon.
REQUESTS = (
    "offline",
    "master_candidate",
    "drained",
    "master_capable",
    "vm_capable",
    "secondary_ip",
    "ndparams",
    "hv_state",
    "disk_state",
)

CAPABILITIES = ("master_capable", "vm_capable")


class ModifyNode(LogicalUnit[NodeSetParams], runs=NodeSetParams):
    """Changes a node; holds it exclusively, and shares instances whose mirrors are affected."""

    node: Node
    decision: RoleDecision

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the node; refuses a request without changes, or for several states at once."""
        self.node = node_of(snapshot, self.op)
        requests = [getattr(self.op, name) for name in REQUESTS]
        if all(request is None for request in requests):
            raise prereq("Please pass at least one modification")
        if sum(request is True for request in requests) > 1:
            raise prereq("Can't set the node into more than one state at the same time")
        if self.op.secondary_ip is not None:
            check_secondary(self.op.secondary_ip)

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the node and its resources; instances only for another secondary address."""
        if level in (Level.NODE, Level.NODE_RES):
            return exclusive(self.node.uuid)
        if level is Level.INSTANCE and self.op.secondary_ip is not None:
            return shared(one.name for one in affected_instances(snapshot, self.node.uuid))
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses changes that the node's role, its instances or its hardware forbid."""
        snapshot, op = ctx.snapshot(), self.op
        node = self._current(snapshot)
        roles.check_request(snapshot, node, op)
        roles.check_pool(snapshot, node, op)
        oob_program = effective.of_node(snapshot, node).get("oob_program")
        roles.check_power(node, op, oob_program or "")
        self.decision = roles.decide(snapshot, node, op)
        for line in self.decision.lines:
            ctx.info(line)
        if self.decision.before is Role.OFFLINE and self.decision.after is not Role.OFFLINE:
            self._check_alive(ctx, node)
        if op.secondary_ip is not None:
            check_change(ctx, snapshot, node, op.secondary_ip, force=op.force)
        if op.ndparams:
            refuse_globals(op.ndparams, NODE_GLOBALS, "node", "node", "cluster or group")
        self._with_parameters(node)

    def _current(self, snapshot: Snapshot) -> Node:
        """Returns the current node; its lock keeps it from being removed."""
        return snapshot.node(self.node.uuid)

    def _check_alive(self, ctx: Context, node: Node) -> None:
        answer = ctx.call_one(node.uuid, calls.VERSION)
        if answer.failed:
            raise prereq(
                f"Node {node.name} is being de-offlined but fails to report its version:"
                f" {answer.error}",
                ECODE_STATE,
            )
        ctx.warning(
            "Transitioning node from offline to online state without using re-add. Please make"
            " sure the node is healthy!"
        )

    def _with_parameters(self, node: Node) -> Node:
        """Returns the node with the new parameters and its present role.

        Pure. Raises ``TypeEnforcementError`` or ``OpPrereqError`` for bad parameters.
        """
        op = self.op
        changed: dict[str, Any] = {}
        if op.ndparams:
            changed["ndparams"] = enforce(updated(node.ndparams, op.ndparams), NODE)
        if op.hv_state:
            changed["hv_state_static"] = hypervisor_state(node.hv_state_static, op.hv_state)
        if op.disk_state:
            changed["disk_state_static"] = disk_state(node.disk_state_static, op.disk_state)
        for name in (*CAPABILITIES, "powered", "secondary_ip"):
            if getattr(op, name) is not None:
                changed[name] = getattr(op, name)
        return replace(node, **changed)

    # Hooks

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns the master and the node."""
        nodes = (snapshot.master.uuid, self.node.uuid)
        return HookNodes(nodes, nodes)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the requested changes, and those that follow from them."""
        candidate, drained, offline = self.decision.asked
        return {
            "OP_TARGET": self.node.name,
            "MASTER_CANDIDATE": candidate,
            "OFFLINE": offline,
            "DRAINED": drained,
            "MASTER_CAPABLE": self.op.master_capable,
            "VM_CAPABLE": self.op.vm_capable,
        }

    # Execution

    def exec(self, ctx: Context) -> list[tuple[str, Any]]:
        """Changes the node; returns what changed, as ``(name, text)``."""
        self._say_if_short(ctx)
        with ctx.shielded():
            change_pool(ctx, self._change)
            if self.decision.before is not self.decision.after:
                self._say_if_short(ctx)
            self._tell_node(ctx)
        return self._listing()

    def _change(self, snapshot: Snapshot) -> PoolChange:
        """Decides again, and returns the change for the current configuration."""
        node = self._current(snapshot)
        decision = self.decision = roles.decide(snapshot, node, self.op)
        moves = decision.before is not decision.after
        joins = moves and decision.after is Role.CANDIDATE
        refill = moves and self.op.auto_promote and roles.may_demote(self.op)

        def change(current: Node) -> Node:
            if roles.role_of(current) is not decision.before:
                raise PoolMoved(f"node '{current.name}' has changed")
            return roles.with_role(self._with_parameters(current), decision.after)

        leaves = moves and not joins and (refill or decision.before is Role.CANDIDATE)
        return PoolChange(
            (Update(node.uuid, change),),
            joining=(node,) if joins else (),
            leaving=frozenset((node.uuid,) if leaves else ()),
            refill=refill,
        )

    def _tell_node(self, ctx: Context) -> None:
        """Notifies the node and the others; a failure is a warning and can be repaired later."""
        snapshot = ctx.snapshot()
        node = self._current(snapshot)
        before, after = self.decision.before, self.decision.after
        demoted = before is Role.CANDIDATE and after is not Role.CANDIDATE
        promoted = after is Role.CANDIDATE and before is not Role.CANDIDATE
        if not node.master_candidate and roles.may_have_files(self.op, self.decision):
            setup.tell_demoted(ctx, [node])
        setup.ensure_kvm_daemon(
            ctx, (node.uuid,), silent="kvm" not in snapshot.cluster.enabled_hypervisors
        )
        if not snapshot.cluster.modify_ssh_setup:
            return
        with leaving(
            ctx,
            f"Node {node.name} has its new role, but its SSH key may not fit that everywhere",
            hint="gnt-cluster renew-crypto --new-ssh-keys",
        ):
            if demoted:
                setup.remove_candidate_key(ctx, node)
            if promoted:
                setup.add_candidate_key(ctx, node)

    def _listing(self) -> list[tuple[str, Any]]:
        op, decision = self.op, self.decision
        changed = [
            (name, str(getattr(op, name))) for name in CAPABILITIES if getattr(op, name) is not None
        ]
        if op.secondary_ip is not None:
            changed.append(("secondary_ip", op.secondary_ip))
        for name, before, after in zip(
            FLAGS, decision.before.value, decision.after.value, strict=True
        ):
            if before != after:
                changed.append((name, str(after)))
        return changed

    def _say_if_short(self, ctx: Context) -> None:
        """Logs the real daemon's message if there are too few candidates."""
        found = pool(ctx.snapshot())
        if found.missing:
            ctx.feedback(
                "Configuration data is not consistent: Not enough master candidates: actual"
                f" {found.now}, target {found.wanted}"
            )
