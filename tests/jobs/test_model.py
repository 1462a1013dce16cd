"""Job values: states, steps, files."""

from __future__ import annotations

import itertools

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.constants import (
    STATUS_CANCELED,
    STATUS_CANCELING,
    STATUS_ERROR,
    STATUS_QUEUED,
    STATUS_RUNNING,
    STATUS_SUCCESS,
    STATUS_WAITING,
)
from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.model import STEPS, Job, LogEntry, OpState, new_job
from ganeti_masterd.statuses import job_status

NOOP = {"OP_ID": "OP_TEST_DELAY", "duration": 1}
STATUSES = sorted(STEPS)

#: A job file as luxid 3.0.2 wrote it.
LUXID_FILE = (
    b'{"id": 308, "ops": [{"input": {"duration": 0.01, "OP_ID": "OP_TEST_DELAY"}, '
    b'"status": "success", "result": null, "log": [[1, [1795487643, 7], "message", "x"]], '
    b'"start_timestamp": [1795487643, 919896], "exec_timestamp": [1795487644, 63138], '
    b'"end_timestamp": [1795487644, 266035], "priority": 0}], '
    b'"start_timestamp": [1795487643, 919896], "end_timestamp": [1795487644, 266044], '
    b'"received_timestamp": [1795487643, 570599], '
    b'"livelock": "/run/livelocks/job_000308_1795487643", "process_id": 22250}'
)


def job_with(*statuses: str) -> Job:
    """Returns a job whose opcodes have these statuses."""
    return Job(id=1, ops=tuple(OpState(input=NOOP, status=status) for status in statuses))


class StatusTests(SynchronousTestCase):
    """The status of a job from those of its opcodes (protocol/queue.rst, States of jobs)."""

    def test_table(self) -> None:
        """Each rule of the specification, by an example of it."""
        for statuses, expected in [
            ("queued", "queued"),
            ("success success", "success"),
            ("success queued", "queued"),
            ("success waiting queued", "waiting"),
            ("success running queued", "running"),
            ("success error error", "error"),
            ("success canceled", "canceled"),
            ("canceling canceling", "canceling"),
            ("error canceled", "error"),
            ("canceled error", "canceled"),
        ]:
            self.assertEqual(job_status(statuses.split()), expected, statuses)

    @given(st.lists(st.sampled_from(STATUSES), min_size=1, max_size=5))
    def test_against_the_text(self, statuses: list[str]) -> None:
        """The loop agrees with the specification's sentence, read word by word."""
        deciding = [s for s in statuses if s in (STATUS_ERROR, STATUS_CANCELING, STATUS_CANCELED)]
        under_way = [s for s in statuses if s in (STATUS_WAITING, STATUS_RUNNING)]
        if deciding:
            expected = deciding[0]
        elif all(s == STATUS_SUCCESS for s in statuses):
            expected = STATUS_SUCCESS
        else:
            expected = under_way[-1] if under_way else STATUS_QUEUED
        self.assertEqual(job_status(statuses), expected)


class StepTests(SynchronousTestCase):
    """Steps from one state to the next."""

    def test_a_whole_life(self) -> None:
        """A job of two opcodes goes from received to its end with every time stamp set."""
        job = new_job(7, [NOOP, NOOP], 100.0)
        self.assertEqual((job.status, job.received_timestamp), (STATUS_QUEUED, (100, 0)))
        job = model.begin_waiting(job, 0, 101.5)
        self.assertEqual((job.status, job.start_timestamp), (STATUS_WAITING, (101, 500000)))
        job = model.begin_running(job, 0, 102.0)
        self.assertEqual(job.ops[0].exec_timestamp, (102, 0))
        job = model.succeed(job, 0, {"a": 1}, 103.0)
        self.assertEqual((job.status, job.end_timestamp, job.current), (STATUS_QUEUED, None, 1))
        job = model.begin_running(job, 1, 104.0)
        self.assertEqual(job.start_timestamp, (101, 500000))
        job = model.succeed(job, 1, None, 105.0)
        self.assertEqual((job.status, job.end_timestamp), (STATUS_SUCCESS, (105, 0)))
        self.assertEqual([op.result for op in job.ops], [{"a": 1}, None])

    def test_failure_takes_the_rest_along(self) -> None:
        """Opcodes after a failed one end in error too, and say why."""
        job = model.begin_running(new_job(1, [NOOP] * 3, 1.0), 0, 1.0)
        job = model.fail(job, 0, ["OpExecError", ["no"]], 2.0)
        self.assertEqual([op.status for op in job.ops], [STATUS_ERROR] * 3)
        self.assertEqual(job.ops[2].result, ["OpExecError", ["Preceding opcode failed"]])

    def test_unlawful_steps(self) -> None:
        """Every step that the table doesn't allow is refused."""
        steps = {
            STATUS_WAITING: lambda job: model.begin_waiting(job, 0, 1.0),
            STATUS_RUNNING: lambda job: model.begin_running(job, 0, 1.0),
            STATUS_SUCCESS: lambda job: model.succeed(job, 0, None, 1.0),
            STATUS_ERROR: lambda job: model.fail(job, 0, [], 1.0),
        }
        for before, (after, step) in itertools.product(STATUSES, steps.items()):
            if after in STEPS[before]:
                self.assertEqual(step(job_with(before)).status, after)
            else:
                self.assertRaises(ProgrammerError, step, job_with(before))

    def test_cancel_keeps_what_is_done(self) -> None:
        """Cancelling leaves finished opcodes as they are."""
        job = model.cancel(job_with(STATUS_SUCCESS, STATUS_QUEUED), 9.0, "why")
        self.assertEqual([op.status for op in job.ops], [STATUS_SUCCESS, STATUS_CANCELED])
        self.assertEqual((job.ops[1].result, job.end_timestamp), ("why", (9, 0)))

    def test_private_parameters_go_at_the_end(self) -> None:
        """However an opcode ends, its private parameters are gone; those of later ones stay."""
        op = {"OP_ID": "OP_INSTANCE_REINSTALL", "osparams_private": {"p": "hush"}}
        job = model.begin_running(new_job(1, [op, op], 1.0), 0, 2.0)
        self.assertEqual([each.input for each in job.ops], [op, op])
        done = model.succeed(job, 0, None, 3.0)
        self.assertEqual([("hush" in repr(each.input)) for each in done.ops], [False, True])
        for end in (model.fail(job, 0, "why", 3.0), model.cancel(done, 3.0)):
            self.assertTrue(end.finished)
            self.assertNotIn(b"hush", model.encode_job(end))

    def test_priority(self) -> None:
        """A job is as urgent as its most urgent unfinished opcode."""
        job = new_job(1, [NOOP | {"priority": 10}, NOOP | {"priority": -10}], 1.0)
        self.assertEqual(job.priority, -10)
        job = model.reprioritize(model.begin_running(job, 0, 1.0), 5)
        self.assertEqual([op.priority for op in job.ops], [10, 5])
        self.assertEqual(model.cancel(job_with(STATUS_QUEUED), 1.0).priority, 0)

    def test_log_serials(self) -> None:
        """Log entries count through the whole job."""
        job = new_job(1, [NOOP, NOOP], 1.0)
        job = model.add_log(job, 0, LogEntry(1, (1, 0), "message", "a"))
        job = model.add_log(job, 1, LogEntry(2, (1, 0), "message", "b"))
        self.assertEqual(job.log_serial, 2)

    def test_requeue(self) -> None:
        """A waiting opcode is queued again and luxid's traces of it go."""
        job = msgspec.structs.replace(
            job_with(STATUS_SUCCESS, STATUS_WAITING), livelock="x", process_id=3
        )
        again = model.requeue(job)
        self.assertEqual([op.status for op in again.ops], [STATUS_SUCCESS, STATUS_QUEUED])
        self.assertNotIn(b"livelock", model.encode_job(again))


class FileTests(SynchronousTestCase):
    """Job files."""

    def test_luxids_file(self) -> None:
        """A file of luxid goes through unchanged."""
        again = model.encode_job(model.decode_job(LUXID_FILE))
        self.assertEqual(msgspec.json.decode(again), msgspec.json.decode(LUXID_FILE))

    def test_bad_files(self) -> None:
        """What is no job raises an error that says why."""
        for body in (
            b"",
            b"{}",
            b'{"id": 1, "ops": []}',
            b'{"id": 1, "ops": [{"input": {}}]}',
            b'{"id": 1, "ops": [{"input": {"OP_ID": "X"}, "status": "odd"}]}',
            LUXID_FILE[:-1],
            b"\xff" + LUXID_FILE,
        ):
            self.assertRaises(msgspec.MsgspecError, model.decode_job, body)

    def test_merge_log(self) -> None:
        """Entries that the file has already are not added twice."""
        entries = [
            (0, msgspec.json.encode([1, [1, 0], "message", "x"])),
            (0, msgspec.json.encode([2, [2, 0], "message", "y"])),
        ]
        job = model.decode_job(model.merge_log(LUXID_FILE, entries))
        self.assertEqual([entry.serial for entry in job.ops[0].log], [1, 2])

    @given(st.integers(0, 2**40), st.integers(0, 999_999))
    def test_timestamps(self, seconds: int, microseconds: int) -> None:
        """A time stamp keeps seconds and microseconds as far as a float does."""
        now = seconds + microseconds / 1e6
        back = model.timestamp(now)
        self.assertLess(abs(back[0] - now + back[1] / 1e6), 1e-3)
        self.assertLess(back[1], 1_000_000)
