"""OP_INSTANCE_SHUTDOWN and OP_INSTANCE_REBOOT."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Nic
from tests.logical_units.instances.scene import NAME, InstanceScene

SHUTDOWN = "OP_INSTANCE_SHUTDOWN"
REBOOT = "OP_INSTANCE_REBOOT"

USER_DOWN = {"memory": 128, "vcpus": 1, "state": 1, "time": 0.0}


class StopCase(InstanceScene):
    """Base: stops the instance."""

    def stop(self, **parameters: Any) -> None:
        """Stops the instance."""
        self.assertIsNone(self.world.run(SHUTDOWN, instance_name=NAME, **parameters))
        self.assertEqual(self.world.faults(), [])


class StopTests(StopCase):
    """Instances that can be stopped."""

    def test_mirrored(self) -> None:
        """The calls of real daemon 3.0.2, in its order."""
        before = self.make(up=True)
        self.stop()
        self.assertEqual(
            self.calls,
            [
                *((node, "hooks_runner") for node in ("node1", "node2", "node3")),
                ("node2", "instance_shutdown"),
                ("node2", "blockdev_shutdown"),
                ("node3", "blockdev_shutdown"),
                *((node, "hooks_runner") for node in ("node1", "node2", "node3")),
                ("node1", "hooks_runner"),
            ],
        )
        self.assertEqual(self.state(), ("down", "admin", False, []))
        self.assertEqual(self.now().serial_no, before.serial_no + 2)

    def test_on_one_node(self) -> None:
        """The same for disks that are on the primary node alone."""
        self.make("plain", ("node2",), up=True)
        self.stop()
        self.assertEqual(
            self.made_calls(), [("node2", "instance_shutdown"), ("node2", "blockdev_shutdown")]
        )

    def test_arguments(self) -> None:
        """The node gets the time that the instance has, and the reason."""
        self.make(up=True)
        self.stop(timeout=7, reason=[["me", "why not", 1]])
        _, timeout, trail = self.arguments[self.calls.index(("node2", "instance_shutdown"))]
        self.assertEqual((timeout, [tuple(each) for each in trail]), (7, [("me", "why not", 1)]))

    def test_stopped_already(self) -> None:
        """The node is called all the same, and nothing is written."""
        before = self.make()
        self.stop()
        self.assertIn(("node2", "instance_shutdown"), self.calls)
        self.assertEqual(self.now(), before)

    def test_not_remembered(self) -> None:
        """It stays marked as up without disks, for the watcher to start it."""
        self.make(up=True)
        self.stop(no_remember=True, admin_state_source="admin")
        self.assertEqual(self.state(), ("up", "admin", False, []))
        self.assertEqual(
            self.world.lines,
            [
                " - WARNING: Parameter 'admin_state_source' has no effect if used with parameter "
                "'no_remember'"
            ],
        )

    def test_disk_fails(self) -> None:
        """A disk that can't be shut down is only warned of."""
        self.make(up=True)
        self.break_call("blockdev_shutdown", "node3")
        self.stop()
        self.assertEqual(
            self.world.lines,
            [" - WARNING: Could not shutdown block device disk/0 on node node3: broken"],
        )
        self.assertEqual(self.state(), ("down", "admin", False, []))

    def test_marked_offline(self) -> None:
        """With force it is stopped, and stays marked as offline."""
        self.make(up=True)
        self.modify(f"i-{NAME}", lambda now: replace(now, admin_state="offline"))
        self.assertRefused(
            f"Instance '{NAME}' is marked to be offline, can't use instance from outside down, up "
            "states",
            "wrong_state",
            SHUTDOWN,
            instance_name=NAME,
        )
        self.stop(force=True)
        self.assertEqual(self.world.lines[0], " - WARNING: Ignoring offline instance check")
        self.assertEqual(self.state(), ("offline", "admin", False, []))

    def test_offline_primary(self) -> None:
        """If that is to be ignored, it is only recorded; the disks are as they were."""
        self.make(up=True)
        self.set_offline("node2")
        self.assertRefused(
            "Can't use offline node: node2", "wrong_state", SHUTDOWN, instance_name=NAME
        )
        self.stop(ignore_offline_nodes=True)
        self.assertEqual(self.made_calls(), [])
        self.assertEqual(
            self.world.lines,
            [
                " - WARNING: Ignoring offline primary node",
                " - INFO: Primary node offline, marked instance as stopped",
            ],
        )
        self.assertEqual(self.state()[:3], ("down", "admin", True))

    def test_by_user(self) -> None:
        """An instance that was shut down from within is cleaned up, and its user named for it."""
        self.make(up=True)
        self.assertRefused(
            f"Instance '{NAME}' was not shutdown by the user",
            "wrong_state",
            SHUTDOWN,
            instance_name=NAME,
            admin_state_source="user",
        )
        self.break_call("instance_info", kind="garbage", payload=USER_DOWN)
        before = self.now().serial_no
        self.stop(admin_state_source="user")
        self.assertEqual(self.state(), ("down", "user", False, []))
        # One for the state, one for the disks.
        self.assertEqual(self.now().serial_no, before + 2)

    def test_by_user_of_kvm(self) -> None:
        """Under KVM only where the instance may be shut down from within."""
        for allowed in (False, True):
            with self.subTest(allowed):
                self.renew(hypervisors=("kvm",))
                self.make(hypervisor="kvm", hvparams={"user_shutdown": allowed}, admin_state="up")
                self.break_call("instance_info", kind="garbage", payload=USER_DOWN)
                if allowed:
                    self.stop(admin_state_source="user")
                else:
                    self.fails(SHUTDOWN, instance_name=NAME, admin_state_source="user")
                self.assertEqual(self.state()[1], "user" if allowed else "admin")

    def test_by_user_unknown(self) -> None:
        """A node that can't say is no proof of a user's wish."""
        self.make(up=True)
        self.break_call("instance_info")
        self.assertRefused(
            f"Error checking instance '{NAME}': broken",
            "environment_error",
            SHUTDOWN,
            instance_name=NAME,
            admin_state_source="user",
        )

    def test_locks_and_hooks(self) -> None:
        """The instance alone; hooks get the time-out and, afterwards, the new state."""
        self.make(up=True)
        self.assertEqual(self.locks_of(SHUTDOWN, instance_name=NAME), {"instance": ([NAME], True)})
        self.stop(timeout=9)
        before, after = self.hook_variables()
        self.assertEqual(before["GANETI_TIMEOUT"], "9")
        self.assertEqual(before["GANETI_INSTANCE_STATUS"], "up")
        self.assertEqual(after["GANETI_POST_INSTANCE_STATUS"], "down")


class StopHalfWayTests(StopCase):
    """Stops that fail, or are killed."""

    def test_fails(self) -> None:
        """The error says how it is marked, and where it may still run."""
        self.make(up=True)
        self.break_call("instance_shutdown")
        self.assertFails(
            f"Could not shutdown instance '{NAME}': broken (it is marked to be down and may still "
            "run on node node2)",
            SHUTDOWN,
            instance_name=NAME,
        )
        self.assertEqual(self.state(), ("down", "admin", True, ["node2"]))

    def test_fails_not_remembered(self) -> None:
        """Then it is still marked as up."""
        self.make(up=True)
        self.break_call("instance_shutdown")
        self.assertFails(
            f"Could not shutdown instance '{NAME}': broken (it is marked to be up and may still "
            "run on node node2)",
            SHUTDOWN,
            instance_name=NAME,
            no_remember=True,
        )

    def test_killed(self) -> None:
        """It is marked as it is found: still up, or down with its disks shut."""

        def prepare() -> None:
            self.renew()
            self.make(up=True)

        seen = set()
        for _ in self.each_kill(prepare, SHUTDOWN, instance_name=NAME):
            seen.add(self.state()[0])
            self.assertIn(
                self.state(), [("up", "admin", True, ["node2"]), ("down", "admin", False, [])]
            )
        self.assertEqual(seen, {"up", "down"})

    def test_killed_not_remembered(self) -> None:
        """It stays marked as up; disks are shut only if it is stopped."""

        def prepare() -> None:
            self.renew()
            self.make(up=True)

        for _ in self.each_kill(prepare, SHUTDOWN, instance_name=NAME, no_remember=True):
            state, _, active, where = self.state()
            self.assertEqual((state, active), ("up", bool(where)))

    def test_killed_node_silent(self) -> None:
        """If nobody can say whether it runs, the log says what it is marked to be."""

        def prepare() -> None:
            self.renew()
            self.make(up=True)
            self.break_call("instance_info")

        states = set()
        for _ in self.each_kill(prepare, SHUTDOWN, instance_name=NAME):
            if ("node2", "instance_info") in self.calls:
                states.add(self.state()[0])
                self.assertIn(f"It is marked to be {self.state()[0]};", self.world.lines[-1])
        self.assertEqual(states, {"down", "up"})


class RebootCase(InstanceScene):
    """Base: reboots the instance."""

    def reboot(self, kind: str = "hard", **parameters: Any) -> None:
        """Reboots the instance."""
        done = self.world.run(REBOOT, instance_name=NAME, reboot_type=kind, **parameters)
        self.assertIsNone(done)
        self.assertEqual(self.world.faults(), [])


class RebootTests(RebootCase):
    """Instances that can be rebooted."""

    def test_by_hypervisor(self) -> None:
        """One call to the node, which gets type, time and reason."""
        for kind in ("soft", "hard"):
            self.renew()
            before = self.make(up=True)
            self.reboot(kind, shutdown_timeout=5, reason=[["me", "why not", 1]])
            self.assertEqual(
                self.made_calls(), [("node2", "instance_info"), ("node2", "instance_reboot")]
            )
            sent = self.arguments[self.calls.index(("node2", "instance_reboot"))][1:]
            self.assertEqual(sent[:2], (kind, 5))
            self.assertEqual([tuple(each) for each in sent[2]], [("me", "why not", 1)])
            self.assertEqual(self.now(), before)

    def test_full(self) -> None:
        """It is stopped, its disks are shut down and made ready, and it is started."""
        self.make(up=True)
        self.reboot("full")
        self.assertEqual(
            self.made_calls(),
            [
                ("node2", "instance_info"),
                ("node2", "instance_shutdown"),
                ("node2", "blockdev_shutdown"),
                ("node3", "blockdev_shutdown"),
                ("node2", "blockdev_assemble"),
                ("node3", "blockdev_assemble"),
                ("node2", "blockdev_assemble"),
                ("node2", "instance_start"),
            ],
        )
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))

    def test_stopped(self) -> None:
        """One that doesn't run is started, whatever the type; then it is marked as up."""
        for kind in ("soft", "hard", "full"):
            self.renew()
            self.make("plain", ("node2",))
            self.reboot(kind)
            self.assertEqual(
                self.made_calls(),
                [
                    ("node2", "instance_info"),
                    ("node2", "blockdev_assemble"),
                    ("node2", "blockdev_assemble"),
                    ("node2", "instance_start"),
                ],
            )
            sent = self.arguments[self.calls.index(("node2", "instance_start"))][0]
            self.assertEqual(sent["admin_state"], "down")
            self.assertEqual(
                self.world.lines,
                [f" - INFO: Instance {NAME} was already stopped, starting now"],
            )
            self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))

    def test_shut_down_from_within(self) -> None:
        """What is left of it goes before it is started."""
        self.make("plain", ("node2",), up=True)
        self.break_call("instance_info", kind="garbage", payload=USER_DOWN)
        self.reboot("hard")
        self.assertEqual(
            [call for _, call in self.made_calls()],
            [
                "instance_info",
                "instance_shutdown",
                "blockdev_shutdown",
                "blockdev_assemble",
                "blockdev_assemble",
                "instance_start",
            ],
        )

    def test_secondary_disk_fails(self) -> None:
        """That is ignored only if it is said so."""
        self.make(up=True)
        self.break_call("blockdev_assemble", "node3")
        self.reboot("full", ignore_secondaries=True)
        self.assertEqual(self.where(), ["node2"])
        self.assertFails("Disk consistency error", REBOOT, instance_name=NAME, reboot_type="full")
        self.assertEqual(self.where(), [])
        self.assertNotIn("--force", "".join(self.world.lines))

    def test_locks_and_hooks(self) -> None:
        """The instance alone; hooks get how it is rebooted."""
        self.make(up=True)
        self.assertEqual(
            self.locks_of(REBOOT, instance_name=NAME, reboot_type="soft"),
            {"instance": ([NAME], True)},
        )
        self.reboot("soft", shutdown_timeout=4)
        for variables in self.hook_variables():
            self.assertEqual(variables["GANETI_REBOOT_TYPE"], "soft")
            self.assertEqual(variables["GANETI_SHUTDOWN_TIMEOUT"], "4")
            self.assertEqual(variables["GANETI_IGNORE_SECONDARIES"], "False")


class RebootRefusalTests(RebootCase):
    """Instances that can't be rebooted."""

    def refuse(self, text: str, code: str) -> None:
        """Expects that a full reboot is refused."""
        self.assertRefused(text, code, REBOOT, instance_name=NAME, reboot_type="full")

    def test_state(self) -> None:
        """One that is marked as offline isn't."""
        self.make(admin_state="offline")
        self.refuse(
            f"Instance '{NAME}' is marked to be offline, can't use instance from outside down, up "
            "states",
            "wrong_state",
        )

    def test_offline_primary(self) -> None:
        """Nor one whose primary node is offline."""
        self.make(up=True)
        self.set_offline("node2")
        self.refuse("Can't use offline node: node2", "wrong_state")

    def test_bridges(self) -> None:
        """Nor one whose bridge is missing: it would not come back."""
        nic = Nic(mac="aa:00:00:00:00:01", uuid="n-1", nicparams={"mode": "bridged", "link": "b"})
        self.make(up=True, nics=[nic])
        self.break_call("bridges_exist", text="Missing bridges b")
        self.refuse(
            "Error checking bridges on destination node 'node2': Missing bridges b",
            "environment_error",
        )

    def test_node_says_nothing(self) -> None:
        """Nor one whose node can't say whether it runs."""
        self.make(up=True)
        self.break_call("instance_info")
        self.refuse("Error checking node node2: broken", "environment_error")

    def test_runs_elsewhere(self) -> None:
        """Nor one that would be started while it runs on another node."""
        self.make(admin_state="up")
        self.run_on("node3")
        self.refuse(
            f"Instance '{NAME}' runs on node node3, which is not its primary node node2; it is not "
            "started a second time",
            "wrong_state",
        )


class RebootHalfWayTests(RebootCase):
    """Reboots that fail, or are killed."""

    def fail_full(self, text: str) -> None:
        """Expects that a full reboot fails."""
        self.assertFails(text, REBOOT, instance_name=NAME, reboot_type="full")

    def test_hypervisor_fails(self) -> None:
        """The error names instance and node."""
        before = self.make(up=True)
        self.break_call("instance_reboot")
        self.assertFails(
            f"Could not reboot instance '{NAME}' on node node2: broken",
            REBOOT,
            instance_name=NAME,
            reboot_type="hard",
        )
        self.assertEqual(self.now(), before)

    def test_stop_fails(self) -> None:
        """It runs on then."""
        self.make(up=True)
        self.break_call("instance_shutdown")
        self.fail_full(f"Could not shutdown instance '{NAME}' for full reboot: broken")
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))

    def test_start_fails(self) -> None:
        """The log says that it is stopped, and how it is marked; its disks are shut down."""
        self.make(up=True)
        self.break_call("instance_start")
        self.fail_full(f"Could not start instance '{NAME}' on node node2 for full reboot: broken")
        self.assertEqual(
            self.world.lines,
            [
                f" - WARNING: Instance {NAME} is stopped, and marked to be up",
                f"      Hint: 'gnt-instance startup {NAME}' starts it",
            ],
        )
        self.assertEqual(self.state(), ("up", "admin", False, []))

    def test_disks_fail(self) -> None:
        """The same where disks don't get ready."""
        self.make(up=True)
        self.break_call("blockdev_assemble")
        self.fail_full("Disk consistency error")
        self.assertIn(
            f" - WARNING: Instance {NAME} is stopped, and marked to be up", self.world.lines
        )
        self.assertEqual(self.state(), ("up", "admin", False, []))

    def test_killed(self) -> None:
        """It runs, or its disks are shut down; it is marked as up, as it was."""

        def prepare() -> None:
            self.renew()
            self.make(up=True)

        stopped = 0
        for _ in self.each_kill(prepare, REBOOT, instance_name=NAME, reboot_type="full"):
            state, _, active, where = self.state()
            self.assertEqual((state, active), ("up", bool(where)))
            stopped += not where
        self.assertGreater(stopped, 3)

    def test_killed_stopped_one(self) -> None:
        """One that was down is that again, unless it runs already."""

        def prepare() -> None:
            self.renew()
            self.make()

        for _ in self.each_kill(prepare, REBOOT, instance_name=NAME, reboot_type="hard"):
            self.assertIn(
                self.state(), [("down", "admin", False, []), ("up", "admin", True, ["node2"])]
            )
