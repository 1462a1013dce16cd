"""The kinds of objects in the configuration: a row for each says all that depends on it here.

Which fields a query has of them, and at which level they are locked, is said where that
is known (:mod:`ganeti_masterd.query.resources`), by the names of these kinds.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ganeti_masterd.config.base import ConfigObject
from ganeti_masterd.config.objects import (
    Disk,
    FilterRule,
    Instance,
    Network,
    Node,
    NodeGroup,
)
from ganeti_masterd.constants import TAG_INSTANCE, TAG_NETWORK, TAG_NODE, TAG_NODEGROUP


class ObjectKind(Struct, frozen=True, kw_only=True):
    """One kind of object, which has a section of the configuration to itself.

    ``section`` is the key in the file, ``attribute`` what a snapshot calls the section,
    ``objects`` the class of what is in it, ``noun`` what people call one.

    Those that are looked up by name have a ``kind``, which is a tag kind for all but disks;
    ``missing`` is said where there is no such object, ``title`` is what errors of queries call
    one (real daemon 3.0.2). ``unique_names``: no two have one name. ``host_names``: their
    names are those of hosts, and may be shortened up to a dot. ``locked_by_name``: others are
    locked by uuid. ``counts_for_cluster``: each change of one moves the cluster's serial on.
    """

    section: str
    attribute: str
    objects: type[ConfigObject]
    noun: str
    kind: str = ""
    missing: str = ""
    title: str = ""
    unique_names: bool = False
    host_names: bool = False
    locked_by_name: bool = False
    counts_for_cluster: bool = False

    def lock_of(self, obj: Any) -> str:
        """Returns the name under which an object of this kind is locked."""
        name: str = obj.name if self.locked_by_name else obj.uuid
        return name


#: Every kind by its section's key, in the real file's order.
SECTIONS: dict[str, ObjectKind] = {
    row.section: row
    for row in (
        ObjectKind(
            section="nodes",
            attribute="nodes",
            objects=Node,
            noun="node",
            kind=TAG_NODE,
            missing="Node '{}' not known",
            title="Node",
            unique_names=True,
            host_names=True,
            counts_for_cluster=True,
        ),
        ObjectKind(
            section="nodegroups",
            attribute="groups",
            objects=NodeGroup,
            noun="node group",
            kind=TAG_NODEGROUP,
            missing="Node group '{}' not found",
            title="NodeGroup",
            unique_names=True,
        ),
        ObjectKind(
            section="instances",
            attribute="instances",
            objects=Instance,
            noun="instance",
            kind=TAG_INSTANCE,
            missing="Instance '{}' not known",
            title="Instance",
            unique_names=True,
            host_names=True,
            locked_by_name=True,
        ),
        ObjectKind(
            section="networks",
            attribute="networks",
            objects=Network,
            noun="network",
            kind=TAG_NETWORK,
            missing="Network '{}' not found",
            title="Network",
            unique_names=True,
        ),
        ObjectKind(
            section="disks",
            attribute="disks",
            objects=Disk,
            noun="disk",
            kind="disk",
            missing="Disk '{}' not known",
        ),
        ObjectKind(section="filters", attribute="filters", objects=FilterRule, noun="filter rule"),
    )
}

#: Those that are looked up by name, by what people call their kind.
KINDS: dict[str, ObjectKind] = {row.kind: row for row in SECTIONS.values() if row.kind}
