"""Requests that went wrong on the way, and what a daemon may do with each.

See protocol/luxi.rst, Framing.
"""

from __future__ import annotations

import json
import math
import random
import re
import select
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ganeti_masterd import errors
from ganeti_masterd.luxi.documents import MAX_NESTING
from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.waiting import unfinished

END = b"\x03"

#: How many messages are sent between two times of cleaning up.
_TURN = 2000

#: Seconds after which only a client that waits for a job has no answer, and after which no other
#: has one: on a busy machine a process may stand still for a while.
_SOON = 1.0
_AT_LAST = 30.0

#: Requests that real tools sent to Ganeti 3.0.2.
RECORDED = Path(__file__).parents[1] / "data" / "luxi_requests.json"

_DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0.001, "on_nodes": ["node2"], "repeat": 2}
_TAGS = {"OP_ID": "OP_TAGS_SET", "kind": "cluster", "tags": ["a", "b"], "name": ""}

#: Requests that no tool happened to send, or that these nodes can run.
_OWN: list[tuple[str, list[Any]]] = [
    ("SubmitJob", [[_DELAY]]),
    ("SubmitJob", [[_DELAY, {**_TAGS, "OP_ID": "OP_TAGS_DEL"}, {**_TAGS, "priority": 10}]]),
    ("SubmitManyJobs", [[[_DELAY], [{**_DELAY, "depends": [[-1, ["success"]]]}], [_TAGS]]]),
    ("SubmitJobToDrainedQueue", [[{"OP_ID": "OP_TAGS_GET", "kind": "node", "name": "node2"}]]),
    ("SubmitJob", [[{"OP_ID": "OP_TAGS_SEARCH", "pattern": "^a+$"}]]),
    ("SubmitJob", [[{"OP_ID": "OP_TEST_DUMMY", "result": [1, {"a": None}], "messages": ["x"]}]]),
    ("WaitForJobChange", [1, ["status", "opresult"], ["queued", None], 0, 0.01]),
    ("QueryJobs", [None, ["id", "status", "summary", "archived"]]),
    ("QueryJobs", [[1, "2", 3], ["id", "ops", "opresult", "received_ts"]]),
    ("ChangeJobPriority", ["3", -5]),
    ("CancelJob", [2, True]),
    ("AutoArchiveJobs", [0.5, 1]),
    ("QueryNetworks", [[], ["name", "network"], False]),
    ("QueryExports", [["node1"], False]),
    ("QueryFilters", [None, ["uuid", "priority"]]),
    ("ReplaceFilter", [None, 5, [["jobid", [">", "id", "watermark"]]], "PAUSE", []]),
    ("DeleteFilter", ["0d6a8a3a-25a4-4ba3-9a51-b02f4c1a7b5e"]),
    ("PickupJob", [4]),
    ("SetDrainFlag", [False]),
]

#: Text that parsers stumble over.
_TRAPS = [
    *(b"NaN", b"-Infinity", b"1e999", b"-", b"01", b"1.", b"\\ud800", b"\\u0000", b"\\u003a"),
    *(b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"\x00", b"\xef\xbb\xbf", b"//", b",", b":", b'"'),
    *(b"[" * 300, b'{"a":' * 250, b"9" * 5000, b"null", b"true", b"{}", b"[]", b" \t\r\n"),
]

_VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**40, 0.5, -1e-300, 1e300),
    *("", "0", "x", "node1", "OP_TEST_DELAY", "\u0000", "\U0001f600", "ä" * 300, "x" * 5000),
    *([], {}, [[]], {"": None}, [[[[[[[[]]]]]]]], {"OP_ID": "OP_NOPE"}, [None] * 50),
    *(["&"], ["|"], ["!", ["!", []]], ["=~", "name", "("], ["=~", "name", "(a+)+$"], ["=", 1, {}]),
]


class Mutations:
    """An endless supply of messages, most of them wrong. All from one source of chance."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._documents = json.loads(RECORDED.read_bytes())
        self._documents += [{"method": method, "args": args} for method, args in _OWN]
        self._methods = sorted({document["method"] for document in self._documents})
        self._kinds: list[Callable[[], bytes]] = [
            *[self._valid] * 4,
            *[self._changed_values] * 12,
            *[self._changed_bytes] * 8,
            *(self._other_method, self._other_version, self._duplicate_key, self._no_request),
        ]

    def __iter__(self) -> Iterator[bytes]:
        """Yields messages without their end byte; none of them starts anything long."""
        while True:
            message = self._chance.choice(self._kinds)().replace(END, b"\x04")
            if not _is_long(message):
                yield message

    def _document(self) -> Any:
        return _copy(self._chance.choice(self._documents))

    def _text(self, document: Any) -> bytes:
        ascii_only = self._chance.random() < 0.5
        blanks = self._chance.choice((None, (",", ":"), (" , ", " :\t")))
        return json.dumps(document, ensure_ascii=ascii_only, separators=blanks).encode()

    def _valid(self) -> bytes:
        return self._text(self._document())

    def _changed_values(self) -> bytes:
        document = self._document()
        for _ in range(self._chance.choice((1, 1, 1, 2, 4))):
            holders = list(_containers(document["args"])) or [document["args"]]
            holder = self._chance.choice(holders)
            roll, value = self._chance.random(), _copy(self._chance.choice(_VALUES))
            if isinstance(holder, dict):
                key = self._chance.choice([*holder, "surprise"])
                if roll < 0.2:
                    holder.pop(key, None)
                else:
                    holder[key] = value
            elif not holder or roll < 0.15:
                holder.append(value)
            elif roll < 0.3:
                holder.pop(self._chance.randrange(len(holder)))
            else:
                holder[self._chance.randrange(len(holder))] = value
        return self._text(document)

    def _changed_bytes(self) -> bytes:
        data = bytearray(self._valid())
        for _ in range(self._chance.choice((1, 1, 2, 5))):
            start = self._chance.randrange(len(data) + 1)
            end = min(len(data), start + self._chance.choice((1, 1, 2, 8, 60)))
            roll = self._chance.random()
            if roll < 0.25:
                del data[start:end]
            elif roll < 0.45:
                data[start:end] = self._chance.randbytes(end - start)
            elif roll < 0.6:
                data[start:start] = data[start:end] * self._chance.choice((1, 3, 40))
            elif roll < 0.85:
                data[start:start] = self._chance.choice(_TRAPS)
            elif roll < 0.95:
                del data[start:]
            else:
                data[start:end] = self._valid()
        return bytes(data)

    def _other_method(self) -> bytes:
        document = self._document()
        odd = ["", "queryjobs", "QueryJobs ", "Ünbekannt", "\u0000", "x" * 3000, None, 5, [], {}]
        document["method"] = self._chance.choice([*self._methods * 2, *odd])
        return self._text(document)

    def _other_version(self) -> bytes:
        document = self._document()
        document["version"] = self._chance.choice(
            [2050000, 2060000, 3010000, 0, -1, 2999999, 2**70, 3.0, "3000000", None, True, [], {}]
        )
        return self._text(document)

    def _duplicate_key(self) -> bytes:
        data = self._valid()
        at = self._chance.choice([place for place, byte in enumerate(data) if byte == ord("{")]) + 1
        key = self._chance.choice((b'"method":"Query",', b'"args":[],', b'"OP_ID":1,', b'"":0,'))
        return data[:at] + key + data[at:]

    def _no_request(self) -> bytes:
        document = self._document()
        roll = self._chance.randrange(4)
        if roll == 0:
            return self._text(self._chance.choice([*_VALUES, [document]]))
        if roll == 1:
            document.pop(self._chance.choice(("method", "args")))
            return self._text(document)
        if roll == 2:
            document["args"] = self._chance.choice([None, {}, 0, "x", True])
            return self._text(document)
        return self._chance.randbytes(self._chance.choice((0, 1, 5, 500)))


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, dict)):
        yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _containers(inner)


def _is_long(message: bytes) -> bool:
    """Whether a request would start a job that takes long, which no client could end."""
    try:
        document = json.loads(message)
    except (ValueError, RecursionError):
        return False
    return any(
        isinstance(container, dict)
        and any(
            isinstance(value, (int, float)) and value > limit
            for value, limit in ((container.get("duration"), 0.01), (container.get("repeat"), 3))
        )
        for container in _containers(document)
    )


def understood(message: bytes) -> bool:
    """Whether a message is a request at all: if not, it is answered and the connection ends.

    By Python's own JSON, not by what the daemon uses.
    """
    try:
        document = json.loads(
            message.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict) or not document.keys() >= {"method", "args"}:
        return False
    return _is_sound(document)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _is_sound(document: Any) -> bool:
    """Whether texts are Unicode, numbers finite, and nothing is nested too deep."""
    level = [document]
    for _ in range(MAX_NESTING + 1):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                below += [*value, *value.values()]
            elif isinstance(value, list):
                below += value
            elif _is_odd(value):
                return False
        if not below:
            return True
        level = below
    return not any(isinstance(value, (list, dict)) for value in level)


def _is_odd(value: Any) -> bool:
    if isinstance(value, str):
        return re.search("[\ud800-\udfff]", value) is not None
    return isinstance(value, float) and not math.isfinite(value)


class Fuzzer:
    """One client that sends mutations, in pieces and in bundles, and looks at each answer."""

    def __init__(self, daemon: DaemonProcess, seed: int) -> None:
        self._daemon = daemon
        self._chance = random.Random(seed)
        self._messages = iter(Mutations(self._chance))
        self._socket: socket.socket | None = None
        self._barrier: socket.socket | None = None
        self._received = b""
        #: How often which kind of answer came.
        self.counts: Counter[str] = Counter()

    def run(self, count: int) -> None:
        """Sends ``count`` messages; fails with the message whose answer was wrong.

        Every now and then it cleans up, so that most requests find a daemon that takes jobs.
        """
        for start in range(0, count, _TURN):
            try:
                self._run(min(_TURN, count - start))
            finally:
                self._close()
            clean_up(self._daemon)

    def _run(self, count: int) -> None:
        sent = 0
        while sent < count:
            bundle = [next(self._messages)]
            if self._chance.random() < 0.1:
                bundle += [next(self._messages) for _ in range(self._chance.randint(1, 4))]
            sent += len(bundle)
            self._send(b"".join(message + END for message in bundle))
            for message in bundle:
                if not self._check(message):
                    break

    def _close(self) -> None:
        for connection in (self._socket, self._barrier):
            if connection is not None:
                connection.close()
        self._socket = self._barrier = None
        self._received = b""

    def _check(self, message: bytes) -> bool:
        """Looks at one answer; returns whether the connection goes on."""
        shown = message if len(message) < 2000 else message[:1000] + b" ... " + message[-500:]
        try:
            reply = self._receive(_SOON)
        except TimeoutError:
            if b"WaitForJobChange" in message:
                self.counts["waits"] += 1
                self._hang_up()
                return False
            self.counts["slow"] += 1
            reply = self._receive(_AT_LAST)
        assert reply is not None, f"closed without an answer to {shown!r}"
        kind = check_reply(reply)
        self.counts[kind] += 1
        # How a fault that nobody foresaw is answered; its traceback is in the log.
        assert kind != "OpExecError", f"{reply!r} in answer to {shown!r}"
        if understood(message):
            return True
        assert kind == "LuxiError", f"{kind} in answer to {shown!r}"
        assert self._receive(_AT_LAST) is None, f"still open after {shown!r}"
        self._hang_up()
        return False

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            self._socket = self._connect()
        roll = self._chance.random()
        if roll < 0.85 or len(data) < 4:
            pieces = [data]
        elif roll < 0.95:
            cuts = sorted(self._chance.sample(range(1, len(data)), self._chance.randint(1, 3)))
            pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        else:
            pieces = [data[at : at + 1] for at in range(len(data))][:3000]
            pieces += [data[3000:]] if len(data) > 3000 else []
        limit = _SOON if b"WaitForJobChange" in data else _AT_LAST
        for number, piece in enumerate(pieces):
            if 0 < number < 4:
                self._wait_for_reading()
            if not self._push(piece, limit):
                return

    def _push(self, piece: bytes, limit: float) -> bool:
        """Sends a piece, and reads meanwhile, as the daemon takes no more until it is read.

        Returns whether the daemon took it all within ``limit`` seconds: not after it has
        refused an earlier message, nor while one waits for a job.
        """
        assert self._socket is not None
        self._socket.setblocking(False)
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLOUT)
        left = memoryview(piece)
        while left:
            events = poll.poll(limit * 1000)
            if not events:
                return False
            try:
                if events[0][1] & select.POLLOUT:
                    left = left[self._socket.send(left) :]
                if events[0][1] & ~select.POLLOUT:
                    chunk = self._socket.recv(1 << 18)
                    if not chunk:
                        return False
                    self._received += chunk
            except BlockingIOError:
                continue
            except ConnectionError:
                return False
        return True

    def _wait_for_reading(self) -> None:
        """Asks on another connection: by its answer, what was sent before has been read."""
        if self._barrier is None:
            self._barrier = self._connect()
        self._barrier.sendall(b'{"method":"QueryConfigValues","args":[["cluster_name"]]}\x03')
        while not self._barrier.recv(4096).endswith(END):
            pass

    def _receive(self, limit: float) -> bytes | None:
        """Returns the next reply, null at the end of the connection; raises ``TimeoutError``."""
        assert self._socket is not None
        self._socket.settimeout(limit)
        while END not in self._received:
            try:
                chunk = self._socket.recv(1 << 18)
            except ConnectionError:
                chunk = b""
            if not chunk:
                assert not self._received, f"half an answer: {self._received[:200]!r}"
                return None
            self._received += chunk
        reply, _, self._received = self._received.partition(END)
        return reply

    def _hang_up(self) -> None:
        assert self._socket is not None
        self._socket.close()
        self._socket = None
        self._received = b""

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(self._daemon.socket)
        connection.settimeout(_AT_LAST)
        return connection


def check_reply(reply: bytes) -> str:
    """Checks the form of a reply; returns "success" or the class of the error."""
    document = json.loads(reply, parse_constant=_refuse)
    assert document.keys() == {"success", "result"}, reply
    if document["success"] is True:
        return "success"
    assert document["success"] is False, reply
    name, args = document["result"]
    assert issubclass(getattr(errors, name), errors.GenericError), reply
    assert isinstance(args, list), reply
    assert args, reply
    return str(name)


def clean_up(daemon: DaemonProcess) -> None:
    """Ends and archives all jobs, so that what is left of memory can be compared.

    Whatever keeps new jobs from running is undone.
    """
    with daemon.client() as master:
        master.set_drain_flag(False)
        for (uuid,) in master.query_filters(None, ["uuid"]):
            master.delete_filter(uuid)
        while open_ones := unfinished(master):
            for job in open_ones:
                master.cancel_job(job, kill=True)
        master.auto_archive_jobs(-1, 30)
