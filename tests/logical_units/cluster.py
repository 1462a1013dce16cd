"""Instances with disks and NICs, for tests of logical units that look at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganeti_masterd.config.objects import Disk, Instance, Nic
from ganeti_masterd.config.snapshot import Snapshot


def with_instance(
    snapshot: Snapshot,
    name: str,
    nodes: Sequence[str],
    *,
    template: str = "diskless",
    size: int = 1024,
    nics: Sequence[Nic] = (),
    **about: Any,
) -> Snapshot:
    """Returns the configuration with one more instance, on nodes of these names.

    With DRBD on two; the uuids of the instance and its disk are made of its name.
    """
    uuids = tuple(snapshot.node(node).uuid for node in nodes)
    disks: tuple[str, ...] = ()
    if template != "diskless":
        number = len(snapshot.disks)
        logical_id = (
            (*uuids, 11000 + number, number, number, "secret")
            if template == "drbd"
            else ("loop", f"/{name}")
        )
        disk = Disk(
            dev_type=template,
            size=size,
            logical_id=logical_id,
            nodes=uuids,
            iv_name="disk/0",
            uuid=f"d-{name}",
        )
        snapshot = snapshot.with_object("disks", disk)
        disks = (disk.uuid,)
    about.setdefault("hypervisor", "fake")
    instance = Instance(
        name=name,
        uuid=f"i-{name}",
        primary_node=uuids[0],
        nics=tuple(nics),
        disks=disks,
        disk_template=template,
        **about,
    )
    return snapshot.with_object("instances", instance)
