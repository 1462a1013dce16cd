"""The stream of states to one candidate, against a model of what the candidate then holds."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.journal.rows import LogRow, Row
from ganeti_masterd.replication.comparison import CandidateComparison, difference, sha1
from ganeti_masterd.replication.states import (
    ArchiveMove,
    ConfigFile,
    DrainFlag,
    JobFile,
    ReplicatedState,
    SerialFile,
    states_of,
)
from ganeti_masterd.replication.stream import Stream
from tests.examples import examples, run_machine
from tests.replication.model import (
    ENDED,
    FILES,
    QUEUED,
    RUNNING,
    Bytes,
    Model,
    apply,
    check_order,
)

PICK = st.integers(0, 5)


class Streaming(RuleBasedStateMachine):
    """Publishes as the queue does, delivers in any order, and sometimes loses the candidate."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.stream = Stream(width=3, moves=2)
        self.files: dict[str, bytes] = {FILES.config: b"[]", FILES.serial: b"0\n"}
        self.number = 0
        #: The content that each publication gave to the files that it changed.
        self.published: dict[int, dict[str, bytes]] = {}
        self.under_way: list[ReplicatedState] | None = None
        self.lost = False
        self.missed = False
        self.seen = 0

    def publish(self, rows: list[Row]) -> None:
        self.number += 1
        states = states_of(rows, lambda: Bytes(self.model.config()))
        touched: dict[str, bytes] = {}
        for state in states:
            match state:
                case JobFile():
                    touched[FILES.job(state.job_id)] = state.body
                case ConfigFile():
                    touched[FILES.config] = state.content
                case SerialFile():
                    touched[FILES.serial] = b"%d\n" % state.reserved
            if not self.lost:
                self.stream.offer(self.number, state)
        self.published[self.number] = touched

    def pick(self, status: str, place: int) -> int:
        ids = self.model.ids(status)
        return ids[place % len(ids)]

    @rule()
    def submit(self) -> None:
        self.publish(self.model.submit())

    @precondition(lambda self: self.model.ids(QUEUED))
    @rule(place=PICK)
    def run(self, place: int) -> None:
        self.publish(self.model.run(self.pick(QUEUED, place)))

    @precondition(lambda self: self.model.ids(RUNNING))
    @rule(place=PICK)
    def change(self, place: int) -> None:
        self.publish(self.model.change(self.pick(RUNNING, place)))

    @precondition(lambda self: self.model.ids(RUNNING))
    @rule(place=PICK)
    def end(self, place: int) -> None:
        self.publish(self.model.end(self.pick(RUNNING, place)))

    @precondition(lambda self: self.model.ids(ENDED))
    @rule(place=PICK)
    def archive(self, place: int) -> None:
        self.publish(self.model.put_away(self.pick(ENDED, place)))

    @rule(drained=st.booleans())
    def drain(self, drained: bool) -> None:
        self.number += 1
        self.published[self.number] = {}
        if not self.lost:
            self.stream.offer(self.number, DrainFlag(drained))
        self.model.drained = drained

    @precondition(lambda self: self.under_way is None)
    @rule()
    def take(self) -> None:
        self.under_way = self.stream.take() or None

    @rule(data=st.data(), count=st.integers(1, 4), hold=st.booleans())
    def deliver(self, data: Any, count: int, hold: bool) -> None:
        for _ in range(count):
            self.deliver_some(data, hold)

    @rule()
    def release(self) -> None:
        if self.under_way is None:
            self.stream.release()

    def deliver_some(self, data: Any, hold: bool) -> None:
        states = self.stream.take() if self.under_way is None else self.under_way
        self.under_way = None
        assert self.stream.take() == []
        assert len({(type(s), getattr(s, "job_id", None)) for s in states}) == len(states)
        # They may arrive in any order.
        for state in data.draw(st.permutations(states)):
            apply(self.files, state)
            if self.stream.watermark >= 0:
                check_order(self.files)
        self.stream.delivered(hold=hold)

    @precondition(lambda self: not self.lost)
    @rule(count=PICK)
    def lose(self, count: int) -> None:
        states = self.stream.take() if self.under_way is None else self.under_way
        self.under_way = None
        for state in states[:count]:
            apply(self.files, state)
        self.stream.clear()
        self.lost = self.missed = True

    @precondition(lambda self: self.lost)
    @rule(slice_=st.integers(1, 4))
    def find(self, slice_: int) -> None:
        model = self.model
        comparison = CandidateComparison(FILES, model.reserved, slice_=slice_)
        while not comparison.complete:
            paths = [path for path in comparison.paths() if path in self.files]
            comparison.found({path: sha1(self.files[path]) for path in paths})
        for state in difference(
            comparison,
            serial=model.reserved,
            drained=model.drained,
            config=ConfigFile(Bytes(model.config())),
            jobs=list(model.jobs),
            body=model.jobs.__getitem__,
            archived=model.archive,
        ):
            self.stream.offer(0, state)
        self.stream.published(self.number)
        self.lost = False
        self.seen = min(self.seen, self.stream.watermark)

    @precondition(lambda self: not self.lost)
    @rule()
    def settle(self) -> None:
        if self.under_way is not None:
            for state in self.under_way:
                apply(self.files, state)
            self.under_way = None
            self.stream.delivered()
        self.stream.release()
        while states := self.stream.take():
            for state in states:
                apply(self.files, state)
            self.stream.delivered()
        assert len(self.stream) == 0
        assert self.stream.watermark == self.number
        drain = FILES.queue + "/drain"
        assert (drain in self.files) is self.model.drained
        live = {p: c for p, c in self.files.items() if "/archive/" not in p and p != drain}
        assert live == self.model.files()

    @invariant()
    def the_watermark_tells_the_truth(self) -> None:
        if self.lost:
            return
        watermark = self.stream.watermark
        assert watermark >= self.seen, "the watermark went back"
        self.seen = watermark
        newest: dict[str, bytes] = {}
        for number in range(1, watermark + 1):
            newest.update(self.published[number])
        for path, content in newest.items():
            archived = path.replace("/queue/", "/queue/archive/0/")
            held = self.files.get(path, self.files.get(archived))
            if held is None and self.missed:
                # It was archived before the job was sent to the candidate.
                assert path in {FILES.job(job_id) for job_id in self.model.archive}
                continue
            assert held is not None
            assert _version(held) >= _version(content), path


def _version(content: bytes) -> int:
    value = json.loads(content)
    if isinstance(value, dict):
        return int(value["version"])
    return len(value) if isinstance(value, list) else int(value)


def job(job_id: int, *, ended: bool = False, body: bytes = b"") -> JobFile:
    return JobFile(job_id, body, ended)


class StreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stream = Stream()

    def offer(self, *states: ReplicatedState) -> None:
        for number, state in enumerate(states, self.stream.head + 1):
            self.stream.offer(number, state)

    def all(self) -> list[list[ReplicatedState]]:
        taken = []
        while states := self.stream.take():
            taken.append(states)
            self.stream.delivered()
        return taken

    def test_machine(self) -> None:
        """Whatever happens, a candidate's files could be taken over at any time."""
        run_machine(Streaming, examples(200, 3000), 50)

    def test_states_of_one_job_become_one(self) -> None:
        """A job that is queued and then runs before anything was sent is sent only once."""
        self.offer(job(1), job(1, body=b"running"))
        self.assertEqual(self.all(), [[job(1, body=b"running")]])
        self.assertEqual(self.stream.watermark, 2)

    def test_end_waits_for_the_configuration(self) -> None:
        """A job's final state is sent after the configuration published before it."""
        config = ConfigFile(Bytes(b"1"))
        self.offer(job(1), config, job(1, ended=True))
        self.assertEqual(self.all(), [[job(1)], [config], [job(1, ended=True)]])

    def test_run_before_the_configuration(self) -> None:
        """A job's ``running`` is sent before a configuration that it changed, its end after it."""
        running = job(1, body=b"running")
        config, newer = ConfigFile(Bytes(b"1")), ConfigFile(Bytes(b"2"))
        self.offer(config, running, newer, job(1, ended=True))
        self.assertEqual(self.all(), [[running], [newer], [job(1, ended=True)]])

    def test_configurations_become_one(self) -> None:
        """Of two configurations the older is dropped if no job's end is between them."""
        first, second, third = (ConfigFile(Bytes(b"%d" % n)) for n in range(3))
        self.offer(first, job(1), second, job(2, ended=True), job(3), third)
        self.assertEqual(len(self.stream), 5)
        self.assertEqual(self.all(), [[job(1)], [second], [job(2, ended=True)], [job(3)], [third]])

    def test_configuration_in_the_older_ones_place(self) -> None:
        """With only final states between them, the newer configuration takes the older's place."""
        first, second = ConfigFile(Bytes(b"1")), ConfigFile(Bytes(b"2"))
        self.offer(first, job(2, ended=True), second)
        self.assertEqual(self.all(), [[second], [job(2, ended=True)]])

    def test_serial_before_its_jobs(self) -> None:
        """A newer serial takes the older one's place, before the jobs."""
        self.offer(SerialFile(3), job(1), job(2), SerialFile(9), job(4))
        self.assertEqual(self.all(), [[SerialFile(9)], [job(1), job(2), job(4)]])

    def test_how_many_go_together(self) -> None:
        """Job files are sent a few at a time, separately from those of ended jobs."""
        stream = self.stream = Stream(width=2)
        self.offer(job(1), job(2), job(3), job(4, ended=True), job(5, ended=True))
        self.assertEqual([len(states) for states in self.all()], [2, 1, 2])
        self.assertEqual(len(stream), 0)

    def test_one_call_for_many_moves(self) -> None:
        """Moves to the archive are sent together up to a limit."""
        self.stream = Stream(moves=3)
        self.offer(*map(ArchiveMove, range(1, 6)))
        self.assertEqual([len(states) for states in self.all()], [3, 2])

    def test_watermark_of_what_is_on_its_way(self) -> None:
        """States in flight don't raise the watermark before they are delivered."""
        self.offer(job(1), job(2, ended=True))
        self.assertEqual(self.stream.watermark, 0)
        self.stream.take()
        self.assertEqual(self.stream.watermark, 0)
        self.stream.delivered()
        self.assertEqual(self.stream.watermark, 1)

    def test_left_out_state_holds_the_watermark(self) -> None:
        """A publication whose state was replaced counts only when the newer state is delivered."""
        first, second = ConfigFile(Bytes(b"1")), ConfigFile(Bytes(b"2"))
        self.offer(first, job(1), second)
        self.assertEqual(self.stream.take(), [job(1)])
        self.stream.delivered()
        self.assertEqual(self.stream.watermark, 0)
        self.assertEqual(self.stream.take(), [second])
        self.stream.delivered()
        self.assertEqual(self.stream.watermark, 3)

    def test_all_changes_meanwhile_are_one(self) -> None:
        """Changes that jobs make while a configuration is in flight are all in the next one."""
        first, second, third = (ConfigFile(Bytes(b"%d" % n)) for n in range(3))
        self.offer(first)
        self.assertEqual(self.stream.take(), [first])
        self.offer(second, job(1, ended=True), SerialFile(9), job(2), third, job(2, ended=True))
        self.assertEqual(len(self.stream), 6)
        self.stream.delivered(hold=True)
        self.assertEqual(self.stream.watermark, 1)
        self.assertEqual(self.all(), [[SerialFile(9)], [job(2)]])
        self.assertEqual((len(self.stream), self.stream.watermark), (3, 1))
        self.stream.release()
        self.assertEqual(self.all(), [[third], [job(1, ended=True), job(2, ended=True)]])
        self.assertEqual((len(self.stream), self.stream.watermark), (0, 7))

    def test_no_job_before_its_serial(self) -> None:
        """A job whose serial waits behind a configuration isn't sent before that."""
        first, second = ConfigFile(Bytes(b"1")), ConfigFile(Bytes(b"2"))
        ended = job(2, ended=True)
        self.offer(first, ended, job(1), second, SerialFile(9))
        self.assertEqual(self.stream.take(), [first])
        self.offer(job(7))
        self.stream.delivered()
        order = [[ended], [job(1)], [second], [SerialFile(9)], [job(7)]]
        self.assertEqual(self.all(), order)

    def test_never_put_off_for_ever(self) -> None:
        """A state offered once a configuration may be sent doesn't overtake it."""
        first, second = ConfigFile(Bytes(b"1")), ConfigFile(Bytes(b"2"))
        self.offer(first)
        self.stream.take()
        self.offer(second)
        self.stream.delivered()
        self.offer(job(1))
        self.assertEqual(self.stream.take(), [second])

    def test_nothing_for_others(self) -> None:
        """A publication without states for candidates raises the watermark at once."""
        self.assertEqual(states_of([LogRow(1, 0, b"[]")], lambda: Bytes(b"")), [])
        self.stream.published(4)
        self.assertEqual(self.stream.watermark, 4)
