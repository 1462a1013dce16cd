"""Checks of combinations of KVM's parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeti_masterd.errors import HypervisorError
from ganeti_masterd.opcodes.checks import is_ipv4_address, is_ipv6_address

SERIAL_SPEEDS = (
    75,
    110,
    300,
    600,
    1200,
    1800,
    2400,
    4800,
    9600,
    14400,
    19200,
    28800,
    38400,
    57600,
    115200,
    230400,
    345600,
    460800,
)

#: Parameters that have no effect unless ``spice_bind`` is set.
_OF_SPICE = (
    "spice_ip_version",
    "spice_password_file",
    "spice_image_compression",
    "spice_jpeg_wan_compression",
    "spice_zlib_glz_wan_compression",
    "spice_streaming_video",
    "spice_use_tls",
)


def check_kvm(filled: Mapping[str, Any]) -> None:
    """Checks complete parameters, each of which is valid by itself; raises ``HypervisorError``."""
    if filled["boot_order"] == "cdrom" and not filled["cdrom_image_path"]:
        raise HypervisorError("Cannot boot from cdrom without an ISO path")
    if filled["kernel_path"] and not filled["root_path"]:
        raise HypervisorError("Need a root partition for the instance, if a kernel is defined")
    _check_security(filled)
    if filled["serial_console"] and filled["serial_speed"] not in SERIAL_SPEEDS:
        speeds = ", ".join(map(str, SERIAL_SPEEDS))
        raise HypervisorError(f"Invalid serial console speed, must be one of: {speeds}")
    if filled["vnc_x509_verify"] and not filled["vnc_x509_path"]:
        raise HypervisorError("vnc_x509_path must be defined, if vnc_x509_verify is")
    _check_spice(filled)
    if filled["disk_aio"] == "native" and filled["disk_cache"] != "none":
        raise HypervisorError(
            "When 'disk_aio' is set to 'native', the only supported value for 'disk_cache' is"
            " 'none'."
        )


def _check_security(filled: Mapping[str, Any]) -> None:
    if filled["security_model"] == "user":
        if not filled["security_domain"]:
            raise HypervisorError("A security domain (user to run kvm as) must be specified")
    elif filled["security_domain"]:
        raise HypervisorError(
            "Cannot have a security domain when the security model is 'none' or 'pool'"
        )


def _check_spice(filled: Mapping[str, Any]) -> None:
    bind, version = filled["spice_bind"], filled["spice_ip_version"]
    if not bind:
        for name in _OF_SPICE:
            if filled[name]:
                raise HypervisorError(f"SPICE: {name} requires spice_bind to be set")
        return
    for family, is_address in ((4, is_ipv4_address), (6, is_ipv6_address)):
        if version not in (0, family) and is_address(bind):
            raise HypervisorError(
                f"SPICE: Got an IPv{family} address ({bind}), but the specified IP version is"
                f" {version}"
            )
