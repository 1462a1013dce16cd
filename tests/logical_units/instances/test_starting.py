"""OP_INSTANCE_STARTUP."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Nic
from ganeti_masterd.errors import HypervisorError, TypeEnforcementError
from ganeti_masterd.logical_units.instances.whereabouts import PATIENCE
from tests.logical_units.instances.scene import NAME, InstanceScene
from tests.logical_units.world import MustWait

STARTUP = "OP_INSTANCE_STARTUP"

#: What a hypervisor says of an instance that was shut down from within.
USER_DOWN = {"memory": 128, "vcpus": 1, "state": 1, "time": 0.0}


class StartCase(InstanceScene):
    """Base: runs the opcode on the instance."""

    def start(self, **parameters: Any) -> None:
        """Starts the instance."""
        self.assertIsNone(self.world.run(STARTUP, instance_name=NAME, **parameters))
        self.assertEqual(self.world.faults(), [])


class StartTests(StartCase):
    """Instances that can be started."""

    def test_mirrored(self) -> None:
        """The calls of real daemon 3.0.2, in its order, and a look at the secondary node."""
        before = self.make("drbd")
        self.start()
        self.assertEqual(
            self.calls,
            [
                ("node2", "instance_info"),
                ("node3", "instance_info"),
                ("node2", "node_info"),
                *((node, "hooks_runner") for node in ("node1", "node2", "node3")),
                ("node2", "blockdev_assemble"),
                ("node3", "blockdev_assemble"),
                ("node2", "blockdev_assemble"),
                ("node2", "instance_start"),
                *((node, "hooks_runner") for node in ("node1", "node2", "node3")),
                ("node1", "hooks_runner"),
            ],
        )
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))
        self.assertEqual(self.now().serial_no, before.serial_no + 1)

    def test_on_one_node(self) -> None:
        """An instance that no other node can run asks nobody else."""
        for template in ("plain", "file"):
            self.renew()
            self.make(template, ("node3",))
            self.start()
            self.assertEqual(
                self.made_calls(),
                [
                    ("node3", "instance_info"),
                    ("node3", "node_info"),
                    ("node3", "blockdev_assemble"),
                    ("node3", "blockdev_assemble"),
                    ("node3", "instance_start"),
                ],
            )
            self.assertEqual(self.state(), ("up", "admin", True, ["node3"]))

    def test_shared_storage(self) -> None:
        """Where every node reaches the disks, every node of the group is asked."""
        self.make("diskless", ("node2",))
        self.start()
        asked = [node for node, call in self.calls if call == "instance_info"]
        self.assertEqual(asked[0], "node2")
        self.assertEqual(sorted(asked), ["node1", "node2", "node3", "node4"])
        self.assertEqual(self.world.lines, [])

    def test_running_already(self) -> None:
        """It succeeds, asks for no memory and nobody else, and writes nothing."""
        before = self.make(up=True)
        self.break_call("node_info")
        self.start()
        self.assertEqual(self.now(), before)
        self.assertNotIn(("node3", "instance_info"), self.calls)

    def test_not_remembered(self) -> None:
        """An instance that is started in this way runs while it is marked as down."""
        self.make()
        self.start(no_remember=True)
        self.assertEqual(self.state(), ("down", "admin", True, ["node2"]))

    def test_arguments(self) -> None:
        """The node gets the parameters for this start, paused, with the reason; nothing is kept."""
        self.make("plain", ("node2",))
        reason = [["me", "why not", 1]]
        self.start(
            beparams={"memory": "192m"},
            hvparams={"migration_mode": "non-live"},
            startup_paused=True,
            reason=reason,
        )
        sent, paused, trail = self.arguments[self.calls.index(("node2", "instance_start"))]
        self.assertEqual((sent["beparams"]["minmem"], sent["beparams"]["maxmem"]), (192, 192))
        self.assertEqual(sent["hvparams"], {"migration_mode": "non-live"})
        self.assertEqual((paused, [tuple(each) for each in trail]), (True, [("me", "why not", 1)]))
        self.assertEqual((self.now().beparams, self.now().hvparams), ({}, {}))
        self.assertEqual(self.made_calls()[0], ("node2", "hypervisor_validate_params"))

    def test_offline_secondary(self) -> None:
        """It is forgiven without force; that it can't be asked or mirrored is in the log."""
        self.make()
        self.set_offline("node3")
        self.start()
        self.assertEqual(self.where(), ["node2"])
        self.assertEqual(
            self.world.lines,
            [
                f" - WARNING: Can't ask whether instance {NAME} runs on offline nodes: node3",
                " - WARNING: Could not prepare block device disk/0 on node node3 "
                "(is_primary=False, pass=1): Node is marked offline",
            ],
        )

    def test_silent_secondary(self) -> None:
        """A node that doesn't say whether the instance runs there is warned of, not waited for."""
        self.make()
        self.break_call("instance_info", "node3")
        self.start()
        self.assertEqual(
            self.world.lines,
            [f" - WARNING: Can't ask whether instance {NAME} runs on node node3: broken"],
        )
        asked = [each for each in zip(self.calls, self.timeouts, strict=True) if each[1]]
        self.assertEqual(asked, [(("node3", "instance_info"), PATIENCE)])

    def test_forced(self) -> None:
        """Faults of secondary disks count unless force is given."""
        self.make()
        mend = self.break_call("blockdev_assemble", "node3")
        self.assertFails("Disk consistency error", STARTUP, instance_name=NAME)
        self.assertIn("you can retry the operation using '--force'", self.world.lines[-1])
        self.assertEqual(self.state(), ("up", "admin", False, []))
        self.start(force=True)
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))
        mend()

    def test_offline_primary(self) -> None:
        """If that is to be ignored, it is only recorded."""
        self.make()
        self.set_offline("node2")
        self.start(ignore_offline_nodes=True, beparams={"minmem": 4})
        self.assertEqual(self.made_calls(), [])
        self.assertEqual(
            self.world.lines,
            [
                " - WARNING: Ignoring offline primary node",
                " - WARNING: Overridden parameters are ignored",
                " - INFO: Primary node offline, marked instance as started",
            ],
        )
        self.assertEqual(self.state(), ("up", "admin", True, []))

    def test_offline_primary_not_remembered(self) -> None:
        """Then there is nothing to do at all."""
        self.make()
        self.set_offline("node2")
        before = self.now()
        self.start(ignore_offline_nodes=True, no_remember=True)
        self.assertEqual(self.now(), before)

    def test_shut_down_from_within(self) -> None:
        """What is left of it goes first; its memory is there already."""
        self.make("plain", ("node2",), up=True)
        self.modify(f"i-{NAME}", lambda now: replace(now, admin_state="down"))
        self.break_call("instance_info", kind="garbage", payload=USER_DOWN)
        self.start(shutdown_timeout=7)
        self.assertEqual(
            self.made_calls(),
            [
                ("node2", "instance_info"),
                ("node2", "instance_shutdown"),
                ("node2", "blockdev_shutdown"),
                ("node2", "blockdev_assemble"),
                ("node2", "blockdev_assemble"),
                ("node2", "instance_start"),
            ],
        )
        self.assertEqual(self.arguments[self.calls.index(("node2", "instance_shutdown"))][1], 7)
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))

    def test_cleaning_fails(self) -> None:
        """What can't be cleaned up isn't started."""
        self.make("plain", ("node2",))
        self.break_call("instance_info", kind="garbage", payload=USER_DOWN)
        self.break_call("instance_shutdown")
        self.assertFails(
            f"Could not shutdown instance '{NAME}': broken", STARTUP, instance_name=NAME
        )
        self.assertNotIn(("node2", "instance_start"), self.calls)

    def test_locks(self) -> None:
        """The instance, and the resources of its primary node, alone."""
        self.make()
        node = self.world.now.node("node2").uuid
        self.assertEqual(
            self.locks_of(STARTUP, instance_name=NAME),
            {"instance": ([NAME], True), "node-res": ([node], True)},
        )

    def test_two_starts(self) -> None:
        """A second start on the same node doesn't see the memory that the first one will take."""
        self.make()
        self.make("plain", ("node2",), "two.example.com")
        found: list[BaseException] = []

        def meanwhile() -> None:
            try:
                self.world.run(STARTUP, instance_name="two.example.com")
            except MustWait as error:
                found.append(error)

        self.world.meanwhile = [meanwhile]
        self.start()
        self.assertEqual(len(found), 1)

    def test_hooks(self) -> None:
        """Both runs have the instance's variables and FORCE; the second has the new state."""
        self.make()
        self.start(force=True)
        before, after = self.hook_variables()
        for variables in (before, after):
            self.assertEqual(variables["GANETI_FORCE"], "True")
            self.assertEqual(variables["GANETI_INSTANCE_NAME"], NAME)
            self.assertEqual(variables["GANETI_INSTANCE_STATUS"], "down")
        self.assertEqual(after["GANETI_POST_INSTANCE_STATUS"], "up")


class RefusalTests(StartCase):
    """Instances that can't be started, and the parameters with which they can't."""

    def test_state(self) -> None:
        """One that is marked as offline isn't started."""
        self.make(admin_state="offline")
        self.assertRefused(
            f"Instance '{NAME}' is marked to be offline, can't use instance from outside down, up "
            "states",
            "wrong_state",
            STARTUP,
            instance_name=NAME,
        )

    def test_unknown(self) -> None:
        """Neither is one that isn't there, or another one of that name."""
        self.make()
        self.assertRefused(
            "Instance 'nosuch' not known", "unknown_entity", STARTUP, instance_name="nosuch"
        )
        error = self.fails(STARTUP, instance_name=NAME, instance_uuid="other")
        self.assertEqual(error.args[1], "resource_not_unique")

    def test_forthcoming(self) -> None:
        """Neither is one that is only planned."""
        self.make("diskless", ("node2",), forthcoming=True)
        self.assertRefused(
            f"Instance '{NAME}': forthcoming instances not supported for this operation",
            "wrong_state",
            STARTUP,
            instance_name=NAME,
        )

    def test_offline_primary(self) -> None:
        """Nobody can start it where its primary node is offline."""
        self.make()
        self.set_offline("node2")
        self.assertRefused(
            "Can't use offline node: node2", "wrong_state", STARTUP, instance_name=NAME
        )

    def test_node_says_nothing(self) -> None:
        """A node that can't say whether it runs doesn't start it."""
        self.make()
        self.break_call("instance_info")
        self.assertRefused(
            "Error checking node node2: broken", "environment_error", STARTUP, instance_name=NAME
        )

    def test_memory(self) -> None:
        """The least of its memory must be there: that of this start."""
        self.make("plain", ("node2",))
        self.assertRefused(
            f"Not enough memory on node node2 for starting instance {NAME}: needed 100000 MiB, "
            "available 64512 MiB",
            "insufficient_resources",
            STARTUP,
            instance_name=NAME,
            beparams={"memory": 100000},
        )

    def test_bridges(self) -> None:
        """A bridge that is missing is found before anything is done."""
        nic = Nic(mac="aa:00:00:00:00:01", uuid="n-1", nicparams={"mode": "bridged", "link": "b"})
        self.make(nics=[nic])
        self.break_call("bridges_exist", text="Missing bridges b")
        self.assertRefused(
            "Error checking bridges on destination node 'node2': Missing bridges b",
            "environment_error",
            STARTUP,
            instance_name=NAME,
        )

    def test_runs_elsewhere(self) -> None:
        """It is never started a second time, on whatever node it was left."""
        for template, node in (("drbd", "node3"), ("diskless", "node4")):
            with self.subTest(template):
                self.renew()
                nodes = ("node2", "node3") if template == "drbd" else ("node2",)
                self.make(template, nodes)
                self.run_on(node)
                self.assertRefused(
                    f"Instance '{NAME}' runs on node {node}, which is not its primary node node2; "
                    "it is not started a second time",
                    "wrong_state",
                    STARTUP,
                    instance_name=NAME,
                    force=True,
                )
                self.assertEqual(self.where(), [node])

    def test_parameters(self) -> None:
        """Parameters are checked here, and on the nodes."""
        self.make()
        for given, kind in (
            ({"hvparams": {"nosuch": 1}}, TypeEnforcementError),
            ({"beparams": {"nosuch": 1}}, TypeEnforcementError),
            ({"beparams": {"vcpus": "many"}}, TypeEnforcementError),
            ({"hvparams": {"acpi": True}}, HypervisorError),
        ):
            with self.subTest(given):
                self.assertIsInstance(self.fails(STARTUP, instance_name=NAME, **given), kind)
        self.assertEqual(self.calls, [])
        self.assertRefused(
            "Invalid memory sizes: minmem (100000) must not be larger than maxmem (128)",
            "wrong_input",
            STARTUP,
            instance_name=NAME,
            beparams={"minmem": 100000},
        )
        self.break_call("hypervisor_validate_params", "node3")
        self.assertRefused(
            "Hypervisor parameter validation failed on node node3: broken",
            "environment_error",
            STARTUP,
            instance_name=NAME,
            hvparams={"migration_mode": "live"},
        )


class HalfWayTests(StartCase):
    """Starts that fail, or are killed."""

    def test_start_fails(self) -> None:
        """Disks are shut down; it stays marked as up, so that the watcher tries again."""
        self.make()
        self.break_call("instance_start")
        self.assertFails(
            f"Could not start instance '{NAME}' on node node2: broken",
            STARTUP,
            instance_name=NAME,
        )
        self.assertEqual(
            self.made_calls()[-2:], [("node2", "blockdev_shutdown"), ("node3", "blockdev_shutdown")]
        )
        self.assertEqual(self.state(), ("up", "admin", False, []))

    def test_primary_disk_fails(self) -> None:
        """No force helps where the primary node lacks a disk."""
        self.make()
        self.break_call("blockdev_assemble", "node2")
        self.assertFails("Disk consistency error", STARTUP, instance_name=NAME, force=True)
        self.assertEqual(self.state(), ("up", "admin", False, []))

    def test_running_one_fails(self) -> None:
        """The disks of an instance that runs are left alone."""
        self.make(up=True)
        mend = self.break_call("blockdev_assemble", "node3")
        self.assertFails(
            f"Disk consistency error; instance '{NAME}' runs on", STARTUP, instance_name=NAME
        )
        mend()
        self.break_call("instance_start")
        self.fails(STARTUP, instance_name=NAME)
        self.assertNotIn("blockdev_shutdown", [call for _, call in self.calls])
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))

    def test_killed(self) -> None:
        """It runs and is marked so, or it doesn't and is as it was."""
        seen = set()
        for _ in self.each_kill(self.anew, STARTUP, instance_name=NAME):
            seen.add(self.state()[0])
            self.assertIn(
                self.state(),
                [("down", "user", False, []), ("up", "admin", True, ["node2"])],
            )
        self.assertEqual(seen, {"down", "up"})

    def anew(self) -> None:
        """Makes the instance anew."""
        self.renew()
        self.make(admin_state_source="user")

    def test_killed_running(self) -> None:
        """One that ran already runs on, with its disks."""

        def prepare() -> None:
            self.renew()
            self.make(up=True)

        for _ in self.each_kill(prepare, STARTUP, instance_name=NAME):
            self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))

    def test_killed_not_remembered(self) -> None:
        """Nothing is marked then either."""

        def prepare() -> None:
            self.renew()
            self.make()

        for _ in self.each_kill(prepare, STARTUP, instance_name=NAME, no_remember=True):
            state, _, active, where = self.state()
            self.assertEqual((state, active), ("down", bool(where)))

    def test_killed_node_silent(self) -> None:
        """If nobody can say whether it runs, the log says what it is marked to be."""

        def prepare() -> None:
            self.renew()
            self.make()
            self.break_call("instance_info", after=1)

        states = set()
        for _ in self.each_kill(prepare, STARTUP, instance_name=NAME):
            state = self.state()[0]
            if any(call == "instance_info" for _, call in self.calls[4:]):
                states.add(state)
                warning, hint = self.world.lines[-2:]
                self.assertEqual(
                    warning,
                    f" - WARNING: Can't tell whether instance {NAME} runs on node node2: broken",
                )
                self.assertIn(f"It is marked to be {state};", hint)
        self.assertEqual(states, {"down", "up"})

    def test_comes_up_after_the_kill(self) -> None:
        """A start that goes on at the node after the kill is recorded: its disks are in use."""

        def prepare() -> None:
            self.renew()
            self.make()
            self.break_call("blockdev_shutdown")
            self.break_call("instance_start", kind="garbage")
            self.come_up_at("blockdev_shutdown")

        late = 0
        for _ in self.each_kill(prepare, STARTUP, instance_name=NAME):
            if ("node2", "blockdev_shutdown") in self.calls:
                late += 1
                self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))
        self.assertGreater(late, 3)

    def come_up_at(self, procedure: str) -> None:
        """Has the instance come up at node2 when a call is made."""
        inner = self.world.nodes.call

        def call(targets: Any, name: str, arguments: Any = (), **options: Any) -> Any:
            done = inner(targets, name, arguments, **options)
            if name == procedure:
                self.run_on("node2")
            return done

        self.world.nodes.call = call  # type: ignore[assignment, method-assign]
