"""The states of the server's end of a LUXI connection, and every step between them. Pure."""

from __future__ import annotations

from enum import Enum

from ganeti_masterd.errors import ProgrammerError


class ServerState(Enum):
    """What the server's end of a connection is doing."""

    LISTENING = "listening"
    SERVING = "serving"
    PENDING = "pending"
    CHOKED = "choked"
    PENDING_CHOKED = "pending and choked"
    REFUSED = "refused"
    CLOSING = "closing"
    CUT_OFF = "cut off"
    LOST = "lost"


_LISTENING, _SERVING = ServerState.LISTENING, ServerState.SERVING
_PENDING, _CHOKED = ServerState.PENDING, ServerState.CHOKED
_PENDING_CHOKED, _REFUSED = ServerState.PENDING_CHOKED, ServerState.REFUSED
_CLOSING, _CUT_OFF, _LOST = ServerState.CLOSING, ServerState.CUT_OFF, ServerState.LOST

#: From each state what the connection does in it, and the states that may follow.
TABLE: dict[ServerState, tuple[str, frozenset[ServerState]]] = {
    _LISTENING: (
        "waits for a whole request; is closed after the idle time",
        frozenset({_SERVING, _CHOKED, _REFUSED, _CLOSING, _LOST}),
    ),
    _SERVING: (
        "answers the requests that are here, one by one; lasts no longer than one call",
        frozenset({_LISTENING, _PENDING, _CHOKED, _REFUSED, _CLOSING, _LOST}),
    ),
    _PENDING: (
        "waits for an answer, as long as it takes while the client is there",
        frozenset({_SERVING, _PENDING_CHOKED, _CLOSING, _CUT_OFF, _LOST}),
    ),
    _CHOKED: (
        "waits until the client reads its answers; is cut off after the idle time",
        frozenset({_SERVING, _REFUSED, _CLOSING, _CUT_OFF, _LOST}),
    ),
    _PENDING_CHOKED: (
        "waits for an answer, and the client doesn't read those before it",
        frozenset({_PENDING, _CHOKED, _CLOSING, _CUT_OFF, _LOST}),
    ),
    _REFUSED: (
        "has sent an error as its last word and drops what comes; is cut off soon",
        frozenset({_CLOSING, _CUT_OFF, _LOST}),
    ),
    _CLOSING: (
        "sends the rest of what was answered, then ends; is cut off if that takes too long",
        frozenset({_CUT_OFF, _LOST}),
    ),
    _CUT_OFF: ("has dropped everything; the transport is about to end", frozenset({_LOST})),
    _LOST: ("is over", frozenset()),
}

# Tuples, the most usual first: the hash of an Enum's member is slow.

#: In which requests are served, now or later. In the others what comes is dropped.
LIVE = (
    ServerState.LISTENING,
    ServerState.PENDING,
    ServerState.SERVING,
    ServerState.CHOKED,
    ServerState.PENDING_CHOKED,
)
#: In which there is a Deferred of an answer.
AWAITING = (ServerState.PENDING, ServerState.PENDING_CHOKED)


def step(before: ServerState, after: ServerState) -> ServerState:
    """Returns the state after a step; raises ``ProgrammerError`` for one that isn't there."""
    if after not in TABLE[before][1]:
        raise ProgrammerError(f"A connection that is {before.value} can't be {after.value} next")
    return after


class ReadingState(Enum):
    """Whether the server reads from a connection.

    It is paused when something arrives that can't be looked at yet, and opened again when
    all of that was served. The client may end its half at any time; that is never undone.
    A connection that is ``LISTENING`` is always ``OPEN``.
    """

    OPEN = "open"
    PAUSED = "paused"
    OVER = "over"
