"""The states of a LUXI client's connection, and every step from one to the next. Pure."""

from __future__ import annotations

from enum import Enum

from ganeti_masterd.errors import ProgrammerError


class ClientState(Enum):
    """What a client is doing about its connection."""

    IDLE = "idle"
    CONNECTING = "connecting"
    PAUSING = "pausing"
    CONNECTED = "connected"
    CALLING = "calling"
    CLOSING = "closing"
    CLOSED = "closed"


_IDLE, _CONNECTING, _PAUSING = ClientState.IDLE, ClientState.CONNECTING, ClientState.PAUSING
_CONNECTED, _CALLING = ClientState.CONNECTED, ClientState.CALLING
_CLOSING, _CLOSED = ClientState.CLOSING, ClientState.CLOSED

#: From each state what the client does in it, and the states that may follow.
TABLE: dict[ClientState, tuple[str, frozenset[ClientState]]] = {
    _IDLE: ("has no connection and no calls", frozenset({_CONNECTING, _CLOSED})),
    _CONNECTING: (
        "connects; calls wait",
        frozenset({_IDLE, _PAUSING, _CONNECTED, _CLOSED}),
    ),
    _PAUSING: (
        "could not connect and will try again; calls wait",
        frozenset({_IDLE, _CONNECTING, _CLOSED}),
    ),
    _CONNECTED: (
        "has a connection and no calls",
        frozenset({_IDLE, _CALLING, _CLOSING}),
    ),
    _CALLING: (
        "has sent a call and waits for its answer; other calls wait",
        frozenset({_IDLE, _CONNECTED, _CLOSING}),
    ),
    _CLOSING: ("takes no calls and waits for the end of its connection", frozenset({_CLOSED})),
    _CLOSED: ("takes no calls", frozenset()),
}


def step(before: ClientState, after: ClientState) -> ClientState:
    """Returns the state after a step; raises ``ProgrammerError`` for one that isn't there."""
    if after not in TABLE[before][1]:
        raise ProgrammerError(f"A client that is {before.value} can't be {after.value} next")
    return after
