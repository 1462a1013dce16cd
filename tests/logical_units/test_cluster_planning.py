"""Tests of the changes that OP_CLUSTER_SET_PARAMS makes to the cluster."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.defaults import HVPARAMS
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.errors import (
    ConfigurationError,
    GenericError,
    HypervisorError,
    OpPrereqError,
    TypeEnforcementError,
)
from ganeti_masterd.logical_units.cluster.planning import Changed, changed, check_arguments
from ganeti_masterd.opcodes import decode_opcode

#: Arguments that are refused without the configuration, with a part of the message.
WRONG_ARGUMENTS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"uid_pool": [[6, 5]]}, "Lower user-id range boundary value (6)"),
    ({"add_uids": [[-1, 5]]}, "UIDPOOL_UID_MIN"),
    ({"remove_uids": [[1, 4294967296]]}, "UIDPOOL_UID_MAX"),
    ({"mac_prefix": "aa:00"}, "Invalid MAC address prefix 'aa:00'"),
    ({"master_netmask": 33}, "CIDR netmask (33) not valid"),
    ({"diskparams": {"file": {"stripes": 1}}}, "Provided option keys not supported"),
    ({"install_image": "x"}, "Install image must be an absolute path or a URL"),
    ({"zeroing_image": ""}, "Zeroing image must be an absolute path or a URL"),
    ({"file_storage_dir": "x"}, "'file_storage_dir' must be an absolute path, not 'x'"),
    ({"shared_file_storage_dir": "./x/"}, "must be an absolute path, not 'x'"),
    ({"enabled_hypervisors": []}, "At least one hypervisor must be enabled"),
    ({"reserved_lvs": ["("]}, "Invalid pattern of reserved volumes '('"),
    ({"reserved_lvs": ["x"] * 1001}, "are 1001 patterns of reserved volumes, and may be 1000"),
    ({"hidden_os": [["attach", "x"]]}, "Invalid modification 'attach'"),
    ({"compression_tools": ["gzip", "a b"]}, "The tools 'a b' contain illegal characters"),
    ({"compression_tools": ["lzop"]}, "the gzip utility must be present"),
    ({"compression_tools": ["gzip", "none"]}, "none is a reserved value"),
)

#: Parameters that the cluster can't have, with the error's class and a part of its message.
WRONG: tuple[tuple[dict[str, Any], type[GenericError], str], ...] = (
    ({"beparams": {"x": 1}}, TypeEnforcementError, "Unknown parameter 'x'"),
    ({"beparams": {"minmem": 256}}, OpPrereqError, "minmem (256) must not be larger"),
    ({"ndparams": {"ssh_port": 0}}, OpPrereqError, "'ssh_port' can't be 0"),
    ({"ndparams": {"ovs": "perhaps"}}, TypeEnforcementError, "not a valid boolean"),
    ({"hv_state": {"vbox": {}}}, OpPrereqError, "Invalid hypervisor(s) in hypervisor state"),
    ({"disk_state": {"x": {}}}, OpPrereqError, "Invalid storage type(s) in disk state"),
    ({"ipolicy": {"x": 1}}, OpPrereqError, "Invalid key in new ipolicy: x"),
    ({"ipolicy": {"disk-templates": ["rbd"]}}, OpPrereqError, "not enabled on the cluster: rbd"),
    ({"enabled_disk_templates": ["diskless"]}, OpPrereqError, "not enabled on the cluster: drbd"),
    ({"nicparams": {"mode": "x"}}, ConfigurationError, "Invalid NIC mode 'x'"),
    ({"nicparams": {"mac": "x"}}, TypeEnforcementError, "Unknown parameter 'mac'"),
    ({"hvparams": {"fake": {"migration_mode": "x"}}}, HypervisorError, "invalid migration mode"),
    ({"hvparams": {"fake": {"acpi": True}}}, HypervisorError, "'acpi' is not supported"),
    ({"hvparams": {"vbox": {}}}, OpPrereqError, "Unknown hypervisor 'vbox'"),
    ({"os_hvp": {"os": {"vbox": {}}}}, OpPrereqError, "Unknown hypervisor 'vbox'"),
    ({"os_hvp": {"os": {"fake": {"migration_mode": ""}}}}, HypervisorError, "is required"),
    ({"remove_uids": [[1, 2]]}, OpPrereqError, "not found in the current user-id pool: (1, 2)"),
    ({"enabled_data_collectors": {"x": True}}, OpPrereqError, "Unknown data collector 'x'"),
    ({"data_collector_interval": {"drbd": 0}}, OpPrereqError, "must be above zero"),
)

#: Parameters that are copied unchanged, and their fields in the cluster.
PLAIN: tuple[tuple[str, Any, str, Any], ...] = (
    ("candidate_pool_size", 3, "candidate_pool_size", 3),
    ("max_running_jobs", 5, "max_running_jobs", 5),
    ("max_tracked_jobs", 6, "max_tracked_jobs", 6),
    ("maintain_node_health", True, "maintain_node_health", True),
    ("modify_etc_hosts", True, "modify_etc_hosts", True),
    ("prealloc_wipe_disks", True, "prealloc_wipe_disks", True),
    ("default_iallocator", "", "default_iallocator", ""),
    ("default_iallocator_params", {"a": "b"}, "default_iallocator_params", {"a": "b"}),
    ("reserved_lvs", ["a.*"], "reserved_lvs", ("a.*",)),
    ("use_external_mip_script", True, "use_external_mip_script", True),
    ("enabled_user_shutdown", True, "enabled_user_shutdown", True),
    ("file_storage_dir", "/x", "file_storage_dir", "/x"),
    ("shared_file_storage_dir", "/x", "shared_file_storage_dir", "/x"),
    ("gluster_storage_dir", "/x", "gluster_storage_dir", "/x"),
    ("file_storage_dir", "/boot/", "file_storage_dir", "/boot"),
    ("shared_file_storage_dir", "//srv//a/../b/.", "shared_file_storage_dir", "/srv/b"),
    ("gluster_storage_dir", "/srv/a b/", "gluster_storage_dir", "/srv/a b"),
    ("file_storage_dir", "/", "file_storage_dir", "/"),
    ("file_storage_dir", "", "file_storage_dir", ""),
    ("install_image", "/x", "install_image", "/x"),
    ("zeroing_image", "http://x", "zeroing_image", "http://x"),
    ("instance_communication_network", "net", "instance_communication_network", "net"),
    ("compression_tools", ["gzip", "x"], "compression_tools", ("gzip", "x")),
    ("mac_prefix", "AA:00:02", "mac_prefix", "aa:00:02"),
    ("master_netdev", "eth0", "master_netdev", "eth0"),
    ("master_netmask", 24, "master_netmask", 24),
    ("vg_name", "other", "volume_group_name", "other"),
    ("vg_name", "", "volume_group_name", None),
    ("drbd_helper", "", "drbd_usermode_helper", None),
    ("uid_pool", [[5, 6]], "uid_pool", ((5, 6),)),
)


class PlanningTests(SynchronousTestCase):
    """All parameters are set, or the first invalid one is refused."""

    def setUp(self) -> None:
        self.cluster: Cluster = new_cluster("cluster", 1, 1000.0).cluster

    def change(self, **parameters: Any) -> Changed:
        """Returns the cluster after the opcode."""
        op: Any = decode_opcode({"OP_ID": "OP_CLUSTER_SET_PARAMS", **parameters})
        check_arguments(op, self.cluster.primary_ip_family)
        return changed(self.cluster, op)

    def test_wrong_arguments(self) -> None:
        """Invalid arguments are refused without the configuration."""
        for parameters, text in WRONG_ARGUMENTS:
            op: Any = decode_opcode({"OP_ID": "OP_CLUSTER_SET_PARAMS", **parameters})
            error = self.assertRaises(OpPrereqError, check_arguments, op, 2)
            self.assertIn(text, error.args[0], parameters)
            self.assertEqual(error.args[1], "wrong_input")

    def test_wrong(self) -> None:
        """Parameters that this cluster can't have are refused, with the real error class."""
        for parameters, cls, text in WRONG:
            error = self.assertRaises(cls, self.change, **parameters)
            self.assertIn(text, error.args[0], parameters)

    def test_plain(self) -> None:
        """Most parameters are copied unchanged; nothing else changes."""
        for name, value, field, expected in PLAIN:
            after = self.change(**{name: value}).cluster
            self.assertEqual(getattr(after, field), expected, name)
            if getattr(self.cluster, field) != expected:
                self.assertEqual(
                    replace(after, **{field: getattr(self.cluster, field)}), self.cluster, name
                )

    def test_empty(self) -> None:
        """No disk templates, and NIC parameters that are None, change nothing."""
        for parameters in (
            {"enabled_disk_templates": []},
            {"nicparams": {"link": None, "mode": None}},
        ):
            self.assertEqual(self.change(**parameters).cluster, self.cluster)

    def test_nothing(self) -> None:
        """An opcode without parameters changes nothing."""
        found = self.change()
        self.assertEqual(found.cluster, self.cluster)
        self.assertIsNot(found.cluster, self.cluster)

    def test_defaults(self) -> None:
        """Defaults of instances, nodes, NICs and disks update the present ones."""
        after = self.change(
            beparams={"memory": "256", "vcpus": "2"},
            ndparams={"spindle_count": "4"},
            nicparams={"link": "br1"},
            diskparams={"plain": {"stripes": "2"}},
            hv_state={"fake": {"mem_total": 5}},
            disk_state={"plain": {"xenvg": {"disk_total": 5}}},
            ipolicy={"vcpu-ratio": 8},
        ).cluster
        backend = after.beparams["default"]
        self.assertEqual((backend["minmem"], backend["maxmem"], backend["vcpus"]), (256, 256, 2))
        self.assertEqual(after.ndparams["spindle_count"], 4)
        self.assertEqual(after.nicparams["default"]["mode"], "bridged")
        self.assertEqual(after.nicparams["default"]["link"], "br1")
        self.assertEqual(after.diskparams["plain"], {"stripes": 2})
        self.assertIn("drbd", after.diskparams)
        self.assertEqual(after.hv_state_static["fake"]["mem_total"], 5)
        self.assertEqual(after.disk_state_static["plain"]["xenvg"]["disk_total"], 5)
        self.assertEqual(after.ipolicy["vcpu-ratio"], 8.0)

    def test_hypervisors(self) -> None:
        """A hypervisor that gets enabled has all of its parameters."""
        bare = {"fake": HVPARAMS["fake"]}
        self.cluster = replace(self.cluster, hvparams=bare)
        after = self.change(
            enabled_hypervisors=["kvm", "fake"], hvparams={"kvm": {"kernel_path": ""}}
        )
        self.assertEqual(after.cluster.enabled_hypervisors, ("kvm", "fake"))
        self.assertEqual(after.cluster.hvparams["kvm"], {**HVPARAMS["kvm"], "kernel_path": ""})

    def test_os_hypervisors(self) -> None:
        """Parameters of a system are added, updated, and removed with None."""
        after = self.change(os_hvp={"os": {"kvm": {"acpi": "false"}, "fake": None}}).cluster
        self.assertEqual(after.os_hvp, {"os": {"kvm": {"acpi": False}}})
        self.cluster = after
        after = self.change(os_hvp={"os": {"kvm": {"usb_mouse": "tablet"}}}).cluster
        self.assertEqual(after.os_hvp, {"os": {"kvm": {"acpi": False, "usb_mouse": "tablet"}}})
        self.cluster = after
        self.assertEqual(self.change(os_hvp={"os": {"kvm": None}}).cluster.os_hvp, {})

    def test_systems(self) -> None:
        """Parameters of systems, including private ones, are added and removed."""
        after = self.change(
            osparams={"os": {"a": "1", "b": "2"}}, osparams_private_cluster={"os": {"p": "x"}}
        ).cluster
        self.assertEqual(after.osparams, {"os": {"a": "1", "b": "2"}})
        self.assertEqual(after.osparams_private_cluster, {"os": {"p": "x"}})
        self.cluster = after
        after = self.change(osparams={"os": {"a": None, "b": "default"}}).cluster
        self.assertEqual(after.osparams, {})

    def test_uids(self) -> None:
        """Ranges of user ids are added, each once, and removed."""
        self.cluster = self.change(uid_pool=[[5, 6]]).cluster
        after = self.change(add_uids=[[1, 2], [5, 6]], remove_uids=[[5, 6]]).cluster
        self.assertEqual(after.uid_pool, ((1, 2),))

    def test_collectors(self) -> None:
        """Collectors are switched, and run at other intervals."""
        after = self.change(
            enabled_data_collectors={"drbd": False}, data_collector_interval={"lv": 7}
        ).cluster
        self.assertIs(after.data_collectors["drbd"]["active"], False)
        self.assertEqual(after.data_collectors["lv"]["interval"], 7)
        self.assertIs(after.data_collectors["lv"]["active"], True)

    def test_os_lists(self) -> None:
        """Systems are listed once; what has no effect is said."""
        found = self.change(
            hidden_os=[["add", "a"], ["add", "a"], ["remove", "b"]],
            blacklisted_os=[["add", "a"], ["remove", "a"]],
        )
        self.assertEqual(found.cluster.hidden_os, ("a",))
        self.assertEqual(found.cluster.blacklisted_os, ())
        self.assertEqual(
            found.notes,
            (
                "OS a already in hidden OS list, ignoring",
                "OS b not found in hidden OS list, ignoring",
            ),
        )
