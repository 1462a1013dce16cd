"""A socket that synchronizes an opcode under test with its client.

``gnt-debug`` has tests in which an opcode stops at agreed points: it names a socket in its log; the
client connects, makes its checks, and disconnects.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import tempfile
import time
from types import TracebackType

from ganeti_masterd.logical_units.context import Context

#: Seconds between two checks, during a wait, whether the job was killed.
STEP = 0.25


class Notification:
    """One socket for one client, in a private folder that is removed with it."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="gnt-masterd-test-")
        self.path = os.path.join(self._folder, "socket")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen(1)
        self._client: socket.socket | None = None

    def __enter__(self) -> Notification:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            self._client.close()
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def wait_connected(self, ctx: Context, seconds: float) -> float | None:
        """Waits for the client; returns the seconds left, or None if it didn't connect."""
        left = _wait_readable(ctx, self._listener, seconds)
        if left is not None:
            self._client, _ = self._listener.accept()
        return left

    def wait_confirmed(self, ctx: Context, seconds: float) -> bool:
        """Waits until the client sends something or disconnects; False if it does neither."""
        assert self._client is not None
        return _wait_readable(ctx, self._client, seconds) is not None


def _wait_readable(ctx: Context, sock: socket.socket, seconds: float) -> float | None:
    end = time.monotonic() + seconds
    while True:
        left = end - time.monotonic()
        readable, _, _ = select.select([sock], [], [], max(0.0, min(STEP, left)))
        if readable:
            return max(0.0, end - time.monotonic())
        ctx.checkpoint()
        if left <= STEP:
            return None
