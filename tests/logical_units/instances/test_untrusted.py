"""Operating systems that aren't trusted: a helper VM runs their script."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.errors import ECODE_INVAL, ECODE_NORES, ECODE_STATE
from ganeti_masterd.jobs.devices import Fate
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.node import BootImage, OSDefinition
from ganeti_masterd.simulation.state import StoredFile
from tests.logical_units.instances import scene
from tests.logical_units.instances.creation import NAME, CreationCase

IMAGE = "/srv/install.img"
STRANGER = OSDefinition("stranger", parameters=(("fs", ""), ("pw", "")), trusted=False)
DOING = "Running OS create script"
PACKAGE = f"/tmp/{NAME}.tgz"


def boot_image(**changes: Any) -> BootImage:
    """Returns an image whose guest installs within a minute."""
    settings: dict[str, Any] = {"size": 200, "seconds": 60.0, "installs": True, **changes}
    return BootImage(IMAGE, **settings)


class CreationInHelperTests(CreationCase):
    """OP_INSTANCE_CREATE."""

    changes: dict[str, Any] = {}

    def renew(self, **settings: Any) -> None:
        """Has an operating system that isn't trusted, and an install image."""
        described = {"images": (boot_image(**self.changes),)}
        super().renew(
            systems=(STRANGER,), described=described, hypervisors=("fake", "kvm"), **settings
        )
        self.modify(self.world.now.cluster.uuid, install_image=IMAGE)

    def parameters(self, template: str = "plain", **more: Any) -> dict[str, Any]:
        """See ``CreationCase.parameters``."""
        settings: dict[str, Any] = {
            "os_type": "stranger",
            "hypervisor": "kvm",
            "hvparams": {"kernel_path": ""},
        }
        return super().parameters(template, **{**settings, **more})

    def contents(self) -> list[tuple[str, ...]]:
        """Returns what is on the disks of the instance."""
        devices = self.world.nodes.node("node1").state.devices
        return [
            devices["/dev/{}/{}".format(*disk.logical_id[:2])].content
            for disk in self.world.now.disks_of(self.now())
            if disk.logical_id is not None
        ]

    def volumes(self) -> int:
        """Returns how many volumes node1 has, besides those of the description."""
        return len(self.world.nodes.node("node1").state.devices) - 2

    def test_installed(self) -> None:
        """The guest gets the package, with its disks' names there, and then the instance starts."""
        self.create("plain")
        self.assertEqual(
            self.contents(),
            [("stranger installed on /dev/vdb",), ("stranger installed on /dev/vdc",)],
        )
        self.assertEqual((self.now().admin_state, self.now().osparams), ("up", {}))
        self.assertEqual(self.volumes(), 2)
        self.assertNotIn("instance_os_add", [call for call, _ in self.made()])
        running = self.world.nodes.node("node1").state.instances[NAME]
        self.assertEqual((running.image, len(running.disks)), ("", 2))
        ((_, environment),) = self.sent("os_export")
        self.assertEqual(
            environment,
            {
                "OS_SCRIPT": "create_untrusted",
                "DISK_0_PATH": "/dev/vdb",
                "DISK_1_PATH": "/dev/vdc",
            },
        )
        first = self.world.lines.index(f"Created OS install package '{PACKAGE}'")
        self.assertEqual(
            self.world.lines[first + 1 : first + 3],
            [
                f"{DOING}: Attempting to create temporary disk",
                f"{DOING}: Temporary disk created",
            ],
        )
        self.assertIn(f"{DOING}: Helper VM execution completed", self.world.lines)

    def test_metadata(self) -> None:
        """Parameters stay apart, and the package is served only until it is installed."""
        self.create(
            "plain",
            osparams={"fs": "ext4"},
            osparams_secret={"pw": "s3cret"},
        )
        ((during,), (after,)) = self.sent("instance_metadata_modify")
        self.assertEqual(during["osparams"], {"fs": "ext4", "os-install-package": PACKAGE})
        self.assertEqual(during["osparams_secret"], {"pw": "s3cret"})
        self.assertEqual(after["osparams"], {"fs": "ext4"})
        self.assertEqual(self.world.nodes.node("node1").state.facts.get("packages"), {})

    def test_reachable(self) -> None:
        """A warning where the guest can't get the package."""
        told = "no NIC for instance communication"
        self.create("plain")
        self.assertIn(told, str(self.world.lines))
        self.renew()
        self.modify(self.world.now.cluster.uuid, instance_communication_network="net1")
        self.create("plain", instance_communication=True)
        self.assertNotIn(told, str(self.world.lines))

    def test_given_package(self) -> None:
        """A package that the parameters name is used as it is."""
        self.world.nodes.node("node1").state.files[PACKAGE] = StoredFile(
            0, "OS_NAME=other\nDISK_0_PATH=vdb\n"
        )
        stranger = replace(STRANGER, parameters=(("os-install-package", ""),))
        self.world.nodes.node("node1").systems = (stranger,)
        self.create("plain", osparams={"os-install-package": PACKAGE}, start=False)
        self.assertIn(f"Using OS install package '{PACKAGE}'", self.world.lines)
        self.assertEqual(self.sent("os_export"), [])
        self.assertEqual(self.contents()[0], ("other installed on vdb",))

    def test_refused(self) -> None:
        """All that it needs is looked for before anything is made."""
        self.assertRefused(
            "Cannot run OS scripts in a virtualized environment for hypervisor 'fake'",
            ECODE_STATE,
            hypervisor="fake",
            hvparams={},
        )
        self.assertRefused(
            "Booting from disk must be set for OS scripts to run in a helper VM",
            ECODE_INVAL,
            hvparams={"kernel_path": "", "boot_order": "network"},
        )
        self.assertRefused(
            "Not enough disk space on target node node1 vg xenvg: required 1048548 MiB, available "
            "1048448 MiB",
            ECODE_NORES,
            disks=[{"size": 1048348}],
        )
        self.modify(self.world.now.cluster.uuid, install_image="")
        self.assertRefused(
            "Cannot create install instance because an install image has not been specified",
            ECODE_STATE,
        )
        self.create("plain", no_install=True)

    def test_hangs(self) -> None:
        """A guest that never ends is stopped; the instance stays, down, without a system."""
        self.changes = {"seconds": None}
        self.renew()
        error = self.fails("plain", helper_shutdown_timeout=100)
        self.assertEqual(
            error.args[0],
            f"{DOING}: Error running helper VM with image {IMAGE}: it has not shut itself down "
            f"within 100 seconds; instance {NAME} is in the cluster, marked to be down, and its "
            "operating system is not installed",
        )
        self.assertStaysDown()

    def test_never_boots(self) -> None:
        """A guest that never comes up."""
        self.changes = {"boots": False}
        self.renew()
        error = self.fails("plain", helper_startup_timeout=20)
        self.assertIn(f"{DOING}: Could not boot instance using image {IMAGE}", error.args[0])
        self.assertStaysDown()

    def assertStaysDown(self) -> None:
        """Expects the instance to be down, with nothing of the helper VM left."""
        now = self.now()
        self.assertEqual((now.admin_state, now.disks_active), ("down", False))
        self.assertEqual(self.volumes(), 2)
        self.assertNotIn(NAME, self.world.nodes.node("node1").state.instances)

    def test_killed(self) -> None:
        """Killed at each checkpoint: all of the instance is there or nothing, and no helper VM."""
        for moment in self.each_kill("plain", start=False):
            there = self.world.now.instances.named(NAME)
            self.assertEqual(self.volumes(), 0 if there is None else 2, moment)
            self.assertNotIn(NAME, self.world.nodes.node("node1").state.instances, moment)
            assert self.world.last is not None
            self.assertNotIn(Fate.GUEST, [each.fate for each in self.world.last.devices], moment)


class ReinstallationInHelperTests(scene.InstanceScene):
    """OP_INSTANCE_REINSTALL."""

    def setUp(self) -> None:
        self.begin()

    def begin(self, **changes: Any) -> None:
        """Makes an instance that is down, and has the operating system that isn't trusted."""
        self.renew(
            description=Description(systems=(STRANGER,), images=(boot_image(**changes),)),
            hypervisors=("kvm",),
        )
        self.modify(self.world.now.cluster.uuid, lambda now: replace(now, install_image=IMAGE))
        self.make(
            "plain", ("node2",), os="stranger", hypervisor="kvm", admin_state="down", sizes=(64,)
        )

    def content(self) -> tuple[str, ...]:
        """Returns what is on the disk."""
        (disk,) = self.world.now.disks_of(self.now())
        assert disk.logical_id is not None
        devices = self.world.nodes.node("node2").state.devices
        self.assertEqual(len(devices), 1)
        return devices["/dev/{}/{}".format(*disk.logical_id)].content

    def test_installed(self) -> None:
        """As at a creation; afterwards it is down with inactive disks."""
        self.world.run("OP_INSTANCE_REINSTALL", instance_name=NAME)
        self.assertEqual(self.content(), ("stranger installed on /dev/vdb",))
        self.assertEqual(self.state(), ("down", "admin", False, []))
        self.assertEqual(self.world.faults(), [])

    def test_refused(self) -> None:
        """The image must be there, and memory for the guest."""
        arguments = {"instance_name": NAME}
        self.modify(self.now().uuid, lambda now: replace(now, beparams={"minmem": 100000}))
        self.assertRefused(
            f"Not enough memory on node node2 for starting the helper VM of instance {NAME}: "
            "needed 100000 MiB, available 64512 MiB",
            ECODE_NORES,
            "OP_INSTANCE_REINSTALL",
            **arguments,
        )
        self.modify(self.world.now.cluster.uuid, lambda now: replace(now, install_image=""))
        self.assertRefused(
            "Cannot create install instance because an install image has not been specified",
            ECODE_STATE,
            "OP_INSTANCE_REINSTALL",
            **arguments,
        )

    def test_hangs(self) -> None:
        """After two hours the guest is stopped."""
        self.begin(seconds=None)
        error = self.fails("OP_INSTANCE_REINSTALL", instance_name=NAME)
        self.assertIn("it has not shut itself down within 7200 seconds", str(error.args[0]))
        self.assertIn("reinstall it again", str(error.args[0]))
        self.assertEqual(self.content(), ())
        self.assertEqual(self.state(), ("down", "admin", False, []))
