"""What a job makes, renames or removes on nodes, as its record keeps it while it runs. Pure.

A job notes its devices durably before the first of them is touched. If the daemon dies, those
that no disk of the configuration has are cleared away by
:class:`~ganeti_masterd.execution.aftermath.Aftermath`; the job's end forgets them all.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from enum import Enum
from typing import Any

from msgspec import Struct


class Fate(Enum):
    """What becomes of a device that no disk has, if the job was cut off."""

    #: It is removed; a mirror is taken down, the volumes below it stay.
    REMOVE = "remove"
    #: It gets the name back that it had before the job.
    RENAME = "rename"
    #: Whether it can go is the administrator's to decide: it is named.
    TELL = "tell"
    #: It is a directory, and goes if it is empty.
    DIRECTORY = "directory"
    #: It is an import or export daemon, which holds devices open: it is ended.
    DAEMON = "daemon"
    #: It is a helper VM that runs in the instance's place: it is stopped.
    GUEST = "guest"
    #: It is the instance itself, whose disks were being filled from an export. It goes unless
    #: its disks may be complete: then it is marked offline, and named.
    IMPORT = "import"
    #: It is the instance itself, whose disks came from another cluster, which may not have them
    #: any more. It goes only if nothing can have come; otherwise it is marked offline, and named.
    RECEIPT = "receipt"
    #: It is the instance itself, which was being made: it stays, and is named.
    CREATION = "creation"


#: What stands for an instance that was in the making.
INSTANCES = frozenset({Fate.IMPORT, Fate.RECEIPT, Fate.CREATION})

#: What is no device that a disk of the configuration could have.
NO_DEVICES = INSTANCES | {Fate.DAEMON, Fate.GUEST}


class NotedDevice(Struct, frozen=True, gc=False, omit_defaults=True):
    """One device, directory, daemon or helper VM, on one node; or an instance in the making.

    ``owner`` is the name of the instance that it is for. ``disk`` is what the node is sent of
    it, without children and without a mirror's secret, for a helper VM the disk that it boots
    from; ``path`` is that of a directory, or a daemon's name, or an instance's uuid. ``old`` is
    the logical id that a renamed one had before. ``fills`` are the indices of the disks that are
    filled from elsewhere: all of an instance's, or the one that an import daemon writes to.
    """

    node: str
    node_name: str
    owner: str
    fate: Fate
    disk: dict[str, Any] = {}
    path: str = ""
    old: tuple[Any, ...] | None = None
    fills: tuple[int, ...] = ()

    @property
    def logical_id(self) -> tuple[Any, ...]:
        """The logical id of the device, as the job would have it."""
        return tuple(self.disk.get("logical_id") or ())

    @property
    def minor(self) -> int | None:
        """The minor of a mirror on its node; None if the device is no mirror."""
        if self.disk.get("dev_type") != "drbd":
            return None
        minor = (self.disk.get("dynamic_params") or {}).get("local-minor")
        return minor if isinstance(minor, int) else None

    def __str__(self) -> str:
        """Says what it is and where, as after "removed"."""
        return f"{self._what()} on node {self.node_name}"

    def _what(self) -> str:
        if self.fate is Fate.DIRECTORY:
            return f"directory {self.path}"
        if self.fate is Fate.DAEMON:
            return f"transfer {self.path}"
        if self.fate is Fate.GUEST:
            return f"helper VM of instance {self.owner}"
        if self.fate in (Fate.IMPORT, Fate.RECEIPT):
            return f"instance {self.owner}, unless its disks are complete,"
        if self.fate is Fate.CREATION:
            return f"instance {self.owner}, unless it is complete,"
        if self.minor is not None:
            return f"DRBD minor {self.minor}"
        kind = self.disk.get("dev_type")
        if kind == "plain":
            return f"volume {_joined(self.logical_id)}"
        return f"{kind} disk {self.logical_id[-1] if self.logical_id else '?'}"

    @property
    def command(self) -> str | None:
        """The command that does by hand what is to be done; None where none is known."""
        if self.fate is Fate.GUEST:
            return shlex.join(["gnt-instance", "shutdown", self.owner])
        if self.fate in INSTANCES:
            return shlex.join(["gnt-instance", "remove", self.owner])
        words = self._words()
        if words is None:
            return None
        return shlex.join(["gnt-cluster", "command", "-n", self.node_name, *words])

    def _words(self) -> list[str] | None:
        kind = self.disk.get("dev_type")
        if self.fate is Fate.DIRECTORY:
            return ["rmdir", self.path]
        if self.fate is Fate.DAEMON:
            return ["pkill", "-f", self.path]
        if self.fate is Fate.RENAME and self.old is not None:
            if kind == "plain":
                return ["lvrename", _joined(self.logical_id), _joined(self.old)]
            return ["mv", "-n", str(self.logical_id[-1]), str(self.old[-1])]
        if self.minor is not None:
            return ["drbdsetup", "down", f"resource{self.minor}"]
        if kind == "plain":
            return ["lvremove", "-f", _joined(self.logical_id)]
        if kind in ("file", "sharedfile"):
            return ["rm", "-f", str(self.logical_id[-1])]
        if kind == "rbd":
            pool = str((self.disk.get("params") or {}).get("pool", "rbd"))
            return ["rbd", "rm", "-p", pool, str(self.logical_id[-1])]
        return None


def _joined(logical_id: Iterable[Any]) -> str:
    return "/".join(map(str, logical_id))


def by_hand(devices: Iterable[NotedDevice]) -> str:
    """Says which devices may be left, where, and the commands that clear them away."""
    told = []
    for device in devices:
        command = device.command
        told.append(f"{device} ({command})" if command else f"{device} (with its storage's tools)")
    return "; ".join(told)


def commands(devices: Iterable[NotedDevice]) -> str | None:
    """Returns the commands that clear devices away, in order; None if none is known."""
    known = [device.command for device in devices if device.command is not None]
    return "; ".join(known) or None
