"""Common parts of the command line's tests: a daemon in a thread, running the command."""

from __future__ import annotations

import json
import os
import shutil
import socketserver
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli.main import program
from ganeti_masterd.errors import encode_error

#: The time used in all rows below: 2026-01-02 03:04:05 UTC.
NOW = 1767323045

OK_ROW: dict[str, Any] = {
    "id": 7,
    "status": "success",
    "summary": ["TEST_DELAY(1.0)"],
    "received_ts": [NOW, 0],
    "start_ts": [NOW, 250000],
    "end_ts": [NOW + 1, 500000],
    "opstatus": ["success"],
    "opresult": [None],
    "oplog": [[[1, [NOW, 300000], "message", "half way"]]],
    "priority": 0,
    "archived": False,
    "ops": [
        {
            "OP_ID": "OP_TEST_DELAY",
            "duration": 1.0,
            "priority": 0,
            "comment": None,
            "reason": [["gnt:user", "to see", 5]],
        }
    ],
    "oppriority": [0],
    "opstart": [[NOW, 250000]],
    "opexec": [[NOW, 260000]],
    "opend": [[NOW + 1, 500000]],
}

FAILED_ROW: dict[str, Any] = {
    **OK_ROW,
    "id": 8,
    "status": "error",
    "opstatus": ["error"],
    "opresult": [["OpPrereqError", ["no such node", "unknown_entity"]]],
    "oplog": [[]],
}


def job_answers(*rows: dict[str, Any]) -> Callable[..., Any]:
    """Returns a function that answers QueryJobs from these rows."""
    known = {row["id"]: row for row in rows}

    def answer(ids: list[int] | None, fields: list[str]) -> list[list[Any]]:
        missing: dict[str, Any] = dict.fromkeys(fields)
        return [
            [known.get(job, {**missing, "id": job})[name] for name in fields]
            for job in (ids or known)
        ]

    return answer


class FakeDaemon(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers LUXI calls from a table: values, functions of the arguments, or errors."""

    daemon_threads = True

    def __init__(self, case: Any, path: str) -> None:
        super().__init__(path, _Connection)
        self.answers: dict[str, Any] = {}
        self.heard: list[tuple[str, list[Any]]] = []
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        case.addCleanup(thread.join, 10)
        case.addCleanup(self.server_close)
        case.addCleanup(self.shutdown)

    def answer(self, method: str, args: list[Any]) -> tuple[bool, Any]:
        self.heard.append((method, args))
        answer = self.answers[method]
        try:
            if isinstance(answer, Exception):
                raise answer
            return True, answer(*args) if callable(answer) else answer
        except ConnectionError:  # the connection is to end
            raise
        except Exception as error:
            return False, encode_error(error)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Suppresses messages about connections that were closed on purpose."""


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        data = b""
        while chunk := self.request.recv(65536):
            data += chunk
            while b"\x03" in data:
                message, data = data.split(b"\x03", 1)
                request = json.loads(message)
                success, result = self.server.answer(  # type: ignore[attr-defined]
                    request["method"], request["args"]
                )
                reply = {"success": success, "result": result}
                self.request.sendall(json.dumps(reply).encode() + b"\x03")


class FolderCase(SynchronousTestCase):
    """A test with its own folder, with a path short enough for sockets, and no environment."""

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)
        self.patch(os, "environ", {**os.environ, "TZ": "UTC", "HOME": self.folder})
        for name in ("GANETI_ROOTDIR", "XDG_STATE_HOME"):
            os.environ.pop(name, None)

    def path(self, *names: str) -> str:
        return os.path.join(self.folder, *names)

    def write(self, name: str, content: Any) -> str:
        """Writes a file, as JSON if it isn't text; returns its path."""
        path = self.path(name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content if isinstance(content, str) else json.dumps(content))
        return path

    def invoke(self, *args: str, input: str | bytes | None = None) -> Result:
        """Runs the command with these arguments; unhandled exceptions are raised."""
        result = CliRunner().invoke(program, args, input=input, prog_name="gnt-luxi")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result


class CommandCase(FolderCase):
    """A test of commands with a daemon that answers from a table."""

    def setUp(self) -> None:
        super().setUp()
        self.socket = self.path("socket")
        self.daemon = FakeDaemon(self, self.socket)

    def run_ok(self, *args: str, input: str | bytes | None = None) -> str:
        """Runs a command that must succeed and print nothing on standard error."""
        result = self.invoke("--socket", self.socket, *args, input=input)
        self.assertEqual((result.exit_code, result.stderr), (0, ""), result.output)
        return result.stdout

    def run_json(self, *args: str, input: str | bytes | None = None) -> Any:
        """Runs a command with ``--json`` in both places; returns the document that it prints."""
        before = self.run_ok("--json", *args, input=input)
        self.assertEqual(before, self.run_ok(*args, "--json", input=input))
        return json.loads(before)

    def run_failing(self, *args: str, code: int = 1, input: str | bytes | None = None) -> Result:
        """Runs a command that must end with this exit code."""
        result = self.invoke("--socket", self.socket, *args, input=input)
        self.assertEqual(result.exit_code, code, result.output)
        return result
