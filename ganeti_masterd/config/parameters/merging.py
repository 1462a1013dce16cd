"""Applying changes to parameters. Pure: arguments are not modified."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.defaults import HV_STATE
from ganeti_masterd.config.parameters.types import DISK_STATE, HYPERVISOR_STATE, enforce
from ganeti_masterd.errors import prereq

#: As a value: reset to the value of the wider object.
DEFAULT = "default"
#: As a value of sizes and NICs: chosen by the daemon.
AUTO = "auto"

#: Parameters that only groups or the cluster can set, never a single node.
NODE_GLOBALS = frozenset({"exclusive_storage"})

HYPERVISORS = ("chroot", "fake", "kvm", "lxc", "xen-hvm", "xen-pvm")
#: Types of storage for which a state can be given.
STATED_STORAGE = ("plain",)

_NO_DISK_STATE = dict.fromkeys(DISK_STATE, 0)


def updated(
    old: Params, change: Params, *, default: bool = True, null: bool = False
) -> dict[str, Any]:
    """Returns ``old`` updated with ``change``.

    The value "default" (if ``default``) or None (if ``null``) removes a parameter.
    """
    new = dict(old)
    for name, value in change.items():
        if (default and value == DEFAULT) or (null and value is None):
            new.pop(name, None)
        else:
            new[name] = value
    return new


def refuse_globals(params: Params, names: Iterable[str], kind: str, level: str, wider: str) -> None:
    """Raises ``OpPrereqError`` if any of ``names`` is among ``params``.

    ``kind`` names the parameters' kind in the message ("node"), ``level`` where they can't
    be set, ``wider`` where they can.
    """
    found = sorted(set(names).intersection(params))
    if found:
        raise prereq(
            f"The following {kind} parameters are global and cannot be customized at {level}"
            f" level, please modify them at {wider} level: {', '.join(found)}"
        )


def hypervisor_state(old: Mapping[str, Params] | None, change: Params) -> dict[str, Any]:
    """Returns the complete state of hypervisors after a change to some.

    Raises ``OpPrereqError`` for an unknown hypervisor, ``TypeEnforcementError``
    for a value that isn't a number.
    """
    _known(change, HYPERVISORS, "hypervisor(s) in hypervisor state")
    new = {name: {**HV_STATE, **values} for name, values in (old or {}).items()}
    for name, values in change.items():
        # Values are converted first, so that "default" stands for Ganeti's own default.
        given = enforce(values, HYPERVISOR_STATE, special=(DEFAULT,))
        new[name] = {**HV_STATE, **updated(new.get(name, {}), given)}
    return new


def disk_state(old: Mapping[str, Any] | None, change: Params) -> dict[str, Any]:
    """Returns the complete state of storage, by type and name, after a change to some.

    Raises like :func:`hypervisor_state`.
    """
    _known(change, STATED_STORAGE, "storage type(s) in disk state")
    new: dict[str, Any] = {kind: dict(units) for kind, units in (old or {}).items()}
    for kind, units in change.items():
        stated = new.setdefault(kind, {})
        for name, values in units.items():
            given = enforce(values, DISK_STATE, special=(DEFAULT,))
            stated[name] = {**_NO_DISK_STATE, **updated(stated.get(name, {}), given)}
    return new


def _known(change: Params, names: Iterable[str], what: str) -> None:
    wrong = sorted(set(change) - set(names))
    if wrong:
        raise prereq(f"Invalid {what}: {', '.join(wrong)}")
    for name, values in change.items():
        if not isinstance(values, Mapping):
            raise prereq(f"The state of '{name}' must be a dictionary")
