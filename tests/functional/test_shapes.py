"""The recorded shapes of LUXI's arguments, held against the real luxid where it is installed."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.functional.conftest import need_peer
from tests.functional.realcluster import RealCluster

RECORDED: dict[str, dict[str, Any]] = msgspec.json.decode(
    (Path(__file__).parents[1] / "data" / "luxi_methods.json").read_bytes()
)["methods"]

END = b"\x03"

#: Seconds in which luxid answers; what it never answers is no answer.
PATIENCE = 10.0

#: Methods that luxid answers with an error whatever well-formed arguments they have.
ALWAYS_FAIL = ("DeleteFilter", "PickupJob")


class Luxid:
    """A client that sends anything; luxid closes the connection where it can't read a request."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None

    def ask(self, method: str, args: list[Any]) -> tuple[bool, Any]:
        """Returns whether a request succeeded, and the result."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(PATIENCE)
            self._socket.connect(self._path)
        document = {"method": method, "args": args, "version": 3000000}
        self._socket.sendall(json.dumps(document).encode() + END)
        reply = b""
        while not reply.endswith(END):
            part = self._socket.recv(65536)
            assert part, f"closed without an answer to {document}"
            reply += part
        answer = json.loads(reply[:-1])
        if not answer["success"] and isinstance(answer["result"], str):
            self.close()
        return answer["success"], answer["result"]

    def close(self) -> None:
        """Ends the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


@pytest.fixture(scope="module")
def luxid(module_folder: Path) -> Iterator[Luxid]:
    """The luxid of a real cluster of one node, with five jobs that have ended."""
    need_peer()
    cluster = RealCluster(module_folder)
    try:
        cluster.up(["node1"])
        client = Luxid(cluster.paths.socket)
        for _ in range(5):
            cluster.run("gnt-debug delay 0.01").checked()
        yield client
        client.close()
    finally:
        cluster.close()


def answers(luxid: Luxid, method: str, args: list[Any]) -> bool:
    """Whether luxid answers a request; what that changes is put back."""
    if method == "SetDrainFlag" and args[:1] == [False]:
        luxid.ask(method, [True])  # un-draining an open queue is never answered
    good, result = luxid.ask(method, args)
    if method == "SetDrainFlag" and good and args[0]:
        luxid.ask(method, [False])
    # An error of the method itself means that its arguments were read.
    return good or (method in ALWAYS_FAIL and not isinstance(result, str))


def test_counts(luxid: Luxid) -> None:
    """Luxid takes the recorded counts of arguments and no other."""
    for method, recorded in RECORDED.items():
        good = recorded["arguments"]
        counts = [n for n in range(8) if answers(luxid, method, [*good, *[None] * 8][:n])]
        assert counts == recorded["counts"], method


def test_values(luxid: Luxid) -> None:
    """Luxid answers and refuses the recorded values."""
    for method, recorded in RECORDED.items():
        if method in ALWAYS_FAIL:
            continue
        for place, values in enumerate(recorded["values"]):
            for key, wanted in (("answered", True), ("refused", False)):
                for value in values[key]:
                    args = list(recorded["arguments"])
                    args[place] = value
                    assert answers(luxid, method, args) == wanted, (method, args)
