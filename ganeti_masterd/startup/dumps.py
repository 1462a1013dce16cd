"""Keeps the daemon's memory out of core files: it holds keys and private parameters."""

from __future__ import annotations

import ctypes
import os
import resource

_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Forbids core dumps of this process and of those that it starts, and tracing by its own user.

    To be called after root's privileges are dropped, which sets the same flag anew. Raises
    ``OSError``.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
