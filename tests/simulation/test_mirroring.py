"""Mirrors of two simulated nodes: operations on one end, and their effects on the other."""

from __future__ import annotations

from ganeti_masterd.constants import LDS_FAULTY, LDS_OKAY, LDS_SYNC
from ganeti_masterd.simulation.ends import SyncPace
from ganeti_masterd.simulation.state import StoredFile
from ganeti_masterd.simulation.switches import throw
from tests.simulation.mirrored import MirroredCase
from tests.simulation.nodes import instance, mirror, target, volume


class LifeTests(MirroredCase):
    def test_children_first(self) -> None:
        """A mirror needs its children and a free minor, and its node must be one of its two."""
        arguments = (1024, "web", True, "i", False)
        error = self.fault("a", "blockdev_create", mirror(1), *arguments)
        self.assertTrue(error.startswith("Can't assemble device <LogicalVolume("), error)
        self.create_mirror()
        self.assertEqual(
            self.fault("a", "blockdev_create", mirror(1), *arguments),
            "Can't create block device: drbd1: minor is already in use at Create() time",
        )
        elsewhere = {**mirror(1), "dynamic_params": {}}
        self.assertEqual(
            self.fault("a", "blockdev_create", elsewhere, *arguments),
            "Error while executing backend function: Invalid dynamic params for drbd device {}",
        )
        self.assertEqual(
            self.fault("a", "blockdev_find", elsewhere),
            "Error while executing backend function: Invalid dynamic parameters {}",
        )

    def test_meta_size(self) -> None:
        """A meta volume has a minimum and a maximum size."""
        for size, fault in ((64, "Meta device too small"), (2048, "Meta device too big")):
            disk = mirror(1)
            disk["children"] = [volume(f"data{size}"), volume(f"meta{size}", size)]
            for child in disk["children"]:
                self.create("a", child, primary=True)
            error = self.fault("a", "blockdev_create", disk, 1024, "web", True, "i", False)
            self.assertIn(fault, error)

    def test_exclusive(self) -> None:
        """A mirror can't be created with exclusive storage."""
        for child in self.disks["a"]["children"]:
            self.create("a", child, primary=True)
        arguments = (self.disks["a"], 1024, "web", True, "i", True)
        self.assertEqual(
            self.fault("a", "blockdev_create", *arguments),
            "Error while executing backend function: DRBD device requested with exclusive_storage",
        )

    def test_alone(self) -> None:
        """A mirror whose other end doesn't exist waits for it, and is degraded."""
        for child in self.disks["a"]["children"]:
            self.create("a", child, primary=True)
        made = self.create("a", self.disks["a"], primary=True)
        self.assertEqual(made, ["a", "b", 11001, 1, 1, None])
        self.assertEqual(self.state("a"), "WFConnection Primary UpToDate")
        found = self.find("a")
        self.assertEqual((found["is_degraded"], found["ldisk_status"]), (True, LDS_OKAY))

    def test_life(self) -> None:
        """A mirror is created, synced, taken down, brought up again, and removed."""
        self.create_mirror()
        self.assertEqual(self.state("a"), "Connected Primary UpToDate")
        self.assertEqual(self.state("b"), "Connected Secondary UpToDate")
        self.assertEqual(
            self.find("b"),
            {
                "dev_path": "/dev/drbd1",
                "major": 147,
                "minor": 1,
                "is_degraded": False,
                "ldisk_status": LDS_OKAY,
            },
        )
        for node in ("a", "b"):
            self.ask(node, "blockdev_shutdown", self.disks[node])
            self.assertIsNone(self.find(node))
            self.ask(node, "blockdev_shutdown", self.disks[node])
        self.assertEqual(self.ask("a", "drbd_needs_activation", [self.disks["a"]]), ["uuid-drbd1"])
        for node in ("a", "b"):
            self.assertEqual(self.assemble(node, primary=False), ["/dev/drbd1", None, None])
        self.assertEqual(self.state("a"), "Connected Secondary UpToDate")
        for node in ("a", "b"):
            self.ask(node, "blockdev_remove", self.disks[node])
            self.assertEqual(self.ask(node, "lv_list", None), {})

    def test_minor_in_the_way(self) -> None:
        """Another mirror with the same address is refused its network, and keeps its volumes."""
        self.create_mirror()
        other = mirror(2)
        other["logical_id"] = [*self.disks["a"]["logical_id"][:3], 2, 2, "secret"]
        for child in other["children"]:
            self.create("a", child, primary=True)
        error = self.fault("a", "blockdev_create", other, 1024, "web", True, "i", False)
        self.assertEqual(
            error,
            "Can't assemble device after creation, unusual event: drbd2: can't setup network:"
            " exited with exit code 10 - 2: Failure: (102) Local address(port) already in use.\n",
        )
        held = [name for name, row in self.ask("a", "lv_list", None).items() if row[2]]
        self.assertIn("xenvg/data2", held)

    def test_fresh(self) -> None:
        """Two ends that were never synced connect, and neither can become primary."""
        for node in ("a", "b"):
            for child in self.disks[node]["children"]:
                self.create(node, child, primary=False)
            self.create(node, self.disks[node], primary=False)
        self.assertEqual(self.state("a"), "Connected Secondary Inconsistent")
        self.assertEqual(
            self.fault("a", "blockdev_assemble", self.disks["a"], instance(), True, 0),
            "Error while assembling disk: drbd1: can't make drbd device primary:"
            " 1: State change failed: (-2) Need access to UpToDate data\n",
        )


class BreakingTests(MirroredCase):
    def setUp(self) -> None:
        super().setUp()
        self.create_mirror()

    def test_peer_down(self) -> None:
        """An end without its peer is degraded, and syncs it when it is back."""
        self.ask("b", "blockdev_shutdown", self.disks["b"])
        self.assertEqual(self.state("a"), "WFConnection Primary UpToDate")
        self.assertTrue(self.find("a")["is_degraded"])
        self.assemble("b", primary=False)
        self.assertEqual(self.state("b"), "Connected Secondary UpToDate")

    def test_power(self) -> None:
        """A node without power can't be reached by its peer or callers until power is back."""
        throw(self.nodes, ["power", "b", "off"])
        self.assertEqual(self.state("a"), "WFConnection Primary UpToDate")
        self.assertIn("No route to host", self.fault("b", "version"))
        throw(self.nodes, ["power", "b", "on"])
        self.assertIsNone(self.find("b"))
        self.assemble("b", primary=False)
        self.assertEqual(self.state("a"), "Connected Primary UpToDate")

    def test_link(self) -> None:
        """Ends are disconnected while their link is cut, and connect once it is mended."""
        throw(self.nodes, ["net", "a", "b", "down"])
        self.assertEqual(self.state("b"), "WFConnection Secondary UpToDate")
        throw(self.nodes, ["net", "a", "b", "up"])
        self.assertEqual(self.state("b"), "Connected Secondary UpToDate")

    def test_split_brain(self) -> None:
        """Two ends that were both primary while disconnected become StandAlone."""
        throw(self.nodes, ["net", "a", "b", "down"])
        self.assemble("b", primary=True)
        throw(self.nodes, ["net", "a", "b", "up"])
        self.assertEqual(self.state("a"), "StandAlone Primary UpToDate")
        self.assertEqual(self.state("b"), "StandAlone Primary UpToDate")

    def test_lost_volume(self) -> None:
        """An end whose volume is lost has no disk: it is faulty, and served by its peer."""
        throw(self.nodes, ["lose-lv", "b", "web"])
        found = self.find("b")
        self.assertEqual((found["is_degraded"], found["ldisk_status"]), (True, LDS_FAULTY))
        self.assertFalse(self.find("a")["is_degraded"])
        self.assertEqual(self.ask("b", "drbd_needs_activation", [self.disks["b"]]), ["uuid-drbd1"])
        self.assertEqual(
            self.fault("b", "blockdev_grow", self.disks["b"], 8, False, True, False),
            "Failed to grow block device: drbd1: cannot grow diskless device",
        )

    def test_one_primary(self) -> None:
        """A second primary is refused outside dual mode."""
        self.assertEqual(
            self.fault("b", "blockdev_assemble", self.disks["b"], instance(), True, 0),
            "Error while assembling disk: drbd1: can't make drbd device primary:"
            " 1: State change failed: (-1) Multiple primaries not allowed by config\n",
        )
        self.assertEqual(
            self.fault("b", "blockdev_open", "web", [self.disks["b"]], True),
            "Can't open devices: drbd1: can't make drbd device primary:"
            " 1: State change failed: (-1) Multiple primaries not allowed by config\n",
        )
        web = instance(disks_info=[self.disks["b"]])
        self.assertIn(
            "Block device error: drbd1", self.fault("b", "instance_start", web, False, [])
        )

    def test_in_use(self) -> None:
        """A device that a running instance uses can't be shut down, closed or removed."""
        web = instance(disks_info=[self.disks["a"]])
        self.ask("a", "instance_start", web, False, [])
        held = "1: State change failed: (-12) Device is held open by someone\n"
        self.assertEqual(
            self.fault("a", "blockdev_shutdown", self.disks["a"]),
            f"drbd1: can't shutdown drbd device: {held}",
        )
        self.assertEqual(
            self.fault("a", "blockdev_close", "web", [self.disks["a"]]),
            f"Can't close devices: drbd1: can't switch drbd device to secondary: {held}",
        )
        self.ask("a", "instance_shutdown", web, 5, [])
        self.ask("a", "blockdev_close", "web", [self.disks["a"]])
        self.assertEqual(self.state("a"), "Connected Secondary UpToDate")
        self.ask("a", "blockdev_shutdown", self.disks["a"])

    def test_wrong_peer(self) -> None:
        """An end with a wrong peer is reconnected; if its volumes differ, too, it is refused."""
        moved = {**self.disks["a"]}
        moved["dynamic_params"] = {**moved["dynamic_params"], "remote-ip": "192.0.2.9"}
        self.ask("a", "blockdev_assemble", moved, instance(), True, 0)
        self.assertEqual(self.state("a"), "WFConnection Primary UpToDate")
        self.assemble("a", primary=True)
        self.assertEqual(self.state("a"), "Connected Primary UpToDate")
        for name in ("other", "othermeta"):
            self.create("a", volume(name, 128), primary=True)
        strange = {**moved, "children": [volume("other", 128), volume("othermeta", 128)]}
        self.assertEqual(
            self.fault("a", "blockdev_assemble", strange, instance(), True, 0),
            "Error while assembling disk: drbd1: cannot activate, unknown or unhandled reason",
        )

    def test_no_metadata(self) -> None:
        """A volume without metadata isn't attached."""
        for node in ("a", "b"):
            self.ask(node, "blockdev_shutdown", self.disks[node])
        self.ask("a", "blockdev_remove", volume("meta1", 128))
        self.create("a", volume("meta1", 128), primary=True)
        error = self.fault("a", "blockdev_assemble", self.disks["a"], instance(), False, 0)
        self.assertIn("drbd1: can't attach local disk: 1: Failure: (119)", error)

    def test_missing(self) -> None:
        """Calls about mirrors fail for one that isn't there."""
        gone = mirror(7)
        for call, *rest in (
            ("drbd_disconnect_net",),
            ("drbd_attach_net", False),
            ("drbd_wait_sync",),
        ):
            self.assertIn("Can't find device <DRBD8(", self.fault("a", call, [gone], *rest))
        self.assertIn("Can't find parent device", self.fault("a", "blockdev_addchildren", gone, []))
        self.assertIn(
            "Can't find parent device", self.fault("a", "blockdev_removechildren", gone, [])
        )
        self.assertEqual(
            self.ask("a", "blockdev_pause_resume_sync", [gone], True),
            [[False, "Cannot change sync for device disk/0: device not found"]],
        )


class ContentTests(MirroredCase):
    def setUp(self) -> None:
        super().setUp()
        self.create_mirror()
        for node in ("a", "b"):
            files = self.nodes.node(node).state.files
            for name in ("one", "two"):
                files[f"/{name}"] = StoredFile(0, name)

    def write(self, node: str, image: str) -> None:
        self.ask(node, "blockdev_image", self.disks[node], f"/{image}", 1)

    def held(self) -> list[tuple[str, ...]]:
        """Returns the content of each node's data volume."""
        path = "/dev/xenvg/data1"
        return [self.nodes.node(node).state.devices[path].content for node in ("a", "b")]

    def test_both(self) -> None:
        """A write at the primary is at the other end at once."""
        self.write("a", "one")
        self.assertEqual(self.held(), [("image /one",)] * 2)

    def test_behind(self) -> None:
        """Writes made while the other end is away are synced when it is back."""
        self.write("a", "one")
        self.ask("b", "blockdev_shutdown", self.disks["b"])
        self.write("a", "two")
        self.assertEqual(self.held(), [("image /two",), ("image /one",)])
        self.assemble("b", primary=False)
        self.assertEqual(self.held(), [("image /two",)] * 2)

    def test_written_apart(self) -> None:
        """Ends that were disconnected on purpose are split once both were written to."""
        self.both("drbd_disconnect_net")
        self.write("a", "one")
        self.both("drbd_attach_net", False)
        self.assertEqual(self.held(), [("image /one",)] * 2)
        self.both("drbd_disconnect_net")
        self.write("a", "two")
        self.assemble("b", primary=True)
        self.assertEqual(self.held(), [("image /two",), ("image /one",)])
        self.assertIn("StandAlone", self.state("a"))

    def test_served_by_the_peer(self) -> None:
        """An end without a disk writes at its peer."""
        throw(self.nodes, ["detach", "a", "web"])
        self.write("a", "one")
        self.assertEqual(self.held(), [(), ("image /one",)])
        self.assemble("a", primary=True)
        self.assertEqual(self.held(), [("image /one",)] * 2)


class NetworkTests(MirroredCase):
    def setUp(self) -> None:
        super().setUp()
        self.create_mirror()

    def test_dual(self) -> None:
        """Both ends may be primary between two reconnections, as during a migration."""
        self.assertEqual(self.both("drbd_disconnect_net"), [None, None])
        self.assertEqual(self.state("a"), "StandAlone Primary UpToDate")
        self.assertEqual(self.both("drbd_disconnect_net"), [None, None])
        self.assertEqual(self.both("drbd_attach_net", True), [None, None])
        self.assertEqual(self.both("drbd_wait_sync"), [None, None])
        self.ask("b", "blockdev_open", "web", [self.disks["b"]], False)
        self.assertEqual(self.state("b"), "Connected Primary UpToDate")
        self.ask("a", "blockdev_close", "web", [self.disks["a"]])
        self.assertEqual(self.both("drbd_disconnect_net"), [None, None])
        self.assertEqual(self.both("drbd_attach_net", False), [None, None])
        self.assertEqual(self.state("a"), "Connected Secondary UpToDate")

    def test_not_standalone(self) -> None:
        """Only a StandAlone end can be attached."""
        self.assertEqual(
            self.fault("a", "drbd_attach_net", [self.disks["a"]], False),
            "Can't change network configuration: drbd1: device is not standalone in AttachNet",
        )

    def test_attach_alone(self) -> None:
        """An end whose peer isn't attached too waits for two minutes, and gives up."""
        self.both("drbd_disconnect_net")
        waiting = self.nodes.call([target("a")], "drbd_attach_net", [[self.disks["a"]], False])
        self.clock.pump([1.0] * 119)
        self.assertNoResult(waiting)
        self.clock.pump([1.0] * 10)
        error = self.successResultOf(waiting)["uuid-a"].error
        self.assertEqual(error, "Timeout in disk reconnecting")

    def test_different_modes(self) -> None:
        """Ends with different dual-primary settings never connect."""
        self.both("drbd_disconnect_net")
        targets = [target("a"), target("b")]
        waiting = self.nodes.call(
            targets, "drbd_attach_net", lambda one: [[self.disks[one.name]], one.name == "a"]
        )
        self.clock.pump([1.0] * 140)
        errors = {result.error for result in self.successResultOf(waiting).values()}
        self.assertEqual(errors, {"Timeout in disk reconnecting"})

    def test_different_secrets(self) -> None:
        """Ends with different secrets never connect."""
        self.both("drbd_disconnect_net")
        self.disks["b"]["logical_id"] = [*self.disks["b"]["logical_id"][:5], "other"]
        self.assertEqual(self.both("drbd_attach_net", False), ["Timeout in disk reconnecting"] * 2)

    def test_wait_without_peer(self) -> None:
        """Waiting for a sync that never begins fails after 15 seconds."""
        self.ask("b", "blockdev_shutdown", self.disks["b"])
        waiting = self.nodes.call([target("a")], "drbd_wait_sync", [[self.disks["a"]]])
        self.clock.pump([1.0] * 17)
        self.assertIn("is not in sync: stats=", self.successResultOf(waiting)["uuid-a"].error)


class ChildrenTests(MirroredCase):
    def setUp(self) -> None:
        super().setUp()
        self.create_mirror()

    def test_replace(self) -> None:
        """A mirror's volumes are replaced by others, which are synced from its peer."""
        disk, old = self.disks["b"], self.disks["b"]["children"]
        new = self.replace_volumes("b")
        self.assertEqual(
            self.fault("b", "blockdev_addchildren", disk, new),
            "Error while executing backend function: drbd1: already attached to a local disk",
        )
        self.ask("b", "blockdev_removechildren", disk, old)
        self.assertEqual(self.state("b"), "Connected Secondary Diskless")
        self.ask("b", "blockdev_removechildren", disk, old)
        self.assertIn(
            "Can't find new device(s) to add",
            self.fault("b", "blockdev_addchildren", disk, [new[0], volume("gone")]),
        )
        self.ask("b", "blockdev_addchildren", disk, new)
        self.assertEqual(self.state("b"), "Connected Secondary UpToDate")

    def test_mismatch(self) -> None:
        """Only volumes that a mirror has can be removed from it."""
        new = self.replace_volumes("b")
        error = self.fault("b", "blockdev_removechildren", self.disks["b"], new)
        self.assertIn(
            "drbd1: mismatch in local storage (/dev/xenvg/newdata != /dev/xenvg/data1)"
            " in RemoveChildren",
            error,
        )

    def test_last_data(self) -> None:
        """The last up-to-date volume can't be removed from a primary."""
        self.ask("b", "blockdev_shutdown", self.disks["b"])
        children = self.disks["a"]["children"]
        error = self.fault("a", "blockdev_removechildren", self.disks["a"], children)
        self.assertIn("can't detach local disk: 1: State change failed: (-2)", error)

    def test_rename_under(self) -> None:
        """A mirror follows volumes that are renamed under it."""
        self.ask("b", "blockdev_rename", [[volume("data1"), ["xenvg", "moved"]]])
        end = self.nodes.mirrors.get("b", 1)
        assert end is not None
        assert end.backing is not None
        self.assertEqual(end.backing.data, "/dev/xenvg/moved")

    def test_grow(self) -> None:
        """The data grows at both ends, then the mirror, as far as the smaller one allows."""
        a, b = self.disks["a"], self.disks["b"]
        self.ask("a", "blockdev_grow", a, 8, True, True, False)
        self.ask("a", "blockdev_grow", a, 8, False, True, False)
        error = self.fault("a", "blockdev_grow", a, 8, False, False, False)
        self.assertIn("drbd1: resize failed: 1: Failure: (111)", error)
        self.ask("b", "blockdev_grow", b, 8, False, True, False)
        self.ask("a", "blockdev_grow", a, 8, False, False, False)
        for node in ("a", "b"):
            sizes = self.ask(node, "blockdev_getdimensions", [self.disks[node]])
            self.assertEqual(sizes, [[1032 * 1048576, None]])
        self.ask("b", "blockdev_shutdown", b)
        error = self.fault("a", "blockdev_grow", a, 8, False, False, False)
        self.assertIn("need a connected peer to resize", error)

    def test_no_rename(self) -> None:
        """A mirror can't be renamed, as it has no name."""
        error = self.fault("a", "blockdev_rename", [[self.disks["a"], ["a", "b"]]])
        self.assertIn("Can't rename a drbd device", error)

    def test_snapshot(self) -> None:
        """A snapshot of a mirror is one of its data volume."""
        made = self.ask("a", "blockdev_snapshot", self.disks["a"], None, None)
        self.assertEqual(made, ["xenvg", "data1.snap"])
        bare = {**self.disks["a"], "children": []}
        self.assertIn(
            "without backing storage", self.fault("a", "blockdev_snapshot", bare, None, None)
        )


class FillingTests(MirroredCase):
    pace = SyncPace(speed=102.4)

    def setUp(self) -> None:
        super().setUp()
        # 60 MiB/s of the mirror's own would be less than the world's speed.
        for disk in self.disks.values():
            disk["params"] = {"resync-rate": 1 << 20}
        self.create_mirror()

    def test_filling(self) -> None:
        """Syncing a new mirror takes time: both ends show the progress."""
        self.clock.advance(5)
        for node, local in (("a", LDS_OKAY), ("b", LDS_SYNC)):
            found = self.find(node)
            self.assertEqual(
                (found["sync_percent"], found["estimated_time"], found["ldisk_status"]),
                (50.0, 5.0, local),
            )
            self.assertTrue(found["is_degraded"])
            self.assertEqual(self.ask(node, "drbd_wait_sync", [self.disks[node]]), [False, 50.0])
        self.clock.advance(5)
        self.assertFalse(self.find("b")["is_degraded"])
        self.assertEqual(self.ask("a", "drbd_wait_sync", [self.disks["a"]]), [True, 100])

    def test_paused(self) -> None:
        """A sync makes no progress while it is paused at either end."""
        self.clock.advance(5)
        self.ask("b", "blockdev_pause_resume_sync", [self.disks["b"]], True)
        self.clock.advance(100)
        self.assertEqual(self.state("a"), "PausedSyncS Primary UpToDate")
        self.assertEqual(self.find("a")["sync_percent"], 50.0)
        self.assertNotIn("estimated_time", self.find("a"))
        self.ask("b", "blockdev_pause_resume_sync", [self.disks["b"]], False)
        self.clock.advance(5)
        self.assertEqual(self.state("b"), "Connected Secondary UpToDate")

    def test_position_kept(self) -> None:
        """A sync interrupted by a restart continues where it was."""
        self.clock.advance(5)
        throw(self.nodes, ["reboot", "b"])
        self.assertEqual(self.state("a"), "WFConnection Primary UpToDate")
        self.clock.advance(100)
        self.assemble("b", primary=False)
        self.assertEqual(self.find("b")["sync_percent"], 50.0)
        self.clock.advance(5)
        self.assertFalse(self.find("b")["is_degraded"])

    def test_dual_needs_data(self) -> None:
        """Dual mode waits until both ends are up to date."""
        self.both("drbd_disconnect_net")
        targets = [target("a"), target("b")]
        waiting = self.nodes.call(
            targets, "drbd_attach_net", lambda one: [[self.disks[one.name]], True]
        )
        self.clock.pump([1.0] * 8)
        self.assertNoResult(waiting)
        self.clock.pump([1.0] * 8)
        errors = [result.error for result in self.successResultOf(waiting).values()]
        self.assertEqual(errors, [None, None])

    def test_slower_rate(self) -> None:
        """The slower of the mirror's rate and the world's speed counts."""
        self.assertEqual(SyncPace(speed=100.0).length(1024, 10240, full=True), 102.4)
        self.assertEqual(SyncPace(speed=10.0).length(1024, 1 << 20, full=True), 102.4)
        self.assertEqual(
            SyncPace(seconds=3.0, quick_seconds=1.0).length(1 << 20, 1, full=True), 3.0
        )
        self.assertEqual(
            SyncPace(seconds=3.0, quick_seconds=1.0).length(1 << 20, 1, full=False), 1.0
        )
        self.assertEqual(SyncPace().length(1 << 20, 1, full=True), 0.0)
