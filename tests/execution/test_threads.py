"""The threads of opcodes: how many there are, what they run, and that they end."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from threading import Event, Thread, current_thread
from typing import Any, cast
from unittest.mock import patch

from twisted.internet.defer import gatherResults
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from ganeti_masterd.execution.threads import OpcodeThreads

#: Seconds after which something that another thread does is given up.
PATIENCE = 20


class Gate:
    """A call that blocks until it may go, and tells when it began."""

    def __init__(self) -> None:
        self.began = Event()
        self.may_go = Event()

    def __call__(self) -> Thread:
        self.began.set()
        self.may_go.wait(PATIENCE)
        return current_thread()


class OpcodeThreadsTest(TestCase):
    """Threads that run what they are given."""

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251 - real threads need a real one

        self.reactor: Any = reactor
        self.threads = OpcodeThreads(2)
        self.threads.start()
        self.addCleanup(self.threads.stop)

    def deferred(self, threads: OpcodeThreads, function: Callable[..., Any], *args: Any) -> Any:
        """Runs something in some threads."""
        return deferToThreadPool(self.reactor, cast(ThreadPool, threads), function, *args)

    def run_in(self, function: Callable[..., Any], *args: Any) -> Any:
        """Runs something in the test's threads."""
        return self.deferred(self.threads, function, *args)

    def gates(self, count: int) -> list[Gate]:
        """Makes calls that block, which the end of the test lets go."""
        gates = [Gate() for _ in range(count)]
        for gate in gates:
            self.addCleanup(gate.may_go.set)
        return gates

    async def test_result(self) -> None:
        """The result comes by Deferred; the call ran in another thread."""
        ran: list[Thread] = []

        def double(value: int) -> int:
            ran.append(current_thread())
            return 2 * value

        self.assertEqual(await self.run_in(double, 21), 42)
        self.assertNotIn(current_thread(), ran)

    async def test_failure(self) -> None:
        """What a call raises comes as failure, even what isn't an Exception; threads live on."""
        for error in (ZeroDivisionError, SystemExit):

            def fail(error: type[BaseException] = error) -> None:
                raise error("so")

            await self.assertFailure(self.run_in(fail), error)
        self.assertEqual(await self.run_in(len, "abc"), 3)
        self.assertEqual(self.threads.busy, 0)

    async def test_no_more_than_the_limit(self) -> None:
        """A third call waits for one of two threads, and runs in it."""
        first, second, third = gates = self.gates(3)
        done = [self.run_in(gate) for gate in gates]
        self.assertTrue(first.began.wait(PATIENCE))
        self.assertTrue(second.began.wait(PATIENCE))
        self.assertEqual((self.threads.busy, self.threads.limit), (2, 2))
        self.assertFalse(third.began.is_set())
        second.may_go.set()
        self.assertTrue(third.began.wait(PATIENCE))
        third.may_go.set()
        first.may_go.set()
        ran = await gatherResults(done)
        self.assertIs(ran[2], ran[1])
        self.assertEqual(self.threads.busy, 0)

    async def test_thread_made_once(self) -> None:
        """One call after another takes one thread."""
        ran = {await self.run_in(current_thread) for _ in range(20)}
        self.assertEqual(len(ran), 1)

    async def test_higher_limit(self) -> None:
        """What waits for a thread begins as the limit is raised."""
        gates = self.gates(3)
        done = [self.run_in(gate) for gate in gates]
        self.threads.set_limit(3)
        for gate in gates:
            self.assertTrue(gate.began.wait(PATIENCE))
        self.assertEqual(self.threads.busy, 3)
        for gate in gates:
            gate.may_go.set()
        await gatherResults(done)

    async def test_lower_limit(self) -> None:
        """Threads too many end once they are free; later calls get one at a time."""
        gates = self.gates(2)
        done = [self.run_in(gate) for gate in gates]
        for gate in gates:
            self.assertTrue(gate.began.wait(PATIENCE))
        self.threads.set_limit(1)
        for gate in gates:
            gate.may_go.set()
        first, second = await gatherResults(done)
        later = self.gates(2)
        done = [self.run_in(gate) for gate in later]
        self.assertTrue(later[0].began.wait(PATIENCE))
        self.assertEqual(self.threads.busy, 1)
        for gate in later:
            gate.may_go.set()
        (stays,) = set(await gatherResults(done))
        (goes,) = {first, second} - {stays}
        goes.join(PATIENCE)
        self.assertEqual((goes.is_alive(), stays.is_alive()), (False, True))

    async def test_before_the_start(self) -> None:
        """What is handed in before the start runs then."""
        early = OpcodeThreads(1)
        self.addCleanup(early.stop)
        done = self.deferred(early, len, "abcd")
        self.assertEqual(early.busy, 0)
        early.start()
        self.assertEqual(await done, 4)

    async def test_stop_lets_calls_end(self) -> None:
        """A stop waits for what runs and for what waits; then no thread is left."""
        threads = OpcodeThreads(1)
        threads.start()
        done = [self.deferred(threads, current_thread) for _ in range(5)]
        threads.stop()
        ran = set(await gatherResults(done))
        self.assertEqual([thread.is_alive() for thread in ran], [False])

    async def test_nothing_of_a_call_is_kept(self) -> None:
        """A thread that waits holds neither the call's arguments nor its result."""

        class Big:
            pass

        big = Big()
        seen = weakref.ref(big)
        self.assertIsNone(await self.run_in(lambda big: None, big))
        del big
        await self.run_in(len, "")
        gc.collect()
        self.assertIsNone(seen())

    async def test_end_that_cannot_be_told(self) -> None:
        """A callback that raises is logged, and its thread goes on."""

        def told(good: bool, result: Any) -> None:
            raise LookupError("nobody there")

        self.threads.callInThreadWithCallback(told, len, "")
        self.assertEqual(await self.run_in(len, "abc"), 3)
        self.threads.stop()
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    async def test_no_thread_to_be_had(self) -> None:
        """Where the system has no more threads, calls wait for those that there are."""
        self.assertEqual(await self.run_in(len, "abc"), 3)
        (gate,) = self.gates(1)
        blocked = self.run_in(gate)
        self.assertTrue(gate.began.wait(PATIENCE))
        with patch.object(Thread, "start", side_effect=RuntimeError("can't start new thread")):
            waiting = self.run_in(len, "ab")
        gate.may_go.set()
        await blocked
        self.assertEqual(await waiting, 2)
