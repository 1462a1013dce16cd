"""What a simulated node holds: instances, devices, files, and facts about itself.

All of it lives in memory, on shelves that note what changed, so that
:mod:`ganeti_masterd.simulation.store` writes only that. Values are frozen: a
change replaces the value on its shelf.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

V = TypeVar("V")

#: As the name of a value that is gone: all values of its kind are.
EVERYTHING = "*"


class Hardware(Struct, frozen=True):
    """The machine of a simulated node; memory and room in MiB.

    ``sync_rate`` is how fast a new DRBD mirror is filled, in MiB a second; null
    means at once.
    """

    memory: int = 65536
    memory_dom0: int = 1024
    cpus: int = 16
    disk: int = 1048576
    file_space: int = 1048576
    volume_group: str = "xenvg"
    sync_rate: float | None = None


class Instance(Struct, frozen=True):
    """An instance that runs here; ``disks`` are the paths of the devices that it holds open."""

    hypervisor: str
    memory: int
    vcpus: int
    disks: tuple[str, ...] = ()


class Device(Struct, frozen=True):
    """A block device by its path; ``size`` in MiB, times in seconds since the epoch.

    ``stands_on`` are the paths of the volumes that a mirror uses.
    """

    kind: str
    size: int
    owner: str
    info: str
    minor: int
    active: bool = True
    synced_at: float = 0.0
    networked: bool = True
    stands_on: tuple[str, ...] = ()


class StoredFile(Struct, frozen=True):
    """A file as it came: the two parts of its content on the wire, and its mode."""

    form: int
    data: str
    mode: int = 0o640
    owner: str = "gnt-masterd"
    group: str = "gnt-daemons"
    mtime: float | None = None

    @property
    def content(self) -> bytes:
        """The file's bytes; raises ``ValueError`` or ``zlib.error`` if they make no sense."""
        if self.form == 0:
            return self.data.encode("utf-8")
        return zlib.decompress(base64.b64decode(self.data, validate=True))


class Shelf(Generic[V]):
    """Values of one kind by name; ``changes`` gets (kind, name) of each that changes."""

    __slots__ = ("_changes", "_values", "kind", "shape")

    def __init__(self, kind: str, shape: Any, changes: dict[tuple[str, str], None]) -> None:
        self.kind = kind
        self.shape = shape
        self._values: dict[str, V] = {}
        self._changes = changes

    def get(self, name: str) -> V | None:
        """Returns the value, or null."""
        return self._values.get(name)

    def items(self) -> list[tuple[str, V]]:
        """Returns all names and values as they are now."""
        return list(self._values.items())

    def pop(self, name: str) -> V | None:
        """Takes the value off the shelf; null if it isn't there."""
        value = self._values.pop(name, None)
        if value is not None:
            self._changes[self.kind, name] = None
        return value

    def forget(self, name: str) -> None:
        """Lets the value go from memory only: what was written stays written."""
        self._values.pop(name, None)

    def clear(self) -> None:
        """Takes all values off the shelf, those that were forgotten too."""
        self._values.clear()
        self._changes[self.kind, EVERYTHING] = None

    def restore(self, name: str, value: V) -> None:
        """Puts back what was read from disk: no change."""
        self._values[name] = value

    def __getitem__(self, name: str) -> V:
        return self._values[name]

    def __setitem__(self, name: str, value: V) -> None:
        self._values[name] = value
        self._changes[self.kind, name] = None

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._values))

    def __len__(self) -> int:
        return len(self._values)


class NodeState:
    """All that one node holds.

    Shelves: ``instances`` by name; ``devices`` by path; ``directories`` of file
    storage; ``files`` by path on the node; ``archive``, job files that were
    archived (not held in memory once they are written); ``facts`` (see
    :mod:`ganeti_masterd.simulation.system`).
    """

    def __init__(self) -> None:
        self.changes: dict[tuple[str, str], None] = {}
        self.instances: Shelf[Instance] = Shelf("instance", Instance, self.changes)
        self.devices: Shelf[Device] = Shelf("device", Device, self.changes)
        self.directories: Shelf[bool] = Shelf("directory", bool, self.changes)
        self.files: Shelf[StoredFile] = Shelf("file", StoredFile, self.changes)
        self.archive: Shelf[StoredFile] = Shelf("archive", StoredFile, self.changes)
        self.facts: Shelf[Any] = Shelf("fact", Any, self.changes)
        self._shelves: dict[str, Shelf[Any]] = {
            shelf.kind: shelf
            for shelf in (
                self.instances,
                self.devices,
                self.directories,
                self.files,
                self.archive,
                self.facts,
            )
        }

    def take_changes(self) -> list[tuple[str, str, bytes | None]]:
        """Returns kind, name and JSON (null: gone) of all that changed since the last time."""
        rows: list[tuple[str, str, bytes | None]] = []
        for kind, name in self.changes:
            value = self._shelves[kind].get(name)
            rows.append((kind, name, None if value is None else msgspec.json.encode(value)))
            if kind == "archive":
                self.archive.forget(name)
        self.changes.clear()
        return rows

    def restore(self, kind: str, name: str, value: bytes) -> None:
        """Puts back a value that :meth:`take_changes` gave out, after a restart."""
        shelf = self._shelves[kind]
        shelf.restore(name, msgspec.json.decode(value, type=shelf.shape))

    def wipe(self) -> None:
        """Makes the node as empty as a new machine."""
        for shelf in self._shelves.values():
            shelf.clear()
