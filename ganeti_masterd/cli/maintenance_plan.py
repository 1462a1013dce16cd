"""What a node's maintenance does to its instances, and how it is taken back. Pure.

What an instance was to the node is kept as a tag on the instance, so that the way back is
known to whoever goes it, from wherever, however far it got before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.cli.jobfile import RawJob, RawOpcode
from ganeti_masterd.config.templates import template_named

#: The cluster's default, as an allocator's name.
DEFAULT_ALLOCATOR = "."

#: Fields of instances and of nodes to ask for, in the order of the classes' fields.
INSTANCE_FIELDS = (
    "name",
    "pnode",
    "snodes",
    "disk_template",
    "admin_state",
    "disk.sizes",
    "be/maxmem",
    "tags",
)
NODE_FIELDS = ("name", "master", "drained", "offline", "pinst_list", "sinst_list", "tags")


class HostedInstance(Struct, frozen=True, array_like=True):
    """An instance; sizes are in MiB."""

    name: str
    primary: str
    secondaries: list[str]
    template: str
    admin_state: str
    disks: list[int]
    memory: int
    tags: list[str]

    @property
    def nodes(self) -> list[str]:
        """Its nodes, the primary first."""
        return [self.primary, *self.secondaries]


class MaintainedNode(Struct, frozen=True, array_like=True):
    """A node, and the names of its instances."""

    name: str
    master: bool
    drained: bool
    offline: bool
    primaries: list[str]
    secondaries: list[str]
    tags: list[str]


class PlannedMove(Struct, frozen=True):
    """What happens to one instance: ``move``, ``mirror`` (its mirror moves) or ``stay``.

    ``to`` is where, in words; ``mebibytes`` are copied meanwhile.
    """

    instance: str
    action: str
    to: str
    mebibytes: int = 0


class TagNames:
    """The tags of one node's maintenance."""

    #: On the node: it was drained for this.
    DRAINED = "maintenance:drained"

    def __init__(self, node: str) -> None:
        self.primary = f"maintenance:primary:{node}"
        self.secondary = f"maintenance:secondary:{node}"


def migrations(node: str, instances: Sequence[HostedInstance]) -> list[HostedInstance]:
    """Returns the instances that leave the node as their primary."""
    return [
        one for one in instances if one.primary == node and template_named(one.template).mirrored
    ]


def mirrors(node: str, instances: Sequence[HostedInstance]) -> list[HostedInstance]:
    """Returns the instances whose mirrors leave the node; they are its secondaries by then."""
    return [one for one in instances if node in one.nodes and template_named(one.template).internal]


def plan_of(
    node: str,
    instances: Sequence[HostedInstance],
    places: Mapping[str, str],
    *,
    keep_mirrors: bool = False,
) -> list[PlannedMove]:
    """Returns what will happen, in order: first moves, then mirrors, then what stays.

    ``places`` are the nodes to which an allocator would move the mirrors, by instance.
    """
    moving = migrations(node, instances)
    found = [
        PlannedMove(
            one.name,
            "move",
            one.secondaries[0] if one.secondaries else "where the allocator says",
            one.memory if one.admin_state == "up" else 0,
        )
        for one in moving
    ]
    for one in mirrors(node, instances):
        if keep_mirrors:
            found.append(PlannedMove(one.name, "stay", "its mirror: no redundancy meanwhile"))
        else:
            place = places.get(one.name, "where the allocator says")
            found.append(PlannedMove(one.name, "mirror", place, sum(one.disks)))
    for one in instances:
        if one.primary == node and one not in moving:
            state = "stop it first" if one.admin_state == "up" else "it is down"
            found.append(PlannedMove(one.name, "stay", f"{one.template} can't move: {state}"))
    return found


def drain(node: MaintainedNode) -> list[RawJob]:
    """Returns the job that drains a node, none if it is drained."""
    if node.drained:
        return []
    tag = {"OP_ID": "OP_TAGS_SET", "kind": "node", "name": node.name, "tags": [TagNames.DRAINED]}
    return [
        [tag, {"OP_ID": "OP_NODE_SET_PARAMS", "node_name": node.name, "drained": True}],
    ]


def moves(node: str, instances: Sequence[HostedInstance]) -> list[RawJob]:
    """Returns the jobs that move primary instances away, one each."""
    return [
        [
            _tag("OP_TAGS_SET", one, [TagNames(node).primary]),
            {
                "OP_ID": "OP_INSTANCE_MIGRATE",
                "instance_name": one.name,
                "allow_failover": True,
                **({} if one.secondaries else {"iallocator": DEFAULT_ALLOCATOR}),
            },
        ]
        for one in migrations(node, instances)
    ]


def evacuation(node: str, instances: Sequence[HostedInstance]) -> list[RawJob]:
    """Returns the job that has all mirrors moved away; none if there are no mirrors."""
    tags = TagNames(node)
    leaving = [one for one in mirrors(node, instances) if one.primary != node]
    if not leaving:
        return []
    evacuate = {"OP_ID": "OP_NODE_EVACUATE", "node_name": node, "mode": "secondary-only"}
    new = [one for one in leaving if tags.primary not in one.tags]
    return [[*(_tag("OP_TAGS_SET", one, [tags.secondary]) for one in new), evacuate]]


def undrain(node: MaintainedNode) -> list[RawJob]:
    """Returns the job that takes back :func:`drain`; none if it drained nothing."""
    if TagNames.DRAINED not in node.tags:
        return []
    tag = {"OP_ID": "OP_TAGS_DEL", "kind": "node", "name": node.name, "tags": [TagNames.DRAINED]}
    return [
        [{"OP_ID": "OP_NODE_SET_PARAMS", "node_name": node.name, "drained": False}, tag],
    ]


def returns(node: str, instances: Sequence[HostedInstance]) -> list[RawJob]:
    """Returns the jobs that bring instances back, one each.

    Mirrors come first, as an instance can only go where its mirror is. The tags are the
    last to go: whatever fails is tried again by another run.
    """
    tags = TagNames(node)
    found = []
    for one in instances:
        ours = [tag for tag in one.tags if tag in (tags.primary, tags.secondary)]
        if not ours:
            continue
        internal = template_named(one.template).internal
        job: RawJob = []
        if internal and node not in one.nodes:
            job.append(
                {
                    "OP_ID": "OP_INSTANCE_REPLACE_DISKS",
                    "instance_name": one.name,
                    "mode": "replace_new_secondary",
                    "remote_node": node,
                    "disks": [],
                }
            )
        if tags.primary in ours and one.primary != node:
            job.append(
                {
                    "OP_ID": "OP_INSTANCE_MIGRATE",
                    "instance_name": one.name,
                    "allow_failover": True,
                    **({} if internal else {"target_node": node}),
                }
            )
        found.append([*job, _tag("OP_TAGS_DEL", one, ours)])
    return found


def _tag(op_id: str, instance: HostedInstance, tags: Sequence[str]) -> RawOpcode:
    return {"OP_ID": op_id, "kind": "instance", "name": instance.name, "tags": list(tags)}


def returning(node: str, instances: Sequence[HostedInstance]) -> list[PlannedMove]:
    """Returns what :func:`returns` will do, for people."""
    tags = TagNames(node)
    found = []
    for one in instances:
        if not {tags.primary, tags.secondary} & set(one.tags):
            continue
        copied = sum(one.disks) if template_named(one.template).internal else 0
        if copied and node not in one.nodes:
            found.append(PlannedMove(one.name, "mirror", node, copied))
        if tags.primary in one.tags and one.primary != node:
            memory = one.memory if one.admin_state == "up" else 0
            found.append(PlannedMove(one.name, "move", node, memory))
    return found


def running_on(node: str, instances: Sequence[HostedInstance]) -> list[str]:
    """Returns the names of instances that are to run on a node: it must not be switched off."""
    return [one.name for one in instances if one.primary == node and one.admin_state == "up"]


def unprotected_without(node: str, instances: Sequence[HostedInstance]) -> list[str]:
    """Returns the names of instances that have no redundancy while the node is off."""
    return [one.name for one in instances if node in one.secondaries]


def mirror_places(answer: Mapping[str, Any]) -> dict[str, str]:
    """Returns the new secondary nodes by instance of an allocator's answer (node-evacuate).

    What can't move is told with its reason.
    """
    if not answer.get("success"):
        return {}
    moved, failed, _ = answer["result"]
    places = {name: nodes[-1] for name, _, nodes in moved}
    return places | {name: f"nowhere: {reason}" for name, reason in failed}
