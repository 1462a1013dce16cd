"""OP_INSTANCE_RENAME."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.changes import Add
from ganeti_masterd.config.objects import Disk, Instance, Nic
from ganeti_masterd.errors import ECODE_RESOLVER, prereq
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.instances import resolving
from ganeti_masterd.simulation.description import DEFAULT_SYSTEMS, Description
from ganeti_masterd.simulation.node import OSDefinition
from tests.logical_units.instances.scene import NAME, InstanceScene

RENAME = "OP_INSTANCE_RENAME"
NEW = "store.example.com"
FILES = "/srv/ganeti/file-storage"

DEMO = OSDefinition("demo", renames="{instance} was {old}")

#: How it is left where it fails after its name has changed.
RENAMED = (
    f"instance {NEW} has its new name (it was {NAME}) and is down, but its disks or its operating "
    "system may still have the old one"
)


class RenameCase(InstanceScene):
    """Base: an instance whose disks are files on node2."""

    def setUp(self) -> None:
        self.begin()

    def begin(self, template: str = "file", **about: Any) -> Instance:
        """Starts anew with one instance."""
        self.renew(description=Description(systems=(*DEFAULT_SYSTEMS, DEMO)))
        nodes = ("node2", "node3") if template == "drbd" else ("node2",)
        return self.make(template, nodes, **{"admin_state": "down", "os": "demo", **about})

    def op(self, **parameters: Any) -> dict[str, Any]:
        """Returns the opcode's parameters."""
        given = {"instance_name": NAME, "new_name": NEW, "name_check": False, "ip_check": False}
        return {**given, **parameters}

    def rename(self, **parameters: Any) -> None:
        """Renames the instance."""
        wanted = self.op(**parameters)
        self.assertEqual(self.world.run(RENAME, **wanted), wanted["new_name"].lower())
        self.assertEqual(self.world.faults(), [])

    def refuses(self, text: str, code: str, **parameters: Any) -> None:
        """Expects a refusal."""
        self.assertRefused(text, code, RENAME, **self.op(**parameters))

    def paths(self, name: str = NEW) -> list[str]:
        """Returns the paths of an instance's disks as configured."""
        disks = self.world.now.disks_of(self.now(name))
        return [str((disk.logical_id or ("", ""))[1]) for disk in disks]

    def files(self) -> list[str]:
        """Returns the paths of the files on node2."""
        return sorted(self.world.nodes.node("node2").state.devices)

    def assertWhole(self, name: str) -> None:
        """Expects that configuration and node agree on where the disks of an instance are."""
        self.assertEqual(sorted(self.paths(name)), self.files())
        self.assertTrue(all(f"/{name}/" in path for path in self.files()))
        self.assertFalse(self.now(name).disks_active)


class RenameTests(RenameCase):
    """Instances that can be renamed."""

    def test_files(self) -> None:
        """The calls of real daemon 3.0.2, in its order; the paths go with the directory."""
        old = self.paths(NAME)
        self.rename()
        self.assertEqual(
            self.made_calls(),
            [
                ("node2", "instance_info"),
                ("node2", "file_storage_dir_rename"),
                ("node2", "blockdev_assemble"),
                ("node2", "blockdev_assemble"),
                ("node2", "blockdev_setinfo"),
                ("node2", "instance_run_rename"),
                ("node2", "blockdev_shutdown"),
            ],
        )
        self.assertEqual(self.paths(), [path.replace(f"/{NAME}/", f"/{NEW}/") for path in old])
        self.assertWhole(NEW)
        self.assertIsNone(self.world.now.instances.named(NAME))
        self.assertEqual(self.world.lines, [" - INFO: Running instance OS rename script..."])
        device = self.world.nodes.node("node2").state.devices[self.paths()[0]]
        self.assertEqual(device.content[1:], (f"{NEW} was {NAME}",))
        self.assertEqual(
            self.arguments[self.calls.index(("node2", "blockdev_setinfo"))][1],
            f"originstname+{NEW}",
        )

    def test_mirrored(self) -> None:
        """Both nodes store the new name with the disk; no directory is renamed."""
        self.begin("drbd")
        self.rename()
        self.assertEqual(
            self.made_calls(),
            [
                ("node2", "instance_info"),
                ("node2", "blockdev_assemble"),
                ("node3", "blockdev_assemble"),
                ("node2", "blockdev_assemble"),
                ("node2", "blockdev_setinfo"),
                ("node3", "blockdev_setinfo"),
                ("node2", "instance_run_rename"),
                ("node2", "blockdev_shutdown"),
                ("node3", "blockdev_shutdown"),
            ],
        )

    def test_serials(self) -> None:
        """Name and paths are one transaction; what changes grows."""
        before, instance = self.world.now, self.now()
        self.rename(new_name="Store.Example.com")
        self.assertEqual(self.now(NEW).uuid, instance.uuid)
        self.assertGreater(self.world.now.cluster.serial_no, before.cluster.serial_no)

    def test_same_name(self) -> None:
        """Nothing is renamed, but the script runs."""
        self.rename(new_name=NAME)
        self.assertNotIn(("node2", "file_storage_dir_rename"), self.calls)
        self.assertIn(("node2", "instance_run_rename"), self.calls)
        self.assertWhole(NAME)

    def test_several_directories(self) -> None:
        """Each directory with the instance's name is renamed; others stay."""
        (disk,) = self.world.now.disks_of(self.now())
        self.world.nodes.node("node2").state.directories[f"{FILES}/deep/{NAME}"] = True
        far = Disk(
            uuid="far",
            dev_type="file",
            logical_id=("loop", f"{FILES}/deep/{NAME}/x"),
            nodes=disk.nodes,
            size=1,
            iv_name="disk/1",
        )
        other = replace(
            far, uuid="other", logical_id=("loop", f"{FILES}/shelf/y"), iv_name="disk/2"
        )
        self.world.store.apply([Add("disks", far), Add("disks", other)])
        self.modify(self.now().uuid, lambda now: replace(now, disks=(*now.disks, "far", "other")))
        self.assertFails(f"Disk consistency error; {RENAMED}", RENAME, **self.op())
        self.assertEqual(self.paths()[1:], [f"{FILES}/deep/{NEW}/x", f"{FILES}/shelf/y"])
        directories = self.world.nodes.node("node2").state.directories
        self.assertEqual(
            {path for path in directories if "example" in path},
            {f"{FILES}/{NEW}", f"{FILES}/deep/{NEW}"},
        )

    def test_detached_disk(self) -> None:
        """A disk that was detached moves with the directory in which it is."""
        (disk,) = self.world.now.disks_of(self.now())
        lone = replace(disk, uuid="lone", logical_id=("loop", f"{FILES}/{NAME}/z"))
        self.world.store.apply([Add("disks", lone)])
        self.rename()
        self.assertEqual(self.world.now.disks["lone"].logical_id, ("loop", f"{FILES}/{NEW}/z"))

    def test_active_disks(self) -> None:
        """Disks that are ready are shut down before their directory goes."""
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.forget()
        self.rename()
        calls = [call for _, call in self.made_calls()]
        self.assertLess(calls.index("blockdev_shutdown"), calls.index("file_storage_dir_rename"))
        self.assertWhole(NEW)

    def test_forthcoming(self) -> None:
        """For a plan only the configuration changes."""
        self.modify(self.now().uuid, lambda now: replace(now, forthcoming=True))
        (disk,) = self.world.now.disks_of(self.now())
        self.modify(disk.uuid, lambda now: replace(now, forthcoming=True))
        self.set_offline("node2")
        self.rename()
        self.assertEqual(self.made_calls(), [])
        self.assertTrue(self.paths()[0].startswith(f"{FILES}/{NEW}/"))

    def test_offline_state(self) -> None:
        """An instance that is marked offline stays so."""
        self.modify(self.now().uuid, lambda now: replace(now, admin_state="offline"))
        self.rename()
        self.assertEqual(self.state(NEW), ("offline", "admin", False, []))

    def test_communication(self) -> None:
        """The NIC that is called after the instance is renamed with it."""
        nic = Nic(mac="aa:00:00:00:00:01", uuid="n", name=f"ganeti:communication:{NAME}")
        self.begin(nics=(nic, Nic(mac="aa:00:00:00:00:02", uuid="m", name="lan")))
        self.rename()
        self.assertEqual(
            [each.name for each in self.now(NEW).nics], [f"ganeti:communication:{NEW}", "lan"]
        )

    def test_no_system(self) -> None:
        """Without an operating system there is no script to run."""
        self.begin(os="")
        self.rename()
        self.assertNotIn(("node2", "instance_run_rename"), self.calls)
        self.assertEqual(self.world.lines, [])

    def test_locks(self) -> None:
        """Both names, alone; afterwards the new one is there and the old one isn't."""
        self.assertEqual(
            self.locks_of(RENAME, **self.op()), {"instance": (sorted((NAME, NEW)), True)}
        )
        self.rename()
        members = self.world.locks.members(Level.INSTANCE)
        self.assertIn(NEW, members)
        self.assertNotIn(NAME, members)

    def test_hooks(self) -> None:
        """They know both names; afterwards the instance has the new one."""
        self.rename()
        before, after = self.hook_variables()
        self.assertEqual(before["GANETI_INSTANCE_NAME"], NAME)
        self.assertEqual(before["GANETI_INSTANCE_NEW_NAME"], NEW)
        self.assertEqual(after["GANETI_POST_INSTANCE_NAME"], NEW)
        on = {node for node, call in self.calls if call == "hooks_runner"}
        self.assertEqual(on, {"node1", "node2"})

    def test_resolved(self) -> None:
        """A name is looked up; the full one is taken."""
        self.patch(resolving, "resolve", lambda name, family: (NEW, "192.0.2.9"))
        self.patch(resolving, "answers", lambda address: False)
        result = self.world.run(RENAME, instance_name=NAME, new_name="store")
        self.assertEqual((result, self.now(NEW).name), (NEW, NEW))
        self.assertEqual(self.world.lines[0], f" - INFO: Resolved given name 'store' to '{NEW}'")


class RenameRefusalTests(RenameCase):
    """Whatever can't be is refused before anything is changed."""

    def test_name_taken(self) -> None:
        """Another instance has the name, or takes it while locks are waited for."""
        text = "Instance 'web.example.com' is already in the cluster"
        self.refuses(text, "already_exists", new_name="web.example.com")

    def test_checks_of_names(self) -> None:
        """What the look-up says."""
        self.refuses("IP address check requires a name check", "wrong_input", ip_check=True)

        def unknown(name: str, family: int) -> tuple[str, str]:
            raise prereq(f"The given name ({name}) does not resolve: no", ECODE_RESOLVER)

        self.patch(resolving, "resolve", unknown)
        self.refuses(
            f"The given name ({NEW}) does not resolve: no", "resolver_error", name_check=True
        )
        self.patch(resolving, "resolve", lambda name, family: ("quite.other", "192.0.2.9"))
        self.refuses(
            f"Resolved hostname 'quite.other' does not look the same as given hostname '{NEW}'",
            "wrong_input",
            name_check=True,
        )
        self.patch(resolving, "resolve", lambda name, family: (name, "192.0.2.9"))
        self.patch(resolving, "answers", lambda address: True)
        self.refuses(
            f"IP 192.0.2.9 of instance {NEW} already in use",
            "resource_not_unique",
            name_check=True,
            ip_check=True,
        )

    def test_malformed(self) -> None:
        """A host name, please."""
        error = self.fails(RENAME, **self.op(new_name="a/../b"))
        self.assertEqual(error.args[0], "Invalid hostname 'a/../b'")

    def test_states(self) -> None:
        """It must neither be marked to be up, nor run; its primary must be there."""
        self.modify(self.now().uuid, lambda now: replace(now, admin_state="up"))
        self.refuses(f"Instance '{NAME}' is marked to be up, cannot rename", "wrong_state")
        self.modify(self.now().uuid, lambda now: replace(now, admin_state="down"))
        self.run_on("node2")
        self.refuses(f"Instance {NAME} is running, cannot rename", "wrong_state")
        self.break_call("instance_info")
        self.refuses(
            f"Can't retrieve instance information for instance '{NAME}': broken",
            "environment_error",
        )
        self.crash()
        self.set_offline("node2")
        self.refuses("Can't use offline node: node2", "wrong_state")

    def test_template_disabled(self) -> None:
        """Directories of a template that isn't enabled stay."""
        cluster = self.world.now.cluster
        self.modify(cluster.uuid, lambda now: replace(now, enabled_disk_templates=("drbd",)))
        error = self.fails(RENAME, **self.op())
        self.assertEqual(
            error.args[0],
            "Disk template 'file' is not enabled in cluster. Enabled disk templates are: drbd",
        )

    def test_directory_of_others(self) -> None:
        """A directory with another instance's disk isn't renamed under that instance."""
        (disk,) = self.world.now.disks_of(self.now())
        path = f"{FILES}/{NAME}/z"
        alien = replace(disk, uuid="alien", logical_id=("loop", path), iv_name="disk/1")
        self.world.store.apply([Add("disks", alien)])
        web = self.now("web.example.com")
        self.modify(web.uuid, lambda now: replace(now, disks=(*now.disks, "alien")))
        self.refuses(
            f"Directory {FILES}/{NAME} of instance {NAME} holds a disk of instance "
            "web.example.com, cannot rename",
            "wrong_state",
        )


class RenameFailureTests(RenameCase):
    """What is left where it fails half-way."""

    def test_directory(self) -> None:
        """A directory that can't be renamed leaves the old name."""
        self.break_call("file_storage_dir_rename", count=1)
        self.assertFails(
            f"Could not rename on node node2 directory '{FILES}/{NAME}' to '{FILES}/{NEW}' "
            f"(instance {NAME} keeps its name): broken",
            RENAME,
            **self.op(),
        )
        self.assertWhole(NAME)

    def test_target_there(self) -> None:
        """A directory that has the new name already isn't touched; the log says so."""
        state = self.world.nodes.node("node2").state
        state.directories[f"{FILES}/{NEW}"] = True
        both = f"Cannot rename '{FILES}/{NAME}' to '{FILES}/{NEW}': both locations exist"
        self.assertFails(
            f"Could not rename on node node2 directory '{FILES}/{NAME}' to '{FILES}/{NEW}' "
            f"(instance {NAME} keeps its name): {both}",
            RENAME,
            **self.op(),
        )
        self.assertWhole(NAME)
        self.assertTrue(
            self.world.lines[0].startswith(
                f" - WARNING: Could not make sure that directory '{FILES}/{NAME}' on node node2 "
                "has its name again: "
            )
        )

    def test_name_taken_meanwhile(self) -> None:
        """If the transaction fails, the directory has its old name again."""
        web = self.now("web.example.com")

        def take() -> None:
            self.modify(web.uuid, lambda now: replace(now, name=NEW))

        self.world.meanwhile = [lambda: None, take]
        self.fails_late()

    def fails_late(self) -> None:
        """Expects a failure in the transaction."""
        before = self.paths(NAME)
        self.assertIsNone(self.world.try_run(RENAME, **self.op()))
        self.assertEqual(self.paths(NAME), before)
        self.assertEqual(self.files(), before)

    def test_disks(self) -> None:
        """Disks that can't be made ready; the instance has its new name by then."""
        self.break_call("blockdev_assemble")
        self.assertFails(f"Disk consistency error; {RENAMED}", RENAME, **self.op())
        self.assertWhole(NEW)

    def test_info(self) -> None:
        """The name stored with a disk is not worth a failure."""
        self.break_call("blockdev_setinfo")
        self.rename()
        self.assertEqual(
            self.world.lines[0],
            " - WARNING: Error setting info on node node2 for disk 0: broken",
        )

    def test_script(self) -> None:
        """Neither is the rename script."""
        self.break_call("instance_run_rename")
        self.rename()
        self.assertEqual(
            self.world.lines[-1],
            f" - WARNING: Could not run OS rename script for instance {NEW} on node node2 (but "
            "the instance has been renamed in Ganeti): broken",
        )

    def test_kills(self) -> None:
        """Wherever it is killed, directory and configuration have the same name."""
        found = set()
        for _ in self.each_kill(self.begin, RENAME, **self.op()):
            name = NEW if self.world.now.instances.named(NEW) else NAME
            self.assertWhole(name)
            found.add(name)
        self.assertEqual(found, {NAME, NEW})
