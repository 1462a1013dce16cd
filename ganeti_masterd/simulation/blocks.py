"""The block devices of simulated nodes: one class for each kind of disk.

:func:`ganeti_masterd.simulation.devices.find` returns one for an existing disk. A device knows its
node and its disk as received in the call; its content is on the shelves. Operations that it refuses
raise :class:`DeviceError` with noded's message.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any, ClassVar

from msgspec.structs import replace

from ganeti_masterd.constants import LDS_FAULTY, LDS_OKAY
from ganeti_masterd.simulation import volumes
from ganeti_masterd.simulation.describing import DescribedDisk, described
from ganeti_masterd.simulation.node import (
    SimulatedNode,
    StorageProvider,
    Unexpected,
    failing,
)
from ganeti_masterd.simulation.shelves import Shelf
from ganeti_masterd.simulation.state import Device

LVM_MAJOR = 253
DRBD_MAJOR = 147
EXTERNAL_MAJOR = 251


class DeviceError(Exception):
    """A device is missing or refuses an operation."""


class Block:
    """An existing device of any kind; operations that a kind doesn't need do nothing."""

    #: Whether a secondary node has something to assemble.
    on_secondaries: ClassVar[bool] = False

    def __init__(self, node: SimulatedNode, disk: DescribedDisk, path: str) -> None:
        self.node = node
        self.disk = disk
        self.path = path

    @property
    def size(self) -> int:
        """The device's real size in MiB."""
        return self.device.size

    @property
    def device(self) -> Device:
        """The stored value."""
        return self.shelf[self.path]

    @property
    def shelf(self) -> Shelf[Device]:
        """The shelf on which it is stored."""
        return self.node.state.devices

    def change(self, **changes: Any) -> None:
        """Replaces attributes of the stored value."""
        self.shelf[self.path] = replace(self.device, **changes)

    def shown(self) -> str:
        """Returns the device as noded's error messages show it."""
        unique = self.disk["logical_id"]
        return f"<{type(self).__name__}: unique_id: {unique}, children: [], {self.path}>"

    def status(self) -> dict[str, Any]:
        """Returns its own state, without its children's, as ``blockdev_find`` shows it."""
        return {"dev_path": self.path, "is_degraded": False, "ldisk_status": LDS_OKAY}

    def combined_status(self) -> dict[str, Any]:
        """Returns the worst of its own state and its children's."""
        return self.status()

    def spindles(self) -> int | None:
        """Returns the number of physical volumes that it uses, None if unknown."""
        return None

    def assemble(self) -> None:
        """Makes it ready."""

    def open(self, *, force: bool = False, exclusive: bool = True) -> None:
        """Makes it ready for writing."""

    def close(self) -> None:
        """Ends writing."""

    def shutdown(self) -> None:
        """Undoes :meth:`assemble`."""

    def remove(self) -> None:
        """Removes it."""
        self.shelf.pop(self.path)

    def grow(self, amount: int, *, dry_run: bool, backing: bool, exclusive: bool = False) -> None:
        """Makes the backing store larger, or the device on top of it."""

    def rename(self, unique: Sequence[Any]) -> None:
        """Gives it another logical id."""
        raise Unexpected(f"{described(self.disk)} can't be renamed")

    def snapshot(self, name: str | None, size: int | None) -> list[str]:
        """Makes a snapshot; returns its logical id."""
        raise NotImplementedError

    def set_info(self, info: str) -> None:
        """Changes the text stored with it."""
        self.change(info=info)

    def pause(self, paused: bool) -> bool:
        """Pauses or resumes its sync; returns whether that was possible."""
        return True

    def read(self) -> tuple[str, ...]:
        """Returns its content."""
        return self.device.content

    def write(self, content: tuple[str, ...]) -> None:
        """Replaces its content."""
        self.change(content=content)


class SimulatedVolume(Block):
    """A logical volume."""

    on_secondaries = True

    def shown(self) -> str:
        """See :meth:`Block.shown`."""
        unique = self.disk["logical_id"]
        numbers = f"{LVM_MAJOR}:{self.device.minor}"
        return f"<LogicalVolume: unique_id: {unique}, children: [], {numbers}, {self.path}>"

    def status(self) -> dict[str, Any]:
        """See :meth:`Block.status`; degraded if its content is lost."""
        device = self.device
        return {
            "dev_path": self.path,
            "major": LVM_MAJOR,
            "minor": device.minor,
            "is_degraded": device.lost,
            "ldisk_status": LDS_FAULTY if device.lost else LDS_OKAY,
        }

    def spindles(self) -> int | None:
        """See :meth:`Block.spindles`."""
        return len({name for name, _ in self.device.segments})

    def assemble(self) -> None:
        """Activates it."""
        if not self.device.active:
            self.change(active=True)

    def remove(self) -> None:
        """Removes it with its snapshots; refuses if it is in use."""
        if self.path in held_open(self.node):
            text = f"  Logical volume {self.path.removeprefix('/dev/')} in use.\n"
            raise DeviceError(f"Can't lvremove: exited with exit code 5 - {text}")
        volumes.remove(self.node, self.path)

    def grow(self, amount: int, *, dry_run: bool, backing: bool, exclusive: bool = False) -> None:
        """Makes it larger, using more of its volume group."""
        if not backing:
            return
        room = volumes.room_to_grow(self.node, self.path)
        if exclusive and amount > room:
            raise DeviceError(
                f"Not enough free space to grow {self.path}: {amount} MiB required,"
                f" {room} available"
            )
        try:
            volumes.extend(self.node, self.path, amount, dry_run=dry_run, exclusive=exclusive)
        except volumes.LvmError as error:
            raise DeviceError(f"Can't grow LV {self.path}: {error}")

    def rename(self, unique: Sequence[Any]) -> None:
        """Renames it within its group."""
        group = self.disk["logical_id"][0]
        if unique[0] != group:
            raise Unexpected(
                f"Can't move a logical volume across volume groups (from {group} to to {unique[0]})"
            )
        try:
            volumes.rename(self.node, self.path, f"/dev/{unique[0]}/{unique[1]}")
        except volumes.LvmError as error:
            raise DeviceError(f"Failed to rename the logical volume: {error}")

    def snapshot(self, name: str | None, size: int | None) -> list[str]:
        """Makes a volume with the same content, replacing one of the same name."""
        group, volume = self.disk["logical_id"]
        made = name or f"{volume}.snap"
        path = f"/dev/{group}/{made}"
        wanted = size or int(self.disk["size"])
        if path in self.shelf and path not in held_open(self.node):
            volumes.remove(self.node, path)
        free = volumes.free(self.node, group)
        if free < wanted:
            raise Unexpected(f"Not enough free space: required {wanted}, available {float(free)}")
        try:
            volumes.make(self.node, group, made, wanted, origin=self.path)
        except volumes.LvmError as error:
            raise Unexpected(f"command: lvcreate error: exited with exit code 5 - {error}")
        return [group, made]


class FileDevice(Block):
    """A disk stored in a file, on one node or on storage that all nodes share."""

    @property
    def shelf(self) -> Shelf[Device]:
        """See :attr:`Block.shelf`."""
        return file_shelf(self.node, self.disk["dev_type"])

    def grow(self, amount: int, *, dry_run: bool, backing: bool, exclusive: bool = False) -> None:
        """Makes the file larger."""
        if not backing or dry_run:
            return
        if amount < 0:
            raise DeviceError(f"{self.path}: can't grow by negative amount")
        left = file_room(self.node)
        if amount > left:
            raise DeviceError(f"Not enough free space: required {amount}, available {left}")
        self.change(size=self.size + amount)

    def rename(self, unique: Sequence[Any]) -> None:
        """Moves the file."""
        target = str(unique[1])
        if target in self.shelf:
            raise DeviceError(f"{target}: File exists")
        device = self.shelf.pop(self.path)
        assert device is not None
        self.shelf[target] = device


class ExternalVolume(Block):
    """A volume of an external storage provider, which all nodes share."""

    @property
    def shelf(self) -> Shelf[Device]:
        """See :attr:`Block.shelf`."""
        return self.node.world.cluster.volumes

    def status(self) -> dict[str, Any]:
        """See :meth:`Block.status`."""
        return {
            **super().status(),
            "major": EXTERNAL_MAJOR,
            "minor": self.device.minor,
        }

    def open(self, *, force: bool = False, exclusive: bool = True) -> None:
        """Tells the provider."""
        run_provider(self.node, self.disk, "open")

    def close(self) -> None:
        """Tells the provider."""
        run_provider(self.node, self.disk, "close")

    def shutdown(self) -> None:
        """Detaches it."""
        run_provider(self.node, self.disk, "detach")

    def remove(self) -> None:
        """Has the provider remove it."""
        run_provider(self.node, self.disk, "remove")
        super().remove()

    def grow(self, amount: int, *, dry_run: bool, backing: bool, exclusive: bool = False) -> None:
        """Has the provider make it larger."""
        if backing and not dry_run:
            run_provider(self.node, self.disk, "grow")
            self.change(size=int(self.disk["size"]) + amount)

    def snapshot(self, name: str | None, size: int | None) -> list[str]:
        """Has the provider copy it."""
        run_provider(self.node, self.disk, "snapshot")
        driver, volume = self.disk["logical_id"]
        made = name or f"{volume}.snap"
        path = provider(self.node, driver).device.replace("{name}", made)
        self.shelf[path] = replace(self.device, origin=None, minor=free_minor(self.shelf, "ext"))
        return [driver, made]

    def set_info(self, info: str) -> None:
        """Tells the provider."""
        run_provider(self.node, self.disk, "setinfo")
        super().set_info(info)


class RadosVolume(ExternalVolume):
    """A RADOS volume; supports only the operations that Ganeti uses."""

    def open(self, *, force: bool = False, exclusive: bool = True) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""

    def shutdown(self) -> None:
        """Unmaps it."""

    def remove(self) -> None:
        """Removes it."""
        self.shelf.pop(self.path)

    def grow(self, amount: int, *, dry_run: bool, backing: bool, exclusive: bool = False) -> None:
        """Makes it larger."""
        if backing and not dry_run:
            self.change(size=self.size + amount)

    def snapshot(self, name: str | None, size: int | None) -> list[str]:
        """See :meth:`Block.snapshot`."""
        raise NotImplementedError

    def set_info(self, info: str) -> None:
        """Does nothing, as no text is stored with it."""


class AdoptedDevice(Block):
    """A device of the node that Ganeti has adopted."""

    @property
    def device(self) -> Device:
        """A device of the size that Ganeti was given."""
        return Device("blockdev", int(self.disk["size"]), "", "")

    def remove(self) -> None:
        """Does nothing: an adopted device stays."""

    def change(self, **changes: Any) -> None:
        """Does nothing: its content is not stored."""

    def grow(self, amount: int, *, dry_run: bool, backing: bool, exclusive: bool = False) -> None:
        """Refuses."""
        if backing:
            raise DeviceError("Grow is not supported for PersistentBlockDev storage")


def held_open(node: SimulatedNode) -> set[str]:
    """Returns the paths of the devices that running instances and mirrors hold open."""
    held = {path for _, instance in node.state.instances.items() for path in instance.disks}
    return held | node.world.mirrors.users(node.name)


def file_shelf(node: SimulatedNode, kind: str) -> Shelf[Device]:
    """Returns the shelf on which files of a kind are stored."""
    return node.state.devices if kind == "file" else node.world.cluster.volumes


def file_room(node: SimulatedNode) -> int:
    """Returns the space left for files of this node, in MiB."""
    used = sum(dev.size for _, dev in node.state.devices.items() if dev.kind == "file")
    return node.hardware.file_space - used


def free_minor(shelf: Shelf[Device], kind: str) -> int:
    """Returns the lowest minor that no device of a kind has."""
    used = {device.minor for _, device in shelf.items() if device.kind == kind}
    return next(minor for minor in range(len(used) + 1) if minor not in used)


def provider(node: SimulatedNode, name: str) -> StorageProvider:
    """Returns an external storage provider; raises :class:`DeviceError` if there is none."""
    for each in node.world.providers:
        if each.name == name:
            return each
    raise DeviceError(f"Directory for External Storage Provider {name} not found in search path")


def run_provider(node: SimulatedNode, disk: DescribedDisk, action: str) -> None:
    """Runs a provider's script on a volume; raises :class:`DeviceError` if it fails."""
    found = provider(node, disk["logical_id"][0])
    failed = failing(found.fails, action, disk.get("params") or {})
    if failed is not None:
        code, output = failed
        raise DeviceError(
            f"External storage's {action} script failed (exited with exit code {code}),"
            f" last lines of output:\n{output}"
        )


def os_error(number: int, path: str) -> OSError:
    """Returns an ``OSError`` about a path, with the system's message."""
    return OSError(number, os.strerror(number), path)


def missing(path: str) -> DeviceError:
    """Returns the error for a missing file."""
    return DeviceError(f"{path}: No such file")


def not_creatable(number: int, path: str) -> DeviceError:
    """Returns the error for a file that can't be created."""
    return DeviceError(f"{path}: can't create: {os_error(number, path)}")


NO_ROOM = errno.ENOSPC
EXISTS = errno.EEXIST
NOT_THERE = errno.ENOENT
