"""Instance policies: their checks, their changes, and what violates them.

A policy has bounds (``minmax``: a list of {"min", "max"}; an instance must fit into at
least one), standard sizes (``std``, the cluster's only), the disk
templates allowed, and two ratios. A group's policy has only what differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.defaults import IPOLICY
from ganeti_masterd.config.parameters.merging import AUTO, DEFAULT
from ganeti_masterd.config.parameters.types import INSTANCE_SPEC, enforce
from ganeti_masterd.config.templates import summary_name
from ganeti_masterd.errors import ConfigurationError, prereq

Policy = Mapping[str, Any]

KEYS = frozenset(IPOLICY)
RATIOS = ("spindle-ratio", "vcpu-ratio")
DISK_TEMPLATES = frozenset(IPOLICY["disk-templates"])


class PolicyDemand(Struct, frozen=True):
    """The resources of an instance; sizes in MiB. Values of None or "auto" aren't checked.

    ``disk_types`` None: the disks' templates aren't checked; empty: an instance without disks.
    """

    memory: Any
    cpus: Any
    disk_sizes: Sequence[Any]
    disk_types: Sequence[str] | None
    nics: Any
    spindles: Any


def updated_policy(old: Policy, change: Policy, *, of_group: bool = False) -> dict[str, Any]:
    """Returns a policy after a change; raises ``OpPrereqError`` if the change makes no sense.

    In a group's policy, an empty value or "default" removes a key; the cluster's must
    keep all. Bounds and lists are replaced, standard sizes are updated one by one.
    """
    new = dict(old)
    for key, value in change.items():
        if key not in KEYS:
            raise prereq(f"Invalid key in new ipolicy: {key}")
        if not value or value in (DEFAULT, [DEFAULT]):
            if not of_group:
                raise prereq(f"Can't unset ipolicy attribute '{key}' on the cluster'")
            new.pop(key, None)
        elif key in RATIOS:
            new[key] = _ratio(key, value)
        elif key == "minmax":
            new[key] = _bounds(value)
        elif key == "std":
            if of_group:
                raise prereq(f"{key} cannot appear in group instance specs")
            new[key] = enforce({**old.get(key, {}), **_dictionary(value, key)}, INSTANCE_SPEC)
        else:
            new[key] = list(value)
    try:
        check_policy(new, standard=not of_group)
    except ConfigurationError as error:
        raise prereq(f"Invalid instance policy: {error}")
    return new


def check_policy(policy: Policy, *, standard: bool = True) -> None:
    """Checks a policy, including its standard sizes if ``standard``.

    Raises ``ConfigurationError``.
    """
    if "minmax" in policy:
        _check_bounds(policy, standard)
    if "disk-templates" in policy:
        templates = policy["disk-templates"]
        if not templates:
            raise ConfigurationError("Instance policy must contain at least one disk template")
        if wrong := sorted(set(templates) - DISK_TEMPLATES):
            raise ConfigurationError(f"Invalid disk template(s) {', '.join(wrong)}")
    for key in RATIOS:
        if key in policy and not isinstance(policy[key], (int, float)):
            raise ConfigurationError(f"Invalid value for key '{key}': '{policy[key]}'")
    if wrong := sorted(set(policy) - KEYS):
        raise ConfigurationError(f"Invalid keys in ipolicy: {', '.join(wrong)}")


def check_policy_templates(policy: Policy, enabled: Iterable[str]) -> None:
    """Raises ``OpPrereqError`` if a policy allows disk templates that aren't ``enabled``."""
    wrong = sorted(set(policy["disk-templates"]) - set(enabled))
    if wrong:
        raise prereq(
            "The following disk templates are allowed by the ipolicy, but not enabled on the"
            f" cluster: {', '.join(wrong)}"
        )


def violations(policy: Policy, demand: PolicyDemand) -> list[str]:
    """Returns the ways in which an instance violates a complete policy; empty if it doesn't.

    If it fits into none of several bounds, those with the fewest violations are reported.
    """
    allowed = policy["disk-templates"]
    found = []
    types = demand.disk_types
    if types is not None and not types and (none := summary_name(())) not in allowed:
        found.append(
            f"Disk template {none} is not allowed (allowed templates {', '.join(allowed)})"
        )
    if forbidden := sorted(set(types or ()) - set(allowed)):
        found.append(
            f"Disk template {', '.join(forbidden)} is not allowed"
            f" (allowed templates: {', '.join(allowed)})"
        )
    values = [
        ("memory-size", "", demand.memory),
        ("cpu-count", "", demand.cpus),
        ("nic-count", "", demand.nics),
        ("spindle-use", "", demand.spindles),
        *(("disk-size", f"/{index}", size) for index, size in enumerate(demand.disk_sizes)),
    ]
    if demand.disk_sizes:
        values.append(("disk-count", "", len(demand.disk_sizes)))
    faults = [_outside(bounds, values) for bounds in policy["minmax"]]
    return found + min(faults, key=len, default=[])


def _outside(
    bounds: Mapping[str, Mapping[str, Any]], values: Iterable[tuple[str, str, Any]]
) -> list[str]:
    found = []
    for name, place, value in values:
        if value is None or value == AUTO:
            continue
        least, most = bounds["min"].get(name, value), bounds["max"].get(name, value)
        if not least <= value <= most:
            found.append(f"{name}{place} value {value} is not in range [{least}, {most}]")
    return found


def _check_bounds(policy: Policy, standard: bool) -> None:
    if standard:
        if "std" not in policy:
            raise ConfigurationError("Missing key in ipolicy: std")
        _check_complete(policy["std"], "std")
    if not policy["minmax"]:
        raise ConfigurationError("Empty minmax specifications")
    fits = False
    for bounds in policy["minmax"]:
        if missing := sorted({"min", "max"} - set(bounds)):
            raise ConfigurationError(f"Missing instance specification: {', '.join(missing)}")
        for key, spec in bounds.items():
            _check_complete(spec, key)
        for name in INSTANCE_SPEC:
            least, most = bounds["min"][name], bounds["max"][name]
            if least > most:
                raise ConfigurationError(
                    f"Invalid specification of min/max values for {name}: {least}/{most}"
                )
        if not standard or all(
            bounds["min"][name] <= policy["std"][name] <= bounds["max"][name]
            for name in INSTANCE_SPEC
        ):
            fits = True
    if not fits:
        raise ConfigurationError("Invalid std specifications")


def _check_complete(spec: Mapping[str, Any], key: str) -> None:
    if missing := sorted(set(INSTANCE_SPEC) - set(spec)):
        raise ConfigurationError(
            f"Missing instance specs parameters for {key}: {', '.join(missing)}"
        )


def _ratio(key: str, value: Any) -> float:
    try:
        ratio = float(value)
    except (TypeError, ValueError) as error:
        raise prereq(f"Invalid value for attribute '{key}': '{value}', error: {error}")
    if not math.isfinite(ratio) or ratio <= 0:
        raise prereq(f"Invalid value for attribute '{key}': '{value}', error: not above zero")
    return ratio


def _bounds(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, (list, tuple)):
        raise prereq("Invalid instance policy: minmax must be a list")
    return [
        {
            key: enforce(_dictionary(spec, key), INSTANCE_SPEC)
            for key, spec in _dictionary(bounds, "minmax").items()
        }
        for bounds in value
    ]


def _dictionary(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise prereq(f"Invalid instance policy: {what} must be a dictionary")
    return value
