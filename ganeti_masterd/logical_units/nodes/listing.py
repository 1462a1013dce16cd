"""What opcodes have in common that list something that nodes have."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, TypeVar

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, all_shared, shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.nodes.finding import nodes_of
from ganeti_masterd.opcodes.os_storage import NodeQueryStorage, NodeQueryVols

O_co = TypeVar("O_co", bound=NodeQueryStorage | NodeQueryVols, covariant=True)


class NodesListing(LogicalUnit[O_co]):
    """Lists something of the nodes named, or of all, which it shares with others."""

    #: The fields that can be asked for.
    known: ClassVar[Collection[str]]

    #: The nodes named; None where none is, which means all.
    nodes: tuple[Node, ...] | None

    def expand(self, snapshot: Snapshot) -> None:
        """Refuses unknown fields; finds the nodes."""
        unknown = [field for field in self.op.output_fields if field not in self.known]
        if unknown:
            raise prereq(f"Unknown output fields selected: {','.join(unknown)}")
        self.nodes = nodes_of(snapshot, self.op.nodes) if self.op.nodes else None

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares the nodes, or all of them."""
        if level is Level.NODE:
            return all_shared if self.nodes is None else shared(n.uuid for n in self.nodes)
        return super().locks(level, snapshot)
