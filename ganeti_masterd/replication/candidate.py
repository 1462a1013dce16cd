"""One master candidate: brought up to date in full, then kept up to date by its stream.

Its standing changes as :data:`ganeti_masterd.replication.standing.TABLE` allows.

A candidate whose call fails is stale: nothing is sent to it until, after a pause that doubles each
time, it is compared again. The comparison finds everything that it missed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.replication.acknowledgement import Mark
from ganeti_masterd.replication.calls import calls_for
from ganeti_masterd.replication.comparison import (
    CandidateComparison,
    difference,
    digests_told,
    lowest_held,
)
from ganeti_masterd.replication.interfaces import Published
from ganeti_masterd.replication.pace import Preparing, pause
from ganeti_masterd.replication.standing import STREAMING, CandidateStanding, step
from ganeti_masterd.replication.states import ConfigFile, DrainFlag, ReplicatedState, subject
from ganeti_masterd.replication.stream import Stream
from ganeti_masterd.rpc.calls import NODE_VERIFY
from ganeti_masterd.rpc.door import call_nodes
from ganeti_masterd.rpc.gathering import there_at_once
from ganeti_masterd.rpc.interfaces import INodeRPC, NodeResult, Target
from ganeti_masterd.timing import Timer, Timers

log = Logger()

#: Seconds that a call of a stream may take.
PATIENCE = 10.0
#: Seconds that one question of a comparison may take; the node reads many files.
COMPARISON_PATIENCE = 60.0
#: Seconds until a stale candidate is tried again, at first and at most. Longer than a call that was
#: given up here may still wait for the queue's lock on the node (10 s).
RETRY = 15.0
RETRY_AT_MOST = 60.0
#: Seconds after the daemon's start until calls made by a killed daemon can no longer take effect,
#: for the same reason.
SETTLED = RETRY
#: Seconds between two checks whether earlier calls to a node can still take effect.
LOOK_AGAIN = 0.5


#: What a candidate holds, and which of the jobs in its queue are archived here.
_Found = tuple[CandidateComparison, Mapping[int, bytes]]

#: Standings with complete files, which can be compared again while the stream goes on.
_CAUGHT_UP = (CandidateStanding.CURRENT, CandidateStanding.LAGGING)


class Site(Struct, frozen=True):
    """What all candidates have in common.

    ``awaiting`` is whether commits wait for candidates at all (False for ``--ack=local``).
    """

    nodes: INodeRPC
    files: QueueFiles
    timers: Timers
    published: Published
    preparing: Preparing
    awaiting: bool


class Candidate:
    """Another master candidate and what it holds. Reactor thread only.

    ``newcomer``: nobody waits for it before it is up to date. A candidate that already was one when
    the daemon started is waited for while it catches up. ``moved`` is called after each progress.
    ``before`` is the same node's former :class:`Candidate`: a call made by it must not take effect
    after a call of this one. Until ``settled`` (by the timers' clock) calls of a killed daemon may
    still take effect at the node, so a comparison begun before then is repeated once, while the
    stream goes on. So is the first one, for files of jobs that left the queue long ago: they are
    many ids, and nobody waits for them.
    """

    def __init__(
        self,
        site: Site,
        target: Target,
        moved: Callable[[], object],
        *,
        newcomer: bool,
        before: Candidate | None = None,
        settled: float = float("-inf"),
    ) -> None:
        self.target = target
        self.standing = CandidateStanding.STALE
        #: The serial number of the config.data that it holds; None until that is known.
        self.config_serial: int | None = None
        self._site = site
        self._moved = moved
        self._trusted = not newcomer
        self._number = 0
        self._stream = Stream()
        #: Grows by one whenever :meth:`begin` starts over; answers to earlier questions are
        #: ignored.
        self._life = 0
        #: From which id on its files are compared. When it was last up to date it held just the
        #: jobs in the queue. Before that anything may be there, but the queue comes first: ids
        #: below are looked at once it is up to date, beside the stream (``_swept``).
        published = site.published
        self._lowest = lowest_held(published.job_ids(), published.serial())
        self._swept = self._lowest == 1
        self._pumping = False
        self._delivered = False
        self._before = before
        #: Number of calls in flight, and the time until which a failed one may still take effect.
        #: Each ``_life`` begins with no call in flight, so all belong to one group of states.
        self._in_flight = 0
        self._quiet_at = float("-inf")
        self._fault: str | None = None
        #: Unknown jobs that the candidate holds and that have been logged already.
        self._unknown: set[int] = set()
        self._pause = RETRY
        self._timer: Timer | None = None
        self._settled = settled
        #: Whether to repeat the comparison as soon as no call is in flight.
        self._repeat = False
        #: While the comparison is repeated, the subjects sent since it began, which can't be stale;
        #: otherwise None.
        self._sent_since: set[object] | None = None
        self._settling: Timer | None = None
        left = settled - site.timers.seconds()
        if left > 0:
            self._settling = site.timers.later(left, self._repeat_comparison)
        #: The config.data in flight, and the time when it was sent; None if there is none.
        self._config: tuple[ConfigFile, float] | None = None
        self._config_timer: Timer | None = None

    @property
    def mark(self) -> Mark:
        """How far the candidate is."""
        streaming = self.standing in STREAMING
        return Mark(self._stream.watermark if streaming else None, self._awaited)

    @property
    def reachable(self) -> bool:
        """Whether its last call succeeded, or it has not been called yet."""
        return self._fault is None or self.standing in STREAMING

    @property
    def waiting(self) -> int:
        """The number of states in its stream that it does not hold yet; 0 without a stream."""
        return len(self._stream)

    @property
    def quiet(self) -> bool:
        """Whether no call made so far can still take effect at the node."""
        if self._before is not None and self._before.quiet:
            self._before = None
        return (
            self._before is None
            and not self._in_flight
            and self._site.timers.seconds() >= self._quiet_at
        )

    @property
    def _awaited(self) -> bool:
        if self.standing in (CandidateStanding.COMPARING, CandidateStanding.CATCHING_UP):
            return self._trusted
        return self.standing is CandidateStanding.CURRENT

    def offer(self, number: int, states: Sequence[ReplicatedState]) -> None:
        """Queues the states of publication ``number``; :meth:`send_on` sends them."""
        self._number = number
        if self.standing not in STREAMING:
            return
        for state in states:
            self._stream.offer(number, state)
        self._stream.published(number)
        if self._sent_since is not None:
            self._sent_since.update(map(subject, states))

    def send_on(self) -> None:
        """Sends the queued states in order, at the pace of the node's answers."""
        if self.standing in STREAMING:
            self._pump()

    def begin(self, number: int) -> None:
        """Brings it up to date once it is :attr:`quiet`; ``number`` is the last publication's."""
        self._number = number
        if not self.quiet:
            self._timer = self._site.timers.later(LOOK_AGAIN, lambda: self.begin(self._number))
            return
        self._life += 1
        self._repeat = False
        self.standing = step(self.standing, CandidateStanding.COMPARING)
        self._compare(self._life).addErrback(self._failed_here, self._life)

    def give_up_waiting(self, number: int) -> None:
        """Stops waiting for it until it has caught up, if it lacks this publication."""
        if not self._awaited or self.mark.holds(number):
            return
        log.warn(
            "Node {node} is slow: {count} files behind; jobs no longer wait for it",
            node=self.target.name,
            count=self.waiting,
        )
        self._trusted = False
        if self.standing is CandidateStanding.CURRENT:
            self.standing = step(self.standing, CandidateStanding.LAGGING)
        self._moved()

    def close(self) -> None:
        """Stops everything; answers still to come are ignored."""
        self._life += 1
        self._stop()
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self.standing = step(self.standing, CandidateStanding.GONE)

    def _stop(self) -> None:
        self._stream.clear()
        self._config = None
        self._sent_since = None
        for timer in (self._timer, self._config_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._config_timer = None

    # Comparing

    @inlineCallbacks
    def _compare(self, life: int) -> Any:
        found: _Found | None = yield self._ask(life, self._lowest)
        if found is not None:
            self._catch_up(*found)

    def _repeat_comparison(self) -> None:
        """Compares once more, as a killed daemon's calls may have taken effect since."""
        self._settling = None
        self._repeat = True
        self._repeat_if_idle()

    def _repeat_if_idle(self) -> None:
        """Begins the repeated comparison if it is due and no call is in flight.

        A call in flight may take effect before or after a late call of the killed daemon. Calls
        made from now on take effect after all of those, so their files need no comparison.
        """
        if self._repeat and not self._in_flight and self.standing in _CAUGHT_UP:
            self._repeat = False
            self._sent_since = set(map(subject, self._stream.unsent()))
            self._compare_again(self._life).addErrback(self._failed_here, self._life)

    @inlineCallbacks
    def _compare_again(self, life: int) -> Any:
        sweep = not self._swept
        found: _Found | None = yield self._ask(life, 1 if sweep else self._lowest)
        if found is None:
            return
        self._swept = True
        sent, self._sent_since = self._sent_since or set(), None
        states = [state for state in self._lacking(*found) if subject(state) not in sent]
        stale = sum(not isinstance(state, DrainFlag) for state in states)
        if stale and not sweep:
            log.warn(
                "Node {node} got {count} files late from a daemon that ended before this one "
                "began: they are put right",
                node=self.target.name,
                count=stale,
            )
        for state in states:
            self._stream.offer(self._number, state)
        self._pump()

    @inlineCallbacks
    def _ask(self, life: int, lowest: int) -> Any:
        """Asks what it holds of ids from ``lowest`` on.

        Fires with None if that failed or ``life`` is over.
        """
        site = self._site
        published = site.published
        comparison = CandidateComparison(site.files, published.serial(), lowest=lowest)
        while not comparison.complete:
            cluster = published.snapshot().cluster.cluster_name
            arguments = [{"filelist": comparison.paths()}, cluster, {}]
            results: Mapping[str, NodeResult[dict[str, Any]]] = yield call_nodes(
                site.nodes, [self.target], NODE_VERIFY, arguments, timeout=COMPARISON_PATIENCE
            )
            if life != self._life:
                return None
            result = results[self.target.key]
            if result.error is not None:
                self._fail(result)
                return None
            comparison.found(digests_told(result.payload))
        archived: dict[int, bytes] = {}
        asked: set[int] = set()
        # While some jobs are read, others may be archived.
        while gone := set(comparison.jobs) - set(published.job_ids()) - asked:
            asked |= gone
            documents: Mapping[int, bytes] = yield published.archived(sorted(gone))
            if life != self._life:
                return None
            archived.update(documents)
        unknown = asked - set(archived)
        for job_id in sorted(unknown - self._unknown):
            log.warn(
                "Node {node} holds job {job}, which nobody knows here: it goes to its archive",
                node=self.target.name,
                job=job_id,
            )
        self._unknown = unknown
        return comparison, archived

    def _lacking(
        self, held: CandidateComparison, archived: Mapping[int, bytes]
    ) -> list[ReplicatedState]:
        published = self._site.published
        return difference(
            held,
            serial=published.serial(),
            drained=published.drained(),
            config=ConfigFile(published.image()),
            jobs=published.job_ids(),
            body=published.body,
            archived=archived,
        )

    def _catch_up(self, held: CandidateComparison, archived: Mapping[int, bytes]) -> None:
        states = self._lacking(held, archived)
        if not any(isinstance(state, ConfigFile) for state in states):
            self.config_serial = self._site.published.image().serial_no
        self._stream.clear()
        for state in states:
            # Lower than any publication: before these states arrive, it holds none.
            self._stream.offer(0, state)
        self._stream.published(self._number)
        self.standing = step(self.standing, CandidateStanding.CATCHING_UP)
        self._pump()

    # Sending

    def _pump(self) -> None:
        """Sends as long as calls are answered at once; calls ``moved`` once at the end."""
        if self._pumping:
            return
        self._pumping = True
        self._delivered = False
        try:
            while states := self._stream.take():
                self._send(states)
        except Exception:
            self._failed_here(Failure(), self._life)
        finally:
            self._pumping = False
        if self._delivered:
            self._moved()
        if not len(self._stream) and self.standing in (
            CandidateStanding.CATCHING_UP,
            CandidateStanding.LAGGING,
        ):
            self._caught_up()

    def _send(self, states: Sequence[ReplicatedState]) -> None:
        (first, *_) = states
        if not isinstance(first, ConfigFile):
            self._call(states)
            return
        self._config = first, self._site.timers.seconds()
        self._in_flight = 1
        self._site.preparing.prepare(first).addCallback(
            self._prepared, states, self._life
        ).addErrback(self._failed_here, self._life)

    def _prepared(self, _: None, states: Sequence[ReplicatedState], life: int) -> None:
        self._in_flight -= 1
        if life == self._life:
            try:
                self._call(states)
            except Exception:
                self._failed_here(Failure(), life)

    def _call(self, states: Sequence[ReplicatedState]) -> None:
        site, life = self._site, self._life
        calls = calls_for(states, site.files)
        self._in_flight = len(calls)
        for sent, (procedure, arguments) in enumerate(calls):
            if life != self._life:
                self._in_flight -= len(calls) - sent
                return
            answer: Deferred[Mapping[str, NodeResult[Any]]] = maybeDeferred(
                site.nodes.call, [self.target], procedure, arguments, timeout=PATIENCE
            )
            results = there_at_once(answer)
            if results is not None:
                self._answered(results, life)
            else:
                answer.addCallbacks(self._answered, self._lost, (life,), errbackArgs=(life,))

    def _answered(self, results: Mapping[str, NodeResult[Any]], life: int) -> None:
        self._in_flight -= 1
        try:
            result = results[self.target.key]
            if result.error is not None and not result.unsent:
                self._failed_call()
            if life == self._life:
                self._note(results)
        except Exception:
            self._failed_here(Failure(), life)

    def _lost(self, failure: Failure, life: int) -> None:
        self._in_flight -= 1
        self._failed_call()
        self._failed_here(failure, life)

    def _note(self, results: Mapping[str, NodeResult[Any]]) -> None:
        result = results[self.target.key]
        if result.error is not None:
            self._fail(result)
            return
        if not self._in_flight:
            self._stream.delivered(hold=self._rests_from_config())
            self._delivered = True
            self._repeat_if_idle()
            if not self._pumping:
                self._pump()
                self._moved()

    def _rests_from_config(self) -> bool:
        """Returns whether to send no config.data for a while, after one was delivered."""
        if self._config is None:
            return False
        (file, began), self._config = self._config, None
        self.config_serial = file.serial_no
        timers = self._site.timers
        awaited = self._site.awaiting and self._awaited
        seconds = pause(file.large, timers.seconds() - began, awaited)
        if seconds:
            self._config_timer = timers.later(seconds, self._config_due)
        return seconds > 0

    def _config_due(self) -> None:
        self._config_timer = None
        self._stream.release()
        self.send_on()

    def _caught_up(self) -> None:
        again = (
            " again"
            if self._fault is not None or self.standing is CandidateStanding.LAGGING
            else ""
        )
        self.standing = step(self.standing, CandidateStanding.CURRENT)
        self._pause = RETRY
        self._trusted = True
        self._fault = None
        published = self._site.published
        self._lowest = lowest_held(published.job_ids(), published.serial())
        log.info(
            "Node {node} holds the queue and the configuration{again}",
            node=self.target.name,
            again=again,
        )
        self._moved()
        self._repeat = self._repeat or not self._swept
        self._repeat_if_idle()

    # Failing

    def _failed_call(self) -> None:
        """Records that a call failed that was sent: perhaps only its answer was lost."""
        self._quiet_at = self._site.timers.seconds() + RETRY

    def _fail(self, result: NodeResult[Any]) -> None:
        """Makes the candidate stale after a failed call."""
        self._stale(str(result.error), result.procedure)

    def _failed_here(self, failure: Any, life: int) -> None:
        if life == self._life:
            log.failure("Node {node} can't be sent anything", failure, node=self.target.name)
            self._stale(failure.getErrorMessage(), "none")

    def _stale(self, fault: str, procedure: str) -> None:
        self._life += 1
        self._stop()
        self.standing = step(self.standing, CandidateStanding.STALE)
        self._trusted = False
        if fault != self._fault:
            log.warn(
                "Node {node} does not get the queue and the configuration any more: {fault} "
                "(call {procedure}); it is out of date until that is over",
                procedure=procedure,
                node=self.target.name,
                fault=fault,
            )
        self._fault = fault
        self._timer = self._site.timers.later(self._pause, lambda: self.begin(self._number))
        self._pause = min(2 * self._pause, RETRY_AT_MOST)
        self._moved()
