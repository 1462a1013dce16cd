"""The socket that receives switch commands for a simulated cluster.

A request is one line, a JSON list of words (:mod:`ganeti_masterd.simulation.switches`);
the answer is one line, ``[success, text]``. ``python -m ganeti_masterd.simulation``
is the client.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver

from ganeti_masterd.decoding import decode_json
from ganeti_masterd.simulation.calllog import CallLog
from ganeti_masterd.simulation.switches import SwitchedCluster, SwitchError, throw

log = Logger()

#: The socket, below the daemon's root.
CONTROL = "simulation/control"

#: The longest line that either side accepts, in bytes.
LONGEST = 1 << 20

USAGE = """usage: python -m ganeti_masterd.simulation [--root FOLDER] COMMAND...

Throws a switch of the simulated cluster below that root (default: GANETI_ROOTDIR).
The command "help" lists them all."""


class Switchable(SwitchedCluster, Protocol):
    """A simulated cluster that obeys switches, and writes the changes to disk."""

    log: CallLog


class SwitchProtocol(LineOnlyReceiver):
    """Answers the requests of one connection."""

    delimiter = b"\n"
    MAX_LENGTH = LONGEST

    def __init__(self, cluster: Switchable) -> None:
        self._cluster = cluster

    def lineReceived(self, line: bytes) -> None:
        """Handles one request; an error in it is answered and never raised."""
        self.sendLine(json.dumps(self._answer(line)).encode("ascii"))

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuses a request that is too long, and ends the connection."""
        self.sendLine(json.dumps((False, f"a command has at most {LONGEST} bytes")).encode("ascii"))
        super().lineLengthExceeded(line)

    def _answer(self, line: bytes) -> tuple[bool, str]:
        try:
            command = decode_json(line, list[str])
        except msgspec.DecodeError as error:
            return False, f"a command is a JSON list of words: {error}"
        try:
            said = throw(self._cluster, command)
        except SwitchError as error:
            return False, str(error)
        except Exception:
            log.failure("Bug in the switch {command}", command=command)
            return False, "a bug in the simulation; the daemon's log has it"
        finally:
            self._cluster.log.changed()
        log.info("Switch of the simulation: {command}", command=" ".join(command))
        return True, said


class SwitchFactory(ServerFactory):
    """Makes the protocol of each connection."""

    noisy = False

    def __init__(self, cluster: Switchable) -> None:
        self._cluster = cluster

    def buildProtocol(self, addr: object) -> SwitchProtocol:
        """Returns a protocol."""
        protocol = SwitchProtocol(self._cluster)
        protocol.factory = self
        return protocol


def listen(reactor: Any, path: str, cluster: Switchable) -> IListeningPort:
    """Listens on that path, for its owner only; replaces a socket left by a crash."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    port: IListeningPort = reactor.listenUNIX(path, SwitchFactory(cluster), mode=0o600)
    return port


def main(arguments: Sequence[str]) -> int:
    """Sends one command to a daemon and prints the answer; returns the exit code. Blocks."""
    words = list(arguments)
    root = os.environ.get("GANETI_ROOTDIR", "")
    if words[:1] == ["--root"] and len(words) > 1:
        root, words = words[1], words[2:]
    if not words or not root or words[0] in ("-h", "--help"):
        sys.stderr.write(f"{USAGE}\n")
        return 2
    path = os.path.join(root, CONTROL)
    try:
        good, text = _asked(path, words)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    if text:
        (sys.stdout if good else sys.stderr).write(f"{text}\n")
    return 0 if good else 1


def _asked(path: str, words: Sequence[str]) -> tuple[bool, str]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        connection.sendall(json.dumps(list(words)).encode("ascii") + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = connection.recv(65536)
            if not part or len(answer) > LONGEST:
                raise ValueError("the daemon closed the connection without an answer")
            answer += part
    good, text = json.loads(answer)
    return bool(good), str(text)
