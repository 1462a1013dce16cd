"""An instance with its disks, addresses and ports comes into the configuration as one thing. Pure.

:func:`changes_between` gives the changes of one transaction, so that no half-made object is
ever published; called the other way round it takes them back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.changes import Add, Change, Remove, Update
from ganeti_masterd.config.objects import Cluster, Disk, Instance
from ganeti_masterd.config.reservations import with_ports, without_ports
from ganeti_masterd.logical_units.instances.nics import address_changes

#: What an object keeps when another takes its place under the same uuid.
_KEPT = ("uuid", "serial_no", "ctime", "mtime")


class WholeInstance(Struct, frozen=True):
    """An instance together with its disks, in order."""

    instance: Instance
    disks: tuple[Disk, ...]

    def ports(self) -> set[int]:
        """Returns the TCP ports that it has."""
        found = {port for disk in self.disks for port in disk.ports()}
        if self.instance.network_port:
            found.add(self.instance.network_port)
        return found


def changes_between(
    before: WholeInstance | None, after: WholeInstance | None, cluster: Cluster
) -> list[Change]:
    """Returns what makes ``after`` of ``before``; None is an instance that isn't there.

    Both have the same uuid. Addresses go back to their networks and ports to the pool, or
    come from there.
    """
    old_disks = {disk.uuid: disk for disk in before.disks} if before else {}
    new_disks = {disk.uuid: disk for disk in after.disks} if after else {}
    changes: list[Change] = []
    # An instance never names a disk that isn't there: it goes first and comes last.
    if before and not after:
        changes.append(Remove("instances", before.instance.uuid))
    changes += [Add("disks", disk) for uuid, disk in new_disks.items() if uuid not in old_disks]
    changes += [
        Update(uuid, _becomes(disk, _KEPT)) for uuid, disk in new_disks.items() if uuid in old_disks
    ]
    if after:
        changes.append(
            Update(after.instance.uuid, _becomes(after.instance, _KEPT))
            if before
            else Add("instances", after.instance)
        )
    changes += [Remove("disks", uuid) for uuid in old_disks if uuid not in new_disks]
    changes += address_changes(
        after.instance.nics if after else (), before.instance.nics if before else ()
    )
    came, went = after.ports() if after else set(), before.ports() if before else set()
    if came != went:
        changes.append(Update(cluster.uuid, _ports(sorted(came - went), sorted(went - came))))
    return changes


def _becomes(wanted: Any, kept: Sequence[str]) -> Callable[[Any], Any]:
    """Returns what makes an object like ``wanted``, but for what it keeps."""

    def changed(now: Any) -> Any:
        new = replace(wanted, **{name: getattr(now, name) for name in kept})
        return now if new == now else new

    return changed


def _ports(came: Sequence[int], went: Sequence[int]) -> Callable[[Cluster], Cluster]:
    def moved(cluster: Cluster) -> Cluster:
        if went:
            cluster = without_ports(cluster, went)
        return with_ports(cluster, came) if came else cluster

    return moved
