"""A wait in an opcode's thread that gives the job's slot to others."""

from __future__ import annotations

import threading
from typing import Any

from ganeti_masterd.execution.phases import Phase
from ganeti_masterd.logical_units.context import Context
from tests.execution.scene import ExecutionScene, dummy


class SlotTests(ExecutionScene):
    """One slot, a job that waits without it, and others."""

    limit = 1

    def waiting_unit(self) -> None:
        """Makes OP_TEST_DUMMY wait without a slot until :attr:`go`, if its ``result`` is "wait"."""
        self.waits, self.go, self.went = (threading.Event() for _ in range(3))
        self.addCleanup(self.go.set)
        test = self

        def exec_(self: Any, ctx: Context) -> None:
            if self.op.result == "wait":
                with ctx.without_slot():
                    test.waits.set()
                    test.go.wait()
                test.went.set()

        self.unit(exec=exec_)

    async def waiting_job(self) -> int:
        """Returns a job that waits without its slot."""
        self.waiting_unit()
        job_id = await self.submit(dummy(result="wait"))
        await self.until(self.waits)
        return job_id

    async def slot_is_taken(self, waiting: int) -> tuple[int, threading.Event]:
        """Lets another job hold the slot that the job that waits wants back.

        Returns the other job's id, and what ends that job.
        """
        holds, release = threading.Event(), threading.Event()
        self.addCleanup(release.set)

        def exec_(self: Any, ctx: Context) -> None:
            holds.set()
            release.wait()

        self.unit(exec=exec_)
        other = await self.submit(dummy())
        await self.until(holds)
        self.go.set()
        while self.executor._runs[waiting].phase is not Phase.RECLAIMING:
            await self.tick()
        return other, release

    async def test_others_run(self) -> None:
        """Others take the slot and a thread; the job that waits stays running, and ends well."""
        waiting = await self.waiting_job()
        for _ in range(3):
            self.assertEqual((await self.run_job(dummy(result="other"))).status, "success")
        self.assertEqual(self.queue.jobs[waiting].status, "running")
        self.go.set()
        self.assertEqual((await self.ends(waiting)).status, "success")
        self.assertEqual(self.threads.limit, 1)
        self.assertEqual(self.queue.scheduler.running | self.queue.scheduler.blocked, set())

    async def test_waits_for_a_slot(self) -> None:
        """At the end of its wait the job takes its turn; no more than the limit run on."""
        waiting = await self.waiting_job()
        other, release = await self.slot_is_taken(waiting)
        self.assertFalse(self.went.is_set())
        release.set()
        self.assertEqual((await self.ends(other)).status, "success")
        self.assertEqual((await self.ends(waiting)).status, "success")
        self.assertEqual(self.threads.limit, 1)

    async def test_killed_while_it_wants_a_slot(self) -> None:
        """A kill doesn't leave it waiting for one."""
        waiting = await self.waiting_job()
        other, release = await self.slot_is_taken(waiting)
        self.assertTrue(self.executor.kill(waiting))
        self.assertEqual((await self.ends(waiting)).status, "error")
        self.assertFalse(self.went.is_set())
        self.assertIn(other, self.queue.scheduler.running)
        release.set()
        await self.ends(other)
        self.assertEqual(self.threads.limit, 1)

    async def test_a_stop_lets_it_end(self) -> None:
        """A stop that waits for running jobs gives slots to those that want theirs back."""
        waiting = await self.waiting_job()
        self.queue.closing = True
        self.executor.give_up_waiting()
        self.go.set()
        self.assertEqual((await self.ends(waiting)).status, "success")
        await self.executor.when_idle()

    async def test_fails_without_slot(self) -> None:
        """An error inside the wait ends the job; its thread and its slot are others' again."""

        def exec_(self: Any, ctx: Context) -> None:
            with ctx.without_slot():
                raise RuntimeError("broken")

        self.unit(exec=exec_)
        self.assertEqual((await self.run_job(dummy())).status, "error")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.threads.limit, 1)
        self.waiting_unit()
        self.assertEqual((await self.run_job(dummy(result="other"))).status, "success")

    async def test_a_new_limit(self) -> None:
        """A limit that changes meanwhile holds for those that run; the lent thread is apart."""
        waiting = await self.waiting_job()
        self.executor.set_limit(2)
        self.assertEqual(self.threads.limit, 3)
        self.go.set()
        await self.ends(waiting)
        self.assertEqual(self.threads.limit, 2)
