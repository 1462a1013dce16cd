"""A hypothesis machine that cuts the power at any effect of the journal, and looks what is left.

The model is plain: all commits in order. After a restart the files must hold
exactly what is acknowledged and some first part of what was pending, never
what failed. And what the disk holds at the crash itself, as another daemon
would find it, must be whole and in the order that the rules promise.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import Struct
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.journal import edits
from ganeti_masterd.journal.files import TEMPORARY_SUFFIX
from ganeti_masterd.journal.layout import job_number, parse_serial
from ganeti_masterd.journal.rounds import FollowingPace
from ganeti_masterd.journal.rows import ConfigRow, JobRow, LogRow, Row, SerialRow
from ganeti_masterd.testing.disk import Lie, PowerCut
from tests.examples import examples, run_machine
from tests.journal.scene import FILES, Scene, merge_config, merge_log

JOBS = st.integers(0, 7)
SURVIVAL = st.integers(0, 1 << 16)
METHODS = st.sampled_from(["write", "sync", "rename", "make_directory", "sync_directory"])
NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
REFUSALS = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
SECONDS = st.sampled_from([1.0, 5.0])
PLANS = st.lists(st.integers(0, 40), max_size=3)


def survival(seed: int) -> Callable[[int], int]:
    """Returns what survives a crash: nothing unsynced, all of it, or as it falls."""
    if seed == 0:
        return lambda n: 0
    if seed == 1:
        return lambda n: n - 1
    return Random(seed).randrange


class State(Struct, frozen=True):
    """What commits amount to: (archived, document) of each job, configuration, serial."""

    jobs: dict[int, tuple[bool, bytes]]
    config: bytes
    serial: int

    def after(self, rows: list[Row]) -> State:
        jobs, config, serial = dict(self.jobs), self.config, self.serial
        for row in rows:
            if isinstance(row, JobRow):
                jobs[row.job_id] = row.archived, row.body
            elif isinstance(row, LogRow):
                archived, body = jobs[row.job_id]
                jobs[row.job_id] = archived, merge_log(body, [(row.op_index, row.entry)])
            elif isinstance(row, ConfigRow):
                config = merge_config(config, [row])
            else:
                serial = max(serial, row.reserved)
        return State(jobs, config, serial)


class Crashes(RuleBasedStateMachine):
    """Drives a journal as the queue does, and takes its power away."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()
        self.scene.open()
        self.published = State({}, b"{}", 0)
        self.tip = self.published
        self.pending: list[list[Row]] = []
        self.count = 0
        self.lawful: set[bytes] = set()
        self.fresh()

    def fresh(self) -> None:
        self.scene.journal.on_rollback(self.rollback)
        self.publish_config()

    def publish_config(self) -> None:
        self.scene.config = msgspec.json.decode(self.published.config)
        self.scene.serial = max(self.published.jobs, default=None)

    # What the queue does

    def commit(self, *rows: Row) -> None:
        listed = list(rows)
        self.tip = self.tip.after(listed)
        self.pending.append(listed)

        def publish() -> None:
            assert self.pending[0] is listed, "published out of order"
            self.published = self.published.after(self.pending.pop(0))
            self.lawful.update(body for _, body in self.published.jobs.values())
            self.publish_config()

        def failed(failure: Any) -> None:
            assert listed not in self.pending

        self.scene.journal.commit(listed, publish).addErrback(failed)

    def rollback(self) -> None:
        self.tip = self.published
        self.pending.clear()

    def document(self, n: int, log: list[Any]) -> bytes:
        needs = msgspec.json.decode(self.tip.config).get("v", 0)
        return msgspec.json.encode({"n": n, "needs": needs, "log": log})

    def changed(self, job_id: int, archived: bool = False) -> JobRow:
        self.count += 1
        log = msgspec.json.decode(self.tip.jobs[job_id][1])["log"]
        return JobRow(job_id, self.document(self.count, log), archived)

    def live(self, pick: int) -> int | None:
        jobs = [job_id for job_id, (archived, _) in self.tip.jobs.items() if not archived]
        return jobs[pick % len(jobs)] if jobs else None

    def configured(self) -> ConfigRow:
        self.count += 1
        return ConfigRow("", "v", b"%d" % self.count)

    @rule()
    def submit(self) -> None:
        self.count += 1
        # an id whose job may have come back from a crash unacknowledged is not given again
        job_id = max(self.tip.jobs, default=0) + 1
        rows: list[Row] = [] if job_id <= self.tip.serial else [SerialRow(job_id + 2)]
        self.commit(*rows, JobRow(job_id, self.document(self.count, [])))

    @rule(pick=JOBS)
    def change(self, pick: int) -> None:
        if (job_id := self.live(pick)) is not None:
            self.commit(self.changed(job_id))

    @rule(pick=JOBS)
    def write_log(self, pick: int) -> None:
        if (job_id := self.live(pick)) is not None:
            self.count += 1
            self.commit(LogRow(job_id, 0, b"%d" % self.count))

    @rule(pick=JOBS)
    def change_configuration_in_a_job(self, pick: int) -> None:
        if (job_id := self.live(pick)) is not None:
            row = self.configured()
            self.tip = self.tip.after([row])  # so that the document needs it
            self.commit(row, self.changed(job_id))

    @rule(pick=JOBS, gone=st.booleans())
    def change_configuration(self, pick: int, gone: bool) -> None:
        row = ConfigRow("nodes", f"node{pick}", None if gone else b"%d" % self.count)
        self.commit(self.configured(), row)

    @rule(pick=JOBS, same=st.booleans())
    def archive(self, pick: int, same: bool) -> None:
        if (job_id := self.live(pick)) is not None:
            body = self.tip.jobs[job_id][1]
            self.commit(JobRow(job_id, body, True) if same else self.changed(job_id, True))

    # What disk and clock do

    @rule(steps=st.integers(1, 12))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            self.scene.thread.step()

    @rule(seconds=st.sampled_from([0.25, FollowingPace().pause, 5.0]))
    def wait(self, seconds: float) -> None:
        self.scene.clock.advance(seconds)

    @rule()
    def settle(self) -> None:
        self.scene.journal.settle().addErrback(lambda failure: None)

    @rule(pick=JOBS, steps=st.integers(0, 8))
    def go_on(self, pick: int, steps: int) -> None:
        """A job runs on while the files follow: changes and lines between any two steps."""
        self.change(pick)
        self.write_log(pick)
        self.scene.run(0.0)
        self.scene.clock.advance(1.0)
        self.work(steps)
        self.write_log(pick)
        self.change(pick)

    @rule(method=METHODS, seconds=st.sampled_from([1.0, 5.0]), mended=st.booleans())
    def stumble(self, method: str, seconds: float, mended: bool) -> None:
        """The files can't follow for a while."""
        self.scene.disk.faults[method] = NO_SPACE
        self.scene.run(seconds)
        if mended:
            self.scene.disk.faults.clear()

    @rule(commits=st.integers(1, 3))
    def refuse(self, commits: int) -> None:
        """The store takes nothing, neither what flies nor what gathers behind it."""
        for _ in range(commits):
            self.submit()
        before = self.scene.store.load()
        self.scene.store.fault = NO_SPACE
        while self.pending and self.scene.thread.step():
            pass
        assert not self.pending
        assert self.scene.store.load() == before
        self.scene.store.fault = None

    @rule(effects=st.integers(0, 20), error=st.sampled_from(REFUSALS), seconds=SECONDS)
    def fail_once(self, effects: int, error: int, seconds: float) -> None:
        """Any one effect fails, of a commit or of the files."""
        self.scene.power.fail_after(effects, OSError(error, os.strerror(error)))
        self.scene.run(seconds)
        self.scene.power.fail_after(0, None)

    @rule(lie=st.sampled_from(Lie), writes=st.integers(0, 3), seconds=SECONDS)
    def lied_to(self, lie: Lie, writes: int, seconds: float) -> None:
        """One file doesn't hold what was written to it: it must not take a good one's place."""
        self.scene.disk.lies = [*[None] * writes, lie]
        self.scene.run(seconds)
        self.scene.disk.lies = []

    @rule()
    def mend(self) -> None:
        self.scene.disk.faults.clear()

    # Crashes

    @rule(effects=st.integers(0, 40), closing=st.booleans(), seed=SURVIVAL, plan=PLANS)
    def cut_the_power(self, effects: int, closing: bool, seed: int, plan: list[int]) -> None:
        """Goes on, or closes, until the power goes, then starts again, perhaps in vain at first."""
        scene = self.scene
        scene.power.cut_after(effects)
        try:
            if closing:
                scene.journal.close().addErrback(lambda failure: None)
            for _ in range(6):
                scene.run(1.0)
        except PowerCut:
            pass
        self.crash(seed)
        for number, effects_of_recovery in enumerate(plan):
            scene.power.cut_after(effects_of_recovery)
            try:
                scene.recover()
            except PowerCut:
                self.crash(seed + number)
            else:
                scene.power.restore()
        self.restart()

    @rule(seed=SURVIVAL)
    def stop_cleanly(self, seed: int) -> None:
        """Closes in full: the journal is empty, the files are all that there is."""
        scene = self.scene
        scene.disk.faults.clear()
        closed: list[Any] = []
        scene.journal.close().addBoth(closed.append)
        scene.thread.run()
        assert closed == [None], closed
        assert not self.pending
        assert len(scene.store.load()) == 0
        if self.published.jobs:
            # the file may be exact, never too low
            assert parse_serial(scene.disk.read(FILES.serial)) == max(self.published.jobs)
        self.crash(seed)
        self.restart()

    def crash(self, seed: int) -> None:
        self.scene.disk.crash(survival(seed))
        self.look_as_another_daemon()

    def look_as_another_daemon(self) -> None:
        """Files are whole, nothing that failed is in one, nothing is ahead of its time."""
        disk = self.scene.disk
        config = disk.read(FILES.config)
        assert config is not None
        version = msgspec.json.decode(config).get("v", 0)
        serial = parse_serial(disk.read(FILES.serial)) or 0
        lawful = set(self.lawful)
        state = self.published
        for rows in self.pending:
            state = state.after(rows)
            lawful.update(body for _, body in state.jobs.values())
        for job_id, body in self.files():
            assert body in lawful, (job_id, body)
            assert msgspec.json.decode(body)["needs"] <= version, "ahead of its configuration"
            assert job_id <= serial, "ahead of the serial"

    def files(self) -> list[tuple[int, bytes]]:
        disk, found = self.scene.disk, []
        for directory in (FILES.queue, f"{FILES.archive}/0"):
            for name in disk.names(directory):
                body = disk.read(f"{directory}/{name}")
                if (job_id := job_number(name)) is not None and body is not None:
                    found.append((job_id, body))
        return found

    def restart(self) -> None:
        scene = self.scene
        scene.open()
        found = self.state_on_disk()
        state = self.published
        lawful = [state]
        for rows in self.pending:
            state = state.after(rows)
            lawful.append(state)
        matching = [
            state
            for state in lawful
            if (state.jobs, state.config) == (found.jobs, found.config)
            and max(state.jobs, default=0) <= found.serial <= state.serial
        ]
        assert matching, (found, lawful)
        assert scene.journal.reserved == found.serial
        assert not [n for n in scene.disk.names(FILES.queue) if n.endswith(TEMPORARY_SUFFIX)]
        self.published = self.tip = found
        self.lawful = {body for _, body in found.jobs.values()}
        self.pending.clear()
        self.fresh()

    def state_on_disk(self) -> State:
        disk = self.scene.disk
        jobs = {}
        for archived, directory in ((False, FILES.queue), (True, f"{FILES.archive}/0")):
            for name in disk.names(directory):
                if (job_id := job_number(name)) is not None:
                    body = disk.read(f"{directory}/{name}")
                    assert body is not None
                    assert job_id not in jobs, "in the queue and in the archive"
                    jobs[job_id] = archived, body
        config = disk.read(FILES.config)
        assert config is not None
        return State(jobs, config, parse_serial(disk.read(FILES.serial)) or 0)

    @invariant()
    def backlog_counts_the_rows_of_the_store(self) -> None:
        assert self.scene.journal.backlog == len(self.scene.store.load())


class CrashTests(SynchronousTestCase):
    def test_crashes(self) -> None:
        """Whatever the moment of a crash, what is acknowledged is there afterwards."""
        run_machine(Crashes, examples(400, 5000), examples(40, 60))

    def test_crashes_with_edits(self) -> None:
        """Nor is anything lost where most rows are edits of the ones before them."""
        self.patch(edits, "LARGE", 0)
        self.patch(edits, "_OVERHEAD", 0)
        run_machine(Crashes, examples(200, 5000), examples(40, 60))
