"""OP_CLUSTER_VERIFY_GROUP: verifies the nodes and instances of a group."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import HKR_FAIL
from ganeti_masterd.locking.levels import Level, WantedLocks, shared
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.verification import gathering
from ganeti_masterd.logical_units.verification.judging import Judgement
from ganeti_masterd.logical_units.verification.report import CODES, Finding, VerifyReport
from ganeti_masterd.opcodes.verification import ClusterVerifyGroup
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import HookResult

_LINE = re.compile("^", re.MULTILINE)

#: The codes of findings about a group.
FOUND_HERE = frozenset(CODES) - {
    "ECLUSTERCERT",
    "ECLUSTERCFG",
    "ECLUSTERDANGLINGINST",
    "ECLUSTERDANGLINGNODES",
    "ENODEHOOKS",
}


class VerifyGroup(LogicalUnit[ClusterVerifyGroup], runs=ClusterVerifyGroup):
    """Asks the nodes of one group, checks their answers, and runs hooks.

    Shares the group, its nodes and its instances while the nodes are called, so that nothing
    changes meanwhile; checking the answers needs no lock.
    """

    uuid: str
    report: VerifyReport | None = None

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the group."""
        self.uuid = snapshot.group(self.op.group_name).uuid

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares the group with everything in it, and other groups' nodes that mirror its disks."""
        if self.uuid in snapshot.groups:
            group = gathering.group_of(snapshot, self.uuid)
            if level is Level.INSTANCE:
                return shared(instance.name for instance in group.instances)
            if level is Level.NODEGROUP:
                return shared(self.uuid)
            if level is Level.NODE:
                own = [node.uuid for node in group.nodes]
                return shared([*own, *gathering.outside_nodes(group)])
        return super().locks(level, snapshot)

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns the group's nodes, for post hooks only."""
        return HookNodes((), tuple(node.uuid for node in snapshot.members(self.uuid)))

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the tags of the cluster and of the group's nodes."""
        return {
            "CLUSTER_TAGS": " ".join(snapshot.cluster.tags),
            **{f"NODE_TAGS_{n.name}": " ".join(n.tags) for n in snapshot.members(self.uuid)},
        }

    def exec(self, ctx: Context) -> bool:
        """Reports all faults; true if there is none."""
        snapshot = ctx.snapshot()
        group = gathering.group_of(snapshot, self.uuid)
        report = VerifyReport(ctx, self.op)
        report.say(f"* Verifying group '{group.group.name}'")
        if not group.nodes:
            report.say("* Empty node group, skipping verification")
            return True
        self.report = report
        judgement = Judgement(ctx, group, report, self.op)
        judgement.gather()
        for level in (Level.INSTANCE, Level.NODEGROUP, Level.NODE):
            ctx.release(level)
        judgement.judge()
        report.simulate(FOUND_HERE)
        return not report.bad

    def after_hooks(
        self, ctx: Context, answers: Mapping[str, NodeResult[list[HookResult]]], result: Any
    ) -> bool:
        """Reports failed scripts; returns False if there are any."""
        good = bool(result)
        if self.report is None:
            return good
        self.report.say("* Hooks Results")
        for answer in answers.values():
            if answer.offline:
                continue
            if answer.failed:
                text = f"Communication failure in hooks execution: {answer.error}"
                self.report.add([Finding("ENODEHOOKS", answer.node, text)])
                good = False
                continue
            for row in answer.payload:
                if row.status == HKR_FAIL:
                    text = f"Script {row.script} failed, output:"
                    self.report.add([Finding("ENODEHOOKS", answer.node, text)])
                    self.report.say(_LINE.sub("      ", row.output))
                    good = False
        return good
