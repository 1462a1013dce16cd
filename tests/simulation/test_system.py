"""Simulated nodes as members of the cluster: addresses, daemons, systems, checks."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.node import OSDefinition
from tests.simulation.nodes import SimulationCase, instance, mirror, volume

ADDRESS = {"uuid": "u", "ip": "198.51.100.1", "netmask": 32, "netdev": "lo", "ip_family": 2}
CONFIG = "/var/lib/ganeti/config.data"

DEBIAN = OSDefinition(
    "debootstrap", variants=("default", "small"), parameters=(("mirror", "Where from"),)
)


class MemberTests(SimulationCase):
    def test_master_address(self) -> None:
        """The master's address is brought up and taken down, each even twice."""
        check = {"master-ip": ["a", "198.51.100.1", ["a", "b"]]}
        for call, there in (("activate", True), ("deactivate", False)):
            for _ in range(2):
                self.ask("a", f"node_{call}_master_ip", ADDRESS, False)
            for node in ("a", "b"):
                found = self.ask(node, "node_verify", check, "cluster", {})
                self.assertEqual(found, {"master-ip": there})
            self.assertEqual(self.ask("a", "node_has_ip_address", "198.51.100.1"), there)
        found = self.ask("c", "node_verify", check, "cluster", {})
        self.assertEqual(found, {"master-ip": None})
        self.fault("a", "node_activate_master_ip", {}, False)
        self.assertIn(
            "not up", self.fault("a", "node_change_master_netmask", 32, 24, "198.51.100.1", "lo")
        )

    def test_own_address(self) -> None:
        """A node knows its own addresses once ssconf was written."""
        self.assertFalse(self.ask("a", "node_has_ip_address", "192.0.2.1"))
        self.ask("a", "write_ssconf_files", {"node_primary_ips": ["a 192.0.2.1", "b 192.0.2.2"]})
        self.assertTrue(self.ask("a", "node_has_ip_address", "192.0.2.1"))
        self.assertFalse(self.ask("a", "node_has_ip_address", "192.0.2.2"))
        self.assertTrue(self.ask("a", "node_has_ip_address", "127.0.0.1"))

    def test_watcher_pause(self) -> None:
        """The pause is returned while it lasts."""
        self.assertIsNone(self.ask("a", "get_watcher_pause"))
        until = self.clock.seconds() + 60
        self.ask("a", "set_watcher_pause", until + 0.5)
        self.assertEqual(self.ask("a", "get_watcher_pause"), int(until))
        self.clock.advance(61)
        self.assertIsNone(self.ask("a", "get_watcher_pause"))
        self.ask("a", "set_watcher_pause", None)
        self.ask("a", "set_watcher_pause", None)
        for wrong in ("soon", True, []):
            self.assertEqual(
                self.fault("a", "set_watcher_pause", wrong), "Duration must be numeric"
            )

    def test_daemons(self) -> None:
        """Only one daemon can be controlled."""
        self.assertTrue(self.ask("a", "node_ensure_daemon", "ganeti-kvmd", True))
        self.assertFalse(self.ask("a", "node_ensure_daemon", "sshd", True))

    def test_certificate(self) -> None:
        """The digest of a node's certificate is unique and never changes."""
        request = [["ssl", "get", None]]
        ((kind, digest),) = self.ask("a", "node_crypto_tokens", request)
        self.assertEqual(kind, "ssl")
        self.assertRegex(digest, "^([0-9A-F]{2}:){19}[0-9A-F]{2}$")
        self.assertNotEqual(self.ask("b", "node_crypto_tokens", request), [[kind, digest]])
        found = self.ask("a", "node_verify", {"client-cert": None}, "cluster", {})
        self.assertEqual(found["client-cert"], [None, digest])
        self.assertIn("not supported", self.fault("a", "node_crypto_tokens", [["x", "get", {}]]))
        self.assertIn("not supported", self.fault("a", "node_crypto_tokens", [["ssl", "x", {}]]))

    def test_demote(self) -> None:
        """A demoted node removes its configuration; the master refuses."""
        self.ask("a", "upload_file", [CONFIG, [0, "{}"], 33184, "m", "c", None, None])
        self.ask("a", "write_ssconf_files", {"master_node": ["b"]})
        self.ask("a", "node_demote_from_mc")
        self.assertEqual(self.ask("a", "get_file_info", CONFIG), [False, {}])
        self.ask("a", "node_demote_from_mc")
        self.ask("b", "write_ssconf_files", {"master_node": ["b"]})
        self.assertEqual(
            self.fault("b", "node_demote_from_mc"),
            "ssconf status shows I'm the master node, will not demote",
        )

    def test_nothing_there(self) -> None:
        """On a new node such calls return nothing, or fail with noded's message."""
        self.assertEqual(self.fault("a", "export_list"), "No exports directory")
        self.assertEqual(self.ask("a", "extstorage_diagnose"), [])
        self.assertIsNone(self.ask("a", "bridges_exist", ["br0"]))
        self.assertTrue(self.ask("a", "etc_hosts_modify", "add", "a", "192.0.2.1"))
        self.fault("a", "etc_hosts_modify", "x", "a", None)


class SystemTests(SimulationCase):
    def setUp(self) -> None:
        super().setUp()
        self.nodes = self.make(
            description=Description(systems=(DEBIAN, OSDefinition("noop", api_versions=(5, 10))))
        )

    def validate(self, name: str, force: bool = False, **parameters: Any) -> Any:
        result = self.result("a", "os_validate", True, name, ["parameters"], parameters, force)
        return result.error or result.payload

    def test_diagnose(self) -> None:
        """Operating systems are listed with all their properties."""
        self.assertEqual(
            self.ask("a", "os_diagnose")[0],
            [
                "debootstrap",
                "/usr/share/ganeti/os/debootstrap",
                True,
                "",
                ["default", "small"],
                [["mirror", "Where from"]],
                [20],
                True,
            ],
        )

    def test_validate(self) -> None:
        """Variants and parameters are checked; the messages are noded's."""
        self.assertIs(self.validate("debootstrap+small", mirror="x"), True)
        self.assertIs(self.validate("debootstrap", force=True), True)
        self.assertIs(self.validate("noop", any_parameter="x"), True)
        self.assertEqual(
            self.validate("debootstrap"), "OS name 'debootstrap' must include a variant"
        )
        self.assertEqual(
            self.validate("debootstrap+x"), "OS 'debootstrap' does not support variant 'x'"
        )
        self.assertEqual(
            self.validate("noop+x"), "OS 'noop' does not support variants ('x' passed)"
        )
        self.assertEqual(
            self.validate("debootstrap+small", z="", b=""),
            "The following parameters are not supported by the OS debootstrap: b, z",
        )
        missing = "Directory for OS none not found in search path"
        self.assertEqual(self.validate("none"), missing)
        self.assertIs(self.ask("a", "os_validate", False, "none", [], {}, False), False)
        self.assertIn(
            "Unknown checks", self.fault("a", "os_validate", True, "noop", ["x"], {}, True)
        )
        self.assertEqual(
            self.fault("a", "instance_os_add", instance(os="none+x"), False, 0), missing
        )
        self.ask("a", "instance_os_add", instance(), True, 0)
        self.ask("a", "instance_run_rename", instance(), "old", 0)
        self.assertEqual(
            self.fault("a", "instance_run_rename", instance(os="none"), "old", 0), missing
        )


class VerifyTests(SimulationCase):
    def verify(self, node: str = "a", **checks: Any) -> Any:
        wanted = {key.replace("_", "-"): value for key, value in checks.items()}
        return self.ask(node, "node_verify", wanted, "cluster", {})

    def test_empty(self) -> None:
        """An empty request has an empty answer; unknown keys are left out."""
        self.assertEqual(self.verify(), {})
        self.assertEqual(self.verify(no_such_check=1), {})
        self.assertEqual(
            self.ask("a", "node_verify_light", {"version": None}, "c", {}),
            {"version": [3000000, "3.0.2"]},
        )

    def test_healthy(self) -> None:
        """A healthy node reports no errors."""
        found = self.verify(
            hypervisor=["fake"],
            hvparms=[["cluster", "fake", {}]],
            nodelist=[["a", "b"], {}, ["a"]],
            node_net_test=[[["a", "1", "1"], ["b", "2", "2"]], ["a"]],
            user_scripts=["/x"],
            nodesetup=None,
            bridges=["br0"],
            file_storage_path="/srv",
            allowed_file_storage_paths="a",
            drbd_helper="/bin/true",
        )
        self.assertEqual(
            found,
            {
                "hypervisor": {"fake": None},
                "hvparms": [],
                "nodelist": {},
                "node-net-test": {},
                "user-scripts": [],
                "nodesetup": [],
                "bridges": [],
                "allowed-file-storage-paths": [],
                "drbd-helper": [True, "/bin/true"],
            },
        )
        self.assertEqual(self.verify("b", allowed_file_storage_paths="a"), {})

    def test_faults(self) -> None:
        """A failing check is reported, and the others are still made."""
        self.nodes = self.make(names=["a", "b"])
        found = self.verify(
            hypervisor=["vax"],
            hvparms=[["os x", "vax", {}]],
            nodelist=[["b"], {"a": ["gone"]}, ["a"]],
            node_net_test=[[["a", "1", "1"], ["gone", "2", "3"]], ["a"]],
            instancelist=["vax"],
        )
        unknown = "Unknown hypervisor type 'vax'"
        self.assertIn(unknown, found["hypervisor"]["vax"])
        self.assertEqual(found["hvparms"], [["os x", "vax", unknown]])
        self.assertEqual(list(found["nodelist"]), ["gone"])
        self.assertEqual(
            found["node-net-test"], {"gone": "failure using the primary and secondary interface(s)"}
        )
        self.assertEqual(found["instancelist"], unknown)
        found = self.verify(node_net_test=[[["b", "1", "1"]], ["a"]])
        self.assertEqual(list(found["node-net-test"]), ["a"])

    def test_candidates_only(self) -> None:
        """Only candidates check whether others can be reached."""
        self.nodes = self.make(names=["a"])
        found = self.verify(
            nodelist=[["gone"], {}, ["b"]], node_net_test=[[["gone", "1", "1"]], ["b"]]
        )
        self.assertEqual(found, {"nodelist": {}, "node-net-test": {}})

    def test_storage(self) -> None:
        """Volumes of all groups and mirrors are listed."""
        for disk in [*mirror(3)["children"], mirror(3), volume("more")]:
            self.ask("a", "blockdev_create", disk, disk["size"], "web", True, "", False)
        found = self.verify(
            lvlist="another",
            vglist=None,
            pvlist=["xenvg"],
            exclusive_pvs=None,
            drbd_list=None,
            drbd_version=None,
        )
        self.assertEqual(len(found["lvlist"]), 3)
        self.assertEqual(found["vglist"], {"xenvg": 1048576})
        self.assertEqual(found["pvlist"][0]["vg_name"], "xenvg")
        self.assertEqual(found["drbd-list"], [3])
        self.assertEqual(found["exclusive-pvs"], [])
        self.assertEqual(self.verify(pvlist=["none"]), {"pvlist": []})

    def test_spared(self) -> None:
        """A node that can't run instances skips their checks."""
        found = self.verify(nonvmnodes=["a"], instancelist=["fake"], vglist=None, version=None)
        self.assertEqual(list(found), ["version"])

    def test_more(self) -> None:
        """Instances, memory, operating systems and the clock are reported."""
        self.ask("a", "instance_start", instance(), False, [])
        self.clock.advance(0.25)
        found = self.verify(instancelist=["fake"], hvinfo="fake", oslist=None, time=None)
        self.assertEqual(found["instancelist"], ["web"])
        self.assertEqual(found["hvinfo"]["memory_free"], 65536 - 1024 - 512)
        self.assertEqual(found["oslist"][0][0], "noop")
        self.assertEqual(found["time"], [1700000000, 250000])
