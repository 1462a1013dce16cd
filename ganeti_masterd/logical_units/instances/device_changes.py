"""Changes to the NICs or disks of an instance, as an opcode lists them. Pure.

Changes are applied in order, each to what the one before has left. A device is named by its
index (-1 is the last one), its name or its uuid. Real daemon 3.0.2 ends in internal errors for
an index that doesn't exist; here the message names kind, index and count
(docs/differences.rst, Instances).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from ganeti_masterd.errors import ECODE_INVAL, ECODE_NOENT, ECODE_STATE, prereq

#: As an index: the last device; where one is added, behind the last.
LAST = -1

ADD = "add"
ATTACH = "attach"
DETACH = "detach"
MODIFY = "modify"
REMOVE = "remove"

#: What the result of the opcode lists, in the order in which it was done: what, and its value.
ModifiedEntries = list[tuple[str, Any]]

#: Actions after which there is a device more.
_ADDING = (ADD, ATTACH)
#: Actions after which there is a device less; they have no parameters.
_REMOVING = (DETACH, REMOVE)


class NamedDevice(Protocol):
    """A NIC or a disk, as far as it can be found."""

    @property
    def uuid(self) -> str:
        """Its uuid."""

    @property
    def name(self) -> str | None:
        """Its name, None for a device without one."""


class DeviceChange(Struct, frozen=True):
    """One change; ``identifier`` says which device it is about, or where it is added."""

    action: str
    identifier: int | str
    params: Mapping[Any, Any]


def read_changes(kind: str, given: Sequence[Sequence[Any]]) -> list[DeviceChange]:
    """Returns the changes that an opcode lists, in the new form or in the old one.

    In the old form, ``[action or index, params]``, an index stands for a modification, and
    one device may be added or removed, at the end. ``kind`` is what devices are called in
    messages. Raises ``OpPrereqError`` with ``wrong_input``.
    """
    changes = [
        DeviceChange(*each) if len(each) == 3 else _old_form(each[0], each[1]) for each in given
    ]
    others = [change for change in changes if change.action != MODIFY]
    if len(others) > 1 and any(len(each) == 2 for each in given):
        raise prereq(
            f"Only one {kind} add/attach/remove/detach operation is supported at a time",
            ECODE_INVAL,
        )
    for change in changes:
        if change.action in _REMOVING and change.params:
            raise prereq(
                f"No settings should be passed when removing or detaching a {kind}", ECODE_INVAL
            )
    return changes


def place_of(kind: str, change: DeviceChange, devices: Sequence[NamedDevice]) -> int:
    """Returns the index of the device that a change is about, or that the new one will have.

    Raises ``OpPrereqError``: ``wrong_input`` for an index that doesn't exist,
    ``unknown_entity`` for another identifier.
    """
    index = _as_index(change.identifier)
    count = len(devices)
    if change.action in _ADDING:
        if index is None:
            raise prereq(
                f"A {kind} is added at an index, or at the end by {LAST}, not at "
                f"'{change.identifier}'",
                ECODE_INVAL,
            )
        return _checked(kind, index, count, count)
    if index is not None:
        return _checked(kind, index, count, count - 1)
    for place, device in enumerate(devices):
        if change.identifier in (device.uuid, device.name):
            return place
    raise prereq(_UNKNOWN[kind].format(change.identifier), ECODE_NOENT)


def check_room_for(what: str, count: int, most: int) -> None:
    """Refuses one device more where there are ``count`` already; ``what`` names all of them."""
    if count >= most:
        raise prereq(f"Instance has too many {what} ({most}), cannot add more", ECODE_STATE)


#: What a name or uuid that no device has is answered with, by the kind of the device.
_UNKNOWN = {
    "NIC": "Cannot find NIC with identifier {}",
    "disk": "Lookup of disk '{}' failed",
}


def _old_form(action: int | str, params: Mapping[Any, Any]) -> DeviceChange:
    if action in (*_ADDING, *_REMOVING):
        return DeviceChange(str(action), LAST, params)
    return DeviceChange(MODIFY, action, params)


def _as_index(identifier: int | str) -> int | None:
    try:
        return int(identifier)
    except ValueError:
        return None


def _checked(kind: str, index: int, count: int, most: int) -> int:
    """Returns an index that is at most ``most``, which ``LAST`` stands for."""
    if index == LAST and most >= 0:
        return most
    if not 0 <= index <= most:
        raise prereq(
            f"There is no {kind} with the index {index}: the instance has {count} of them"
            if most < count
            else f"A {kind} can't be added at index {index}: the instance has {count} of them",
            ECODE_INVAL,
        )
    return index
