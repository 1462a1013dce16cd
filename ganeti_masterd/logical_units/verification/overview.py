"""OP_CLUSTER_VERIFY and OP_CLUSTER_VERIFY_DISKS: submit a job for each group."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps.followups import with_jobs
from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.types import Dependency
from ganeti_masterd.opcodes.verification import (
    ClusterVerify,
    ClusterVerifyConfig,
    ClusterVerifyDisks,
    ClusterVerifyGroup,
    GroupVerifyDisks,
)


class VerifyCluster(LogicalUnit[ClusterVerify], runs=ClusterVerify):
    """Submits jobs that verify the configuration and then all groups in parallel.

    If a group is named, only that one is verified.
    """

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Submits the jobs. A group's waits for the configuration's, however that ends."""
        op = self.op
        if op.group_name:
            return with_jobs(ctx, [[self._of_group(op.group_name)]])
        jobs: list[list[Opcode]] = [
            [
                ClusterVerifyConfig(
                    debug_simulate_errors=op.debug_simulate_errors,
                    error_codes=op.error_codes,
                    ignore_errors=op.ignore_errors,
                    verbose=op.verbose,
                )
            ]
        ]
        for uuid in ctx.snapshot().groups:
            first = (Dependency(-len(jobs), ()),)
            jobs.append([self._of_group(uuid, first)])
        return with_jobs(ctx, jobs)

    def _of_group(
        self, group: str, depends: tuple[Dependency, ...] | None = None
    ) -> ClusterVerifyGroup:
        op = self.op
        return ClusterVerifyGroup(
            group_name=group,
            debug_simulate_errors=op.debug_simulate_errors,
            error_codes=op.error_codes,
            skip_checks=op.skip_checks,
            ignore_errors=op.ignore_errors,
            verbose=op.verbose,
            verify_clutter=op.verify_clutter,
            depends=depends,
        )


class VerifyClusterDisks(LogicalUnit[ClusterVerifyDisks], runs=ClusterVerifyDisks):
    """Submits a job for each group, or for the named one, that verifies its disks.

    Submits none if no instance has a disk that can be checked: there is no call for disks of
    external storage providers.
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the group, if one is named."""
        if self.op.group_name:
            snapshot.group(self.op.group_name)

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Submits the jobs."""
        snapshot = ctx.snapshot()
        if all(
            disks and all(disk.dev_type == "ext" for disk in disks)
            for disks in map(snapshot.disks_of, snapshot.instances.values())
        ):
            return with_jobs(ctx, [])
        name = self.op.group_name
        groups = [snapshot.group(name).uuid] if name else list(snapshot.groups)
        return with_jobs(ctx, [[GroupVerifyDisks(group_name=uuid)] for uuid in groups])
