"""Random sequences of the control plane's opcodes, with faults and other opcodes in between.

Rules come from one class for each domain, mixed into :class:`ControlMachine`.
"""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, invariant
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import examples, run_machine
from tests.logical_units.cluster_rules import ClusterRules
from tests.logical_units.group_rules import GroupRules
from tests.logical_units.node_rules import NodeRules
from tests.logical_units.world import World


class ControlMachine(ClusterRules, GroupRules, NodeRules, RuleBasedStateMachine):
    """Runs opcodes; after each the configuration is sound and nothing is left over."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(4, candidate_pool_size=3)
        self.serial = self.world.now.header.serial_no

    @invariant()
    def sound(self) -> None:
        faults = self.world.faults()
        assert faults == [], faults
        serial = self.world.now.header.serial_no
        assert serial >= self.serial
        self.serial = serial


class MachineTests(SynchronousTestCase):
    """Whatever is asked, and whatever fails, the cluster stays consistent."""

    def test_machine(self) -> None:
        """Any sequence of opcodes leaves a sound configuration, no lock and no reservation."""
        run_machine(ControlMachine, examples(40, 1500), 30)
