"""The clerk: a process that replaces files for the daemon, so that its interpreter needn't.

It is told groups of files and answers each once it is replaced, in order. It lives no
longer than the daemon, and holds what descriptors it was given, such as the queue's lock.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.files import File, replace_files
from ganeti_masterd.journal.interfaces import IDisk

#: The longest message either way, in bytes.
LONGEST = 192 * 1024

#: Signals that are for the daemon, also where the whole group of processes gets them.
FOR_THE_DAEMON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

_PR_SET_PDEATHSIG = 1


class Orders(Struct, frozen=True):
    """What a clerk is told on its command line.

    ``descriptor``: its socket; ``daemon``: the process id that it serves; ``groups``: see
    :class:`~ganeti_masterd.journal.disk.RealDisk`.
    """

    descriptor: int
    daemon: int
    groups: Mapping[str, int]


class ClerkFault(Struct, frozen=True, array_like=True):
    """Why a group could not be replaced: what an ``OSError`` says."""

    number: int
    text: str
    path: str | None


#: One message to the clerk.
FileGroup = Sequence[File]

encode = msgspec.msgpack.Encoder().encode
decode_group = msgspec.msgpack.Decoder(list[File]).decode
decode_answer = msgspec.msgpack.Decoder(ClerkFault | None).decode


def serve(sock: socket.socket, disk: IDisk) -> None:
    """Replaces group after group until the other side hangs up."""
    while data := sock.recv(LONGEST):
        sock.send(encode(replace(disk, decode_group(data))))


def replace(disk: IDisk, files: FileGroup) -> ClerkFault | None:
    """Replaces a group; returns why that failed, or None."""
    try:
        for _ in replace_files(disk, files):
            pass
    except OSError as error:
        return ClerkFault(error.errno or 0, error.strerror or str(error), error.filename)
    return None


def end_with(daemon: int) -> bool:
    """Has the system kill this process as its parent ends; false if that is another already.

    What a dead daemon had asked for must not be done beside its successor.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    return os.getppid() == daemon


def main(argv: Sequence[str]) -> int:
    """Runs a clerk; returns the exit code."""
    for number in FOR_THE_DAEMON:
        signal.signal(number, signal.SIG_IGN)
    orders = msgspec.json.decode(argv[1], type=Orders)
    if not end_with(orders.daemon):
        return 1
    with socket.socket(fileno=orders.descriptor) as sock, contextlib.suppress(ConnectionError):
        serve(sock, RealDisk(orders.groups))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
