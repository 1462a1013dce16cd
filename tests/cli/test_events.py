"""Tests of ``gnt-luxi events``, with a server that sends what a test says."""

from __future__ import annotations

import json
import socket
import threading
from typing import Any

from tests.cli.doubles import CommandCase

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n"

JOB: dict[str, Any] = {
    "id": 7,
    "status": "running",
    "summary": ["INSTANCE_STARTUP(web1)"],
    "progress": "half",
    "error": None,
}
WAIT = {"job_id": 8, "kind": "lock", "sentence": "Job 8 waits for node node1", "jobs": [7]}
STATE = {"event": "state", "seq": 1, "jobs": [JOB], "waits": [WAIT]}
LATER = [
    {"event": "log", "seq": 2, "id": 7, "text": "one\x1b[2J"},
    {"event": "job", "seq": 3, "job": {**JOB, "id": 9, "status": "error", "error": "No room"}},
    {"event": "archived", "seq": 4, "id": 9},
    {"event": "faults", "seq": 5, "faults": []},
    {"event": "config", "seq": 6, "serial": 5, "changed": [], "left_out": 0},
    {"event": "news", "seq": 7, "value": [1]},
]


class EventsTests(CommandCase):
    """The command."""

    def serve(self, *messages: Any, head: bytes = HEAD) -> str:
        """Sends this to the first who connects, and closes; returns the port."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        self.heard: list[bytes] = []
        body = b"".join(json.dumps(each).encode() + b"\n" for each in messages)

        def answer() -> None:
            try:
                connection, _ = listening.accept()
            except OSError:  # the test is over
                return
            with connection:
                self.heard.append(connection.recv(65536))
                connection.sendall(head + body)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)
        return str(listening.getsockname()[1])

    def test_state(self) -> None:
        """Without --follow the state is shown, and that is all."""
        said = self.run_ok("events", f"127.0.0.1:{self.serve(STATE, *LATER)}")
        self.assertEqual(
            said.splitlines(),
            ["job 7: running: INSTANCE_STARTUP(web1): half", "Job 8 waits for node node1"],
        )

    def test_follow(self) -> None:
        """With --follow it goes on to the end of the connection, which is an error."""
        port = self.serve(STATE, *LATER)
        said = self.run_failing("events", f"127.0.0.1:{port}", "--follow", "--since", "1", code=1)
        self.assertIn("the connection was lost", said.stderr)
        self.assertIn(b"GET /events?format=jsonl&since=1 ", self.heard[0])

    def test_json(self) -> None:
        """With --json it is the daemon's own object; --job chooses."""
        said = self.run_ok("events", f"127.0.0.1:{self.serve(LATER[0])}", "--json")
        self.assertEqual(json.loads(said), LATER[0])
        port = self.serve(LATER[0])
        self.assertEqual(self.run_ok("events", f"127.0.0.1:{port}", "--job", "9"), "")

    def test_each_kind(self) -> None:
        """Each kind has its words, one that is unknown too; control characters aren't printed."""
        for event, words in zip(
            LATER,
            (
                "job 7: one",
                "job 9: error: INSTANCE_STARTUP(web1): No room",
                "job 9: archived",
                "No faults any more",
                "configuration 5:",
                'news: {"value":[1]}',
            ),
            strict=True,
        ):
            said = self.run_ok("events", f"127.0.0.1:{self.serve(event)}")
            self.assertIn(words, said)
            self.assertNotIn("\x1b", said)

    def test_refused(self) -> None:
        """A refusal is shown in the daemon's words, and so is that nobody listens."""
        head = b"HTTP/1.1 503 Service Unavailable\r\n\r\nAs many look already as may\n"
        said = self.run_failing("events", f"127.0.0.1:{self.serve(head=head)}", code=1)
        self.assertIn("503 Service Unavailable: As many look already as may", said.stderr)
        said = self.run_failing("events", self.path("no-such-socket"), code=1)
        self.assertIn("Can't connect to", said.stderr)

    def test_nonsense(self) -> None:
        """What is no stream of events is said to be none."""
        said = self.run_failing("events", f"127.0.0.1:{self.serve([1])}", code=1)
        self.assertIn("A message is no event", said.stderr)
