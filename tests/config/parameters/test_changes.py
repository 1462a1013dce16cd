"""Tests of applying changes to parameters, of limits, and of device parameters."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.defaults import BEPARAMS, DISKPARAMS, HV_STATE, NDPARAMS, NICPARAMS
from ganeti_masterd.config.parameters import limits
from ganeti_masterd.config.parameters.devices import can_access, check_nic, disk_parameters
from ganeti_masterd.config.parameters.merging import (
    disk_state,
    hypervisor_state,
    refuse_globals,
    updated,
)
from ganeti_masterd.errors import ConfigurationError, OpPrereqError, TypeEnforcementError
from tests.config.parameters.facts import FACTS


class MergingTests(SynchronousTestCase):
    """A change updates parameters, and may remove some."""

    def test_updated(self) -> None:
        """The word "default" removes a parameter, None does if ``null``; others replace it."""
        old = {"a": 1, "b": 2}
        self.assertEqual(updated(old, {"a": "default", "b": None, "c": 3}), {"b": None, "c": 3})
        self.assertEqual(updated(old, {"b": None}, null=True), {"a": 1})
        self.assertEqual(updated(old, {"a": "default"}, default=False), {"a": "default", "b": 2})
        self.assertEqual(updated(old, {"x": "default"}), old)
        self.assertEqual(old, {"a": 1, "b": 2})

    def test_globals(self) -> None:
        """A parameter that only wider objects can set is refused by name."""
        refuse_globals({"ovs": True}, {"exclusive_storage"}, "node", "node", "cluster or group")
        error = self.assertRaises(
            OpPrereqError,
            refuse_globals,
            {"exclusive_storage": True},
            {"exclusive_storage"},
            "node",
            "node",
            "cluster or group",
        )
        self.assertIn("are global and cannot be customized at node level", error.args[0])
        self.assertIn("exclusive_storage", error.args[0])

    def test_hypervisor_state(self) -> None:
        """The resulting state is complete; "default" stands for Ganeti's own value."""
        new = hypervisor_state(None, {"kvm": {"mem_total": "512"}})
        self.assertEqual(new, {"kvm": {**HV_STATE, "mem_total": 512}})
        new = hypervisor_state(new, {"kvm": {"mem_total": "default", "cpu_node": 2}, "fake": {}})
        self.assertEqual(new, {"kvm": {**HV_STATE, "cpu_node": 2}, "fake": dict(HV_STATE)})

    def test_disk_state(self) -> None:
        """Storage state is kept by type and name; entries that aren't named are kept."""
        new = disk_state(None, {"plain": {"xenvg": {"disk_total": 5}}})
        new = disk_state(new, {"plain": {"other": {"disk_reserved": "1"}}})
        self.assertEqual(
            new,
            {
                "plain": {
                    "xenvg": {"disk_total": 5, "disk_reserved": 0, "disk_overhead": 0},
                    "other": {"disk_total": 0, "disk_reserved": 1, "disk_overhead": 0},
                }
            },
        )

    def test_states_refused(self) -> None:
        """Unknown hypervisors, unknown storage and malformed states are refused."""
        for function, change, text in (
            (hypervisor_state, {"vbox": {}}, "Invalid hypervisor(s) in hypervisor state: vbox"),
            (disk_state, {"file": {}}, "Invalid storage type(s) in disk state: file"),
            (hypervisor_state, {"kvm": 1}, "The state of 'kvm' must be a dictionary"),
        ):
            error = self.assertRaises(OpPrereqError, function, None, change)
            self.assertEqual(error.args, (text, "wrong_input"))
        self.assertRaises(TypeEnforcementError, hypervisor_state, None, {"kvm": {"cpu_node": "x"}})
        self.assertRaises(TypeEnforcementError, disk_state, None, {"plain": {"xenvg": {"x": 1}}})


class LimitTests(SynchronousTestCase):
    """Values have limits beyond their types."""

    def refused(self, text: str, function: Any, *arguments: Any) -> None:
        """Checks that the error is about wrong input and contains the text."""
        error = self.assertRaises(OpPrereqError, function, *arguments)
        self.assertIn(text, error.args[0])
        self.assertEqual(error.args[1], "wrong_input")

    def test_backend(self) -> None:
        """Minimum memory is below the maximum, and an instance has at least one processor."""
        limits.check_backend(BEPARAMS)
        self.refused(
            "minmem (256) must not be larger than maxmem (128)",
            limits.check_backend,
            {**BEPARAMS, "minmem": 256},
        )
        self.refused("'vcpus' is 0", limits.check_backend, {**BEPARAMS, "vcpus": 0})
        self.refused("'spindle_use' is -1", limits.check_backend, {**BEPARAMS, "spindle_use": -1})

    def test_memory(self) -> None:
        """The old "memory" means both bounds."""
        self.assertEqual(limits.split_memory({"memory": 5}), {"maxmem": 5, "minmem": 5})
        self.assertEqual(limits.split_memory({"vcpus": 1}), {"vcpus": 1})

    def test_node(self) -> None:
        """Node parameters must be within sensible limits."""
        limits.check_node(NDPARAMS)
        self.refused(
            "'ssh_port' can't be 65536", limits.check_node, {**NDPARAMS, "ssh_port": 65536}
        )
        self.refused("'spindle_count'", limits.check_node, {**NDPARAMS, "spindle_count": -1})
        self.refused("'cpu_speed' is 0", limits.check_node, {**NDPARAMS, "cpu_speed": 0})

    def test_uids(self) -> None:
        """Ranges of user ids must be in order and within the limits."""
        limits.check_uids([(0, 4294967295), (5, 5)])
        self.refused("(6) is larger than higher boundary value (5)", limits.check_uids, [(6, 5)])
        self.refused("UIDPOOL_UID_MIN", limits.check_uids, [(-1, 5)])
        self.refused("UIDPOOL_UID_MAX", limits.check_uids, [(1, 4294967296)])

    def test_netmask(self) -> None:
        """A prefix can be as long as its address family allows."""
        limits.check_netmask(32, 2)
        limits.check_netmask(128, 10)
        self.refused("CIDR netmask (33) not valid", limits.check_netmask, 33, 2)
        self.refused("CIDR netmask (0) not valid", limits.check_netmask, 0, 10)

    def test_mac_prefix(self) -> None:
        """A prefix is three bytes, in lower case afterwards."""
        self.assertEqual(limits.normal_mac_prefix("AA:00:1b"), "aa:00:1b")
        self.refused("'aa:00'", limits.normal_mac_prefix, "aa:00")


class DeviceTests(SynchronousTestCase):
    """Disk templates have their own parameters; NIC parameters depend on the mode."""

    def test_disk_parameters(self) -> None:
        """Strings are converted to their types; each template has its own parameters."""
        self.assertEqual({k: dict(v) for k, v in DISKPARAMS.items()}, FACTS["DISK_DT_DEFAULTS"])
        found = disk_parameters({"drbd": {"resync-rate": "5", "dynamic-resync": "true"}})
        self.assertEqual(found, {"drbd": {"resync-rate": 5, "dynamic-resync": True}})

    def test_disk_parameters_refused(self) -> None:
        """Parameters of other templates and unknown access modes are refused."""
        error = self.assertRaises(OpPrereqError, disk_parameters, {"file": {"stripes": 1}})
        self.assertIn("Provided option keys not supported: file/stripes", error.args[0])
        error = self.assertRaises(OpPrereqError, disk_parameters, {"rbd": {"access": "pink"}})
        self.assertIn("Invalid value of 'rbd:access': 'pink'", error.args[0])
        self.assertRaises(TypeEnforcementError, disk_parameters, {"plain": {"stripes": "default"}})

    def test_resets(self) -> None:
        """A group may reset parameters to the cluster's."""
        given = {"plain": {"stripes": "default"}, "rbd": {"access": "default"}}
        self.assertEqual(disk_parameters(given, resets=True), given)

    def test_access(self) -> None:
        """Only KVM can open disks in userspace, and only those of some templates."""
        self.assertTrue(can_access("fake", "plain", "kernelspace"))
        self.assertTrue(can_access("kvm", "rbd", "userspace"))
        self.assertFalse(can_access("kvm", "plain", "userspace"))
        self.assertFalse(can_access("fake", "rbd", "userspace"))

    def test_nics(self) -> None:
        """The mode must be known, and a bridged NIC must have a bridge."""
        check_nic(NICPARAMS)
        check_nic({"mode": "auto", "link": ""})
        error = self.assertRaises(ConfigurationError, check_nic, {"mode": "x", "link": ""})
        self.assertEqual(str(error), "Invalid NIC mode 'x'")
        error = self.assertRaises(ConfigurationError, check_nic, {"mode": "bridged", "link": ""})
        self.assertEqual(str(error), "Missing bridged NIC link")
