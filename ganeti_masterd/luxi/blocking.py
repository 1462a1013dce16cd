"""A LUXI client on plain sockets, for scripts and threads.

For example::

    with BlockingClient("/run/ganeti/socket/ganeti-master") as master:
        job = master.submit_job([{"OP_ID": "OP_CLUSTER_VERIFY_CONFIG", "reason": []}])
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Any, Self

from ganeti_masterd.constants import LUXI_DEF_RWTO, LUXI_EOM, LUXI_VERSION
from ganeti_masterd.luxi.calls import Calls
from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.failures import CallTimeout, ConnectionLost, unreachable
from ganeti_masterd.luxi.framing import Framer, MessageTooLarge
from ganeti_masterd.luxi.messages import decode_reply, encode_request

_CHUNK = 256 * 1024
#: How long to wait before the daemon's full backlog is tried again, seconds.
_BACKLOG_WAIT = 0.01
#: The longest reply that is taken, bytes.
MAX_REPLY_SIZE = 1 << 30


class BlockingClient(Calls):
    """One connection to the master daemon; one call at a time; for one thread.

    It connects at the first call, and again at a call that finds the connection closed
    since the last (idle ones are, after some minutes). A call that was sent is never
    repeated by itself. ``timeout`` is in seconds for each call as a whole, connecting
    included.
    """

    def __init__(
        self,
        path: str,
        *,
        timeout: float = LUXI_DEF_RWTO,
        version: int | None = LUXI_VERSION,
    ) -> None:
        self.path = path
        self.timeout = timeout
        self.version = version
        self._socket: socket.socket | None = None
        self._framer = Framer(MAX_REPLY_SIZE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection, if there is one. A later call makes a new one."""
        connection, self._socket = self._socket, None
        self._framer.clear()
        if connection is not None:
            connection.close()

    def call(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """Calls a method and returns its result.

        Raises the error that the daemon answers; ``DaemonUnreachable`` if no connection
        could be made; ``CallTimeout`` or ``ConnectionLost`` if no answer came;
        ``ProtocolError`` if what came isn't one; ``ProgrammerError`` for arguments that
        have no form in JSON.
        """
        message = encode_request(method, args, self.version) + LUXI_EOM
        limit = self.timeout if timeout is None else timeout
        until = time.monotonic() + limit
        try:
            connection = self._connected(until)
            reply = self._exchange(connection, message, until)
        except TimeoutError:
            sent = self._socket is not None
            self.close()
            raise CallTimeout(f"{method}: no answer within {limit:g} seconds", sent) from None
        except ConnectionError:
            reply = self._last_words(method)
        except (EOFError, MessageTooLarge) as error:
            self.close()
            raise _lost(method, error) from error
        except BaseException:  # also an interrupt: the next answer would not be the next call's
            self.close()
            raise
        try:
            return decode_reply(reply, self.version)
        except ProtocolError:
            self.close()
            raise

    def _connected(self, until: float) -> socket.socket:
        """Returns a connection that is open; raises ``TimeoutError``, ``DaemonUnreachable``."""
        if self._socket is not None:
            if not _readable(self._socket):
                return self._socket
            self.close()  # closed by the daemon, or out of step
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.settimeout(_left(until))
                connection.connect(self.path)
            except BlockingIOError:  # the backlog is full
                connection.close()
                time.sleep(min(_BACKLOG_WAIT, _left(until)))
            except TimeoutError:
                connection.close()
                raise
            except OSError as error:
                connection.close()
                raise unreachable(self.path, error.errno, error.strerror or str(error)) from error
            except BaseException:
                connection.close()
                raise
            else:
                self._socket = connection
                return connection

    def _exchange(self, connection: socket.socket, message: bytes, until: float) -> bytes:
        connection.settimeout(_left(until))
        connection.sendall(message)
        framer = self._framer
        while (reply := framer.take()) is None:
            connection.settimeout(_left(until))
            chunk = connection.recv(_CHUNK)
            if not chunk:
                raise EOFError("the daemon closed the connection")
            framer.feed(chunk)
        return reply

    def _last_words(self, method: str) -> bytes:
        """Returns the answer that came before the daemon closed the connection."""
        connection, framer = self._socket, self._framer
        assert connection is not None
        reply = None
        with contextlib.suppress(OSError):
            connection.setblocking(False)
            while (reply := framer.take()) is None and (chunk := connection.recv(_CHUNK)):
                framer.feed(chunk)
        self.close()
        if reply is None:
            raise _lost(method, "the daemon closed it")
        return reply


def _lost(method: str, why: object) -> ConnectionLost:
    return ConnectionLost(
        f"{method}: the connection was lost before the answer came ({why}); "
        "the daemon may have done what was asked or not"
    )


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _readable(connection: socket.socket) -> bool:
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(0))
