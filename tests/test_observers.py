"""Observers, and the classes that have some: changes to the list during a call."""

from __future__ import annotations

import errno
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.document import parse
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.events import Committed, Events
from ganeti_masterd.journal.interfaces import IJournal
from ganeti_masterd.observers import Observers
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers
from tests.config.sample import CONTENT, NODE1
from tests.journal.scene import Scene, job

#: Adds an observer; returns the function that removes it.
Add = Callable[[Callable[[], object]], Callable[[], None]]


class Rounds:
    """Tests for every kind of observer: ``add`` adds one, ``call`` calls all."""

    def __init__(self, case: SynchronousTestCase, add: Add, call: Callable[[], object]) -> None:
        self.case = case
        self.add = add
        self.call = call

    def check(self, ends: bool = True) -> None:
        """Runs all tests; without ``ends`` observers can't be removed."""
        heard: list[str] = []
        self.add(lambda: heard.append("first"))
        self.add(lambda: 1 // 0)
        self.add(lambda: self.add(lambda: heard.append("added")))
        if ends:
            ending: list[Callable[[], None]] = []
            ending.append(self.add(lambda: ending[0]()))  # itself
            self.add(lambda: ending[1]())  # another, before its turn
            ending.append(self.add(lambda: heard.append("taken away")))
        self.add(lambda: heard.append("last"))
        self.call()
        self.case.assertEqual(heard, ["first", "last"])
        self.call()
        self.case.assertEqual(heard, ["first", "last"] * 2 + ["added"])
        self.case.assertEqual(len(self.case.flushLoggedErrors(ZeroDivisionError)), 2)


class KindTests(SynchronousTestCase):
    """The classes that have observers."""

    def test_observers(self) -> None:
        """The class Observers itself."""
        observers: Observers[[]] = Observers("a test")
        Rounds(self, observers.add, observers.call).check()

    def test_events(self) -> None:
        """The bus of events."""
        events = Events()
        Rounds(
            self,
            lambda observer: events.subscribe(Committed, lambda _: observer()),
            lambda: events.publish(Committed(1, 0.1)),
        ).check()

    def test_configuration(self) -> None:
        """Changes of the configuration."""
        store = ConfigStore(parse(CONTENT), MemoryJournal(), Timers(Clock()))
        tags = iter("abc")
        Rounds(
            self,
            lambda observer: store.on_change(lambda before, after: observer()),
            lambda: store.change(NODE1, lambda node: node.with_tags([next(tags)])),
        ).check()

    def test_rollbacks(self) -> None:
        """Rollbacks of the real journal and of the one in memory."""
        scene = Scene()
        journal = scene.open()
        scene.store.fault = OSError(errno.ENOSPC, "No space left on device")

        def real() -> None:
            journal.commit([job(1)]).addErrback(lambda _: None)
            scene.thread.run()

        memory = MemoryJournal(held=True)

        def double() -> None:
            memory.commit([job(1)]).addErrback(lambda _: None)
            memory.fail()

        def adding(journal: IJournal) -> Add:
            def add(observer: Callable[[], object]) -> Callable[[], None]:
                journal.on_rollback(observer)
                return lambda: None

            return add

        Rounds(self, adding(journal), real).check(ends=False)
        Rounds(self, adding(memory), double).check(ends=False)


class ObserversTests(SynchronousTestCase):
    def test_twice(self) -> None:
        """A function added twice is called twice, and each is removed separately."""
        heard: list[int] = []
        observers: Observers[int] = Observers("a test")
        first = observers.add(heard.append)
        observers.add(heard.append)
        observers.call(1)
        first()
        first()
        observers.call(2)
        self.assertEqual((heard, len(observers)), ([1, 1, 2], 1))

    def test_round_in_a_round(self) -> None:
        """A round may start another, which is completed before the first goes on."""
        heard: list[tuple[str, int]] = []
        observers: Observers[int] = Observers("a test")

        def again(depth: int) -> None:
            heard.append(("a", depth))
            if depth < 2:
                observers.call(depth + 1)

        observers.add(again)
        observers.add(lambda depth: heard.append(("b", depth)))
        observers.call(1)
        self.assertEqual(heard, [("a", 1), ("a", 2), ("b", 2), ("b", 1)])

    @given(
        st.lists(
            st.sampled_from(["nothing", "raise", "add", "end self"]) | st.integers(0, 9),
            min_size=1,
            max_size=10,
        )
    )
    def test_any_round(self, plan: list[str | int]) -> None:
        """An observer present as a round begins is called once, unless removed before its turn."""
        observers: Observers[[]] = Observers("a test")
        ends: list[Callable[[], None]] = []
        heard: list[int] = []
        gone: set[int] = set()
        expected: list[int] = []

        def act(number: int) -> None:
            heard.append(number)
            what = plan[number]
            if what == "raise":
                raise ZeroDivisionError
            if what == "add":
                observers.add(lambda: heard.append(99))
            elif what == "end self":
                ends[number]()
            elif isinstance(what, int) and what < len(ends):
                ends[what]()

        for number, what in enumerate(plan):
            ends.append(observers.add(lambda number=number: act(number)))  # type: ignore[misc]
            if number not in gone:
                expected.append(number)
                if isinstance(what, int) and what > number:
                    gone.add(what)
        observers.call()
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual(heard, expected)
