"""Tests of the rules for hypervisor parameters."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.defaults import HVPARAMS
from ganeti_masterd.config.parameters.hypervisors import (
    RULES,
    check_hypervisor,
    is_cpu_mask,
    is_multi_cpu_mask,
    is_normal_path,
)
from ganeti_masterd.errors import HypervisorError
from tests.config.parameters.facts import FACTS

#: Hypervisor, changed parameters, and part of the error message.
WRONG: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("fake", {"migration_mode": "dead"}, "'migration_mode' fails syntax check: invalid migration"),
    ("fake", {"migration_mode": ""}, "'migration_mode' is required but is currently not defined"),
    ("fake", {"acpi": True}, "Parameter 'acpi' is not supported"),
    ("chroot", {"init_script": "x"}, "must be an absolute normalized path"),
    ("lxc", {"cpu_mask": "2-1"}, "CPU mask definition is not well-formed"),
    ("lxc", {"num_ttys": -1}, "cannot be negative"),
    ("xen-pvm", {"kernel_path": ""}, "'kernel_path' is required"),
    ("xen-pvm", {"xen_cmd": "xy"}, "The value must be one of: xl, xm"),
    ("xen-pvm", {"cpu_weight": 65536}, "invalid weight"),
    ("xen-hvm", {"boot_order": "x"}, "must be one or more of [acdn]"),
    ("xen-hvm", {"vnc_bind_address": "x"}, "VNC bind address is not a valid IP address"),
    ("xen-hvm", {"migration_port": 65535}, "invalid port number"),
    ("kvm", {"kvm_path": "/usr/../bin/kvm"}, "must be an absolute normalized path"),
    ("kvm", {"cdrom_image_path": "gopher://x"}, "path or a URL"),
    ("kvm", {"spice_ip_version": 5}, "The SPICE IP version should be 4 or 6"),
    ("kvm", {"virtio_net_queues": 9}, "invalid number of queues"),
    ("kvm", {"kvm_pci_reservations": 33}, "The number of PCI slots managed by QEMU (max: 32)"),
    ("kvm", {"boot_order": "cdrom"}, "Cannot boot from cdrom without an ISO path"),
    ("kvm", {"root_path": ""}, "Need a root partition"),
    ("kvm", {"security_model": "user"}, "A security domain"),
    ("kvm", {"security_domain": "x"}, "Cannot have a security domain"),
    ("kvm", {"serial_speed": 1}, "Invalid serial console speed"),
    ("kvm", {"vnc_x509_verify": True}, "vnc_x509_path must be defined"),
    ("kvm", {"spice_use_tls": True}, "SPICE: spice_use_tls requires spice_bind to be set"),
    ("kvm", {"spice_bind": "192.0.2.1", "spice_ip_version": 6}, "Got an IPv4 address"),
    ("kvm", {"spice_bind": "2001:db8::1", "spice_ip_version": 4}, "Got an IPv6 address"),
    ("kvm", {"disk_aio": "native"}, "the only supported value for 'disk_cache' is 'none'"),
)

RIGHT: tuple[tuple[str, dict[str, Any]], ...] = (
    ("kvm", {"boot_order": "cdrom", "cdrom_image_path": "https://example.com/x.iso"}),
    ("kvm", {"security_model": "user", "security_domain": "nobody"}),
    ("kvm", {"disk_aio": "native", "disk_cache": "none"}),
    ("kvm", {"spice_bind": "192.0.2.1", "spice_ip_version": 4}),
    ("kvm", {"kernel_path": "", "root_path": ""}),
    ("kvm", {"serial_console": False, "serial_speed": 1}),
    ("kvm", {"cpu_mask": "0-1:all:3"}),
    ("lxc", {"cpu_mask": "0-1,3"}),
    ("xen-hvm", {"boot_order": "ncda"}),
)


class HypervisorTests(SynchronousTestCase):
    """Each hypervisor has its parameters, and each parameter its rule."""

    def test_defaults(self) -> None:
        """Ganeti's defaults are valid, and every rule is for one of these parameters."""
        self.assertEqual({k: dict(v) for k, v in HVPARAMS.items()}, FACTS["HVC_DEFAULTS"])
        for name, params in HVPARAMS.items():
            check_hypervisor(name, params)
            self.assertLessEqual(set(RULES[name]), set(params))

    def test_wrong(self) -> None:
        """Invalid values are refused, and the parameter is named."""
        for name, change, text in WRONG:
            error = self.assertRaises(
                HypervisorError, check_hypervisor, name, {**HVPARAMS[name], **change}
            )
            self.assertIn(text, str(error))

    def test_right(self) -> None:
        """Unusual but valid values are accepted."""
        for name, change in RIGHT:
            params = {**HVPARAMS[name], **change}
            check_hypervisor(name, params)
            self.assertEqual(params, {**HVPARAMS[name], **change})

    def test_missing(self) -> None:
        """All parameters must be given."""
        error = self.assertRaises(HypervisorError, check_hypervisor, "fake", {})
        self.assertEqual(str(error), "Parameter 'migration_mode' is missing")

    def test_masks(self) -> None:
        """Masks are lists of processors and ranges, one list for each virtual processor."""
        for text in ("0", "0-3", "1,2-4"):
            self.assertTrue(is_cpu_mask(text) and is_multi_cpu_mask(text), text)
        for text in ("", "a", "1-2-3", "3-1", "1,,2", "-1"):
            self.assertFalse(is_cpu_mask(text), text)
        self.assertTrue(is_multi_cpu_mask("all:1-2:all"))
        self.assertFalse(is_multi_cpu_mask("all:x"))

    def test_paths(self) -> None:
        """A path must be absolute and normalized."""
        for path in ("/a/b", "/", "//a"):
            self.assertTrue(is_normal_path(path), path)
        for path in ("", "a", "/a/", "///a", "/a//b", "/a/../b", None, 1):
            self.assertFalse(is_normal_path(path), path)
