"""Limits of values beyond their types. All checks raise ``OpPrereqError``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ganeti_masterd.config.base import Params
from ganeti_masterd.errors import prereq

UID_MIN = 0
UID_MAX = 4294967295

_MAC_PREFIX = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){2}")


def split_memory(backend: Params) -> dict[str, Any]:
    """Returns backend parameters with the old "memory" replaced by "minmem" and "maxmem"."""
    found = dict(backend)
    if "memory" in found:
        found["maxmem"] = found["minmem"] = found.pop("memory")
    return found


def check_backend(filled: Params) -> None:
    """Checks complete backend parameters: "minmem" isn't above "maxmem", and lower limits."""
    if filled["minmem"] > filled["maxmem"]:
        raise prereq(
            f"Invalid memory sizes: minmem ({filled['minmem']}) must not be larger than maxmem"
            f" ({filled['maxmem']})"
        )
    for name, least in (("minmem", 1), ("vcpus", 1), ("spindle_use", 0)):
        if filled[name] < least:
            raise prereq(
                f"Backend parameter '{name}' is {filled[name]}, it must be {least} or more"
            )


def check_node(filled: Params) -> None:
    """Checks complete node parameters."""
    for name, least, most in (("ssh_port", 1, 65535), ("spindle_count", 0, None)):
        value = filled[name]
        if value < least or (most is not None and value > most):
            raise prereq(f"Node parameter '{name}' can't be {value}")
    if filled["cpu_speed"] <= 0:
        raise prereq(f"Node parameter 'cpu_speed' is {filled['cpu_speed']}, it must be above zero")


def check_uids(ranges: Iterable[tuple[int, int]]) -> None:
    """Checks ranges of user ids, both ends included."""
    for low, high in ranges:
        if low > high:
            raise prereq(
                f"Lower user-id range boundary value ({low}) is larger than higher boundary value"
                f" ({high})"
            )
        if low < UID_MIN:
            raise prereq(
                f"Lower user-id range boundary value ({low}) is smaller than UIDPOOL_UID_MIN"
                f" ({UID_MIN})."
            )
        if high > UID_MAX:
            raise prereq(
                f"Higher user-id boundary value ({high}) is larger than UIDPOOL_UID_MAX"
                f" ({UID_MAX})."
            )


def check_netmask(bits: int, family: int) -> None:
    """Checks the length of a network's prefix; ``family`` is 2 for IPv4, 10 for IPv6."""
    if not 0 < bits <= (32 if family == 2 else 128):
        raise prereq(f"CIDR netmask ({bits}) not valid")


def normal_mac_prefix(text: str) -> str:
    """Returns the first three bytes of MAC addresses in lower case."""
    prefix = text.lower()
    if not _MAC_PREFIX.fullmatch(prefix):
        raise prereq(f"Invalid MAC address prefix '{text}'")
    return prefix
