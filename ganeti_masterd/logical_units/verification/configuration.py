"""OP_CLUSTER_VERIFY_CONFIG: verifies the configuration and the cluster's certificates."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.hypervisors import check_hypervisor
from ganeti_masterd.config.parameters.types import HYPERVISOR, enforce
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.config.verify import verify
from ganeti_masterd.errors import GenericError
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.verification.certificates import check_file
from ganeti_masterd.logical_units.verification.files import CERTIFICATES
from ganeti_masterd.logical_units.verification.report import Finding, VerifyReport
from ganeti_masterd.opcodes.verification import ClusterVerifyConfig

SIMULATED = frozenset(
    {"ECLUSTERCERT", "ECLUSTERCFG", "ECLUSTERDANGLINGINST", "ECLUSTERDANGLINGNODES"}
)


def hypervisor_parameters(
    snapshot: Snapshot, instances: Any
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yields every effective set of hypervisor parameters: owner, hypervisor, parameters.

    These are the cluster's, those of operating systems, and those of ``instances`` with parameters
    of their own.
    """
    cluster = snapshot.cluster
    for name in cluster.enabled_hypervisors:
        yield "cluster", name, dict(cluster.hvparams.get(name, {}))
    for system, sets in cluster.os_hvp.items():
        for name, values in sets.items():
            if values:
                yield f"os {system}", name, {**cluster.hvparams.get(name, {}), **values}
    for instance in instances:
        if instance.hvparams:
            filled = effective.hypervisor(cluster, instance)
            yield f"instance {instance.name}", instance.hypervisor, filled


def parameter_faults(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields a finding for each invalid set of hypervisor parameters."""
    for source, name, values in hypervisor_parameters(snapshot, snapshot.instances.values()):
        try:
            check_hypervisor(name, enforce(values, HYPERVISOR))
        except (GenericError, KeyError) as error:
            yield Finding(
                "ECLUSTERCFG",
                "",
                f"hypervisor {source} parameters syntax check (source {name}): {error}",
            )


def dangling(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields nodes without a group and instances without a node, which no group's job checks."""
    lost = [node for node in snapshot.nodes.values() if node.group not in snapshot.groups]
    if lost:
        shown = ", ".join(
            f"{node.name} ({', '.join(i.name for i in snapshot.instances_on(node))})"
            for node in lost
        )
        yield Finding(
            "ECLUSTERDANGLINGNODES",
            "",
            f"the following nodes (and their instances) belong to a non existing group: {shown}",
        )
    homeless = natural(
        instance.name
        for instance in snapshot.instances.values()
        if instance.primary_node not in snapshot.nodes and not instance.forthcoming
    )
    if homeless:
        yield Finding(
            "ECLUSTERDANGLINGINST",
            "",
            f"the following instances have a non-existing primary-node: {', '.join(homeless)}",
        )


class VerifyConfig(LogicalUnit[ClusterVerifyConfig], runs=ClusterVerifyConfig):
    """Verifies one snapshot of the configuration, so it needs no lock."""

    def exec(self, ctx: Context) -> bool:
        """Reports all faults; returns True if there are none."""
        snapshot = ctx.snapshot()
        report = VerifyReport(ctx, self.op)
        report.say("* Verifying cluster config")
        report.add(Finding("ECLUSTERCFG", "", fault) for fault in verify(snapshot))
        report.say("* Verifying cluster certificate files")
        for path in CERTIFICATES:
            report.add(check_file(ctx.root + path, time.time()))
        report.say("* Verifying hypervisor parameters")
        report.add(parameter_faults(snapshot))
        report.say("* Verifying all nodes belong to an existing group")
        report.add(dangling(snapshot))
        report.simulate(SIMULATED)
        return not report.bad
