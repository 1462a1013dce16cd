"""The limit on calls in flight to a node, and their order."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.turns import (
    IN_FLIGHT,
    LONG_IN_FLIGHT,
    URGENT_ROOM,
    Rank,
    Turns,
    rank_of,
)
from tests.examples import examples

EXAMPLES = examples(100, 2000)


class RankTests(SynchronousTestCase):
    def test_ranks(self) -> None:
        """The rank follows from the call's time-out class."""
        expected = {
            "version": Rank.URGENT,
            "jobqueue_update": Rank.URGENT,
            "os_diagnose": Rank.ORDINARY,
            "blockdev_create": Rank.ORDINARY,
            "blockdev_wipe": Rank.LONG,
            "node_ssh_keys_renew": Rank.LONG,
            "instance_os_add": Rank.LONG,
            "test_delay": Rank.LONG,
        }
        self.assertEqual({name: rank_of(CALLS[name]) for name in expected}, expected)

    def test_every_call_has_one(self) -> None:
        """Each call of the table has a rank, and most are not long."""
        ranks = Counter(rank_of(call) for call in CALLS)
        self.assertEqual(sum(ranks.values()), len(CALLS))
        self.assertLess(ranks[Rank.LONG], 15)


class TurnsTests(SynchronousTestCase):
    def test_urgent_first(self) -> None:
        """An urgent call overtakes all other waiting calls."""
        turns: Turns[str] = Turns(1)
        turns.add(Rank.LONG, "long")
        turns.add(Rank.ORDINARY, "ordinary")
        turns.add(Rank.URGENT, "urgent")
        order = []
        for _ in range(3):
            item = turns.take()
            self.assertIsNone(turns.take())
            order.append(item)
            turns.ended({"long": Rank.LONG, "ordinary": Rank.ORDINARY}.get(item, Rank.URGENT))
        self.assertEqual(order, ["urgent", "ordinary", "long"])
        self.assertTrue(turns.idle)

    def test_room_for_urgent(self) -> None:
        """Other calls leave room for urgent ones, and long calls leave room for ordinary ones."""
        turns: Turns[Rank] = Turns()
        taken = []
        for rank in (Rank.LONG, Rank.ORDINARY, Rank.URGENT):
            for _ in range(50):
                turns.add(rank, rank)
            while (item := turns.take()) is not None:
                taken.append(item)
        ordinary = IN_FLIGHT - URGENT_ROOM - LONG_IN_FLIGHT
        expected = {Rank.LONG: LONG_IN_FLIGHT, Rank.ORDINARY: ordinary, Rank.URGENT: URGENT_ROOM}
        self.assertEqual(Counter(taken), expected)

    def test_small_limits(self) -> None:
        """Each rank gets a turn even if only one call may be in flight."""
        for rank in Rank:
            turns: Turns[int] = Turns(1, 1)
            turns.add(rank, 7)
            self.assertEqual(turns.take(), 7)

    def test_drop(self) -> None:
        """Waiting calls can be dropped; calls in flight still count."""
        turns: Turns[int] = Turns(1)
        for number in range(3):
            turns.add(Rank.ORDINARY, number)
        self.assertEqual(turns.take(), 0)
        self.assertEqual(turns.drop(), [1, 2])
        self.assertFalse(turns.idle)
        turns.ended(Rank.ORDINARY)
        self.assertTrue(turns.idle)

    @settings(deadline=None, max_examples=EXAMPLES)
    @given(st.lists(st.one_of(st.sampled_from(Rank), st.integers(0, 30)), max_size=120))
    def test_any_order(self, steps: list[Rank | int]) -> None:
        """In any sequence the limits hold, no call is lost, and each rank keeps its order."""
        turns: Turns[tuple[Rank, int]] = Turns()
        flying: list[tuple[Rank, int]] = []
        seen: list[tuple[Rank, int]] = []
        added: list[tuple[Rank, int]] = []
        for number, step in enumerate(steps):
            if isinstance(step, Rank):
                added.append((step, number))
                turns.add(step, added[-1])
            elif flying:
                turns.ended(flying.pop(step % len(flying))[0])
            while (item := turns.take()) is not None:
                flying.append(item)
                seen.append(item)
            long = sum(rank is Rank.LONG for rank, _ in flying)
            self.assertLessEqual(len(flying), IN_FLIGHT)
            self.assertLessEqual(long, LONG_IN_FLIGHT)
            others = sum(rank is not Rank.URGENT for rank, _ in flying)
            self.assertLessEqual(others, IN_FLIGHT - URGENT_ROOM)
            waiting = Counter(rank for rank, _ in added) - Counter(rank for rank, _ in seen)
            if len(flying) < IN_FLIGHT:
                self.assertEqual(waiting[Rank.URGENT], 0)
                if others < IN_FLIGHT - URGENT_ROOM:
                    self.assertEqual(waiting[Rank.ORDINARY], 0)
                    self.assertTrue(not waiting[Rank.LONG] or long == LONG_IN_FLIGHT)
        for rank in Rank:
            of_rank = [item for item in added if item[0] is rank]
            self.assertEqual(
                [item for item in seen if item[0] is rank], of_rank[: _count(seen, rank)]
            )


def _count(items: list[tuple[Rank, int]], rank: Rank) -> int:
    return sum(each is rank for each, _ in items)
