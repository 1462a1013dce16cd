"""The store: readers see what is committed, changes build on the tip, a failure drops the tip."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
)
from msgspec.structs import replace
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.changes import Add, Remove, Update
from ganeti_masterd.config.document import apply_rows, encode
from ganeti_masterd.config.objects import Network
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore, Planned
from ganeti_masterd.errors import ConfigurationError, DaemonStopping, JobQueueError
from ganeti_masterd.journal.rows import ConfigRow, JobRow
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.timing import Timers
from tests.examples import run_machine

from .sample import CONTENT, EXAMPLES, INSTANCE1, NODE1, NODE2, sample, uuid


def tagged(*tags: str) -> Any:
    """Returns a function that adds tags."""
    return lambda obj: obj.with_tags(tags)


class ClosedJournal(MemoryJournal):
    """A journal that takes nothing any more."""

    def commit(self, rows: Any, publish: Any = None) -> Deferred[None]:
        return defer.fail(DaemonStopping("the daemon is stopping"))


class Storing(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1800000000.5)
        self.journal = MemoryJournal(held=True)
        self.store = ConfigStore(sample(), self.journal, Timers(self.clock))
        self.seen: list[tuple[Snapshot, Snapshot]] = []
        self.stop = self.store.on_change(lambda before, after: self.seen.append((before, after)))

    def tags(self, uuid: str) -> tuple[str, ...]:
        """Returns the published tags of a node."""
        return self.store.snapshot.nodes[uuid].tags

    def test_published_when_committed(self) -> None:
        """Readers see a change when the journal has it, and observers are told of it then."""
        before = self.store.snapshot
        done = self.store.change(NODE1, tagged("a"))
        self.assertIs(self.store.snapshot, before)
        self.assertEqual(self.store.tip.nodes[NODE1].tags, ("a",))
        self.assertNoResult(done)
        self.journal.release()
        after = self.successResultOf(done)
        self.assertIs(after, self.store.snapshot)
        self.assertEqual(after.nodes[NODE1].tags, ("a",))
        self.assertEqual(after.nodes[NODE1].mtime, 1800000000.5)
        self.assertEqual(self.seen, [(before, after)])

    def test_changes_build_on_each_other(self) -> None:
        """A change sees those that are pending, and none is lost."""
        for tag in "abc":
            self.store.change(NODE1, tagged(tag))
        self.journal.release()
        self.assertEqual(self.tags(NODE1), ("a", "b", "c"))
        self.assertEqual(self.store.snapshot.nodes[NODE1].serial_no, 4)
        self.assertEqual(len(self.seen), 3)

    def test_serial_is_that_of_the_tip(self) -> None:
        """A change that was planned before one that is pending is refused."""
        self.store.change(NODE1, tagged("a"), serial=1)
        late = self.store.change(NODE1, tagged("b"), serial=1)
        self.failureResultOf(late, ConfigurationError)
        self.journal.release()
        self.assertEqual(self.tags(NODE1), ("a",))

    def test_refused_change(self) -> None:
        """A change that is refused fails at once and leaves no trace."""
        self.failureResultOf(self.store.change("nosuch", tagged("a")), ConfigurationError)
        self.failureResultOf(
            self.store.apply([Update(NODE1, tagged("a")), Remove("nodes", "nosuch")]),
            ConfigurationError,
        )
        self.journal.release()
        self.assertEqual(self.journal.rows, [])
        self.assertIs(self.store.tip, self.store.snapshot)

    def test_rollback(self) -> None:
        """When the journal fails, every pending change fails and the tip is what is published."""
        self.store.change(NODE1, tagged("kept"))
        self.journal.release()
        before = self.store.snapshot
        pending = [self.store.change(NODE1, tagged(tag)) for tag in "ab"]
        self.journal.fail()
        for done in pending:
            self.failureResultOf(done, JobQueueError)
        self.assertIs(self.store.snapshot, before)
        self.assertIs(self.store.tip, before)
        self.store.change(NODE1, tagged("c"))
        self.journal.release()
        self.assertEqual(self.tags(NODE1), ("c", "kept"))

    def test_change_made_while_failing(self) -> None:
        """A change that is made as another one fails stays on the tip."""
        again: list[Deferred[Snapshot]] = []
        first = self.store.change(NODE1, tagged("a"))
        first.addErrback(lambda _: again.append(self.store.change(NODE1, tagged("b"))))
        second = self.store.change(NODE1, tagged("c"))
        self.journal.fail()
        self.failureResultOf(second, JobQueueError)
        self.assertEqual(self.store.tip.nodes[NODE1].tags, ("b",))
        self.journal.release()
        self.successResultOf(again[0])
        self.assertEqual(self.tags(NODE1), ("b",))

    def test_closed_journal(self) -> None:
        """A change that a closed journal refuses does not stay on the tip."""
        store = ConfigStore(sample(), ClosedJournal(), Timers(self.clock))
        self.failureResultOf(store.change(NODE1, tagged("a")), DaemonStopping)
        self.assertIs(store.tip, store.snapshot)

    def test_add_and_remove(self) -> None:
        """Objects come and go."""
        self.store.add("networks", Network(name="net", network="192.0.2.0/24", uuid=uuid(1)))
        self.store.remove("instances", INSTANCE1, serial=27)
        self.journal.release()
        self.assertEqual(self.store.snapshot.network("net").uuid, uuid(1))
        self.assertNotIn(INSTANCE1, self.store.snapshot.instances)

    def test_planned_with_other_rows(self) -> None:
        """A plan is committed in one transaction with rows of its caller."""
        planned = self.store.plan([Update(NODE1, tagged("a"))])
        self.assertIsInstance(planned, Planned)
        self.journal.commit([*planned.rows, JobRow(7, b"{}")], planned.publish)
        self.assertEqual(self.tags(NODE1), ())
        self.journal.release()
        self.assertEqual(self.tags(NODE1), ("a",))
        self.assertEqual(len(self.journal.rows), 4)

    def test_withdrawn_plan(self) -> None:
        """A plan that is withdrawn leaves those before it pending."""
        self.store.change(NODE1, tagged("a"))
        self.store.withdraw(self.store.plan([Update(NODE1, tagged("b"))]))
        self.store.withdraw(self.store.plan([Update(NODE1, lambda node: node)]))
        self.journal.release()
        self.assertEqual(self.tags(NODE1), ("a",))
        self.assertIs(self.store.tip, self.store.snapshot)

    def test_nothing_to_change(self) -> None:
        """A change of nothing succeeds in its turn, and tells no one."""
        first = self.store.change(NODE1, tagged("a"))
        nothing = self.store.change(NODE1, lambda node: node)
        self.journal.release()
        self.assertIs(self.successResultOf(nothing), self.successResultOf(first))
        self.assertEqual(len(self.seen), 1)

    def test_observers(self) -> None:
        """An observer that raises is logged and stops no other; one that left hears nothing."""
        self.store.on_change(lambda before, after: 1 // 0)
        heard: list[Snapshot] = []
        self.store.on_change(lambda before, after: heard.append(after))
        self.stop()
        self.store.change(NODE1, tagged("a"))
        self.journal.release()
        self.assertEqual((len(self.seen), len(heard)), (0, 1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_image(self) -> None:
        """The image is of what was published when it was taken."""
        early = self.store.image()
        self.store.change(NODE1, tagged("a"))
        self.assertEqual(self.store.image().encode(), CONTENT)
        self.journal.release()
        self.assertEqual(early.encode(), CONTENT)
        self.assertEqual(self.store.image().encode(), encode(self.store.snapshot))
        self.assertNotEqual(self.store.image().encode(), CONTENT)


class StoreMachine(RuleBasedStateMachine):
    """Random changes, commits and failures; what is durable is what is published."""

    def __init__(self) -> None:
        super().__init__()
        self.journal = MemoryJournal(held=True)
        self.store = ConfigStore(sample(), self.journal, Timers(Clock()))
        self.failures = 0
        self.number = 0

    def ran(self, done: Deferred[Any]) -> None:
        """Takes what a change comes to."""
        done.addErrback(lambda failure: failure.trap(ConfigurationError, JobQueueError))

    @rule(node=st.sampled_from([NODE1, NODE2]), serial=st.none() | st.integers(1, 8))
    def change(self, node: str, serial: int | None) -> None:
        self.number += 1
        self.ran(self.store.change(node, tagged(f"t{self.number}"), serial))

    @rule(number=st.integers(1, 4))
    def add(self, number: int) -> None:
        net = Network(name=f"net{number % 3}", network="192.0.2.0/24", uuid=uuid(number))
        self.ran(self.store.add("networks", net))

    @rule(number=st.integers(1, 4))
    def remove(self, number: int) -> None:
        self.ran(self.store.remove("networks", uuid(number)))

    @rule(number=st.integers(1, 4))
    def several(self, number: int) -> None:
        net = Network(name=f"several{number}", network="192.0.2.0/24", uuid=uuid(10 + number))
        rename = Update(net.uuid, lambda net: replace(net, name=net.name + "x"))
        self.ran(self.store.apply([Add("networks", net), rename, Update(NODE1, tagged("s"))]))

    @rule()
    def release(self) -> None:
        self.journal.release()
        assert self.store.tip is self.store.snapshot

    @rule()
    def fail(self) -> None:
        self.journal.fail()
        assert self.store.tip is self.store.snapshot

    @invariant()
    def durable_is_published(self) -> None:
        rows = [row for row in self.journal.rows if isinstance(row, ConfigRow)]
        assert apply_rows(CONTENT, rows) == self.store.image().encode()

    @invariant()
    def names_are_unique(self) -> None:
        names = [net.name for net in self.store.tip.networks.values()]
        assert len(names) == len(set(names))


class MachineTests(SynchronousTestCase):
    def test_machine(self) -> None:
        """Whatever is changed, committed or refused, the rows and the readers agree."""
        run_machine(StoreMachine, EXAMPLES, 30)
