"""Opcodes that fail when a part is done already: the job's log says what is left to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ganeti_masterd.errors import OpExecError
from ganeti_masterd.logical_units.context import Context, JobKilled


@contextmanager
def leaving(ctx: Context, state: str, *, hint: str) -> Iterator[None]:
    """If what is done within fails, says how the cluster is left, and what to do about it.

    The failure goes on.
    """
    try:
        yield
    except OpExecError:
        with ctx.shielded():
            ctx.warning(state, hint=hint)
        raise


@contextmanager
def only_warned_of(ctx: Context) -> Iterator[None]:
    """Makes a warning of a failure within, for a step after which others have to follow."""
    try:
        yield
    except JobKilled:
        raise
    except OpExecError as error:
        ctx.warning(str(error.args[0]))
