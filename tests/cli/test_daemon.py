"""Starting and stopping a daemon process: what can go wrong."""

from __future__ import annotations

import os
import signal
import sys

from ganeti_masterd.cli import daemon
from ganeti_masterd.cli.daemon import DemoDaemon, DemoDaemonFailed
from tests.cli.doubles import FakeDaemon, FolderCase

#: Writes to its log that it runs, then behaves as asked; never answers a call.
BODY = "import signal, sys, time; print('here I am', flush=True); "


class DaemonProcessTests(FolderCase):
    """With a script in place of twistd."""

    def process(self, body: str) -> DemoDaemon:
        process = DemoDaemon(
            self.path("root"), self.path("log"), twistd=(sys.executable, "-c", BODY + body)
        )
        self.addCleanup(process.__exit__)
        return process

    def test_ends_at_once(self) -> None:
        """If it ends instead of answering, the error has its exit code and its log's end."""
        process = self.process("print('no luck'); sys.exit(3)")
        error = str(self.assertRaises(DemoDaemonFailed, process.start))
        self.assertIn("did not start: it ended with exit code 3", error)
        self.assertIn(self.path("log"), error)
        self.assertIn("    here I am\n    no luck", error)

    def test_never_answers(self) -> None:
        """If it runs but doesn't answer, the start fails and the process is ended."""
        with self.process("time.sleep(60)") as process:
            error = str(self.assertRaises(DemoDaemonFailed, process.start, limit=0.2))
            self.assertIn("after 0.2 seconds", error)
            os.kill(process.pid, 0)
        self.assertRaises(ProcessLookupError, os.kill, process.pid, 0)

    def test_stop_limit(self) -> None:
        """If it doesn't stop, that is an error, and it is killed afterwards."""
        self.patch(daemon, "LEAVE_LIMIT", 0.05)
        body = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); "
        with self.process(body + "time.sleep(60)") as process:
            self.assertRaises(DemoDaemonFailed, process.start, limit=1)
            error = str(self.assertRaises(DemoDaemonFailed, process.stop, limit=0.05))
            self.assertIn("did not stop within 0.05 seconds", error)
        self.assertRaises(ProcessLookupError, os.kill, process.pid, 0)

    def test_exit_codes(self) -> None:
        """Ending by the signal or with code 0 is success; any other code is an error."""
        for code in (0, 1):
            body = f"signal.signal(signal.SIGTERM, lambda *_: sys.exit({code})); time.sleep(60)"
            process = self.process(body)
            self.assertRaises(DemoDaemonFailed, process.start, limit=1)
            if code:
                error = self.assertRaises(DemoDaemonFailed, process.stop)
                self.assertIn("ended with exit code 1", str(error))
            else:
                self.assertEqual(process.stop(), 0)
        process = self.process("time.sleep(60)")
        self.assertRaises(DemoDaemonFailed, process.start, limit=0.5)
        self.assertEqual(process.stop(), -signal.SIGTERM)

    def test_another(self) -> None:
        """If another daemon already answers, none is started."""
        process = self.process("time.sleep(60)")
        os.makedirs(process.paths.sockets)
        other = FakeDaemon(self, process.paths.socket)
        other.answers["QueryConfigValues"] = ["cluster"]
        error = self.assertRaises(DemoDaemonFailed, process.start)
        self.assertIn("is already running in", str(error))
        self.assertFalse(os.path.exists(process.log))
