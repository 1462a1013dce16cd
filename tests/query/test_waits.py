"""Tests of why jobs wait: the real queue, scheduler and lock table."""

from __future__ import annotations

import uuid

from ganeti_masterd.config.objects import FilterRule
from ganeti_masterd.errors import JobLost, OpPrereqError
from ganeti_masterd.jobs import model
from ganeti_masterd.locking.levels import (
    BGL,
    Level,
    WantedLocks,
    all_exclusive,
    all_shared,
    exclusive,
    opportunistic,
    shared,
)
from ganeti_masterd.opcodes import Opcode, decode_opcode
from ganeti_masterd.query.waits import AwaitedLock
from tests.jobs.scene import delay
from tests.requests.scene import RequestScene

RULE = str(uuid.UUID(int=5))


def tag(name: str) -> Opcode:
    """Returns an opcode whose summary has a name in it."""
    return decode_opcode({"OP_ID": "OP_INSTANCE_STARTUP", "instance_name": name})


class WaitScene(RequestScene):
    """Jobs that ask for locks of a real table."""

    limit = 2

    def setUp(self) -> None:
        super().setUp()
        snapshot = self.store.snapshot
        nodes = list(snapshot.nodes.values())
        self.first, self.second = nodes[0], nodes[1]
        self.locks.populate(Level.NODE, snapshot.nodes)
        self.locks.populate(Level.NODE_RES, snapshot.nodes)
        self.locks.populate(Level.INSTANCE, ["web1", "web2"])

    def begin(self, op: Opcode, *wanted: tuple[Level, WantedLocks]) -> int:
        """Submits a job and has it take or await locks, as the executor does."""
        job_id = self.submit_one(op)
        self.locks.acquire(job_id, Level.CLUSTER, shared(BGL))
        for level, names in wanted:
            granted = self.locks.acquire(job_id, level, names)
            if not isinstance(granted, frozenset):
                job = self.queue.tip(job_id)
                assert job is not None
                self.queue.show(model.begin_waiting(job, 0, 1000.0))
                self.queue.scheduler.block(job_id)
                granted.addErrback(lambda _: None)
                return job_id
        job = self.queue.tip(job_id)
        assert job is not None
        self.queue.commit([model.begin_running(job, 0, 1000.0)])
        return job_id

    def end(self, job_id: int) -> None:
        """Ends a running job well."""
        self.locks.release_all(job_id)
        job = self.queue.tip(job_id)
        assert job is not None
        self.queue.commit([model.succeed(job, 0, None, 1000.0)])

    def why(self, job_id: int) -> str:
        """Returns the sentence that a client is told."""
        answer = self.call("QueryJobWait", job_id)
        wait = self.daemon.waits.of(job_id)
        if wait is None:
            self.assertEqual((answer["kind"], answer["jobs"]), (None, []))
        else:
            self.assertEqual(answer["sentence"], wait.sentence)
            self.assertEqual((answer["kind"], answer["jobs"]), (wait.kind, list(wait.jobs)))
        return str(answer["sentence"])

    def wait_of(self, job_id: int) -> tuple[str, tuple[int, ...]]:
        """Returns the kind of a job's wait, and for which jobs it waits."""
        wait = self.daemon.waits.of(job_id)
        assert wait is not None
        return wait.kind, wait.jobs

    def locks_of(self, job_id: int) -> tuple[AwaitedLock, ...]:
        """Returns the locks that a job waits for."""
        wait = self.daemon.waits.of(job_id)
        assert wait is not None
        return wait.locks


class LockTests(WaitScene):
    """Jobs that wait for locks."""

    def setUp(self) -> None:
        super().setUp()
        self.start()

    def test_held_alone(self) -> None:
        """The lock by its object's name, and the job that holds it with what it does."""
        holder = self.begin(tag("web1"), (Level.NODE, exclusive(self.first.uuid)))
        waiter = self.begin(tag("web2"), (Level.NODE, shared(self.first.uuid)))
        self.assertEqual(
            self.why(waiter),
            f"Job {waiter} waits for node {self.first.name}, "
            f"which job {holder} (INSTANCE_STARTUP(web1)) holds",
        )
        self.assertEqual(self.wait_of(waiter), ("lock", (holder,)))
        self.assertEqual(
            self.locks_of(waiter), (AwaitedLock(f"node {self.first.name}", (holder,), (), False),)
        )
        self.assertEqual(self.why(holder), f"Job {holder} runs; it waits for nothing")

    def test_shared_holders(self) -> None:
        """Who shares a lock keeps out who wants it alone, and not who shares it as well."""
        holders = [self.begin(delay(), (Level.NODE, shared(self.first.uuid)))]
        self.queue.scheduler.limit = 9
        holders += [self.begin(delay(), (Level.NODE, shared(self.first.uuid))) for _ in range(4)]
        waiter = self.begin(delay(), (Level.NODE, exclusive([self.first.uuid, self.second.uuid])))
        self.assertEqual(self.wait_of(waiter), ("lock", tuple(holders)))
        said = self.why(waiter)
        self.assertIn("and 2 more hold, shared", said)
        self.assertNotIn(self.second.name, said)
        self.assertNotIn(self.first.uuid, said)

    def test_line(self) -> None:
        """A job behind another that waits for the same lock is told of both."""
        holder = self.begin(delay(), (Level.INSTANCE, shared("web1")))
        second = self.begin(delay(), (Level.INSTANCE, exclusive("web1")))
        third = self.begin(delay(), (Level.INSTANCE, shared("web1")))
        self.assertEqual(self.wait_of(second), ("lock", (holder,)))
        self.assertEqual(self.wait_of(third), ("lock", (second,)))
        self.assertEqual(
            self.locks_of(second), (AwaitedLock("instance web1", (holder,), (), True),)
        )
        self.assertEqual(self.locks_of(third), (AwaitedLock("instance web1", (), (second,), True),))
        self.assertIn("instance web1, for which job", self.why(third))
        self.assertIn("asked before it", self.why(third))

    def test_whole_levels(self) -> None:
        """A job that wants all nodes, and one that waits for the holder of all nodes."""
        holder = self.begin(delay(), (Level.NODE, exclusive(self.first.uuid)))
        whole = self.begin(delay(), (Level.NODE, all_shared))
        self.assertEqual(self.wait_of(whole), ("lock", (holder,)))
        self.end(holder)
        self.assertEqual(self.locks.owned(whole, Level.NODE), frozenset(self.store.snapshot.nodes))
        last = self.begin(delay(), (Level.NODE, exclusive(self.second.uuid)))
        self.assertEqual(self.wait_of(last), ("lock", (whole,)))
        self.assertIn(f"job {whole} ", self.why(last))

    def test_behind_a_whole_level(self) -> None:
        """A job that wants a free node, behind one that waits for all nodes."""
        holder = self.begin(delay(), (Level.NODE, exclusive(self.first.uuid)))
        whole = self.begin(delay(), (Level.NODE, all_exclusive))
        last = self.begin(delay(), (Level.NODE, shared(self.second.uuid)))
        self.assertEqual(self.wait_of(whole), ("lock", (holder,)))
        self.assertEqual(self.wait_of(last), ("lock", (whole,)))
        self.assertIn("all nodes, for which job", self.why(last))

    def test_all_alone(self) -> None:
        """Who wants a level alone waits for everyone who has one of it."""
        self.queue.scheduler.limit = 9
        one = self.begin(delay(), (Level.NODE, exclusive(self.first.uuid)))
        two = self.begin(delay(), (Level.NODE, shared(self.second.uuid)))
        waiter = self.begin(delay(), (Level.NODE, all_exclusive))
        self.assertEqual(self.wait_of(waiter), ("lock", (one, two)))

    def test_opportunistic(self) -> None:
        """A job that takes what is free says how much it needs."""
        self.begin(delay(), (Level.NODE, all_exclusive))
        waiter = self.begin(delay(), (Level.NODE, opportunistic(None, 2)))
        self.assertEqual(
            self.why(waiter), f"Job {waiter} waits until at least 2 of its nodes is free"
        )

    def test_all(self) -> None:
        """The list has every wait for locks, and no more than was asked for."""
        self.begin(delay(), (Level.NODE, exclusive(self.first.uuid)))
        waiters = [self.begin(delay(), (Level.NODE, shared(self.first.uuid))) for _ in range(5)]
        listed = self.daemon.waits.all(100)
        self.assertEqual([wait.job_id for wait in listed], waiters)
        self.assertEqual(listed, [self.daemon.waits.of(waiter) for waiter in waiters])
        self.assertEqual(len(self.daemon.waits.all(3)), 3)


class QueueTests(WaitScene):
    """Jobs that have not begun."""

    def test_starting(self) -> None:
        """Before jobs run, and once the daemon stops, that is the reason."""
        job_id = self.submit_one()
        self.assertEqual(self.why(job_id), f"Job {job_id} waits: the daemon is starting")
        self.queue.close()
        self.assertEqual(self.why(job_id), f"Job {job_id} waits: the daemon is stopping")

    def test_slots(self) -> None:
        """All slots are taken: by whom."""
        self.start()
        first, second = self.begin(tag("web1")), self.begin(tag("web2"))
        third = self.submit_one()
        self.assertEqual(
            self.why(third),
            f"Job {third} begins when there is a slot: all 2 slots are taken, by "
            f"job {first} (INSTANCE_STARTUP(web1)) and job {second} (INSTANCE_STARTUP(web2))",
        )
        self.assertEqual(self.wait_of(third), ("slot", (first, second)))
        self.assertEqual(self.daemon.waits.all(100), [])

    def test_resuming(self) -> None:
        """A job that has its locks again waits for a slot."""
        self.start()
        holder = self.begin(delay(), (Level.NODE, exclusive(self.first.uuid)))
        waiter = self.begin(delay(), (Level.NODE, shared(self.first.uuid)))
        other = self.begin(delay())
        self.locks.release_all(holder)
        self.queue.scheduler.resume(waiter, 0)
        self.assertEqual(self.wait_of(waiter), ("slot", (holder, other)))
        self.assertIn("goes on when there is a slot", self.why(waiter))

    def test_dependencies(self) -> None:
        """The jobs that it depends on, and of these only those that have not ended."""
        self.start()
        first, second = self.begin(delay()), self.begin(delay())
        job_id = self.submit_one(delay(depends=[[first, []], [second, []]]))
        self.assertEqual(self.wait_of(job_id), ("dependency", (first, second)))
        self.end(first)
        self.assertEqual(
            self.why(job_id),
            f"Job {job_id} waits for the end of job {second} (TEST_DELAY(1.0e-3)), "
            "on which it depends",
        )
        self.assertEqual([wait.job_id for wait in self.daemon.waits.all(100)], [job_id])

    def rule(self, action: object) -> None:
        """Puts a filter rule in place that matches every job."""
        self.queue.admission.set_rules(
            [
                FilterRule(
                    uuid=RULE,
                    watermark=0,
                    priority=0,
                    predicates=[["jobid", [">", "id", 0]]],
                    action=action,
                    reason_trail=[],
                )
            ]
        )

    def test_paused(self) -> None:
        """The rule that holds it back, by its uuid."""
        self.start()
        self.rule("PAUSE")
        job_id = self.submit_one()
        self.assertEqual(self.why(job_id), f"Job {job_id} is held back by filter rule {RULE}")
        self.assertEqual([wait.kind for wait in self.daemon.waits.all(100)], ["rule"])

    def test_limits(self) -> None:
        """The rule, or the reason, that lets no more jobs run."""
        self.start()
        self.rule(["RATE_LIMIT", 1])
        self.submit_one()
        job_id = self.submit_one()
        self.assertIn(f"filter rule {RULE} lets no more such jobs run", self.why(job_id))
        self.rule("ACCEPT")

    def test_rate_limit_reason(self) -> None:
        """A reason that limits is quoted."""
        self.start()
        reason = [["me", "rate-limit:1:backups", 1]]
        self.submit_one(delay(reason=reason))
        job_id = self.submit_one(delay(reason=reason))
        self.assertIn("the reason rate-limit:1:backups lets no more", self.why(job_id))

    def test_ended_and_unknown(self) -> None:
        """A job that has ended doesn't wait; one that isn't there is an error."""
        self.start()
        job_id = self.begin(delay())
        self.end(job_id)
        self.assertEqual(self.why(job_id), f"Job {job_id} doesn't wait: its status is success")
        self.assertRaises(JobLost, self.call, "QueryJobWait", 999)
        self.refused("QueryJobWait", [], kind=OpPrereqError)
