"""The decision to shut down, as a table: pure, no clock (protocol/startup.rst, Stop).

:data:`TABLE` maps a state and an event to the next state and the actions to take, in order. A pair
that isn't in it changes nothing. :mod:`.stopping` performs the actions.
"""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType

#: Seconds between two checks of the jobs that still run.
CHECK_INTERVAL = 5.0
#: Seconds for clients to collect results once the last job has ended.
LINGER = 5.0
#: Seconds that the last steps may take after another signal.
BOUND = 10.0
#: Seconds that a piece of work on the disk may hang before the stop goes on without it.
DISK_BOUND = 60.0


class ShutdownState(Enum):
    """The state of the shutdown."""

    RUNNING = "the daemon works"
    CHECKING = "it looks for the first time whether jobs run"
    DRAINING = "it waits for jobs to end"
    LINGERING = "clients collect results"
    STOPPING = "every part ends, in order"
    ENDED = "nothing is left to do"


class Happening(Enum):
    """An event during the shutdown."""

    SIGNAL = "it is asked to stop"
    BUSY = "jobs run"
    IDLE = "no job runs"
    OUT_OF_TIME = "--stop-timeout is over"
    LINGERED = "the time to collect results is over"
    CLIENTS_GONE = "no client is connected any more"
    TORN_DOWN = "every part has ended"
    OUT_OF_PATIENCE = "the last steps take too long after another signal"
    DISK_HANGS = "the disk has not answered for a minute"


class Act(Enum):
    """An action that the table asks for."""

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
    # Jobs can't end if nothing of them can be recorded.
    (ShutdownState.DRAINING, Happening.DISK_HANGS): (
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
    (ShutdownState.STOPPING, Happening.DISK_HANGS): (ShutdownState.ENDED, (Act.CUT_SHORT,)),
}

#: Maps a state and an event to the next state and the actions to take.
TABLE = MappingProxyType(_TABLE)


def step(state: ShutdownState, happening: Happening) -> tuple[ShutdownState, tuple[Act, ...]]:
    """Returns the next state and the actions; the same state and none for any other pair."""
    return TABLE.get((state, happening), (state, ()))
