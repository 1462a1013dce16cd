"""The cluster-wide state of a simulation: power, links, mirrors, transfers, speeds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from ganeti_masterd.simulation.backups import content_of, deliver, write_to
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.ends import SyncPace
from ganeti_masterd.simulation.meeting import MeetingPlace, Parcel
from ganeti_masterd.simulation.mirrors import Mirrors
from ganeti_masterd.simulation.node import SimulatedNode
from ganeti_masterd.simulation.state import SharedState
from ganeti_masterd.simulation.transfers import Transfer, Transfers


class World:
    """The cluster-wide part of a simulation.

    ``now`` returns seconds since the epoch, ``node`` the node of a name. A change here affects all
    nodes; before it, everything that depends on the clock is updated.
    """

    def __init__(
        self,
        description: Description,
        now: Callable[[], float],
        node: Callable[[str], SimulatedNode],
    ) -> None:
        self.description = description
        self.cluster = SharedState()
        self.mirrors = Mirrors(self.cluster.ends, self.cluster.metadata, self)
        self.transfers = Transfers(self.cluster.transfers, self)
        place = description.meeting_place
        self._meeting = None if place is None else MeetingPlace(place)
        self._now = now
        self._node = node

    # What the pure parts need

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now()

    def powered(self, name: str) -> bool:
        """Whether a node has power."""
        return name not in (self.cluster.facts.get("off") or ())

    def joined(self, one: str, other: str) -> bool:
        """Returns whether two nodes can reach each other."""
        if not (self.powered(one) and self.powered(other)):
            return False
        return sorted((one, other)) not in (self.cluster.facts.get("cut") or ())

    def volume(self, node: str, path: str) -> int | None:
        """The size in MiB of a volume; None if it isn't there."""
        device = self._node(node).state.devices.get(path)
        return None if device is None else device.size

    def copy(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        """Copies the content of a volume (node, path) to another."""
        origin = self._node(source[0]).state.devices.get(source[1])
        shelf = self._node(target[0]).state.devices
        held = shelf.get(target[1])
        if origin is not None and held is not None and held.content != origin.content:
            shelf[target[1]] = replace(held, content=origin.content)

    def pace(self) -> SyncPace:
        """Returns the current speed of syncs."""
        changed = self.cluster.facts.get("pace")
        if changed is None:
            return self.description.pace
        return msgspec.convert(changed, SyncPace)

    def next_generation(self) -> str:
        """Returns a new generation."""
        number = int(self.cluster.facts.get("generation") or 0) + 1
        self.cluster.facts["generation"] = number
        return str(number)

    def transfer_speed(self) -> float | None:
        """MiB/s at which disks are copied; None: at once."""
        return self.description.transfer_speed

    def deliver(self, source: Transfer, target: Transfer) -> None:
        """Copies what a transfer's source reads to its target."""
        deliver(self._node, source, target)

    def send_away(self, source: Transfer) -> None:
        """Lays down for another cluster what a transfer's source reads."""
        if self._meeting is not None and source.magic is not None:
            parcel = Parcel(source.size, content_of(self._node, source))
            self._meeting.send(source.magic, parcel)

    def has_arrived(self, source: Transfer) -> bool:
        """Whether another cluster has taken what was laid down for it."""
        if self._meeting is None or source.magic is None:
            return False
        if not self._meeting.taken(source.magic):
            return False
        self._meeting.withdraw(source.magic)
        return True

    def withdraw(self, source: Transfer) -> None:
        """Takes back what was laid down for another cluster."""
        if self._meeting is not None and source.magic is not None:
            self._meeting.withdraw(source.magic)

    def receive(self, target: Transfer) -> int | None:
        """Takes what another cluster has laid down; returns its size in MiB, None if nothing."""
        if self._meeting is None or target.magic is None:
            return None
        parcel = self._meeting.take(target.magic)
        if parcel is None:
            return None
        write_to(self._node, target, parcel.size, parcel.content)
        return parcel.size

    # Events

    def settle(self) -> None:
        """Updates everything that depends on the clock to the current time."""
        self.mirrors.settle()
        self.transfers.settle()

    def set_pace(self, pace: SyncPace) -> None:
        """Changes how fast mirrors sync; a sync in progress keeps its speed."""
        self.settle()
        self.cluster.facts["pace"] = msgspec.to_builtins(pace)

    def cut(self, one: str, other: str, cut: bool) -> None:
        """Cuts the link between two nodes, or mends it."""
        self.settle()
        pair = sorted((one, other))
        pairs = [each for each in self.cluster.facts.get("cut") or () if each != pair]
        self.cluster.facts["cut"] = [*pairs, pair] if cut else pairs
        self.mirrors.settle()

    def set_power(self, name: str, on: bool) -> None:
        """Switches a node on or off; whatever needs power must have been ended before."""
        self.settle()
        off = [each for each in self.cluster.facts.get("off") or () if each != name]
        self.cluster.facts["off"] = off if on else [*off, name]
        self.mirrors.settle()
