"""Opcodes from their submission to their result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError, ensureDeferred, gatherResults

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import JobQueueError, OpExecError, OpPrereqError, prereq
from ganeti_masterd.events import JobChanged
from ganeti_masterd.execution import run
from ganeti_masterd.jobs.model import decode_job
from ganeti_masterd.journal.rows import JobRow
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.rpc.calls import VERSION
from tests.execution.scene import ExecutionScene, dummy


def node_lock(level: Level, snapshot: Snapshot) -> WantedLocks | None:
    """Returns what an opcode on node2 alone wants at a level."""
    return exclusive(snapshot.node("node2").uuid) if level is Level.NODE else None


def locking(want: Callable[[Level, Snapshot], WantedLocks | None]) -> Callable[..., WantedLocks]:
    """Returns a ``locks`` method that wants something at some levels."""

    def locks(self: LogicalUnit[Any], level: Level, snapshot: Snapshot) -> WantedLocks:
        return want(level, snapshot) or LogicalUnit.locks(self, level, snapshot)

    return locks


async def holder_and_waiter(scene: ExecutionScene) -> tuple[threading.Event, int, int]:
    """Starts a job that holds a node's lock until the event is set, and one that waits for it."""
    release = threading.Event()
    scene.unit(locks=locking(node_lock), exec=lambda unit, ctx: release.wait(10) and None)
    holder = await scene.submit(dummy())
    await scene.reaches(holder, "running")
    waiter = await scene.submit(dummy())
    await scene.reaches(waiter, "waiting")
    return release, holder, waiter


class ResultTests(ExecutionScene):
    """What becomes of results and errors."""

    async def test_success(self) -> None:
        """An opcode's result is the job's, with all its time stamps."""
        self.unit(exec=lambda unit, ctx: None)
        job = await self.run_job(dummy(), dummy())
        self.assertEqual(job.status, "success")
        for op in job.ops:
            self.assertIsNotNone(op.start_timestamp)
            self.assertIsNotNone(op.exec_timestamp)
            self.assertIsNotNone(op.end_timestamp)

    async def test_in_a_pool_thread(self) -> None:
        """Check and exec run in one pool thread, expand and locks in the reactor."""
        threads: dict[str, threading.Thread] = {}

        def where(name: str) -> Callable[..., None]:
            return lambda *args: threads.__setitem__(name, threading.current_thread())

        self.unit(expand=where("expand"), check=where("check"), exec=where("exec"))
        await self.run_job(dummy())
        self.assertIs(threads["expand"], threading.main_thread())
        self.assertIsNot(threads["check"], threading.main_thread())
        self.assertIs(threads["check"], threads["exec"])

    async def fails(self, error: Exception, **where: Any) -> Any:
        def fail(*args: Any) -> None:
            raise error

        self.unit(**dict.fromkeys(where, fail))
        job = await self.run_job(dummy(), dummy())
        self.assertEqual([op.status for op in job.ops], ["error", "error"])
        return job.ops[0].result

    async def test_errors(self) -> None:
        """A Ganeti error travels as it is, from wherever it was raised."""
        for place in ("expand", "locks", "check", "exec"):
            result = await self.fails(prereq("no such thing", "unknown_entity"), **{place: True})
            self.assertEqual(result, ["OpPrereqError", ["no such thing", "unknown_entity"]])

    async def test_unforeseen(self) -> None:
        """Any other exception is an OpExecError for the client and a traceback for the log."""
        for place in ("expand", "locks", "check", "exec"):
            result = await self.fails(KeyError("x"), **{place: True})
            self.assertEqual(result, ["OpExecError", ["KeyError: 'x'"]])
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 4)

    async def test_result_of_the_wrong_shape(self) -> None:
        """A result that isn't what the opcode declares is an error."""
        self.unit(exec=lambda unit, ctx: {"not": "null"})
        job = await self.run_job(dummy())
        self.assertEqual((job.status, job.ops[0].result[0]), ("error", "OpResultError"))

    async def test_dry_run(self) -> None:
        """A dry run checks and does nothing."""
        done: list[str] = []
        self.unit(
            check=lambda unit, ctx: done.append("check"), exec=lambda *args: done.append("exec")
        )
        job = await self.run_job(dummy(dry_run=True))
        self.assertEqual((job.status, done), ("success", ["check"]))
        self.assertIn("dry-run mode requested", self.messages(job)[0])

    async def test_back_to_waiting(self) -> None:
        """Lacking resources send an opcode back to wait, where its unit allows that."""
        self.patch(run, "RESOURCES_PAUSE", 0.01)
        tries: list[int] = []

        def lacking(unit: Any, ctx: Context) -> None:
            tries.append(ctx.job_id)
            if len(tries) < 3:
                raise OpPrereqError("not enough", "temp_insufficient_resources")

        self.unit(check=lacking, exec=lambda *args: None, waits_for_resources=True)
        job = await self.run_job(dummy())
        self.assertEqual((job.status, len(tries)), ("success", 3))
        tries.clear()
        self.unit(check=lacking, exec=lambda *args: None)
        self.assertEqual((await self.run_job(dummy())).status, "error")


class AtOnceTests(ExecutionScene):
    """Jobs that begin with the commit of their submission."""

    def states(self, job_id: int) -> list[str]:
        """The states of a job that were committed, in order."""
        rows = [row for row in self.journal.rows if isinstance(row, JobRow)]
        return [decode_job(row.body).status for row in rows if row.job_id == job_id]

    async def test_one_commit_less(self) -> None:
        """Its first state on disk is that it runs; so is the first that is published."""
        seen: list[str] = []
        self.events.subscribe(JobChanged, lambda event: seen.append(event.after))
        self.unit(locks=locking(node_lock), exec=lambda unit, ctx: None)
        job = await self.run_job(dummy())
        self.assertEqual(self.states(job.id), ["running", "success"])
        self.assertEqual(seen[0], "running")
        self.assertEqual(job.start_timestamp, job.ops[0].exec_timestamp)

    async def test_not_before_it_is_durable(self) -> None:
        """It runs, and is seen, only once that is on disk; its locks it has before."""
        ran: list[int] = []
        self.unit(locks=locking(node_lock), exec=lambda unit, ctx: ran.append(ctx.job_id))
        self.journal.held = True
        done = self.submission.submit([[dummy()]])
        await self.tick()
        self.assertEqual((ran, dict(self.queue.jobs)), ([], {}))
        self.assertNotEqual(self.locks.rows(), [])
        self.journal.held = False
        self.journal.release()
        (job_id,) = await done
        self.assertIsInstance(job_id, int)
        await self.ends(job_id)
        self.assertEqual(ran, [job_id])

    async def test_client_goes(self) -> None:
        """A client that goes away before it is answered doesn't take the job with it."""
        self.unit(exec=lambda unit, ctx: None)
        self.journal.held = True
        done = self.submission.submit([[dummy()]])
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.journal.held = False
        self.journal.release()
        self.assertEqual((await self.ends(1)).status, "success")

    async def test_disk_refuses(self) -> None:
        """Whoever submitted it is told, and nothing of it is left."""
        self.unit(locks=locking(node_lock), exec=lambda unit, ctx: None)
        self.journal.held = True
        done = self.submission.submit([[dummy()]])
        self.journal.fail()
        with self.assertRaises(JobQueueError):
            await done
        self.assertEqual((dict(self.queue.jobs), self.locks.rows()), ({}, []))
        self.assertEqual((self.queue.scheduler.running, len(self.executor)), (set(), 0))
        self.assertIsNone(self.queue.tip(1))
        self.journal.held = False
        self.assertEqual((await self.run_job(dummy())).status, "success")

    async def test_locks_of_another(self) -> None:
        """One that has to wait for locks is queued, as ever, and holds none of them meanwhile."""
        go = threading.Event()
        self.addCleanup(go.set)
        self.unit(locks=locking(node_lock), exec=lambda unit, ctx: go.wait() and None)
        first = await self.submit(dummy())
        second = await self.submit(dummy())
        await self.reaches(second, "waiting")
        self.assertEqual(self.states(second), ["queued"])
        self.assertEqual(self.queue.scheduler.running, {first})
        go.set()
        self.assertEqual((await self.ends(second)).status, "success")

    async def test_some_of_its_locks(self) -> None:
        """Locks that it got before one that is held by another are free again."""
        go = threading.Event()
        self.addCleanup(go.set)
        group = next(iter(self.store.snapshot.groups))

        def group_and_node(level: Level, snapshot: Snapshot) -> WantedLocks | None:
            return exclusive(group) if level is Level.NODEGROUP else node_lock(level, snapshot)

        self.unit(locks=locking(node_lock), exec=lambda unit, ctx: go.wait() and None)
        await self.submit(dummy())
        self.unit(locks=locking(group_and_node), exec=lambda unit, ctx: None)
        with patch.object(self.executor, "proceed"):  # as if it were not its turn yet
            second = await self.submit(dummy())
        self.assertEqual({job for row in self.locks.rows() for job in row.owner}, {"1"})
        self.executor.proceed(second)
        go.set()
        self.assertEqual((await self.ends(second)).status, "success")

    async def test_what_prepares(self) -> None:
        """What prepares itself in a thread first is queued before."""
        self.unit(prepares=True, prepare=lambda *args: None, exec=lambda *args: None)
        job = await self.run_job(dummy())
        self.assertEqual(self.states(job.id)[0], "queued")

    async def test_what_is_refused(self) -> None:
        """What is refused before it runs ends in its error, queued before."""
        job = await self.run_job(decode_opcode({"OP_ID": "OP_TEST_DELAY", "duration": 0}))
        self.assertEqual((job.status, self.states(job.id)[0]), ("error", "queued"))


class LockTests(ExecutionScene):
    """Locks around opcodes."""

    async def test_one_at_a_time(self) -> None:
        """Opcodes on one node run one after the other."""
        inside = threading.Semaphore(1)
        clashes: list[bool] = []

        def alone(unit: Any, ctx: Context) -> None:
            clashes.append(not inside.acquire(blocking=False))
            ctx.sleep(0.02)
            inside.release()

        self.unit(locks=locking(node_lock), exec=alone)
        jobs = [await self.submit(dummy()) for _ in range(4)]
        await gatherResults([ensureDeferred(self.ends(job_id)) for job_id in jobs])
        self.assertEqual(clashes, [False] * 4)

    async def test_two_nodes(self) -> None:
        """Opcodes on two nodes run side by side: each waits until the other is there."""
        meeting = threading.Barrier(2, timeout=10)

        def locks(unit: Any, level: Level, snapshot: Snapshot) -> WantedLocks:
            if level is Level.NODE:
                return exclusive(snapshot.node(unit.op.messages).uuid)
            return LogicalUnit.locks(unit, level, snapshot)

        def meet(unit: Any, ctx: Context) -> None:
            meeting.wait()

        self.unit(locks=locks, exec=meet)
        jobs = [await self.submit(dummy(messages=name)) for name in ("node2", "node3")]
        for job_id in jobs:
            self.assertEqual((await self.ends(job_id)).status, "success")

    async def test_waiting_is_seen_and_costs_no_slot(self) -> None:
        """A job that waits for a lock shows it, and others use its slot."""
        release = threading.Event()

        def hold(unit: Any, ctx: Context) -> None:
            while not release.wait(0.001):
                ctx.checkpoint()

        self.unit(locks=locking(node_lock), exec=hold)
        holder = await self.submit(dummy())
        await self.reaches(holder, "running")
        waiters = [await self.submit(dummy()) for _ in range(self.limit + 2)]
        for job_id in waiters:
            await self.reaches(job_id, "waiting")
        self.unit(exec=lambda *args: None)
        self.assertEqual((await self.run_job(dummy())).status, "success")
        release.set()
        for job_id in [holder, *waiters]:
            self.assertEqual((await self.ends(job_id)).status, "success")

    async def test_waits_twice(self) -> None:
        """One that has waited for a lock may have to wait for the next one, too."""
        group = next(iter(self.store.snapshot.groups))

        def group_lock(level: Level, snapshot: Snapshot) -> WantedLocks | None:
            return exclusive(group) if level is Level.NODEGROUP else None

        ends = [threading.Event(), threading.Event()]
        for end, want in zip(ends, (group_lock, node_lock), strict=True):
            self.addCleanup(end.set)
            self.unit(locks=locking(want), exec=lambda unit, ctx, end=end: end.wait() and None)
            await self.reaches(await self.submit(dummy()), "running")
        self.unit(
            locks=locking(lambda *args: group_lock(*args) or node_lock(*args)),
            exec=lambda unit, ctx: None,
        )
        waiter = await self.submit(dummy())
        for end, level in zip(ends, ("nodegroup", "node"), strict=True):
            while self.awaited(waiter) != [level]:
                await self.tick()
            self.assertEqual(self.queue.scheduler.blocked, {waiter})
            end.set()
        self.assertEqual((await self.ends(waiter)).status, "success")

    def awaited(self, job_id: int) -> list[str]:
        """Returns the levels of the locks that a job waits for."""
        return [
            row.name.partition("/")[0]
            for row in self.locks.rows()
            for _, jobs in row.pending
            if str(job_id) in jobs
        ]

    async def test_cancel_while_waiting(self) -> None:
        """A wait for locks ends at once when the job is cancelled."""
        release, holder, waiter = await holder_and_waiter(self)
        self.assertEqual(await self.control.cancel(waiter), (True, "Job successfully cancelled"))
        self.assertEqual(self.queue.jobs[waiter].status, "canceled")
        release.set()
        await self.ends(holder)

    async def test_world_moves_during_the_wait(self) -> None:
        """What an opcode wants is asked again after its wait, on the world as it is then."""
        release = threading.Event()
        held: list[frozenset[str]] = []
        self.unit(locks=locking(node_lock), exec=lambda unit, ctx: release.wait(10) and None)
        holder = await self.submit(dummy())
        await self.reaches(holder, "running")

        def tagged(level: Level, snapshot: Snapshot) -> WantedLocks | None:
            if level is not Level.NODE:
                return None
            return exclusive(
                node.uuid
                for node in snapshot.nodes.values()
                if "x" in node.tags or node.name == "node2"
            )

        self.unit(
            locks=locking(tagged),
            exec=lambda unit, ctx: held.append(ctx.owned(Level.NODE)),
        )
        waiter = await self.submit(dummy())
        await self.reaches(waiter, "waiting")
        node3 = self.store.snapshot.node("node3")
        await self.store.change(node3.uuid, lambda node: node.with_tags(["x"]))
        release.set()
        await self.ends(waiter)
        self.assertEqual(held, [{node3.uuid, self.store.snapshot.node("node2").uuid}])

    async def test_cluster_lock(self) -> None:
        """An opcode that wants the cluster for itself waits for all others."""
        release = threading.Event()
        self.unit(exec=lambda unit, ctx: release.wait(10) and None)
        holder = await self.submit(dummy())
        await self.reaches(holder, "running")
        self.unit(alone=True, exec=lambda *args: None)
        waiter = await self.submit(dummy())
        await self.reaches(waiter, "waiting")
        release.set()
        self.assertEqual((await self.ends(waiter)).status, "success")

    async def test_released_and_downgraded(self) -> None:
        """Locks that an opcode gives back early are free for others while it runs."""
        reached, release = threading.Event(), threading.Event()
        names = sorted(self.store.snapshot.nodes)

        def early(unit: Any, ctx: Context) -> None:
            ctx.release(Level.NODE, keep=names[:2])
            ctx.downgrade(Level.NODE, names[:1])
            assert ctx.owned(Level.NODE) == frozenset(names[:2])
            reached.set()
            release.wait(10)

        def all_nodes(level: Level, snapshot: Snapshot) -> WantedLocks | None:
            return exclusive(names) if level is Level.NODE else None

        def free_ones(level: Level, snapshot: Snapshot) -> WantedLocks | None:
            return shared([names[0], names[2]]) if level is Level.NODE else None

        self.unit(locks=locking(all_nodes), exec=early)
        first = await self.submit(dummy())
        await self.reaches(first, "running")
        self.unit(locks=locking(free_ones), exec=lambda *args: None)
        await self.until(reached)
        self.assertEqual((await self.run_job(dummy())).status, "success")
        release.set()
        await self.ends(first)

    async def test_new_and_gone_locks(self) -> None:
        """An opcode adds the lock of what it makes and removes that of what it removes."""

        def make(unit: Any, ctx: Context) -> None:
            ctx.add_lock(Level.NODE, "new")
            assert "new" in ctx.owned(Level.NODE)
            ctx.remove_lock(Level.NODE, "new")

        self.unit(locks=locking(node_lock), exec=make)
        self.assertEqual((await self.run_job(dummy())).status, "success")
        self.assertNotIn("new", self.locks.members(Level.NODE))


class ContextTests(ExecutionScene):
    """What an opcode may do."""

    async def test_log(self) -> None:
        """Lines come in order and are there before the result is."""

        def talk(unit: Any, ctx: Context) -> None:
            ctx.feedback("plain")
            ctx.info("told")
            ctx.warning("careful", hint="look here")
            ctx.feedback("", kind="remote-import", value={"a": 1})

        self.unit(exec=talk)
        job = await self.run_job(dummy())
        self.assertEqual(
            self.messages(job),
            ["plain", " - INFO: told", " - WARNING: careful", "      Hint: look here", {"a": 1}],
        )
        self.assertEqual([e.serial for e in job.ops[0].log], [1, 2, 3, 4, 5])

    async def test_change(self) -> None:
        """A change is durable when the call returns, and the snapshot has it."""
        seen: list[Any] = []

        def tag(unit: Any, ctx: Context) -> None:
            uuid = ctx.snapshot().master.uuid
            rows = len(self.journal.rows)
            changed = ctx.change(uuid, lambda node: node.with_tags(["x"]))
            seen.append((changed.tags, ctx.snapshot().master.tags))
            seen.append(len(self.journal.rows) > rows)
            try:
                ctx.change(uuid, lambda node: node, serial=99)
            except Exception as error:
                seen.append(type(error).__name__)

        self.unit(exec=tag)
        await self.run_job(dummy())
        self.assertEqual(seen, [(("x",), ("x",)), True, "ConfigurationError"])

    async def test_call(self) -> None:
        """Nodes are called by uuid, all at once; what they answer is keyed by it."""
        answers: dict[str, Any] = {}

        def ask(unit: Any, ctx: Context) -> None:
            answers.update(ctx.call(ctx.snapshot().nodes, VERSION))

        self.unit(exec=ask)
        await self.run_job(dummy())
        self.assertEqual({r.payload for r in answers.values()}, {3000000})
        self.assertEqual(set(answers), set(self.store.snapshot.nodes))

    async def test_jobs_of_a_job(self) -> None:
        """Sub-jobs exist with the result, inherit, and don't exist if the opcode fails."""

        def spawn(unit: Any, ctx: Context) -> None:
            ctx.submit([[dummy(messages="child")]])
            assert len(self.queue.jobs) == self.before
            if unit.op.fail:
                raise OpExecError("no")

        class Parent(LogicalUnit[Any]):
            def exec(self, ctx: Context) -> None:
                if self.op.messages != "child":
                    spawn(self, ctx)

        self.patch_unit("OP_TEST_DUMMY", Parent)
        for fail, count in ((True, 1), (False, 2)):
            self.before = len(self.queue.jobs) + 1
            before = set(self.queue.jobs)
            await self.run_job(dummy(fail=fail, priority=-10, reason=[["a", "b", 1]]))
            made = sorted(set(self.queue.jobs) - before)
            self.assertEqual(len(made), count)
        child = (await self.ends(made[-1])).ops[0]
        self.assertEqual(child.priority, -10)
        self.assertEqual(child.input["comment"], "Submitted by OP_TEST_DUMMY")
        self.assertEqual(list(child.input["reason"][0]), ["a", "b", 1])

    async def test_ids_of_jobs_of_a_job(self) -> None:
        """Their ids are reserved on disk in the commit that makes them: none is given twice."""

        def execute(unit: Any, ctx: Context) -> None:
            if unit.op.messages is None:
                ctx.submit([[dummy(messages="child")]])

        self.unit(exec=execute)
        await self.run_job(dummy())
        self.queue.last_id = self.queue.reserved - 1
        last = (await self.run_job(dummy())).id + 1
        self.assertEqual((await self.ends(last)).status, "success")
        self.assertGreaterEqual(self.journal.reserved, last)

    async def test_reservations_end_with_the_job(self) -> None:
        """What a job reserved is refused to others until it ends."""

        def reserve(unit: Any, ctx: Context) -> None:
            mac, port = ctx.new_mac(), ctx.new_port()
            assert self.reservations.owner("mac", mac) == ctx.job_id
            minors = ctx.new_minors(sorted(ctx.snapshot().nodes)[:2])
            assert (len(minors), port > 0) == (2, True)
            ctx.reserve("instance", "web1")

        self.unit(exec=reserve)
        job = await self.run_job(dummy())
        self.assertEqual((job.status, job.ops[0].result), ("success", None))
        self.assertEqual(len(self.reservations), 0)

    async def test_allocator_that_is_not_there(self) -> None:
        """An allocator that can't be run is an error that names it."""
        self.unit(exec=lambda unit, ctx: ctx.run_allocator("nosuch", {"request": {}}))
        job = await self.run_job(dummy())
        self.assertEqual(job.ops[0].result[0], "OpExecError")
        self.assertIn("nosuch", job.ops[0].result[1][0])


class KillTests(ExecutionScene):
    """Killing a running job."""

    async def kill(self, job_id: int) -> None:
        await self.reaches(job_id, "running")
        done, _ = await self.control.cancel(job_id, kill=True)
        self.assertTrue(done)

    async def test_ends_a_sleep(self) -> None:
        """A kill ends a sleep at once; finished opcodes keep their success."""

        class Sleeper(LogicalUnit[Any]):
            def exec(self, ctx: Context) -> None:
                if self.op.messages:
                    ctx.sleep(60)

        self.patch_unit("OP_TEST_DUMMY", Sleeper)
        job_id = await self.submit(dummy(), dummy(messages="x"), dummy())
        while self.queue.jobs[job_id].current == 0:
            await self.tick()
        await self.kill(job_id)
        job = await self.ends(job_id)
        self.assertEqual([op.status for op in job.ops], ["success", "error", "error"])
        self.assertEqual(job.ops[1].result[0], "OpExecError")
        self.assertIn("killed", job.ops[1].result[1][0])

    async def test_shielded(self) -> None:
        """Clean-up that is shielded is finished."""
        finished = []
        entered = threading.Event()

        def clean_up(unit: Any, ctx: Context) -> None:
            with ctx.shielded():
                entered.set()
                ctx.sleep(0.05)
                ctx.feedback("cleaned up")
                finished.append(True)
            ctx.checkpoint()
            finished.append(False)

        self.unit(exec=clean_up)
        job_id = await self.submit(dummy())
        await self.reaches(job_id, "running")
        await self.until(entered)
        await self.kill(job_id)
        job = await self.ends(job_id)
        self.assertEqual((job.status, finished), ("error", [True]))

    async def test_while_preparing(self) -> None:
        """A cancel during the preparation cancels the job once that has stopped."""
        entered = threading.Event()

        def prepare(unit: Any, ctx: Context) -> None:
            entered.set()
            while True:
                ctx.sleep(0.01)

        self.unit(prepares=True, prepare=prepare, exec=lambda *args: None)
        job_id = await self.submit(dummy())
        await self.reaches(job_id, "waiting")
        await self.until(entered)
        done, _ = await self.control.cancel(job_id)
        self.assertFalse(done)
        self.assertEqual((await self.ends(job_id)).status, "canceled")


class DiskTests(ExecutionScene):
    """A disk that refuses."""

    async def test_start_that_can_not_be_recorded(self) -> None:
        """An opcode whose start can't be recorded doesn't run; it is begun again later."""
        self.patch(run, "DISK_PAUSE", 0.01)
        ran: list[int] = []
        self.unit(exec=lambda unit, ctx: ran.append(ctx.job_id))
        self.queue.runner = None
        job_id = await self.submit(dummy())
        self.journal.held = True
        self.queue.run_with(self.executor)
        self.journal.fail()
        self.journal.held = False
        self.assertEqual(ran, [])
        await self.ends(job_id)
        self.assertEqual(ran, [job_id])


class LimitTests(ExecutionScene):
    """The limit of running jobs."""

    async def test_follows_the_configuration(self) -> None:
        """A new limit lets more jobs run at once, or fewer."""
        release = threading.Event()
        self.unit(exec=lambda unit, ctx: release.wait(10) and None)
        jobs = [await self.submit(dummy()) for _ in range(8)]
        await self.reaches(jobs[2], "running")
        self.assertEqual(len(self.queue.scheduler.running), 3)
        self.executor.set_limit(6)
        await self.reaches(jobs[5], "running")
        self.assertEqual(len(self.queue.scheduler.running), 6)
        release.set()
        for job_id in jobs:
            await self.ends(job_id)

    async def test_idle(self) -> None:
        """Whoever waits for the last job is told."""
        self.unit(exec=lambda *args: None)
        await self.run_job(dummy())
        await self.executor.when_idle()

    async def test_idle_once_it_is_durable(self) -> None:
        """A job is under way until its end is recorded: whoever waits for the last finds it."""
        release = threading.Event()
        self.unit(exec=lambda unit, ctx: release.wait(10) and None)
        job_id = await self.submit(dummy())
        await self.reaches(job_id, "running")
        idle = self.executor.when_idle()
        idle.addCallback(lambda _: self.queue.jobs[job_id].status)
        release.set()
        self.assertEqual(await idle, "success")


class PriorityTests(ExecutionScene):
    """Ageing."""

    async def test_aged(self) -> None:
        """A job that became more urgent by waiting shows it."""
        release, _, waiter = await holder_and_waiter(self)
        self.executor.aged(waiter, -1)
        self.assertEqual(self.queue.jobs[waiter].priority, -1)
        release.set()
        await self.ends(waiter)
