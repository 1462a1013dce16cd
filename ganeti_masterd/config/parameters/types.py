"""The type of every parameter, and converting values to their types.

The tables are facts of Ganeti 3.0.2. Clients send most values as strings
(``gnt-cluster modify -B auto_balance=no``), which :func:`enforce` converts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from ganeti_masterd.config import defaults
from ganeti_masterd.errors import TypeEnforcementError

#: The types of parameters, by name: "bool", "float", "int", "string",
#: "maybe-string" (a string or None) or "size" (MiB, or a string with a unit).
Types = Mapping[str, str]

BACKEND: Final[Types] = {
    "always_failover": "bool",
    "auto_balance": "bool",
    "maxmem": "size",
    "minmem": "size",
    "spindle_use": "int",
    "vcpus": "int",
}

NODE: Final[Types] = {
    "cpu_speed": "float",
    "exclusive_storage": "bool",
    "oob_program": "string",
    "ovs": "bool",
    "ovs_link": "maybe-string",
    "ovs_name": "maybe-string",
    "spindle_count": "int",
    "ssh_port": "int",
}

NIC: Final[Types] = {"link": "string", "mode": "string", "vlan": "string"}

#: Parameters of disk templates; :mod:`.devices` knows which template has which.
DISK_TEMPLATE: Final[Types] = {
    "access": "string",
    "c-delay-target": "int",
    "c-fill-target": "int",
    "c-max-rate": "int",
    "c-min-rate": "int",
    "c-plan-ahead": "int",
    "data-stripes": "int",
    "disk-barriers": "string",
    "disk-custom": "string",
    "dynamic-resync": "bool",
    "host": "string",
    "meta-barriers": "bool",
    "meta-stripes": "int",
    "metavg": "string",
    "net-custom": "string",
    "pool": "string",
    "port": "int",
    "protocol": "string",
    "resync-rate": "int",
    "stripes": "int",
    "volume": "string",
}

#: The sizes of an instance in a policy.
INSTANCE_SPEC: Final[Types] = dict.fromkeys(
    ("cpu-count", "disk-count", "disk-size", "memory-size", "nic-count", "spindle-use"), "int"
)

#: What an administrator can state about a node's hypervisor and about its storage.
HYPERVISOR_STATE: Final[Types] = dict.fromkeys(
    ("cpu_node", "cpu_total", "mem_hv", "mem_node", "mem_total"), "int"
)
DISK_STATE: Final[Types] = dict.fromkeys(("disk_overhead", "disk_reserved", "disk_total"), "int")


def _hypervisor_types() -> Types:
    """Derives the types from the default values, which have their parameters' types."""
    kinds = {bool: "bool", int: "int", str: "string"}
    found = {
        name: kinds[type(value)]
        for params in defaults.HVPARAMS.values()
        for name, value in params.items()
    }
    # The default of root_path doesn't show that it may also be None (the kernel's own).
    return {**found, "root_path": "maybe-string"}


#: Parameters of all hypervisors.
HYPERVISOR: Final[Types] = _hypervisor_types()

_SIZE = re.compile(r"([.\d]+)\s*([a-zA-Z]+)?")
_UNITS = {"": 1, "m": 1, "g": 1024, "t": 1024 * 1024}


def enforce(
    values: Mapping[Any, Any], types: Types, special: Collection[Any] = ()
) -> dict[str, Any]:
    """Returns ``values`` converted to their types, except for values in ``special``.

    Raises ``TypeEnforcementError`` for an unknown name, and for a value
    that can't be converted.
    """
    if not isinstance(values, Mapping):
        raise TypeEnforcementError(f"Expected dictionary, got '{values}'")
    found: dict[str, Any] = {}
    for name, value in values.items():
        kind = types.get(name)
        if kind is None:
            raise TypeEnforcementError(f"Unknown parameter '{name}'")
        if any(value is item or (value == item and type(value) is type(item)) for item in special):
            found[name] = value
            continue
        try:
            found[name] = _READERS[kind](value)
        except (ValueError, TypeError) as error:
            detail = f". error: {error}" if kind == "size" else ""
            raise TypeEnforcementError(
                f"'{name}' (value {value}) is not a valid {_NOUNS.get(kind, kind)}{detail}"
            )
    return found


def parse_size(value: Any) -> int:
    """Returns a size in MiB, rounded up to a multiple of 4 as Ganeti does.

    ``value`` is a number of MiB or a string with a unit (m, g or t, also as "GB" or
    "GiB"). Raises ``ValueError`` for anything else.
    """
    match = None if isinstance(value, bool) else _SIZE.fullmatch(str(value))
    if match is None:
        raise ValueError("Invalid format")
    unit = (match[2] or "").lower()
    factor = _UNITS.get(re.sub(r"(?<=[mgt])i?b$", "", unit))
    if factor is None:
        raise ValueError(f"Unknown unit: {match[2]}")
    return 4 * math.ceil(float(match[1]) * factor / 4)


def _bool(value: Any) -> bool:
    if isinstance(value, str) and value:
        try:
            return {"true": True, "false": False}[value.lower()]
        except KeyError:
            raise ValueError
    return bool(value)


def _int(value: Any) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ValueError
    return int(value)


def _float(value: Any) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError
    return found


def _string(value: Any) -> str:
    if value is False:
        return ""
    if not isinstance(value, str):
        raise TypeError
    return value


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "bool": _bool,
    "float": _float,
    "int": _int,
    "maybe-string": lambda value: None if value is None else _string(value),
    "size": parse_size,
    "string": _string,
}
_NOUNS = {"bool": "boolean", "int": "integer", "maybe-string": "string"}
