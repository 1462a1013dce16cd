"""Everything that is sent to other nodes about the queue and the configuration.

Other master candidates get the queue and config.data, each through its own stream. Every online
node, including this one, gets the simple configuration (ssconf), and all except this one get the
watcher's pause (protocol/rpc.rst, Addresses and recipients and protocol/rpc.rst, Order of calls).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import same_ssconf, ssconf_values, touched
from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.rows import Row
from ganeti_masterd.replication.acknowledgement import (
    Ack,
    Acknowledgements,
    acknowledged,
)
from ganeti_masterd.replication.broadcast import Broadcast
from ganeti_masterd.replication.candidate import SETTLED, Candidate, Site
from ganeti_masterd.replication.interfaces import Published
from ganeti_masterd.replication.pace import InThread, Preparing
from ganeti_masterd.replication.standing import CandidateStanding
from ganeti_masterd.replication.states import DrainFlag, ReplicatedState, states_of
from ganeti_masterd.rpc.calls import SET_WATCHER_PAUSE, WRITE_SSCONF_FILES
from ganeti_masterd.rpc.interfaces import INodeRPC, Target
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: Seconds that a commit or a flush waits for a candidate that answers but is slow.
ACK_PATIENCE = 30.0

#: Seconds that :meth:`Replication.close` waits for the streams to be empty.
STOP_PATIENCE = 5.0


class Publication(Struct, frozen=True):
    """A published commit: its number, and whether the simple configuration changed with it."""

    number: int
    ssconf: bool = False


class Replica(Struct, frozen=True):
    """A candidate as monitors see it.

    ``config_serial`` is that of the configuration that it holds; None if that isn't known.
    """

    node: str
    standing: CandidateStanding
    waiting: int
    config_serial: int | None = None


class Replication:
    """Sends what is published to the other nodes. Reactor thread only.

    Nothing is sent before :meth:`start`.
    """

    def __init__(
        self,
        nodes: INodeRPC,
        files: QueueFiles,
        timers: Timers,
        published: Published,
        ack: Ack = Ack.CANDIDATES,
        in_thread: InThread = maybeDeferred,
    ) -> None:
        """``in_thread`` runs the preparation of config.data in another thread."""
        self._ack = ack
        self._timers = timers
        self._published = published
        self._site = Site(
            nodes, files, timers, published, Preparing(in_thread), ack is not Ack.LOCAL
        )
        self._candidates: dict[str, Candidate] = {}
        #: Former candidates by name, kept while a call to them may still take effect.
        self._gone: dict[str, Candidate] = {}
        self._number = 0
        #: Sends published states in the next turn unless :meth:`acknowledged` sends them before.
        self._due: Timer | None = None
        self._waiting = Acknowledgements(timers, ACK_PATIENCE, self._reached, self._overdue)
        self._flushing = Acknowledgements(timers, ACK_PATIENCE, self._flushed, self._not_flushed)
        #: Flushes up to this publication have taken too long and no longer wait.
        self._given_up = 0
        self._ssconf = Broadcast(nodes, timers, WRITE_SSCONF_FILES, lambda values: [values])
        self._pause = Broadcast(nodes, timers, SET_WATCHER_PAUSE, lambda until: [until])
        self._values: dict[str, list[str]] = {}
        self._ssconf_changed = False
        #: Whether a node may lack the newest simple configuration until :meth:`_send_on`.
        self._ssconf_due = False
        self._running = False
        #: Time from which on calls of a previous daemon can no longer take effect.
        self._settled = float("-inf")
        #: Sends ssconf again at that time, in case a previous daemon's call has overwritten it.
        self._repeat: Timer | None = None

    def start(self) -> None:
        """Begins to bring every other node up to date."""
        self._running = True
        self._settled = self._timers.seconds() + SETTLED
        self._repeat = self._timers.later(SETTLED, self._ssconf.repeat)
        self._place(self._published.snapshot(), newcomers=False)
        self._ssconf_changed = False

    @property
    def replicas(self) -> list[Replica]:
        """The other candidates, and how far each is."""
        return [
            Replica(each.target.name, each.standing, each.waiting, each.config_serial)
            for each in self._candidates.values()
        ]

    def configured(self, before: Snapshot, after: Snapshot) -> None:
        """Adjusts the set of candidates and nodes after a change of the configuration.

        Of all changes published in one reactor turn, nodes get the last simple configuration. A
        cluster that was only touched has it sent again.
        """
        if self._running and not same_ssconf(before, after):
            self._place(after, newcomers=True)
            if touched(before, after) and not self._ssconf_changed:
                self._ssconf.offer(self._values)
                self._ssconf_changed = True
            self._send_soon()

    def publish(self, rows: Sequence[Row]) -> Publication | None:
        """Queues the states of a commit just published; returns None if others need none of it.

        They are sent when :meth:`acknowledged` is called, so that all commits published in one
        reactor turn are sent together, or in the next turn if it isn't called.
        """
        if not self._running or not (self._candidates or self._ssconf_changed):
            return None
        states = states_of(rows, self._published.image)
        if not states:
            return None
        ssconf, self._ssconf_changed = self._ssconf_changed, False
        self._send_soon()
        return Publication(self._offer(states), ssconf)

    def _send_soon(self) -> None:
        if self._due is None:
            self._due = self._timers.later(0.0, self._send_on)

    def acknowledged(self, publication: Publication) -> Deferred[None]:
        """Fires when the publication may be reported as done (see :class:`Ack`).

        If the simple configuration changed, every node that can be reached must have it, too.
        """
        self._send_on()
        done = self._waiting.wait(publication.number)
        if publication.ssconf and self._ack is not Ack.LOCAL:
            done.addCallback(lambda _: self._ssconf.settled())
        return done

    def flushed(self) -> Deferred[None]:
        """Fires when every reachable node has all that was published before the call.

        This doesn't depend on the :class:`Ack` mode. It waits for candidates, including those that
        still catch up, to have the queue and config.data, and for all nodes to have the simple
        configuration. A candidate that takes more than :data:`ACK_PATIENCE` seconds is no longer
        waited for, and a warning is logged.
        """
        if not self._running:
            return succeed(None)
        self._send_on()
        return self._flushing.wait(self._number).addCallback(lambda _: self._ssconf.settled())

    def set_drained(self, drained: bool) -> Deferred[None]:
        """Sends the drain flag to the candidates; fires like :meth:`acknowledged`."""
        if not self._running:
            return succeed(None)
        number = self._offer([DrainFlag(drained)])
        self._send_on()
        return self._waiting.wait(number)

    def set_watcher_pause(self, until: int | None) -> Deferred[None]:
        """Sends the watcher's pause to all nodes; fires when those that can be reached have it."""
        if not self._running:
            return succeed(None)
        self._pause.put(until)
        return succeed(None) if self._ack is Ack.LOCAL else self._pause.settled()

    def refusal(self) -> JobQueueError | None:
        """Returns an error if ``Ack.MAJORITY`` is set and no majority can be reached, else None."""
        if self._ack is not Ack.MAJORITY or not self._running:
            return None
        others = list(self._candidates.values())
        there = 1 + sum(each.reachable for each in others)
        if 2 * there > 1 + len(others):
            return None
        missing = ", ".join(sorted(e.target.name for e in others if not e.reachable))
        return JobQueueError(
            f"Only {there} of {1 + len(others)} master candidates can be reached, which is no "
            f"majority (missing: {missing})"
        )

    def close(self) -> Deferred[None]:
        """Waits up to :data:`STOP_PATIENCE` for the streams to be empty, then ends all of them."""
        if not self._running:
            return succeed(None)
        done: Deferred[None] = Deferred()
        end = self._timers.seconds() + STOP_PATIENCE

        def look() -> None:
            busy = [e for e in self._candidates.values() if e.waiting]
            if busy and self._timers.seconds() < end:
                self._timers.later(0.05, look)
                return
            for each in busy:
                log.warn(
                    "Node {node} is {count} files behind as the daemon stops",
                    node=each.target.name,
                    count=each.waiting,
                )
            self._end()
            done.callback(None)

        look()
        return done

    def _end(self) -> None:
        self._running = False
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._repeat is not None:
            self._repeat.cancel()
            self._repeat = None
        for each in self._candidates.values():
            each.close()
        self._candidates.clear()
        self._gone.clear()
        self._waiting.release()
        self._flushing.release()
        self._ssconf.close()
        self._pause.close()

    def _offer(self, states: Sequence[ReplicatedState]) -> int:
        self._number += 1
        number = self._number
        for candidate in tuple(self._candidates.values()):
            candidate.offer(number, states)
        return number

    def _send_on(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._ssconf_due:
            self._ssconf_due = False
            self._ssconf.send()
        for candidate in tuple(self._candidates.values()):
            candidate.send_on()

    def _reached(self, number: int) -> bool:
        return acknowledged(self._ack, number, [e.mark for e in self._candidates.values()])

    def _overdue(self, number: int) -> None:
        for candidate in tuple(self._candidates.values()):
            candidate.give_up_waiting(number)
        if self._ack is Ack.MAJORITY and not self._reached(number):
            log.error("Jobs wait for a majority of the master candidates (--ack=majority)")

    def _behind(self, number: int) -> list[str]:
        """Returns the names of candidates that can be reached and lack a publication."""
        return [
            each.target.name
            for each in self._candidates.values()
            if each.reachable and not each.mark.holds(number)
        ]

    def _flushed(self, number: int) -> bool:
        return number <= self._given_up or not self._behind(number)

    def _not_flushed(self, number: int) -> None:
        log.warn(
            "A flush of the configuration no longer waits for nodes {nodes}",
            nodes=", ".join(sorted(self._behind(number))),
        )
        self._given_up = number
        self._flushing.moved()

    def _place(self, snapshot: Snapshot, *, newcomers: bool) -> None:
        """Sets the recipients by the nodes in the configuration, and sends what they lack."""
        master = snapshot.cluster.master_node
        online = {n.uuid: Target.of(n) for n in snapshot.nodes.values() if not n.offline}
        self._pause.name({uuid: target for uuid, target in online.items() if uuid != master})
        self._pause.send()
        self._ssconf.name(online)
        values = ssconf_values(snapshot)
        if values != self._values:
            self._values = values
            self._ssconf_changed = True
            self._ssconf.offer(values)
        if newcomers:
            self._ssconf_due = True
        else:
            self._ssconf.send()
        wanted = {n.uuid: online[n.uuid] for n in snapshot.candidates() if n.uuid in online}
        wanted.pop(master, None)
        self._choose(wanted, newcomers)

    def _choose(self, wanted: dict[str, Target], newcomers: bool) -> None:
        for uuid in [u for u, each in self._candidates.items() if each.target != wanted.get(u)]:
            gone = self._candidates.pop(uuid)
            gone.close()
            self._gone[gone.target.name] = gone
        self._gone = {name: each for name, each in self._gone.items() if not each.quiet}
        for uuid, target in wanted.items():
            if uuid not in self._candidates:
                candidate = Candidate(
                    self._site,
                    target,
                    self._moved,
                    newcomer=newcomers,
                    before=self._gone.pop(target.name, None),
                    settled=self._settled,
                )
                self._candidates[uuid] = candidate
                candidate.begin(self._number)
        self._moved()

    def _moved(self) -> None:
        self._waiting.moved()
        self._flushing.moved()
