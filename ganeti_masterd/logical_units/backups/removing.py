"""OP_BACKUP_REMOVE: the exports of an instance are removed from all nodes."""

from __future__ import annotations

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import exports
from ganeti_masterd.opcodes.backups import BackupRemove
from ganeti_masterd.rpc import calls


class RemoveExports(LogicalUnit[BackupRemove], runs=BackupRemove):
    """Removes what is called like an instance, which may be gone; also what isn't complete.

    Only nodes that have something of it are locked: nobody imports from there meanwhile.
    """

    prepares = True

    #: The uuids of the nodes that have something.
    where: frozenset[str] = frozenset()

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the instance, if there is one."""
        found = snapshot.lookup("instance", self.op.instance_name)
        self.known = found is not None
        self.name = found.name if found is not None else self.op.instance_name

    def prepare(self, ctx: Context) -> None:
        """Looks for it on all nodes."""
        self.where = frozenset(self._found(ctx, quiet=True))

    def _found(self, ctx: Context, *, quiet: bool = False) -> dict[str, list[str]]:
        names = (self.name, self.name + exports.UNFINISHED)
        found = exports.exports_on(ctx, ctx.snapshot().nodes, quiet=quiet)
        held = {node: [name for name in names if name in there] for node, there in found.items()}
        return {node: there for node, there in held.items() if there}

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """See ``LogicalUnit.locks``."""
        if level is Level.NODE:
            return exclusive(self.where & snapshot.nodes.keys())
        return super().locks(level, snapshot)

    def exec(self, ctx: Context) -> None:
        """Removes it from each node; raises ``OpExecError`` where that failed, after the others."""
        held = ctx.owned(Level.NODE)
        found = {node: names for node, names in self._found(ctx).items() if node in held}
        if not found and not self.known:
            ctx.feedback(
                "Export not found. If trying to remove an export belonging to a deleted instance "
                "please use its Fully Qualified Domain Name."
            )
        failed = []
        for node, names in found.items():
            for name in names:
                if name != self.name and exports.is_anothers(ctx, node, name):
                    continue
                answer = ctx.call_one(node, calls.EXPORT_REMOVE, (name,))
                if answer.failed:
                    failed.append(f"{name} from node {answer.node} ({answer.error})")
        if failed:
            raise OpExecError(f"Could not remove {', '.join(failed)}")
