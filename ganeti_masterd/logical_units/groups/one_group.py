"""What opcodes have in common that work on one node group and hold it alone."""

from __future__ import annotations

from typing import TypeVar

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.opcodes.groups import GroupRemove, GroupRename, GroupSetParams

O_co = TypeVar("O_co", bound=GroupRemove | GroupRename | GroupSetParams, covariant=True)


class OnOneGroup(LogicalUnit[O_co]):
    """Works on a group that no other opcode uses meanwhile: no node enters or leaves it."""

    uuid: str

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the group."""
        self.uuid = snapshot.group(self.op.group_name).uuid

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the group alone."""
        if level is Level.NODEGROUP:
            return exclusive(self.uuid)
        return super().locks(level, snapshot)
