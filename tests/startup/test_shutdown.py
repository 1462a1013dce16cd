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
    """Returns the last state and all actions."""
    state, done = ShutdownState.RUNNING, []
    for happening in happenings:
        state, acts = step(state, happening)
        done += acts
    return state, done


class TableTests(SynchronousTestCase):
    """The cases in protocol/startup.rst, Stop, and properties of all sequences of events."""

    def test_idle(self) -> None:
        """If no job runs at the first check, the daemon stops at once."""
        state, done = run([Happening.SIGNAL, Happening.IDLE])
        self.assertIs(state, ShutdownState.STOPPING)
        self.assertEqual(done, [Act.REFUSE_JOBS, Act.CHECK, Act.STOP_LISTENING, Act.TEAR_DOWN])

    def test_jobs_end(self) -> None:
        """Running jobs are waited for, then connected clients may collect results."""
        state, done = run([Happening.SIGNAL, Happening.BUSY, Happening.BUSY, Happening.IDLE])
        self.assertIs(state, ShutdownState.LINGERING)
        self.assertEqual(done[-2:], [Act.STOP_LISTENING, Act.LINGER])
        self.assertNotIn(Act.STOP_LISTENING, done[:-2])
        self.assertEqual(
            step(state, Happening.LINGERED), (ShutdownState.STOPPING, (Act.TEAR_DOWN,))
        )

    def test_second_signal(self) -> None:
        """A second signal stops the daemon at once; jobs that still run are abandoned."""
        _, done = run([Happening.SIGNAL, Happening.BUSY, Happening.SIGNAL])
        self.assertEqual(done[-3:], [Act.STOP_LISTENING, Act.ABANDON_JOBS, Act.TEAR_DOWN])
        _, done = run([Happening.SIGNAL, Happening.BUSY, Happening.IDLE, Happening.SIGNAL])
        self.assertNotIn(Act.ABANDON_JOBS, done)

    def test_timeout(self) -> None:
        """--stop-timeout ends the wait as a second signal does."""
        for state in (ShutdownState.DRAINING, ShutdownState.LINGERING):
            self.assertEqual(step(state, Happening.OUT_OF_TIME), step(state, Happening.SIGNAL))

    def test_late_signal(self) -> None:
        """A signal while the parts are ending only limits the time for that."""
        self.assertEqual(
            step(ShutdownState.STOPPING, Happening.SIGNAL), (ShutdownState.STOPPING, (Act.BOUND,))
        )
        self.assertEqual(
            step(ShutdownState.STOPPING, Happening.OUT_OF_PATIENCE),
            (ShutdownState.ENDED, (Act.CUT_SHORT,)),
        )

    def test_states(self) -> None:
        """Each state except the last has a next one, and each can be reached."""
        self.assertEqual({state for state, _ in TABLE}, set(ShutdownState) - {ShutdownState.ENDED})
        self.assertEqual(
            {ShutdownState.RUNNING} | {state for state, _ in TABLE.values()}, set(ShutdownState)
        )

    def test_acts(self) -> None:
        """Each action is in the table."""
        self.assertEqual({act for _, acts in TABLE.values() for act in acts}, set(Act))

    @EXAMPLES
    @given(st.lists(st.sampled_from(list(Happening)), max_size=30))
    def test_anything(self, happenings: list[Happening]) -> None:
        """Whatever happens, teardown runs at most once, after listening stopped, and can end."""
        state, done = run(happenings)
        for act in (Act.REFUSE_JOBS, Act.TEAR_DOWN, Act.STOP_LISTENING, Act.LINGER, Act.END):
            self.assertLessEqual(done.count(act), 1)
        if Act.TEAR_DOWN in done:
            self.assertLess(done.index(Act.STOP_LISTENING), done.index(Act.TEAR_DOWN))
        self.assertEqual(Happening.SIGNAL in happenings, state is not ShutdownState.RUNNING)
        rest = [Happening.SIGNAL, Happening.BUSY, Happening.SIGNAL, Happening.TORN_DOWN]
        ended, _ = run([*happenings, *rest])
        self.assertIs(ended, ShutdownState.ENDED)
