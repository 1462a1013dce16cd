"""An opcode on an instance that is interrupted anywhere leaves nodes as configured, or says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.logical_units.instances.publishing import WholeInstance, changes_between
from ganeti_masterd.simulation.faults import SimulatedFault
from tests.examples import examples
from tests.logical_units.half_way import BreakingNodes, Mode
from tests.logical_units.test_instance_machine import InstanceMachine
from tests.logical_units.world import Refused, World

NAME = "one.example.com"

#: No opcode here has so many checkpoints or calls.
MOST = 200

#: Every so many of them are tried; all in a soak.
STRIDE = examples(17, 1)

#: How an instance is, and what makes it so of one that runs.
STATES: Mapping[str, tuple[tuple[str, Mapping[str, Any]], ...]] = {
    "running": (),
    "ready": (("OP_INSTANCE_SHUTDOWN", {}), ("OP_INSTANCE_ACTIVATE_DISKS", {})),
    "down": (("OP_INSTANCE_SHUTDOWN", {}),),
}

#: Opcodes, and in which states of the instance they are interrupted.
DEEDS: tuple[tuple[str, Mapping[str, Any], tuple[str, ...]], ...] = (
    ("OP_INSTANCE_STARTUP", {}, ("down", "ready", "running")),
    ("OP_INSTANCE_SHUTDOWN", {}, ("running", "ready")),
    ("OP_INSTANCE_REBOOT", {"reboot_type": "hard"}, ("running",)),
    ("OP_INSTANCE_REBOOT", {"reboot_type": "full"}, ("running", "down")),
    ("OP_INSTANCE_ACTIVATE_DISKS", {"wait_for_sync": True}, ("down", "ready", "running")),
    ("OP_INSTANCE_DEACTIVATE_DISKS", {}, ("ready",)),
    ("OP_INSTANCE_GROW_DISK", {"disk": 0, "amount": 16}, ("down", "ready", "running")),
    ("OP_INSTANCE_RECREATE_DISKS", {"nodes": ["node3", "node4"]}, ("down", "ready")),
    ("OP_INSTANCE_REINSTALL", {"os_type": "noop"}, ("down", "ready")),
    (
        "OP_INSTANCE_RENAME",
        {"new_name": "two.example.com", "name_check": False, "ip_check": False},
        ("down", "ready"),
    ),
    ("OP_INSTANCE_SET_PARAMS", {"disk_template": ...}, ("down", "ready")),
    ("OP_INSTANCE_SET_PARAMS", {"disks": [["add", 0, {"size": 16}]]}, ("down", "ready", "running")),
    ("OP_INSTANCE_SET_PARAMS", {"disks": [["remove", 0, {}]]}, ("down", "ready")),
    (
        "OP_INSTANCE_SET_PARAMS",
        {"nics": [["add", -1, {"ip": "pool", "network": "lan"}], ["remove", 0, {}]]},
        ("down", "running"),
    ),
    ("OP_INSTANCE_REMOVE", {}, ("down", "ready", "running")),
)

#: To what each template is converted.
CONVERSIONS: Mapping[str, Mapping[str, Any]] = {
    "drbd": {"disk_template": "plain"},
    "plain": {"disk_template": "drbd", "remote_node": "node2"},
    "file": {"disk_template": "drbd", "remote_node": "node2"},
}

NODES: Mapping[str, Mapping[str, str]] = {
    "drbd": {"pnode": "node1", "snode": "node2"},
    "plain": {"pnode": "node1"},
    "file": {"pnode": "node1"},
    "sharedfile": {"pnode": "node1"},
    "rbd": {"pnode": "node1"},
    "diskless": {"pnode": "node1"},
}


def creation(template: str, **more: Any) -> dict[str, Any]:
    """Returns the parameters of a creation."""
    return {
        "instance_name": NAME,
        "mode": "create",
        "disk_template": template,
        "disks": [] if template == "diskless" else [{"size": 64}, {"size": 32}],
        "nics": [{"ip": "pool", "network": "lan"}],
        "os_type": "noop",
        "name_check": False,
        "ip_check": False,
        **NODES[template],
        **more,
    }


class HalfWayCase(SynchronousTestCase):
    """Base: interrupts an opcode at each of its checkpoints and calls; checks what it leaves."""

    def scene(self, prepare: Callable[[InstanceMachine], object]) -> InstanceMachine:
        """Returns a cluster on which something was prepared."""
        machine = InstanceMachine()
        machine.disks_are_wiped(True)
        prepare(machine)
        return machine

    def setUp(self) -> None:
        #: What was found to be wrong, with the interruption that it came after.
        self.wrong: list[str] = []

    def ends(self, machine: InstanceMachine, where: str, run: Callable[[], object]) -> bool:
        """Runs an opcode with all checks; returns whether it succeeded."""
        succeeded = []
        try:
            remade = "RECREATE" in where
            machine.attempt(lambda: succeeded.append(run()), remade=remade)
            assert machine.world.faults() == [], machine.world.faults()
        except AssertionError as error:
            self.wrong.append(f"{where}: {error}")
        return bool(succeeded)

    def interrupted(
        self, prepare: Callable[[InstanceMachine], object], op: Mapping[str, Any]
    ) -> Iterator[InstanceMachine]:
        """Yields the cluster after each interruption of an opcode."""
        yield from self.killed(prepare, op, STRIDE)
        yield from self.broken("refused", prepare, op)
        yield from self.broken("lost", prepare, op)

    def killed(
        self, prepare: Callable[[InstanceMachine], object], op: Mapping[str, Any], stride: int = 1
    ) -> Iterator[InstanceMachine]:
        """Yields the cluster after each kill at a checkpoint."""
        for moment in range(0, MOST, stride):
            machine = self.scene(prepare)
            machine.world.kill_after = moment
            where = f"{op['op_id']} killed at checkpoint {moment}"
            if self.ends(machine, where, partial(machine.world.run, **op)):
                return
            yield machine
        self.fail(f"{op['op_id']} never ends")

    def broken(
        self, mode: Mode, prepare: Callable[[InstanceMachine], object], op: Mapping[str, Any]
    ) -> Iterator[InstanceMachine]:
        """Yields the cluster after each failure of one call to a node."""
        for at in range(0, MOST, STRIDE):
            machine = self.scene(prepare)
            world = machine.world
            nodes = BreakingNodes(world.nodes, at, mode)

            def run(world: World = world, nodes: BreakingNodes = nodes) -> None:
                inner, world.nodes = world.nodes, nodes  # type: ignore[assignment]
                try:
                    world.run(**op)
                finally:
                    world.nodes = inner

            self.ends(machine, f"{op['op_id']}, call {at} {mode}", run)
            if nodes.broken is None:
                return
            yield machine
        self.fail(f"{op['op_id']} never ends")

    def clean(self, machine: InstanceMachine) -> None:
        """Checks that what is left can be removed."""
        try:
            machine.teardown()
        except (AssertionError, Refused) as error:
            self.wrong.append(f"afterwards: {error!r}")


class CreationHalfWayTests(HalfWayCase):
    """OP_INSTANCE_CREATE, interrupted."""

    def check(self, template: str, **more: Any) -> None:
        """Interrupts a creation everywhere; what is left can be removed or made again."""
        parameters = creation(template, **more)
        op = {"op_id": "OP_INSTANCE_CREATE", **parameters}
        for machine in self.interrupted(lambda machine: None, op):
            self.clean(machine)
            machine.world.run(**op)
            self.clean(machine)
        self.assertFalse(self.wrong, "\n".join(self.wrong))

    def test_mirrored(self) -> None:
        """With a mirror."""
        self.check("drbd")

    def test_not_waited_for(self) -> None:
        """With a mirror that isn't waited for, and the instance not started."""
        self.check("drbd", wait_for_sync=False, start=False)

    def test_others(self) -> None:
        """With volumes, files, storage that all share, and no disks."""
        for template in NODES:
            if template != "drbd":
                self.check(template)


class CrashTests(HalfWayCase):
    """The daemon dies before an instance is in the configuration."""

    def test_minors_in_use(self) -> None:
        """A second try takes other minors than those that are still in use."""
        machine = self.scene(lambda machine: None)
        world = machine.world
        world.run("OP_INSTANCE_CREATE", **creation("drbd"))
        now = world.now
        made = now.instance(NAME)
        whole = WholeInstance(made, now.disks_of(made))
        minors = {minor for disk in whole.disks for _, minor in disk.minors()}
        world.store.apply(changes_between(whole, None, now.cluster))
        op = {**creation("drbd"), "instance_name": "two.example.com"}
        world.run("OP_INSTANCE_CREATE", **op)
        made = world.now.instance("two.example.com")
        taken = {minor for disk in world.now.disks_of(made) for _, minor in disk.minors()}
        self.assertEqual((minors, taken), ({0, 1}, {2, 3}))

    def test_no_answer(self) -> None:
        """A node that can't say which minors it uses is warned of."""
        machine = self.scene(lambda machine: None)
        fault = SimulatedFault(kind="error", call="node_verify_light", node="node2", text="broken")
        machine.world.nodes.faults.add(fault)
        machine.world.run("OP_INSTANCE_CREATE", **creation("drbd"))
        self.assertIn(
            " - WARNING: Can't ask node node2 which DRBD minors it uses: broken",
            machine.world.lines,
        )


def instance_in(state: str, template: str = "drbd") -> Callable[[InstanceMachine], object]:
    """Returns what makes an instance in one of :data:`STATES`."""

    def prepare(machine: InstanceMachine) -> None:
        machine.world.run("OP_INSTANCE_CREATE", **creation(template))
        for op_id, parameters in STATES[state]:
            machine.world.run(op_id, instance_name=NAME, **parameters)

    return prepare


class UndoTests(HalfWayCase):
    """What is taken back, and what isn't."""

    def test_one_fails(self) -> None:
        """What can't be taken back is named, and all else is taken back."""
        machine = self.scene(lambda machine: None)
        faults = machine.world.nodes.faults
        faults.add(SimulatedFault(kind="error", call="blockdev_wipe", text="broken"))
        faults.add(SimulatedFault(kind="error", call="blockdev_remove", count=1, text="stuck"))
        self.ends(
            machine,
            "create",
            partial(machine.world.run, "OP_INSTANCE_CREATE", **creation("plain")),
        )
        (left,) = machine.found()
        self.assertEqual((left.kind, left.node), ("stray", "node1"))
        self.assertIn(
            f" - WARNING: Could not remove disk/1 of instance {NAME} from node node1: the node "
            "refuses: stuck",
            machine.world.lines,
        )

    def test_data_stays(self) -> None:
        """A disk that is there when disks are recreated is not taken back."""
        machine = self.scene(instance_in("down", "plain"))
        world = machine.world
        shelf = world.nodes.node("node1").state.devices
        first, second = (
            f"/dev/{disk.volume}" for disk in world.now.disks_of(world.now.instance(NAME))
        )
        shelf.pop(first)
        self.assertRaises(Refused, world.run, "OP_INSTANCE_RECREATE_DISKS", instance_name=NAME)
        self.assertEqual((shelf.get(first), shelf[second].size), (None, 32))


class RunningTests(HalfWayCase):
    """What is refused of an instance that runs, whatever is recorded."""

    def refusal(self, machine: InstanceMachine, op_id: str, **parameters: Any) -> str:
        """Returns why an opcode is refused; nothing is changed by it."""
        before, held = machine.world.now, machine.found()
        error = self.assertRaises(
            Refused, machine.world.run, op_id, instance_name=NAME, **parameters
        ).error
        self.assertIs(machine.world.now, before)
        self.assertEqual((machine.found(), machine.world.faults()), (held, []))
        return str(error.args[0])

    def test_recorded_as_down(self) -> None:
        """Its disks stay as they are."""
        machine = self.scene(instance_in("running"))
        machine.world.store.change(
            machine.world.now.instance(NAME).uuid, lambda now: replace(now, admin_state="down")
        )
        for op_id in ("OP_INSTANCE_RECREATE_DISKS", "OP_INSTANCE_DEACTIVATE_DISKS"):
            self.assertIn(f"Instance {NAME} is running, ", self.refusal(machine, op_id))

    def test_equal_addresses(self) -> None:
        """NICs can't be added, or changed, so that two have one address."""
        machine = self.scene(instance_in("running"))
        given = {"ip": "203.0.113.5", "network": "lan"}
        text = self.refusal(
            machine, "OP_INSTANCE_SET_PARAMS", nics=[["add", -1, given], ["add", -1, given]]
        )
        self.assertEqual(text, "IP address 203.0.113.5 is given to two NICs of one instance")


class UseHalfWayTests(HalfWayCase):
    """Opcodes on an instance that is there, interrupted."""

    def check(self, template: str) -> None:
        """Interrupts all opcodes everywhere; afterwards the instance can be removed."""
        for op_id, given, states in DEEDS:
            parameters = given
            if "nodes" in given and template != "drbd":
                parameters = {"nodes": ["node3"]}
            elif "disk_template" in given:
                parameters = CONVERSIONS[template]
            op = {"op_id": op_id, "instance_name": NAME, **parameters}
            for state in states:
                for machine in self.interrupted(instance_in(state, template), op):
                    self.clean(machine)
        self.assertFalse(self.wrong, "\n".join(self.wrong))

    def test_mirrored(self) -> None:
        """With mirrors."""
        self.check("drbd")

    def test_others(self) -> None:
        """With volumes, and with files."""
        self.check("plain")
        self.check("file")


class KilledTests(HalfWayCase):
    """Opcodes that are killed at each of their checkpoints."""

    def check(self, state: str, op_id: str, **parameters: Any) -> None:
        """Kills an opcode on an instance with mirrors."""
        op = {"op_id": op_id, "instance_name": NAME, **parameters}
        for machine in self.killed(instance_in(state), op):
            self.clean(machine)
        self.assertFalse(self.wrong, "\n".join(self.wrong))

    def test_removal(self) -> None:
        """An instance that is being removed runs and is marked up, or neither."""
        self.check("running", "OP_INSTANCE_REMOVE")

    def test_growing(self) -> None:
        """A disk that wasn't ready is not left ready."""
        self.check("down", "OP_INSTANCE_GROW_DISK", disk=0, amount=16)

    def test_deactivation(self) -> None:
        """Disks are ready and marked active, or neither."""
        self.check("ready", "OP_INSTANCE_DEACTIVATE_DISKS")

    def test_recreation(self) -> None:
        """Volumes that were made are taken back."""
        self.check("down", "OP_INSTANCE_RECREATE_DISKS", nodes=["node3", "node4"])
