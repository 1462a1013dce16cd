"""The rows of the lock query: one for each lock that is held or waited for.

See protocol/luxi.rst, Filters.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from ganeti_masterd.locking.decisions import LockState
from ganeti_masterd.locking.levels import LOCKSET, lock_name


class LockRow(Struct, frozen=True):
    """The fields of one lock, as the lock query sends them.

    ``mode`` is "shared", "exclusive" or None; ``owner`` are job ids as text;
    ``pending`` are ``[mode, [job ids]]`` in the order of waiting.
    """

    name: str
    mode: str | None
    owner: list[str]
    pending: list[tuple[str, list[str]]]


def lock_rows(states: Iterable[LockState]) -> list[LockRow]:
    """Returns the rows for the states from :meth:`LockTable.states`, sorted by name as text.

    A level's own lock is named ``LEVEL/[lockset]``. It is listed while any lock of its
    level is held; its mode is None unless the whole level is held (luxid 3.0.2).
    """
    rows = [
        LockRow(
            lock_name(state.level, LOCKSET if state.name is None else state.name),
            None if state.mode is None else state.mode.value,
            [str(owner) for owner in state.owners],
            [(mode.value, [str(owner) for owner in owners]) for mode, owners in state.pending],
        )
        for state in states
    ]
    return sorted(rows, key=lambda row: row.name)
