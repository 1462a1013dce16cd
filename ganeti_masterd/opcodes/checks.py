"""Predicates for parameter values that msgspec's types can't describe. Pure."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any, Literal

from msgspec import Meta, ValidationError, convert

NonEmptyStr = Annotated[str, Meta(min_length=1)]

#: No name and no tag is longer, in characters. Units refuse those that are too long for Ganeti, in
#: its own words; this is what a request may cost.
LONGEST_NAME = 1024

#: The name of an instance, a node, a group, a network or a cluster.
ObjectName = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
NonNegativeInt = Annotated[int, Meta(ge=0)]

#: Parameters of a NIC, by name; None stands for the cluster's default.
NicParams = dict[
    Literal["bridge", "ip", "link", "mac", "mode", "name", "network", "vlan"], str | None
]
#: Parameters of a disk: Ganeti's own, and those of an external storage provider.
DiskParams = dict[NonEmptyStr, NonEmptyStr | int]

_AnyAction = Literal["add", "attach", "detach", "modify", "remove"]
#: Actions of the two-part form; an index in their place means "modify".
_OldAction = Literal["add", "attach", "detach", "remove"] | NonNegativeInt

_NIC_CHANGES = {
    3: tuple[_AnyAction, int | str, NicParams],
    2: tuple[_OldAction, NicParams],
}
_DISK_CHANGES = {
    3: tuple[_AnyAction, int | str, DiskParams],
    2: tuple[_OldAction, DiskParams],
}


def is_ipv4_address(value: str) -> bool:
    """Whether the text is an IPv4 address in the dotted form."""
    return _parses(ipaddress.IPv4Address, value)


def is_ipv4_network(value: str) -> bool:
    """Whether the text is an IPv4 network with its prefix and no host bits."""
    return "/" in value and _parses(ipaddress.IPv4Network, value)


def is_ipv6_address(value: str) -> bool:
    """Whether the text is an IPv6 address, without a zone."""
    return "%" not in value and _parses(ipaddress.IPv6Address, value)


def is_ipv6_network(value: str) -> bool:
    """Whether the text is an IPv6 network with its prefix and no host bits."""
    return "/" in value and "%" not in value and _parses(ipaddress.IPv6Network, value)


def is_list_of_nic_changes(value: tuple[tuple[Any, ...], ...]) -> bool:
    """Whether these are changes to NICs, all in the three-part or all in the two-part form."""
    return _all_of_one_form(value, _NIC_CHANGES)


def is_list_of_disk_changes(value: tuple[tuple[Any, ...], ...]) -> bool:
    """Whether these are changes to disks, all in the three-part or all in the two-part form."""
    return _all_of_one_form(value, _DISK_CHANGES)


def is_list_of_recreated_disks(value: tuple[Any, ...]) -> bool:
    """Whether these are all disk indices, or all disk indices with new parameters."""
    return _is(value, tuple[NonNegativeInt, ...]) or _is(
        value, tuple[tuple[NonNegativeInt, DiskParams], ...]
    )


def _all_of_one_form(value: tuple[tuple[Any, ...], ...], forms: dict[int, Any]) -> bool:
    if not value:
        return True
    form = forms.get(len(value[0]))
    return form is not None and all(_is(change, form) for change in value)


def _is(value: Any, kind: Any) -> bool:
    try:
        convert(value, kind)
    except ValidationError:
        return False
    return True


def _parses(kind: Any, value: str) -> bool:
    try:
        kind(value)
    except ValueError:
        return False
    return True
