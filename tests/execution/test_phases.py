"""The table of phases: what may follow what."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.execution.phases import KILLABLE, TABLE, WAITING, Phase, step


class PhaseTests(SynchronousTestCase):
    def test_steps(self) -> None:
        """A step of the table is made, every other raises."""
        for before in Phase:
            for after in Phase:
                if after in TABLE[before][1]:
                    self.assertIs(step(before, after), after)
                else:
                    self.assertRaises(ProgrammerError, step, before, after)

    def test_starts(self) -> None:
        """An opcode runs only once its start was recorded, or goes on after a wait."""
        self.assertEqual(
            [phase for phase in Phase if Phase.RUNNING in TABLE[phase][1]],
            [Phase.STARTING, Phase.RECLAIMING],
        )
        self.assertEqual(
            [phase for phase in Phase if Phase.RECLAIMING in TABLE[phase][1]], [Phase.OFF_SLOT]
        )

    def test_every_phase(self) -> None:
        """Each is there, is reached, and leads to the end at once: a job can always be left."""
        self.assertEqual(set(TABLE), set(Phase))
        reached = {after for _, following in TABLE.values() for after in following}
        self.assertEqual(reached, set(Phase))
        for phase, (_, following) in TABLE.items():
            self.assertEqual(Phase.ENDED in following, phase is not Phase.ENDED)

    def test_killed_in_each(self) -> None:
        """A job is cancelled or killed in every phase that takes time."""
        self.assertEqual(WAITING | KILLABLE, set(Phase) - {Phase.IDLE, Phase.ENDED})
        self.assertEqual(WAITING & KILLABLE, set())
