"""How a request grows more urgent while it waits for locks. Pure.

See protocol/queue.rst, Running an opcode.
"""

from __future__ import annotations

from typing import Final

from ganeti_masterd.constants import LOCK_ATTEMPTS_TIMEOUT, OP_PRIO_HIGHEST

#: Seconds of waiting that make a request one step of priority more urgent.
STEP: Final = LOCK_ATTEMPTS_TIMEOUT


def aged(priority: int, waited: float) -> int:
    """Returns the priority of a request made with ``priority`` after waiting ``waited`` seconds.

    A lower number is more urgent; the result is never below the most urgent priority.
    """
    return max(OP_PRIO_HIGHEST, priority - max(0, int(waited // STEP)))
