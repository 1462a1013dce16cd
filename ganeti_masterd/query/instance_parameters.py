"""The fields of instances' hypervisor, backend and OS parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.query.fields import Field, View, declare, number, other

#: Hypervisor parameters that instances may set, by the kind of their field
#: (facts of 3.0.2).
_HYPERVISOR = {
    "bool": """acpi pae serial_console spice_playback_compression spice_use_tls
        spice_use_vdagent use_bootloader use_chroot use_guest_agent use_localtime user_shutdown
        vhost_net viridian vnc_tls vnc_x509_verify vnet_hdr""",
    "number": """cpu_cap cpu_cores cpu_sockets cpu_threads cpu_weight kvm_pci_reservations
        migration_downtime num_ttys serial_speed spice_ip_version startup_timeout
        virtio_net_queues""",
    "other": """blockdev_prefix boot_order bootloader_args bootloader_path cdrom2_image_path
        cdrom_disk_type cdrom_image_path cpu_mask cpu_type cpuid device_model devices disk_aio
        disk_cache disk_discard disk_type drop_capabilities extra_cgroups extra_config
        floppy_image_path init_script initrd_path kernel_args kernel_path keymap kvm_extra kvm_flag
        kvm_path machine_version mem_path migration_caps nic_type pci_pass reboot_behavior
        root_path scsi_controller_type security_domain security_model soundhw spice_bind
        spice_image_compression spice_jpeg_wan_compression spice_password_file
        spice_streaming_video spice_tls_ciphers spice_zlib_glz_wan_compression usb_devices
        usb_mouse vga vif_script vif_type vnc_bind_address vnc_password_file vnc_x509_path""",
}

#: Titles of the hypervisor parameters' fields that differ from the field's name.
_TITLES = {
    "acpi": "ACPI",
    "boot_order": "Boot_order",
    "cdrom_image_path": "CDROM_image_path",
    "cpu_type": "cpu_type",
    "disk_type": "Disk_type",
    "initrd_path": "Initrd_path",
    "kernel_path": "Kernel_path",
    "nic_type": "NIC_type",
    "pae": "PAE",
    "pci_pass": "pci_pass",
    "vnc_bind_address": "VNC_bind_address",
}

#: Backend parameters: field, title, kind, parameter and description.
_BACKEND = (
    ("be/always_failover", "be/always_failover", "bool", "always_failover", "Never migrate it?"),
    ("be/auto_balance", "Auto_balance", "bool", "auto_balance", "Is it counted in N+1 checks?"),
    ("be/maxmem", "ConfigMaxMem", "unit", "maxmem", "The most memory that it may get."),
    ("be/memory", "ConfigMaxMem", "unit", "maxmem", "The most memory that it may get."),
    ("be/minmem", "ConfigMinMem", "unit", "minmem", "The least memory that it gets."),
    ("be/spindle_use", "be/spindle_use", "number", "spindle_use", "How many spindles it uses."),
    ("be/vcpus", "ConfigVCPUs", "number", "vcpus", "How many processors it has."),
)


def hypervisor(view: View, instance: Instance) -> dict[str, Any]:
    """Returns an instance's own hypervisor parameters; don't change them."""
    if instance.hvparams:
        return effective.own_hypervisor(view.snapshot.cluster, instance)
    # Most instances set none of their own, so all with one hypervisor and OS share these.
    key = ("hypervisor parameters", instance.hypervisor, instance.os)
    merged: dict[str, Any] | None = view.memo.get(key)
    if merged is None:
        merged = effective.own_hypervisor(view.snapshot.cluster, instance)
        view.memo[key] = merged
    return merged


def _backend(view: View, instance: Instance) -> dict[str, Any]:
    return effective.backend(view.snapshot.cluster, instance)


def _one(
    merged: Callable[[View, Instance], dict[str, Any]], name: str
) -> Callable[[View, Instance], Any]:
    return lambda view, instance: merged(view, instance).get(name)


def parameter_fields() -> Iterator[Field]:
    """Declares the fields of all parameters."""
    for kind, names in _HYPERVISOR.items():
        for name in names.split():
            yield declare(
                f"hv/{name}",
                _TITLES.get(name, f"hv/{name}"),
                kind,
                given=_one(hypervisor, name),
                doc=f"The effective value of the hypervisor parameter {name}.",
            )
    for field, title, kind, name, doc in _BACKEND:
        yield declare(field, title, kind, given=_one(_backend, name), doc=doc)
    yield number(
        "vcpus", "ConfigVCPUs", given=_one(_backend, "vcpus"), doc="How many processors it has."
    )
    yield other(
        "hvparams",
        "HypervisorParameters",
        given=hypervisor,
        doc="Its effective hypervisor parameters.",
    )
    yield other(
        "beparams",
        "BackendParameters",
        given=_backend,
        doc="Its effective backend parameters.",
    )
    yield other(
        "osparams",
        "OpSysParameters",
        given=lambda view, one: effective.of_os(view.snapshot.cluster, one),
        doc="Its effective public OS parameters.",
    )
    for name, title, of, what in (
        (
            "custom_hvparams",
            "CustomHypervisorParameters",
            lambda one: dict(one.hvparams),
            "hypervisor",
        ),
        ("custom_beparams", "CustomBackendParameters", lambda one: dict(one.beparams), "backend"),
        ("custom_osparams", "CustomOpSysParameters", lambda one: dict(one.osparams), "public OS"),
    ):
        yield other(name, title, of=of, doc=f"The {what} parameters that it sets itself.")
