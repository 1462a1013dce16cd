"""A procedure of steps that is undone in reverse if one of them fails. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

HostT = TypeVar("HostT")


class SwitchFault(Exception):
    """A step can't be done, or undone; the message says why."""


class SwitchStep(Struct, Generic[HostT], frozen=True, kw_only=True):
    """One step. ``does`` and ``undoes`` say in words what ``do`` and ``undo`` do.

    ``undo`` is also called for a step that failed, as it may be half done: where nothing was
    done it must do nothing. None if there is nothing to undo.
    """

    name: str
    does: str
    do: Callable[[HostT], None]
    undoes: str = ""
    undo: Callable[[HostT], None] | None = None

    def reverse(self, name: str) -> SwitchStep[HostT]:
        """Returns the step of that name that does what this one undoes; it must have an undo."""
        assert self.undo is not None
        return SwitchStep(name=name, does=self.undoes, do=self.undo, undoes=self.does, undo=self.do)


class SwitchReport(Struct, frozen=True):
    """How a procedure went.

    ``done`` are the names of the steps that were done, in order. ``failed`` is the one that
    failed and ``fault`` its reason; both are None after a success. ``undone`` are the steps that
    were undone, and ``left`` those that could not be, each with the reason.
    """

    done: list[str]
    failed: str | None = None
    fault: str | None = None
    undone: list[str] = []
    left: list[tuple[str, str]] = []


def carry_out(
    steps: Sequence[SwitchStep[HostT]],
    host: HostT,
    say: Callable[[str], None],
    interrupted: Callable[[], bool],
) -> SwitchReport:
    """Does the steps in order, and says each; undoes all in reverse if one fails.

    ``interrupted`` is asked before each step: if it is true, that counts as a failure of the step.
    It is not asked while steps are undone, nor after the last.
    """
    done: list[str] = []
    for number, step in enumerate(steps):
        begun = number
        try:
            if interrupted():
                raise SwitchFault("interrupted")
            begun += 1
            say(step.does)
            step.do(host)
        except Exception as error:  # whatever it is, the way back has to be gone
            fault = _text(error)
            say(f"Failed: {fault}")
            undone, left = _undo(steps[:begun], host, say)
            return SwitchReport(done, step.name, fault, undone, left)
        done.append(step.name)
    return SwitchReport(done)


def _undo(
    steps: Sequence[SwitchStep[HostT]], host: HostT, say: Callable[[str], None]
) -> tuple[list[str], list[tuple[str, str]]]:
    """Undoes the steps in reverse, all that can be; returns those undone and those left."""
    undone: list[str] = []
    left: list[tuple[str, str]] = []
    for step in reversed(steps):
        if step.undo is None:
            continue
        say(f"Undo: {step.undoes}")
        try:
            step.undo(host)
        except Exception as error:  # the others have to be undone all the same
            left.append((step.name, _text(error)))
            say(f"Failed: {left[-1][1]}")
        else:
            undone.append(step.name)
    return undone, left


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__
