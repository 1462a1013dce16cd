"""Findings of a verification, and how they are written to a job's log.

The codes are Ganeti's (3.0.2): scripts recognize faults by them, and ``ignore_errors`` names them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, get_args

from msgspec import Struct

from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.types import VerifyCode

#: What kind of object each of these codes is about; the names of all others begin with it.
_OTHERS = {"ECLUSTERDANGLINGINST": "node", "ECLUSTERDANGLINGNODES": "node", "EEXTAGS": "node"}


def _kind(code: str) -> str:
    kinds = ("cluster", "node", "group", "instance")
    return _OTHERS.get(code) or next(k for k in kinds if code.startswith(f"E{k.upper()}"))


#: Every code, and what kind of object it is about.
CODES: dict[str, str] = {code: _kind(code) for code in get_args(VerifyCode)}

ERROR = "ERROR"
WARNING = "WARNING"


class Finding(Struct, frozen=True):
    """One fault: its code, the object's name (empty for the cluster), and a description."""

    code: str
    name: str
    text: str
    severity: str = ERROR


class Verifying(Protocol):
    """The parameters of a verification opcode that a report uses."""

    @property
    def debug_simulate_errors(self) -> bool:
        """Whether to report faults even if there are none."""

    @property
    def error_codes(self) -> bool:
        """Whether to write lines for programs, with error codes."""

    @property
    def ignore_errors(self) -> tuple[str, ...]:
        """The codes of faults that count as warnings only."""


def warning(code: str, name: str, text: str) -> Finding:
    """Returns a finding that doesn't fail the verification."""
    return Finding(code, name, text, WARNING)


class VerifyReport:
    """Writes findings to a job's log, and remembers whether one was an error."""

    def __init__(self, ctx: Context, op: Verifying) -> None:
        self._ctx = ctx
        self._op = op
        #: Whether any error that isn't ignored was found so far.
        self.bad = False
        self._codes: set[str] = set()

    def add(self, findings: Iterable[Finding]) -> bool:
        """Writes findings; returns whether there were any."""
        found = False
        for finding in findings:
            found = True
            self._write(finding)
        return found

    def say(self, line: str) -> None:
        """Writes a line that isn't a finding."""
        self._ctx.feedback(line)

    def simulate(self, codes: frozenset[str]) -> None:
        """Reports each of ``codes`` that wasn't found, if the opcode asks to simulate faults."""
        if self._op.debug_simulate_errors:
            missing = sorted(codes - self._codes)
            self.add(Finding(code, "", "simulated error") for code in missing)

    def _write(self, finding: Finding) -> None:
        self._codes.add(finding.code)
        severity = WARNING if finding.code in self._op.ignore_errors else finding.severity
        kind = CODES[finding.code]
        if self._op.error_codes:
            # The real daemon writes a missing name as "None".
            name = finding.name or None
            self.say(f"  - {severity}:{finding.code}:{kind}:{name}:{finding.text}")
        else:
            self.say(f"  - {severity}: {kind} {finding.name}: {finding.text}")
        self.bad = self.bad or severity == ERROR
