"""The table of the shutdown: every way through it ends, and ends in order."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.startup.shutdown import TABLE, Act, Happening, ShutdownState, step
from tests.examples import examples

EXAMPLES = settings(deadline=None, max_examples=examples(200, 5000))


def run(happenings: Sequence[Happening]) -> tuple[ShutdownState, list[Act]]:
    """Returns where it ends and all that was to be done."""
    state, done = ShutdownState.RUNNING, []
    for happening in happenings:
        state, acts = step(state, happening)
        done += acts
    return state, done


class TableTests(SynchronousTestCase):
    """The spec's cases (masterd 7), and what holds for any."""

    def test_idle(self) -> None:
        """With no job at the first look it stops at once."""
        state, done = run([Happening.SIGNAL, Happening.IDLE])
        self.assertIs(state, ShutdownState.STOPPING)
        self.assertEqual(done, [Act.REFUSE_JOBS, Act.CHECK, Act.STOP_LISTENING, Act.TEAR_DOWN])

    def test_jobs_end(self) -> None:
        """Jobs that run are waited for, then clients may collect results, still connected."""
        state, done = run([Happening.SIGNAL, Happening.BUSY, Happening.BUSY, Happening.IDLE])
        self.assertIs(state, ShutdownState.LINGERING)
        self.assertEqual(done[-2:], [Act.STOP_LISTENING, Act.LINGER])
        self.assertNotIn(Act.STOP_LISTENING, done[:-2])
        self.assertEqual(
            step(state, Happening.LINGERED), (ShutdownState.STOPPING, (Act.TEAR_DOWN,))
        )

    def test_second_signal(self) -> None:
        """It stops at once; only while jobs run these are given up."""
        _, done = run([Happening.SIGNAL, Happening.BUSY, Happening.SIGNAL])
        self.assertEqual(done[-3:], [Act.STOP_LISTENING, Act.ABANDON_JOBS, Act.TEAR_DOWN])
        _, done = run([Happening.SIGNAL, Happening.BUSY, Happening.IDLE, Happening.SIGNAL])
        self.assertNotIn(Act.ABANDON_JOBS, done)

    def test_timeout(self) -> None:
        """The end of --stop-timeout ends the wait as a second signal does."""
        for state in (ShutdownState.DRAINING, ShutdownState.LINGERING):
            self.assertEqual(step(state, Happening.OUT_OF_TIME), step(state, Happening.SIGNAL))

    def test_late_signal(self) -> None:
        """A signal while every part ends only bounds the time for that."""
        self.assertEqual(
            step(ShutdownState.STOPPING, Happening.SIGNAL), (ShutdownState.STOPPING, (Act.BOUND,))
        )
        self.assertEqual(
            step(ShutdownState.STOPPING, Happening.OUT_OF_PATIENCE),
            (ShutdownState.ENDED, (Act.CUT_SHORT,)),
        )

    def test_states(self) -> None:
        """Each state but the last leads on, and each can be reached."""
        self.assertEqual({state for state, _ in TABLE}, set(ShutdownState) - {ShutdownState.ENDED})
        self.assertEqual(
            {ShutdownState.RUNNING} | {state for state, _ in TABLE.values()}, set(ShutdownState)
        )

    def test_acts(self) -> None:
        """Each act is done somewhere."""
        self.assertEqual({act for _, acts in TABLE.values() for act in acts}, set(Act))

    @EXAMPLES
    @given(st.lists(st.sampled_from(list(Happening)), max_size=30))
    def test_anything(self, happenings: list[Happening]) -> None:
        """Whatever happens: begun once, torn down once, listening ends first, and it can end."""
        state, done = run(happenings)
        for act in (Act.REFUSE_JOBS, Act.TEAR_DOWN, Act.STOP_LISTENING, Act.LINGER, Act.END):
            self.assertLessEqual(done.count(act), 1)
        if Act.TEAR_DOWN in done:
            self.assertLess(done.index(Act.STOP_LISTENING), done.index(Act.TEAR_DOWN))
        self.assertEqual(Happening.SIGNAL in happenings, state is not ShutdownState.RUNNING)
        rest = [Happening.SIGNAL, Happening.BUSY, Happening.SIGNAL, Happening.TORN_DOWN]
        ended, _ = run([*happenings, *rest])
        self.assertIs(ended, ShutdownState.ENDED)
