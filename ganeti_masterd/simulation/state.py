"""The state of a simulated node, and of a simulated cluster.

All state is in memory, on shelves that record changes, so that
:mod:`ganeti_masterd.simulation.store` writes only these. Values are frozen: a change replaces the
value on its shelf. The state of one node is in its :class:`NodeState`; state that concerns several
nodes (mirrors, shared volumes, migrations, transfers, broken links) is in the one
:class:`SharedState`.
"""

from __future__ import annotations

import base64
import sys
import zlib
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import force_setattr

from ganeti_masterd.simulation.ends import End, Metadata
from ganeti_masterd.simulation.migrations import Migration
from ganeti_masterd.simulation.shelves import Shelf, Shelves
from ganeti_masterd.simulation.transfers import Transfer


class PhysicalVolume(Struct, frozen=True):
    """A disk of a volume group; ``size`` in MiB."""

    name: str
    size: int


class VolumeGroup(Struct, frozen=True):
    """A volume group of a node."""

    name: str
    volumes: tuple[PhysicalVolume, ...]

    @property
    def size(self) -> int:
        """The size of all its physical volumes, in MiB."""
        return sum(volume.size for volume in self.volumes)


class Hardware(Struct, frozen=True):
    """The hardware of a simulated node; memory and space in MiB.

    ``memory_reserved`` is used neither by the node itself nor by instances. If ``cpus_dom0`` is
    None, the node uses all processors; if ``bridges`` is None, every bridge exists. ``exports`` is
    whether the directory of exports exists from the beginning.
    """

    memory: int = 65536
    memory_dom0: int = 1024
    memory_reserved: int = 0
    cpus: int = 16
    cpus_dom0: int | None = None
    file_space: int = 1048576
    groups: tuple[VolumeGroup, ...] = (
        VolumeGroup("xenvg", (PhysicalVolume("/dev/sda2", 1048576),)),
    )
    bridges: tuple[str, ...] | None = None
    exports: bool = False

    def group(self, name: str) -> VolumeGroup | None:
        """Returns the volume group of that name, or None."""
        return next((group for group in self.groups if group.name == name), None)


class SimulatedInstance(Struct, frozen=True):
    """A running instance; ``disks`` are the paths of the devices that it holds open.

    If ``incoming``, it only waits for its memory from another node. ``state`` is the one that its
    hypervisor tells. One that booted from an image of the description (``image``) shuts itself
    down at ``ends_at``, seconds since the epoch (None: never); it ``lingers`` if the hypervisor
    knows it from then on until it is stopped.
    """

    hypervisor: str
    memory: int
    vcpus: int
    disks: tuple[str, ...] = ()
    incoming: bool = False
    state: int = 0
    image: str = ""
    ends_at: float | None = None
    lingers: bool = False


class Device(Struct, frozen=True):
    """A volume or file by its path; ``size`` in MiB.

    ``segments`` has the MiB on each physical volume; ``origin`` is the path of the volume of which
    it is a snapshot; ``lost`` is whether its content is lost; ``content`` is what was written on
    it, in lines.
    """

    kind: str
    size: int
    owner: str
    info: str
    minor: int = 0
    active: bool = True
    segments: tuple[tuple[str, int], ...] = ()
    origin: str | None = None
    lost: bool = False
    content: tuple[str, ...] = ()


class Dump(Struct, frozen=True):
    """One disk of an export: its size in MiB and its content."""

    size: int
    content: tuple[str, ...] = ()


class StoredExport(Struct, frozen=True):
    """A directory of exports; ``config`` is its config.ini, None until it is finalized."""

    config: str | None = None
    dumps: dict[str, Dump] = {}


#: Texts of this many characters or more are stored once for all nodes.
SHARED = 4096


class StoredFile(Struct, frozen=True):
    """A file as received: the two parts of its encoded content, and its mode."""

    form: int
    data: str
    mode: int = 0o640
    owner: str = "gnt-masterd"
    group: str = "gnt-daemons"
    mtime: float | None = None

    def __post_init__(self) -> None:
        if len(self.data) >= SHARED:
            force_setattr(self, "data", sys.intern(self.data))

    @property
    def content(self) -> bytes:
        """The file's bytes; raises ``ValueError`` or ``zlib.error`` if it can't be decoded."""
        if self.form == 0:
            return self.data.encode("utf-8")
        return zlib.decompress(base64.b64decode(self.data, validate=True))


class NodeState(Shelves):
    """The state of one node.

    Shelves: ``instances`` by name; ``devices`` by path; ``directories`` of file
    storage; ``exports`` by directory; ``files`` by path on the node; ``archive``,
    job files that were archived (not held in memory once they are written);
    ``facts`` (see :mod:`ganeti_masterd.simulation.system`).
    """

    def __init__(self) -> None:
        super().__init__(unheld="archive")
        self.instances: Shelf[SimulatedInstance] = self.shelf("instance", SimulatedInstance)
        self.devices: Shelf[Device] = self.shelf("device", Device)
        self.directories: Shelf[bool] = self.shelf("directory", bool)
        self.exports: Shelf[StoredExport] = self.shelf("export", StoredExport)
        self.files: Shelf[StoredFile] = self.shelf("file", StoredFile)
        self.archive: Shelf[StoredFile] = self.shelf("archive", StoredFile)
        self.facts: Shelf[Any] = self.shelf("fact", Any)


class SharedState(Shelves):
    """The state that concerns several nodes.

    Shelves: ``ends`` and ``metadata`` of mirrors; ``volumes`` and ``directories`` that every node
    sees, by path; ``migrations`` by instance; ``transfers`` by the name of the daemon; ``facts``:
    ``off``, the nodes without power; ``cut``, pairs of nodes without a link; ``generation`` and
    ``serial``, the last numbers used; ``pace``, how fast mirrors sync, if that was changed.

    ``ssconf`` is the simple configuration that a node was sent last, and its files by path: all
    nodes are sent the same, one after another. It is not stored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ssconf: tuple[Mapping[str, Any], Mapping[str, StoredFile]] = ({}, {})
        self.ends: Shelf[End] = self.shelf("end", End)
        self.metadata: Shelf[Metadata] = self.shelf("metadata", Metadata)
        self.volumes: Shelf[Device] = self.shelf("volume", Device)
        self.directories: Shelf[bool] = self.shelf("directory", bool)
        self.migrations: Shelf[Migration] = self.shelf("migration", Migration)
        self.transfers: Shelf[Transfer] = self.shelf("transfer", Transfer)
        self.facts: Shelf[Any] = self.shelf("fact", Any)
