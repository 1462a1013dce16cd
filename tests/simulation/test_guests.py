"""Guests that boot from an image of the description, and shut themselves down."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.simulation.blocks import held_open
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.simulation.description import Description, parse
from ganeti_masterd.simulation.guests import ZEROED
from ganeti_masterd.simulation.node import BootImage, OSDefinition
from ganeti_masterd.simulation.switches import throw
from tests.simulation.nodes import SimulationCase, instance, target, volume

IMAGES = (
    BootImage("/zero", 8, seconds=30.0, zeroes=True),
    BootImage("/install", 8, seconds=30.0, installs=True),
    BootImage("/hangs", 8, seconds=None),
    BootImage("/dead", 8, boots=False),
)


class GuestTests(SimulationCase):
    """One node with an instance that boots from a volume, and has another one."""

    def setUp(self) -> None:
        super().setUp()
        self.nodes = self.opened()
        for name in ("boot", "data"):
            self.ask("a", "blockdev_create", volume(name), 64, "web", True, "", False)

    def opened(self) -> SimulatedNodes:
        """Returns the nodes."""
        systems = (OSDefinition("demo", trusted=False),)
        return self.make(description=Description(images=IMAGES, systems=systems))

    def boot(self, image: str, **changes: Any) -> None:
        """Writes an image, and has the instance boot from it."""
        self.ask("a", "blockdev_image", volume("boot"), image, 8)
        about = instance(disks_info=[volume("boot"), volume("data")], os="demo", **changes)
        self.ask("a", "instance_start", about, False, [])

    def info(self, hypervisor: str = "fake") -> Any:
        """Returns what the node says of the instance."""
        return self.ask("a", "instance_info", "web", hypervisor, {})

    def content(self) -> tuple[str, ...]:
        """Returns what is on the other volume."""
        return self.nodes.node("a").state.devices["/dev/xenvg/data"].content

    def test_zeroes(self) -> None:
        """It runs until its time is over; then its work is on the disks, and it is gone."""
        self.boot("/zero")
        self.clock.advance(29)
        self.assertEqual(self.info()["state"], 0)
        self.assertEqual(self.content(), ())
        self.assertIn("/dev/xenvg/boot", held_open(self.nodes.node("a")))
        self.clock.advance(1)
        self.assertEqual(self.info(), {})
        self.assertEqual(self.content(), (ZEROED,))
        self.ask("a", "blockdev_remove", volume("boot"))

    def test_lingers(self) -> None:
        """Under KVM, where users may shut instances down, it is known until it is stopped."""
        self.boot("/zero", hypervisor="kvm", hvparams={"user_shutdown": True})
        self.clock.advance(30)
        self.assertEqual(self.info("kvm")["state"], 1)
        self.boot("/zero", hypervisor="kvm", hvparams={"user_shutdown": True})
        self.assertEqual(self.info("kvm")["state"], 0)
        self.clock.advance(30)
        self.ask("a", "instance_shutdown", instance(hypervisor="kvm"), 120, [])
        self.assertEqual(self.info("kvm"), {})

    def test_installs(self) -> None:
        """What the metadata daemon serves is installed, to the disks that it names; once."""
        path = self.ask("a", "os_export", instance(os="demo"), {"DISK_0_PATH": "/dev/vdb"})
        self.ask("a", "instance_metadata_modify", instance(osparams={"os-install-package": path}))
        self.boot("/install")
        self.clock.advance(30)
        self.assertEqual(self.info(), {})
        self.assertEqual(self.content(), ("demo installed on /dev/vdb",))
        self.ask("a", "instance_metadata_modify", instance())
        self.ask("a", "blockdev_wipe", volume("data"), 0, 64)
        self.boot("/install")
        self.clock.advance(30)
        self.assertEqual(self.info(), {})
        self.assertEqual(self.content(), ())

    def test_trouble(self) -> None:
        """One hangs, one never comes up."""
        self.boot("/hangs")
        self.clock.advance(1e6)
        self.assertEqual(self.info()["state"], 0)
        self.ask("a", "instance_shutdown", instance(), 120, [])
        self.boot("/dead")
        self.assertEqual(self.info(), {})

    def test_power(self) -> None:
        """One whose node loses its power has done nothing."""
        self.boot("/zero")
        throw(self.nodes, ["power", "a", "off"])
        throw(self.nodes, ["power", "a", "on"])
        self.clock.advance(60)
        self.assertEqual(self.info(), {})
        self.assertEqual(self.content(), ())

    def test_sizes(self) -> None:
        """Images are found as files of the node, and are written on devices of their size."""
        self.assertEqual(self.ask("a", "get_file_info", "/zero"), [True, {"size": 8388608}])
        self.assertEqual(self.ask("a", "get_file_info", "/none"), [False, {}])
        self.assertIn("not found", self.fault("a", "blockdev_image", volume("boot"), "/none", 8))

    def test_untrusted(self) -> None:
        """A node says of which systems it must not run scripts, and can't."""
        ((*_, trusted),) = self.ask("a", "os_diagnose")
        self.assertIs(trusted, False)
        about = instance(os="demo", disks_info=[volume("data")])
        self.assertIn("NoneType", self.fault("a", "instance_os_add", about, False, 0))


class RestartTests(GuestTests):
    """All the same with nodes that are kept, and read again after each boot."""

    def opened(self) -> SimulatedNodes:
        """Returns the nodes, from what is on disk."""
        if not hasattr(self, "_root"):
            self._root = self.mktemp()
        systems = (OSDefinition("demo", trusted=False),)
        description = Description(images=IMAGES, systems=systems)
        return self.make(root=self._root, log="synced", description=description)

    def boot(self, image: str, **changes: Any) -> None:
        """Boots, then has the daemon stop at once, like a kill, and start again."""
        super().boot(image, **changes)
        self.nodes = self.opened()

    def result(self, name: str, procedure: str, *arguments: Any) -> Any:
        """Returns the result of a call, which in this mode is answered once it is on disk."""
        done = self.nodes.call([target(name)], procedure, arguments)
        self.clock.advance(0)
        return self.successResultOf(done)[f"uuid-{name}"]


class DescribedImageTests(SimulationCase):
    """``[[image]]`` in the file."""

    def test_read(self) -> None:
        """Times and what it does."""
        one = {"place": "/a", "size": 8, "seconds": 2.5, "zeroes": True}
        two = {"place": "/b", "size": 8, "never_ends": True, "installs": True}
        three = {"place": "/c", "size": 8, "boots": False}
        found = parse({"node": [{"name": "x"}], "image": [one, two, three]}, "file").images
        self.assertEqual(
            found,
            (
                BootImage("/a", 8, seconds=2.5, zeroes=True),
                BootImage("/b", 8, seconds=None, installs=True),
                BootImage("/c", 8, boots=False),
            ),
        )
