"""Replays calls recorded from real node daemons on simulated nodes, at the recorded times.

A recording has groups of rows: seconds since the group's beginning, node, call, arguments,
[success, payload], number of the command. A row without a node runs a switch. Objects are in a
separate table; ``{"$": 7}`` refers to its entry 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.simulation.blocks import EXTERNAL_MAJOR
from ganeti_masterd.simulation.switches import throw
from tests.simulation.nodes import SimulationCase, target

#: Names made by nodes from the clock or at random, by their place in the answer.
BY_CHANCE = {"import_start", "export_start"}

#: Values that depend on the machine or the time of the recording.
DROPPED = {
    "ctime",
    "estimated_time",
    "mtime",
    "progress_eta",
    "progress_throughput",
    "recent_output",
    "sync_percent",
    "time",
}


class Row:
    """One call: the request, the real node's answer, the simulated node's answer."""

    def __init__(self, place: str, row: list[Any]) -> None:
        self.place = place
        self.at, self.node, self.call, self.arguments, self.answer, self.command = row
        self.result: NodeResult | None = None

    def __str__(self) -> str:
        return f"{self.place} #{self.command} {self.node} {self.call}"


class Player:
    """Replays one recording on the nodes of a test case."""

    def __init__(self, case: SimulationCase, document: Mapping[str, Any]) -> None:
        self._case = case
        self._objects = document["objects"]
        self._groups = document["groups"]
        # Recorded names and ports of daemons, mapped to ours.
        self._names: dict[str, str] = {}
        self._ports: dict[int, int] = {}

    def play(self, group: str) -> list[Row]:
        """Replays the rows of a group; returns those that are calls, with their results."""
        rows = [Row(f"{group} {at}", row) for at, row in enumerate(self._groups[group])]
        clock, now = self._case.clock, 0.0
        for row in rows:
            if row.at > now:
                # In steps, so that polling code polls as often as in real time.
                self._pass(row.at - now)
                now = row.at
            if row.node:
                row.answer = self._full(row.answer)
                self._start(row)
            else:
                throw(self._case.nodes, row.arguments)
        for _ in range(300):
            clock.advance(1.0)
        return [row for row in rows if row.node]

    def _pass(self, seconds: float) -> None:
        clock = self._case.clock
        end = clock.seconds() + seconds
        while (left := end - clock.seconds()) > 1e-6:
            times = [call.getTime() - clock.seconds() for call in clock.getDelayedCalls()]
            clock.advance(max(0.0, min([left, *times])))

    def _start(self, row: Row) -> None:
        arguments = self._translated(self._full(row.arguments))
        calls: Deferred[Any] = self._case.nodes.call([target(row.node)], row.call, arguments)

        def ended(found: Mapping[str, NodeResult]) -> None:
            row.result = found[f"uuid-{row.node}"]
            self._learn(row)

        calls.addCallback(ended)

    def _learn(self, row: Row) -> None:
        result, (good, payload) = row.result, row.answer
        if result is None or result.failed or not good:
            return
        if row.call in BY_CHANCE:
            self._names[payload] = result.payload
        if row.call == "impexp_status":
            for real, ours in zip(payload, result.payload, strict=True):
                if real and ours and "listen_port" in real and "listen_port" in ours:
                    self._ports[real["listen_port"]] = ours["listen_port"]

    def _full(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._full(item) for item in value]
        if isinstance(value, dict):
            if set(value) == {"$"}:
                return self._full(self._objects[value["$"]])
            return {key: self._full(item) for key, item in value.items()}
        return value

    def _translated(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._translated(item) for item in value]
        if isinstance(value, str):
            return self._names.get(value, value)
        if type(value) is int:
            return self._ports.get(value, value)
        return value


def differs(row: Row) -> str | None:
    """Returns how the simulated answer differs from the real one, or None."""
    good, payload = row.answer
    if row.result is None:
        return f"{row}: no answer, really {payload!r}"
    if good == row.result.failed:
        return f"{row}: {row.result.error or row.result.payload!r}, really {payload!r}"
    if not good:
        same = row.result.error == payload
        return None if same else f"{row}: {row.result.error!r}, really {payload!r}"
    if row.call in BY_CHANCE:
        return None
    ours, real = (_plain(row.call, value) for value in (row.result.payload, payload))
    return None if ours == real else f"{row}: {ours!r}, really {real!r}"


def _plain(call: str, payload: Any) -> Any:
    special = PLAIN.get(call)
    return _dropped(payload if special is None else special(payload))


def _dropped(value: Any) -> Any:
    if isinstance(value, list):
        return [_dropped(item) for item in value]
    if isinstance(value, dict):
        if value.get("major") == EXTERNAL_MAJOR:
            # That recording's provider computed minors from the volumes' names.
            value = {**value, "minor": None}
        return {
            key: None if key in ("sync_percent", "listen_port") else _dropped(item)
            for key, item in value.items()
            if key not in DROPPED or key == "sync_percent"
        }
    return value


def _machine(payload: Any) -> Any:
    """Removes the boot id, and the size of the recording machine's file system."""
    _, units, machines = payload
    known = units and [
        {**unit, "storage_free": None, "storage_size": None} if unit["type"] == "file" else unit
        for unit in units
    ]
    return [known, machines]


def _checks(payload: Any) -> Any:
    """Sorts instances, whose order doesn't matter."""
    return {**payload, "instancelist": sorted(payload.get("instancelist", []))}


def _sorted(payload: Any) -> Any:
    return sorted(payload, key=lambda row: (row["vg"], row["name"], row["dev"]))


#: Functions that normalize a call's payload before it is compared.
PLAIN: Mapping[str, Callable[[Any], Any]] = {
    "instance_list": sorted,
    "node_info": _machine,
    "node_verify": _checks,
    "node_volumes": _sorted,
}
