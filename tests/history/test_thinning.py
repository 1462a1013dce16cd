"""Which versions stay: every promise of the module, for any times."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.history.thinning import DAY, HOUR, WIDTHS, kept
from tests.examples import examples

NOW = 1_800_000_000.0
AGES = st.lists(
    st.one_of(
        st.floats(-HOUR, 3 * HOUR),
        st.floats(0, 8 * DAY),
        st.floats(0, 120 * DAY),
    ),
    min_size=1,
    max_size=120,
)


class ThinningTests(SynchronousTestCase):
    """``kept`` for versions of any age."""

    @given(AGES, st.integers(1, 130), st.integers(0, 20))
    @settings(max_examples=examples(200, 5000), deadline=None)
    def test_bound_and_newest(self, ages: list[float], most: int, newest: int) -> None:
        """The newest stays, no more than the bound do, in order, each once."""
        times = [NOW - age for age in ages]  # in any order, as with a clock that is set back
        chosen = kept(times, NOW, most, newest)
        self.assertLessEqual(len(chosen), most)
        self.assertEqual(chosen, sorted(set(chosen)))
        self.assertEqual(chosen[-1], len(times) - 1)
        last = range(len(times))[-min(newest, most) :] if min(newest, most) else ()
        self.assertLessEqual(set(last), set(chosen))

    @given(AGES)
    @settings(max_examples=examples(200, 5000), deadline=None)
    def test_promises(self, ages: list[float]) -> None:
        """Where there is room: each of a day, the last of each hour and of each day."""
        times = sorted(NOW - age for age in ages)
        chosen = {times[index] for index in kept(times, NOW, 10_000, 0)}
        for time in times:
            age = NOW - time
            if age < DAY:
                self.assertIn(time, chosen)
            elif age < 7 * DAY:
                peers = [t for t in times if t // HOUR == time // HOUR and NOW - t >= DAY]
                self.assertIn(max(peers), chosen)
            elif age < 90 * DAY:
                peers = [t for t in times if t // DAY == time // DAY and NOW - t >= 7 * DAY]
                self.assertIn(max(peers), chosen)
        self.assertTrue(all(NOW - time < 90 * DAY for time in chosen if time != times[-1]))

    @given(AGES, st.floats(0, 30 * DAY))
    @settings(max_examples=examples(200, 5000), deadline=None)
    def test_thinned_again(self, ages: list[float], later: float) -> None:
        """Thinning now and then later leaves what thinning once, later, leaves."""
        times = sorted(NOW - age for age in ages)
        once = [times[i] for i in kept(times, NOW + later, 10_000, 0)]
        now = [times[i] for i in kept(times, NOW, 10_000, 0)]
        twice = [now[i] for i in kept(now, NOW + later, 10_000, 0)]
        self.assertEqual(once, twice)

    def test_under_pressure(self) -> None:
        """Ten changes a second for an hour become the last of every second, then of ten."""
        times = [NOW - HOUR + index / 10 for index in range(10 * HOUR)]
        chosen = kept(times, NOW, 3700, 50)
        self.assertEqual(chosen[-50:], list(range(len(times)))[-50:])
        seconds = {times[index] // 1 for index in chosen}
        self.assertEqual(len(seconds), HOUR)
        self.assertLess(len(kept(times, NOW, 1000, 50)), 500)

    def test_widths(self) -> None:
        """Each width is a multiple of the finer ones: what a coarser one keeps is still there."""
        for fine, coarse in pairwise(WIDTHS[1:]):
            self.assertEqual(coarse % fine, 0)
