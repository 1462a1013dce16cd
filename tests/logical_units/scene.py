"""A small cluster for tests of single logical units."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.locking.levels import Level, WantedLocks
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.registry import unit_for
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import ScriptedNodes


class UnitScene(SynchronousTestCase):
    """Base of tests of logical units: three nodes with empty answers, and an instance."""

    def setUp(self) -> None:
        self.nodes = ScriptedNodes()
        snapshot = new_cluster("cluster", 3, 1000.0)
        instance = Instance(name="web.example.com", uuid="i-1", primary_node=snapshot.master.uuid)
        self.ctx = SynchronousContext(snapshot.with_object("instances", instance), self.nodes)

    def renew(self, snapshot: Snapshot) -> None:
        """Continues with another configuration and an empty log."""
        self.ctx = SynchronousContext(snapshot, self.nodes)

    def unit(self, op_id: str, **parameters: Any) -> LogicalUnit[Any]:
        """Returns an opcode's unit, expanded on the current cluster."""
        unit = unit_for(decode_opcode({"OP_ID": op_id, **parameters}))
        assert unit is not None
        unit.expand(self.ctx.snapshot())
        return unit

    def wanted(self, unit: LogicalUnit[Any]) -> dict[Level, WantedLocks]:
        """Returns the locks that a unit wants, without levels on which it wants none."""
        found = {level: unit.locks(level, self.ctx.snapshot()) for level in Level}
        return {level: wanted for level, wanted in found.items() if not wanted.empty}

    def run_unit(self, op_id: str, **parameters: Any) -> Any:
        """Expands, checks and runs an opcode; returns its result."""
        unit = self.unit(op_id, **parameters)
        unit.check(self.ctx)
        return unit.exec(self.ctx)
