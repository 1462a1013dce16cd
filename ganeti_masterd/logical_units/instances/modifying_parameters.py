"""What changes to an instance's parameters come to: backend, hypervisor, operating system.

All is checked before anything changes, by the cluster's rules and by the nodes. Texts are those
of real daemon 3.0.2; where the rules differ, docs/differences.rst says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.errors import (
    ECODE_INVAL,
    ECODE_NORES,
    ECODE_STATE,
    OpPrereqError,
    prereq,
)
from ganeti_masterd.logical_units.base import names_of
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances import specification
from ganeti_masterd.logical_units.instances.base import is_running
from ganeti_masterd.logical_units.instances.power import info_arguments
from ganeti_masterd.logical_units.instances.requirements import (
    check_cpu_mask,
    check_hypervisor_on_nodes,
    check_system_on_nodes,
    require_memory,
    require_processors,
)
from ganeti_masterd.opcodes.instances import InstanceSetParams
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.rpc.results import NodeInfo

#: The hypervisor parameter that says on which processors an instance runs.
CPU_MASK = "cpu_mask"


class ParameterPlan(Struct, frozen=True, kw_only=True):
    """An instance's own parameters after the change, and its backend parameters in full."""

    hypervisor: Params
    backend: Params
    filled_backend: Params
    os: str
    os_parameters: specification.OsParameters

    def fields(self) -> dict[str, Any]:
        """Returns what the instance holds of it, by the names of its fields."""
        return {
            "hvparams": self.hypervisor,
            "beparams": self.backend,
            "os": self.os,
            "osparams": self.os_parameters.public,
            "osparams_private": self.os_parameters.private,
        }


def plan_parameters(ctx: Context, instance: Instance, op: InstanceSetParams) -> ParameterPlan:
    """Returns what changes of parameters come to, checked on the nodes that are online.

    Raises ``OpPrereqError``, ``TypeEnforcementError``, ``HypervisorError``.
    """
    snapshot = ctx.snapshot()
    cluster, nodes = snapshot.cluster, snapshot.nodes_of(instance)
    online = [node for node in nodes if not snapshot.nodes[node].offline]
    os = op.os_name or instance.os
    own_hypervisor: Params = instance.hvparams
    inherited = specification.inherited_hypervisor(cluster, instance.hypervisor, os)
    if op.hvparams:
        own_hypervisor = specification.hypervisor(
            cluster, instance.hypervisor, os, op.hvparams, instance.hvparams
        )
        filled = {**inherited, **own_hypervisor}
        check_hypervisor_on_nodes(ctx, nodes, instance.hypervisor, filled)
    own_backend: Params = instance.beparams
    if op.beparams:
        own_backend = specification.backend(cluster, op.beparams, instance.beparams)
    filled_backend = {**cluster.beparams.get("default", {}), **own_backend}
    mask = {**inherited, **own_hypervisor}.get(CPU_MASK)
    if mask and (op.hvparams or op.beparams):
        check_cpu_mask(mask, filled_backend["vcpus"])
        if op.hvparams.get(CPU_MASK):
            require_processors(ctx, online, instance.hypervisor, mask)
    return ParameterPlan(
        hypervisor=own_hypervisor,
        backend=own_backend,
        filled_backend=filled_backend,
        os=os,
        os_parameters=_os_parameters(ctx, instance, os, op, online),
    )


def check_memory(
    ctx: Context, instance: Instance, plan: ParameterPlan, op: InstanceSetParams
) -> None:
    """Refuses more memory than the nodes have left: the instance couldn't be started again.

    With ``auto_balance`` its secondary nodes need as much; those that are marked offline are
    not asked. Raises ``OpPrereqError``.
    """
    snapshot = ctx.snapshot()
    most = plan.filled_backend["maxmem"]
    if op.force or most <= effective.backend(snapshot.cluster, instance)["maxmem"]:
        return
    primary, *others = snapshot.nodes_of(instance)
    secondaries = []
    if plan.filled_backend["auto_balance"]:
        secondaries = [node for node in others if not snapshot.nodes[node].offline]
        if len(secondaries) < len(others):
            left_out = set(others) - set(secondaries)
            ctx.warning(f"Not asked for their memory, as offline: {names_of(snapshot, left_out)}")
    found = ctx.call_one(primary, calls.INSTANCE_INFO, info_arguments(snapshot, instance))
    specs = [[instance.hypervisor, dict(_cluster_hypervisor(ctx, instance))]]
    answers = ctx.call((primary, *secondaries), calls.NODE_INFO, (None, specs))
    if answers[primary].failed:
        ctx.warning(
            f"Can't get info from primary node {answers[primary].node}: {answers[primary].error}"
        )
    elif (free := _free(answers[primary])) is None:
        ctx.warning(
            f"Node data from primary node {answers[primary].node} doesn't contain free memory "
            "information"
        )
    elif found.failed:
        ctx.warning(f"Can't get instance runtime information: {found.error}")
    else:
        has = (found.payload.memory or 0) if is_running(found.payload) else 0
        if most > has + free:
            raise prereq(
                "This change will prevent the instance from starting, due to "
                f"{most - has - free} MB of memory missing on its primary node",
                ECODE_NORES,
            )
    for node in secondaries:
        _check_secondary(answers[node], most)


def check_runtime_memory(
    ctx: Context, instance: Instance, plan: ParameterPlan, op: InstanceSetParams
) -> None:
    """Checks that a running instance can have as much memory as the opcode says, at once.

    Raises ``OpPrereqError``.
    """
    if op.runtime_mem is None:
        return
    arguments = info_arguments(ctx.snapshot(), instance)
    found = ctx.call_one(instance.primary_node, calls.INSTANCE_INFO, arguments).or_refuse(
        f"Can't retrieve instance information for instance '{instance.name}'"
    )
    if not is_running(found):
        raise prereq(f"Instance {instance.name} is not running", ECODE_STATE)
    least, most = plan.filled_backend["minmem"], plan.filled_backend["maxmem"]
    if not op.force and not least <= op.runtime_mem <= most:
        raise prereq(
            f"Instance {instance.name} must have memory between {least} and {most} MB of memory "
            "unless --force is given",
            ECODE_INVAL,
        )
    more = op.runtime_mem - (found.memory or 0)
    if more > 0:
        require_memory(
            ctx,
            instance.primary_node,
            instance.hypervisor,
            more,
            f"ballooning memory for instance {instance.name}",
        )


def parameter_entries(op: InstanceSetParams) -> list[tuple[str, Any]]:
    """Returns what an opcode's result says of parameters: as given, private values hidden. Pure."""
    entries: list[tuple[str, Any]] = [(f"hv/{key}", value) for key, value in op.hvparams.items()]
    entries += [(f"be/{key}", value) for key, value in op.beparams.items()]
    if op.os_name is not None:
        entries.append(("os", op.os_name))
    entries += [(f"os/{key}", value) for key, value in op.osparams.items()]
    entries += [
        (f"os_private/{key}", f"Private(?, descr='{key}')") for key in op.osparams_private or ()
    ]
    return entries


def _cluster_hypervisor(ctx: Context, instance: Instance) -> Params:
    """Returns the cluster's parameters of an instance's hypervisor."""
    params: Params = ctx.snapshot().cluster.hvparams.get(instance.hypervisor, {})
    return params


def _os_parameters(
    ctx: Context, instance: Instance, os: str, op: InstanceSetParams, nodes: Sequence[str]
) -> specification.OsParameters:
    own = specification.OsParameters(public=instance.osparams, private=instance.osparams_private)
    snapshot = ctx.snapshot()
    if op.osparams or op.osparams_private:
        own = specification.os_parameters(op.osparams, op.osparams_private, old=own)
    elif op.os_name is None:
        return own
    if op.os_name is not None:
        specification.check_os_allowed(snapshot.cluster, os)
        if op.force:
            return own
    if os:
        filled = specification.filled_os(snapshot.cluster, os, own)
        check_system_on_nodes(
            ctx,
            nodes,
            os,
            {**filled.public, **filled.private},
            force_variant=op.force_variant,
        )
    return own


def _check_secondary(answer: NodeResult[NodeInfo], most: int) -> None:
    answer.or_refuse(f"Can't get info from secondary node {answer.node}", ECODE_STATE)
    free = _free(answer)
    if free is None:
        raise OpPrereqError(
            f"Secondary node {answer.node} didn't return free memory information", ECODE_STATE
        )
    if most > free:
        raise prereq(
            "This change will prevent the instance from failover to its secondary node "
            f"{answer.node}, due to not enough memory",
            ECODE_STATE,
        )


def _free(answer: NodeResult[NodeInfo]) -> int | None:
    spaces = answer.payload.hypervisors
    return spaces[0].memory_free if spaces else None
