"""Parameters of disk templates and of network interfaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.defaults import DISKPARAMS
from ganeti_masterd.config.parameters.merging import AUTO, DEFAULT
from ganeti_masterd.config.parameters.types import DISK_TEMPLATE, enforce
from ganeti_masterd.config.templates import template_named
from ganeti_masterd.errors import ConfigurationError, prereq

ACCESS_MODES = ("kernelspace", "userspace")
NIC_MODES = ("bridged", "openvswitch", "pool", "routed")


def disk_parameters(
    given: Mapping[Any, Params], *, resets: bool = False
) -> dict[str, dict[str, Any]]:
    """Returns disk parameters, by template, converted to their types.

    With ``resets`` (for groups) the value "default" is accepted too. Raises
    ``TypeEnforcementError`` for a wrong type, ``OpPrereqError`` for a parameter
    that the template doesn't have and for an unknown access mode.
    """
    typed = {
        template: enforce(params, DISK_TEMPLATE, special=(DEFAULT,) if resets else ())
        for template, params in given.items()
    }
    wrong = [
        f"{template}/{name}"
        for template, params in typed.items()
        for name in params
        if name not in DISKPARAMS.get(template, ())
    ]
    if wrong:
        raise prereq(
            "While verify diskparams options: Provided option keys not supported:"
            f" {', '.join(wrong)}"
        )
    for template, params in typed.items():
        access = params.get("access", ACCESS_MODES[0])
        if access not in ACCESS_MODES and not (resets and access == DEFAULT):
            raise prereq(
                "While verify diskparams options: Invalid value of"
                f" '{template}:access': '{access}' (expected one of {', '.join(ACCESS_MODES)})"
            )
    return typed


def can_access(hypervisor: str, template: str, access: str) -> bool:
    """Whether a hypervisor can open disks of a template with this access mode."""
    return access == ACCESS_MODES[0] or (hypervisor == "kvm" and template_named(template).access)


def check_nic(filled: Params) -> None:
    """Checks the complete parameters of a NIC; raises ``ConfigurationError``."""
    mode = filled["mode"]
    if mode not in NIC_MODES and mode != AUTO:
        raise ConfigurationError(f"Invalid NIC mode '{mode}'")
    if mode == "bridged" and not filled["link"]:
        raise ConfigurationError("Missing bridged NIC link")
