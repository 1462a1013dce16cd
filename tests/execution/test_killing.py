"""A kill, wherever the job is: it ends at once, and leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.execution import run
from ganeti_masterd.execution.killing import KillSwitch, Stretch
from ganeti_masterd.execution.phases import Phase
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.opcodes import Opcode, decode_opcode
from ganeti_masterd.rpc.calls import TEST_DELAY, VERSION
from ganeti_masterd.rpc.interfaces import CallAbandoned
from ganeti_masterd.simulation.faults import SimulatedFault
from tests.execution.scene import ExecutionScene, dummy

#: Seconds of a wait that nothing but the kill ends in the time of a test.
LONG = 3600.0


class SwitchTests(SynchronousTestCase):
    """The switch alone."""

    def setUp(self) -> None:
        self.warnings: list[str] = []
        self.kills = KillSwitch(7, self.warnings.append)

    def test_not_killed(self) -> None:
        """Without a kill all goes as if it weren't there."""
        self.assertEqual(self.kills.wait(lambda value: value, 5), 5)
        awaited: Deferred[int] = Deferred()
        done = self.kills.wait(lambda: awaited)
        self.assertNoResult(done)
        awaited.callback(6)
        self.assertEqual(self.successResultOf(done), 6)
        awaited = Deferred()
        done = self.kills.wait(lambda: awaited)
        awaited.errback(ValueError())
        self.failureResultOf(done, ValueError)

    def test_ends_the_wait(self) -> None:
        """What is awaited is cancelled; the calls still under way are named."""

        def abandon(done: Deferred[Any]) -> None:
            done.errback(CallAbandoned("version", ["node2", "node3"]))

        done = self.kills.wait(lambda: Deferred(abandon))
        self.kills.kill()
        text = "version may still be under way at node2, node3"
        self.assertEqual(self.warnings, [text])
        error = self.failureResultOf(done, JobKilled).value
        self.assertEqual(str(error), f"Job 7 was killed while this opcode ran; {text}")
        self.kills.kill()
        self.assertEqual(len(self.warnings), 1)

    def test_names_calls_below(self) -> None:
        """Also those of a query, which waits for several at once."""

        def abandon(done: Deferred[Any]) -> None:
            done.errback(CallAbandoned("node_info", ["node2"]))

        calls = gatherResults([Deferred(abandon)], consumeErrors=True)
        self.failureResultOf(self._killed(calls), JobKilled)
        self.assertEqual(self.warnings, ["node_info may still be under way at node2"])

    def test_what_can_not_be_cancelled(self) -> None:
        """The wait ends nevertheless; what comes late, good or bad, is dropped."""
        for late in (5, ValueError("late"), CancelledError()):
            self.kills = KillSwitch(7, self.warnings.append)
            inner: Deferred[Any] = Deferred(lambda _: None)
            # One that swallows the cancellation and waits on.
            stubborn: Deferred[Any] = Deferred()
            inner.addErrback(lambda _, on=stubborn: on)
            done = self._killed(inner)
            self.assertIsInstance(self.failureResultOf(done).value, JobKilled)
            if isinstance(late, BaseException):
                stubborn.errback(late)
            else:
                stubborn.callback(late)
        self.assertEqual(self.warnings, [])

    def _killed(self, awaited: Deferred[Any]) -> Deferred[Any]:
        done: Deferred[Any] = self.kills.wait(lambda: awaited)
        self.kills.kill()
        return done

    def test_killed_before(self) -> None:
        """No wait begins any more, and nothing of it."""
        self.kills.kill()
        begun: list[int] = []
        self.assertRaises(JobKilled, self.kills.wait, begun.append, 1)
        self.assertEqual(begun, [])

    def test_given_up(self) -> None:
        """A wait that is cancelled by itself, as when the daemon ends, is no kill."""
        awaited: Deferred[Any] = Deferred()
        done = self.kills.wait(lambda: awaited)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(awaited.called)

    def test_stretch(self) -> None:
        """A stretch runs, or is called off, never both."""
        done: list[int] = []
        first, second = Stretch(done.append, 1), Stretch(done.append, 2)
        self.assertTrue(second.call_off())
        first.run()
        second.run()
        self.assertEqual(done, [1])
        self.assertFalse(first.call_off())


class KillScene(ExecutionScene):
    """One slot, a victim on node2, and a job that waits for both."""

    limit = 1

    def hang(self, procedure: str, node: str | None = None) -> None:
        """From now on calls of a procedure reach nodes that say nothing."""
        self.addCleanup(
            self.nodes.faults.add(SimulatedFault(kind="silent", call=procedure, node=node))
        )

    async def phase(self, job_id: int, phase: Phase) -> None:
        """Waits until a job under way is in a phase."""
        while job_id not in self.executor._runs or self.executor._runs[job_id].phase is not phase:
            await self.tick()

    async def pending(self) -> None:
        """Waits until a thread waits for something."""
        while not len(self.hops):
            await self.tick()

    async def kill(self, job_id: int) -> Job:
        """Kills a job; returns it when it has ended."""
        answer = await self.control.cancel(job_id, kill=True)
        self.assertEqual(answer, (True, f"Job {job_id} is being killed"))
        return await self.ends(job_id)

    async def others_go_on(self) -> None:
        """Nothing of the killed job is left: another gets its slot, its lock and a thread."""
        self.assertEqual((self.locks.rows(), len(self.reservations)), ([], 0))
        self.unit(locks=on_node2, exec=lambda unit, ctx: None)
        self.assertEqual((await self.run_job(dummy())).status, "success")
        await self.executor.when_idle()
        self.assertEqual((self.threads.busy, len(self.hops)), (0, 0))
        self.assertEqual(self.queue.scheduler.running | self.queue.scheduler.blocked, set())


def on_node2(unit: LogicalUnit[Any], level: Level, snapshot: Snapshot) -> WantedLocks:
    """Wants node2 alone."""
    if level is Level.NODE:
        return exclusive(snapshot.node("node2").uuid)
    return LogicalUnit.locks(unit, level, snapshot)


def all_nodes(ctx: Context) -> list[str]:
    """The uuids of all nodes."""
    return sorted(ctx.snapshot().nodes, key=lambda uuid: ctx.snapshot().nodes[uuid].name)


def call(ctx: Context) -> None:
    """Calls all nodes."""
    ctx.call(all_nodes(ctx), VERSION)


def allocate(ctx: Context) -> None:
    """Runs an allocator."""
    ctx.run_allocator("hail", {"request": {}})


def query(ctx: Context) -> None:
    """Asks nodes for what they report."""
    ctx.ask(lambda engine: engine.query("node", ["name", "mfree"]))


def sleep(ctx: Context) -> None:
    """Sleeps."""
    ctx.sleep(LONG)


def long_delay(ctx: Context) -> None:
    """Lets nodes sleep."""
    ctx.call(all_nodes(ctx)[1:], TEST_DELAY, (LONG,))


#: What an opcode waits in, the calls that hang, and what is still under way after a kill.
WAITS: tuple[tuple[Callable[[Context], None], tuple[str, str | None] | None, str], ...] = (
    (call, ("version", "node2"), "version may still be under way at node2"),
    (call, ("version", None), "version may still be under way at node1, node2, node3"),
    (allocate, ("iallocator_runner", None), "iallocator_runner may still be under way at node1"),
    (query, ("node_info", "node3"), "node_info may still be under way at node3"),
    (sleep, None, ""),
    (long_delay, None, "test_delay may still be under way at node2, node3"),
)


class RunningTests(KillScene):
    """While the opcode runs."""

    async def test_waits(self) -> None:
        """A kill ends every wait of an opcode at once, and names the calls that may go on."""
        for waiting, hangs, under_way in WAITS:
            with self.subTest(waiting.__name__):
                take_back = (
                    self.nodes.faults.add(
                        SimulatedFault(kind="silent", call=hangs[0], node=hangs[1])
                    )
                    if hangs
                    else lambda: None
                )

                def execute(unit: Any, ctx: Context, waiting: Any = waiting) -> None:
                    ctx.new_mac()
                    waiting(ctx)

                self.unit(locks=on_node2, exec=execute)
                victim = await self.submit(dummy(), dummy())
                await self.pending()
                waiter = await self.submit(dummy())
                job = await self.kill(victim)
                self.assertEqual([op.status for op in job.ops], ["error", "error"])
                text = f"Job {victim} was killed while this opcode ran"
                text += f"; {under_way}" if under_way else ""
                self.assertEqual(job.ops[0].result, ["OpExecError", [text]])
                line = [f" - WARNING: The job is killed; {under_way}"] if under_way else []
                self.assertEqual(self.messages(job), line)
                # The next one waits for the same, as it had slot and lock at once.
                while self.executor.under_way() != [waiter] or not len(self.hops):
                    await self.tick()
                await self.kill(waiter)
                take_back()
                await self.others_go_on()

    async def test_hooks_before(self) -> None:
        """Hooks before the opcode are no longer waited for, and it isn't begun."""
        self.hang("hooks_runner")
        began: list[int] = []

        class Hooked(LogicalUnit[Any]):
            def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
                return HookNodes((snapshot.master.uuid,), ())

            def exec(self, ctx: Context) -> None:
                began.append(ctx.job_id)

        self.patch_unit("OP_GROUP_RENAME", Hooked)
        job_id = await self.submit(rename())
        await self.pending()
        job = await self.kill(job_id)
        self.assertIn("hooks_runner may still be under way at node1", job.ops[0].result[1][0])
        self.assertEqual(began, [])
        await self.others_go_on()

    async def test_after_a_change(self) -> None:
        """What was changed stays; the hooks that follow a change run without being waited for."""
        self.hang("version")
        self.hang("hooks_runner")
        called = self._note_calls()

        def execute(unit: Any, ctx: Context) -> None:
            ctx.change(ctx.snapshot().master.uuid, lambda node: node.with_tags(["x"]))
            call(ctx)

        self.unit(exec=execute)
        job_id = await self.submit(dummy())
        while "version" not in called:
            await self.tick()
        await self.kill(job_id)
        self.assertEqual(self.store.snapshot.master.tags, ("x",))
        while "hooks_runner" not in called:
            await self.tick()
        await self.others_go_on()

    def _note_calls(self) -> list[str]:
        called: list[str] = []
        before = self.nodes.call

        def note(targets: Any, procedure: str, *args: Any, **named: Any) -> Any:
            called.append(procedure)
            return before(targets, procedure, *args, **named)

        self.patch(self.nodes, "call", note)
        return called

    async def test_commit_is_not_broken_off(self) -> None:
        """A change that is on its way to the disk happens once, and its opcode learns of it."""
        seen: list[tuple[str, ...]] = []

        def execute(unit: Any, ctx: Context) -> None:
            entered.wait(10)
            changed = ctx.change(ctx.snapshot().master.uuid, lambda node: node.with_tags(["x"]))
            seen.append(changed.tags)
            call(ctx)

        entered = threading.Event()
        self.unit(exec=execute)
        job_id = await self.submit(dummy())
        await self.reaches(job_id, "running")
        self.journal.held = True
        entered.set()
        await self.pending()
        self.assertTrue((await self.control.cancel(job_id, kill=True))[0])
        await self.tick()
        self.assertEqual((seen, len(self.hops)), ([], 1))
        self.journal.held = False
        self.journal.release()
        self.assertEqual((await self.ends(job_id)).status, "error")
        self.assertEqual(seen, [("x",)])
        await self.others_go_on()

    async def test_undo(self) -> None:
        """Undo calls run after a kill, and are waited for."""
        self.hang("version")
        undone: list[Any] = []

        def execute(unit: Any, ctx: Context) -> None:
            try:
                call(ctx)
            except BaseException:
                with ctx.shielded():
                    answers = ctx.call(all_nodes(ctx), TEST_DELAY, (0.02,))
                    undone.extend(answer.error for answer in answers.values())
                raise

        self.unit(locks=on_node2, exec=execute)
        job_id = await self.submit(dummy())
        await self.pending()
        job = await self.kill(job_id)
        self.assertEqual(undone, [None] * 3)
        self.assertIn("version may still be under way", job.ops[0].result[1][0])
        await self.others_go_on()

    async def test_whole(self) -> None:
        """A call that must not be broken off is waited for; the kill acts after it."""
        entered, told = threading.Event(), []
        whole = replace(TEST_DELAY, whole=True)

        def execute(unit: Any, ctx: Context) -> None:
            entered.set()
            answers = ctx.call(all_nodes(ctx)[:2], whole, (0.2,))
            told.extend(answer.error for answer in answers.values())
            answer = ctx.call_one(all_nodes(ctx)[0], whole, (0.01,))
            told.append(answer.error)

        self.unit(locks=on_node2, exec=execute)
        job_id = await self.submit(dummy())
        await self.pending()
        job = await self.kill(job_id)
        self.assertTrue(entered.is_set())
        self.assertEqual((job.status, told), ("error", [None, None]))
        self.assertNotIn("under way", job.ops[0].result[1][0])
        await self.others_go_on()

    async def test_undo_that_hangs(self) -> None:
        """A shielded call that hangs ends with its time, and the job with it."""
        self.hang("version")
        texts: list[Any] = []

        def execute(unit: Any, ctx: Context) -> None:
            with ctx.shielded():
                answers = ctx.call(all_nodes(ctx)[:1], VERSION, timeout=0.1)
                texts.extend(answer.error for answer in answers.values())
            ctx.checkpoint()

        self.unit(locks=on_node2, exec=execute)
        job_id = await self.submit(dummy())
        await self.pending()
        job = await self.kill(job_id)
        self.assertEqual(job.status, "error")
        self.assertRegex(texts.pop(), "^Node .+ gave no answer within 0.1 seconds$")
        await self.others_go_on()

    async def test_lacks_resources(self) -> None:
        """Killed as it is about to wait for resources, the job ends instead."""
        self.patch(run, "RESOURCES_PAUSE", LONG)
        entered, release = threading.Event(), threading.Event()

        def lacking(unit: Any, ctx: Context) -> None:
            entered.set()
            release.wait(10)
            raise OpPrereqError("not enough", "temp_insufficient_resources")

        self.unit(check=lacking, waits_for_resources=True)
        job_id = await self.submit(dummy())
        await self.until(entered)
        self.assertTrue((await self.control.cancel(job_id, kill=True))[0])
        release.set()
        self.assertEqual((await self.ends(job_id)).status, "error")
        await self.others_go_on()

    async def test_between_opcodes(self) -> None:
        """While an opcode's success is recorded it counts; the next one isn't begun."""
        begun: list[str] = []
        entered = threading.Event()
        self.unit(
            locks=on_node2,
            expand=lambda unit, snapshot: begun.append(unit.op.messages),
            exec=lambda unit, ctx: entered.wait(10) and None,
        )
        job_id = await self.submit(dummy(messages="first"), dummy(messages="second"))
        await self.reaches(job_id, "running")
        self.journal.held = True
        entered.set()
        while not self.journal._pending:
            await self.tick()
        self.assertTrue((await self.control.cancel(job_id, kill=True))[0])
        self.journal.held = False
        self.journal.release()
        job = await self.ends(job_id)
        self.assertEqual([op.status for op in job.ops], ["success", "error"])
        self.assertEqual(job.ops[1].result[0], "OpExecError")
        self.assertEqual(set(begun), {"first"})
        await self.others_go_on()

    async def test_too_late(self) -> None:
        """While the last opcode's result is recorded there is nothing to kill: it counts."""
        entered = threading.Event()
        self.unit(exec=lambda unit, ctx: entered.wait(10) and None)
        job_id = await self.submit(dummy())
        await self.reaches(job_id, "running")
        self.journal.held = True
        entered.set()
        await self.phase(job_id, Phase.ENDED)
        done, text = await self.control.cancel(job_id, kill=True)
        self.assertEqual((done, text), (False, f"Job {job_id} not found in queue"))
        self.journal.held = False
        self.journal.release()
        self.assertEqual((await self.ends(job_id)).status, "success")
        await self.others_go_on()

    async def test_without_a_thread(self) -> None:
        """A job that waits for a thread, as fewer are allowed now, ends without one."""
        self.executor.set_limit(2)
        release = threading.Event()
        ran: list[str] = []

        def execute(unit: Any, ctx: Context) -> None:
            ran.append(unit.op.messages)
            release.wait(10)

        self.unit(exec=execute)
        holder = await self.submit(dummy(messages="holder"))
        await self.reaches(holder, "running")
        while ran != ["holder"]:
            await self.tick()
        self.threads.set_limit(1)
        victim = await self.submit(dummy(messages="victim"))
        await self.phase(victim, Phase.RUNNING)
        self.assertEqual((await self.kill(victim)).status, "error")
        release.set()
        self.assertEqual((await self.ends(holder)).status, "success")
        await self.others_go_on()
        self.assertEqual(ran, ["holder"])


class WaitingTests(KillScene):
    """Before the opcode runs."""

    async def cancelled(self, job_id: int) -> None:
        """A job that has not begun is cancelled by a kill, at once."""
        answer = await self.control.cancel(job_id, kill=True)
        self.assertEqual(answer, (True, "Job successfully cancelled"))
        self.assertEqual(self.queue.jobs[job_id].status, "canceled")

    async def test_preparing(self) -> None:
        """What a job waits for before it has locks ends."""
        for prepare, hangs in ((sleep, ""), (call, "version")):
            take_back = self.nodes.faults.add(SimulatedFault(kind="silent", call=hangs or "-"))
            self.unit(
                prepares=True,
                prepare=lambda unit, ctx, prepare=prepare: prepare(ctx),
                exec=lambda *args: None,
            )
            job_id = await self.submit(dummy())
            await self.pending()
            self.assertEqual((await self.kill(job_id)).status, "canceled")
            take_back()
            await self.others_go_on()

    async def test_preparing_and_cancelled(self) -> None:
        """So it does for a cancel that is no kill."""
        self.unit(prepares=True, prepare=lambda unit, ctx: sleep(ctx), exec=lambda *args: None)
        job_id = await self.submit(dummy())
        await self.pending()
        self.assertFalse((await self.control.cancel(job_id))[0])
        self.assertEqual((await self.ends(job_id)).status, "canceled")
        await self.others_go_on()

    async def blocked(self) -> tuple[int, int]:
        """Submits a job that sleeps on node2, and one that waits for that lock."""
        self.unit(locks=on_node2, exec=lambda unit, ctx: sleep(ctx))
        self.executor.set_limit(2)
        holder, waiter = await self.submit(dummy()), await self.submit(dummy())
        await self.phase(waiter, Phase.BLOCKED)
        return holder, waiter

    async def test_blocked(self) -> None:
        """The wait for a lock ends."""
        holder, waiter = await self.blocked()
        await self.cancelled(waiter)
        await self.kill(holder)
        await self.others_go_on()

    async def granted(self) -> tuple[int, int]:
        """Makes a job that has its lock and waits for a slot, which another has."""
        holder, waiter = await self.blocked()
        # Of the slots, one is left when the holder has ended, and it is taken.
        self.executor.set_limit(1)
        self.queue.scheduler.running.add(0)
        self.executor.kill(holder)
        await self.phase(waiter, Phase.GRANTED)
        await self.ends(holder)
        return holder, waiter

    async def test_granted(self) -> None:
        """The wait for a slot ends, and the lock is free."""
        _, waiter = await self.granted()
        await self.cancelled(waiter)
        self.queue.scheduler.running.discard(0)
        await self.others_go_on()

    async def lacking(self) -> int:
        """Submits a job that waits for resources; returns its id."""

        def check(unit: Any, ctx: Context) -> None:
            ctx.new_mac()
            raise OpPrereqError("not enough", "temp_insufficient_resources")

        self.unit(locks=on_node2, check=check, exec=lambda *args: None, waits_for_resources=True)
        job_id = await self.submit(dummy())
        await self.phase(job_id, Phase.BLOCKED)
        return job_id

    async def test_waiting_for_resources(self) -> None:
        """The wait for resources ends."""
        await self.cancelled(await self.lacking())
        await self.others_go_on()

    async def test_resuming(self) -> None:
        """The wait for a slot after that ends, too, also because the daemon stops."""
        self.patch(run, "RESOURCES_PAUSE", 0.01)
        for stop in (False, True):
            job_id = await self.lacking()
            self.queue.scheduler.running.add(0)
            await self.phase(job_id, Phase.RESUMING)
            if stop:
                self.executor.give_up_waiting()
                self.assertEqual((len(self.executor), self.locks.rows()), (0, []))
            else:
                await self.cancelled(job_id)
            self.queue.scheduler.running.discard(0)
            await self.others_go_on()

    async def test_starting(self) -> None:
        """While its start is recorded a job is killed, and its opcode doesn't run."""
        ran: list[int] = []
        self.unit(locks=on_node2, exec=lambda unit, ctx: ran.append(ctx.job_id))
        job_id = await self.starting()
        self.journal.held = False
        self.journal.release()
        job = await self.ends(job_id)
        self.assertEqual((job.status, ran), ("error", []))
        self.assertIn("killed", job.ops[0].result[1][0])
        await self.others_go_on()

    async def test_start_that_can_not_be_recorded(self) -> None:
        """Nor does it run if the disk refuses: it isn't tried again."""
        ran: list[int] = []
        self.unit(locks=on_node2, exec=lambda unit, ctx: ran.append(ctx.job_id))
        job_id = await self.starting()
        self.journal.fail()
        self.journal.held = False
        self.journal.release()
        self.assertEqual(((await self.ends(job_id)).status, ran), ("error", []))
        await self.others_go_on()

    async def starting(self) -> int:
        """Kills a job whose start is being recorded; returns its id."""
        self.queue.runner = None
        job_id = await self.submit(dummy())
        self.journal.held = True
        self.queue.run_with(self.executor)
        await self.phase(job_id, Phase.STARTING)
        answer = await self.control.cancel(job_id, kill=True)
        self.assertEqual(answer, (True, f"Job {job_id} is being killed"))
        return job_id

    async def test_waits_for_the_disk(self) -> None:
        """A job that waited for a lock and couldn't be begun is begun later, or cancelled."""
        self.patch(run, "DISK_PAUSE", 0.05)
        for cancel in (False, True):
            _, waiter = await self.granted()
            self.unit(locks=on_node2, exec=lambda unit, ctx: None)
            self.journal.held = True
            self.queue.scheduler.running.discard(0)
            self.queue.wake()
            await self.phase(waiter, Phase.STARTING)
            self.journal.fail()
            self.journal.held = False
            if cancel:
                answer = await self.control.cancel(waiter, kill=True)
                self.assertEqual(answer, (True, f"Dequeued job {waiter}"))
                self.assertEqual(self.queue.jobs[waiter].status, "canceled")
            else:
                self.assertEqual((await self.ends(waiter)).status, "success")
            await self.others_go_on()


def rename() -> Opcode:
    """Returns an opcode that has hooks."""
    return decode_opcode({"OP_ID": "OP_GROUP_RENAME", "group_name": "default", "new_name": "other"})
