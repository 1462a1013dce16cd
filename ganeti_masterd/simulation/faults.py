"""Faults and delays on demand, set in code or in a file that is read again when it changes.

The file is a JSON list of rules, each an object with these keys (all but
``kind`` may be left out)::

    {"kind": "error", "node": "node2", "call": "instance_start",
     "probability": 0.5, "count": 3, "after": 10, "seconds": 2.0,
     "text": "no such luck", "payload": null}

``node`` and ``call`` say to which calls the rule applies (left out: all). It lets the first
``after`` of them pass, then hits each with ``probability``, at most ``count`` times. Kinds:

- ``delay``: the call begins ``seconds`` later; other rules may hit it, too.
- ``error``: the node answers with a failure that has ``text``.
- ``unreachable``: no connection; the call does not reach the node.
- ``garbage``: the node runs the call and answers ``payload`` instead of the result.
- ``silent``: the call reaches the node, which neither runs nor answers it.
- ``lost``: the node runs the call, but its answer never arrives.

The last two end with the call's time-out.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec import Struct
from twisted.logger import Logger

from ganeti_masterd.decoding import decode_json

log = Logger()

FaultKind = Literal["delay", "error", "unreachable", "garbage", "silent", "lost"]


class SimulatedFault(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One rule; see the module's docstring."""

    kind: FaultKind
    node: str | None = None
    call: str | None = None
    probability: float = 1.0
    count: int | None = None
    after: int = 0
    seconds: float = 0.0
    text: str = "simulated failure"
    payload: Any = None


class Disturbance(Struct, frozen=True):
    """What happens to one call: a delay, and the rule, or None, that decides its end."""

    seconds: float
    fault: SimulatedFault | None


class _Rule:
    """A rule, with the numbers of calls to which it applied and that it hit."""

    __slots__ = ("fault", "hits", "met")

    def __init__(self, fault: SimulatedFault) -> None:
        self.fault = fault
        self.met = 0
        self.hits = 0

    def hit(self, node: str, call: str, chance: Callable[[], float]) -> bool:
        fault = self.fault
        if fault.node not in (None, node) or fault.call not in (None, call):
            return False
        self.met += 1
        if self.met <= fault.after or (fault.count is not None and self.hits >= fault.count):
            return False
        if fault.probability < 1.0 and chance() >= fault.probability:
            return False
        self.hits += 1
        return True


class Faults:
    """The rules in force, those set in code first; ``path`` is the file, if any.

    The file is checked at most twenty times a second. If it is invalid, that is logged and the
    rules stay as they were.
    """

    LOOK_EVERY = 0.05

    def __init__(
        self, path: str | None = None, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._path = path
        self._chance = chance
        self._own: list[_Rule] = []
        self._from_file: list[_Rule] = []
        self._seen: tuple[int, int] | None = None
        self._look_at = float("-inf")

    def add(self, fault: SimulatedFault) -> Callable[[], None]:
        """Adds a rule; returns a function that removes it."""
        rule = _Rule(fault)
        self._own.append(rule)

        def remove() -> None:
            if rule in self._own:
                self._own.remove(rule)

        return remove

    def clear(self) -> None:
        """Removes all rules set in code."""
        self._own.clear()

    def any(self, seconds: float) -> bool:
        """Returns whether there are any rules at that time."""
        if self._path is not None and seconds >= self._look_at:
            self._look_at = seconds + self.LOOK_EVERY
            self._look(self._path)
        return bool(self._own or self._from_file)

    def disturb(self, node: str, call: str, seconds: float) -> Disturbance | None:
        """Returns what happens to a call made at that time, or None if nothing does."""
        if not self.any(seconds):
            return None
        delay = 0.0
        for rules in (self._own, self._from_file):
            for rule in rules:
                if rule.hit(node, call, self._chance):
                    if rule.fault.kind != "delay":
                        return Disturbance(delay, rule.fault)
                    delay += rule.fault.seconds
        return Disturbance(delay, None) if delay else None

    def _look(self, path: str) -> None:
        """Reads the file if it has changed since the last time."""
        try:
            status = os.stat(path)
            seen = (status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            with open(path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            self._seen = None
            self._from_file = []
            return
        except OSError as error:
            log.error("The faults can't be read: {error}", error=error)
            return
        self._seen = seen
        try:
            faults = decode_json(text, list[SimulatedFault])
        except msgspec.DecodeError as error:
            log.error("The faults in {path} make no sense: {error}", path=path, error=error)
            return
        self._from_file = [_Rule(fault) for fault in faults]
        log.info("{count} faults from {path}", count=len(faults), path=path)
