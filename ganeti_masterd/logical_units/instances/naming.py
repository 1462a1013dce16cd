"""Names: those that instances' NICs and disks may have, and host names of instances. Pure.

Host names are looked up in ``resolving``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ganeti_masterd.errors import ECODE_INVAL, ECODE_NOTUNIQUE, prereq

#: As a value: no name, no address, no network.
NONE = "none"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def device_name(kind: str, given: str | None) -> str | None:
    """Returns the name of a NIC or disk, None for the value ``none``.

    ``kind`` is what the device is called in messages. Raises ``OpPrereqError`` for a name
    that would be taken for an index or a uuid, by which devices are found too.
    """
    if given is None or given.lower() == NONE:
        return None
    if given.isdecimal():
        raise prereq(
            f"Invalid name '{given}'. Purely numeric {kind} names are not allowed", ECODE_INVAL
        )
    if _UUID.fullmatch(given):
        raise prereq(
            f"Invalid name '{given}'. A {kind} name must not look like a uuid", ECODE_INVAL
        )
    return given


def check_device_names(kind: str, names: Iterable[str | None]) -> None:
    """Raises ``OpPrereqError`` with ``resource_not_unique`` for a name that two devices have."""
    seen = set()
    for name in names:
        if name is None:
            continue
        if name in seen:
            raise prereq(f"{kind} name '{name}' already used", ECODE_NOTUNIQUE)
        seen.add(name)
