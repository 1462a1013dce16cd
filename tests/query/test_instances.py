"""Fields of instances that aren't in luxid's recordings."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.query.instances import INSTANCE_FIELDS
from ganeti_masterd.testing.nodes import Failed, ScriptedNodes
from tests.logical_units.cluster import with_instance
from tests.query.scene import Scene, rich_snapshot


class StatusTests(SynchronousTestCase):
    """Every status that an instance can have."""

    def status(
        self, state: int | None, source: str = "admin", enabled: bool = True, **change: Any
    ) -> str:
        """Returns the status of an instance in a hypervisor's state; None: it isn't known there."""
        snapshot = rich_snapshot()
        instance = snapshot.instance("instance5")
        snapshot = snapshot.with_object(
            "instances", replace(instance, admin_state_source=source, **change)
        )
        cluster = replace(snapshot.cluster, enabled_user_shutdown=enabled)
        snapshot = snapshot.with_object("cluster", cluster)
        info = {"memory": 1, "vcpus": 1, "state": state, "time": 0.0}
        nodes = ScriptedNodes({"all_instances_info": {} if state is None else {"instance5": info}})
        scene = Scene(snapshot, nodes)
        (row,) = scene.query(self, "instance", ["status"], ["=", "name", "instance5"])
        status: str = row[0][1]
        return status

    def test_all(self) -> None:
        """As in luxid 3.0.2, for each actual and wanted state, with user shutdown or without."""
        kvm = {"hypervisor": "kvm"}
        allowed = {**kvm, "hvparams": {"user_shutdown": True}}
        for expected, state, source, enabled, change in (
            ("running", 0, "admin", True, {"admin_state": "up"}),
            ("ERROR_up", 0, "admin", True, {"admin_state": "down"}),
            ("ERROR_up", 0, "admin", True, {"admin_state": "offline"}),
            ("USER_down", 1, "admin", True, {"admin_state": "up"}),
            ("ERROR_down", 1, "admin", False, {"admin_state": "up"}),
            ("ERROR_down", 1, "admin", True, {"admin_state": "up", **kvm}),
            ("USER_down", 1, "admin", True, {"admin_state": "up", **allowed}),
            ("ERROR_down", 1, "admin", False, {"admin_state": "up", **allowed}),
            ("ADMIN_down", 1, "user", True, {"admin_state": "down"}),
            ("ADMIN_down", 1, "user", True, {"admin_state": "offline"}),
            ("ERROR_down", None, "admin", True, {"admin_state": "up"}),
            ("ADMIN_down", None, "admin", True, {"admin_state": "down"}),
            ("USER_down", None, "user", True, {"admin_state": "down"}),
            ("ADMIN_down", None, "user", False, {"admin_state": "down"}),
            ("ADMIN_offline", None, "user", True, {"admin_state": "offline"}),
        ):
            with self.subTest([expected, state, source, enabled, change]):
                self.assertEqual(self.status(state, source, enabled, **change), expected)

    def test_disk_usage(self) -> None:
        """Disk usage is what disks take of the cluster's storage (luxid 3.0.2)."""
        snapshot = rich_snapshot()
        instance = snapshot.instance("instance4")
        (disk,) = snapshot.disks_of(instance)
        for kind, usage in (
            ("blockdev", 0),
            ("ext", 40),
            ("file", 40),
            ("gluster", 40),
            ("plain", 40),
            ("rbd", 40),
            ("sharedfile", 40),
            ("drbd", 168),
        ):
            changed = snapshot.with_object("disks", replace(disk, dev_type=kind, logical_id=None))
            rows = Scene(changed).query(
                self, "instance", ["disk_usage", "disk_template"], ["=", "name", "instance4"]
            )
            self.assertEqual(rows, [[[0, usage], [0, kind]]])


class WhereaboutsTests(SynchronousTestCase):
    """Instances that run on another node than their primary."""

    def setUp(self) -> None:
        snapshot = new_cluster("cluster", 4, 1000.0)
        self.snapshot = with_instance(
            snapshot, "web", ("node2", "node3"), template="drbd", admin_state="up"
        )
        self.nodes = ScriptedNodes()
        info = {"memory": 64, "vcpus": 1, "state": 0, "time": 0.0}
        self.nodes.answers["node3", "all_instances_info"] = {"web": info}

    def shown(self, *fields: str, filter_: Any = None) -> list[Any]:
        """Returns the fields of the instance, each [status, value]."""
        rows = Scene(self.snapshot, self.nodes).query(self, "instance", list(fields), filter_)
        found: list[Any] = rows[0]
        return found

    def asked(self) -> list[str]:
        """Returns the nodes that were asked."""
        return [each.node for each in self.nodes.asked[: len(self.nodes.asked) // 2]]

    def test_wrong_node(self) -> None:
        """The other end of its mirror is asked if its primary node doesn't know it."""
        self.assertEqual(
            self.shown("status", "oper_state", "oper_ram"),
            [[0, "ERROR_wrongnode"], [0, True], [0, 64]],
        )
        self.assertEqual(self.asked(), ["node2", "node3"])

    def test_filtered(self) -> None:
        """A filter finds it by that status."""
        filter_ = ["=", "status", "ERROR_wrongnode"]
        self.assertEqual(self.shown("name", filter_=filter_), [[0, "web"]])

    def test_where_it_belongs(self) -> None:
        """Nobody else is asked if it is where it belongs, as during a migration."""
        info = {"memory": 128, "vcpus": 1, "state": 0, "time": 0.0}
        self.nodes.answers["node2", "all_instances_info"] = {"web": info}
        self.assertEqual(self.shown("status", "oper_ram"), [[0, "running"], [0, 128]])
        self.assertEqual(self.asked(), ["node2"])

    def test_nowhere(self) -> None:
        """It is down if neither end knows it, or the other one says nothing."""
        answers: list[Any] = [{}, Failed("silent")]
        for answer in answers:
            self.nodes.answers["node3", "all_instances_info"] = answer
            self.assertEqual(self.shown("status"), [[0, "ERROR_down"]])

    def test_primary_silent(self) -> None:
        """If the primary node says nothing, that is what is shown, and nobody else is asked."""
        self.nodes.answers["node2", "all_instances_info"] = Failed("silent")
        self.assertEqual(self.shown("status"), [[0, "ERROR_nodedown"]])
        node = self.snapshot.node("node2")
        self.assertEqual(self.asked(), ["node2"])
        self.snapshot = self.snapshot.with_object("nodes", replace(node, offline=True))
        self.assertEqual(self.shown("status"), [[0, "ERROR_nodeoffline"]])


class SecretTests(SynchronousTestCase):
    """What no query shows."""

    def test_private_parameters(self) -> None:
        """No field shows a private OS parameter, the instance's own or the cluster's."""
        snapshot = with_instance(
            new_cluster("cluster", 2, 1000.0),
            "web",
            ("node1",),
            os="noop",
            osparams={"color": "red"},
            osparams_private={"password": "geheim"},
        )
        cluster = replace(snapshot.cluster, osparams_private_cluster={"noop": {"pin": "geheim"}})
        scene = Scene(snapshot.with_object("cluster", cluster))
        names = list(INSTANCE_FIELDS)
        rows = scene.query(self, "instance", names)
        self.assertIn("red", repr(rows))
        self.assertNotIn("geheim", repr(rows))
