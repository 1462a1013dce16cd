"""What an opcode takes back when it fails half-way: the :class:`UndoStack`."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from ganeti_masterd.logical_units.context import Context


class _Undo(NamedTuple):
    """One thing to take back: what that is in words, how, and what to do if it fails."""

    what: str
    function: Callable[[], object]
    hint: str | None


class UndoStack:
    """Takes back what was made, last first, if its block ends with an error or a kill.

    ::

        with UndoStack(ctx) as undo:
            undo.push("remove volume X from node1", remove)
            make()
            undo.keep()  # from here on what was made stays

    A thing is pushed before it is made, as a call that fails may have done its work:
    each function must also be right where there is nothing to take back. All run
    shielded from a kill. One that fails leaves a warning in the job's log, with its
    hint, and doesn't stop the others; the error that ended the block goes on.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._stack: list[_Undo] = []

    def push(self, what: str, function: Callable[[], object], *, hint: str | None = None) -> None:
        """Adds a thing to take back; ``what`` goes on "Could not ..." and names all that counts."""
        self._stack.append(_Undo(what, function, hint))

    def keep(self) -> None:
        """Forgets all: what was made is wanted, or in the configuration by now."""
        self._stack.clear()

    def __bool__(self) -> bool:
        """Whether there is anything to take back."""
        return bool(self._stack)

    def run(self) -> bool:
        """Takes all back, last first; returns whether everything could be."""
        good = True
        with self._ctx.shielded():
            while self._stack:
                undo = self._stack.pop()
                try:
                    undo.function()
                except Exception as error:
                    good = False
                    reason = error.args[0] if error.args else type(error).__name__
                    self._ctx.warning(f"Could not {undo.what}: {reason}", undo.hint)
        return good

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.run()
