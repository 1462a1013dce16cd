"""The logical unit: one opcode's locks, checks and work, and their registry.

A unit declares and does; it never touches Twisted (architecture.rst, "How a request
travels"). ``expand`` and ``locks`` run in the reactor, are quick, and change the unit alone;
``prepare``, ``check`` and ``exec`` run in a pool thread and may block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from msgspec import Struct

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.locking.levels import BGL, Level, WantedLocks, exclusive, nothing, shared
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import HookResult

O_co = TypeVar("O_co", bound=Opcode, covariant=True)

#: Every logical unit, by the OP_ID that it runs.
UNITS: dict[str, type[LogicalUnit[Any]]] = {}


_ALONE, _WITH_OTHERS = exclusive(BGL), shared(BGL)


class HookNodes(Struct, frozen=True):
    """The nodes, by uuid, on which an opcode's hooks run before and after it."""

    before: tuple[str, ...]
    after: tuple[str, ...]


class LogicalUnit(Generic[O_co]):
    """Runs one opcode once.

    Subclasses name their opcode (``class AddTags(LogicalUnit[TagsSet],
    runs=TagsSet)``) and override what they need.
    """

    #: Whether the opcode wants the whole cluster for itself.
    alone: ClassVar[bool] = False
    #: Whether lacking resources (``temp_insufficient_resources``) send it back to wait,
    #: without its locks and reservations; :attr:`attempt` counts these tries.
    waits_for_resources: ClassVar[bool] = False
    #: Whether :meth:`prepare` has something to do.
    prepares: ClassVar[bool] = False

    def __init_subclass__(cls, runs: type[Opcode] | None = None) -> None:
        super().__init_subclass__()
        if runs is not None:
            UNITS[str(runs.__struct_config__.tag)] = cls

    def __init__(self, op: O_co) -> None:
        self.op = op
        #: The names of the locks that were granted so far, by level: what a lower
        #: level's wish may build on. Kept by whoever acquires them; read only.
        self.held: dict[Level, frozenset[str]] = {}
        #: How often the opcode went back to wait for resources before this try.
        self.attempt = 0

    # In the reactor: quick, changing nothing but the unit

    def expand(self, snapshot: Snapshot) -> None:
        """Checks the arguments by themselves and resolves names.

        Raises ``OpPrereqError``. Runs again, on a fresh snapshot, if the opcode
        has to start over.
        """

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Returns what the opcode wants at one level, given the world as it is.

        Asked level by level; :attr:`held` says what was granted at the levels
        above. After each wait it is asked once more for every level taken so far,
        on the configuration of that time: from the first level whose answer has
        changed, all are taken anew. So at the start of :meth:`check` the locks fit
        the configuration.
        """
        if level is Level.CLUSTER:
            return _ALONE if self.alone else _WITH_OTHERS
        return nothing

    # In a pool thread: may block

    def prepare(self, ctx: Context) -> None:
        """Does what must come before the locks, while the job shows as waiting.

        Changes nothing: a new job may not be durable yet.
        """

    def check(self, ctx: Context) -> None:
        """Checks that the opcode can be done; raises ``OpPrereqError``. Changes nothing."""

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns where hooks run, for opcodes that have some: the master."""
        master = (snapshot.master.uuid,)
        return HookNodes(master, master)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the opcode's own variables for hooks, without their prefix.

        Asked before the opcode runs and again after it.
        """
        return {}

    def exec(self, ctx: Context) -> Any:
        """Does it; returns the opcode's result."""
        raise NotImplementedError

    def dry_result(self, ctx: Context) -> Any:
        """Returns the result of a dry run, which ends after the hooks that come before."""
        return None

    def after_hooks(
        self, ctx: Context, answers: Mapping[str, NodeResult[list[HookResult]]], result: Any
    ) -> Any:
        """Returns the opcode's result once the hooks after it have run.

        ``answers`` are those of ``hooks_runner``, by node uuid; what failed is in
        the log already. For opcodes that judge by hooks, such as the verification
        of a group. A kill is put off meanwhile.
        """
        return result


def unit_for(op: Opcode) -> LogicalUnit[Any]:
    """Returns a fresh logical unit for an opcode."""
    return UNITS[op.op_id](op)


def names_of(snapshot: Snapshot, uuids: Iterable[str]) -> str:
    """Returns node names for a message, comma separated, in natural order."""
    return ", ".join(
        sorted(snapshot.nodes[uuid].name if uuid in snapshot.nodes else uuid for uuid in uuids)
    )
