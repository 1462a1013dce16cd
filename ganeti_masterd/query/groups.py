"""The fields of node groups."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.config.objects import Instance, NodeGroup
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.query.fields import View, common, fields, number, other, text
from ganeti_masterd.query.names import natural
from ganeti_masterd.query.nodes import parameter_fields


def _merged(view: View, group: NodeGroup) -> dict[str, Any]:
    return effective.node_group(view.snapshot.cluster, group)


def _instances(view: View, group: NodeGroup) -> list[Instance]:
    snapshot = view.snapshot
    return [one for node in snapshot.members(group) for one in snapshot.instances_on(node)]


GROUP_FIELDS = fields(
    text("name", "Group", of=lambda group: group.name, doc="The node group's name."),
    text(
        "alloc_policy",
        "AllocPolicy",
        of=lambda group: group.alloc_policy,
        doc="Whether new instances go here: preferred, last_resort or unallocable.",
    ),
    number(
        "node_cnt",
        "Nodes",
        given=lambda view, group: len(view.snapshot.members(group)),
        doc="How many nodes it has.",
    ),
    other(
        "node_list",
        "NodeList",
        given=lambda view, group: [
            node.name for node in sorted(view.snapshot.members(group), key=lambda node: node.uuid)
        ],
        doc="The names of its nodes.",
    ),
    number(
        "pinst_cnt",
        "Instances",
        given=lambda view, group: len(_instances(view, group)),
        doc="How many instances have their primary node in it.",
    ),
    other(
        "pinst_list",
        "InstanceList",
        given=lambda view, group: natural(one.name for one in _instances(view, group)),
        doc="The instances that have their primary node in it.",
    ),
    other("ndparams", "NDParams", given=_merged, doc="Effective node parameters in the group."),
    other(
        "custom_ndparams",
        "CustomNDParams",
        of=lambda group: dict(group.ndparams),
        doc="The node parameters that the group sets.",
    ),
    parameter_fields(_merged),
    other(
        "ipolicy",
        "InstancePolicy",
        given=lambda view, group: effective.instance_policy(view.snapshot.cluster, group),
        doc="The effective instance policy.",
    ),
    other(
        "custom_ipolicy",
        "CustomInstancePolicy",
        of=lambda group: dict(group.ipolicy),
        doc="The part of the instance policy that the group sets.",
    ),
    other(
        "diskparams",
        "DiskParameters",
        given=lambda view, group: effective.of_disks(view.snapshot.cluster, group),
        doc="Effective disk parameters in the group.",
    ),
    other(
        "custom_diskparams",
        "CustomDiskParameters",
        of=lambda group: {name: dict(params) for name, params in group.diskparams.items()},
        doc="The disk parameters that the group sets.",
    ),
    common("node group"),
)
