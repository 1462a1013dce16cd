"""The decision to shut down, as a table: pure, no clock (protocol/startup.rst, Stop).

:data:`TABLE` gives for a state and what happens the next state and what to do,
in order. A pair that isn't in it changes nothing. :mod:`.stopping` does what
the table says.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType

#: Seconds between two looks at the jobs that still run.
CHECK_INTERVAL = 5.0
#: Seconds that clients have to collect results once the last job has ended.
LINGER = 5.0
#: Seconds that the last steps may take once another signal came.
BOUND = 10.0


class ShutdownState(Enum):
    """How far the shutdown is."""

    RUNNING = "the daemon works"
    CHECKING = "it looks for the first time whether jobs run"
    DRAINING = "it waits for jobs to end"
    LINGERING = "clients collect results"
    STOPPING = "every part ends, in order"
    ENDED = "nothing is left to do"


class Happening(Enum):
    """What may happen to it."""

    SIGNAL = "it is asked to stop"
    BUSY = "jobs run"
    IDLE = "no job runs"
    OUT_OF_TIME = "--stop-timeout is over"
    LINGERED = "the time to collect results is over"
    CLIENTS_GONE = "no client is connected any more"
    TORN_DOWN = "every part has ended"
    OUT_OF_PATIENCE = "the last steps take too long after another signal"


class Act(Enum):
    """What is to be done."""

    REFUSE_JOBS = "no job begins and none is accepted from now on"
    CHECK = "look at once whether jobs run"
    CHECK_LATER = "log what runs, and look again after the interval"
    START_TIMEOUT = "let --stop-timeout run"
    STOP_LISTENING = "accept no more clients; those that are connected are served"
    LINGER = "let the time to collect results run"
    ABANDON_JOBS = "running jobs are recorded as after a hard kill"
    TEAR_DOWN = "end every part, in order"
    BOUND = "let the last steps take a limited time"
    CUT_SHORT = "end the process now, whatever hangs"
    END = "end the process"


_TABLE: dict[tuple[ShutdownState, Happening], tuple[ShutdownState, tuple[Act, ...]]] = {
    (ShutdownState.RUNNING, Happening.SIGNAL): (
        ShutdownState.CHECKING,
        (Act.REFUSE_JOBS, Act.CHECK),
    ),
    (ShutdownState.CHECKING, Happening.IDLE): (
        ShutdownState.STOPPING,
        (Act.STOP_LISTENING, Act.TEAR_DOWN),
    ),
    (ShutdownState.CHECKING, Happening.BUSY): (
        ShutdownState.DRAINING,
        (Act.START_TIMEOUT, Act.CHECK_LATER),
    ),
    (ShutdownState.DRAINING, Happening.BUSY): (ShutdownState.DRAINING, (Act.CHECK_LATER,)),
    (ShutdownState.DRAINING, Happening.IDLE): (
        ShutdownState.LINGERING,
        (Act.STOP_LISTENING, Act.LINGER),
    ),
    (ShutdownState.DRAINING, Happening.SIGNAL): (
        ShutdownState.STOPPING,
        (Act.STOP_LISTENING, Act.ABANDON_JOBS, Act.TEAR_DOWN),
    ),
    (ShutdownState.DRAINING, Happening.OUT_OF_TIME): (
        ShutdownState.STOPPING,
        (Act.STOP_LISTENING, Act.ABANDON_JOBS, Act.TEAR_DOWN),
    ),
    (ShutdownState.LINGERING, Happening.SIGNAL): (ShutdownState.STOPPING, (Act.TEAR_DOWN,)),
    (ShutdownState.LINGERING, Happening.OUT_OF_TIME): (ShutdownState.STOPPING, (Act.TEAR_DOWN,)),
    (ShutdownState.LINGERING, Happening.LINGERED): (ShutdownState.STOPPING, (Act.TEAR_DOWN,)),
    (ShutdownState.LINGERING, Happening.CLIENTS_GONE): (ShutdownState.STOPPING, (Act.TEAR_DOWN,)),
    (ShutdownState.STOPPING, Happening.SIGNAL): (ShutdownState.STOPPING, (Act.BOUND,)),
    (ShutdownState.STOPPING, Happening.TORN_DOWN): (ShutdownState.ENDED, (Act.END,)),
    (ShutdownState.STOPPING, Happening.OUT_OF_PATIENCE): (ShutdownState.ENDED, (Act.CUT_SHORT,)),
}

#: For a state and what happens: the next state, and what to do.
TABLE = MappingProxyType(_TABLE)


def step(state: ShutdownState, happening: Happening) -> tuple[ShutdownState, tuple[Act, ...]]:
    """Returns the next state and what to do; the same state and nothing for any other pair."""
    return TABLE.get((state, happening), (state, ()))
