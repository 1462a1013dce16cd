"""The order in which jobs begin."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.jobs.scheduler import Limit, Scheduler
from tests.examples import examples


class SchedulerTests(SynchronousTestCase):
    """Single rules."""

    def take_all(self, scheduler: Scheduler) -> list[int]:
        taken = []
        while (job_id := scheduler.take()) is not None:
            taken.append(job_id)
        return taken

    def test_priority_then_age(self) -> None:
        """The most urgent job begins first, the oldest among equals."""
        scheduler = Scheduler(10)
        for job_id, priority in [(1, 0), (2, -10), (3, 10), (4, -10), (5, 0)]:
            scheduler.add(job_id, priority)
        self.assertEqual(self.take_all(scheduler), [2, 4, 1, 5, 3])

    def test_limit(self) -> None:
        """No more jobs run than there are slots; an end frees one."""
        scheduler = Scheduler(2)
        for job_id in range(1, 5):
            scheduler.add(job_id, 0)
        self.assertEqual(self.take_all(scheduler), [1, 2])
        scheduler.discard(1)
        self.assertEqual(self.take_all(scheduler), [3])

    def test_waiting_for_a_lock_costs_no_slot(self) -> None:
        """A blocked job's slot goes to another; with its locks it comes before new ones."""
        scheduler = Scheduler(1)
        for job_id in (1, 2, 3):
            scheduler.add(job_id, 0)
        self.assertEqual(scheduler.take(), 1)
        scheduler.block(1)
        self.assertEqual(scheduler.take(), 2)
        scheduler.resume(1, 0)
        self.assertIsNone(scheduler.take())
        scheduler.discard(2)
        self.assertEqual(scheduler.take(), 1)

    def test_blocked_jobs_are_bounded(self) -> None:
        """No more than so many jobs stand in the lock table."""
        scheduler = Scheduler(5, max_blocked=2)
        for job_id in range(1, 6):
            scheduler.add(job_id, 0)
        for _ in range(2):
            job_id = scheduler.take()
            assert job_id is not None
            scheduler.block(job_id)
        self.assertIsNone(scheduler.take())

    def test_new_priority(self) -> None:
        """A priority that changes counts from then on."""
        scheduler = Scheduler(10)
        scheduler.add(1, 0)
        scheduler.add(2, 0)
        scheduler.reprioritize(2, -5)
        scheduler.reprioritize(9, -5)
        self.assertEqual(self.take_all(scheduler), [2, 1])

    def test_stale_entries_go(self) -> None:
        """Changing priorities over and over doesn't grow the heap without bound."""
        scheduler = Scheduler(1)
        scheduler.add(1, 0)
        for priority in range(10_000):
            scheduler.reprioritize(1, priority % 7)
            if priority % 100 == 0:
                scheduler.add(2, 0)
                scheduler.take()
                scheduler.discard(1)
                scheduler.discard(2)
                scheduler.add(1, 0)
        self.assertLess(len(scheduler._ready.heap), 500)


class LimitTests(SynchronousTestCase):
    """Limits of single jobs."""

    def test_thousands_held(self) -> None:
        """Jobs that a full limit holds are not looked at again for each one that ends."""
        scheduler = Scheduler(50)
        limit = (Limit(("rule", "a"), 1),)
        for job_id in range(1, 5001):
            scheduler.add(job_id, 0, limit)
        running = scheduler.take()
        self.assertIsNone(scheduler.take())
        for expected in range(2, 5001):
            assert running is not None
            scheduler.discard(running)
            self.assertEqual(len(scheduler._ready.heap), 1)
            running = scheduler.take()
            self.assertEqual(running, expected)
        self.assertEqual(len(scheduler), 0)

    def test_two_limits(self) -> None:
        """A job that another limit holds doesn't keep its room under the first one."""
        scheduler = Scheduler(50)
        one, other = Limit(("rule", "a"), 1), Limit(("reason", "1:b"), 1)
        scheduler.add(1, 0, (one,))
        scheduler.add(2, 0, (other,))
        scheduler.add(3, 0, (one, other))
        scheduler.add(4, 0, (one,))
        self.assertEqual([scheduler.take() for _ in range(3)], [1, 2, None])
        scheduler.discard(1)
        self.assertEqual([scheduler.take() for _ in range(2)], [4, None])


#: The same limit has the same bound wherever it stands.
LIMITS = st.lists(
    st.sampled_from([Limit(("rule", "a"), 1), Limit(("rule", "b"), 2), Limit(("reason", "c"), 1)]),
    max_size=2,
    unique=True,
).map(tuple)


class SchedulerMachine(RuleBasedStateMachine):
    """The scheduler against lists that are sorted each time."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(3, max_blocked=4)
        self.ready: dict[int, int] = {}
        self.resuming: dict[int, int] = {}
        self.running: set[int] = set()
        self.blocked: set[int] = set()
        self.limits: dict[int, tuple[Limit, ...]] = {}
        self.last = 0

    @rule(priority=st.integers(-20, 19), limits=LIMITS)
    def submit(self, priority: int, limits: tuple[Limit, ...]) -> None:
        self.last += 1
        self.ready[self.last] = priority
        self.limits[self.last] = limits
        self.scheduler.add(self.last, priority, limits)

    def has_room(self, job_id: int) -> bool:
        under_way = self.running | self.blocked | set(self.resuming)
        return all(
            sum(limit in self.limits[other] for other in under_way) < limit.most
            for limit in self.limits[job_id]
        )

    @rule(data=st.data())
    def limit_anew(self, data: st.DataObject) -> None:
        self.limits = {job_id: data.draw(LIMITS) for job_id in self.limits}
        self.scheduler.limit_anew(self.limits.__getitem__)

    @rule()
    def take(self) -> None:
        expected = None
        if len(self.running) < 3:
            if self.resuming:
                expected = min(self.resuming, key=lambda n: (self.resuming[n], n))
                del self.resuming[expected]
            elif len(self.blocked) < 4:
                free = [n for n in self.ready if self.has_room(n)]
                expected = min(free, key=lambda n: (self.ready[n], n), default=None)
                self.ready.pop(expected, None)
        assert self.scheduler.take() == expected
        if expected is not None:
            self.running.add(expected)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), block=st.booleans())
    def leave(self, data: st.DataObject, block: bool) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(job_id)
        if block:
            self.blocked.add(job_id)
            self.scheduler.block(job_id)
        else:
            self.scheduler.discard(job_id)

    @precondition(lambda self: self.blocked)
    @rule(data=st.data(), priority=st.integers(-20, 19))
    def resume(self, data: st.DataObject, priority: int) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.blocked)))
        self.blocked.discard(job_id)
        self.resuming[job_id] = priority
        self.scheduler.resume(job_id, priority)

    @precondition(lambda self: self.last)
    @rule(data=st.data(), priority=st.integers(-20, 19))
    def reprioritize(self, data: st.DataObject, priority: int) -> None:
        job_id = data.draw(st.integers(1, self.last))
        for group in (self.ready, self.resuming):
            if job_id in group:
                group[job_id] = priority
        self.scheduler.reprioritize(job_id, priority)

    @precondition(lambda self: self.last)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        job_id = data.draw(st.integers(1, self.last))
        self.ready.pop(job_id, None)
        self.resuming.pop(job_id, None)
        self.running.discard(job_id)
        self.blocked.discard(job_id)
        self.scheduler.discard(job_id)

    @invariant()
    def same(self) -> None:
        assert self.scheduler.running == self.running
        assert self.scheduler.blocked == self.blocked
        under_way = {n for n in range(1, self.last + 1) if self.scheduler.under_way(n)}
        assert under_way == self.running | self.blocked | set(self.resuming)
        assert len(self.scheduler) == len(self.ready)


TestSchedulerMachine = SchedulerMachine.TestCase
TestSchedulerMachine.settings = settings(
    deadline=None, max_examples=examples(60, 2000), stateful_step_count=50
)
