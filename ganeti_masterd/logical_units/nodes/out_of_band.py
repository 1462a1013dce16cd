"""OP_OOB_COMMAND: out-of-band power control and health checks of nodes.

The program is a node parameter (``oob_program``) and runs on the master. Result rows are
``[[status, name], [status, value]]``; statuses are those of queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.objects import Node
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import RS_NODATA, RS_NORMAL, RS_UNAVAIL
from ganeti_masterd.errors import ECODE_STATE, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, all_exclusive, exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.finding import by_name, nodes_of
from ganeti_masterd.opcodes.nodes import OobCommand
from ganeti_masterd.rpc import calls

HEALTH = frozenset({"CRITICAL", "OK", "UNKNOWN", "WARNING"})
#: Health states that are logged as warnings.
ALARMING = frozenset({"CRITICAL", "WARNING"})

#: Commands that would take down the master, and with it this daemon.
NOT_FOR_MASTER = frozenset({"power-cycle", "power-off"})

#: Whether a node is powered after each command.
POWER_AFTER: Mapping[str, bool] = {"power-off": False, "power-on": True}

Cell = tuple[int, Any]


def fault_of(command: str, payload: Any) -> str | None:
    """Returns what is wrong with a program's answer to a command, or None. Pure."""
    if command == "health":
        if not isinstance(payload, Sequence) or isinstance(payload, str):
            return f"command 'health' is expected to return a list but got {_kind(payload)}"
        wrong = [row for row in payload if not _is_health(row)]
        return ", ".join(f"health item {row!r} has an invalid status" for row in wrong) or None
    if command == "power-status":
        if not isinstance(payload, Mapping) or not isinstance(payload.get("powered"), bool):
            return f"power-status is expected to return a dict with 'powered', not {payload!r}"
        return None
    return (
        None
        if payload is None
        else (f"{command} is expected to not return payload but got '{payload}'")
    )


def _is_health(row: Any) -> bool:
    return isinstance(row, Sequence) and len(row) == 2 and row[1] in HEALTH


def _kind(payload: Any) -> str:
    return type(payload).__name__


class RunOutOfBand(LogicalUnit[OobCommand], runs=OobCommand):
    """Runs one command for nodes, one after the other; holds them exclusively."""

    nodes: tuple[str, ...] | None

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the nodes; none named means all."""
        names = (*self.op.node_names, *(self.op.node_uuids or ()))
        self.nodes = tuple(n.uuid for n in nodes_of(snapshot, names)) if names else None

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the nodes, or all of them."""
        if level is Level.NODE:
            return all_exclusive if self.nodes is None else exclusive(self.nodes)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Refuses to take down the master, or a node that isn't marked offline."""
        snapshot, op = ctx.snapshot(), self.op
        master = snapshot.master
        spared = op.command in NOT_FOR_MASTER
        if self.nodes is not None and spared and master.uuid in self.nodes:
            raise prereq(
                f"Operating on the master node {master.name} is not allowed for {op.command};"
                f" {_advice(snapshot, master, op.command)}"
            )
        uuids = self.nodes if self.nodes is not None else tuple(ctx.owned(Level.NODE))
        self.chosen = by_name(
            snapshot.nodes[uuid] for uuid in uuids if not (spared and uuid == master.uuid)
        )
        for node in self.chosen:
            if op.command == "power-off" and not node.offline and not op.ignore_status:
                raise prereq(
                    f"Cannot power off node {node.name} because it is not marked offline",
                    ECODE_STATE,
                )

    def exec(self, ctx: Context) -> list[list[Cell]]:
        """Returns a row for each node, in natural order of names."""
        rows = []
        for place, node in enumerate(self.chosen):
            with ctx.shielded():  # the configuration records the power state of each node
                value = self._run(ctx, node)
            rows.append([(RS_NORMAL, node.name), value])
            more = place < len(self.chosen) - 1
            if self.op.command == "power-on" and value[0] == RS_NORMAL and more:
                # Not all at once, as starting machines draw a high current.
                ctx.sleep(self.op.power_delay)
        return rows

    def _run(self, ctx: Context, node: Node) -> Cell:
        snapshot, command = ctx.snapshot(), self.op.command
        program = effective.of_node(snapshot, node).get("oob_program")
        if not program:
            return RS_UNAVAIL, None
        arguments = (program, command, node.name, self.op.timeout)
        answer = ctx.call_one(snapshot.master.uuid, calls.RUN_OOB, arguments)
        if answer.failed:
            ctx.warning(f"Out-of-band RPC failed on node '{node.name}': {answer.error}")
            return RS_NODATA, None
        fault = fault_of(command, answer.payload)
        if fault is not None:
            ctx.warning(
                f"Payload returned by node '{node.name}' is not valid: Check of out-of-band"
                f" payload failed due to {fault}"
            )
            return RS_NODATA, None
        self._take_note(ctx, node, answer.payload)
        return RS_NORMAL, answer.payload

    def _take_note(self, ctx: Context, node: Node, payload: Any) -> None:
        """Logs alarming states, and records whether the node is powered."""
        command = self.op.command
        if command == "health":
            for item, status in payload:
                if status in ALARMING:
                    ctx.warning(f"Item '{item}' on node '{node.name}' has status '{status}'")
        elif command in POWER_AFTER:
            powered = POWER_AFTER[command]
            ctx.change(node.uuid, lambda current: replace(current, powered=powered))
        elif command == "power-status" and payload["powered"] != node.powered:
            ctx.warning(
                f"Recorded power state ({node.powered}) of node '{node.name}' does not match"
                f" actual power state ({payload['powered']})"
            )


def _advice(snapshot: Snapshot, master: Node, command: str) -> str:
    program = effective.of_node(snapshot, master).get("oob_program")
    if not program:
        return "it does not support out-of-band operations"
    return (
        f"run '{program} {command} {master.name}' if you want to operate on the master regardless"
    )
