"""A hypothesis state machine over all of replication: candidates come, go, fail and are slow."""

from __future__ import annotations

import json

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.journal.rows import JobRow, Row
from ganeti_masterd.replication import states
from ganeti_masterd.replication.acknowledgement import Ack
from ganeti_masterd.replication.candidate import RETRY_AT_MOST
from ganeti_masterd.replication.comparison import SLICE
from ganeti_masterd.replication.standing import CandidateStanding
from tests.examples import examples, run_machine
from tests.replication.model import ENDED, FILES, QUEUED, RUNNING, check_order
from tests.replication.scene import DOWN, DRAIN, HELD, HUNG, UP, Scene, configuration

PICK = st.integers(0, 5)
OTHERS = st.sampled_from(["node2", "node3"])

#: Standings in which a candidate's files are complete, if perhaps not the newest.
WHOLE = (CandidateStanding.CURRENT, CandidateStanding.LAGGING)


class Candidates(RuleBasedStateMachine):
    """Commits as the queue does, with ``--ack=candidates``."""

    ack = Ack.CANDIDATES
    preparing = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene(self.ack, preparing=self.preparing)
        self.waiting: list[Deferred[None]] = []
        self.scene.replication.start()
        assert SLICE > 100, "one slice is enough for all jobs of a run"

    def commit(self, rows: list[Row]) -> None:
        jobs = [row for row in rows if isinstance(row, JobRow)]
        done = self.scene.commit(rows)
        self.waiting.append(done)

        def acknowledged(_: None) -> None:
            self.waiting.remove(done)
            for name, standing in self.standings().items():
                if standing is CandidateStanding.CURRENT:
                    for row in jobs:
                        self.check_held(name, row)

        done.addCallback(acknowledged)

    def check_held(self, name: str, row: JobRow) -> None:
        """Fails unless a node has a row's job in this or a newer state, in the right folder."""
        files = self.scene.nodes[name].files
        held = files.get(FILES.archived_job(row.job_id))
        if held is None and not row.archived:
            held = files.get(FILES.job(row.job_id))
        if held is None:
            # Archived here before it was sent to the node.
            assert row.job_id in self.scene.model.archive
        else:
            assert json.loads(held)["version"] >= json.loads(row.body)["version"]

    def standings(self) -> dict[str, CandidateStanding]:
        return {each.node: each.standing for each in self.scene.replication.replicas}

    def pick(self, status: str, place: int) -> int:
        ids = self.scene.model.ids(status)
        return ids[place % len(ids)]

    @rule()
    def submit(self) -> None:
        self.commit(self.scene.model.submit())

    @precondition(lambda self: self.scene.model.ids(QUEUED))
    @rule(place=PICK)
    def run(self, place: int) -> None:
        self.commit(self.scene.model.run(self.pick(QUEUED, place)))

    @precondition(lambda self: self.scene.model.ids(RUNNING))
    @rule(place=PICK)
    def change(self, place: int) -> None:
        self.commit(self.scene.model.change(self.pick(RUNNING, place)))

    @precondition(lambda self: self.scene.model.ids(RUNNING))
    @rule(place=PICK)
    def end(self, place: int) -> None:
        self.commit(self.scene.model.end(self.pick(RUNNING, place)))

    @precondition(lambda self: self.scene.model.ids(ENDED))
    @rule(place=PICK)
    def archive(self, place: int) -> None:
        self.commit(self.scene.model.put_away(self.pick(ENDED, place)))

    @rule(drained=st.booleans())
    def drain(self, drained: bool) -> None:
        self.scene.model.drained = drained
        self.scene.replication.set_drained(drained)

    @rule(name=OTHERS, mode=st.sampled_from([UP, UP, HELD, HUNG, DOWN]))
    def behave(self, name: str, mode: str) -> None:
        self.scene.nodes[name].mode = mode

    @rule(name=OTHERS)
    def release(self, name: str) -> None:
        self.scene.nodes[name].release()

    @rule(candidate=st.booleans())
    def choose(self, candidate: bool) -> None:
        before = self.scene.state.config
        after = before
        if candidate != (len(before.candidates()) == 3):
            after = configuration(node3={"master_candidate": candidate})
        self.scene.state.config = after
        self.scene.replication.configured(before, after)

    @rule(seconds=st.sampled_from([1, 5, 12, 35]))
    def wait(self, seconds: int) -> None:
        self.scene.wait(seconds)

    @invariant()
    def could_be_taken_over(self) -> None:
        for name, standing in self.standings().items():
            if standing in WHOLE:
                files = dict(self.scene.nodes[name].files)
                files.pop(DRAIN, None)
                check_order(files)

    @rule()
    def settle(self) -> None:
        for name in ("node2", "node3"):
            node = self.scene.nodes[name]
            node.mode = UP
            node.release()
        self.scene.wait(2 * RETRY_AT_MOST)
        assert self.waiting == []
        for name, standing in self.standings().items():
            assert standing is CandidateStanding.CURRENT
            assert self.scene.held_by(name) == self.scene.model.files()
            assert (DRAIN in self.scene.nodes[name].files) is self.scene.model.drained

    def teardown(self) -> None:
        self.settle()
        self.scene.replication.close()
        self.scene.wait(10)
        assert len(self.scene.timers) == 0


class SlowlyMade(Candidates):
    """The same with a configuration that takes time to prepare."""

    preparing = 0.7


class Paced(SlowlyMade):
    """The same with ``--ack=local``, so that nobody waits."""

    ack = Ack.LOCAL

    def check_held(self, name: str, row: JobRow) -> None:
        """Checks nothing, as nothing was promised."""


class MachineTests(SynchronousTestCase):
    def test_candidates(self) -> None:
        """Whatever candidates do, in the end they hold everything, and no commit waits for ever."""
        self.run_machine(Candidates)

    def test_large_configuration(self) -> None:
        """The same with a large config.data, which is prepared in a thread and rate-limited."""
        self.patch(states, "LARGE", 0)
        self.run_machine(SlowlyMade)
        self.run_machine(Paced)

    def run_machine(self, machine: type[Candidates]) -> None:
        """Runs many examples of a machine."""
        run_machine(machine, examples(120, 3000), 40)
