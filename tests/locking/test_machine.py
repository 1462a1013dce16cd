"""The lock table, driven at random against a model that is obviously right."""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import LockError
from ganeti_masterd.locking.decisions import Granted, LockFailed, LockOutcome, NotEnough, Waiting
from ganeti_masterd.locking.levels import BGL, Level, LockMode, WantedLocks
from ganeti_masterd.locking.table import LockTable
from tests.examples import examples, run_machine
from tests.locking.model import Model, Refused, Wish

NAMES = ["a", "b", "c", "d"]
LEVELS = [Level.INSTANCE, Level.NODE]

OWNERS = range(1, 8)

owners = st.sampled_from(OWNERS)
picks = st.integers(0, 99)
levels = st.sampled_from(LEVELS)
any_level = st.sampled_from([Level.CLUSTER, *LEVELS])
names = st.sampled_from(NAMES)
name_sets = st.frozensets(names, max_size=3)
wishes = st.frozensets(names, min_size=1, max_size=3)
cluster_lock = st.just(frozenset({BGL}))
priorities = st.sampled_from([-1, 0, 0, 0, 1])
modes = st.sampled_from(LockMode)


class LockMachine(RuleBasedStateMachine):
    """Does the same to both tables and compares everything that can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LockTable()
        self.model = Model()
        self.now = 0.0

    @initialize(present=st.sampled_from([NAMES, NAMES[:2]]))
    def begin(self, present: list[str]) -> None:
        for level in LEVELS:
            self.table.add(level, present)
            self.model.members[level].update(present)
        for owner in OWNERS:
            self.ask(owner, Level.CLUSTER, WantedLocks(LockMode.SHARED, frozenset({BGL})), 0)

    def both(self, real: Callable[[], Any], naive: Callable[[], Any]) -> tuple[Any, Any]:
        """Runs both; they must agree on whether the rules allow it."""
        try:
            expected = naive()
        except Refused:
            with self.assert_refused():
                real()
            return None, None
        return real(), expected

    def assert_refused(self) -> Any:
        return SynchronousTestCase().assertRaises(LockError)

    def compare(
        self, outcomes: list[LockOutcome], expected: list[Any], failed: Set[int] = frozenset()
    ) -> None:
        granted = [each for each in outcomes if isinstance(each, Granted)]
        assert {(each.owner, each.names) for each in granted} == set(expected)
        assert {each.owner for each in outcomes if isinstance(each, LockFailed)} == failed
        assert len(outcomes) == len(expected) + len(failed)

    def ask(self, owner: int, level: Level, wanted: WantedLocks, priority: int) -> None:
        alone = wanted.mode is LockMode.EXCLUSIVE
        wish = Wish(owner, level, wanted.names, wanted.creating, alone, priority, self.now)
        decision, expected = self.both(
            lambda: self.table.request(owner, level, wanted, priority, self.now),
            lambda: self.model.request(wish, wanted.minimum),
        )
        if decision is None:
            return
        mine, others = expected
        assert others == []
        if mine is None:
            assert decision == Waiting(owner, level)
        elif isinstance(mine, int):
            assert decision == NotEnough(owner, level, mine)
        else:
            assert decision == Granted(owner, level, mine)

    # Steps that the rules allow: each picks among the owners that it makes sense for.

    def free_to_ask(self, level: Level) -> list[int]:
        """Owners inside the cluster lock that hold nothing there or below, and don't wait."""
        return [
            owner
            for owner in OWNERS
            if self.model.holds(owner, Level.CLUSTER)
            and not self.model.wish_of(owner)
            and not any(self.model.holds(owner, at) for at in Level if at >= level)
        ]

    def holders(self) -> list[tuple[int, Level]]:
        """Who holds something below the cluster level, and where."""
        return [key for key in sorted(self.model.held) if key[1] is not Level.CLUSTER]

    @rule(steps=st.lists(st.tuples(picks, wishes, modes, priorities), min_size=1, max_size=4))
    def ask_by_name(self, steps: list[tuple[int, frozenset[str], LockMode, int]]) -> None:
        for pick, wish, mode, priority in steps:
            if ready := self.free_to_ask(Level.NODE):
                known = wish & self.model.members[Level.NODE]
                self.ask(ready[pick % len(ready)], Level.NODE, WantedLocks(mode, known), priority)

    @rule(pick=picks, level=levels, mode=modes, priority=priorities)
    def ask_for_the_level(self, pick: int, level: Level, mode: LockMode, priority: int) -> None:
        if ready := self.free_to_ask(level):
            self.ask(ready[pick % len(ready)], level, WantedLocks(mode, None), priority)

    @rule(pick=picks, level=levels, wish=name_sets, new=names, priority=priorities)
    def ask_to_create(
        self, pick: int, level: Level, wish: frozenset[str], new: str, priority: int
    ) -> None:
        if ready := self.free_to_ask(level):
            known = wish & self.model.members[level]
            wanted = WantedLocks(LockMode.EXCLUSIVE, known | {new}, frozenset({new}))
            self.ask(ready[pick % len(ready)], level, wanted, priority)

    @rule(pick=picks, wish=st.none() | name_sets, mode=modes, minimum=st.integers(1, 3))
    def ask_for_what_is_free(
        self, pick: int, wish: frozenset[str] | None, mode: LockMode, minimum: int
    ) -> None:
        if ready := self.free_to_ask(Level.NODE):
            wanted = WantedLocks(mode, wish, minimum=minimum)
            self.ask(ready[pick % len(ready)], Level.NODE, wanted, 0)

    @rule(pick=picks)
    def give_up(self, pick: int) -> None:
        if self.model.waiting:
            self.cancel(self.model.waiting[pick % len(self.model.waiting)].owner)

    @rule(pick=picks, keep=st.just(frozenset()) | name_sets)
    def give_back(self, pick: int, keep: frozenset[str]) -> None:
        if holders := self.holders():
            self.release(*holders[pick % len(holders)], keep)

    @rule(pick=picks, some=st.booleans())
    def share(self, pick: int, some: bool) -> None:
        if holders := self.holders():
            owner, level = holders[pick % len(holders)]
            alone = sorted(self.model.held[owner, level].alone())
            self.downgrade(owner, level, frozenset(alone[:1]) if some else None)

    @rule(pick=picks)
    def unmake(self, pick: int) -> None:
        held = [
            (owner, level, name)
            for owner, level in self.holders()
            for name in sorted(self.model.held[owner, level].alone())
        ]
        if held:
            self.remove(*held[pick % len(held)])

    @rule(pick=picks, priority=priorities)
    def hurry(self, pick: int, priority: int) -> None:
        if self.model.waiting:
            self.set_priority(self.model.waiting[pick % len(self.model.waiting)].owner, priority)

    @rule(minutes=st.integers(1, 40))
    def age(self, minutes: int) -> None:
        self.now += 60 * minutes
        changes, outcomes = self.table.age(self.now)
        expected_changes, expected = self.model.age(self.now)
        assert {(each.owner, each.priority) for each in changes} == expected_changes
        self.compare(outcomes, expected)

    @rule(owner=owners)
    def come_and_go(self, owner: int) -> None:
        self.compare(self.table.release_all(owner), self.model.release_all(owner))
        self.ask(owner, Level.CLUSTER, WantedLocks(LockMode.SHARED, frozenset({BGL})), 0)

    # Any step at all, mostly against the rules.

    @rule(owner=owners, level=any_level, mode=modes, wish=st.none() | wishes | cluster_lock)
    def ask_anything(
        self, owner: int, level: Level, mode: LockMode, wish: frozenset[str] | None
    ) -> None:
        self.ask(owner, level, WantedLocks(mode, wish), 0)

    @rule(owner=owners)
    def cancel(self, owner: int) -> None:
        self.compare(self.table.cancel(owner), self.model.cancel(owner))

    @rule(owner=owners, priority=priorities)
    def set_priority(self, owner: int, priority: int) -> None:
        self.compare(
            self.table.set_priority(owner, priority, self.now),
            self.model.set_priority(owner, priority, self.now),
        )

    @rule(owner=owners, level=any_level, keep=st.just(frozenset()) | name_sets)
    def release(self, owner: int, level: Level, keep: frozenset[str]) -> None:
        outcomes, expected = self.both(
            lambda: self.table.release(owner, level, keep),
            lambda: self.model.release(owner, level, keep),
        )
        if outcomes is not None:
            self.compare(outcomes, expected)

    @rule(owner=owners, level=any_level, chosen=st.none() | name_sets)
    def downgrade(self, owner: int, level: Level, chosen: frozenset[str] | None) -> None:
        outcomes, expected = self.both(
            lambda: self.table.downgrade(owner, level, chosen),
            lambda: self.model.downgrade(owner, level, chosen),
        )
        if outcomes is not None:
            self.compare(outcomes, expected)

    @rule(owner=st.none() | owners, level=any_level, name=names)
    def add(self, owner: int | None, level: Level, name: str) -> None:
        self.both(
            lambda: self.table.add(level, [name], owner),
            lambda: self.model.add(level, name, owner),
        )

    @rule(owner=owners, level=any_level, name=names)
    def remove(self, owner: int, level: Level, name: str) -> None:
        outcomes, expected = self.both(
            lambda: self.table.remove(owner, level, name),
            lambda: self.model.remove(owner, level, name),
        )
        if outcomes is not None:
            failed, granted = expected
            self.compare(outcomes, granted, failed)
            assert all(name in str(each.error) for each in outcomes if isinstance(each, LockFailed))

    @invariant()
    def same_holders(self) -> None:
        for owner in OWNERS:
            for level in [Level.CLUSTER, *LEVELS]:
                held = self.model.holds(owner, level)
                assert self.table.owned(owner, level) == (held.names() if held else set())
                assert self.table.owned_alone(owner, level) == (held.alone() if held else set())

    @invariant()
    def holders_exclude_each_other(self) -> None:
        for level in [Level.CLUSTER, *LEVELS]:
            for owner in OWNERS:
                alone = self.table.owned_alone(owner, level)
                for other in OWNERS:
                    assert other == owner or not alone & self.table.owned(other, level)

    @invariant()
    def same_waiters(self) -> None:
        for owner in OWNERS:
            wish = self.model.wish_of(owner)
            assert self.table.waits(owner) == (wish.level if wish else None)
        assert self.table.waiting == len(self.model.waiting)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        assert not any(self.model.grantable(wish) for wish in self.model.waiting)

    @invariant()
    def same_members(self) -> None:
        for level in [Level.CLUSTER, *LEVELS]:
            assert self.table.members(level) == self.model.members[level]

    @invariant()
    def states_say_so(self) -> None:
        seen = {(state.level, state.name): state for state in self.table.states()}
        for (owner, level), held in self.model.held.items():
            for name, alone in held.named.items():
                state = seen[level, name]
                assert owner in state.owners
                assert state.mode is (LockMode.EXCLUSIVE if alone else LockMode.SHARED)
            assert (owner in seen[level, None].owners) == (held.whole is not None)
        for wish in self.model.waiting:
            places = {it.owner: it.place for it in self.model.waiting}
            awaited: Collection[str | None] = [None] if wish.names is None else wish.names
            for lock in awaited:
                pending = [who for _, group in seen[wish.level, lock].pending for who in group]
                assert wish.owner in pending
                assert pending == sorted(pending, key=places.__getitem__)

    def teardown(self) -> None:
        for owner in OWNERS:
            self.table.release_all(owner)
        assert list(self.table.states()) == []
        assert self.table.waiting == 0
        assert not self.table._owners
        for lockset in self.table._levels:
            assert not lockset.locks
            assert not lockset._groups
            assert (lockset._held, lockset._held_alone) == (0, 0)
            assert not lockset._named_alone
            assert lockset.whole.idle


class MachineTests(SynchronousTestCase):
    """The table does what the model does."""

    def test_table_against_model(self) -> None:
        """Any sequence of operations leaves both tables the same."""
        run_machine(LockMachine, examples(150, 3000), 150)
