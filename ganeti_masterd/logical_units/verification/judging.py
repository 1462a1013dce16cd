"""The steps of a group's verification: calls and checks, in their order.

The lines in the job's log are those of the real daemon 3.0.2, as scripts and people may look for
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.templates import template_named
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.verification import (
    asking,
    certificates,
    files,
    gathering,
    instances,
    nodes,
    storage,
    systems,
)
from ganeti_masterd.logical_units.verification.pictures import (
    Picture,
    paint,
    volumes_by_node,
)
from ganeti_masterd.logical_units.verification.report import Finding, VerifyReport
from ganeti_masterd.opcodes.verification import ClusterVerifyGroup
from ganeti_masterd.rpc.interfaces import NodeResult

#: The check that ``skip_checks`` can leave out.
SPARE_MEMORY = "nplusone_mem"


class Judgement:
    """One verification of one group: :meth:`gather`, then :meth:`judge`, in a pool thread."""

    def __init__(
        self,
        ctx: Context,
        group: gathering.VerifiedGroup,
        report: VerifyReport,
        op: ClusterVerifyGroup,
    ) -> None:
        self._ctx = ctx
        self._group = group
        self._report = report
        self._op = op
        self._snapshot = group.snapshot
        self._cluster = group.snapshot.cluster
        self._files = files.verified_files(group.snapshot)
        self._witnesses = gathering.other_witnesses(group)
        self._pictures = paint(group.snapshot, group.nodes, group.instances)
        self._exclusive = asking.exclusive_storage(group.snapshot, group.nodes)
        self._bridges = asking.bridges_of(group.snapshot, group.instances)
        self._reference: Picture | None = None
        self._outside: Mapping[str, NodeResult[Any]] = {}
        self._digests: dict[str, Any] = {}

    def gather(self) -> None:
        """Makes the calls to all nodes concerned."""
        ctx, group, say = self._ctx, self._group, self._report.say
        count = len(group.nodes)
        say(f"* Gathering data ({count} nodes)")
        say(f"* Gathering information about nodes ({count} nodes)")
        clutter = self._op.verify_clutter
        self._answers = gathering.ask_nodes(ctx, group, self._files, clutter=clutter)
        outside = gathering.outside_nodes(group)
        if outside and self._cluster.volume_group_name is not None:
            say(f"* Gathering information about extra nodes ({len(outside)} nodes)")
            self._outside = gathering.ask_volumes(ctx, group, outside)
        self._note_digests(self._answers.nodes)
        if len(group.nodes) < len(self._snapshot.nodes):
            say("* Gathering information about the master node")
            self._ask_files(self._witnesses)
        say(f"* Gathering disk information ({count} nodes)")
        self._disks = gathering.ask_disks(ctx, self._report, group, self._pictures)

    def judge(self) -> None:
        """Reports all findings."""
        report = self._report
        report.say("* Verifying configuration file consistency")
        self._judge_certificates()
        self._judge_files()
        report.say("* Verifying node status")
        for node in self._group.nodes:
            self._judge_node(node)
        self._judge_group()
        report.say("* Verifying instance status")
        self._judge_instances()
        report.say("* Verifying orphan volumes")
        self._judge_orphans()
        if SPARE_MEMORY not in self._op.skip_checks:
            report.say("* Verifying N+1 Memory redundancy")
            report.add(instances.memory_faults(self._snapshot, self._pictures, self._group.group))
        report.say("* Other Notes")
        for note in self._notes():
            report.say(f"  - NOTICE: {note} found.")

    def _answer(self, node: Node) -> Any:
        """Returns a node's answer, None if it was not called or didn't answer."""
        answer = self._answers.nodes.get(node.uuid)
        return None if answer is None or answer.failed else answer.payload

    # Files and certificates

    def _note_digests(self, answers: Mapping[str, NodeResult[Any]]) -> None:
        for uuid, answer in answers.items():
            told = answer.payload
            if answer.failed or not isinstance(told, Mapping):
                self._digests.setdefault(uuid, None)
            else:
                self._digests[uuid] = told.get("filelist")

    def _ask_files(self, asked: list[Node]) -> None:
        self._note_digests(gathering.ask_files(self._ctx, self._group, asked, self._files))

    def _judge_certificates(self) -> None:
        online = {node.uuid: node for node in self._group.nodes if not node.offline}
        shown = {
            uuid: told.get("client-cert")
            for uuid, node in online.items()
            if isinstance(told := self._answer(node), Mapping) and told
        }
        listed = self._cluster.candidate_certs
        self._report.add(certificates.client_faults(online, shown, listed))
        if self._cluster.modify_ssh_setup:
            for node in online.values():
                self._report.add(nodes.ssh_faults(node, self._answer(node)))

    def _judge_files(self) -> None:
        """Compares files; ones that this daemon replicates are checked again after a pause."""
        asked = [*self._group.nodes, *self._witnesses]
        for attempt in range(gathering.TRIES):
            found = files.compare(
                self._files,
                asked,
                self._digests,
                self._snapshot.cluster.master_node,
                self._ctx.root,
            )
            if not found.replicated or attempt + 1 == gathering.TRIES:
                break
            self._ctx.sleep(gathering.PAUSE)
            self._ask_files([node for node in asked if self._digests.get(node.uuid)])
        self._report.add(found.findings)

    # Nodes

    def _judge_node(self, node: Node) -> None:
        report, picture = self._report, self._pictures[node.uuid]
        if node.offline:
            if self._op.verbose:
                report.say(f"* Skipping offline node {node.name}")
            return
        is_master = node.uuid == self._cluster.master_node
        if self._op.verbose:
            report.say(f"* Verifying node {node.name} ({_kind(node, is_master=is_master)})")
        result = self._answers.nodes[node.uuid]
        if result.failed:
            picture.silent = True
            text = f"while contacting node: {result.error}"
            report.add([Finding("ENODERPC", node.name, text)])
            return
        answer = result.payload
        fault = nodes.unusable(node, answer)
        if fault is not None:
            picture.silent = True
            report.add([fault])
            return
        begin, end = self._answers.begin, self._answers.end
        report.add(nodes.setup_faults(node, answer))
        report.add(nodes.time_faults(node, answer, begin, end))
        report.add(nodes.network_faults(node, answer, is_master=is_master))
        report.add(nodes.script_faults(node, answer))
        report.add(nodes.storage_path_faults(self._cluster, node, answer, is_master=is_master))
        if node.vm_capable:
            self._judge_host(node, picture, answer)

    def _judge_host(self, node: Node, picture: Picture, answer: Mapping[str, Any]) -> None:
        """Makes the checks that only concern nodes that can run instances."""
        report, cluster = self._report, self._cluster
        report.add(storage.volume_group_faults(cluster, picture, answer, exclusive=self._exclusive))
        if "drbd" in cluster.enabled_disk_templates:
            report.add(storage.drbd_faults(self._snapshot, node, answer))
        if any(template_named(name).lvm for name in cluster.enabled_disk_templates):
            report.add(storage.volume_faults(cluster, picture, answer))
        report.add(nodes.read_hypervisor(picture, answer))
        report.add(storage.group_space_faults(cluster, node, answer))
        report.add(systems.read_systems(picture, answer.get("oslist")))
        if picture.systems is not None:
            self._reference = self._reference or picture
            report.add(systems.system_faults(picture, self._reference))
        report.add(nodes.bridge_faults(node, answer, self._bridges))
        report.add(instances.stray_instances(self._snapshot, picture))
        report.add(instances.exclusion_faults(cluster.tags, picture))

    def _judge_group(self) -> None:
        versions = {
            node.name: told["drbd-version"]
            for node in self._group.nodes
            if isinstance(told := self._answer(node), Mapping) and told.get("drbd-version")
        }
        self._report.add(storage.drbd_version_faults(versions))
        own = [self._pictures[node.uuid] for node in self._group.nodes]
        if self._exclusive and self._cluster.volume_group_name is not None:
            self._report.add(storage.physical_size_faults(self._group.group.name, own))
        for uuid, result in self._outside.items():
            told = {} if result.failed else result.payload
            if not result.offline:
                self._report.add(storage.volume_faults(self._cluster, self._pictures[uuid], told))

    # Instances

    def _judge_instances(self) -> None:
        for instance in self._group.instances:
            if self._op.verbose:
                self._report.say(f"* Verifying instance {instance.name}")
            self._report.add(
                instances.instance_faults(
                    self._snapshot,
                    instance,
                    self._group.group,
                    self._pictures,
                    self._disks[instance.uuid],
                )
            )

    def _judge_orphans(self) -> None:
        """Reports orphan volumes, which also no instance of another group may own."""
        own = [self._pictures[node.uuid] for node in self._group.nodes]
        expected: dict[str, set[str]] = {}
        for instance in self._snapshot.instances.values():
            for uuid, volumes in volumes_by_node(self._snapshot, instance).items():
                expected.setdefault(uuid, set()).update(volumes)
        self._report.add(storage.orphan_volumes(self._cluster, own, expected))

    def _notes(self) -> list[str]:
        group = self._group
        alone = sum(
            not instances.is_redundant(self._snapshot.disks_of(one)) for one in group.instances
        )
        unbalanced = sum(
            not effective.backend(self._cluster, one)["auto_balance"] for one in group.instances
        )
        counts = (
            (alone, "non-redundant instance(s)"),
            (unbalanced, "non-auto-balanced instance(s)"),
            (sum(one.admin_state == "offline" for one in group.instances), "offline instance(s)"),
            (sum(node.offline for node in group.nodes), "offline node(s)"),
            (sum(node.drained for node in group.nodes), "drained node(s)"),
        )
        return [f"{count} {what}" for count, what in counts if count]


def _kind(node: Node, *, is_master: bool) -> str:
    if is_master:
        return "master"
    if node.master_candidate:
        return "master candidate"
    return "drained" if node.drained else "regular"
