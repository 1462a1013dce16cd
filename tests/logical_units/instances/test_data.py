"""OP_INSTANCE_QUERY_DATA."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Nic
from tests.logical_units.instances.scene import NAME, InstanceScene

QUERY = "OP_INSTANCE_QUERY_DATA"

#: A mirrored instance that has no devices on its nodes.
OTHER = "web.example.com"

#: The keys of a description, in the order of real daemon 3.0.2.
KEYS = [
    "name",
    "config_state",
    "run_state",
    "pnode",
    "pnode_group_uuid",
    "pnode_group_name",
    "snodes",
    "snodes_group_uuids",
    "snodes_group_names",
    "os",
    "nics",
    "disk_template",
    "disks",
    "hypervisor",
    "network_port",
    "hv_instance",
    "hv_actual",
    "be_instance",
    "be_actual",
    "os_instance",
    "os_actual",
    "serial_no",
    "mtime",
    "ctime",
    "uuid",
]


class QueryCase(InstanceScene):
    """Base: asks for descriptions."""

    def query(self, *names: str, **parameters: Any) -> dict[str, dict[str, Any]]:
        """Returns descriptions, of the instance if no other is named."""
        found: dict[str, dict[str, Any]] = self.world.run(
            QUERY, instances=list(names or (NAME,)), **parameters
        )
        self.assertEqual(self.world.faults(), [])
        return found

    def one(self, **parameters: Any) -> dict[str, Any]:
        """Returns the instance's description."""
        return self.query(**parameters)[NAME]


class DescriptionTests(QueryCase):
    """What is told."""

    def test_whole(self) -> None:
        """All keys in their order, with what takes effect beside what is set."""
        nic = Nic(mac="aa:00:00:00:00:01", uuid="n-1", ip="192.0.2.7", name="eth")
        self.make(
            up=True,
            nics=[nic],
            beparams={"vcpus": 2},
            osparams={"color": "red"},
            osparams_private={"password": "geheim"},
        )
        found = self.one()
        self.assertEqual(list(found), KEYS)
        now = self.now()
        group = self.world.now.group("default")
        defaults = self.world.now.cluster.beparams["default"]
        self.assertEqual(
            found["nics"],
            [["eth", "n-1", "192.0.2.7", nic.mac, "bridged", "xen-br0", "", None, None]],
        )
        expected = {
            "config_state": "up",
            "run_state": "up",
            "pnode": "node2",
            "pnode_group_uuid": group.uuid,
            "pnode_group_name": "default",
            "snodes": ["node3"],
            "snodes_group_uuids": [group.uuid],
            "snodes_group_names": ["default"],
            "disk_template": "drbd",
            "network_port": None,
            "hv_instance": {},
            "hv_actual": {},
            "be_instance": {"vcpus": 2},
            "be_actual": {**defaults, "vcpus": 2},
            "os_instance": {"color": "red"},
            "os_actual": {"color": "red"},
            "serial_no": now.serial_no,
            "uuid": now.uuid,
        }
        self.assertEqual({key: found[key] for key in expected}, expected)
        self.assertNotIn("geheim", repr(found))

    def test_mirror(self) -> None:
        """A mirror and its volumes are told as both nodes have them, without the secret."""
        self.make(up=True)
        (disk,) = self.one()["disks"]
        stored = self.world.now.disks_of(self.now())[0]
        assert stored.logical_id is not None
        self.assertEqual(disk["logical_id"], [*stored.logical_id[:5], None])
        self.assertEqual(
            disk["drbd_info"],
            {
                "primary_node": "node2",
                "primary_minor": stored.logical_id[3],
                "secondary_node": "node3",
                "secondary_minor": stored.logical_id[4],
                "port": stored.logical_id[2],
            },
        )
        for each in (disk, *disk["children"]):
            for status in (each["pstatus"], each["sstatus"]):
                self.assertEqual(len(status), 7)
                self.assertTrue(status[0].startswith("/dev/"), status)
        self.assertEqual([child["size"] for child in disk["children"]], [64, 128])
        self.assertEqual(
            (disk["iv_name"], disk["dev_type"], disk["mode"], disk["size"], disk["uuid"]),
            ("disk/0", "drbd", "rw", 64, stored.uuid),
        )

    def test_turned_mirror(self) -> None:
        """The primary's minor is the primary's, also where the id names it second."""
        self.make(up=True)
        (disk,) = self.world.now.disks_of(self.now())
        assert disk.logical_id is not None
        one, other, port, *_ = disk.logical_id
        turned = (other, one, port, 5, 6, "secret")
        self.modify(disk.uuid, lambda now: replace(now, logical_id=turned))
        mirror = self.one(static=True)["disks"][0]["drbd_info"]
        self.assertEqual((mirror["primary_node"], mirror["primary_minor"]), ("node2", 6))
        self.assertEqual((mirror["secondary_node"], mirror["secondary_minor"]), ("node3", 5))

    def test_on_one_node(self) -> None:
        """There is no secondary node to tell of."""
        self.make("plain", ("node2",), sizes=(64, 128), up=True)
        found = self.one()
        self.assertEqual(found["snodes"], [])
        for disk in found["disks"]:
            self.assertEqual(
                (disk["sstatus"], disk["drbd_info"], disk["children"]), (None, None, [])
            )
            self.assertTrue(disk["pstatus"][0].startswith("/dev/xenvg/"))

    def test_network(self) -> None:
        """A NIC in a network comes with the network."""
        self.world.run(
            "OP_NETWORK_ADD", network_name="tab9", network="203.0.113.0/24", conflicts_check=False
        )
        network = self.world.now.network("tab9")
        self.make(nics=[Nic(mac="aa:00:00:00:00:01", uuid="n-1", network=network.uuid)])
        (nic,) = self.one(static=True)["nics"]
        self.assertEqual(nic[7], network.uuid)
        self.assertEqual((nic[8]["name"], nic[8]["network"]), ("tab9", "203.0.113.0/24"))

    def test_run_states(self) -> None:
        """What it does, as far as its node's hypervisor knows it."""
        stopped = {"memory": 1, "vcpus": 1, "state": 1, "time": 0.0}
        for admin, source, running, user, expected in (
            ("up", "admin", {"state": 0}, True, "up"),
            ("down", "admin", {"state": 0}, True, "up"),
            ("up", "admin", None, True, "down"),
            ("down", "admin", None, True, "down"),
            ("down", "user", None, True, "user down"),
            ("up", "user", None, True, "down"),
            ("offline", "user", None, True, "offline"),
            ("up", "admin", {"state": 1}, True, "user down"),
            ("up", "admin", {"state": 1}, False, "down"),
        ):
            with self.subTest([admin, source, running, user]):
                self.renew()
                self.make("plain", ("node2",), admin_state=admin, admin_state_source=source)
                self.allow_user_shutdown(user)
                payload = {} if running is None else {NAME: {**stopped, **running}}
                self.break_call("all_instances_info", kind="garbage", payload=payload)
                self.assertEqual(self.one()["run_state"], expected)
                self.assertEqual(self.one(static=True)["run_state"], None)

    def allow_user_shutdown(self, allowed: bool) -> None:
        """Says whether a shutdown from within counts in the cluster."""
        self.modify(
            self.world.now.cluster.uuid,
            lambda cluster: replace(cluster, enabled_user_shutdown=allowed),
        )

    def test_forthcoming(self) -> None:
        """An instance that is only planned is told of, and nobody is asked."""
        self.make("diskless", ("node2",), forthcoming=True)
        found = self.one()
        self.assertEqual((found["run_state"], found["disk_template"]), (None, "diskless"))
        self.assertEqual(self.calls, [])


class AskingTests(QueryCase):
    """Which nodes are asked, and what if they don't answer."""

    def test_static(self) -> None:
        """Nobody is asked."""
        self.make(up=True)
        found = self.one(static=True)
        self.assertEqual(self.calls, [])
        self.assertEqual(found["run_state"], None)
        (disk,) = found["disks"]
        self.assertEqual((disk["pstatus"], disk["sstatus"]), (None, None))

    def test_all(self) -> None:
        """Without names all are told, in natural order; each node is asked once what runs."""
        self.make(up=True)
        for number in (10, 9):
            self.make("plain", ("node1",), f"db{number}.example.com", up=True)
        found = self.world.run(QUERY)
        self.assertEqual(list(found), ["db9.example.com", "db10.example.com", NAME, OTHER])
        running = [node for node, call in self.calls if call == "all_instances_info"]
        self.assertEqual(sorted(running), ["node1", "node2", "node3"])

    def test_turns(self) -> None:
        """In each turn every node is asked for one of its devices."""
        self.make("drbd", sizes=(64, 64), up=True)
        self.query()
        finds = [node for node, call in self.calls if call == "blockdev_find"]
        self.assertEqual(finds, ["node2", "node3"] * 6)

    def test_unknown(self) -> None:
        """A name that is none is refused; one that is given twice is told once."""
        self.make()
        self.assertRefused(
            "Instance 'nosuch' not known", "unknown_entity", QUERY, instances=["nosuch"]
        )
        self.assertEqual(list(self.query(NAME, NAME, static=True)), [NAME])

    def test_primary_fails(self) -> None:
        """Nothing live is told from there, and the rest is."""
        self.make(up=True)
        self.make("plain", ("node1",), "one.example.com", up=True)
        self.break_call("all_instances_info")
        found = self.query(NAME, "one.example.com")
        self.assertEqual(found[NAME]["run_state"], None)
        self.assertEqual(found["one.example.com"]["run_state"], "up")
        (disk,) = found[NAME]["disks"]
        self.assertIsNone(disk["pstatus"])
        self.assertIsNotNone(disk["sstatus"])
        self.assertEqual(
            self.world.lines,
            [" - WARNING: Error checking node node2, nothing live is told from there: broken"],
        )
        self.assertNotIn(("node2", "blockdev_find"), self.calls)

    def test_device_fails(self) -> None:
        """A device that its node can't tell of is null, and named in the log."""
        self.make(up=True)
        self.break_call("blockdev_find", "node3", count=1)
        (disk,) = self.one()["disks"]
        self.assertIsNotNone(disk["pstatus"])
        self.assertIsNone(disk["sstatus"])
        self.assertIsNotNone(disk["children"][0]["sstatus"])
        self.assertEqual(
            self.world.lines,
            [f" - WARNING: Can't compute disk status for {NAME} (disk/0) on node node3: broken"],
        )

    def test_missing_device(self) -> None:
        """A device that isn't there is null without a word."""
        self.break_call("blockdev_find", None, kind="garbage", payload=None)
        (disk,) = self.query(OTHER)[OTHER]["disks"]
        self.assertEqual((disk["pstatus"], disk["sstatus"]), (None, None))
        self.assertEqual(self.world.lines, [])

    def test_offline(self) -> None:
        """Of an instance whose primary node is offline the secondary tells what it has."""
        self.make(up=True)
        self.set_offline("node2")
        found = self.one()
        self.assertEqual((found["run_state"], found["disks"][0]["pstatus"]), (None, None))
        self.assertIsNotNone(found["disks"][0]["children"][0]["sstatus"])
        self.assertEqual(
            self.world.lines,
            [
                " - WARNING: Primary node node2 is marked offline, returning static information "
                f"only for instance {NAME}"
            ],
        )

    def test_elsewhere(self) -> None:
        """One that runs on the other end of its mirror is warned of, unless it is migrating."""
        self.make()
        self.run_on("node3")
        self.assertEqual(self.one()["run_state"], "down")
        self.assertEqual(
            self.world.lines,
            [
                f" - WARNING: Instance {NAME} runs on node node3, which is not its primary node "
                "node2"
            ],
        )
        self.forget()
        self.run_on("node2")
        self.assertEqual(self.one()["run_state"], "up")
        self.assertEqual(self.world.lines, [])

    def test_no_locks(self) -> None:
        """It tells of an instance while another job holds it."""
        self.make()
        self.assertEqual(self.locks_of(QUERY, instances=[NAME], use_locking=True), {})
        found: list[Any] = []
        self.world.meanwhile = [
            lambda: found.append(self.world.run(QUERY, instances=[NAME], use_locking=True))
        ]
        self.world.run("OP_INSTANCE_STARTUP", instance_name=NAME)
        self.assertEqual(found[0][NAME]["run_state"], "down")

    def test_killed(self) -> None:
        """A kill leaves nothing behind."""

        def prepare() -> None:
            self.renew()
            self.make(up=True)

        self.assertGreater(len(list(self.each_kill(prepare, QUERY, instances=[NAME]))), 5)
