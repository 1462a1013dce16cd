"""OP_INSTANCE_CREATE from an export: what is done, what is changed, what is refused."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Nic
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.state import Dump, StoredExport
from tests.logical_units.backups.scene import BackupScene
from tests.logical_units.instances.scene import NAME

CREATE = "OP_INSTANCE_CREATE"
COPY = "copy.example.com"

OWN_NIC = {"mac": "aa:00:00:00:00:09"}


class ImportScene(BackupScene):
    """Base: there is an export of the instance on node3; the instance is down."""

    def arrange(self, template: str = "plain", *, removed: bool = False, **about: Any) -> None:
        """Makes the cluster with the export, and removes the instance if that is wanted."""
        nic = Nic(mac="aa:00:00:00:00:01", nicparams={"link": "br7"}, uuid="nic")
        about.setdefault("nics", (nic,))
        self.prepare(template, up=False, **about)
        self.export()
        if removed:
            self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME)
        self.forget()

    def importing(self, **parameters: Any) -> dict[str, Any]:
        """Returns the parameters of an import of the export as another instance."""
        return {
            "instance_name": COPY,
            "mode": "import",
            "src_path": NAME,
            "src_node": "node3",
            "pnode": "node2",
            "disk_template": "plain",
            "disks": [],
            "nics": [OWN_NIC],
            "name_check": False,
            "ip_check": False,
            "start": False,
            **parameters,
        }

    def bring(self, **parameters: Any) -> Any:
        """Imports it."""
        return self.world.run(CREATE, **self.importing(**parameters))

    def data(self, name: str = COPY) -> list[tuple[str, ...]]:
        """Returns what is on the disks of an instance."""
        primary = self.world.now.nodes[self.now(name).primary_node].name
        devices = self.world.nodes.node(primary).state.devices
        return [devices[path].content for path in self.paths(name).values()]

    def changed(self, before: str, after: str) -> None:
        """Changes a text in the export's config.ini."""
        held = self.world.nodes.node("node3").state.exports
        text = str(held[NAME].config)
        self.assertIn(before, text)
        held[NAME] = replace(held[NAME], config=text.replace(before, after))


class ImportTests(ImportScene):
    """An import from a node."""

    def test_import(self) -> None:
        """The calls and the log of real daemon 3.0.2."""
        self.arrange()
        self.assertEqual(self.bring(), ["node2"])
        self.assertEqual(self.data(), [("data of 0",), ("data of 1",)])
        now = self.now(COPY)
        self.assertEqual([disk.size for disk in self.world.now.disks_of(now)], [64, 32])
        self.assertEqual((now.os, now.admin_state, now.disks_active), ("noop", "down", False))
        made = [each for each in self.made_calls() if each[1] != "impexp_status"]
        start = made.index(("node2", "import_start"))
        self.assertEqual(
            made[start:],
            [
                ("node2", "import_start"),
                ("node2", "import_start"),
                ("node3", "export_start"),
                ("node3", "export_start"),
                ("node2", "impexp_cleanup"),
                ("node3", "impexp_cleanup"),
                ("node2", "impexp_cleanup"),
                ("node3", "impexp_cleanup"),
                ("node2", "instance_run_rename"),
                ("node2", "instance_metadata_modify"),
                ("node2", "blockdev_shutdown"),
                ("node2", "blockdev_shutdown"),
            ],
        )
        self.assertNotIn(("node2", "instance_os_add"), self.calls)
        for line in (
            "* running the instance OS import scripts...",
            "Exporting disk/0 from node3 to node2",
            "disk/1 finished sending data",
            f"Running rename script for {COPY}",
        ):
            self.assertIn(line, self.world.lines)
        self.assertNothingLeft()

    def test_as_it_was(self) -> None:
        """Without anything said it is as it was: NICs, tags, parameters."""
        about: dict[str, Any] = {
            "tags": ("one", "two"),
            "beparams": {"vcpus": 2},
            "osparams": {"rate": "100%", "empty": ""},
        }
        self.arrange(removed=True, **about)
        self.bring(instance_name=NAME, nics=[], disk_template=None, identify_defaults=True)
        now = self.now()
        self.assertEqual(now.tags, ("one", "two"))
        self.assertEqual(now.beparams, {"vcpus": 2})
        self.assertEqual(now.osparams, {"rate": "100%", "empty": ""})
        self.assertEqual(now.hvparams, {})
        (nic,) = now.nics
        self.assertEqual((nic.mac, nic.nicparams), ("aa:00:00:00:00:01", {"link": "br7"}))
        self.assertEqual({disk.dev_type for disk in self.world.now.disks_of(now)}, {"plain"})

    def test_filled(self) -> None:
        """Without a look for defaults it holds all that was in force."""
        self.arrange()
        self.bring()
        now = self.now(COPY)
        self.assertEqual(set(now.beparams), set(self.world.now.cluster.beparams["default"]))
        self.assertIsInstance(now.beparams["maxmem"], int)
        self.assertIs(now.beparams["always_failover"], False)

    def test_changed(self) -> None:
        """What is said counts more than what is in the export."""
        self.arrange(osparams={"a": "1", "b": "2"}, beparams={"maxmem": 256, "minmem": 256})
        self.bring(
            beparams={"memory": 128},
            osparams={"a": "7"},
            osparams_private={"b": "3"},
            tags=["own"],
            disks=[{"size": 64}, {"size": 16}, {"size": 8}],
            disk_template="file",
            iallocator=None,
        )
        now = self.now(COPY)
        self.assertEqual((now.beparams["maxmem"], now.beparams["minmem"]), (128, 128))
        self.assertEqual((now.osparams, now.osparams_private), ({"a": "7"}, {"b": "3"}))
        self.assertEqual(now.tags, ("own",))
        self.assertEqual(
            [(disk.dev_type, disk.size) for disk in self.world.now.disks_of(now)],
            [("file", 64), ("file", 16), ("file", 8)],
        )
        self.assertIn(
            " - WARNING: Disk 1 (16 MiB) is smaller than that of the export (32 MiB)",
            self.world.lines,
        )
        self.assertIn(" - WARNING: The export has no disk 2: it stays empty", self.world.lines)
        self.bring(instance_name="one", disks=[{"size": 64}], nics=[{}])
        self.assertIn(" - WARNING: Disk 1 of the export is not imported", self.world.lines)

    def test_mac(self) -> None:
        """An instance of the same name keeps its addresses; another one gets new ones."""
        self.arrange(removed=True)
        nics = [{"link": "br0"}, {"mac": "generate"}]
        self.bring(instance_name=NAME, nics=nics)
        self.assertEqual(self.now().nics[0].mac, "aa:00:00:00:00:01")
        self.assertNotEqual(self.now().nics[1].mac, "aa:00:00:00:00:01")
        self.bring(nics=nics)
        self.assertNotEqual(self.now(COPY).nics[0].mac, "aa:00:00:00:00:01")

    def test_finds_it(self) -> None:
        """Without a node and a path: the first node that has one of the instance's name."""
        self.arrange(removed=True)
        self.bring(instance_name=NAME, src_node=None, src_path=None, nics=[])
        self.assertEqual(self.data(NAME), [("data of 0",), ("data of 1",)])

    def test_start(self) -> None:
        """It is started where that is wanted, whatever is said of an installation."""
        self.arrange()
        self.bring(start=True, no_install=True, osparams={"os-image": "/srv/image"})
        self.assertEqual(self.where(COPY), ["node2"])
        self.assertEqual(self.data(), [("data of 0",), ("data of 1",)])
        self.assertIn(" - INFO: No-installation mode has no effect during import", self.world.lines)
        self.assertIn(" - INFO: OS image has no effect during import", self.world.lines)

    def test_mirror(self) -> None:
        """To another template, on nodes that an allocator chooses."""
        self.arrange()
        self.modify(self.world.now.cluster.uuid, lambda now: replace(now, default_iallocator=""))
        self.bring(pnode=None, disk_template="drbd")
        self.assertEqual(self.data(), [("data of 0",), ("data of 1",)])
        self.assertNothingLeft()

    def test_without_system(self) -> None:
        """What has no operating system is copied byte by byte, with no script."""
        self.arrange(os="")
        self.bring()
        self.assertEqual(self.data(), [("data of 0",), ("data of 1",)])
        self.assertNotIn(("node2", "instance_run_rename"), self.calls)
        ends = [
            arguments[3][0]
            for (_, name), arguments in zip(self.calls, self.arguments, strict=True)
            if name == "import_start"
        ]
        self.assertEqual(ends, ["raw", "raw"])

    def test_hooks(self) -> None:
        """They are told where it comes from."""
        self.arrange()
        self.bring(disks=[{"size": 64}, {"size": 32}, {"size": 8}])
        told = self.hook_variables()[-1]
        self.assertEqual(told["GANETI_ADD_MODE"], "import")
        self.assertEqual(told["GANETI_SRC_NODE"], "node3")
        path = f"/var/lib/ganeti/export/{NAME}"
        self.assertEqual(told["GANETI_SRC_PATH"], path)
        dumps = [f"'{path}/{disk.uuid}'" for disk in self.world.now.disks_of(self.now())]
        self.assertEqual(told["GANETI_SRC_IMAGES"], f"[{dumps[0]}, {dumps[1]}, False]")

    def test_rename_script(self) -> None:
        """One that fails is a warning."""
        self.arrange()
        self.break_call("instance_run_rename")
        self.bring()
        self.assertIn(
            f" - WARNING: Failed to run rename script for {COPY} on node node2: broken",
            self.world.lines,
        )

    def test_private(self) -> None:
        """Private parameters come along if they were exported, and are private still."""
        tag = "ganeti-masterd:export-private-parameters"
        self.arrange(osparams_private={"password": "s3cret"}, tags=(tag,))
        self.bring()
        self.assertEqual(self.now(COPY).osparams_private, {"password": "s3cret"})
        self.assertNotIn("s3cret", "".join(self.world.lines))


class RefusalTests(ImportScene):
    """Nothing is made."""

    def refused(self, text: str, code: str, **parameters: Any) -> None:
        """Expects a refusal."""
        self.assertRefused(text, code, CREATE, **self.importing(**parameters))
        self.assertNothingLeft()

    def test_arguments(self) -> None:
        """What makes no sense."""
        self.arrange()
        for text, code, parameters in (
            (
                "Importing an instance from a path requires a source node option",
                "wrong_input",
                {"src_path": "/var/lib/ganeti/export/x", "src_node": None},
            ),
            ("Invalid path of an export: '../x'", "wrong_input", {"src_path": "../x"}),
            (
                "No export found for relative path nosuch",
                "wrong_input",
                {"src_path": "nosuch", "src_node": None},
            ),
            (
                "No export or invalid export found in dir /var/lib/ganeti/export/nosuch: Export "
                "info file doesn't have the required fields",
                "unknown_entity",
                {"src_path": "nosuch"},
            ),
            ("A forthcoming instance can't be imported", "wrong_input", {"forthcoming": True}),
            (
                "Disk adoption not allowed for instance import",
                "wrong_input",
                {"disks": [{"adopt": "x"}]},
            ),
            (
                "MAC address aa:00:00:00:00:01 already in use in cluster",
                "resource_not_unique",
                {"nics": []},
            ),
            ("Node 'nosuch' not known", "unknown_entity", {"src_node": "nosuch"}),
        ):
            self.refused(text, code, **parameters)
        self.set_offline("node4")
        self.refused("Can't use offline node: node4", "wrong_state", src_node="node4")

    def test_documents(self) -> None:
        """A config.ini that isn't one."""
        for before, after, text, code in (
            (
                "version = 0",
                "version = 7",
                "Wrong export version 7 (wanted 0)",
                "environment_error",
            ),
            (
                "version = 0",
                "version = x",
                "The export's config.ini can't be read: invalid literal for int() with base 10: "
                "'x'",
                "environment_error",
            ),
            (
                "disk0_size",
                "disk7_size",
                "No disk info specified and the export is missing the disk information",
                "wrong_input",
            ),
        ):
            self.arrange()
            self.changed(before, after)
            self.refused(text, code)
        self.arrange()
        dump = self.world.now.disks_of(self.now())[0].uuid
        self.changed(f"disk0_dump = {dump}", "disk0_dump = ../../passwd")
        self.refused(
            f"No export or invalid export found in dir /var/lib/ganeti/export/{NAME}: "
            "'../../passwd' is no name of a file",
            "unknown_entity",
        )

    def test_changes_meanwhile(self) -> None:
        """Another export took its place while the job waited for locks."""
        self.arrange()

        def change() -> None:
            self.changed("maxmem = 128", "maxmem = 64")

        self.world.meanwhile = [change]
        self.refused(
            f"The export in /var/lib/ganeti/export/{NAME} changed since locks were acquired; "
            "retry the operation",
            "wrong_state",
        )

    def test_many_at_once(self) -> None:
        """Imports aren't made many at once."""
        self.arrange()
        self.assertRefused(
            "Only new instances can be made many at once, not imports",
            "wrong_input",
            "OP_INSTANCE_MULTI_ALLOC",
            instances=[{"OP_ID": CREATE, **self.importing()}],
        )


class BrokenImportTests(ImportScene):
    """An import that breaks off leaves nothing of the instance; the export is as it was."""

    def assertNothingMade(self, context: object) -> None:
        """Expects no instance, no device of it, and the export."""
        self.assertIsNone(self.world.now.instances.named(COPY), context)
        self.assertEqual(len(self.devices("node2")), 2, context)
        self.assertEqual(self.contents(), [("data of 0",), ("data of 1",)])
        self.assertNothingLeft()

    def test_each_call(self) -> None:
        """Each call fails once."""
        for node, procedure in self.each():
            self.arrange()
            mend = self.break_call(procedure, node, count=1)
            self.world.try_run(CREATE, **self.importing())
            mend()
            self.world.clock.advance(200)
            if self.world.now.instances.named(COPY) is None:
                self.assertNothingMade((node, procedure))
                self.bring()
            self.assertEqual(self.data(), [("data of 0",), ("data of 1",)], (node, procedure))

    def each(self) -> list[tuple[str, str]]:
        """Returns the calls that an import makes, from its hooks on."""
        self.arrange()
        self.bring()
        hooks = [place for place, (_, name) in enumerate(self.calls) if name == "hooks_runner"]
        middle = self.calls[hooks[0] : hooks[-1]]
        return [each for each in dict.fromkeys(middle) if each[1] != "hooks_runner"]

    def test_killed(self) -> None:
        """A kill until the disks are filled leaves nothing; after that all of it."""
        found = set()
        for moment in self.each_kill(self.arrange, CREATE, **self.importing()):
            there = self.world.now.instances.named(COPY) is not None
            found.add(there)
            if there:
                self.assertEqual(self.data(), [("data of 0",), ("data of 1",)], moment)
                self.assertFalse(self.now(COPY).disks_active)
                self.assertNothingLeft()
            else:
                self.assertNothingMade(moment)
        self.assertEqual(found, {False, True})

    def test_one_disk(self) -> None:
        """It is said which disk could not be imported."""
        self.arrange()
        self.world.nodes.faults.add(
            SimulatedFault(
                call="export_start", node="node3", kind="error", text="bad", after=1, count=1
            )
        )
        self.assertFails(
            f"Instance {COPY} is not made: its disk(s) 1 could not be imported",
            CREATE,
            **self.importing(),
        )
        self.assertNothingMade(None)


class DocumentTests(ImportScene):
    """Exports as others write them."""

    def test_real(self) -> None:
        """A config.ini of real daemon 3.0.2, and one of a version with parameters in one place."""
        self.arrange()
        held = self.world.nodes.node("node3").state.exports
        dumps = {"a": Dump(64, ("real",))}
        held["real"] = StoredExport(dumps=dumps, config=REAL)
        self.bring(src_path="real", disk_template=None)
        now = self.now(COPY)
        self.assertEqual(now.beparams["vcpus"], 1)
        self.assertEqual(now.tags, ())
        self.assertEqual(self.data(), [("real",)])
        held["old"] = StoredExport(dumps=dumps, config=OLD)
        self.bring(src_path="old", instance_name="old", nics=[])
        old = self.now("old")
        self.assertEqual((old.beparams["maxmem"], old.beparams["minmem"]), (192, 192))
        self.assertEqual([nic.mac for nic in old.nics], ["aa:00:00:00:00:77"])


REAL = """[export]
version = 0
timestamp = 1764300000
source = 5b9e1b5c-3a2c-4a2f-9d7b-0f7c4a8a2f11
os = noop
compression = none

[instance]
name = instance2
maxmem = 128
minmem = 128
memory = 128
vcpus = 1
disk_template = plain
hypervisor = fake
tags =\x20
nic0_mac = aa:00:00:bb:cc:dd
nic0_ip = None
nic0_network = None
nic0_name = None
nic0_mode = bridged
nic0_link = br0
nic0_vlan =\x20
nic_count = 1
disk0_ivname = disk/0
disk0_dump = a
disk0_size = 64
disk0_name = None
disk_count = 1

[hypervisor]
migration_mode = live

[backend]
always_failover = False
auto_balance = True
maxmem = 128
minmem = 128
spindle_use = 1
vcpus = 1

[os]

[os_private]

"""

OLD = """[export]
version = 0
timestamp = 1264300000
source = node1
os = noop
compression = gzip

[instance]
name = old
memory = 192
vcpus = 1
disk_template = plain
nic0_mac = aa:00:00:00:00:77
nic0_ip = None
nic0_link = br0
nic0_mode = bridged
nic_count = 1
disk0_ivname = sda
disk0_dump = a
disk0_size = 64
disk_count = 1
"""
