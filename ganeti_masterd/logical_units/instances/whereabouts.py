"""Whether an instance runs where it must not: on another node than its primary."""

from __future__ import annotations

from collections.abc import Iterable

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import Mirroring, template_named
from ganeti_masterd.errors import ECODE_STATE, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.base import is_running
from ganeti_masterd.logical_units.instances.power import info_arguments
from ganeti_masterd.rpc import calls

#: Seconds for the answers of nodes where the instance is not expected to be: a dead one
#: among them must not hold up a start.
PATIENCE = 10.0


def other_hosts(snapshot: Snapshot, instance: Instance) -> tuple[str, ...]:
    """Returns the nodes (uuids) besides its primary on which an instance may have been left. Pure.

    Those that reach its disks: secondary nodes, and where the storage is everyone's (or
    there is none) all nodes of the group.
    """
    primary = snapshot.nodes[instance.primary_node]
    kinds = {disk.template.mirroring for disk in snapshot.disks_of(instance)}
    if not instance.disks:
        kinds = {template_named("diskless").mirroring}
    if kinds == {Mirroring.EXTERNAL}:
        nodes = snapshot.members(primary.group)
        return tuple(node.uuid for node in nodes if node.vm_capable and node is not primary)
    return snapshot.nodes_of(instance)[1:]


def require_not_elsewhere(ctx: Context, instance: Instance, also: Iterable[str] = ()) -> None:
    """Refuses to start an instance that runs on another node than its primary.

    Started twice, it would have two writers on its disks. ``also`` are further nodes (uuids)
    to ask. A node that can't be asked is a warning. Raises ``OpPrereqError`` with
    ``wrong_state``.
    """
    snapshot = ctx.snapshot()
    hosts = tuple(dict.fromkeys((*other_hosts(snapshot, instance), *also)))
    offline = [snapshot.nodes[uuid].name for uuid in hosts if snapshot.nodes[uuid].offline]
    if offline:
        ctx.warning(
            f"Can't ask whether instance {instance.name} runs on offline nodes: "
            f"{', '.join(offline)}"
        )
    online = [uuid for uuid in hosts if not snapshot.nodes[uuid].offline]
    if not online:
        return
    arguments = info_arguments(snapshot, instance)
    answers = ctx.call(online, calls.INSTANCE_INFO, arguments, timeout=PATIENCE)
    for answer in answers.values():
        if answer.failed:
            ctx.warning(
                f"Can't ask whether instance {instance.name} runs on node {answer.node}: "
                f"{answer.error}"
            )
        elif is_running(answer.payload):
            raise prereq(
                f"Instance '{instance.name}' runs on node {answer.node}, which is not its "
                f"primary node {snapshot.nodes[instance.primary_node].name}; it is not started "
                "a second time",
                ECODE_STATE,
            )
