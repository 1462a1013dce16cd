"""The documentation's monitor, run against a LUXI server on a real socket."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure

from ganeti_masterd.luxi.messages import LuxiRequest
from ganeti_masterd.luxi.peers import Peer
from tests.luxi.doubles import SocketCase, reactor

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "monitor.py"


class ExampleTests(SocketCase):
    """``docs/examples/monitor.py``."""

    def setUp(self) -> None:
        super().setUp()
        self.jobs: dict[int, str] = {}
        self.printed = StringIO()
        self.patch(sys, "stdout", self.printed)
        spec = spec_from_file_location("monitor", EXAMPLE)
        assert spec is not None
        assert spec.loader is not None
        self.monitor = module_from_spec(spec)
        spec.loader.exec_module(self.monitor)
        self.rounds: list[Deferred[None]] = []
        self.awaited: Deferred[None] = Deferred()
        self.patch_wait()

    def patch_wait(self) -> None:
        """Lets the test control the monitor's wait between two calls."""

        def wait(clock: Any, delay: float) -> Deferred[None]:
            self.assertEqual(delay, 1.0)
            over: Deferred[None] = Deferred()
            self.rounds.append(over)
            awaited, self.awaited = self.awaited, Deferred()
            awaited.callback(None)
            return over

        self.patch(self.monitor, "deferLater", wait)

    def answer(self, request: LuxiRequest, peer: Peer) -> Any:
        """Answers like a daemon with these jobs."""
        self.assertEqual(request.method, "QueryJobs")
        ids, fields = request.args
        if fields == ["id", "status"]:
            self.assertIsNone(ids)
            return [[job, status] for job, status in self.jobs.items()]
        self.assertEqual(fields, ["id", "summary", "opresult"])
        return [[job, ["TEST_DELAY"], [["OpExecError", ["no"]]]] for job in ids]

    def monitor_ended(self, failure: Failure) -> None:
        """The monitor runs until it is cancelled."""
        if not failure.check(CancelledError):
            self.awaited.errback(failure)

    async def look_again(self) -> str:
        """Lets a second pass; returns what was printed since the last call."""
        self.printed.seek(0)
        self.printed.truncate()
        awaited = self.awaited
        self.rounds.pop().callback(None)
        await awaited
        return self.printed.getvalue()

    async def test_follows(self) -> None:
        """It prints counts when they change, and new failures, also after a restart."""
        factory = self.listen(self.answer)
        self.jobs = {1: "error", 2: "running"}
        first = self.awaited
        running = ensureDeferred(self.monitor.main(reactor, self.path))
        running.addErrback(self.monitor_ended)
        await first
        self.assertEqual(self.printed.getvalue(), "1 error, 1 running\n")
        self.assertEqual(await self.look_again(), "")
        self.jobs = {1: "error", 2: "success", 2**63: "error"}
        self.assertEqual(
            await self.look_again(),
            f"2 error, 1 success\nJob {2**63} failed: TEST_DELAY: [['OpExecError', ['no']]]\n",
        )
        await factory.close()
        self.jobs[2] = "error"
        told = await self.look_again()
        if "failed" not in told:  # the client learnt only now that its connection is gone
            self.assertIn("lost", told)
            told = await self.look_again()
        self.assertIn("Job 2 failed", told)
        running.cancel()
