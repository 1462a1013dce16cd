"""OP_INSTANCE_CONSOLE: how to reach an instance's console.

The node that runs the instance says so, as only it knows its hypervisor's paths; real daemon
3.0.2 works it out on the master.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.base import InstanceUnit, require_online
from ganeti_masterd.opcodes.instances import InstanceConsole
from ganeti_masterd.query.collectors import console_request
from ganeti_masterd.rpc import calls

#: What an instance that doesn't run is said to be, by what it is marked to be.
_STATES = {"up": "ERROR_down", "down": "ADMIN_down", "offline": "ADMIN_offline"}


class LocateConsole(InstanceUnit[InstanceConsole], runs=InstanceConsole):
    """Tells how to reach the console of an instance that runs."""

    shares = True

    def check(self, ctx: Context) -> None:
        """Refuses one whose primary node is offline."""
        snapshot = ctx.snapshot()
        require_online(snapshot, self.instance(snapshot).primary_node)

    def exec(self, ctx: Context) -> dict[str, Any]:
        """Returns the console as its node describes it, without what doesn't apply."""
        snapshot = ctx.snapshot()
        instance = self.instance(snapshot)
        self._require_running(ctx, instance)
        request = {instance.name: console_request(snapshot, instance)}
        answer = ctx.call_one(instance.primary_node, calls.INSTANCE_CONSOLE_INFO, (request,))
        text = f"Can't get the console of instance '{instance.name}' from node {answer.node}"
        console = answer.or_fail(text).get(instance.name)
        if console is None:
            raise OpExecError(f"{text}: it tells none")
        return {name: value for name, value in asdict(console).items() if value is not None}

    def _require_running(self, ctx: Context, instance: Instance) -> None:
        cluster = ctx.snapshot().cluster
        hvparams = {name: dict(params) for name, params in cluster.hvparams.items()}
        arguments = ([instance.hypervisor], hvparams)
        answer = ctx.call_one(instance.primary_node, calls.INSTANCE_LIST, arguments)
        if instance.name not in answer.or_fail(f"Can't get node information from {answer.node}"):
            raise OpExecError(
                f"Instance {instance.name} is not running (state {_STATES[instance.admin_state]})"
            )
