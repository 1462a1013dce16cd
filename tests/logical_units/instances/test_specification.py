"""Parameters and disks of instances, from what opcodes say of them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.templates import TEMPLATES
from ganeti_masterd.errors import OpPrereqError, TypeEnforcementError
from ganeti_masterd.logical_units.instances.specification import (
    OsParameters,
    backend,
    demand,
    enabled_hypervisor,
    filled_os,
    hypervisor,
    os_parameters,
    read_disk,
    with_metadata_group,
    without_defaults,
)


class SpecificationTests(SynchronousTestCase):
    """Reading, for a creation and for a change."""

    def setUp(self) -> None:
        self.snapshot = new_cluster("cluster", 1, 0.0)
        self.cluster = replace(
            self.snapshot.cluster,
            osparams={"demo": {"fs": "ext3"}, "demo+x": {"fs": "ext4", "dhcp": "no"}},
            osparams_private_cluster={"demo": {"root_pw": "wide"}},
        )

    def test_backend(self) -> None:
        """Memory, auto, and values that take a parameter back to the cluster's."""
        self.assertEqual(backend(self.cluster, {"memory": "1g"}), {"maxmem": 1024, "minmem": 1024})
        self.assertEqual(
            backend(self.cluster, {"vcpus": "auto"}),
            {"vcpus": self.cluster.beparams["default"]["vcpus"]},
        )
        old = {"vcpus": 4, "maxmem": 512, "auto_balance": False}
        self.assertEqual(
            backend(self.cluster, {"vcpus": "default", "auto_balance": None}, old),
            {"maxmem": 512},
        )
        self.assertRaises(OpPrereqError, backend, self.cluster, {"minmem": 4096})
        self.assertRaises(TypeEnforcementError, backend, self.cluster, {"vcpus": "many"})

    def test_hypervisor(self) -> None:
        """Own parameters are checked together with those that they are laid over."""
        self.assertEqual(enabled_hypervisor(self.cluster, "auto"), "fake")
        self.assertEqual(hypervisor(self.cluster, "fake", "", {}), {})
        kvm = hypervisor(self.cluster, "kvm", "", {"acpi": "false", "kernel_path": ""})
        self.assertEqual(kvm, {"acpi": False, "kernel_path": ""})
        again = hypervisor(self.cluster, "kvm", "", {"acpi": "default"}, kvm)
        self.assertEqual(again, {"kernel_path": ""})
        self.assertRaises(
            OpPrereqError, hypervisor, self.cluster, "fake", "", {"migration_mode": "default"}
        )

    def test_os(self) -> None:
        """The three visibilities, filled and changed; None deletes, secrets are never kept."""
        own = os_parameters({"fs": "xfs"}, {"root_pw": "hush"}, {"dhcp": "yes"})
        filled = filled_os(self.cluster, "demo+x", own)
        self.assertEqual(
            (filled.public, filled.private, filled.secret),
            ({"fs": "xfs", "dhcp": "no"}, {"root_pw": "hush"}, {"dhcp": "yes"}),
        )
        none = filled_os(self.cluster, "demo", OsParameters())
        self.assertEqual((none.public, none.private), ({"fs": "ext3"}, {"root_pw": "wide"}))
        changed = os_parameters({"fs": None}, {"root_pw": "default"}, old=own)
        self.assertEqual((changed.public, changed.private, changed.secret), ({}, {}, {}))
        for wrong in (
            {"public": {"a": "1"}, "private": {"a": "2"}},
            {"public": {"root_pw": "1"}, "old": own},
        ):
            self.assertRaises(OpPrereqError, os_parameters, **wrong)
        self.assertNotIn("hush", repr(own))

    def test_disks(self) -> None:
        """Groups of volumes, parameters of providers, and the group of metadata."""

        def read(template: str, **given: Any) -> Any:
            return read_disk(given, TEMPLATES[template], self.cluster)

        plain = read("plain", size="1G", vg="altvg", name="root")
        self.assertEqual((plain.size, plain.group, plain.name), (1024, "altvg", "root"))
        self.assertEqual(read("file", size=5).group, "")
        self.assertEqual(read("file", size=5).size, 8)
        ext = read("ext", size=8, provider="p", pool="gold", access="kernelspace")
        self.assertEqual(ext.params, {"provider": "p", "pool": "gold", "access": "kernelspace"})
        group = next(iter(self.snapshot.groups.values()))
        group = replace(group, diskparams={"drbd": {"metavg": "fastvg"}})
        disks = [read("drbd", size=8), read("drbd", size=8, metavg="slowvg")]
        found = with_metadata_group(disks, TEMPLATES["drbd"], self.cluster, group)
        self.assertEqual([disk.meta_group for disk in found], ["fastvg", "slowvg"])
        for wrong in (
            {"size": 8, "mode": "x"},
            {"size": 8, "dev_type": "file"},
            {"size": 8, "spindles": 0},
            {"size": 8, "name": "0f0e1d2c-0000-4000-8000-000000000000"},
        ):
            self.assertRaises(OpPrereqError, read, "plain", **wrong)
        self.assertRaises(OpPrereqError, read, "rbd", size=8, access="telepathy")

    def test_defaults(self) -> None:
        """What is as it would be anyway, and what an instance takes."""
        self.assertEqual(
            without_defaults({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 9}), {"b": 2, "c": 3}
        )
        wanted = demand({"maxmem": 512, "vcpus": 2, "spindle_use": 1}, "drbd", [8, 16], 3)
        self.assertEqual(
            (wanted.memory, wanted.cpus, wanted.disk_types, wanted.nics, wanted.spindles),
            (512, 2, ["drbd", "drbd"], 3, 1),
        )
