"""Random sequences of all opcodes on instances, with faults, kills, and nodes that die."""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.simulation.switches import throw
from tests.examples import examples, run_machine
from tests.logical_units.instance_rules import NODES
from tests.logical_units.moves.move_rules import MoveRules
from tests.logical_units.test_instance_machine import InstanceMachine


class MovingMachine(MoveRules, InstanceMachine, RuleBasedStateMachine):
    """As :class:`InstanceMachine`; at each step the simulation watches that nothing runs twice."""

    def leaks(self) -> list[str]:
        # Ports of ends that are left on nodes which were dead, or that instances have left, are
        # passed over by new mirrors, and free again only when the cluster is made anew.
        return [text for text in super().leaks() if not text.endswith("is lost")]

    def teardown(self) -> None:
        for node in NODES:
            throw(self.world.nodes, ["power", node, "on"])
        super().teardown()


class MovingMachineTests(SynchronousTestCase):
    """Whatever moves, and whatever dies meanwhile, each instance runs once and loses nothing."""

    def test_machine(self) -> None:
        """Any sequence of opcodes leaves nothing on nodes that nobody tells of."""
        run_machine(MovingMachine, examples(10, 1500), 30)
