"""Fields of instances that aren't in luxid's recordings."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.testing.nodes import ScriptedNodes
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
