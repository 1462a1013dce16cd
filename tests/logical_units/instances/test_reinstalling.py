"""OP_INSTANCE_REINSTALL."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.simulation.description import DEFAULT_SYSTEMS, Description
from ganeti_masterd.simulation.node import Failing, OSDefinition
from ganeti_masterd.simulation.state import StoredFile
from tests.logical_units.instances.scene import NAME, InstanceScene

REINSTALL = "OP_INSTANCE_REINSTALL"

DEMO = OSDefinition(
    "demo",
    variants=("plain", "fancy"),
    parameters=(("fs", ""), ("pw", ""), ("token", "")),
    fails=(
        Failing("create", "fs", ("boom",), exit_code=3, output="told to fail"),
        Failing("create", "pw", ("hush",), output="set -x: pw=hush"),
        Failing("verify", "token", ("hush", "no"), output="no such token: {value}, nothing"),
    ),
    writes="{instance} {variant} {fs} {pw} {token}",
)

#: What is left of an instance after a failure of the installation itself.
HALF_WAY = (
    f"instance {NAME} is down, and what is on its disks may be neither the old operating system "
    "nor the new one: reinstall it again"
)


class ReinstallCase(InstanceScene):
    """Base: an instance with an operating system that takes parameters."""

    def setUp(self) -> None:
        self.begin()

    def begin(self, template: str = "drbd", **about: Any) -> Instance:
        """Starts anew with one instance."""
        self.renew(description=Description(systems=(*DEFAULT_SYSTEMS, DEMO)))
        settings: dict[str, Any] = {
            "os": "demo+plain",
            "osparams": {"fs": "ext4"},
            "osparams_private": {"pw": "old"},
            "admin_state": "down",
            **about,
        }
        nodes = ("node2", "node3") if template == "drbd" else ("node2",)
        return self.make(template, nodes, **settings)

    def reinstall(self, **parameters: Any) -> None:
        """Reinstalls the instance."""
        self.assertIsNone(self.world.run(REINSTALL, instance_name=NAME, **parameters))
        self.assertEqual(self.world.faults(), [])
        self.assertFalse(self.now().disks_active)
        self.assertEqual(self.open_devices(), [])

    def refuses(self, text: str, code: str, **parameters: Any) -> None:
        """Expects a refusal."""
        self.assertRefused(text, code, REINSTALL, instance_name=NAME, **parameters)

    def open_devices(self) -> list[str]:
        """Returns the nodes on which a mirror is up."""
        mirrors = self.world.nodes.world.mirrors
        return [node for node in ("node2", "node3") if mirrors.of_node(node)]

    def sent(self, call: str) -> dict[str, Any]:
        """Returns the instance that a call was made with."""
        found: dict[str, Any] = self.arguments[[name for _, name in self.calls].index(call)][0]
        return found


class ReinstallTests(ReinstallCase):
    """Instances that can be reinstalled."""

    def test_calls(self) -> None:
        """Those of real daemon 3.0.2, and one that asks whether the system is trusted."""
        self.reinstall()
        self.assertEqual(
            self.made_calls(),
            [
                ("node2", "instance_info"),
                ("node2", "os_validate"),
                ("node3", "os_validate"),
                ("node2", "os_diagnose"),
                ("node2", "blockdev_assemble"),
                ("node3", "blockdev_assemble"),
                ("node2", "blockdev_assemble"),
                ("node2", "instance_os_add"),
                ("node2", "instance_metadata_modify"),
                ("node2", "blockdev_shutdown"),
                ("node3", "blockdev_shutdown"),
            ],
        )
        self.assertEqual(
            self.world.lines,
            [
                " - INFO: Running instance OS create scripts...",
                " - INFO: Instance OS create scripts have finished after 0s",
            ],
        )

    def test_parameters_stay(self) -> None:
        """Without parameters the instance keeps its own, and nothing of it is written."""
        before = self.now()
        self.reinstall()
        self.assertEqual(self.now().osparams, {"fs": "ext4"})
        self.assertEqual(self.now().osparams_private, {"pw": "old"})
        self.assertEqual(self.now().serial_no, before.serial_no + 2)

    def test_parameters_merged(self) -> None:
        """Parameters given are laid over the instance's; "default" takes one away."""
        self.reinstall(
            osparams={"fs": "default"},
            osparams_private={"pw": "new"},
            osparams_secret={"token": "s"},
        )
        self.assertEqual((self.now().osparams, self.now().osparams_private), ({}, {"pw": "new"}))
        sent = self.sent("instance_os_add")
        self.assertEqual(sent["osparams"], {"pw": "new", "token": "s"})
        self.assertEqual(
            self.arguments[self.calls.index(("node2", "instance_os_add"))][1:], (True, 0)
        )

    def test_metadata(self) -> None:
        """The metadata daemon gets each visibility by itself."""
        self.reinstall(osparams_secret={"token": "s"})
        sent = self.sent("instance_metadata_modify")
        self.assertEqual(
            (sent["osparams"], sent["osparams_private"], sent["osparams_secret"]),
            ({"fs": "ext4"}, {"pw": "old"}, {"token": "s"}),
        )

    def test_cluster_parameters(self) -> None:
        """The cluster's parameters are under those of the instance, also private ones."""

        def given(cluster: Any) -> Any:
            return replace(
                cluster,
                osparams={"demo": {"fs": "xfs"}},
                osparams_private_cluster={"demo+plain": {"pw": "c", "token": "t"}},
            )

        self.modify(self.world.now.cluster.uuid, given)
        self.forget()
        self.reinstall()
        expected = {"fs": "ext4", "pw": "old", "token": "t"}
        self.assertEqual(self.sent("instance_os_add")["osparams"], expected)
        self.assertEqual(self.arguments[self.calls.index(("node2", "os_validate"))][3], expected)
        self.assertEqual(self.now().osparams_private, {"pw": "old"})

    def test_other_system(self) -> None:
        """Another operating system is written together with its parameters."""
        before = self.now().serial_no
        self.reinstall(os_type="noop", osparams={"fs": "default"}, osparams_private={"pw": None})
        now = self.now()
        self.assertEqual((now.os, now.osparams, now.osparams_private), ("noop", {}, {}))
        self.assertEqual(now.serial_no, before + 3)
        self.assertEqual(self.world.lines[0], "Changing OS scripts to 'noop'...")

    def test_image(self) -> None:
        """An image is written on the first disk before the scripts run."""
        self.begin("plain", os="", osparams={}, osparams_private={})
        self.world.nodes.node("node2").state.files["/image"] = StoredFile(0, "")
        self.reinstall(osparams={"os-image": "/image"})
        self.assertEqual(
            [call for _, call in self.made_calls()],
            [
                "instance_info",
                "blockdev_assemble",
                "blockdev_assemble",
                "blockdev_pause_resume_sync",
                "blockdev_image",
                "blockdev_pause_resume_sync",
                "instance_metadata_modify",
                "blockdev_shutdown",
            ],
        )
        self.assertEqual(
            self.world.lines,
            [
                "Using OS image '/image'",
                "* imaging instance disks...",
                f" - INFO: Imaging disk '0' for instance '{NAME}' on node 'node2'",
                " - INFO: The image was written in 0s",
            ],
        )
        self.assertEqual(self.now().osparams, {"os-image": "/image"})

    def test_nothing_to_install(self) -> None:
        """Without a system and an image nothing is called or written."""
        before = self.begin(os="", osparams={}, osparams_private={})
        self.reinstall(osparams={"fs": "xfs"})
        self.assertEqual(self.made_calls(), [("node2", "instance_info")])
        self.assertEqual(self.now(), before)
        self.assertEqual(
            self.world.lines,
            [
                " - INFO: No OS scripts or OS image specified or found in the instance's "
                "configuration, nothing to install"
            ],
        )

    def test_offline_secondary(self) -> None:
        """A secondary that is marked offline isn't asked, and doesn't hinder."""
        self.set_offline("node3")
        self.reinstall()
        self.assertNotIn(("node3", "os_validate"), self.calls)

    def test_metadata_fails(self) -> None:
        """What the metadata daemon doesn't take is only logged."""
        self.break_call("instance_metadata_modify")
        self.reinstall()
        self.assertIn(f"Could not update metadata for instance '{NAME}': broken", self.world.lines)

    def test_locks(self) -> None:
        """The instance, alone; no node."""
        self.assertEqual(self.locks_of(REINSTALL, instance_name=NAME), {"instance": ([NAME], True)})

    def test_hooks(self) -> None:
        """They run on the master and both nodes, and see the system before and after."""
        self.reinstall(os_type="demo+fancy", osparams_secret={"token": "tell-nobody"})
        before, after = self.hook_variables()
        self.assertEqual(before["GANETI_INSTANCE_OS_TYPE"], "demo+plain")
        self.assertEqual(after["GANETI_POST_INSTANCE_OS_TYPE"], "demo+fancy")
        self.assertEqual(before["GANETI_OP_TARGET"], NAME)
        on = {node for node, call in self.calls if call == "hooks_runner"}
        self.assertEqual(on, {"node1", "node2", "node3"})
        for value in ("tell-nobody", "ext4", "'old'"):
            self.assertNotIn(value, repr((before, after)))


class ReinstallRefusalTests(ReinstallCase):
    """Whatever can't be is refused before anything is changed."""

    def test_offline_primary(self) -> None:
        """The primary must be there."""
        self.set_offline("node2")
        self.refuses("Instance primary node offline, cannot reinstall: node2", "wrong_state")

    def test_without_disks(self) -> None:
        """There must be something to install on; this comes before the state."""
        self.begin("diskless", admin_state="up")
        self.refuses(f"Instance '{NAME}' has no disks", "wrong_input")

    def test_states(self) -> None:
        """Neither marked to be up, nor offline, nor running."""
        for state in ("up", "offline"):
            self.modify(self.now().uuid, lambda now, to=state: replace(now, admin_state=to))
            self.refuses(
                f"Instance '{NAME}' is marked to be {state}, cannot reinstall", "wrong_state"
            )
        self.modify(self.now().uuid, lambda now: replace(now, admin_state="down"))
        self.run_on("node2")
        self.refuses(f"Instance {NAME} is running, cannot reinstall", "wrong_state")

    def test_forthcoming(self) -> None:
        """A plan has nothing to install on."""
        self.modify(self.now().uuid, lambda now: replace(now, forthcoming=True))
        self.refuses(
            f"Instance '{NAME}': forthcoming instances not supported for this operation",
            "wrong_state",
        )

    def test_primary_silent(self) -> None:
        """A node that can't say whether it runs."""
        self.break_call("instance_info")
        self.refuses(
            f"Can't retrieve instance information for instance '{NAME}': broken",
            "environment_error",
        )

    def test_validation(self) -> None:
        """What the nodes say of the system and of its parameters."""
        text = "OS Parameters validation failed on node node2: "
        for parameters, why in (
            ({"os_type": "nosuch"}, "Directory for OS nosuch not found in search path"),
            ({"os_type": "demo+none"}, "OS 'demo' does not support variant 'none'"),
            (
                {"osparams": {"color": "red"}},
                "The following parameters are not supported by the OS demo: color",
            ),
        ):
            self.refuses(text + why, "environment_error", **parameters)

    def test_force_variant(self) -> None:
        """A variant that the system doesn't list can be forced."""
        self.reinstall(os_type="demo+none", force_variant=True)
        self.assertEqual(self.now().os, "demo+none")

    def test_visibilities(self) -> None:
        """A parameter has one visibility, that of the instance included."""
        text = (
            "Cannot assign multiple values to OS parameters. The following parameters are given "
            "in more than one visibility: pw"
        )
        self.refuses(text, "wrong_input", osparams={"pw": "x"}, osparams_secret={"pw": "y"})
        self.refuses(text, "wrong_input", osparams_secret={"pw": "y"})

    def test_image_path(self) -> None:
        """An image has an absolute path or a URL."""
        text = "OS image must be an absolute path or a URL"
        self.refuses(text, "wrong_input", osparams={"os-image": "image"})


class ReinstallFailureTests(ReinstallCase):
    """What is left where it fails half-way."""

    def fails_with(self, text: str, **parameters: Any) -> None:
        """Expects a failure that leaves the instance down, with its disks shut down."""
        self.assertFails(text, REINSTALL, instance_name=NAME, **parameters)
        self.assertEqual(self.state(), ("down", "admin", False, []))
        self.assertEqual(self.open_devices(), [])

    def test_disks(self) -> None:
        """Before the installation began nothing is written."""
        self.break_call("blockdev_assemble")
        self.fails_with(
            f"Disk consistency error; instance {NAME} is down, and nothing of it was changed",
            os_type="demo+fancy",
        )
        self.assertEqual(self.now().os, "demo+plain")
        shut = [each for each in self.calls if each[1] == "blockdev_shutdown"]
        self.assertEqual(shut, [("node2", "blockdev_shutdown"), ("node3", "blockdev_shutdown")])

    def test_script(self) -> None:
        """A script that fails; what is to be installed is recorded for the next try."""
        self.fails_with(
            f"Could not install OS for instance '{NAME}' on node 'node2': OS create script failed "
            f"(exited with exit code 3), last lines in the log file:\ntold to fail; {HALF_WAY}",
            osparams={"fs": "boom"},
        )
        self.assertEqual(self.now().osparams, {"fs": "boom"})

    def test_scripts_that_tell(self) -> None:
        """What a script prints of private and secret values is masked."""
        self.fails_with(
            f"Could not install OS for instance '{NAME}' on node 'node2': OS create script failed "
            "(exited with exit code 1), last lines in the log file:\nset -x: pw=<redacted>; "
            f"{HALF_WAY}",
            osparams_private={"pw": "hush"},
        )
        text = (
            "OS Parameters validation failed on node node2: OS validation script failed (exited "
            "with exit code 1), output: {}"
        )
        for value, said in (
            ("hush", "no such token: <redacted>, nothing"),
            ("no", "<redacted> such token: <redacted>, nothing"),
        ):
            self.refuses(text.format(said), "environment_error", osparams_secret={"token": value})

    def test_image(self) -> None:
        """An image that isn't there."""
        self.fails_with(
            f"Could not image disk '0' for instance '{NAME}' on node 'node2': Image '/none' not "
            f"found; {HALF_WAY}",
            os_type="noop",
            osparams={"os-image": "/none", "fs": "default"},
            osparams_private={"pw": "default"},
        )

    def test_shutdown_of_disks(self) -> None:
        """A disk that can't be shut down is warned of."""
        self.break_call("blockdev_shutdown", "node3")
        self.world.run(REINSTALL, instance_name=NAME)
        self.assertIn(
            " - WARNING: Could not shutdown block device disk/0 on node node3: broken",
            self.world.lines,
        )

    def test_kills(self) -> None:
        """Wherever it is killed the instance is down, with its disks shut down."""
        killed = set()
        for _ in self.each_kill(
            self.begin, REINSTALL, instance_name=NAME, os_type="demo+fancy", osparams={"fs": "xfs"}
        ):
            self.assertEqual(self.state(), ("down", "admin", False, []))
            self.assertEqual(self.open_devices(), [])
            now = self.now()
            self.assertIn(
                (now.os, now.osparams["fs"]), [("demo+plain", "ext4"), ("demo+fancy", "xfs")]
            )
            killed.add(now.os)
        self.assertEqual(killed, {"demo+plain", "demo+fancy"})
