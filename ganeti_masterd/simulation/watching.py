"""What must never happen in a cluster: an instance that runs twice, a mirror with two writers.

Real nodes can't know of it, and so the calls that lead to it succeed here, too. But it is recorded
and logged as critical: whatever was asked of the nodes in between was wrong, or somebody insisted
(``--ignore-consistency`` although a node runs on).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from twisted.logger import Logger

from ganeti_masterd.simulation.ends import PRIMARY, End
from ganeti_masterd.simulation.mirrors import Mirrors
from ganeti_masterd.simulation.state import NodeState, SharedState

log = Logger()


class WatchedNode(Protocol):
    """What is looked at of a node."""

    name: str
    state: NodeState


class Watch:
    """Looks at what starts to run, and at ends of mirrors that become primary.

    ``seen`` has a sentence for each time that something must never have happened, since the daemon
    started.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        #: The nodes by the addresses that mirrors have there.
        self.homes: dict[str, str] = {}

    def started(
        self,
        node: str,
        instance: str,
        cluster: SharedState,
        nodes: Iterable[WatchedNode],
        now: float,
    ) -> None:
        """Looks for another node that runs an instance.

        One that waits for its memory doesn't run it, nor does one that has sent all of it.
        """
        sent = cluster.migrations.get(instance)
        for other in nodes:
            held = other.state.instances.get(instance)
            if held is None or held.incoming or other.name == node:
                continue
            if sent is not None and sent.source == other.name and sent.arrived(now):
                continue
            self._tell(f"{instance} runs on {other.name} and on {node}")

    def promoted(self, node: str, end: End, peer: str, minor: int, mirrors: Mirrors) -> None:
        """Looks whether the peer of an end is primary, too, unless both allow that.

        ``peer`` is its address and ``minor`` its minor; whether it can be reached doesn't matter.
        """
        other = self.homes.get(peer)
        theirs = None if other is None else mirrors.get(other, minor)
        if theirs is None or theirs.role != PRIMARY or end.backing is None:
            return
        # The minor may have been given to another mirror by now.
        if theirs.backing is None or theirs.backing.data != end.backing.data:
            return
        if end.link is None or theirs.link is None or not (end.link.dual and theirs.link.dual):
            self._tell(f"{end.backing.data} is primary on {other} and on {node}")

    def _tell(self, what: str) -> None:
        self.seen.append(what)
        log.critical("Must never be: {what}", what=what)
