"""Disk templates: one table of everything that depends on a disk's template. Pure.

Facts of real daemon 3.0.2 (protocol/disks.rst, Disk templates).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum

from msgspec import Struct

from ganeti_masterd.constants import DRBD_META_SIZE


class Mirroring(Enum):
    """Who keeps a disk's data accessible to another node, which can then take it over."""

    NONE = "nobody"
    INTERNAL = "the cluster, on a secondary node"
    EXTERNAL = "the storage itself; every node reaches it"


class DiskTemplate(Struct, frozen=True):
    """What disks with a template are made of, and what can be done with them.

    ``storage`` is the type of storage that holds them, as ``storage_list`` and
    ``node_info`` name it. ``directory`` names the cluster's parameter with the
    base directory, for disks that are files.
    """

    name: str
    storage: str
    mirroring: Mirroring = Mirroring.NONE
    #: Whether disks are logical volumes or built on some, so that a volume group is needed.
    lvm: bool = False
    #: Suffixes of the names of the volumes that a disk is built on: data and metadata.
    children: tuple[str, ...] = ()
    #: MiB that a disk takes in addition to its size.
    metadata: int = 0
    #: Whether a disk has a TCP port, and a minor on each of its nodes.
    port_and_minors: bool = False
    directory: str | None = None
    #: Whether disks take space that the cluster accounts for.
    takes_room: bool = True
    #: Whether ``node_info`` reports how much space is left.
    reports_room: bool = False
    grows: bool = True
    #: Whether a running instance's disks can be copied by a snapshot.
    snapshots: bool = False
    #: Whether disks can be made from existing volumes or devices.
    adopts: bool = False
    #: Whether adoption is the only way to make disks.
    only_adopts: bool = False
    #: Whether instances can be converted from it, and to it.
    converts_from: bool = True
    converts_to: bool = True
    #: Whether OP_INSTANCE_MOVE can copy disks to another node.
    copies: bool = False
    #: Whether a hypervisor may open disks in userspace (the parameter ``access``).
    access: bool = False
    #: Whether a node maps disks before it uses them, and unmaps them as they leave it.
    mapped: bool = False
    #: Whether disks can be on nodes with exclusive storage.
    exclusive: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether the data survives the loss of a node."""
        return self.mirroring is not Mirroring.NONE

    @property
    def internal(self) -> bool:
        """Whether disks have a secondary node."""
        return self.mirroring is Mirroring.INTERNAL

    @property
    def external(self) -> bool:
        """Whether every node reaches the data."""
        return self.mirroring is Mirroring.EXTERNAL

    def room(self, size: int) -> int:
        """Returns how much of a node's storage a disk of ``size`` MiB takes, in MiB."""
        return size + self.metadata if self.takes_room else 0


#: Every template of Ganeti 3.0, by name.
TEMPLATES: dict[str, DiskTemplate] = {
    template.name: template
    for template in (
        DiskTemplate(
            "blockdev",
            "blockdev",
            Mirroring.EXTERNAL,
            takes_room=False,
            grows=False,
            adopts=True,
            only_adopts=True,
            converts_to=False,
        ),
        DiskTemplate(
            "diskless",
            "diskless",
            Mirroring.EXTERNAL,
            takes_room=False,
            grows=False,
            converts_from=False,
            converts_to=False,
        ),
        DiskTemplate(
            "drbd",
            "lvm-vg",
            Mirroring.INTERNAL,
            lvm=True,
            children=("data", "meta"),
            metadata=DRBD_META_SIZE,
            port_and_minors=True,
            reports_room=True,
            snapshots=True,
        ),
        DiskTemplate("ext", "ext", Mirroring.EXTERNAL, snapshots=True, access=True, mapped=True),
        DiskTemplate("file", "file", directory="file_storage_dir", reports_room=True, copies=True),
        DiskTemplate(
            "gluster", "gluster", Mirroring.EXTERNAL, directory="gluster_storage_dir", access=True
        ),
        DiskTemplate(
            "plain",
            "lvm-vg",
            lvm=True,
            reports_room=True,
            snapshots=True,
            adopts=True,
            copies=True,
            exclusive=True,
        ),
        DiskTemplate("rbd", "rados", Mirroring.EXTERNAL, access=True, mapped=True),
        DiskTemplate(
            "sharedfile", "sharedfile", Mirroring.EXTERNAL, directory="shared_file_storage_dir"
        ),
    )
}


def template_named(name: str) -> DiskTemplate:
    """Returns the template with this name.

    For a name that Ganeti 3.0 doesn't know, which an old configuration may contain, returns
    a template of unknown storage.
    """
    found = TEMPLATES.get(name)
    if found is not None:
        return found
    return DiskTemplate(
        name,
        name,
        takes_room=True,
        grows=False,
        converts_from=False,
        converts_to=False,
    )


def named_by(holds: Callable[[DiskTemplate], bool]) -> frozenset[str]:
    """Returns the names of the templates for which ``holds`` is true."""
    return frozenset(name for name, template in TEMPLATES.items() if holds(template))


def summary_name(names: Iterable[str]) -> str:
    """Returns what is shown as the template of an instance whose disks have these templates.

    ``diskless`` if it has no disks, ``mixed`` if its disks have several templates.
    """
    kinds = set(names)
    if not kinds:
        return "diskless"
    return kinds.pop() if len(kinds) == 1 else "mixed"
