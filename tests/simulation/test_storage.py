"""Block devices and storage units of simulated nodes."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ganeti_masterd.simulation import volumes
from ganeti_masterd.simulation.describing import described
from ganeti_masterd.simulation.state import StoredFile
from tests.simulation.nodes import SimulationCase, file_disk, instance, mirror, target, volume

PATH = "/srv/web/0"


class StorageCase(SimulationCase):
    def create(self, disk: dict[str, Any], node: str = "a") -> Any:
        return self.ask(node, "blockdev_create", disk, disk["size"], "web", True, "info", False)

    def refused(self, disk: dict[str, Any]) -> str:
        return self.fault("a", "blockdev_create", disk, disk["size"], "web", True, "i", False)

    def find(self, disk: dict[str, Any]) -> Any:
        return self.ask("a", "blockdev_find", disk)


class FileTests(StorageCase):
    def test_life(self) -> None:
        """A file disk is created, found, measured, and removed; removing twice is allowed."""
        disk = file_disk(PATH)
        self.assertIsNone(self.find(disk))
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.assertEqual(self.create(disk), ["loop", PATH])
        status = {"dev_path": PATH, "is_degraded": False, "ldisk_status": 1}
        self.assertEqual(self.find(disk), status)
        self.assertEqual(self.ask("a", "blockdev_getmirrorstatus", [disk]), [status])
        self.assertEqual(self.ask("a", "blockdev_getdimensions", [disk]), [[16777216, None]])
        self.assertEqual(self.ask("a", "get_file_info", PATH), [True, {"size": 16777216}])
        self.ask("a", "blockdev_remove", disk)
        self.ask("a", "blockdev_remove", disk)
        self.assertIsNone(self.find(disk))
        self.assertEqual(self.ask("a", "blockdev_getdimensions", [disk]), [None])

    def test_create_fails(self) -> None:
        """Creating a file that exists, or lacks a directory, an absolute path or space, fails."""
        disk = file_disk(PATH)
        self.assertEqual(
            self.refused(disk),
            f"Can't create block device: {PATH}: can't create:"
            f" [Errno 2] No such file or directory: '{PATH}'",
        )
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.create(disk)
        self.assertEqual(
            self.refused(disk),
            f"Can't create block device: {PATH}: can't create: [Errno 17] File exists: '{PATH}'",
        )
        self.assertIn("No space left", self.refused(file_disk("/srv/web/1", 1 << 30)))
        self.assertIn("must be absolute", self.refused(file_disk("web/1")))

    def test_assemble(self) -> None:
        """A secondary has nothing to assemble; a primary gives path and link."""
        disk = file_disk(PATH)
        self.assertEqual(
            self.ask("a", "blockdev_assemble", disk, instance(), False, 0), [True, True]
        )
        error = self.fault("a", "blockdev_assemble", disk, instance(), True, 0)
        self.assertEqual(error, f"Error while assembling disk: {PATH}: No such file")
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.create(disk)
        self.assertEqual(
            self.ask("a", "blockdev_assemble", disk, instance(), True, 3),
            [PATH, "/var/run/ganeti/instance-disks/web:3", None],
        )
        self.ask("a", "blockdev_shutdown", disk)
        self.assertIsNotNone(self.find(disk))

    def test_grow(self) -> None:
        """Only the backing store of a file grows, and not in a dry run."""
        disk = file_disk(PATH)
        self.assertIn(
            "Cannot find block device <Disk(",
            self.fault("a", "blockdev_grow", disk, 8, True, True, False),
        )
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.create(disk)
        for dry, backing in ((True, True), (False, False)):
            self.ask("a", "blockdev_grow", disk, 8, dry, backing, False)
        self.assertEqual(self.ask("a", "blockdev_getdimensions", [disk]), [[16777216, None]])
        self.ask("a", "blockdev_grow", disk, 8, False, True, False)
        self.assertEqual(self.ask("a", "blockdev_getdimensions", [disk]), [[25165824, None]])
        self.assertIn("negative", self.fault("a", "blockdev_grow", disk, -1, False, True, False))
        self.assertIn(
            "Not enough free space",
            self.fault("a", "blockdev_grow", disk, 1 << 30, False, True, False),
        )

    def test_missing(self) -> None:
        """Calls fail for missing devices; of several devices only the missing one has an error."""
        disk = file_disk(PATH)
        missing = f"Can't find device {described(disk)}"
        self.assertEqual(self.fault("a", "blockdev_getmirrorstatus", [disk]), missing)
        self.assertEqual(self.fault("a", "blockdev_open", "web", [disk], True), missing)
        self.assertEqual(self.fault("a", "blockdev_close", "web", [disk]), missing)
        self.assertEqual(
            self.ask("a", "blockdev_getmirrorstatus_multi", [disk]), [[False, missing]]
        )
        self.ask("a", "blockdev_open", "web", [], False)

    def test_wipe(self) -> None:
        """A part to be wiped must lie within the device."""
        disk = file_disk(PATH)
        self.assertIn("not found", self.fault("a", "blockdev_wipe", disk, 0, 1))
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.create(disk)
        self.ask("a", "blockdev_wipe", disk, 0, 16)
        for offset, size in ((-1, 1), (0, -1), (17, 0), (8, 9)):
            self.fault("a", "blockdev_wipe", disk, offset, size)

    def test_directories(self) -> None:
        """Directories are created with parents, removed if empty, renamed with contents."""
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.create(file_disk(PATH))
        self.assertEqual(
            self.fault("a", "file_storage_dir_remove", "/srv/web"),
            "Cannot remove file storage directory '/srv/web':"
            " [Errno 39] Directory not empty: '/srv/web'",
        )
        self.assertIn("not a directory", self.fault("a", "file_storage_dir_create", PATH))
        self.assertIn("not a directory", self.fault("a", "file_storage_dir_remove", PATH))
        self.ask("a", "file_storage_dir_rename", "/srv/web", "/srv/mail")
        self.assertIsNone(self.find(file_disk(PATH)))
        self.assertIsNotNone(self.find(file_disk("/srv/mail/0")))
        self.assertEqual(
            self.fault("a", "file_storage_dir_rename", "/srv/none", "/srv/new"),
            "Specified storage dir '/srv/none' is not a directory",
        )
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.assertEqual(
            self.fault("a", "file_storage_dir_rename", "/srv/web", "/srv/mail"),
            "Cannot rename '/srv/web' to '/srv/mail': both locations exist",
        )
        self.ask("a", "file_storage_dir_remove", "/srv/web")
        self.ask("a", "file_storage_dir_remove", "/srv/web")


class VolumeTests(StorageCase):
    def test_life(self) -> None:
        """A logical volume is created, listed, renamed and removed."""
        disk = volume("data")
        self.assertEqual(self.create(disk), ["xenvg", "data"])
        self.assertEqual(
            self.ask("a", "lv_list", ["xenvg"]), {"xenvg/data": ["1024.00", False, False]}
        )
        found = self.find(disk)
        self.assertEqual((found["dev_path"], found["major"]), ("/dev/xenvg/data", 253))
        self.assertEqual(
            self.ask("a", "bdev_sizes", ["/dev/xenvg/data", "/x"]), {"/dev/xenvg/data": 1024}
        )
        self.assertEqual(self.ask("a", "node_volumes")[0]["name"], "data")
        self.ask("a", "blockdev_rename", [[disk, ["xenvg", "other"]]])
        self.assertIsNone(self.find(disk))
        self.ask("a", "blockdev_setinfo", volume("other"), "new")
        self.assertIn("in rename", self.fault("a", "blockdev_rename", [[disk, ["xenvg", "x"]]]))
        self.ask("a", "blockdev_remove", volume("other"))
        self.assertEqual(self.ask("a", "lv_list", []), {})

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(("make", "extend", "rename", "remove", "wipe", "restore")),
                st.sampled_from("abcd"),
                st.integers(1, 3000),
            ),
            max_size=12,
        )
    )
    def test_taken(self, changes: list[tuple[str, str, int]]) -> None:
        """What is kept of the room that is taken is at each moment what the volumes add up to."""
        state = self.nodes.node("a").state
        state.wipe()
        node = self.nodes.node("a")
        for what, name, size in changes:
            path = f"/dev/xenvg/{name}"
            if what == "make" and path not in state.devices:
                volumes.make(node, "xenvg", name, size)
            elif what == "extend" and path in state.devices:
                volumes.extend(node, path, size, dry_run=False)
            elif what == "rename" and path in state.devices and path + "2" not in state.devices:
                volumes.rename(node, path, path + "2")
            elif what == "remove":
                volumes.remove(node, path)
            elif what == "wipe":
                state.wipe()
            elif what == "restore" and path in state.devices:
                grown = replace(state.devices[path], segments=(("/dev/sda", size),))
                state.restore("device", path, msgspec.json.encode(grown))
            added: dict[str, int] = {}
            for _, device in state.devices.items():
                for physical, part in device.segments:
                    added[physical] = added.get(physical, 0) + part
            for physical in {"/dev/sda", *added}:
                self.assertEqual(volumes.used(node, physical), added.get(physical, 0))

    def test_held_open(self) -> None:
        """A volume is open while a running instance or an assembled mirror uses it."""
        disk, mirrored = volume("data"), mirror(1)
        for made in (disk, *mirrored["children"], mirrored):
            self.create(made)
        web = instance(disks_info=[disk])
        self.assertEqual(self.held(), ["xenvg/data1", "xenvg/meta1"])
        self.ask("a", "instance_start", web, False, [])
        self.assertEqual(self.held(), ["xenvg/data", "xenvg/data1", "xenvg/meta1"])
        self.ask("a", "blockdev_shutdown", mirrored)
        self.assertEqual(self.held(), ["xenvg/data"])
        self.ask("a", "instance_shutdown", web, 5, [])
        self.assertEqual(self.held(), [])

    def held(self) -> list[str]:
        """Returns the volumes that lv_list shows as open."""
        return sorted(name for name, row in self.ask("a", "lv_list", []).items() if row[2])

    def test_in_use(self) -> None:
        """A volume in use isn't removed, though noded tries for half a minute."""
        disk = volume("data")
        self.create(disk)
        web = instance(disks_info=[disk])
        self.ask("a", "instance_start", web, False, [])
        removing = self.nodes.call([target("a")], "blockdev_remove", [disk])
        self.assertNoResult(removing)
        self.clock.pump([3.0] * 12)
        error = self.successResultOf(removing)["uuid-a"].error
        self.assertEqual(
            error,
            "Can't lvremove: exited with exit code 5 -   Logical volume xenvg/data in use.\n",
        )
        removing = self.nodes.call([target("a")], "blockdev_remove", [disk])
        self.clock.advance(3.0)
        self.ask("a", "instance_shutdown", web, 5, [])
        self.assertNoResult(removing)
        self.clock.advance(3.0)
        self.assertIsNone(self.successResultOf(removing)["uuid-a"].error)
        self.assertIsNone(self.find(disk))

    def test_missing(self) -> None:
        """A missing volume can't be activated, and its instance can't be started."""
        disk = volume("gone")
        self.assertEqual(
            self.fault("a", "blockdev_assemble", disk, instance(), True, 0),
            "Error while assembling disk: Can't activate lv /dev/xenvg/gone:"
            '   Failed to find logical volume "xenvg/gone"\n',
        )
        error = self.fault("a", "instance_start", instance(disks_info=[disk]), False, [])
        self.assertEqual(
            error, f"Block device error: Block device '{described(disk)}' is not set up."
        )

    def test_rename_refused(self) -> None:
        """A name in use and another group are refused; other renames are still done."""
        for name in ("one", "two", "three"):
            self.create(volume(name))
        wanted = [[volume("one"), ["xenvg", "two"]], [volume("three"), ["xenvg", "four"]]]
        error = self.fault("a", "blockdev_rename", wanted)
        self.assertIn("to '['xenvg', 'two']': Failed to rename the logical volume:", error)
        self.assertIsNotNone(self.find(volume("four")))
        error = self.fault("a", "blockdev_rename", [[volume("one"), ["other", "one"]]])
        self.assertIn("across volume groups", error)

    def test_copies(self) -> None:
        """A volume's content is copied with it, and removed by a wipe."""
        for name in ("data", "copy"):
            self.create(volume(name))
        self.nodes.node("a").state.files["/image"] = StoredFile(0, "x")
        self.ask("a", "blockdev_image", volume("data"), "/image", 1024)
        self.ask("a", "blockdev_convert", volume("data"), volume("copy"))
        held = self.nodes.node("a").state.devices
        self.assertEqual(held["/dev/xenvg/copy"].content, ("image /image",))
        self.ask("a", "blockdev_wipe", volume("copy"), 0, 1024)
        self.assertEqual(held["/dev/xenvg/copy"].content, ())
        self.assertEqual(held["/dev/xenvg/data"].content, ("image /image",))

    def test_images_refused(self) -> None:
        """An image must exist and fit; devices must exist."""
        self.create(volume("data"))
        gone = volume("gone")
        self.nodes.node("a").state.files["/image"] = StoredFile(0, "x")
        for fault, disk, image, size in (
            ("Image '/none' not found", volume("data"), "/none", 1),
            ("Cannot image device disk/0: device not found", gone, "/image", 1),
            ("Negative size", volume("data"), "/image", -1),
            ("Image size is bigger than device size", volume("data"), "/image", 1025),
        ):
            self.assertEqual(self.fault("a", "blockdev_image", disk, image, size), fault)
        uuid = gone["uuid"]
        self.assertEqual(
            self.fault("a", "blockdev_convert", gone, volume("data")),
            f"Cannot copy from device '{uuid}': device not found",
        )
        self.assertEqual(
            self.fault("a", "blockdev_convert", volume("data"), gone),
            f"Cannot copy to device '{uuid}': device not found",
        )

    def test_refused(self) -> None:
        """Volumes need an existing group, an unused name, and space."""
        self.assertIn("vg none", self.refused(volume("data", group="none")))
        self.create(volume("data"))
        self.assertIn("already exists", self.refused(volume("data")))
        self.assertEqual(
            self.refused(volume("big", 1 << 30)),
            "Can't create block device: Not enough free space:"
            " required 1073741824, available 1047552.0",
        )
        self.assertIn('"none" not found', self.fault("a", "lv_list", ["none"]))

    def test_minors(self) -> None:
        """Each volume has a minor of its own."""
        for name in ("one", "two", "three"):
            self.create(volume(name))
        self.ask("a", "blockdev_remove", volume("two"))
        self.create(volume("four"))
        minors = [self.find(volume(name))["minor"] for name in ("one", "three", "four")]
        self.assertEqual(len(set(minors)), 3)

    def test_snapshot(self) -> None:
        """A volume can be snapshotted, a file can't."""
        self.create(volume("data"))
        self.assertEqual(
            self.ask("a", "blockdev_snapshot", volume("data"), "snap", None), ["xenvg", "snap"]
        )
        self.assertIsNotNone(self.find(volume("snap")))
        self.assertIn(
            "Not enough free space",
            self.fault("a", "blockdev_snapshot", volume("data"), "big", 1 << 30),
        )
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.create(file_disk(PATH))
        error = self.fault("a", "blockdev_snapshot", file_disk(PATH), "snap", None)
        self.assertIn("Cannot snapshot block device", error)


class UnitTests(StorageCase):
    def test_space(self) -> None:
        """Space is in the order of the request, None for a missing group."""
        self.create(volume("data", 576))
        units = [["lvm-vg", "xenvg", [False]], ["file", "/srv", []], ["lvm-vg", "none", [False]]]
        found = self.ask("a", "node_info", units, None)
        self.assertEqual(
            [(row["name"], row["storage_free"], row["storage_size"]) for row in found[1]],
            [("xenvg", 1048000, 1048576), ("/srv", 1048576, 1048576), ("none", None, None)],
        )
        self.assertIsNone(found[2])
        self.assertEqual(
            self.fault("a", "node_info", [["ext", "x", []]], None),
            "Error while executing backend function: ",
        )
        self.assertIn("boolean", self.fault("a", "node_info", [["lvm-vg", "xenvg", []]], None))

    def test_list(self) -> None:
        """Rows have the requested fields, in that order."""
        self.ask("a", "file_storage_dir_create", "/srv/web")
        self.create(file_disk(PATH))
        fields = ["used", "name", "size", "free", "allocatable"]
        self.assertEqual(
            self.ask("a", "storage_list", "file", [["/srv"]], None, fields),
            [[16, "/srv", 1048576, 1048560, True]],
        )
        self.assertEqual(
            self.ask("a", "storage_list", "lvm-vg", [], "xenvg", ["name", "free"]),
            [["xenvg", 1048576]],
        )
        self.assertIn(
            "Unknown field", self.fault("a", "storage_list", "file", [["/x"]], None, ["x"])
        )
        self.assertIn("Unknown storage", self.fault("a", "storage_list", "tape", [], None, []))
        self.assertIn("not found", self.fault("a", "storage_list", "lvm-pv", [], "/dev/x", []))
        self.assertIn(
            "No such file", self.fault("a", "storage_list", "file", [["/x"]], "", ["name"])
        )

    def test_modify(self) -> None:
        """Only ``allocatable`` of a physical volume can be changed."""
        pv = self.ask("a", "storage_list", "lvm-pv", [], None, ["name"])[0][0]
        self.ask("a", "storage_modify", "lvm-pv", [], pv, {"allocatable": False})
        self.assertEqual(
            self.ask("a", "storage_list", "lvm-pv", [], None, ["allocatable"]), [[False]]
        )
        self.assertIn(
            "modify", self.fault("a", "storage_modify", "file", [["/x"]], "/x", {"size": 1})
        )
        self.ask("a", "storage_execute", "lvm-vg", [], "xenvg", "fix-consistency")
        self.fault("a", "storage_execute", "file", [["/x"]], "/x", "fix-consistency")
