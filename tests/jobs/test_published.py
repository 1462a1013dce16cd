"""What replication is told of the queue, and what it tells the queue."""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed

from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.jobs.model import decode_job, encode_job
from ganeti_masterd.jobs.published import PublishedState
from ganeti_masterd.jobs.submission import Submission
from ganeti_masterd.jobs.switches import Switches
from tests.config.sample import CONTENT, sample
from tests.jobs.scene import QueueScene, delay


class OtherNodes:
    """Other nodes, which take flags when told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.done: Deferred[None] = Deferred()

    def set_drained(self, drained: bool) -> Deferred[None]:
        self.told.append(drained)
        return self.done

    def set_watcher_pause(self, until: int | None) -> Deferred[None]:
        self.told.append(until)
        return self.done


class PublishedTests(QueueScene):
    def setUp(self) -> None:
        super().setUp()
        self.state = PublishedState(self.queue, ConfigStore(sample(), self.journal, self.timers))

    def test_jobs(self) -> None:
        """Jobs are told as their files are, published states only."""
        job_id = self.submit_one()
        self.assertEqual(list(self.state.job_ids()), [job_id])
        self.assertEqual(decode_job(self.state.body(job_id)), self.queue.jobs[job_id])
        self.journal.held = True
        self.submission.submit([[delay()]])
        self.assertEqual(list(self.state.job_ids()), [job_id])

    def test_serial(self) -> None:
        """The serial is what is reserved; after a start, what was given."""
        self.queue.last_id = 7
        self.assertEqual(self.state.serial(), 7)
        self.submit_one()
        self.assertEqual(self.state.serial(), self.journal.reserved)

    def test_archived(self) -> None:
        """Jobs of the archive are told as their files are, unknown ones not at all."""
        job_id = self.submit_one()
        self.finish(job_id)
        body = encode_job(self.queue.jobs[job_id])
        self.successResultOf(self.control.archive(job_id))
        with open(self.folder.archived_job(job_id), "wb") as file:
            file.write(body)
        self.assertEqual(self.successResultOf(self.state.archived([job_id, 99])), {job_id: body})

    def test_configuration(self) -> None:
        """config.data is told byte for byte."""
        self.assertEqual(self.state.image().encode(), CONTENT)


class OthersTests(QueueScene):
    def test_refusal_from_elsewhere(self) -> None:
        """A submission is refused as long as others have a reason."""
        reasons: list[JobQueueError | None] = [JobQueueError("no majority"), None]
        submission = Submission(self.queue, refusal=lambda: reasons.pop(0))
        refused = self.failureResultOf(submission.submit([[delay()]]), JobQueueError)
        self.assertEqual(str(refused.value), "no majority")
        self.assertEqual(self.successResultOf(submission.submit([[delay()]])), [1])

    def test_flags_go_to_others(self) -> None:
        """Flags are set here first, and answered when the others have them."""
        others = OtherNodes()
        switches = Switches(self.queue, self.folder.queue + "/pause", others)
        self.journal.effect = lambda function, *args: succeed(None)  # type: ignore[method-assign]
        drained, paused = switches.set_drained(True), switches.set_watcher_pause(2000)
        self.assertEqual(others.told, [True, 2000])
        self.assertEqual((switches.drained, switches.watcher_pause), (True, 2000))
        self.assertNoResult(drained)
        others.done.callback(None)
        self.assertIs(self.successResultOf(drained), True)
        self.assertEqual(self.successResultOf(paused), 2000)
