"""Disks as noded's error messages show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DescribedDisk = Mapping[str, Any]

DRBD = "drbd"
PLAIN = "plain"


def described(disk: DescribedDisk) -> str:
    """Returns a disk as noded's error messages show it."""
    kind = disk["dev_type"]
    unique = tuple(disk["logical_id"])
    if kind == PLAIN:
        text = f"<LogicalVolume(/dev/{unique[0]}/{unique[1]}"
    elif kind == DRBD:
        first, second, port, minor_a, minor_b = unique[:5]
        text = f"<DRBD8(hosts={first}/{minor_a}-{second}/{minor_b}, port={port}, "
        children = disk.get("children") or []
        if children:
            backend, meta = (described(child) for child in children)
            text += f"backend={backend}, metadev={meta}"
        else:
            text += "no local storage"
    else:
        shown = [described(child) for child in disk.get("children") or []]
        text = f"<Disk(type={kind}, logical_id={unique}, children={shown}"
    name = disk.get("iv_name")
    text += ", not visible" if name is None else f", visible as /dev/{name}"
    if disk.get("spindles") is not None:
        text += f", spindles={disk['spindles']}"
    return f"{text}, size={disk.get('size')}m)>"
