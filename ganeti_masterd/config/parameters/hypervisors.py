"""Rules for the parameters of each hypervisor that the master can check by itself.

The table says for each parameter whether it must have a value, and how to check
it; parameters without a rule accept any value of their type. Nodes check whether a path
exists (``hypervisor_validate_params``).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from ganeti_masterd.config.defaults import HVPARAMS
from ganeti_masterd.config.parameters.kvm import check_kvm
from ganeti_masterd.errors import HypervisorError
from ganeti_masterd.opcodes.checks import is_ipv4_address

_URL = re.compile(r"(https?|ftps?)://")


class ParameterRule(NamedTuple):
    """The rule for a parameter: whether it must be set, a check, and the error if that fails."""

    required: bool
    check: Callable[[Any], bool]
    refusal: str


def is_normal_path(value: Any) -> bool:
    """Whether a value is an absolute, normalized path; like in POSIX, it may begin with "//"."""
    return isinstance(value, str) and value.startswith("/") and posixpath.normpath(value) == value


def is_url(value: Any) -> bool:
    """Whether a value is the URL of an image that can be downloaded."""
    return isinstance(value, str) and _URL.match(value) is not None


def is_cpu_mask(value: str) -> bool:
    """Whether a value is a list of processors and ranges of processors, such as "0-2,5"."""
    return bool(value) and all(_is_range(part) for part in value.split(","))


def is_multi_cpu_mask(value: str) -> bool:
    """Whether a value is a mask or "all" for each virtual processor, joined by colons."""
    return all(part in ("", "all") or is_cpu_mask(part) for part in value.split(":"))


def _is_range(text: str) -> bool:
    ends = text.split("-")
    return (
        len(ends) <= 2
        and all(end.isdecimal() and end.isascii() for end in ends)
        and int(ends[0]) <= int(ends[-1])
    )


def _path(*, required: bool = False) -> ParameterRule:
    return ParameterRule(required, is_normal_path, "must be an absolute normalized path")


def _image() -> ParameterRule:
    return ParameterRule(
        False,
        lambda value: is_normal_path(value) or is_url(value),
        "must be an absolute normalized path or a URL",
    )


def _one_of(values: Iterable[str], *, required: bool = True) -> ParameterRule:
    known = tuple(values)
    return ParameterRule(
        required, known.__contains__, f"The value must be one of: {', '.join(known)}"
    )


def _within(low: int, high: int, refusal: str, *, required: bool = False) -> ParameterRule:
    return ParameterRule(required, lambda value: low <= value <= high, refusal)


def _not_negative(*, required: bool = False) -> ParameterRule:
    return ParameterRule(required, lambda value: value >= 0, "cannot be negative")


_LIVENESS = ParameterRule(True, ("live", "non-live").__contains__, "invalid migration mode")
_PORT = _within(1, 65534, "invalid port number", required=True)
_REBOOT = _one_of(("reboot", "exit"))
_MASKS = ParameterRule(False, is_multi_cpu_mask, "Multiple CPU mask definition is not well-formed")
_LOSSY = _one_of(("always", "auto", "never"), required=False)
_KVM_DISKS = (
    "ide",
    "mtd",
    "paravirtual",
    "pflash",
    "scsi",
    "scsi-block",
    "scsi-cd",
    "scsi-generic",
    "scsi-hd",
    "sd",
)
_KVM_NICS = (
    "e1000",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "paravirtual",
    "pcnet",
    "rtl8139",
)

RULES: Final[Mapping[str, Mapping[str, ParameterRule]]] = {
    "chroot": {"init_script": _path(required=True)},
    "fake": {"migration_mode": _LIVENESS},
    "lxc": {
        "cpu_mask": ParameterRule(False, is_cpu_mask, "CPU mask definition is not well-formed"),
        "num_ttys": _not_negative(required=True),
        "startup_timeout": _not_negative(),
    },
    "xen-pvm": {
        "bootloader_path": _path(),
        "kernel_path": _path(required=True),
        "initrd_path": _path(),
        "migration_port": _PORT,
        "migration_mode": _LIVENESS,
        "reboot_behavior": _REBOOT,
        "cpu_mask": _MASKS,
        "cpu_cap": _not_negative(),
        "cpu_weight": _within(1, 65535, "invalid weight"),
        "vif_script": _path(),
        "xen_cmd": _one_of(("xl", "xm")),
    },
    "xen-hvm": {
        "boot_order": ParameterRule(
            True,
            lambda value: not value.strip("acdn"),
            "Invalid boot order specified, must be one or more of [acdn]",
        ),
        "cdrom_image_path": _path(),
        "disk_type": _one_of(("ioemu", "paravirtual")),
        "nic_type": _one_of(("e1000", "ne2k_isa", "ne2k_pci", "paravirtual", "rtl8139")),
        "vnc_bind_address": ParameterRule(
            False, is_ipv4_address, "VNC bind address is not a valid IP address"
        ),
        "kernel_path": _path(required=True),
        "device_model": _path(required=True),
        "vnc_password_file": _path(required=True),
        "migration_port": _PORT,
        "migration_mode": _LIVENESS,
        "reboot_behavior": _REBOOT,
        "cpu_mask": _MASKS,
        "cpu_weight": _within(1, 65534, "invalid weight"),
        "vif_type": _one_of(("ioemu", "vif"), required=False),
        "vif_script": _path(),
        "xen_cmd": _one_of(("xl", "xm")),
    },
    "kvm": {
        "kvm_path": _path(required=True),
        "kernel_path": _path(),
        "initrd_path": _path(),
        "vnc_x509_path": _path(),
        "vnc_password_file": _path(),
        "spice_ip_version": ParameterRule(
            False, (0, 4, 6).__contains__, "The SPICE IP version should be 4 or 6"
        ),
        "spice_password_file": _path(),
        "spice_image_compression": _one_of(
            ("auto_glz", "auto_lz", "glz", "lz", "off", "quic"), required=False
        ),
        "spice_jpeg_wan_compression": _LOSSY,
        "spice_zlib_glz_wan_compression": _LOSSY,
        "spice_streaming_video": _one_of(("all", "filter", "off"), required=False),
        "floppy_image_path": _path(),
        "cdrom_image_path": _image(),
        "cdrom2_image_path": _image(),
        "boot_order": _one_of(("cdrom", "disk", "floppy", "network")),
        "nic_type": _one_of(_KVM_NICS),
        "disk_type": _one_of(_KVM_DISKS),
        "scsi_controller_type": _one_of(("lsi", "megasas", "virtio-scsi-pci")),
        "disk_discard": _one_of(("default", "ignore", "unmap"), required=False),
        "cdrom_disk_type": _one_of(_KVM_DISKS, required=False),
        "usb_mouse": _one_of(("mouse", "tablet"), required=False),
        "migration_port": _PORT,
        "migration_bandwidth": _not_negative(required=True),
        "migration_downtime": _not_negative(required=True),
        "migration_mode": _LIVENESS,
        "disk_cache": _one_of(("default", "none", "writeback", "writethrough")),
        "disk_aio": _one_of(("native", "threads"), required=False),
        "security_model": _one_of(("none", "pool", "user")),
        "kvm_flag": _one_of(("disabled", "enabled"), required=False),
        "virtio_net_queues": _within(1, 8, "invalid number of queues"),
        "mem_path": _path(),
        "reboot_behavior": _REBOOT,
        "cpu_mask": _MASKS,
        "cpu_cores": _not_negative(),
        "cpu_threads": _not_negative(),
        "cpu_sockets": _not_negative(),
        "kvm_pci_reservations": _within(0, 32, "The number of PCI slots managed by QEMU (max: 32)"),
    },
}


def check_hypervisor(hypervisor: str, filled: Mapping[str, Any]) -> None:
    """Checks the complete parameters of a hypervisor; raises ``HypervisorError``."""
    known = HVPARAMS[hypervisor]
    for name in filled:
        if name not in known:
            raise HypervisorError(f"Parameter '{name}' is not supported")
    for name in known:
        if name not in filled:
            raise HypervisorError(f"Parameter '{name}' is missing")
    for name, rule in RULES[hypervisor].items():
        value = filled[name]
        if value is None or value == "":
            if rule.required:
                raise HypervisorError(
                    f"Parameter '{name}' is required but is currently not defined"
                )
        elif not rule.check(value):
            raise HypervisorError(
                f"Parameter '{name}' fails syntax check: {rule.refusal} (current value: '{value}')"
            )
    if hypervisor == "kvm":
        check_kvm(filled)
