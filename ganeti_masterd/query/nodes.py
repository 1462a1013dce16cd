"""The fields of nodes, from the configuration and from the nodes themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.query.entries import NO_DATA, Entry
from ganeti_masterd.query.fields import (
    Field,
    Matching,
    Need,
    View,
    common,
    declare,
    fields,
    flag,
    number,
    other,
    text,
    unit,
)
from ganeti_masterd.query.names import natural
from ganeti_masterd.rpc.results import HypervisorSpace, StorageSpace


class NodeLive(Struct, frozen=True):
    """What a node reports about itself; None for what it left out. Sizes are in MiB.

    ``storage`` is the storage unit on which instances' disks are made, ``spindles`` are
    the volume group's physical volumes, counted in spindles.
    """

    boot_id: str
    hypervisor: HypervisorSpace | None = None
    storage: StorageSpace | None = None
    spindles: StorageSpace | None = None


def role_letter(snapshot: Snapshot, node: Node) -> str:
    """Returns the letter of a node's role, as the field ``role`` shows it."""
    if node.uuid == snapshot.cluster.master_node:
        return "M"
    if node.master_candidate:
        return "C"
    if node.drained:
        return "D"
    return "O" if node.offline else "R"


def _role(view: View, node: Node) -> str:
    return role_letter(view.snapshot, node)


def _group_name(view: View, node: Node) -> str | None:
    group = view.snapshot.groups.get(node.group)
    return None if group is None else group.name


def _powered(view: View, node: Node) -> bool | None:
    # Without an out-of-band program, the power state isn't known.
    return node.powered if effective.of_node(view.snapshot, node).get("oob_program") else None


def _primaries(view: View, node: Node) -> list[str]:
    return natural(instance.name for instance in view.snapshot.instances_on(node))


def _secondaries(view: View, node: Node) -> list[str]:
    return natural(instance.name for instance in view.snapshot.secondaries_on(node))


def _live(part: str, attribute: str) -> Callable[[View, Node], Any]:
    def value(view: View, node: Node) -> Any:
        info = view.live[Need.NODE_INFO].get(node.uuid, NO_DATA)
        if type(info) is Entry:
            return info
        data = getattr(info, part)
        found = None if data is None else getattr(data, attribute)
        return NO_DATA if found is None else found

    return value


def _boot_id(view: View, node: Node) -> Any:
    info = view.live[Need.NODE_INFO].get(node.uuid, NO_DATA)
    return info if type(info) is Entry else info.boot_id


#: Node parameters: name, title, kind and description.
NODE_PARAMETERS = (
    ("cpu_speed", "ndp/cpu_speed", "float", "The relative speed of its processors; 1 is normal."),
    ("exclusive_storage", "ExclusiveStorage", "bool", "Whether no two disks share a spindle."),
    ("oob_program", "OutOfBandProgram", "other", "The program that switches its power."),
    ("ovs", "OpenvSwitch", "bool", "Whether Open vSwitch is set up on it."),
    ("ovs_link", "OpenvSwitchLink", "other", "The interface that Open vSwitch uses as its uplink."),
    ("ovs_name", "OpenvSwitchName", "other", "The name of its Open vSwitch."),
    ("spindle_count", "SpindleCount", "number", "How many spindles it has."),
    ("ssh_port", "ndp/ssh_port", "number", "The port of its SSH daemon."),
)


def parameter_fields(merged: Callable[[View, Any], dict[str, Any]]) -> Iterator[Field]:
    """Declares a field for each node parameter; ``merged`` returns them all for an object."""

    def value(name: str) -> Callable[[View, Any], Any]:
        return lambda view, obj: merged(view, obj).get(name)

    for name, title, kind, doc in NODE_PARAMETERS:
        yield declare(f"ndp/{name}", title, kind, given=value(name), doc=doc)


def _merged(view: View, node: Node) -> dict[str, Any]:
    return effective.of_node(view.snapshot, node)


NODE_FIELDS = fields(
    text(
        "name",
        "Node",
        of=lambda node: node.name,
        matching=Matching.HOST_NAME,
        doc="The node's name.",
    ),
    text("pip", "PrimaryIP", of=lambda node: node.primary_ip, doc="Its node daemon's address."),
    text("sip", "SecondaryIP", of=lambda node: node.secondary_ip, doc="Its address for disk data."),
    text(
        "role",
        "Role",
        given=_role,
        doc="Its role: M master, C master candidate, D drained, O offline, R regular.",
    ),
    flag(
        "master",
        "IsMaster",
        given=lambda view, node: node.uuid == view.snapshot.cluster.master_node,
        doc="Whether it is the master.",
    ),
    flag(
        "master_candidate",
        "MasterC",
        of=lambda node: node.master_candidate,
        doc="Whether it is a master candidate, which has a copy of the configuration.",
    ),
    flag(
        "master_capable",
        "MasterCapable",
        of=lambda node: node.master_capable,
        doc="Whether it may become a master candidate.",
    ),
    flag("vm_capable", "VMCapable", of=lambda node: node.vm_capable, doc="May it run instances?"),
    flag("drained", "Drained", of=lambda node: node.drained, doc="Does it get no new instances?"),
    flag("offline", "Offline", of=lambda node: node.offline, doc="Whether it is marked offline."),
    flag("powered", "Powered", given=_powered, doc="Whether it is switched on, as last set."),
    text("group", "Group", given=_group_name, doc="The name of its node group."),
    text("group.uuid", "GroupUUID", of=lambda node: node.group, doc="The UUID of its node group."),
    number(
        "pinst_cnt",
        "Pinst",
        given=lambda view, node: len(view.snapshot.instances_on(node)),
        doc="How many instances have it as primary node.",
    ),
    number(
        "sinst_cnt",
        "Sinst",
        given=lambda view, node: len(view.snapshot.secondaries_on(node)),
        doc="How many instances have it as secondary node.",
    ),
    other("pinst_list", "PriInstances", given=_primaries, doc="Instances it is primary node of."),
    other("sinst_list", "SecInstances", given=_secondaries, doc="Instances it is secondary of."),
    other("ndparams", "NodeParameters", given=_merged, doc="Its effective node parameters."),
    other(
        "custom_ndparams",
        "CustomNodeParameters",
        of=lambda node: dict(node.ndparams),
        doc="The node parameters that it sets itself.",
    ),
    parameter_fields(_merged),
    # No daemon of 3.0.2 returns a value for these two.
    other("hv_state", "HypervisorState", of=lambda node: None, doc="The hypervisors' state."),
    other("disk_state", "DiskState", of=lambda node: None, doc="The disks' state."),
    text(
        "bootid",
        "BootID",
        given=_boot_id,
        needs=Need.NODE_INFO,
        doc="An id that its kernel generates at each boot.",
    ),
    *(
        declare(name, title, kind, given=_live("hypervisor", data), needs=Need.NODE_INFO, doc=doc)
        for name, title, kind, data, doc in (
            ("mtotal", "MTotal", "unit", "memory_total", "The machine's total memory."),
            ("mnode", "MNode", "unit", "memory_dom0", "Memory that the node itself uses."),
            ("mfree", "MFree", "unit", "memory_free", "Memory that instances may get."),
            ("ctotal", "CTotal", "number", "cpu_total", "How many logical processors it has."),
            ("cnos", "CNOs", "number", "cpu_dom0", "Logical processors of the node itself."),
            ("cnodes", "CNodes", "number", "cpu_nodes", "How many NUMA domains it has."),
            ("csockets", "CSockets", "number", "cpu_sockets", "How many processor sockets it has."),
        )
    ),
    *(
        make(name, title, given=_live(part, data), needs=Need.NODE_STORAGE, doc=doc)
        for make, name, title, part, data, doc in (
            (unit, "dtotal", "DTotal", "storage", "storage_size", "Total space for disks."),
            (unit, "dfree", "DFree", "storage", "storage_free", "Free space for disks."),
            (number, "sptotal", "SpTotal", "spindles", "storage_size", "Spindles for disks."),
            (number, "spfree", "SpFree", "spindles", "storage_free", "Spindles that are free."),
        )
    ),
    common("node"),
)
