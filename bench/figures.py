"""What a figure is: its name and unit, what is wanted of it, and the verdict."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Limit(Enum):
    """A limit of the machine, measured before and after the workload that names it."""

    DURABLE = "durable file replacements/s"
    LINE_1 = "bare line server, 1 client"
    LINE_16 = "bare line server, 16 clients"
    START = "start of the bare line server"


class AtLeast(Struct, frozen=True):
    """The figure is at least this share of the machine's limit."""

    ratio: float

    def __str__(self) -> str:
        return f">= {self.ratio:g} of limit"


class AtMost(Struct, frozen=True):
    """The figure is at most this, in its own unit."""

    bound: float

    def __str__(self) -> str:
        return f"<= {self.bound:g}"


class Times(Struct, frozen=True):
    """The figure is at least so many times the peer's."""

    factor: float

    def __str__(self) -> str:
        return f">= {self.factor:g} times peer"


class Figure(Struct, frozen=True):
    """One line of the table.

    ``key`` is its name in what the workload returns and in the JSON output;
    ``limit`` says whether the workload's limit stands beside it. Nothing
    ``wanted``: it is there to be seen.
    """

    key: str
    title: str
    unit: str
    wanted: AtLeast | AtMost | Times | None = None
    limit: bool = False


class Line(Struct, frozen=True):
    """A figure with what was measured; ``machine`` is the limit's value."""

    workload: str
    figure: Figure
    measured: float | None
    machine: float | None = None
    limit: str | None = None
    peer: float | None = None

    @property
    def ratio(self) -> float | None:
        """The share of the machine's limit that was reached."""
        if self.measured is None or not self.machine:
            return None
        return self.measured / self.machine

    @property
    def times_peer(self) -> float | None:
        """How many times the peer's it is."""
        if self.measured is None or not self.peer:
            return None
        return self.measured / self.peer

    @property
    def reached(self) -> bool | None:
        """Whether the figure is as wanted; null where nothing is wanted or measured."""
        wanted = self.figure.wanted
        if self.measured is None or wanted is None:
            return None
        if isinstance(wanted, AtMost):
            return self.measured <= wanted.bound
        if isinstance(wanted, Times):
            return None if self.peer is None else self.measured >= wanted.factor * self.peer
        return self.ratio is not None and self.ratio >= wanted.ratio
