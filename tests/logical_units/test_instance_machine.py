"""Random sequences of the opcodes on instances, with faults, kills and other opcodes in between."""

from __future__ import annotations

from hypothesis.stateful import RuleBasedStateMachine, invariant
from twisted.trial.unittest import SynchronousTestCase

from tests.examples import examples, run_machine
from tests.logical_units.instance_rules import NODES, InstanceRules, new_world


class InstanceMachine(InstanceRules, RuleBasedStateMachine):
    """Runs opcodes; after each the configuration is sound, and nodes are as it says.

    At the end all nodes are well again, and every instance can be removed with all its disks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said = []
        self.world = new_world()

    @invariant()
    def sound(self) -> None:
        faults = self.world.faults()
        assert faults == [], faults

    def teardown(self) -> None:
        world = self.world
        world.nodes.faults.clear()
        for node in NODES[1:]:
            world.run("OP_NODE_SET_PARAMS", node_name=node, offline=False, force=True)
        held = self.found()
        for instance in list(world.now.instances.values()):
            world.run("OP_INSTANCE_REMOVE", instance_name=instance.name)
        assert not world.now.instances
        assert not world.now.disks
        left = self.found() - held
        assert not left, left
        assert not world.faults()


class InstanceMachineTests(SynchronousTestCase):
    """Whatever is asked, and whatever fails, nodes hold what the configuration says."""

    def test_machine(self) -> None:
        """Any sequence of opcodes leaves nothing on nodes that nobody tells of."""
        run_machine(InstanceMachine, examples(25, 1500), 30)
