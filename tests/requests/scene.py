"""Everything that LUXI methods use, in memory: a queue, a real configuration, nodes."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from ganeti_masterd.config.document import parse
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.constants import LUXI_VERSION
from ganeti_masterd.errors import GenericError
from ganeti_masterd.jobs.control import JobControl
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.jobs.scheduler import Scheduler
from ganeti_masterd.jobs.submission import Submission
from ganeti_masterd.jobs.switches import Switches
from ganeti_masterd.jobs.watch import JobWatch
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.luxi.messages import Encoded, LuxiRequest
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.query.jobs import job_values
from ganeti_masterd.query.waits import JobWaits
from ganeti_masterd.requests.daemon import Daemon
from ganeti_masterd.requests.registry import LuxiAnswers
from ganeti_masterd.testing.journal import MemoryJournal
from ganeti_masterd.testing.nodes import Failed, ScriptedNodes
from tests.config.sample import CONTENT
from tests.jobs.scene import QueueScene

#: A version that 2.x clients send.
CLASSIC = 2050000

DELAY = {"OP_ID": "OP_TEST_DELAY", "duration": 0.001}


class DiskJournal(MemoryJournal):
    """A journal in memory whose effects happen on a real disk."""

    def effect(self, function: Any, *args: Any) -> Deferred[Any]:
        """See ``IJournal.effect``."""
        return super().effect(lambda _: function(RealDisk(), *args))


class RequestScene(QueueScene):
    """Base of tests that make requests as a client does."""

    limit = 5

    def setUp(self) -> None:
        self.nodes = ScriptedNodes({"export_list": [], ("node3", "export_list"): Failed("down")})
        super().setUp()

    def make_queue(self) -> None:
        """Makes the queue and everything that requests use."""
        self.journal = DiskJournal()
        self.folder = QueueFolder(os.path.abspath(self.folder.queue))
        self.watch = JobWatch(self.timers, job_values)
        self.queue = JobQueue(
            self.folder, self.journal, self.timers, self.events, Scheduler(self.limit), self.watch
        )
        self.submission = Submission(self.queue)
        self.control = JobControl(self.queue)
        self.store = ConfigStore(parse(CONTENT), self.journal, self.timers)
        self.store.on_change(
            lambda before, after: self.queue.admission.set_rules(after.filters.values())
        )
        self.switches = Switches(self.queue, self.folder.queue + "/watcher.pause")
        self.locks = LockKeeper(self.timers, self.events)
        engine = QueryEngine(
            self.timers,
            lambda: self.store.snapshot,
            self.nodes,
            self.queue,
            lambda: [],
            self.switches,
        )
        self.daemon = Daemon(
            queue=self.queue,
            submission=self.submission,
            control=self.control,
            switches=self.switches,
            store=self.store,
            engine=engine,
            waits=JobWaits(self.queue, self.locks, lambda: self.store.snapshot),
        )
        self.answers = LuxiAnswers(self.daemon)
        self.peer = Peer(1, uid=1000, pid=77, gid=1000)

    def ask(self, method: str, *args: Any, version: int | None = LUXI_VERSION) -> Any:
        """Returns the answer: a value, or a Deferred."""
        return self.answers(LuxiRequest(method, list(args), version), self.peer)

    def call(self, method: str, *args: Any, version: int | None = LUXI_VERSION) -> Any:
        """Returns the answer as a client reads it; raises the error that it would."""
        result = self.ask(method, *args, version=version)
        if isinstance(result, Deferred):
            for _ in range(50):
                if result.called:
                    break
                self.clock.advance(0.001)
            outcome: list[Any] = []
            result.addBoth(outcome.append)
            self.assertTrue(outcome, f"{method} gave no answer")
            (result,) = outcome
            if hasattr(result, "raiseException"):
                result.raiseException()
        if isinstance(result, Encoded):
            return json.loads(result.data)
        return json.loads(msgspec.json.encode(result))

    def refused(
        self, method: str, *args: Any, kind: type[GenericError] = GenericError, **how: Any
    ) -> str:
        """Checks that a call is refused with exactly this class; returns the message."""
        error = self.assertRaises(GenericError, self.call, method, *args, **how)
        self.assertIs(type(error), kind, error)
        return str(error.args[0])
