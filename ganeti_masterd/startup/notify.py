"""Notifies systemd of the daemon's state (``Type=notify``, sd_notify(3)) without a library."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping

READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"


class Notifier:
    """Sends states to the socket named by systemd; sends nothing if there is none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in the abstract namespace.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog = environment.get("WATCHDOG_USEC", "")

    @property
    def watchdog(self) -> float | None:
        """Returns the seconds between two keep-alives, half of what systemd allows, or None."""
        if not self._address or not self._watchdog.isdecimal() or not int(self._watchdog):
            return None
        return int(self._watchdog) / 2_000_000

    def tell(self, state: str) -> None:
        """Sends a state; a failure is ignored, as it must not disturb the daemon."""
        if self._address:
            with (
                contextlib.suppress(OSError),
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s,
            ):
                s.setblocking(False)
                s.sendto(state.encode(), self._address)


def notifier(environment: MutableMapping[str, str] = os.environ) -> Notifier:
    """Returns a notifier, and removes its variables from the environment of child processes."""
    made = Notifier(dict(environment))
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        environment.pop(name, None)
    return made
