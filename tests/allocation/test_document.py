"""Requests, and the document sent with them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.allocation.document import Descriptions, document, questions
from ganeti_masterd.allocation.requests import (
    Allocate,
    AllocateSecondary,
    AllocationRequest,
    ChangeGroup,
    EvacuationRequest,
    MultiAllocate,
    Relocate,
)
from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.objects import Nic
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import (
    OpExecError,
    OpPrereqError,
    ResultValidationError,
)
from ganeti_masterd.rpc.calls import ALL_INSTANCES_INFO, NODE_INFO
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import typed
from tests.logical_units.cluster import with_instance

ROOM = {
    "memory_total": 8000,
    "memory_free": 6000,
    "memory_dom0": 500,
    "cpu_total": 8,
    "cpu_dom0": 2,
    "cpu_nodes": 1,
    "cpu_sockets": 1,
}
FILES = {"type": "file", "name": "/files", "storage_size": 1000, "storage_free": 400}


def new(**about: Any) -> Allocate:
    """Returns a request for a new instance."""
    described: dict[str, Any] = {
        "name": "new",
        "memory": 512,
        "vcpus": 2,
        "disk_template": "file",
        "disks": ({"size": 100, "mode": "rw"}, {"size": 50, "mode": "ro"}),
        "nics": ({"mac": "auto"},),
        "os": "noop",
        "hypervisor": "fake",
        "tags": ("x",),
    }
    return Allocate(**{**described, **about})


class DescriptionTests(SynchronousTestCase):
    """Descriptions of instances that are kept from one document to the next."""

    def test_changes(self) -> None:
        """They always are as if made anew, and what is unchanged is the same object."""
        kept = Descriptions()
        now = new_cluster("cluster", 3, 1000.0)
        now = with_instance(now, "web", ("node1", "node2"), template="drbd")
        now = with_instance(now, "db", ("node2", "node3"), template="drbd")
        web, disk = now.instance("web"), now.disks["d-web"]
        backend = {**now.cluster.beparams["default"], "vcpus": 7}
        defaults = {**now.cluster.beparams, "default": backend}
        changes = (
            ("instances", web.with_tags(["x"])),
            ("disks", replace(disk, size=4096)),
            ("instances", replace(web, disks=())),
            ("cluster", replace(now.cluster, beparams=defaults)),
        )
        before = kept.of(now)
        self.assertEqual(before, Descriptions().of(now))
        for section, changed in changes:
            now = now.with_object(section, changed)
            after = kept.of(now)
            self.assertEqual(after, Descriptions().of(now))
            self.assertNotEqual(after["web"], before["web"])
            self.assertEqual(after["db"] is before["db"], section != "cluster")
            before = after
        gone = now.without("instances", web.uuid)
        self.assertEqual(set(kept.of(gone)), {"db"})


class DocumentScene(SynchronousTestCase):
    """Three nodes that report their resources."""

    def setUp(self) -> None:
        self.snapshot = new_cluster("cluster", 3, 1000.0)
        self.running: dict[str, Any] = {}
        self.storage: list[Any] = [FILES]

    def put(self, name: str, *nodes: str, **about: Any) -> None:
        self.snapshot = with_instance(self.snapshot, name, nodes, **about)

    def change_node(self, name: str, **about: Any) -> None:
        node = replace(self.snapshot.node(name), **about)
        self.snapshot = self.snapshot.with_object("nodes", node)

    def told(self, request: AllocationRequest, **wrong: NodeResult) -> dict[str, Any]:
        """Returns the document; ``wrong`` are answers of ``node_info`` by node name."""
        asked = questions(self.snapshot, request)
        info = {
            uuid: wrong.get(self.name(uuid))
            or self.answered(uuid, NODE_INFO, ["boot", self.storage, [ROOM]])
            for uuid in asked.nodes
        }
        instances = {
            uuid: self.answered(uuid, ALL_INSTANCES_INFO, self.running) for uuid in asked.nodes
        }
        return document(self.snapshot, request, asked, info, instances)

    def answered(self, uuid: str, call: Call[Any], payload: Any) -> NodeResult[Any]:
        return typed(NodeResult(self.name(uuid), call.name, payload), call)

    def name(self, uuid: str) -> str:
        return self.snapshot.nodes[uuid].name


class QuestionTests(DocumentScene):
    """What nodes are asked."""

    def units(self, snapshot: Snapshot, request: AllocationRequest) -> list[Any]:
        node = snapshot.node("node1").uuid
        return questions(snapshot, request).info[node][0]

    def test_storage_of_the_template(self) -> None:
        """A node is asked only about the storage of the request's template."""
        cluster = replace(self.snapshot.cluster, volume_group_name="vg0")
        snapshot = self.snapshot.with_object("cluster", cluster)
        directory = cluster.file_storage_dir
        self.assertEqual(self.units(snapshot, new()), [["file", directory, []]])
        for template in ("plain", "drbd"):
            asked = self.units(snapshot, new(disk_template=template))
            self.assertEqual(asked, [["lvm-vg", "vg0", [False]]])
        for template in ("diskless", "rbd"):
            self.assertEqual(self.units(snapshot, new(disk_template=template)), [])

    def test_spindles(self) -> None:
        """With exclusive storage, nodes are asked about spindles too."""
        cluster = replace(self.snapshot.cluster, volume_group_name="vg0")
        snapshot = self.snapshot.with_object("cluster", cluster)
        group = replace(snapshot.group("default"), ndparams={"exclusive_storage": True})
        snapshot = snapshot.with_object("nodegroups", group)
        self.assertEqual(
            self.units(snapshot, new(disk_template="plain")),
            [["lvm-vg", "vg0", [True]], ["lvm-pv", "vg0", [True]]],
        )

    def test_who_is_asked(self) -> None:
        """Nodes that can't run instances aren't asked; others are asked about one hypervisor."""
        self.change_node("node2", vm_capable=False)
        asked = questions(self.snapshot, new())
        self.assertEqual({self.name(uuid) for uuid in asked.nodes}, {"node1", "node3"})
        _, specs = asked.info[self.snapshot.node("node1").uuid]
        self.assertEqual([name for name, _ in specs], ["fake"])
        self.assertEqual(asked.instances[0], ["fake"])

    def test_template_of_each_request(self) -> None:
        """Each request has a template whose storage nodes are asked about."""
        self.put("db", "node1", "node2", template="drbd")
        self.put("files", "node1", template="file")
        self.put("solo", "node1")
        for request, template in (
            (new(), "file"),
            (MultiAllocate(instances=[new(disk_template="plain")]), "plain"),
            (MultiAllocate(instances=[]), None),
            (AllocateSecondary(name="db"), "drbd"),
            (Relocate(name="db", leaving=()), "drbd"),
            (EvacuationRequest(instances=["db"], evac_mode="all"), "drbd"),
            (EvacuationRequest(instances=[], evac_mode="all"), None),
            (ChangeGroup(instances=["db"]), "drbd"),
            # Only mirrors need room where they go.
            (ChangeGroup(instances=["files", "db"]), "drbd"),
            (EvacuationRequest(instances=["files", "solo"], evac_mode="all"), "file"),
        ):
            self.assertEqual(request.template_for(self.snapshot), template)
            first = self.snapshot.cluster.enabled_disk_templates[0]
            self.assertEqual(questions(self.snapshot, request).template, template or first)


class ContentTests(DocumentScene):
    """What is in the document."""

    def test_node(self) -> None:
        """A node has its effective parameters and its live data."""
        node = self.told(new())["nodes"]["node1"]
        for key, value in {
            "total_memory": 8000,
            "reserved_memory": 500,
            "free_memory": 6000,
            "total_disk": 1000,
            "free_disk": 400,
            "total_spindles": 0,
            "free_spindles": 0,
            "total_cpus": 8,
            "reserved_cpus": 2,
            "i_pri_memory": 0,
            "i_pri_up_memory": 0,
            "offline": False,
            "vm_capable": True,
            "primary_ip": "198.51.100.1",
        }.items():
            self.assertEqual(node[key], value, key)
        self.assertEqual(node["ndparams"]["ssh_port"], 22)

    def test_memory(self) -> None:
        """Memory that running instances may still take isn't free."""
        self.put("up", "node1", admin_state="up", beparams={"maxmem": 1000})
        self.put("gone", "node1", admin_state="up", beparams={"maxmem": 200})
        self.put("down", "node1", beparams={"maxmem": 3000})
        self.put("planned", "node1", admin_state="up", forthcoming=True, beparams={"maxmem": 50})
        self.running = {"up": {"memory": 400, "vcpus": 1, "state": 0, "time": 0.0}}
        node = self.told(new())["nodes"]["node1"]
        self.assertEqual(node["free_memory"], 6000 - 600 - 200)
        self.assertEqual((node["i_pri_memory"], node["i_pri_up_memory"]), (4250, 1200))
        self.assertEqual(self.told(new())["nodes"]["node2"]["free_memory"], 6000)

    def test_instance(self) -> None:
        """An instance has its effective parameters and its nodes' names."""
        nic = Nic(mac="aa:00:00:00:00:01", uuid="n", ip="203.0.113.7", nicparams={"link": "br1"})
        routed = Nic(mac="aa:00:00:00:00:02", uuid="m", nicparams={"mode": "routed"}, network="n-1")
        self.put(
            "db",
            "node1",
            "node2",
            template="drbd",
            nics=[nic, routed],
            beparams={"maxmem": 300, "vcpus": 3},
            os="noop",
        )
        self.put("bare", "node3")
        told = self.told(new())["instances"]
        self.assertEqual(
            told["db"]["nics"][0],
            {
                "mac": "aa:00:00:00:00:01",
                "ip": "203.0.113.7",
                "mode": "bridged",
                "link": "br1",
                "bridge": "br1",
            },
        )
        self.assertNotIn("bridge", told["db"]["nics"][1])
        networks = [nic.get("network") for nic in told["db"]["nics"]]
        self.assertEqual(networks, [None, "n-1"])
        self.assertEqual(told["db"]["nodes"], ["node1", "node2"])
        self.assertEqual((told["db"]["memory"], told["db"]["vcpus"]), (300, 3))
        self.assertEqual(
            told["db"]["disks"],
            [{"type": "drbd", "size": 1024, "mode": "rw", "spindles": None}],
        )
        self.assertEqual(told["db"]["disk_space_total"], 1152)
        self.assertEqual((told["bare"]["disk_template"], told["bare"]["disks"]), ("diskless", []))

    def test_groups_and_cluster(self) -> None:
        """Groups are listed by uuid with their effective policy."""
        group = replace(
            self.snapshot.group("default"), ipolicy={"vcpu-ratio": 2.0}, networks={"n-1": {}}
        )
        self.snapshot = self.snapshot.with_object("nodegroups", group)
        told = self.told(new())
        self.assertEqual(told["version"], 2)
        self.assertEqual(told["enabled_hypervisors"], ["fake"])
        about = told["nodegroups"][group.uuid]
        self.assertEqual((about["ipolicy"]["vcpu-ratio"], about["networks"]), (2.0, ["n-1"]))
        self.assertIn("minmax", about["ipolicy"])
        self.assertEqual(about["alloc_policy"], "preferred")

    def test_nodes_that_say_nothing(self) -> None:
        """Offline nodes need no answer; it is an error if another node has none."""
        failed = NodeResult("node2", "node_info", None, "no route")
        error = self.assertRaises(OpExecError, self.told, new(), node2=failed)
        self.assertIn("Can't get data for node node2", str(error))
        self.assertIn("no route", str(error))
        self.change_node("node2", offline=True)
        self.assertNotIn("free_memory", self.told(new(), node2=failed)["nodes"]["node2"])

    def test_nodes_that_make_no_sense(self) -> None:
        """A payload that is malformed, or lacks what was asked for, is an error."""
        for payload in (
            ["boot", [FILES], []],
            ["boot", [FILES], None],
            ["boot", [], [ROOM]],
            ["boot", [FILES], [{}]],
            "nothing",
        ):
            answer = typed(NodeResult("node2", "node_info", payload), NODE_INFO)
            self.assertRaises(OpExecError, self.told, new(), node2=answer)

    def test_spindles(self) -> None:
        """Spindles are those of the physical volumes."""
        self.storage = [
            {"type": "lvm-vg", "name": "vg0", "storage_size": 900, "storage_free": 800},
            {"type": "lvm-pv", "name": "vg0", "storage_size": 4, "storage_free": 3},
        ]
        node = self.told(new(disk_template="plain"))["nodes"]["node1"]
        self.assertEqual((node["total_disk"], node["free_disk"]), (900, 800))
        self.assertEqual((node["total_spindles"], node["free_spindles"]), (4, 3))


class RequestTests(DocumentScene):
    """What each request sends, refuses and reads."""

    def test_new_instance(self) -> None:
        """A new instance is described completely."""
        self.assertEqual(
            new(nodes=("node1",)).plain(self.snapshot),
            {
                "type": "allocate",
                "name": "new",
                "disk_template": "file",
                "group_name": None,
                "tags": ["x"],
                "os": "noop",
                "vcpus": 2,
                "memory": 512,
                "spindle_use": 1,
                "disks": [
                    {"size": 100, "mode": "rw", "type": "file"},
                    {"size": 50, "mode": "ro", "type": "file"},
                ],
                "disk_space_total": 150,
                "nics": [{"mac": "auto"}],
                "required_nodes": 1,
                "hypervisor": "fake",
                "restrict-to-nodes": ["node1"],
            },
        )
        mirrored = new(disk_template="drbd").plain(self.snapshot)
        self.assertEqual((mirrored["required_nodes"], mirrored["disk_space_total"]), (2, 406))
        self.assertNotIn("restrict-to-nodes", mirrored)
        self.assertEqual(new(disk_template="blockdev").described()["disk_space_total"], 0)

    def test_several(self) -> None:
        """Several instances are described without a type of their own."""
        plain = MultiAllocate(instances=[new(), new(name="b")]).plain(self.snapshot)
        self.assertEqual(plain["type"], "multi-allocate")
        self.assertEqual([one["name"] for one in plain["instances"]], ["new", "b"])
        self.assertNotIn("type", plain["instances"][0])

    def test_relocation(self) -> None:
        """Only mirrored instances can be relocated, internally or externally mirrored ones."""
        self.put("db", "node1", "node2", template="drbd")
        self.put("far", "node1", template="rbd")
        self.put("local", "node1", template="file")
        second = self.snapshot.node("node2").uuid
        self.assertEqual(
            Relocate(name="db", leaving=[second]).plain(self.snapshot),
            {
                "type": "relocate",
                "name": "db",
                "disk_space_total": 1152,
                "required_nodes": 1,
                "relocate_from": ["node2"],
            },
        )
        Relocate(name="far", leaving=()).plain(self.snapshot)
        error = self.assertRaises(
            OpPrereqError, Relocate(name="local", leaving=()).plain, self.snapshot
        )
        self.assertEqual(error.args, ("Can't relocate non-mirrored instances", "wrong_input"))
        node = self.snapshot.node("node2").uuid
        instance = replace(self.snapshot.instance("db"), primary_node="gone")
        broken = self.snapshot.with_object("instances", instance)
        error = self.assertRaises(OpPrereqError, Relocate(name="db", leaving=[node]).plain, broken)
        self.assertEqual(error.args, ("Instance has not exactly one secondary node", "wrong_state"))

    def test_relocated_into_another_group(self) -> None:
        """An answer that moves an instance out of its groups is refused."""
        self.put("db", "node1", "node2", template="drbd")
        request = Relocate(name="db", leaving=[self.snapshot.node("node2").uuid])
        self.storage = [{"type": "lvm-vg", "name": "x", "storage_size": 9, "storage_free": 9}]
        cluster = replace(self.snapshot.cluster, volume_group_name="x")
        self.snapshot = self.snapshot.with_object("cluster", cluster)
        told = self.told(request)
        self.assertEqual(request.read(["node3"], told), ["node3"])
        told["nodes"]["node3"]["group"] = "elsewhere"
        self.assertRaises(ResultValidationError, request.read, ["node3"], told)

    def test_moves(self) -> None:
        """Evacuations and group changes name their instances; soft errors are an option."""
        request = EvacuationRequest(instances=["a"], evac_mode="all", ignore_soft_errors=True)
        self.assertEqual(
            request.plain(self.snapshot),
            {"type": "node-evacuate", "instances": ["a"], "evac_mode": "all"},
        )
        self.assertEqual(request.options, {"ignore-soft-errors": None})
        change = ChangeGroup(instances=["a"], target_groups=["g"])
        self.assertEqual(
            change.plain(self.snapshot),
            {"type": "change-group", "instances": ["a"], "target_groups": ["g"]},
        )
        self.assertEqual(dict(change.options), {})

    def test_read(self) -> None:
        """Each request accepts only the kind of result that belongs to it."""
        drbd = new(disk_template="drbd")
        self.assertEqual(drbd.read(["a", "b"], {}), ["a", "b"])
        self.assertRaises(ResultValidationError, drbd.read, ["a"], {})
        self.assertEqual(AllocateSecondary(name="x").read("a", {}), "a")
        self.assertEqual(MultiAllocate(instances=[]).read([[], ["x"]], {}).failed, ["x"])
        self.assertEqual(ChangeGroup(instances=[]).read([[], [], []], {}).jobs, [])
