"""Opcodes that test the queue: OP_TEST_JQUEUE, OP_TEST_DUMMY and OP_TEST_OS_PARAMS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import ELOG_JQUEUE_TEST
from ganeti_masterd.errors import ECODE_ENVIRON, GenericError, OpExecError, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.trials.notification import Notification
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.opcodes.tests import TestDummy, TestJqueue, TestOsParams

#: Seconds for a test's client to connect, and then to disconnect.
CONNECT_TIMEOUT = 20.0
CONFIRM_TIMEOUT = 60.0

#: The prefix of test messages.
MESSAGE_PREFIX = "TESTMSG="


class TryQueue(LogicalUnit[TestJqueue], runs=TestJqueue):
    """Stops at agreed points until the test's client has made its checks; then ends."""

    prepares = True

    def prepare(self, ctx: Context) -> None:
        """Waits for the client while the job is waiting for locks."""
        if self.op.notify_waitlock:
            self._meet(ctx, "expandnames", None, waiting=True)
        ctx.info("Expanding names")

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the master node, so that the job has a lock."""
        if level is Level.NODE:
            return exclusive(snapshot.master.uuid)
        return super().locks(level, snapshot)

    def exec(self, ctx: Context) -> bool:
        """Waits for the client when the job starts to run, and after each message."""
        if self.op.notify_exec:
            self._meet(ctx, "exec", None)
        ctx.info("Executing")
        if self.op.log_messages:
            self._meet(ctx, "startmsg", len(self.op.log_messages))
            for number, message in enumerate(self.op.log_messages, 1):
                ctx.info(f"Sending log message {number}")
                ctx.feedback(MESSAGE_PREFIX + message)
                self._meet(ctx, "logmsg", number)
        if self.op.fail:
            raise OpExecError("Opcode failure was requested")
        return True

    def _meet(self, ctx: Context, test: str, argument: Any, *, waiting: bool = False) -> None:
        def refuse(text: str) -> GenericError:
            return prereq(text, ECODE_ENVIRON) if waiting else OpExecError(text)

        with Notification() as notification:
            ctx.feedback("", kind=ELOG_JQUEUE_TEST, value=[notification.path, test, argument])
            if notification.wait_connected(ctx, CONNECT_TIMEOUT) is None:
                raise refuse("The test's client didn't connect in time")
            if not notification.wait_confirmed(ctx, CONFIRM_TIMEOUT):
                raise refuse("The test's client didn't confirm in time")


class Dummy(LogicalUnit[TestDummy], runs=TestDummy):
    """Logs, submits, raises and returns what its parameters say.

    ``messages`` is a string or a list of strings for the log; ``submit_jobs`` a list of jobs;
    ``fail`` True or an error message. A ``result`` other than None isn't of the type that the
    opcode declares, and so makes it fail.
    """

    def exec(self, ctx: Context) -> Any:
        """Does all of that, in this order."""
        for message in _texts(self.op.messages):
            ctx.feedback(message)
        if self.op.submit_jobs:
            ids = ctx.submit([[decode_opcode(raw) for raw in job] for job in self.op.submit_jobs])
            ctx.feedback(f"Submitted jobs {', '.join(map(str, ids))}")
        if self.op.fail:
            raise OpExecError(
                self.op.fail if isinstance(self.op.fail, str) else "Opcode failure was requested"
            )
        return self.op.result


class TrySecrets(LogicalUnit[TestOsParams], runs=TestOsParams):
    """Shows that secret OS parameters arrived: the only opcode that logs them."""

    def exec(self, ctx: Context) -> None:
        """Logs the parameters; fails if there are none, as nothing was tested."""
        if not self.op.osparams_secret:
            raise OpExecError("Opcode needs secret parameters")
        ctx.feedback(f"Secret OS parameters: {dict(self.op.osparams_secret)}")


def _texts(messages: Any) -> Sequence[str]:
    if not messages:
        return ()
    return [messages] if isinstance(messages, str) else [str(text) for text in messages]
