"""Procedures: their order, what is taken back, and what the log says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.logical_units.steps.procedure import Procedure, Step, carry_out
from ganeti_masterd.testing.context import SynchronousContext
from ganeti_masterd.testing.nodes import ScriptedNodes


class Work:
    """What the steps below work on."""

    def __init__(self, **about: Any) -> None:
        self.ctx = SynchronousContext(new_cluster("c", 1, 1.0), ScriptedNodes(), **about)
        self.done: list[str] = []
        self.bad = ""

    def names(self) -> dict[str, str]:
        """Returns the name that texts hold."""
        return {"instance": "web1"}


def step(name: str, **about: Any) -> Step[Work]:
    """Returns a step that notes its name, and ``-name`` as it is taken back."""
    return Step(
        does=f"do {name} for {{instance}}",
        leaves=f"{name} of {{instance}} is half done",
        finish=f"gnt-instance {name} {{instance}}",
        run=note(name),
        undo=note(f"-{name}"),
        **about,
    )


def note(name: str) -> Callable[[Work], None]:
    """Returns what notes a name; it fails if that is the bad one."""

    def run(work: Work) -> None:
        work.done.append(name)
        if work.bad == name:
            raise OpExecError(f"{name} is broken")

    return run


FOUR = Procedure("Move", (step("a"), step("b"), step("c", final=True), step("d")))


class ProcedureTests(SynchronousTestCase):
    """Four steps, of which the third is the point of no return."""

    def broken(self, bad: str, procedure: Procedure[Work] = FOUR) -> Work:
        """Returns what a procedure did in which one step fails."""
        work = Work()
        work.bad = bad
        error = self.assertRaises(OpExecError, carry_out, procedure, work)
        self.assertEqual(error.args, (f"{bad} is broken",))
        return work

    def test_well(self) -> None:
        """All steps, in order, and nothing is said."""
        work = Work()
        carry_out(FOUR, work)
        self.assertEqual((work.done, work.ctx.lines), (list("abcd"), []))

    def test_taken_back(self) -> None:
        """What was done is taken back, last first, the failed step too."""
        work = self.broken("b")
        self.assertEqual(work.done, ["a", "b", "-b", "-a"])
        (line,) = work.ctx.lines
        self.assertIn("Move failed at the step: do b for web1", line)
        self.assertIn("was taken back", line)

    def test_point_of_no_return(self) -> None:
        """After it nothing is taken back; the last line names what goes on from there."""
        work = self.broken("d")
        self.assertEqual(work.done, ["a", "b", "c", "d"])
        self.assertEqual(
            work.ctx.lines,
            [
                " - WARNING: Move failed at the step: do d for web1. d of web1 is half done",
                "      Hint: To go on: gnt-instance d web1",
            ],
        )

    def test_the_final_step_itself(self) -> None:
        """It is taken back if it fails."""
        self.assertEqual(self.broken("c").done, ["a", "b", "c", "-c", "-b", "-a"])

    def test_undo_fails(self) -> None:
        """The rest is taken back, and the last line says what to do."""

        def undo(work: Work) -> None:
            raise OpExecError("no way")

        half = Step[Work](
            does="do x", leaves="x is half done", finish="gnt-x", run=note("x"), undo=undo
        )
        work = self.broken("b", Procedure("Move", (step("a"), half, step("b"))))
        self.assertEqual(work.done, ["a", "x", "b", "-b", "-a"])
        self.assertIn("Could not undo: do x: no way", work.ctx.lines[0])
        self.assertEqual(work.ctx.lines[-1], "      Hint: To go on: gnt-instance b web1")

    def test_skipped(self) -> None:
        """A step with nothing to do is neither done nor taken back."""
        steps = (step("a", skip=lambda work: True), step("b"))
        self.assertEqual(self.broken("b", Procedure("Move", steps)).done, ["b", "-b"])

    def test_killed(self) -> None:
        """A kill acts between two steps, as a failure of the second."""
        for moment, done in enumerate([[], ["a", "-a"], ["a", "b", "-b", "-a"], list("abc")]):
            work = Work(kill_after=moment)
            self.assertRaises(JobKilled, carry_out, FOUR, work)
            self.assertEqual(work.done, done)
            self.assertIn("Move failed at the step", work.ctx.lines[0])

    def test_shielded(self) -> None:
        """Before and within a shielded step no kill acts, but after it."""
        steps = (step("a"), step("b", shielded=True), step("c"))
        found = []
        for moment in range(3):
            work = Work(kill_after=moment)
            try:
                carry_out(Procedure("Move", steps), work)
            except JobKilled:
                found.append(work.done)
        self.assertEqual(found, [[], ["a", "b", "-b", "-a"]])

    def test_a_look(self) -> None:
        """One that only looks is refused by its error alone; a kill there says what stands."""
        look = Step[Work](
            does="look", leaves="Nothing is changed", finish="gnt-x", run=note("x"), looks=True
        )
        only = Procedure("Move", (look, step("b")))
        self.assertEqual(self.broken("x", only).ctx.lines, [])
        after = self.broken("x", Procedure("Move", (step("a"), look)))
        self.assertEqual(after.done, ["a", "x", "-a"])
        self.assertIn("Move failed at the step: look", after.ctx.lines[0])
        killed = Work(kill_after=0)
        self.assertRaises(JobKilled, carry_out, only, killed)
        self.assertIn("Move failed at the step: look", killed.ctx.lines[0])

    def test_nothing_to_take_back(self) -> None:
        """If no step before has to be taken back, the log says what this one leaves."""
        first = Step[Work](does="look", leaves="Nothing is changed", finish="gnt-x", run=note("x"))
        work = self.broken("x", Procedure("Move", (first, step("b"))))
        self.assertEqual(
            work.ctx.lines,
            [
                " - WARNING: Move failed at the step: look. Nothing is changed",
                "      Hint: To go on: gnt-x",
            ],
        )
