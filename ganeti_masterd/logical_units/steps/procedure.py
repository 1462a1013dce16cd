"""Procedures of several steps, as data: what each does, how it is undone, what ends it.

An opcode that changes several nodes one after the other is a :class:`Procedure`. Its steps are
a table that a reader follows, that the documentation shows, and that tests break off at each
place. :func:`carry_out` runs it; a kill acts between steps.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context, JobKilled
from ganeti_masterd.logical_units.steps.undo import UndoStack


class Undertaking(Protocol):
    """What the steps of a procedure work on: the context, and what they have found so far."""

    ctx: Context

    def names(self) -> dict[str, str]:
        """Returns the names that texts of steps have in braces, such as ``instance``."""


S = TypeVar("S", bound=Undertaking)
#: A step for an undertaking is one for all that derive from it.
S_contra = TypeVar("S_contra", bound=Undertaking, contravariant=True)


class Step(Struct, Generic[S_contra], frozen=True, kw_only=True):
    """One step. Texts may hold names in braces (:meth:`Undertaking.names`).

    - ``does``: what it does, as a sentence without an end.
    - ``leaves``: the state that it leaves if the daemon ends while it runs, or if it fails
      and nothing is undone.
    - ``finish``: the command that finishes the procedure from there, or takes it back.
    - ``undo``: takes the step back, also if it was not or only half done; None if there is
      nothing to take back.
    - ``skip``: whether there is nothing to do.
    - ``final``: from its end on nothing is taken back any more.
    - ``shielded``: a kill is put off from before it until after it.
    - ``looks``: it only looks whether the others can be done. If it fails, nothing has been done
      that could be gone on with, and the error is all that is said.
    """

    does: str
    leaves: str
    finish: str
    run: Callable[[S_contra], object]
    undo: Callable[[S_contra], object] | None = None
    skip: Callable[[S_contra], bool] = lambda state: False
    final: bool = False
    shielded: bool = False
    looks: bool = False


class Procedure(Struct, Generic[S_contra], frozen=True):
    """Steps in order; ``title`` says what they do together, such as "Failover"."""

    title: str
    steps: tuple[Step[S_contra], ...]


def carry_out(procedure: Procedure[S], state: S) -> None:
    """Runs the steps in order.

    If one fails, or the job is killed, those before it are taken back, last first, unless a
    ``final`` step has ended. The job's log then says that, or how things stand and, in its
    last line, which command goes on from there, unless nothing has been done but to look; the
    error is raised on. A step that was killed is the same as one that failed.
    """
    ctx = state.ctx
    undo = UndoStack(ctx)
    final = False
    for step in procedure.steps:
        begun = False
        try:
            if step.skip(state):
                continue
            with ctx.shielded() if step.shielded else nullcontext():
                ctx.checkpoint()
                if step.undo is not None and not final:
                    undo.push(_told("undo: " + step.does, state), _call(step.undo, state))
                begun = True
                step.run(state)
        except OpExecError as error:
            with ctx.shielded():
                # A step that can't be taken back leaves something, unless it was not begun.
                taken_back = (bool(undo) or not begun) and not final
                refused = step.looks and not undo and not isinstance(error, JobKilled)
                taken_back = undo.run() and taken_back
                if not refused:
                    _tell_failure(procedure, step, state, taken_back=taken_back)
            raise
        except BaseException:
            undo.run()
            raise
        if step.final:
            final = True
            undo.keep()
    undo.keep()


def _tell_failure(procedure: Procedure[S], step: Step[S], state: S, *, taken_back: bool) -> None:
    where = f"{procedure.title} failed at the step: {_told(step.does, state)}"
    if taken_back:
        state.ctx.warning(f"{where}. What it had done before was taken back")
        return
    state.ctx.warning(
        f"{where}. {_told(step.leaves, state)}",
        f"To go on: {_told(step.finish, state)}",
    )


def _call(function: Callable[[S], object], state: S) -> Callable[[], object]:
    return lambda: function(state)


def _told(text: str, state: Any) -> str:
    return text.format_map(state.names())
