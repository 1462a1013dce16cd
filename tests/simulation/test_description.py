"""The description of a simulated cluster: the cluster it describes, and its errors."""

from __future__ import annotations

import os
import textwrap
import tomllib
from importlib.resources import files
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.simulation.description import Description, parse, read
from ganeti_masterd.simulation.ends import SyncPace
from ganeti_masterd.simulation.tables import DescriptionError
from tests.simulation.nodes import SimulationCase, instance, volume

RECORDED = files("ganeti_masterd") / "simulation" / "clusters" / "recorded.toml"

NODE = '[[node]]\nname = "one"\n'

GROUP = """
[[node.volume_group]]
name = "{name}"
physical_volume = [{{name = "{disk}", size = 8}}]
"""

#: Faulty files, and the error messages after the file's name.
FAULTS = (
    ("x = 1\n" + NODE, "the top of the file, key 'x': there is no such key (there are: "),
    ("", "the top of the file, key 'node': is missing"),
    ("node = 5\n", "the top of the file, key 'node': must be an array of tables: [[node]]"),
    ("node = [1]\n", "the top of the file, key 'node': must be an array of tables: [[node]]"),
    ("[[node]]\n", "table [node[1]], key 'name': is missing"),
    ('[[node]]\nname = ""\n', "table [node[1]], key 'name': is empty"),
    ("[[node]]\nname = 5\n", "table [node[1]], key 'name': must be a text, is 5"),
    (NODE + NODE, "table [node[2]], key 'name': there are two nodes 'one'"),
    (NODE + "memory = 0\n", "table [node[1]], key 'memory': must be at least 1, is 0"),
    (NODE + "memory = true\n", "table [node[1]], key 'memory': must be a whole number, is True"),
    (NODE + "memroy = 5\n", "table [node[1]], key 'memroy': there is no such key"),
    (NODE + "bridges = [5]\n", "table [node[1]], key 'bridges': must be a list of texts, has 5"),
    (
        NODE + '[[node.volume_group]]\nname = "x"\n',
        "table [node[1].volume_group[1]], key 'physical_volume': is missing",
    ),
    (
        NODE + '[[node.volume]]\nname = "v"\nvolume_group = "none"\nsize = 4\n',
        "table [node[1].volume[1]], key 'volume_group': the node has no volume group 'none'",
    ),
    ("[sync]\nspeed = 0\n" + NODE, "table [sync], key 'speed': must be above zero, is 0"),
    (
        "[sync]\nspeed = 5\nseconds = 5\n" + NODE,
        "table [sync], key 'seconds': a sync has a speed or takes a fixed time, not both",
    ),
    (
        "[sync]\nquick_seconds = 5\n" + NODE,
        "table [sync], key 'quick_seconds': needs 'seconds' beside it",
    ),
    (NODE + '[[os]]\nname = "x"\nwrites = "{nothing}"\n', "table [os[1]], key 'writes': can't be"),
    (NODE + '[[os]]\nname = "x"\napi_versions = []\n', "table [os[1]], key 'api_versions': must"),
    (
        NODE + '[[os]]\nname = "x"\n[[os.fails]]\nscript = "dance"\n',
        "table [os[1].fails[1]], key 'script': 'dance' is none of create, verify,",
    ),
    (
        NODE + '[[os]]\nname = "x"\n[[os.fails]]\nscript = "create"\nvalues = ["y"]\n',
        "table [os[1].fails[1]], key 'values': needs 'parameter' beside it",
    ),
    (
        NODE + '[[os]]\nname = "x"\n[os.parameters]\np = 5\n',
        "table [os[1]], key 'parameters': 'p' must be a text, is 5",
    ),
    (
        NODE + '[[image]]\nplace = "/x"\nsize = 8\nseconds = 5\nnever_ends = true\n',
        "table [image[1]], key 'seconds': says when it ends, but it never does",
    ),
    (NODE + '[[image]]\nplace = "/x"\n', "table [image[1]], key 'size': is missing"),
    (NODE + '[[image]]\nplace = "/x"\nsize = 8\n' * 2, "key 'image': there are two of the name"),
    (NODE + '[[os]]\nname = "x"\n' * 2, "key 'os': there are two of the name 'x'"),
    (
        NODE + '[[storage_provider]]\nname = "x"\ndevice = "/dev/x"\n',
        "table [storage_provider[1]], key 'device': must have {name} in it",
    ),
    ("[cluster]\nhypervisors = 5\n" + NODE, "table [cluster], key 'hypervisors': must be a list"),
    ("[cluster]\nhypervisors = []\n" + NODE, "table [cluster], key 'hypervisors': is empty"),
    (
        '[cluster]\ndisk_templates = ["tape"]\n' + NODE,
        "table [cluster], key 'disk_templates': 'tape' is none of blockdev, diskless,",
    ),
    (
        NODE + GROUP.format(name="x", disk="/a") + GROUP.format(name="x", disk="/b"),
        "table [node[1]], key 'volume_group': there are two of the name 'x'",
    ),
    (
        NODE + GROUP.format(name="x", disk="/a") + GROUP.format(name="y", disk="/a"),
        "table [node[1]], key 'volume_group': there are two of the name '/a'",
    ),
    ("cluster = 5\n" + NODE, "key 'cluster': must be a table: [cluster]"),
)


def described(text: str) -> Description:
    """Returns the description in a file with that text."""
    return parse(tomllib.loads(text), "cluster.toml")


class DescriptionTests(SynchronousTestCase):
    def test_faults(self) -> None:
        """An error names the file, the table, the key and what is wrong."""
        for text, fault in FAULTS:
            error = str(self.assertRaises(DescriptionError, described, text))
            self.assertTrue(error.startswith("cluster.toml: "), error)
            self.assertIn(fault, error)

    def test_files(self) -> None:
        """A file that doesn't exist, or isn't TOML, is named."""
        error = self.assertRaises(DescriptionError, read, "/no/such/file")
        self.assertEqual(str(error), "/no/such/file can't be read: No such file or directory")
        path = self.mktemp()
        for content in (b"[[node", b"\xff"):
            with open(path, "wb") as file:
                file.write(content)
            error = self.assertRaises(DescriptionError, read, path)
            self.assertTrue(str(error).startswith(f"{path} is no TOML: "), error)

    def test_recorded(self) -> None:
        """The package includes a description of the recordings' cluster."""
        cluster = read(os.fspath(RECORDED))  # type: ignore[call-overload]
        self.assertEqual(list(cluster.nodes), [f"node{number}" for number in range(1, 6)])
        self.assertEqual(
            [node.group for node in cluster.nodes.values()], ["default"] * 3 + ["rack2"] * 2
        )
        self.assertEqual(cluster.pace, SyncPace(seconds=3.0, quick_seconds=1.0))
        machine = cluster.nodes["node5"].hardware
        self.assertEqual([group.size for group in machine.groups], [102392, 20476])
        self.assertEqual(machine.bridges, ("br0", "br1"))

    def test_documented(self) -> None:
        """The example in the documentation is valid."""
        page = (Path(__file__).parents[2] / "docs" / "simulate.rst").read_text(encoding="utf-8")
        block = page.partition("A short one::\n")[2].partition("\nSizes are")[0]
        cluster = described(textwrap.dedent(block))
        self.assertEqual(list(cluster.nodes), ["alpha", "beta"])
        self.assertEqual(cluster.nodes["beta"].group, "rack2")

    def test_inherited(self) -> None:
        """A node inherits missing keys from every_node, which inherits from the default."""
        cluster = described(
            '[every_node]\nmemory = 100\nbridges = []\n[[node]]\nname = "a"\ncpus = 2\n'
            '[[node]]\nname = "b"\nmemory = 5\nbridges = ["br"]\n'
        )
        a, b = (cluster.nodes[name].hardware for name in "ab")
        self.assertEqual((a.memory, a.cpus, a.bridges), (100, 2, ()))
        self.assertEqual((b.memory, b.cpus, b.bridges), (5, 16, ("br",)))
        self.assertEqual(cluster.node("other"), cluster.default)


class DescribedNodesTests(SimulationCase):
    """The answers of a described cluster's nodes."""

    TEXT = """
        [[node]]
        name = "a"
        bridges = ["br0"]
        exports = true
        [[node.volume_group]]
        name = "big"
        physical_volume = [{name = "/dev/sda", size = 1000}, {name = "/dev/sdb", size = 500}]
        [[node.volume]]
        volume_group = "big"
        name = "there"
        size = 100
        [[os]]
        name = "demo"
        parameters = {fs = "the file system"}
        writes = "{instance} {index} {fs}"
        renames = "was {old}"
        [[os.fails]]
        script = "create"
        parameter = "fs"
        values = ["bad"]
        output = "told to fail"
        [[storage_provider]]
        name = "store"
        [[storage_provider.fails]]
        script = "create"
        parameter = "pool"
        values = ["full"]
        exit_code = 28
        output = "no space in {value}"
    """

    def setUp(self) -> None:
        super().setUp()
        self.nodes = self.make(description=described(self.TEXT))

    def test_volumes(self) -> None:
        """Volume groups, physical volumes and volumes exist from the beginning."""
        self.assertEqual(self.ask("a", "vg_list"), {"big": 1500})
        self.assertEqual(self.ask("a", "lv_list", []), {"big/there": ["100.00", False, False]})
        rows = self.ask("a", "storage_list", "lvm-pv", [], None, ["name", "used"])
        self.assertEqual(rows, [["/dev/sda", 100], ["/dev/sdb", 0]])
        self.ask("a", "blockdev_remove", volume("there", group="big"))
        self.assertEqual(self.ask("a", "lv_list", []), {})

    def test_spread(self) -> None:
        """A volume too large for any physical volume is spread over several."""
        disk = volume("wide", 1200, "big")
        self.ask("a", "blockdev_create", disk, 1200, "web", True, "i", False)
        self.assertEqual(self.ask("a", "blockdev_getdimensions", [disk]), [[1200 << 20, 2]])
        rows = self.ask("a", "node_volumes")
        self.assertEqual(
            [row["dev"] for row in rows if row["name"] == "wide"], ["/dev/sda", "/dev/sdb"]
        )

    def test_barred(self) -> None:
        """A physical volume that isn't allocatable gets no new volumes."""
        self.ask("a", "storage_modify", "lvm-pv", [], "/dev/sda", {"allocatable": False})
        disk = volume("new", 600, "big")
        error = self.fault("a", "blockdev_create", disk, 600, "web", True, "i", False)
        self.assertIn("Not enough free space: required 600, available 500.0", error)

    def test_exclusive(self) -> None:
        """With exclusive storage a volume doesn't share its physical volumes."""
        self.ask("a", "blockdev_remove", volume("there", group="big"))
        units = [["lvm-vg", "big", [True]], ["lvm-pv", "big", [True]]]
        rows = self.ask("a", "node_info", units, None)[1]
        # Twice the size that counts for the smaller one of 500 MiB, which is 485.
        self.assertEqual([row["storage_free"] for row in rows], [970, 2])
        disk = {**volume("own", 600, "big"), "spindles": 2}
        for fault, wrong in (
            ("Unspecified number of spindles", {**disk, "spindles": None}),
            ("(at least 2 spindles needed)", {**disk, "spindles": 1}),
            ("2 available, 3 needed", {**disk, "spindles": 3}),
            ("No (empty) PVs found", {**disk, "logical_id": ["none", "own"]}),
        ):
            error = self.fault("a", "blockdev_create", wrong, 600, "web", True, "i", True)
            self.assertIn(fault, error)
        self.ask("a", "blockdev_create", disk, 600, "web", True, "i", True)
        self.assertEqual(self.ask("a", "blockdev_getdimensions", [disk]), [[600 << 20, 2]])
        rows = self.ask("a", "node_info", units, None)[1]
        self.assertEqual([row["storage_free"] for row in rows], [0, 0])
        self.assertIn(
            "400 MiB required, 370 available",
            self.fault("a", "blockdev_grow", disk, 400, False, True, True),
        )
        self.ask("a", "blockdev_grow", disk, 200, False, True, True)
        self.assertEqual(self.ask("a", "blockdev_getdimensions", [disk]), [[800 << 20, 2]])

    def test_bridges(self) -> None:
        """Bridges that aren't described don't exist."""
        self.ask("a", "bridges_exist", ["br0"])
        self.assertEqual(self.fault("a", "bridges_exist", ["br0", "br1"]), "Missing bridges br1")
        self.ask("a", "node_configure_ovs", "br1", None)
        self.ask("a", "bridges_exist", ["br1"])

    def test_systems(self) -> None:
        """An operating system's scripts write on disks, and fail as described."""
        disk = volume("there", 100, "big")
        web = instance(os="demo", osparams={"fs": "xfs"}, disks_info=[disk])
        self.ask("a", "instance_os_add", web, False, 0)
        self.ask("a", "instance_run_rename", web, "mail", 0)
        device = self.nodes.node("a").state.devices["/dev/big/there"]
        self.assertEqual(device.content, ("web 0 xfs", "was mail"))
        self.assertEqual(
            self.fault("a", "instance_os_add", {**web, "osparams": {"fs": "bad"}}, False, 0),
            "OS create script failed (exited with exit code 1), last lines in the log file:\n"
            "told to fail",
        )

    def test_providers(self) -> None:
        """A storage provider has volumes that all nodes share, and fails as described."""
        self.assertEqual(self.ask("a", "extstorage_diagnose")[0][0], "store")
        disk = {**volume("v", 64, "store"), "dev_type": "ext"}
        self.ask("a", "blockdev_create", disk, 64, "web", True, "i", False)
        self.assertEqual(self.ask("b", "blockdev_find", disk)["dev_path"], "/dev/ext/v")
        arguments = (64, "web", True, "i", False)
        self.assertIn("volume exists", self.fault("a", "blockdev_create", disk, *arguments))
        full = {**disk, "params": {"pool": "full"}}
        self.assertEqual(
            self.fault("a", "blockdev_create", full, *arguments),
            "Can't create block device: External storage's create script failed"
            " (exited with exit code 28), last lines of output:\nno space in full",
        )
        none = {**disk, "logical_id": ["none", "v"]}
        self.assertEqual(
            self.fault("a", "blockdev_create", none, *arguments),
            "Can't create block device:"
            " Directory for External Storage Provider none not found in search path",
        )
        gone = {**disk, "logical_id": ["store", "gone"]}
        self.assertIn(
            "Failed to find device: External storage's attach script failed",
            self.fault("a", "blockdev_find", gone),
        )
        self.ask("b", "blockdev_remove", disk)
        self.assertIn("no volume v", self.fault("a", "blockdev_find", disk))
