"""The queue: tip and published states, who begins, who hears of an end."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, maybeDeferred

from ganeti_masterd.errors import DaemonStopping, JobQueueError
from ganeti_masterd.events import JobChanged
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.devices import Fate, NotedDevice
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.journal.rows import JobRow, LogRow, SerialRow
from ganeti_masterd.query.fields import View
from ganeti_masterd.query.jobs import ARCHIVED
from ganeti_masterd.query.resources import RESOURCES
from ganeti_masterd.query.sources import RowRequest, Sources
from tests.jobs.scene import QueueScene, delay
from tests.query.scene import rich_snapshot


class PublishingTests(QueueScene):
    """Nothing is seen before it is durable (architecture.rst, journal rule 1)."""

    def test_not_before_it_is_durable(self) -> None:
        """A job is neither answered nor shown while its commit is under way."""
        self.start()
        self.journal.held = True
        submitted = self.submission.submit([[delay()]])
        self.assertNoResult(submitted)
        self.assertEqual(self.queue.jobs, {})
        tip = self.queue.tip(1)
        assert tip is not None
        self.assertEqual(tip.status, "queued")
        self.journal.release()
        self.assertEqual(self.successResultOf(submitted), [1])
        self.assertEqual((self.status(1), self.runner.begun), ("queued", [1]))

    def test_disk_refuses(self) -> None:
        """A refused submission leaves nothing behind, and the next one works with a new id."""
        self.start()
        self.journal.held = True
        submitted = self.submission.submit([[delay()]])
        self.journal.fail("disk full")
        self.failureResultOf(submitted, JobQueueError)
        self.assertIsNone(self.queue.tip(1))
        self.assertEqual(self.queue.opcodes, {})
        self.journal.held = False
        self.assertEqual(self.submit_one(), 2)

    def test_one_that_fails_to_publish(self) -> None:
        """What raises as a commit is published keeps no job of it from being seen."""
        first, second = self.submit_one(), self.submit_one()

        def bad() -> None:
            raise ZeroDivisionError

        real = self.queue.admission.ended

        def ended(job_id: int, status: str) -> None:
            real(job_id, status)
            if job_id == first:
                raise ZeroDivisionError

        self.patch(self.queue.admission, "ended", ended)
        jobs = [model.cancel(self.queue.jobs[job_id], 1.0) for job_id in (first, second)]
        self.successResultOf(self.queue.commit(jobs, publish=bad))
        self.assertEqual([self.status(job_id) for job_id in (first, second)], ["canceled"] * 2)
        self.assertEqual(self.queue.tip(second), self.queue.jobs[second])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_everything_pending_fails_together(self) -> None:
        """A failed commit takes those along that were built on it."""
        job_id = self.submit_one()
        self.journal.held = True
        first = self.control.change_priority(job_id, -5)
        second = self.control.change_priority(job_id, 5)
        self.journal.fail()
        self.failureResultOf(first, JobQueueError)
        self.failureResultOf(second, JobQueueError)
        self.assertEqual(self.queue.tip(job_id), self.queue.jobs[job_id])

    def test_cancel_that_could_not_be_recorded(self) -> None:
        """A job whose cancelling failed is ready again."""
        job_id = self.submit_one()
        self.journal.held = True
        canceled = self.control.cancel(job_id)
        self.assertNotIn(job_id, self.queue.scheduler)
        self.journal.fail()
        self.failureResultOf(canceled, JobQueueError)
        self.assertIn(job_id, self.queue.scheduler)

    def test_order_of_commits(self) -> None:
        """Two commits of a job under way are published one after the other."""
        job_id = self.submit_one()
        seen: list[str] = []
        self.events.subscribe(JobChanged, lambda event: seen.append(event.after))
        self.journal.held = True
        job = model.begin_running(self.queue.jobs[job_id], 0, 1.0)
        self.queue.commit([job])
        self.queue.commit([model.succeed(job, 0, None, 2.0)])
        self.journal.release()
        self.assertEqual(seen, ["running", "success"])

    def test_shown_state_keeps_its_place(self) -> None:
        """A state that need not be durable doesn't overtake a commit under way."""
        job_id = self.submit_one()
        self.journal.held = True
        self.control.change_priority(job_id, -5)
        tip = self.queue.tip(job_id)
        assert tip is not None
        self.queue.show(model.begin_waiting(tip, 0, 1.0))
        self.assertEqual(self.status(job_id), "queued")
        self.journal.release()
        job = self.queue.jobs[job_id]
        self.assertEqual((job.status, job.priority), ("waiting", -5))

    def test_shown_in_order_and_not_recorded(self) -> None:
        """Behind a commit it still makes no row: on disk a job that only waits is queued."""
        job_id = self.submit_one()
        self.journal.held = True
        self.control.change_priority(job_id, -5)
        tip = self.queue.tip(job_id)
        assert tip is not None
        self.queue.show(model.begin_waiting(tip, 0, 1.0))
        self.journal.release()
        row = self.journal.rows[-1]
        assert isinstance(row, JobRow)
        self.assertEqual(model.decode_job(row.body).status, "queued")
        self.assertEqual(self.status(job_id), "waiting")

    def test_shown_at_once(self) -> None:
        """Without a commit under way it is published at once and makes no row."""
        job_id = self.submit_one()
        rows = len(self.journal.rows)
        self.queue.show(model.begin_waiting(self.queue.jobs[job_id], 0, 1.0))
        self.assertEqual((self.status(job_id), len(self.journal.rows)), ("waiting", rows))

    def test_the_end_is_recorded_in_the_end(self) -> None:
        """A result that the disk refuses is tried again until it takes it."""
        job_id = self.submit_one()
        self.journal.held = True
        running = model.begin_running(self.queue.jobs[job_id], 0, 1.0)
        done = self.queue.commit_surely([model.succeed(running, 0, None, 2.0)])
        self.journal.fail()
        self.assertNoResult(done)
        self.journal.held = False
        self.clock.advance(5)
        self.successResultOf(done)
        self.assertEqual(self.status(job_id), "success")

    def test_stop_while_the_disk_refuses(self) -> None:
        """At the stop, what the disk has refused up to then is given up, and nothing is left."""
        job_id = self.submit_one()
        self.journal.held = True
        running = model.begin_running(self.queue.jobs[job_id], 0, 1.0)
        done = self.queue.commit_surely([model.succeed(running, 0, None, 2.0)])
        self.journal.fail()
        self.queue.give_up()
        self.failureResultOf(done, DaemonStopping)
        self.assertEqual(len(self.timers), 0)
        self.queue.give_up()

    def run_with_devices(self) -> tuple[int, NotedDevice]:
        """Has a job run that has noted a device; returns its id and the device."""
        job_id = self.submit_one()
        running = model.begin_running(self.queue.jobs[job_id], 0, 1.0)
        device = NotedDevice(
            node="n1", node_name="node1", owner="web", fate=Fate.DIRECTORY, path="/d"
        )
        self.successResultOf(self.queue.commit([model.note_devices(running, [device])]))
        return job_id, device

    def test_forgotten_in_the_end(self) -> None:
        """What the disk doesn't forget is tried again, and nothing that came meanwhile is lost."""
        job_id, device = self.run_with_devices()
        self.journal.held = True
        self.failureResultOf(self.refused(self.queue.forget_devices(job_id, [device])))
        done = self.refused(self.queue.forget_surely(job_id, [device]))
        self.assertNoResult(done)
        self.assertEqual(self.queue.jobs[job_id].devices, (device,))
        self.journal.held = False
        self.successResultOf(self.queue.add_log(job_id, 0, "message", "meanwhile"))
        self.clock.advance(5)
        self.successResultOf(done)
        job = self.queue.jobs[job_id]
        self.assertFalse(job.devices)
        self.assertEqual([entry.message for entry in job.ops[0].log], ["meanwhile"])

    def test_ended_before_it_is_forgotten(self) -> None:
        """A job that has ended has nothing left to forget."""
        job_id, device = self.run_with_devices()
        self.journal.held = True
        done = self.refused(self.queue.forget_surely(job_id, [device]))
        self.journal.held = False
        ended = model.succeed(self.queue.jobs[job_id], 0, None, 2.0)
        self.successResultOf(self.queue.commit([ended]))
        rows = len(self.journal.rows)
        self.clock.advance(5)
        self.successResultOf(done)
        self.assertEqual(len(self.journal.rows), rows)

    def refused(self, done: Deferred[None]) -> Deferred[None]:
        """Has the disk refuse what is held; returns the Deferred."""
        self.journal.fail()
        return done

    def test_an_end_that_no_disk_takes(self) -> None:
        """A state that can't be written down fails at once, and leaves the job as it was."""
        job_id = self.submit_one()
        running = model.begin_running(self.queue.jobs[job_id], 0, 1.0)
        done = self.queue.commit_surely([model.succeed(running, 0, object(), 2.0)])
        self.failureResultOf(done, TypeError)
        self.assertEqual(self.queue.tip(job_id), self.queue.jobs[job_id])
        self.finish(job_id)
        self.assertEqual((self.queue._tip, self.queue._pending), ({}, {}))


class RunningTests(QueueScene):
    """Who begins, and when."""

    def test_limit_and_order(self) -> None:
        """No more than the limit begin; an end lets the next one begin."""
        self.submit(*[[delay(priority=priority)] for priority in (10, 0, -10)])
        self.start()
        self.assertEqual(self.runner.begun, [3, 2])
        self.finish(3)
        self.assertEqual(self.runner.begun, [3, 2, 1])

    def test_dependencies(self) -> None:
        """A dependant begins once what it depends on has ended well."""
        self.start()
        self.submit([delay()], [delay(depends=[[-1, ["success"]]])])
        self.assertEqual(self.runner.begun, [1])
        self.finish(1)
        self.assertEqual(self.runner.begun, [1, 2])

    def test_dependency_fails(self) -> None:
        """A dependant of a job that failed ends in error, and its own dependants with it."""
        self.start()
        self.submit(
            [delay()],
            [delay(depends=[[-1, ["success"]]])],
            [delay(depends=[[-1, ["success"]]])],
            [delay(depends=[[-3, []]])],
        )
        self.finish(1, error=["OpExecError", ["no"]])
        self.assertEqual([self.status(n) for n in (1, 2, 3)], ["error"] * 3)
        self.assertIn("Job 1", self.queue.jobs[2].ops[0].result[1][0])
        self.assertEqual(self.runner.begun, [1, 4])

    def test_dependency_canceled(self) -> None:
        """A dependant of a cancelled job is cancelled."""
        self.submit([delay()], [delay(depends=[[-1, ["success"]]])])
        self.successResultOf(self.control.cancel(1))
        self.assertEqual(self.status(2), "canceled")

    def test_before_its_first_commit(self) -> None:
        """A job that comes alone is begun before its first commit, others once published."""
        self.start()
        self.journal.held = True
        self.submission.submit([[delay()]])
        self.assertEqual(self.runner.begun, [1])
        self.submission.submit([[delay()], [delay()]])
        self.assertEqual(self.runner.begun, [1])
        self.journal.release()
        self.assertEqual(self.runner.begun, [1, 2])

    def test_not_its_turn(self) -> None:
        """A new job that waits for a slot or for another job is begun when its turn comes."""
        self.start()
        self.submit_one()
        self.submit_one(delay(depends=[[1, []]]))
        self.submit_one()
        self.submit_one(delay(priority=10))
        self.submit_one(delay(priority=-10))
        self.assertEqual(self.runner.begun, [1, 3])
        self.finish(1)
        self.assertEqual(self.runner.begun, [1, 3, 5])
        self.finish(3)
        self.assertEqual(self.runner.begun, [1, 3, 5, 2])

    def test_lock_table_is_full(self) -> None:
        """A new job isn't begun while as many wait for locks as may."""
        self.queue.scheduler.max_blocked = 1
        self.start()
        blocked = self.submit_one()
        self.queue.scheduler.block(blocked)
        self.submit_one()
        self.assertEqual(self.runner.begun, [blocked])

    def test_slot_before_it_is_durable(self) -> None:
        """A new job takes a slot that comes free during its first commit, and runs once."""
        self.queue.scheduler.limit = 1
        self.start()
        self.submit_one()
        self.journal.held = True
        self.submission.submit([[delay()]])
        self.queue.scheduler.discard(1)
        self.queue.wake()
        self.assertEqual(self.runner.begun, [1, 2])
        self.journal.release()
        self.assertEqual((self.runner.begun, len(self.queue.scheduler)), ([1, 2], 0))

    def test_canceled_before_it_is_durable(self) -> None:
        """A job that was cancelled during its first commit isn't begun when that is published."""
        self.queue.scheduler.limit = 0
        self.start()
        self.journal.held = True
        self.submission.submit([[delay()]])
        canceled = self.control.cancel(1)
        self.queue.scheduler.limit = 1
        self.journal.release()
        self.successResultOf(canceled)
        self.assertEqual((self.status(1), self.runner.begun), ("canceled", []))

    def test_ended_with_its_first_commit(self) -> None:
        """One that depends on a job which failed ends with its first commit, as any other ends."""
        seen: list[tuple[str | None, str]] = []
        self.start()
        first = self.submit_one()
        self.finish(first, error=["OpExecError", ["no"]])
        self.events.subscribe(JobChanged, lambda event: seen.append((event.before, event.after)))
        job_id = self.submit_one(delay(depends=[[first, ["success"]]]))
        self.assertEqual((seen, self.runner.begun), ([(None, "error")], [first]))
        self.assertNotIn(job_id, self.queue.opcodes)
        self.assertNotIn(job_id, self.queue.admission)

    def test_slot_of_a_job_that_never_was(self) -> None:
        """A job that has begun, and is then refused by the disk, leaves its slot to the next."""
        self.queue.scheduler.limit = 1
        waiting = self.submit_one(delay(depends=[[self.submit_one(), []]]))
        self.start()
        self.queue.scheduler.block(1)
        self.journal.held = True
        done = self.submission.submit([[delay()]])
        self.assertEqual(self.runner.begun, [1, 3])
        self.journal.fail()
        self.failureResultOf(done, JobQueueError)
        self.assertEqual(self.queue.scheduler.running, set())
        self.journal.held = False
        self.finish(1)
        self.assertEqual(self.runner.begun, [1, 3, waiting])

    def test_next_after_one_that_never_was(self) -> None:
        """A job that became ready meanwhile gets the slot of one that the disk refused."""
        self.queue.scheduler.limit = 1
        paused = self.submit_one()
        self.queue.scheduler.discard(paused)
        self.start()
        self.journal.held = True
        done = self.submission.submit([[delay()]])
        self.queue.admission.readmit(self.queue.jobs[paused])
        self.assertEqual(self.runner.begun, [2])
        self.journal.fail()
        self.failureResultOf(done, JobQueueError)
        self.assertEqual(self.runner.begun, [2, paused])

    def test_rollback_of_one_with_its_locks(self) -> None:
        """A failed commit doesn't put a job in line anew that has its locks and wants a slot."""
        self.start()
        job_id = self.submit_one()
        self.queue.scheduler.block(job_id)
        self.queue.scheduler.limit = 0
        self.queue.scheduler.resume(job_id, 0)
        self.journal.held = True
        changed = self.control.change_priority(job_id, -5)
        self.journal.fail()
        self.failureResultOf(changed, JobQueueError)
        self.assertEqual(len(self.queue.scheduler), 0)

    def test_unforeseen(self) -> None:
        """An error of whoever begins jobs is logged; the job is there, and others begin."""

        def proceed(job_id: int) -> None:
            if job_id == 1:
                raise ZeroDivisionError
            self.runner.begun.append(job_id)

        self.start()
        with patch.object(self.runner, "proceed", proceed):
            self.submit_one()
            self.submit_one()
        self.assertEqual((self.status(1), self.runner.begun), ("queued", [2]))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_not_while_closing(self) -> None:
        """A job that comes in as the queue closes is durable, and is not begun."""
        self.start()
        self.queue.close()
        self.queue.opcodes[1] = (delay(),)
        job = model.new_job(1, [{"OP_ID": "OP_TEST_DELAY", "duration": 1}], 1.0)
        self.successResultOf(self.queue.enter(job, []))
        self.assertEqual((self.status(1), self.runner.begun), ("queued", []))

    def test_opcodes_are_forgotten(self) -> None:
        """Typed opcodes, which may hold secrets, go with the job's end."""
        job_id = self.submit_one()
        self.assertIn(job_id, self.queue.opcodes)
        self.finish(job_id)
        self.assertNotIn(job_id, self.queue.opcodes)

    def test_progress(self) -> None:
        """Only the last is kept; it makes no row, and later lines have higher serials."""
        self.start()
        job_id = self.submit_one()
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 2.0)])
        self.queue.add_log(job_id, 0, "message", "begins")
        rows = len(self.journal.rows)
        for text in ("10%", "20%", "30%"):
            self.queue.show_progress(job_id, 0, text)
        self.assertEqual(len(self.journal.rows), rows)
        log = self.queue.jobs[job_id].ops[0].log
        self.assertEqual([(line.serial, line.message) for line in log], [(1, "begins"), (4, "30%")])
        self.queue.add_log(job_id, 0, "message", "ends")
        log = self.queue.jobs[job_id].ops[0].log
        self.assertEqual([line.serial for line in log], [1, 4, 5])
        self.assertEqual([line.kind for line in log], ["message", "progress", "message"])

    def test_progress_beside_a_commit(self) -> None:
        """It is shown after what is being committed, and not at all once the opcode has ended."""
        self.start()
        job_id = self.submit_one()
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 2.0)])
        self.journal.held = True
        self.queue.add_log(job_id, 0, "message", "one")
        self.queue.show_progress(job_id, 0, "50%")
        self.assertEqual(self.queue.jobs[job_id].ops[0].log, ())
        self.journal.release()
        self.journal.held = False
        log = self.queue.jobs[job_id].ops[0].log
        self.assertEqual([line.message for line in log], ["one", "50%"])
        self.queue.commit([model.succeed(self.queue.jobs[job_id], 0, None, 3.0)])
        self.queue.show_progress(job_id, 0, "late")
        self.queue.show_progress(99, 0, "no such job")
        self.assertEqual(self.queue.jobs[job_id].ops[0].log, log)

    def test_log_lines(self) -> None:
        """Log lines are rows of their own, numbered through the job, none after the end."""
        job_id = self.submit_one(delay(), delay())
        self.queue.commit([model.begin_running(self.queue.jobs[job_id], 0, 1.0)])
        self.queue.add_log(job_id, 0, "message", "one")
        self.queue.add_log(job_id, 0, "message", "two")
        self.assertEqual([e.serial for e in self.queue.jobs[job_id].ops[0].log], [1, 2])
        self.assertEqual(sum(isinstance(row, LogRow) for row in self.journal.rows), 2)
        self.finish_running(job_id)
        self.queue.add_log(job_id, 0, "message", "late")
        self.assertEqual(self.queue.jobs[job_id].log_serial, 2)

    def finish_running(self, job_id: int) -> None:
        self.queue.commit([model.succeed(self.queue.jobs[job_id], 0, None, 2.0)])

    def test_nothing_begins_while_closing(self) -> None:
        """Once the daemon stops, ends free slots that no one gets."""
        self.submit(*[[delay()] for _ in range(3)])
        self.start()
        self.queue.close()
        self.finish(1)
        self.assertEqual(self.runner.begun, [1, 2])


class ArchiveTests(QueueScene):
    """Reading the archive."""

    def archived_file(self, job_id: int, body: bytes) -> None:
        path = self.folder.archived_job(job_id)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(body)

    def test_reads_what_is_there(self) -> None:
        """Archived jobs are found by id; bad files are left out."""
        for job_id in (3, 10_001):
            self.archived_file(job_id, model.encode_job(model.new_job(job_id, [{"OP_ID": "X"}], 1)))
        self.archived_file(4, b"rubbish")
        self.queue.last_id = 20_000
        found = self.successResultOf(self.queue.archived([10_001, 4, 5, 3, 30_000]))
        self.assertEqual(list(found), [3, 10_001])
        self.assertEqual(self.successResultOf(self.queue.archived_ids()), [3, 4, 10_001])

    def test_slices(self) -> None:
        """Many files are read, however many slices it takes."""
        for job_id in range(1, 121):
            self.archived_file(job_id, model.encode_job(model.new_job(job_id, [{"OP_ID": "X"}], 1)))
        self.queue.last_id = 200
        self.assertEqual(len(self.successResultOf(self.queue.archived(range(1, 150)))), 120)


class LeavingTests(QueueScene):
    """A job that is archived, before its file has moved."""

    def setUp(self) -> None:
        super().setUp()
        self.settled: Deferred[None] = Deferred()
        self.patch(self.journal, "settle", lambda: self.settled)
        self.start()
        self.job_id = self.submit_one()
        self.finish(self.job_id)
        self.assertTrue(self.successResultOf(self.control.archive(self.job_id)))

    def queried(self) -> list[tuple[int, bool]]:
        """Returns the ids that a query of all jobs finds, and whether they are archived."""
        view = View(rich_snapshot())
        nothing: Any = None
        return self.successResultOf(
            maybeDeferred(
                Sources(nothing, self.queue, list, nothing).work,
                RESOURCES["job"],
                view,
                RowRequest(None, {ARCHIVED}),
                lambda jobs: [(job.id, job.id in view.archived) for job in jobs],
            )
        )

    def test_is_in_the_archive_at_once(self) -> None:
        """It isn't live any more, and there is no moment at which it is nowhere."""
        self.assertNotIn(self.job_id, self.queue.live())
        self.assertEqual(list(self.successResultOf(self.queue.archived([self.job_id]))), [1])
        self.assertEqual(self.successResultOf(self.queue.archived_ids()), [1])
        self.assertEqual(self.queried(), [(1, True)])

    def test_others_may_depend_on_it(self) -> None:
        """A job that depends on it is taken, and begins."""
        self.assertEqual(self.queue.status_of(self.job_id), "success")
        dependant = self.submit_one(delay(depends=[[self.job_id, []]]))
        self.assertEqual(self.runner.begun, [self.job_id, dependant])

    def test_is_read_from_its_file_then(self) -> None:
        """Once the files have followed, it is no longer kept in memory."""
        self.settled.callback(None)
        self.assertEqual(self.successResultOf(self.queue.archived([self.job_id])), {})
        self.assertIsNone(self.queue.status_of(self.job_id))

    def listed(self, *meanwhile: Callable[[], object]) -> list[int]:
        """Returns the ids of the archive; each of its folders is empty, then something happens."""
        steps = dict(zip("ab", meanwhile, strict=False))

        def ids_in(_: QueueFolder, folder: str) -> list[int]:
            steps[folder]()
            return []

        self.patch(QueueFolder, "archive_folders", lambda folder: list(steps))
        self.patch(QueueFolder, "ids_in", ids_in)
        ids: list[int] = self.successResultOf(self.queue.archived_ids())
        return ids

    def test_archived_once_its_folder_is_listed(self) -> None:
        """One that is archived after a look at the last folder is in the list."""
        other = self.submit_one()
        self.finish(other)
        ids = self.listed(lambda: None, lambda: self.control.archive(other))
        self.assertEqual(ids, [self.job_id, other])

    def test_moved_once_its_folder_is_listed(self) -> None:
        """So is one whose file moves after the look at its folder."""
        self.assertEqual(
            self.listed(lambda: self.settled.callback(None), lambda: None), [self.job_id]
        )

    def test_files_that_cannot_follow(self) -> None:
        """A journal that ends with files behind keeps nothing in memory either."""
        self.settled.errback(DaemonStopping("the journal is closed"))
        self.assertIsNone(self.queue.status_of(self.job_id))


class SerialTests(QueueScene):
    """Ids are reserved ahead (architecture.rst, journal rule 5)."""

    def test_reserved_with_the_first_job_of_a_block(self) -> None:
        """A block is durable with, or before, the first id that is given from it."""
        for _ in range(450):
            self.submit_one()
        highest = 0
        for row in self.journal.rows:
            if isinstance(row, SerialRow):
                highest = max(highest, row.reserved)
            elif isinstance(row, JobRow):
                self.assertLessEqual(row.job_id, max(highest, 0) or row.job_id)
        reservations = [row.reserved for row in self.journal.rows if isinstance(row, SerialRow)]
        self.assertEqual(len(reservations), 3)
        self.assertEqual(reservations, sorted(reservations))
