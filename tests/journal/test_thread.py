"""The disk thread: order of work and steps, faults, its end; the real one and the stepped one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from ganeti_masterd.journal.thread import WAITING, DiskThread, IDiskThread
from ganeti_masterd.testing.disk import SteppedThread


class SteppedThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.thread = SteppedThread()
        self.done: list[Any] = []

    def steps(self, count: int) -> Iterator[None]:
        for n in range(count):
            self.done.append(f"step {n}")
            yield

    def work(self, name: str) -> None:
        self.thread.do(lambda: self.done.append(name), lambda result: None)

    def test_interface(self) -> None:
        """Both threads are disk threads."""
        verifyObject(IDiskThread, self.thread)
        verifyObject(IDiskThread, DiskThread(None))

    def test_nothing_before_start(self) -> None:
        """Work waits for the start."""
        self.work("a")
        self.assertFalse(self.thread.step())
        self.thread.start()
        self.thread.run()
        self.assertEqual(self.done, ["a"])

    def test_work_waits_for_one_step_at_most(self) -> None:
        """Work goes in its order, before the next step of a round under way."""
        self.thread.start()
        self.thread.follow(self.steps(3), lambda result: self.done.append("round"))
        self.thread.step()
        self.thread.step()
        self.work("a")
        self.work("b")
        self.thread.run()
        self.assertEqual(self.done, ["step 0", "a", "b", "step 1", "step 2", "round"])

    def test_hurry(self) -> None:
        """A round that is to hurry has so many steps before the work that comes after."""
        self.thread.start()
        self.thread.hurry(5)
        self.thread.run()
        self.thread.follow(self.steps(4), lambda result: self.done.append("round"))
        self.work("a")
        self.thread.hurry(2)
        self.work("b")
        self.thread.hurry(9)
        self.work("c")
        self.thread.run()
        self.assertEqual(
            self.done, ["a", "step 0", "step 1", "b", "step 2", "step 3", "round", "c"]
        )

    def test_waiting(self) -> None:
        """A round that waits has no step, not even in a hurry, before it may go on; work has."""
        self.thread.start()

        def waits() -> Iterator[object]:
            self.done.append("begun")
            yield WAITING
            self.done.append("gone on")

        self.thread.follow(waits(), lambda result: self.done.append("round"))
        self.thread.stop(lambda result: self.done.append("stopped"))
        self.thread.run()
        self.thread.hurry(5)
        self.work("a")
        self.thread.run()
        self.assertEqual(self.done, ["begun", "a"])
        self.thread.resume()
        self.thread.run()
        self.assertEqual(self.done, ["begun", "a", "gone on", "round", "stopped"])

    def test_resumed_early(self) -> None:
        """A resumption that comes before the wait is no harm: the round looks again itself."""
        self.thread.start()
        self.thread.resume()
        self.thread.follow(iter([WAITING]), lambda result: self.done.append("round"))
        self.thread.run()
        self.assertEqual(self.done, [])
        self.thread.resume()
        self.thread.run()
        self.assertEqual(self.done, ["round"])

    def test_faults(self) -> None:
        """A fault is the answer; the thread goes on."""
        self.thread.start()

        def broken() -> Iterator[None]:
            yield
            raise OSError("full")

        answers: list[Any] = []
        self.thread.do(lambda: 1 // 0, answers.append)
        self.thread.follow(broken(), answers.append)
        self.thread.do(lambda: "fine", answers.append)
        self.thread.run()
        self.assertIsInstance(answers[0].value, ZeroDivisionError)
        self.assertEqual(answers[1], "fine")
        self.assertIsInstance(answers[2].value, OSError)

    def test_stop_after_the_round(self) -> None:
        """Stopping waits for the work and the round that were given before."""
        self.thread.start()
        self.thread.follow(self.steps(2), lambda result: self.done.append("round"))
        self.thread.stop(lambda result: self.done.append("stopped"))
        self.work("a")
        self.thread.run()
        self.assertEqual(self.done, ["a", "step 0", "step 1", "round", "stopped"])
        self.assertFalse(self.thread.step())


class DiskThreadTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        self.thread = DiskThread(reactor)

    def stopped(self) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.thread.stop(done.callback)
        return done

    @inlineCallbacks
    def test_answers_in_the_reactor(self) -> Iterator[Deferred[Any]]:
        """Work runs in the thread, each answer comes in the reactor thread, in order."""
        answers: list[Any] = []

        def answer(result: Any) -> None:
            answers.append((result, threading.current_thread()))

        def steps() -> Iterator[None]:
            yield
            answers.append(("step", threading.current_thread()))

        for n in range(5):
            self.thread.do(lambda n=n: (n, threading.current_thread().name), answer)
        self.thread.follow(steps(), answer)
        self.thread.do(lambda: 1 // 0, answer)
        self.thread.start()
        yield self.stopped()
        here = threading.current_thread()
        values = [result for result, thread in answers if thread is here]
        self.assertEqual(values[:5], [(n, "disk") for n in range(5)])
        self.assertIsInstance(values[5], Failure)
        self.assertIsNone(values[6])
        self.assertEqual([result for result, thread in answers if thread is not here], ["step"])

    @inlineCallbacks
    def test_resumed_from_another_thread(self) -> Iterator[Deferred[Any]]:
        """A round that waits lets the thread sleep, until it is resumed from anywhere."""
        ended: Deferred[Any] = Deferred()
        waiting = threading.Event()

        def waits() -> Iterator[object]:
            waiting.set()
            yield WAITING

        self.thread.follow(waits(), ended.callback)
        self.thread.start()
        self.assertTrue(waiting.wait(20))
        threading.Thread(target=self.thread.resume).start()
        self.assertIsNone((yield ended))
        yield self.stopped()

    @inlineCallbacks
    def test_stop(self) -> Iterator[Deferred[Any]]:
        """When stop answers, the thread is gone."""
        self.thread.start()
        self.assertTrue(self.thread._thread.is_alive())
        yield self.stopped()
        self.assertFalse(self.thread._thread.is_alive())
