"""Running an opcode's hooks: where, with which environment, and what they decide.

See protocol/queue.rst, Running an opcode, and protocol/rpc.rst, Hooks. Scripts run on
nodes, through the node RPC. One that fails before the opcode aborts it; a node that
can't be reached, and anything that fails afterwards, is only logged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ganeti_masterd.constants import (
    HKR_FAIL,
    HOOKS_NAME_CFGUPDATE,
    HOOKS_PATH,
    HOOKS_PHASE_POST,
    HOOKS_PHASE_PRE,
    HOOKS_VERSION,
)
from ganeti_masterd.errors import HooksAbort
from ganeti_masterd.execution.context import OpcodeContext
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.rpc.calls import HOOKS_RUNNER
from ganeti_masterd.rpc.interfaces import NodeResult, Target
from ganeti_masterd.rpc.results import HookResult


class HooksRun:
    """The hooks of one opcode, before and after it."""

    def __init__(self, unit: LogicalUnit[Any], ctx: OpcodeContext, data_dir: str) -> None:
        self._unit = unit
        self._ctx = ctx
        self._data_dir = data_dir
        self._hooks = type(unit.op).HOOKS
        self._nodes = HookNodes((), ())
        self._before: dict[str, str] = {}

    def before(self) -> None:
        """Runs the pre phase; raises ``HooksAbort`` with ``[[node, script, output], ...]``."""
        if self._hooks is None:
            return
        snapshot = self._ctx.snapshot()
        self._nodes = self._unit.hook_nodes(snapshot)
        self._before = _strings("GANETI_", self._unit.hook_environment(snapshot))
        failures = []
        answers = self._run(self._nodes.before, self._hooks.path, HOOKS_PHASE_PRE, self._before)
        for uuid, answer in answers.items():
            name = snapshot.nodes[uuid].name
            failures += [[name, script, output] for script, output in _failed(answer)]
            self._mention(name, answer)
        if failures:
            raise HooksAbort(failures)

    def after(self) -> Mapping[str, NodeResult[list[HookResult]]]:
        """Runs the post phase; what fails in it becomes a warning in the job's log.

        Returns the nodes' answers, by uuid.
        """
        snapshot = self._ctx.snapshot()
        return self._after([uuid for uuid in self._nodes.after if uuid in snapshot.nodes])

    def early(self, node: Target) -> None:
        """Runs the post phase on one node that leaves; see ``Context.run_hooks_early``."""
        with self._ctx.shielded():
            self._after([node])

    def _after(self, nodes: Sequence[str | Target]) -> Mapping[str, NodeResult[list[HookResult]]]:
        if self._hooks is None:
            return {}
        environment = dict(self._before)
        own = self._unit.hook_environment(self._ctx.snapshot())
        environment.update(_strings("GANETI_POST_", own))
        answers = self._run(nodes, self._hooks.path, HOOKS_PHASE_POST, environment)
        self._warn(answers)
        return answers

    def config_update(self) -> None:
        """Runs what follows every change of the configuration, on the master only.

        A job that was killed doesn't wait for it: its locks are to be free at once.
        """
        master = (self._ctx.snapshot().master.uuid,)
        arguments = self._arguments(HOOKS_NAME_CFGUPDATE, HOOKS_PHASE_POST, self._before)
        if self._ctx.killed:
            self._ctx.call_unattended(master, HOOKS_RUNNER, arguments)
            return
        with self._ctx.shielded():
            self._warn(self._ctx.call(master, HOOKS_RUNNER, arguments))

    def _run(
        self, nodes: Iterable[str | Target], path: str, phase: str, own: Mapping[str, str]
    ) -> Mapping[str, NodeResult[list[HookResult]]]:
        return self._ctx.call(nodes, HOOKS_RUNNER, self._arguments(path, phase, own))

    def _arguments(self, path: str, phase: str, own: Mapping[str, str]) -> tuple[Any, ...]:
        snapshot = self._ctx.snapshot()
        environment = {
            "PATH": HOOKS_PATH,
            "GANETI_HOOKS_VERSION": str(HOOKS_VERSION),
            "GANETI_OP_CODE": self._unit.op.op_id,
            "GANETI_DATA_DIR": self._data_dir,
            "GANETI_HOOKS_PHASE": phase,
            "GANETI_HOOKS_PATH": path,
            "GANETI_OBJECT_TYPE": self._hooks.object_type if self._hooks else "",
            "GANETI_CLUSTER": snapshot.cluster.cluster_name,
            "GANETI_MASTER": snapshot.master.name,
            **own,
        }
        return path, phase, environment

    def _mention(self, name: str, answer: NodeResult[list[HookResult]]) -> None:
        if answer.failed and not answer.offline:
            self._ctx.warning(f"Hooks could not be run on node {name}: {answer.error}")

    def _warn(self, answers: Mapping[str, NodeResult[list[HookResult]]]) -> None:
        for answer in answers.values():
            self._mention(answer.node, answer)
            for script, output in _failed(answer):
                self._ctx.warning(f"On node {answer.node} script {script} failed: {output}")


def _strings(prefix: str, variables: Mapping[str, object]) -> dict[str, str]:
    return {prefix + name: str(value) for name, value in variables.items()}


def _failed(answer: NodeResult[list[HookResult]]) -> list[tuple[str, str]]:
    if answer.failed:
        return []
    return [(one.script, one.output) for one in answer.payload if one.status == HKR_FAIL]
