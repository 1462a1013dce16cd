"""The role of a node, and the effect of a request to change it. Pure.

A node is master candidate, drained, offline, or none of these. The refusals and their order are
those of the real master daemon 3.0.2.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.candidates import has_room, pool
from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_STATE, prereq
from ganeti_masterd.opcodes.nodes import NodeSetParams

#: The flags that determine a node's role, in the order in which results list them.
FLAGS = ("master_candidate", "drained", "offline")

MASTER_ROLE = "The master role can be changed only via master-failover"


class Role(Enum):
    """A node's role; the value has its :data:`FLAGS`."""

    CANDIDATE = (True, False, False)
    DRAINED = (False, True, False)
    OFFLINE = (False, False, True)
    REGULAR = (False, False, False)


class RoleDecision(Struct, frozen=True):
    """The effect of a request: the role before and after, and lines for the job's log.

    ``asked`` has the requested :data:`FLAGS`: None for a flag to be unset that isn't set, and
    including those that follow from the request.
    """

    before: Role
    after: Role
    asked: tuple[bool | None, ...]
    lines: tuple[str, ...] = ()


def role_of(node: Node) -> Role:
    """Returns a node's role; raises ``OpPrereqError`` if its flags contradict each other."""
    flags = (node.master_candidate, node.drained, node.offline)
    try:
        return Role(flags)
    except ValueError:
        held = ", ".join(name for name, flag in zip(FLAGS, flags, strict=True) if flag)
        raise prereq(f"Node {node.name} has flags that exclude each other: {held}", ECODE_STATE)


def with_role(node: Node, role: Role) -> Node:
    """Returns the node in another role."""
    candidate, drained, offline = role.value
    return replace(node, master_candidate=candidate, drained=drained, offline=offline)


def may_demote(op: NodeSetParams) -> bool:
    """Returns whether the request may demote a master candidate."""
    return bool(
        op.master_candidate is False or op.offline or op.drained or op.master_capable is False
    )


def check_request(snapshot: Snapshot, node: Node, op: NodeSetParams) -> None:
    """Refuses what the node's present role forbids; raises ``OpPrereqError``."""
    flags = (op.master_candidate, op.drained, op.offline)
    if flags != (None, None, None) and node.uuid == snapshot.cluster.master_node:
        raise prereq(MASTER_ROLE)
    if op.master_candidate and (not node.master_capable or op.master_capable is False):
        raise prereq(
            f"Node {node.name} is not master capable, cannot make it a master candidate",
            ECODE_STATE,
        )
    if op.vm_capable is False and (snapshot.instances_on(node) or snapshot.secondaries_on(node)):
        raise prereq(
            f"Node {node.name} hosts instances, cannot unset the vm_capable flag", ECODE_STATE
        )


def check_pool(snapshot: Snapshot, node: Node, op: NodeSetParams) -> None:
    """Refuses to demote a candidate that another could replace, unless that is requested."""
    demoted = node.master_candidate and may_demote(op) and not op.auto_promote
    if demoted and pool(snapshot, without={node.uuid}).missing:
        raise prereq(
            "Not enough master candidates, please pass auto promote option to allow"
            " promotion (--auto-promote or RAPI auto_promote=True)",
            ECODE_STATE,
        )


def check_power(node: Node, op: NodeSetParams, oob_program: str) -> None:
    """Refuses changes that require the node to be powered, or to have power control."""
    if oob_program:
        if op.offline is False and not (node.powered or op.powered):
            raise prereq(
                f"Node {node.name} needs to be turned on before its offline status can be reset",
                ECODE_STATE,
            )
    elif op.powered is not None:
        raise prereq(
            f"Unable to change powered state for node {node.name} as it does not support"
            " out-of-band handling",
            ECODE_STATE,
        )


def ineffective(node: Node, op: NodeSetParams) -> list[str]:
    """Returns the flags to be unset that aren't set."""
    return [name for name in FLAGS if getattr(op, name) is False and not getattr(node, name)]


def decide(snapshot: Snapshot, node: Node, op: NodeSetParams) -> RoleDecision:
    """Returns the role that a node gets from a request.

    A node that comes back, or becomes master capable, is promoted if the pool has room. Raises
    ``OpPrereqError`` for impossible requests.
    """
    check_pool(snapshot, node, op)
    before = role_of(node)
    idle = ineffective(node, op)
    lines = [f"Ignoring request to unset flag {name}, already unset" for name in idle]
    candidate, drained, offline = (None if n in idle else getattr(op, n) for n in FLAGS)
    if _comes_back(node, before, op) and has_room(snapshot, without={node.uuid}):
        candidate = True
        lines.append("Auto-promoting node to master candidate")
    if op.master_capable is False and node.master_candidate:
        if node.uuid == snapshot.cluster.master_node:
            raise prereq("Master must remain master capable", ECODE_STATE)
        candidate = False
        lines.append("Demoting from master candidate")
    if candidate:
        after = Role.CANDIDATE
    elif drained:
        after = Role.DRAINED
    elif offline:
        after = Role.OFFLINE
    elif False in (candidate, drained, offline):
        after = Role.REGULAR
    else:
        after = before
    return RoleDecision(before, after, (candidate, drained, offline), tuple(lines))


def may_have_files(op: NodeSetParams, decision: RoleDecision) -> bool:
    """Returns whether a node that is no candidate may still have the files of one.

    One that was offline or drained may not have been notified of its demotion. A request to unset
    a flag that is unset counts, too: with it a job is repeated that the daemon didn't finish.
    """
    away = decision.before in (Role.OFFLINE, Role.DRAINED) and decision.after is not decision.before
    return (
        away
        or decision.before is Role.CANDIDATE
        or False in (op.master_candidate, op.drained, op.offline)
    )


def _comes_back(node: Node, before: Role, op: NodeSetParams) -> bool:
    """Returns whether this request makes a node eligible as master candidate."""
    capable = node.master_capable if op.master_capable is None else op.master_capable
    if before is Role.DRAINED:
        return capable and op.drained is False and not op.offline
    if before is Role.OFFLINE:
        return capable and op.offline is False and not op.drained
    return capable and not node.master_capable and not op.drained and not op.offline
