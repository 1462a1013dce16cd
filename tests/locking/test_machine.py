"""The lock table, driven at random against a model that is obviously right."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Set
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import LockError
from ganeti_masterd.locking.decisions import Failed, Granted, NotEnough, Outcome, Waiting
from ganeti_masterd.locking.levels import BGL, Level, Mode, Wanted
from ganeti_masterd.locking.table import LockTable
from tests.locking.model import Model, Refused, Wish

NAMES = ["a", "b", "c", "d"]
LEVELS = [Level.INSTANCE, Level.NODE]

owners = st.integers(1, 7)
levels = st.sampled_from(LEVELS)
any_level = st.sampled_from([Level.CLUSTER, *LEVELS])
names = st.sampled_from(NAMES)
name_sets = st.frozensets(names, max_size=3)
priorities = st.sampled_from([-1, 0, 0, 0, 1])
modes = st.sampled_from(Mode)


class LockMachine(RuleBasedStateMachine):
    """Does the same to both tables and compares everything that can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LockTable()
        self.model = Model()
        self.now = 0.0

    @initialize(present=st.sampled_from([NAMES, NAMES[:2]]), entered=st.integers(0, 7))
    def begin(self, present: list[str], entered: int) -> None:
        for level in LEVELS:
            self.table.add(level, present)
            self.model.members[level].update(present)
        for owner in range(1, 8 if entered > 1 else 4):
            self.ask(owner, Level.CLUSTER, Wanted(Mode.SHARED, frozenset({BGL})), 0)

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
        self, outcomes: list[Outcome], expected: list[Any], failed: Set[int] = frozenset()
    ) -> None:
        granted = [each for each in outcomes if isinstance(each, Granted)]
        assert {(each.owner, each.names) for each in granted} == set(expected)
        assert {each.owner for each in outcomes if isinstance(each, Failed)} == failed
        assert len(outcomes) == len(expected) + len(failed)

    def ask(self, owner: int, level: Level, wanted: Wanted, priority: int) -> None:
        alone = wanted.mode is Mode.EXCLUSIVE
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

    @rule(owner=owners, mode=modes, priority=priorities)
    def enter(self, owner: int, mode: Mode, priority: int) -> None:
        self.ask(owner, Level.CLUSTER, Wanted(mode, frozenset({BGL})), priority)

    @rule(owner=owners, level=levels, wish=name_sets, mode=modes, priority=priorities)
    def by_name(
        self, owner: int, level: Level, wish: frozenset[str], mode: Mode, priority: int
    ) -> None:
        self.ask(owner, level, Wanted(mode, wish), priority)

    @rule(first=owners, wishes=st.lists(st.tuples(name_sets, modes), min_size=2, max_size=5))
    def many_by_name(self, first: int, wishes: list[tuple[frozenset[str], Mode]]) -> None:
        for place, (wish, mode) in enumerate(wishes):
            self.ask((first + place) % 7 + 1, Level.NODE, Wanted(mode, wish), 0)

    @rule(owner=owners, level=levels, mode=modes, priority=priorities)
    def whole(self, owner: int, level: Level, mode: Mode, priority: int) -> None:
        self.ask(owner, level, Wanted(mode, None), priority)

    @rule(owner=owners, level=levels, wish=name_sets, new=names, priority=priorities)
    def create(
        self, owner: int, level: Level, wish: frozenset[str], new: str, priority: int
    ) -> None:
        wanted = Wanted(Mode.EXCLUSIVE, wish | {new}, frozenset({new}))
        self.ask(owner, level, wanted, priority)

    @rule(
        owner=owners,
        level=any_level,
        wish=st.none() | name_sets,
        mode=modes,
        minimum=st.integers(1, 3),
        priority=priorities,
    )
    def what_is_free(
        self,
        owner: int,
        level: Level,
        wish: frozenset[str] | None,
        mode: Mode,
        minimum: int,
        priority: int,
    ) -> None:
        self.ask(owner, level, Wanted(mode, wish, minimum=minimum), priority)

    @rule(owner=owners)
    def cancel(self, owner: int) -> None:
        self.compare(self.table.cancel(owner), self.model.cancel(owner))

    @rule(owner=owners, priority=priorities)
    def set_priority(self, owner: int, priority: int) -> None:
        self.compare(
            self.table.set_priority(owner, priority, self.now),
            self.model.set_priority(owner, priority, self.now),
        )

    @rule(minutes=st.integers(1, 40))
    def age(self, minutes: int) -> None:
        self.now += 60 * minutes
        changes, outcomes = self.table.age(self.now)
        expected_changes, expected = self.model.age(self.now)
        assert {(each.owner, each.priority) for each in changes} == expected_changes
        self.compare(outcomes, expected)

    @rule(owner=owners, level=any_level, keep=st.just(frozenset()) | name_sets)
    def release(self, owner: int, level: Level, keep: frozenset[str]) -> None:
        outcomes, expected = self.both(
            lambda: self.table.release(owner, level, keep),
            lambda: self.model.release(owner, level, keep),
        )
        if outcomes is not None:
            self.compare(outcomes, expected)

    @rule(owner=owners)
    def release_all(self, owner: int) -> None:
        # The order of grants differs by level only; who gets what doesn't.
        self.compare(self.table.release_all(owner), self.model.release_all(owner))

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
            assert all(name in str(each.error) for each in outcomes if isinstance(each, Failed))

    @invariant()
    def same_holders(self) -> None:
        for owner in range(1, 8):
            for level in [Level.CLUSTER, *LEVELS]:
                held = self.model.holds(owner, level)
                assert self.table.owned(owner, level) == (held.names() if held else set())
                assert self.table.owned_alone(owner, level) == (held.alone() if held else set())

    @invariant()
    def holders_exclude_each_other(self) -> None:
        for level in [Level.CLUSTER, *LEVELS]:
            for owner in range(1, 8):
                alone = self.table.owned_alone(owner, level)
                for other in range(1, 8):
                    assert other == owner or not alone & self.table.owned(other, level)

    @invariant()
    def same_waiters(self) -> None:
        for owner in range(1, 8):
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
                assert state.mode is (Mode.EXCLUSIVE if alone else Mode.SHARED)
            assert (owner in seen[level, None].owners) == (held.whole is not None)
        for wish in self.model.waiting:
            places = {it.owner: it.place for it in self.model.waiting}
            awaited: Collection[str | None] = [None] if wish.names is None else wish.names
            for lock in awaited:
                pending = [who for _, group in seen[wish.level, lock].pending for who in group]
                assert wish.owner in pending
                assert pending == sorted(pending, key=places.__getitem__)

    def teardown(self) -> None:
        for owner in range(1, 8):
            self.table.release_all(owner)
        assert list(self.table.states()) == []
        assert self.table.waiting == 0
        assert not self.table._owners
        for lockset in self.table._levels:
            assert not lockset.locks
            assert not lockset._groups
            assert (lockset._held, lockset._held_alone) == (0, 0)
            assert not lockset._named_alone
            assert not lockset._named_shared
            assert lockset.whole.idle


class MachineTests(SynchronousTestCase):
    """The table does what the model does."""

    def test_table_against_model(self) -> None:
        """Any sequence of operations leaves both tables the same."""
        soak = bool(os.environ.get("GANETI_MASTERD_SOAK"))
        run_state_machine_as_test(
            LockMachine,
            settings=settings(
                max_examples=3000 if soak else 250,
                stateful_step_count=60,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
