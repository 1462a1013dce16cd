"""OP_INSTANCE_CREATE half-way: what is left after each failure and each kill."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.errors import OpExecError
from ganeti_masterd.simulation.state import Device
from tests.logical_units.instances.creation import NAME, CreationCase


class HalfWayCase(CreationCase):
    """Base: what a cluster holds before and after."""

    def standing(self) -> tuple[Any, Any]:
        """Returns all that there is, on nodes and in the configuration."""
        return self.holdings(), self.accounts()

    def assertUndone(self, where: str) -> None:
        """Nothing is said to be left, as everything could be taken back."""
        left = [line for line in self.world.lines if "WARNING: Could not" in line]
        self.assertEqual(left, [], where)

    def assertShut(self, where: str) -> None:
        """All disks of the instance were shut down on all their nodes."""
        shut = {
            (node, arguments[0]["uuid"])
            for procedure, node, arguments in self.calls
            if procedure == "blockdev_shutdown"
        }
        nodes = self.world.now.nodes
        for disk in self.world.now.disks_of(self.now()):
            for node in disk.all_nodes() or (self.now().primary_node,):
                self.assertIn((nodes[node].name, disk.uuid), shut, where)

    def assertStays(self, where: str) -> None:
        """The instance is there whole, down, and none of its disks is in use."""
        self.assertShut(where)
        made = self.now()
        self.assertEqual((made.admin_state, made.disks_active), ("down", False), where)
        self.assertEqual(len(self.world.now.disks_of(made)), len(made.disks), where)
        self.assertEqual(self.holdings()["node1"][2], [], where)


class FailureTests(HalfWayCase):
    """Every call fails once."""

    def failing(self, template: str, **more: Any) -> set[str]:
        """Makes each call of a creation fail; returns the procedures that were tried."""
        self.renew()
        self.prepare()
        self.create(template, **more)
        calls = self.made()
        tried = set()
        for place, (procedure, node) in enumerate(calls):
            self.renew()
            self.prepare()
            before = self.standing()
            earlier = calls[:place].count((procedure, node))
            self.break_call(procedure, node, after=earlier, count=1)
            where = f"{template}: {procedure} at {node} after {earlier}"
            if self.world.try_run("OP_INSTANCE_CREATE", **self.parameters(template, **more)):
                self.assertIn(
                    procedure,
                    (
                        "instance_metadata_modify",
                        "node_verify_light",
                        "blockdev_getmirrorstatus",
                        "blockdev_shutdown",
                        "blockdev_pause_resume_sync",
                    ),
                )
                self.assertTrue(any("broken" in line for line in self.world.lines), where)
            elif procedure == "instance_os_add":
                self.assertStays(where)
            elif procedure == "instance_start":
                made = self.now()
                self.assertEqual((made.admin_state, made.disks_active), ("up", True))
            else:
                self.assertEqual(self.standing(), before, where)
                self.assertUndone(where)
            self.assertEqual(self.world.faults(), [], where)
            tried.add(procedure)
        return tried

    def test_each_call(self) -> None:
        """Before the installation nothing is left, whichever call fails; later the instance."""
        nics = [{"network": "net1", "ip": "pool"}]
        for template in ("diskless", "plain", "drbd", "file", "ext"):
            self.assertIn("hypervisor_validate_params", self.failing(template, nics=nics))
        self.assertIn("blockdev_shutdown", self.failing("drbd", start=False))

    def test_each_call_of_an_image(self) -> None:
        """So it is with images, and with mirrors that are not waited for."""
        image = {"os_type": ..., "osparams": {"os-image": "http://images.example.com/x"}}
        tried = self.failing("plain", **image)
        self.assertLessEqual({"blockdev_image", "blockdev_pause_resume_sync"}, tried)
        self.failing("drbd", wait_for_sync=False)

    def test_installation_fails(self) -> None:
        """The error names the instance, its node, and says that it stays."""
        error = self.fails("plain", os_type="demo+plain", osparams={"fs": "boom"})
        self.assertIsInstance(error, OpExecError)
        self.assertEqual(
            error.args[0],
            f"Could not add os for instance {NAME} on node node1: OS create script failed (exited "
            "with exit code 3), last lines in the log file:\ntold to fail; instance "
            f"{NAME} is in the cluster, marked to be down, and its operating system is not "
            "installed",
        )
        self.assertStays("after the script")

    def test_start_fails(self) -> None:
        """A failed start leaves the instance marked, and says so."""
        self.break_call("instance_start")
        error = self.fails("plain")
        self.assertEqual(
            error.args[0],
            f"Could not start instance {NAME} on node node1 (it is there, and marked to be up): "
            "broken",
        )
        self.assertEqual(self.now().admin_state, "up")

    def test_what_failed(self) -> None:
        """Wiping, imaging and degraded mirrors are told apart."""
        self.modify(self.world.now.cluster.uuid, prealloc_wipe_disks=True)
        mend = self.break_call("blockdev_wipe")
        before = self.standing()
        self.assertIn("wiping its disks failed", str(self.fails("plain").args[0]))
        self.assertTrue(
            any(
                line.startswith(" - WARNING: Wiping instance disks failed (")
                for line in self.world.lines
            )
        )
        mend()
        self.break_call("blockdev_image")
        error = self.fails(
            "plain", os_type=..., osparams={"os-image": "http://images.example.com/x"}
        )
        self.assertIn("imaging its disks failed", str(error.args[0]))
        status = [
            {"dev_path": "/dev/drbd0", "is_degraded": True, "ldisk_status": 1},
            {"dev_path": "/dev/drbd1", "is_degraded": False, "ldisk_status": 1},
        ]
        self.break_call("blockdev_getmirrorstatus", kind="garbage", payload=status)
        self.assertEqual(
            self.fails("drbd").args[0],
            f"Instance {NAME} is not made: some of its disks are degraded",
        )
        self.assertEqual(self.standing(), before)

    def test_making_fails(self) -> None:
        """The error names disk, node and instance; the log has the real daemon's warning."""
        self.break_call("blockdev_create", "node4", after=4)
        error = self.fails("drbd")
        self.assertIn("Can't create block device disk/1", str(error.args[0]))
        self.assertIn("on node node4", str(error.args[0]))
        self.assertIn(" - WARNING: Device creation failed", self.world.lines)

    def test_undoing_fails(self) -> None:
        """What can't be taken back is named in the log."""
        self.break_call("blockdev_create", "node4", after=2)
        self.break_call("blockdev_remove", "node4")
        error = self.fails("drbd")
        self.assertIn("Can't create block device", str(error.args[0]))
        self.assertTrue(
            any(
                line.startswith(
                    f" - WARNING: Could not remove disk/0 of instance {NAME} from node node4"
                )
                for line in self.world.lines
            ),
            self.world.lines,
        )
        self.assertEqual(self.world.faults(), [])

    def test_commit_of_the_configuration_fails(self) -> None:
        """If the configuration can't be written, nothing is left on nodes."""
        before = self.standing()
        inner = self.world.store.apply

        def apply(changes: Any) -> Any:
            if any(getattr(change, "section", "") == "instances" for change in changes):
                raise OpExecError("the disk is full")
            return inner(changes)

        self.patch(self.world.store, "apply", apply)
        self.assertEqual(self.fails("drbd").args[0], "the disk is full")
        self.assertEqual(self.standing(), before)


class KillTests(HalfWayCase):
    """Every checkpoint is the moment of a kill."""

    def killed(self, template: str, **more: Any) -> None:
        """Kills a creation at each checkpoint."""
        for moment in self.each_kill(template, **more):
            where = f"{template}, checkpoint {moment}"
            if NAME in [one.name for one in self.world.now.instances.values()]:
                made = self.now()
                runs = NAME in self.world.nodes.node("node1").state.instances
                state = ("up", True) if runs else ("down", False)
                self.assertEqual((made.admin_state, made.disks_active), state, where)
                if not runs:
                    self.assertShut(where)
            else:
                self.assertEqual(self.standing(), self.before, where)
                self.assertUndone(where)

    def prepare(self) -> None:
        """Notes what there is."""
        self.before = self.standing()

    def test_each_checkpoint(self) -> None:
        """All of it is undone, or the instance stays, recorded as it is found."""
        nics = [{"network": "net1", "ip": "pool"}]
        for template in ("diskless", "plain", "drbd", "file"):
            self.killed(template, nics=nics)

    def test_other_ways(self) -> None:
        """The same without a start, with an allocator, with an image, without waiting."""
        self.killed("plain", start=False)
        self.killed("drbd", pnode=..., snode=...)
        self.killed("plain", os_type=..., osparams={"os-image": "http://images.example.com/x"})
        self.killed("drbd", wait_for_sync=False)

    def test_wiping(self) -> None:
        """The same while disks are wiped."""

        def prepare() -> None:
            self.modify(self.world.now.cluster.uuid, prealloc_wipe_disks=True)
            self.before = self.standing()

        self.patch(self, "prepare", prepare)
        self.killed("plain")

    def test_forthcoming(self) -> None:
        """A plan is there whole, or not at all."""
        for moment in self.each_kill("drbd", forthcoming=True, start=False):
            if NAME in [one.name for one in self.world.now.instances.values()]:
                self.assertTrue(self.now().forthcoming)
            else:
                self.assertEqual(self.standing(), self.before, f"checkpoint {moment}")


class AdoptionTests(HalfWayCase):
    """Volumes that become disks are given back, never removed."""

    ADOPTED = ({"adopt": "adoptee"}, {"adopt": "other"})

    def test_adopted(self) -> None:
        """They get the names of the instance's disks, are as large as they are, and kept as is."""
        self.modify(self.world.now.cluster.uuid, prealloc_wipe_disks=True)
        self.create("plain", disks=list(self.ADOPTED))
        disks = self.world.now.disks_of(self.now())
        self.assertEqual([disk.size for disk in disks], [96, 32])
        for disk in disks:
            self.assertIn(f"/dev/{disk.volume}", self.world.nodes.node("node1").state.devices)
        self.assertNotIn("/dev/xenvg/adoptee", self.world.nodes.node("node1").state.devices)
        calls = [call for call, _ in self.made()]
        for never in ("blockdev_create", "blockdev_wipe", "instance_os_add"):
            self.assertNotIn(never, calls)
        self.assertEqual(calls[:2], ["vg_list", "lv_list"])
        self.assertLess(calls.index("blockdev_assemble"), calls.index("instance_start"))
        self.assertNotIn("* creating instance disks...", self.world.lines)

    def test_each_failure_and_kill(self) -> None:
        """Whatever fails, the volumes are there under their names, or are the instance's."""
        more: dict[str, Any] = {"disks": list(self.ADOPTED)}
        self.create("plain", **more)
        calls = self.made()
        for place, (procedure, node) in enumerate(calls):
            self.renew()
            before = self.standing()
            after = calls[:place].count((procedure, node))
            for kind in ("error", "lost"):
                self.renew()
                self.break_call(procedure, node, after=after, count=1, kind=kind)
                if kind == "lost" and procedure != "blockdev_rename":
                    continue
                if kind == "lost":
                    self.break_lost_rename()
                    self.assertIsNone(
                        self.world.try_run("OP_INSTANCE_CREATE", **self.parameters(**more))
                    )
                    self.assertEqual(self.standing(), before)
                elif not self.world.try_run(
                    "OP_INSTANCE_CREATE", **self.parameters(**more)
                ) and procedure not in ("blockdev_assemble", "instance_start"):
                    self.assertEqual(self.standing(), before, procedure)
                    self.assertUndone(procedure)
                self.assertEqual(self.world.faults(), [])
        for moment in self.each_kill("plain", **more):
            names = [one.name for one in self.world.now.instances.values()]
            if NAME not in names:
                self.assertEqual(self.standing(), before, f"checkpoint {moment}")
                self.assertUndone(f"checkpoint {moment}")

    def test_not_assembled(self) -> None:
        """A volume that can't be used is the instance's; that isn't started, and it is said."""
        self.break_call("blockdev_assemble")
        error = self.fails("plain", disks=list(self.ADOPTED))
        self.assertEqual(
            error.args[0],
            f"Disk consistency error; instance {NAME} is in the cluster, marked to be down",
        )
        self.assertStays("after the adoption")

    def break_lost_rename(self) -> None:
        """Has volumes renamed without the node saying so."""
        self.world.nodes.faults.clear()
        lost: list[bool] = []
        inner = self.world.nodes.call

        def call(targets: Any, procedure: str, arguments: Any = (), **options: Any) -> Any:
            answers = inner(targets, procedure, arguments, **options)
            if procedure == "blockdev_rename" and not lost:
                lost.append(True)
                return answers.addCallback(
                    lambda found: {
                        key: replace(one, payload=None, error="no answer")
                        for key, one in found.items()
                    }
                )
            return answers

        self.world.nodes.call = call  # type: ignore[method-assign]

    def test_refusals(self) -> None:
        """What can't be adopted is refused before anything is renamed."""
        refused: list[tuple[str, dict[str, Any]]] = [
            (
                "Missing logical volume(s): xenvg/nosuch",
                {"disks": [{"adopt": "nosuch"}]},
            ),
            (
                "Either all disks are adopted or none is",
                {"disks": [{"adopt": "adoptee"}, {"size": 64}]},
            ),
            (
                "Disk adoption is not supported for the 'drbd' disk template",
                {"template": "drbd", "disks": [{"adopt": "adoptee"}]},
            ),
            (
                "Disk adoption not allowed with an iallocator script",
                {"pnode": ..., "disks": [{"adopt": "adoptee"}]},
            ),
            (
                "Duplicate volume names given for adoption",
                {"disks": [{"adopt": "adoptee"}, {"adopt": "adoptee"}]},
            ),
            (
                "A forthcoming instance can't adopt disks",
                {"disks": [{"adopt": "adoptee"}], "forthcoming": True},
            ),
            (
                "Disk template blockdev requires disk adoption, but no 'adopt' parameter given",
                {"template": "blockdev", "disks": [{"size": 64}]},
            ),
            (
                "Device node(s) /etc/x lie outside /dev/disk/ and cannot be adopted",
                {"template": "blockdev", "disks": [{"adopt": "/etc/x"}]},
            ),
            (
                "Missing block device(s): /dev/disk/by-id/x",
                {"template": "blockdev", "disks": [{"adopt": "/dev/disk/by-id/x"}]},
            ),
        ]
        for text, more in refused:
            with self.subTest(text):
                self.assertRefused(text, "wrong_input", **more)
        self.create(disks=[{"adopt": "adoptee"}])
        (disk,) = self.world.now.disks_of(self.now())
        volume = str(disk.volume)
        self.assertRefused(
            f"LV named {volume} used by another instance",
            "resource_not_unique",
            instance_name="second",
            disks=[{"adopt": volume.split("/")[1]}],
        )

    def test_devices(self) -> None:
        """A device keeps its name, and belongs to one instance."""
        path = "/dev/disk/by-id/wwn-1"
        self.world.nodes.node("node1").state.devices[path] = Device("blockdev", 512, "", "")
        self.create("blockdev", disks=[{"adopt": path}])
        (disk,) = self.world.now.disks_of(self.now())
        self.assertEqual((disk.logical_id, disk.size), (("manual", path), 512))
        self.assertRefused(
            f"Device {path} is used by instance {NAME}",
            "resource_not_unique",
            "blockdev",
            instance_name="second",
            disks=[{"adopt": path}],
        )
