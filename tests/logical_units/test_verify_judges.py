"""Tests of the checks of nodes' answers: nodes, storage, systems, files and certificates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.objects import Node
from ganeti_masterd.logical_units.verification import (
    certificates,
    files,
    nodes,
    storage,
    systems,
)
from ganeti_masterd.logical_units.verification.pictures import Picture
from ganeti_masterd.logical_units.verification.report import CODES, Finding
from ganeti_masterd.startup.simulated_keys import files as key_files
from tests.config.parameters.facts import FACTS
from tests.logical_units.cluster import with_instance

#: An answer without faults.
GOOD: dict[str, Any] = {
    "version": [3000000, "3.0.2"],
    "hypervisor": {"fake": None},
    "hvparms": [],
    "nodesetup": [],
    "time": [1000, 0],
    "nodelist": {},
    "node-net-test": {},
    "master-ip": True,
    "user-scripts": [],
    "vglist": {"xenvg": 30000.0},
    "pvlist": [{"name": "/dev/sda", "vg_name": "xenvg", "size": 100.0}],
    "lvlist": {},
    "drbd-helper": [True, "/bin/true"],
    "drbd-list": [],
    "instancelist": [],
    "hvinfo": {"memory_free": 512},
    "oslist": [],
    "bridges": [],
}


def texts(findings: Iterable[Finding]) -> list[str]:
    """Returns the codes and texts of findings."""
    return [f"{finding.code} {finding.text}" for finding in findings]


class JudgeScene(SynchronousTestCase):
    """Base: a cluster of three nodes, of which the first is checked."""

    def setUp(self) -> None:
        self.snapshot = new_cluster("cluster", 3, 1000.0)
        self.node: Node = self.snapshot.node("node1")
        self.picture = Picture(self.node.uuid, self.node)

    @property
    def cluster(self) -> Any:
        """The cluster."""
        return self.snapshot.cluster

    def expect(self, findings: Iterable[Finding], *expected: str) -> None:
        """Compares findings, by code and text."""
        self.assertEqual(texts(findings), list(expected))


class CodeTests(SynchronousTestCase):
    """The codes are Ganeti's."""

    def test_codes(self) -> None:
        """Each code has the kind of object that it has there."""
        self.assertEqual(CODES, FACTS["VERIFY_CODES"])


class NodeTests(JudgeScene):
    """Checks of a node itself."""

    def test_unusable(self) -> None:
        """A malformed answer, or one with another protocol version, ends the checks."""
        for answer, text in (
            (None, "ENODERPC unable to verify node: no data returned"),
            ({}, "ENODERPC unable to verify node: no data returned"),
            ("text", "ENODERPC unable to verify node: no data returned"),
            ({"version": 3}, "ENODERPC connection to node returned invalid data"),
            (
                {"version": [2, "2"]},
                "ENODEVERSION incompatible protocol versions: master 3000000, node 2",
            ),
        ):
            found = nodes.unusable(self.node, answer)
            assert found is not None
            self.expect([found], text)
        self.assertIsNone(nodes.unusable(self.node, GOOD))

    def test_good(self) -> None:
        """A good answer has no faults."""
        self.expect(nodes.setup_faults(self.node, GOOD))
        self.expect(nodes.time_faults(self.node, GOOD, 1000.0, 1001.0))
        self.expect(nodes.network_faults(self.node, GOOD, is_master=True))
        self.expect(nodes.script_faults(self.node, GOOD))
        self.expect(nodes.bridge_faults(self.node, GOOD, ["br0"]))
        self.expect(nodes.read_hypervisor(self.picture, GOOD))

    def test_setup(self) -> None:
        """Faults of hypervisors, their parameters, set-up and version are reported."""
        answer = {
            **GOOD,
            "version": [3000000, "3.0.1"],
            "hypervisor": {"fake": "broken"},
            "hvparms": [["cluster", "fake", "bad"]],
            "nodesetup": ["one", "two"],
        }
        self.expect(
            nodes.setup_faults(self.node, answer),
            "ENODEVERSION software version mismatch: master 3.0.2, node 3.0.1",
            "ENODEHV hypervisor fake verify failure: 'broken'",
            "ENODEHV hypervisor fake parameter verify failure (source cluster): bad",
            "ENODESETUP node setup error: one; two",
        )
        del answer["nodesetup"]
        found = list(nodes.setup_faults(replace(self.node, vm_capable=False), answer))
        self.assertEqual([f.code for f in found], ["ENODEVERSION", "ENODESETUP"])
        self.assertEqual(found[0].severity, "WARNING")

    def test_time(self) -> None:
        """A clock may be off by the duration of the call plus 150 s."""
        for told, text in (
            ([800, 0], "Node time diverges by at least 200.0s from master node time"),
            ([1200, 500000], "Node time diverges by at least 190.5s from master node time"),
            (None, "Node returned invalid time"),
            ([1], "Node returned invalid time"),
            (["a", "b"], "Node returned invalid time"),
        ):
            found = nodes.time_faults(self.node, {"time": told}, 1000.0, 1010.0)
            self.expect(found, f"ENODETIME {text}")
        self.expect(nodes.time_faults(self.node, {"time": [1150, 0]}, 1000.0, 1010.0))

    def test_network(self) -> None:
        """The nodes that can't be reached are named, in natural order."""
        answer = {
            "nodelist": {"node2": "refused"},
            "node-net-test": {"node10": "b", "node9": "a"},
            "master-ip": False,
        }
        self.expect(
            nodes.network_faults(self.node, answer, is_master=False),
            "ENODESSH ssh communication with node 'node2': refused",
            "ENODENET tcp communication with node 'node9': a",
            "ENODENET tcp communication with node 'node10': b",
            "ENODENET cannot reach the master IP",
        )
        self.expect(
            nodes.network_faults(self.node, {}, is_master=True),
            "ENODESSH node hasn't returned node ssh connectivity data",
            "ENODENET node hasn't returned node tcp connectivity data",
            "ENODENET node hasn't returned node master IP reachability data",
        )
        (fault,) = nodes.network_faults(self.node, {**GOOD, "master-ip": False}, is_master=True)
        self.assertIn("the master node cannot reach the master IP", fault.text)
        self.expect(nodes.network_faults(self.node, {**GOOD, "master-ip": None}, is_master=False))

    def test_scripts(self) -> None:
        """Scripts and programs that are missing are named."""
        self.expect(
            nodes.script_faults(
                self.node, {"user-scripts": ["/b", "/a"], "oob-paths": [None, "x"]}
            ),
            "ENODEUSERSCRIPTS user scripts not present or not executable: /a, /b",
            "ENODEOOBPATH x",
        )
        self.expect(
            nodes.script_faults(self.node, {}),
            "ENODEUSERSCRIPTS did not return user scripts information",
        )

    def test_storage_paths(self) -> None:
        """Folders of enabled file storage are checked, forbidden ones on the master."""
        key = "allowed-file-storage-paths"
        self.expect(
            nodes.storage_path_faults(
                self.cluster,
                self.node,
                {key: ["/bin"], "file-storage-path": "gone", "gluster-storage-path": "x"},
                is_master=True,
            ),
            "ENODEFILESTORAGEPATHS Found forbidden file storage paths: /bin",
            "ENODEFILESTORAGEPATHUNUSABLE The configured file storage path is unusable: gone",
        )
        self.expect(
            nodes.storage_path_faults(self.cluster, self.node, {}, is_master=True),
            "ENODEFILESTORAGEPATHS Node did not return forbidden file storage paths",
        )
        self.expect(
            nodes.storage_path_faults(self.cluster, self.node, {key: []}, is_master=False),
            "ENODEFILESTORAGEPATHS Node should not have returned forbidden file storage paths",
        )

    def test_bridges(self) -> None:
        """Missing bridges are named, if any are wanted."""
        self.expect(
            nodes.bridge_faults(self.node, {"bridges": ["b", "a"]}, ["a", "b"]),
            "ENODENET missing bridges: a, b",
        )
        self.expect(
            nodes.bridge_faults(self.node, {}, ["a"]),
            "ENODENET did not return valid bridge information",
        )
        self.expect(nodes.bridge_faults(self.node, {}, []))

    def test_hypervisor(self) -> None:
        """Running instances and free memory are filled in."""
        answer = {"instancelist": ["a"], "hvinfo": {"memory_free": "7"}}
        self.expect(nodes.read_hypervisor(self.picture, answer))
        self.assertEqual((self.picture.running, self.picture.memory_free), ({"a"}, 7))
        self.expect(
            nodes.read_hypervisor(self.picture, {"instancelist": "dead", "hvinfo": "x"}),
            "ENODEHV rpc call to node failed (instancelist): dead",
            "ENODEHV rpc call to node failed (hvinfo)",
        )
        self.expect(
            nodes.read_hypervisor(
                self.picture, {"instancelist": [], "hvinfo": {"memory_free": None}}
            ),
            "ENODERPC node returned invalid nodeinfo, check hypervisor",
        )

    def test_ssh(self) -> None:
        """Faults of SSH keys are passed on."""
        self.expect(nodes.ssh_faults(self.node, {"ssh-setup": [], "ssh-clutter": None}))
        self.expect(nodes.ssh_faults(self.node, {"ssh-setup": ["a", "b"]}), "ENODESSH a b")
        self.expect(
            nodes.ssh_faults(self.node, None),
            "ENODESSH Could not verify the SSH setup of this node.",
        )


class StorageTests(JudgeScene):
    """Volume groups, volumes, and DRBD."""

    def test_volume_group(self) -> None:
        """A volume group is there and large enough, and its physical volumes well named."""
        for change, text in (
            ({"vglist": {}}, "ENODELVM unable to check volume groups"),
            ({"vglist": {"other": 1}}, "ENODELVM volume group 'xenvg' missing"),
            ({"pvlist": None}, "ENODELVM Can't get PV list from node"),
            (
                {"pvlist": [{"name": "a:b", "vg_name": "xenvg", "size": 1}]},
                "ENODELVM Invalid character ':' in PV 'a:b' of VG 'xenvg'",
            ),
        ):
            answer = {**GOOD, **change}
            self.expect(
                storage.volume_group_faults(self.cluster, self.picture, answer, exclusive=False),
                text,
            )
        none = replace(self.cluster, volume_group_name=None)
        self.expect(storage.volume_group_faults(none, self.picture, {}, exclusive=True))
        self.expect(storage.volume_faults(none, self.picture, {}))

    def test_exclusive(self) -> None:
        """Exclusive storage wants physical volumes of one size, each with volumes of one disk."""
        rows = [{"name": n, "vg_name": "xenvg", "size": s} for n, s in (("a", 100.0), ("b", 200.0))]
        answer = {**GOOD, "pvlist": rows, "exclusive-pvs": [["a", ["x", "y"]]]}
        self.expect(
            storage.volume_group_faults(self.cluster, self.picture, answer, exclusive=True),
            "ENODELVM Sizes of PVs are too different: min=100 max=200",
            "ENODELVM PV a is shared among unrelated LVs (x, y)",
        )
        self.assertEqual(self.picture.physical, (100.0, 200.0))
        self.expect(
            storage.physical_size_faults("default", [self.picture]),
            "EGROUPDIFFERENTPVSIZE PV sizes differ too much in the group; smallest (100.0 MB) is on"
            " node1, biggest (200.0 MB) is on node1",
        )
        self.expect(storage.physical_size_faults("default", []))

    def test_volumes(self) -> None:
        """Volumes are filled in, or an error is reported."""
        self.expect(storage.volume_faults(self.cluster, self.picture, {"lvlist": {"xenvg/a": []}}))
        self.assertEqual(list(self.picture.volumes), ["xenvg/a"])
        for told, text in (
            (None, "rpc call to node failed (lvlist)"),
            ("x", "LVM problem on node: x"),
        ):
            picture = Picture(self.node.uuid, self.node)
            self.expect(
                storage.volume_faults(self.cluster, picture, {"lvlist": told}), f"ENODELVM {text}"
            )
            self.assertIsNone(picture.volumes)

    def test_space(self) -> None:
        """The free space of the volume group must be in the answer."""
        (fault,) = storage.group_space_faults(self.cluster, self.node, {"vglist": {}})
        self.assertIn("didn't return data for the volume group 'xenvg'", fault.text)
        self.expect(storage.group_space_faults(self.cluster, self.node, GOOD))

    def test_orphans(self) -> None:
        """An orphan volume is reported, unless it is reserved or in another volume group."""
        cluster = replace(self.cluster, reserved_lvs=("xenvg/root.*",))
        self.picture.volumes = dict.fromkeys(["xenvg/own", "xenvg/lost", "xenvg/root1", "other/x"])
        found = list(
            storage.orphan_volumes(
                cluster, [self.picture, Picture("x", None)], {self.node.uuid: ["xenvg/own"]}
            )
        )
        self.expect(found, "ENODEORPHANLV volume xenvg/lost is unknown")
        self.assertEqual(found[0].severity, "WARNING")

    def test_reserved_by_no_pattern(self) -> None:
        """An invalid pattern is reported, and the others still apply."""
        cluster = replace(self.cluster, reserved_lvs=("(?!x)", "xenvg/root.*"))
        self.picture.volumes = {"xenvg/root1": None}
        self.expect(
            storage.orphan_volumes(cluster, [self.picture], {}),
            "ENODEORPHANLV pattern of reserved volumes '(?!x)' is left out: "
            "invalid perl operator: (?!",
        )

    def test_drbd(self) -> None:
        """Minors that should be active are, and no others."""
        snapshot = with_instance(
            self.snapshot, "one", ["node1", "node2"], template="drbd", disks_active=True
        )
        self.expect(
            storage.drbd_faults(snapshot, self.node, {**GOOD, "drbd-list": [7]}),
            "ENODEDRBD drbd minor 0 of disk d-one (attached in instance 'one') is not active",
            "ENODEDRBD unallocated drbd minor 7 is in use",
        )
        self.expect(storage.drbd_faults(snapshot, self.node, {**GOOD, "drbd-list": [0]}))
        self.expect(
            storage.drbd_faults(snapshot, self.node, {**GOOD, "drbd-list": "x"}),
            "ENODEDRBD cannot parse drbd status file: x",
        )

    def test_drbd_helper(self) -> None:
        """The helper is there, and the one configured."""
        for told, text in (
            (None, "no drbd usermode helper returned"),
            ([False, "gone"], "drbd usermode helper check unsuccessful: gone"),
            ([True, "/x"], "wrong drbd usermode helper: /x"),
        ):
            answer = {**GOOD, "drbd-helper": told}
            self.expect(
                storage.drbd_faults(self.snapshot, self.node, answer), f"ENODEDRBDHELPER {text}"
            )

    def test_drbd_versions(self) -> None:
        """A group's nodes have one version of DRBD."""
        self.expect(storage.drbd_version_faults({"a": "8", "b": "8"}))
        self.expect(
            storage.drbd_version_faults({"b": "9", "a": "8"}),
            "ENODEDRBDHELPER DRBD version mismatch: 8",
            "ENODEDRBDHELPER DRBD version mismatch: 9",
        )


def system(name: str = "os", **change: Any) -> list[Any]:
    """Returns a row of ``os_diagnose``."""
    row = {
        "path": "/srv/os",
        "valid": True,
        "message": "",
        "variants": ["a"],
        "parameters": [["p", "doc"]],
        "api": [20],
        "trusted": True,
        **change,
    }
    return [name, *row.values()]


class SystemTests(JudgeScene):
    """Nodes have the same operating systems."""

    def painted(self, *rows: list[Any]) -> Picture:
        """Returns a picture of a node with these systems."""
        picture = Picture(self.node.uuid, self.node)
        self.expect(systems.read_systems(picture, list(rows)))
        return picture

    def test_same(self) -> None:
        """The same systems differ in nothing."""
        self.expect(systems.system_faults(self.painted(system()), self.painted(system())))

    def test_nonsense(self) -> None:
        """An answer that isn't a list of systems is reported, and not filled in."""
        for rows in (None, "x", [["os"]], [system(valid="maybe")]):
            self.expect(
                systems.read_systems(self.picture, rows),
                "ENODEOS node hasn't returned valid OS data",
            )
            self.assertIsNone(self.picture.systems)

    def test_different(self) -> None:
        """Every difference from the reference node is reported."""
        other = self.painted(
            system(variants=["b"], parameters=[["q", "doc"]], api=[15], trusted=False),
            system("extra", valid=False, message="broken"),
            system("extra", path="/other"),
        )
        self.expect(
            systems.system_faults(other, self.painted(system(), system("missing"))),
            "ENODEOS OS API version for os differs from reference node node1: [15] vs. [20]",
            "ENODEOS OS variants list for os differs from reference node node1: [b] vs. [a]",
            "ENODEOS OS parameters for os differs from reference node node1: [q: doc] vs. [p: doc]",
            "ENODEOS OS trusted for os differs from reference node node1: False vs. True",
            "ENODEOS Invalid OS extra (located at /srv/os): broken",
            "ENODEOS OS 'extra' has multiple entries (first one shadows the rest): /srv/os, /other",
            "ENODEOS Extra OS extra not present on reference node (node1)",
            "ENODEOS OSes present on reference node node1 but missing on this node: missing",
        )

    def test_invalid_reference(self) -> None:
        """Nothing is compared with a system that is broken itself."""
        reference = self.painted(system(valid=False, api=[1]))
        self.expect(systems.system_faults(self.painted(system()), reference))


class FileTests(JudgeScene):
    """Files exist where they should, and are the same."""

    def compare(self, **digests: Any) -> files.FileComparison:
        """Compares one file of each kind on three nodes."""
        kinds = files.VerifiedFiles(
            ("/all", "/var/lib/ganeti/rapi/users"), (files.CONFIG,), ("/vm",)
        )
        nodes_ = [self.snapshot.node(name) for name in ("node1", "node2", "node3")]
        nodes_[2] = replace(nodes_[2], master_candidate=False, vm_capable=False)
        told = {n.uuid: digests[n.name] for n in nodes_ if n.name in digests}
        return files.compare(kinds, nodes_, told, self.cluster.master_node, "/root")

    def good(self) -> dict[str, dict[str, str]]:
        """Returns the digests of sound nodes."""
        config = "/root" + files.CONFIG
        host = {"/root/all": "1", config: "2", "/root/vm": "3"}
        return {"node1": dict(host), "node2": dict(host), "node3": {"/root/all": "1"}}

    def test_good(self) -> None:
        """Nothing is wrong with files that are as they should be."""
        found = self.compare(**self.good())
        self.assertEqual((found.findings, found.replicated), ((), ()))

    def test_missing(self) -> None:
        """Missing and superfluous files are reported with their nodes."""
        told = self.good()
        del told["node2"]["/root/all"]
        told["node3"]["/root/vm"] = "3"
        self.expect(
            self.compare(**told).findings,
            "ECLUSTERFILECHECK File /root/all is missing from node(s) node2",
            "ECLUSTERFILECHECK File /root/vm should not exist on node(s) node3",
        )

    def test_variants(self) -> None:
        """Different contents are reported; replicated files, which may still arrive, are marked."""
        told = self.good()
        told["node2"]["/root" + files.CONFIG] = "9"
        found = self.compare(**told)
        self.expect(
            found.findings,
            "ECLUSTERFILECHECK File /root/var/lib/ganeti/config.data found with 2 different"
            " checksums (variant 1 on node1; variant 2 on node2)",
        )
        self.assertEqual(found.replicated, (files.CONFIG,))

    def test_optional(self) -> None:
        """An optional file is everywhere or nowhere."""
        told = self.good()
        told["node1"]["/root/var/lib/ganeti/rapi/users"] = "1"
        self.expect(
            self.compare(**told).findings,
            "ECLUSTERFILECHECK File /root/var/lib/ganeti/rapi/users is optional, but it must exist"
            " on all or no nodes (not found on node2, node3)",
        )

    def test_silent(self) -> None:
        """A node without an answer is reported, and not compared."""
        told: dict[str, Any] = {**self.good(), "node3": None}
        found = self.compare(**told)
        self.expect(found.findings, "ENODEFILECHECK Node did not return file checksum data")
        self.assertEqual(found.findings[0].name, "node3")

    def test_listed(self) -> None:
        """Files go by the cluster: hypervisors, storage, hosts file, the master's script."""
        cluster = replace(
            self.cluster,
            enabled_hypervisors=("kvm", "xen-hvm"),
            modify_etc_hosts=True,
            use_external_mip_script=True,
        )
        found = files.verified_files(self.snapshot.with_object("cluster", cluster))
        self.assertIn("/etc/hosts", found.paths("/root"))
        self.assertIn("/root/etc/ganeti/scripts/master-ip-setup", found.paths("/root"))
        self.assertIn("/etc/ganeti/kvm-vif-bridge", found.on_instance_nodes)
        self.assertIn("/etc/ganeti/vnc-cluster-password", found.on_instance_nodes)
        self.assertIn("/var/lib/ganeti/ssconf_node_list", found.everywhere)
        self.assertIn(files.STORAGE_PATHS, found.everywhere)
        self.assertEqual(len(found.paths("")), len(set(found.paths(""))))


class CertificateTests(JudgeScene):
    """Certificates are those that are listed, and last for a while."""

    def client(self, shown: dict[str, Any], listed: dict[str, str]) -> list[str]:
        """Returns the faults of the certificates that two nodes show, the second no candidate."""
        nodes_ = {
            "a": replace(self.node, uuid="a"),
            "b": replace(self.node, uuid="b", master_candidate=False),
        }
        found = texts(certificates.client_faults(nodes_, shown, listed))
        if found:
            self.assertIn(certificates.REBUILD, found[-1])
        return [text.removeprefix("ECLUSTERCLIENTCERT ") for text in found[:-1]]

    def test_client(self) -> None:
        """Every difference between a certificate and the listed one is reported."""
        for shown, listed, text in (
            ({"a": [None, "A"]}, {"a": "A"}, None),
            ({"b": [None, "B"]}, {"a": "A"}, None),
            ({"a": [None, "X"]}, {"a": "A"}, "does not match its entry"),
            ({"a": ["E", "old"]}, {"a": "A"}, "failed validation: old (code 'E')"),
            ({"a": [None, "A"]}, {"c": "C"}, "does not have an entry"),
            ({"b": [None, "B"]}, {"b": "B"}, "is not a master candidate, but still listed"),
            ({"b": [None, "A"]}, {"a": "A"}, "is incorrectly using a certificate of another"),
            ({"a": "nonsense"}, {"a": "A"}, "did not tell its client certificate"),
            ({}, {"a": "A", "c": "A"}, "at least two master candidates configured to use the same"),
        ):
            found = self.client(shown, listed)
            if text is None:
                self.assertEqual(found, [])
            else:
                self.assertEqual(len(found), 1, found)
                self.assertIn(text, found[0])

    def test_anothers(self) -> None:
        """A candidate that isn't listed may use another's."""
        found = self.client({"a": [None, "C"]}, {"c": "C"})
        self.assertEqual(len(found), 2)
        self.assertIn("is using a certificate of another node", found[1])

    def test_none_listed(self) -> None:
        """No list at all is one fault."""
        (text,) = texts(certificates.client_faults({}, {}, {}))
        self.assertIn("list of master candidate certificates is empty", text)

    def test_file(self) -> None:
        """A certificate is good until 30 days before its end."""
        path = self.mktemp()
        made = {name: content for name, content, _ in key_files(1000.0)}
        with open(path, "wb") as file:
            file.write(made["server.pem"])
        end = 1000.0 + 5 * 365 * 86400
        for now, expected in (
            (1000.0, None),
            (end - 29 * 86400, ("WARNING", "Certificate expires in about 29 days")),
            (end - 6 * 86400, ("ERROR", "Certificate expires in about 6 days")),
            (end + 1, ("ERROR", "Certificate is expired (valid from")),
            (-2000.0, ("WARNING", "Certificate not yet valid")),
        ):
            found = list(certificates.check_file(path, now))
            if expected is None:
                self.assertEqual(found, [])
            else:
                self.assertEqual(found[0].severity, expected[0])
                self.assertIn(f"While verifying {path}: {expected[1]}", found[0].text)

    def test_no_file(self) -> None:
        """A file that is missing or isn't a certificate is reported."""
        path = self.mktemp()
        for _ in range(2):
            (fault,) = certificates.check_file(path, 0.0)
            self.assertIn(f"Failed to load X509 certificate {path}", fault.text)
            with open(path, "w") as file:
                file.write("nothing")
