"""A real process on a real disk, killed as it commits; then opened again."""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import ProcessProtocol
from twisted.trial.unittest import TestCase

from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.layout import job_number
from tests.examples import examples
from tests.journal.committing import locked, opened
from tests.journal.scene import put

ROUNDS = examples(3, 20)


class _Killed(ProcessProtocol):
    """Kills the process once it has acknowledged as many commits."""

    def __init__(self, lines: int) -> None:
        self.lines = lines
        self.output = b""
        self.errors = b""
        self.ended: Deferred[None] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.output += data
        if self.output.count(b"\n") >= self.lines:
            self.lines = 1 << 60
            self.transport.signalProcess("KILL")

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)


class KillTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_nothing_acknowledged_is_lost(self) -> Any:
        """Whatever a killed process acknowledged is in the files after the next start."""
        from twisted.internet import reactor  # noqa: TID251

        root = os.path.realpath(self.mktemp())
        os.makedirs(f"{root}/queue")
        put(RealDisk(), f"{root}/config.data", b"{}")
        top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        acknowledged: dict[int, int] = {}
        for number in range(ROUNDS):
            process = _Killed(150 + 211 * number)
            reactor.spawnProcess(
                process,
                sys.executable,
                [sys.executable, "-m", "tests.journal.committing", root],
                env={**os.environ, "PYTHONPATH": top},
                path=top,
            )
            yield process.ended
            lines = process.output.decode().splitlines(keepends=True)
            self.assertGreater(len(lines), 100, process.errors.decode())
            for line in lines:
                if line.endswith("\n"):
                    job_id, n = map(int, line.split())
                    acknowledged[job_id] = n
            lock = locked(root)
            recovered = opened(root)
            recovered.store.close()
            os.close(lock)
            self.assertGreater(recovered.replayed, 0)
            self.assertGreaterEqual(recovered.reserved, max(acknowledged))
            found = {}
            for name in os.listdir(f"{root}/queue"):
                if name != "serial":
                    job_id = job_number(name) or 0
                    body = RealDisk().read(f"{root}/queue/{name}")
                    found[job_id] = msgspec.json.decode(body or b"")["n"]
            config = msgspec.json.decode(RealDisk().read(f"{root}/config.data") or b"")
            for job_id, n in acknowledged.items():
                self.assertGreaterEqual(found[job_id], n)
                self.assertEqual(config[str(job_id)], found[job_id])
