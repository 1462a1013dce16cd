"""Tests of the stream: what viewers are told, when, and what is kept for those who can't read."""

from __future__ import annotations

import json
from importlib.resources import files
from inspect import cleandoc
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from ganeti_masterd.errors import OpExecError, encode_error
from ganeti_masterd.events import JobShown
from ganeti_masterd.jobs import model
from ganeti_masterd.monitoring import schema
from ganeti_masterd.monitoring.feed import BEAT, MAX_VIEWERS, PATIENCE
from ganeti_masterd.monitoring.schema import FullState, StreamMessage
from ganeti_masterd.monitoring.stream import GATHER, KEPT, LINGER, LOOK, MOST_LINES
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.replication.replication import Replica
from ganeti_masterd.replication.standing import CandidateStanding
from tests.monitoring.scene import MonitoringScene


def evened(value: Any) -> Any:
    """Returns a schema whose texts have no indentation, which Python takes away from 3.13 on."""
    if isinstance(value, dict):
        return {key: evened(item) for key, item in value.items()}
    if isinstance(value, list):
        return [evened(item) for item in value]
    return cleandoc(value) if isinstance(value, str) else value


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(StreamMessage)


class StreamScene(MonitoringScene):
    """Viewers of a running queue, over connections in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.begin()
        self.start()

    def view(self, query: str = "?format=jsonl") -> tuple[Any, StringTransport]:
        """Opens the stream on a new connection."""
        protocol, transport = self.connect()
        protocol.dataReceived(f"GET /events{query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return protocol, transport

    def read(self, transport: StringTransport) -> list[Any]:
        """Takes what came since the last time, each message checked against its shape."""
        data = transport.value().partition(b"\r\n\r\n")[2] or transport.value()
        transport.clear()
        return [_decoder.decode(line) for line in data.splitlines() if line]

    def kinds(self, transport: StringTransport) -> list[str]:
        """Takes what came since the last time; returns the kinds of the messages."""
        return [type(message).__name__ for message in self.read(transport)]

    def leave(self, protocol: Any) -> None:
        """A viewer goes away."""
        protocol.connectionLost(Failure(ConnectionDone()))

    def say(self, job_id: int, *lines: str) -> None:
        """Has a running job log lines."""
        for line in lines:
            self.successResultOf(self.queue.add_log(job_id, 0, "message", line))

    def run_job(self, job_id: int) -> None:
        """Has a job run, and go on running."""
        job = self.queue.tip(job_id)
        assert job is not None
        self.queue.commit([model.begin_running(job, 0, self.timers.now())])


class StateTests(StreamScene):
    """The first message."""

    def test_full_state(self) -> None:
        """A viewer first gets all that is known, once, with the jobs in their order."""
        first, second = self.submit_one(), self.submit_one()
        self.finish(first)
        self.run_job(second)
        _, transport = self.view()
        (state,) = self.read(transport)
        self.assertIsInstance(state, FullState)
        self.assertEqual((state.schema, state.cluster), (schema.VERSION, "cluster.example"))
        self.assertEqual([job.id for job in state.jobs], [first, second])
        self.assertEqual([job.status for job in state.jobs], ["success", "running"])
        self.assertEqual((state.queue.jobs["running"], state.queue.slots), (1, 2))
        self.assertEqual((state.left_out, state.faults, state.candidates), (0, [], []))

    def test_nobody_looks(self) -> None:
        """Before anyone looks nothing is observed; a minute after the last one neither."""
        self.assertFalse(self.events.observed(JobShown))
        timers = len(self.timers)
        protocol, _transport = self.view()
        self.assertTrue(self.events.observed(JobShown))
        self.leave(protocol)
        self.clock.pump([1] * int(LINGER + 1))
        self.assertFalse(self.events.observed(JobShown))
        self.assertEqual(len(self.timers), timers)

    def test_close(self) -> None:
        """The end of the monitoring ends the stream, and leaves no timer."""
        protocol, _ = self.view()
        self.submit_one()
        self.successResultOf(self.monitoring.close())
        self.leave(protocol)
        self.assertFalse(self.events.observed(JobShown))
        self.assertEqual(len(self.timers), 0)


class ChangeTests(StreamScene):
    """What happens while someone looks."""

    def setUp(self) -> None:
        super().setUp()
        self.protocol, self.transport = self.view()
        self.read(self.transport)

    def test_job(self) -> None:
        """A job's way: its states, its lines once each, its progress, its error, the archive."""
        job_id = self.submit_one()
        self.run_job(job_id)
        self.clock.advance(GATHER)
        (seen,) = self.read(self.transport)
        self.assertEqual((seen.job.id, seen.job.status, seen.job.done), (job_id, "running", 0))
        self.assertEqual(seen.job.summary, ["TEST_DELAY(1.0e-3)"])
        self.say(job_id, "one", "two")
        self.queue.show_progress(job_id, 0, "half")
        self.clock.advance(GATHER)
        seen, *said = self.read(self.transport)
        self.assertEqual(seen.job.progress, "half")
        self.assertEqual(
            [(line.id, line.text) for line in said], [(job_id, "one"), (job_id, "two")]
        )
        self.say(job_id, "three")
        self.clock.advance(GATHER)
        self.assertEqual([line.text for line in self.read(self.transport)[1:]], ["three"])
        job = self.queue.tip(job_id)
        assert job is not None
        error = encode_error(OpExecError("The disk is gone"))
        self.queue.commit([model.fail(job, 0, error, self.timers.now())])
        self.clock.advance(GATHER)
        (seen,) = self.read(self.transport)
        self.assertEqual((seen.job.status, seen.job.error), ("error", "The disk is gone"))
        self.assertIsNone(seen.job.progress)
        self.successResultOf(self.control.archive(job_id))
        self.clock.advance(GATHER)
        self.assertEqual([message.id for message in self.read(self.transport)], [job_id])

    def test_gathered(self) -> None:
        """Changes of a moment are one message for each job, the last state of it."""
        ids = [self.submit_one() for _ in range(5)]
        for job_id in ids:
            self.finish(job_id)
        self.assertEqual(self.transport.value(), b"")
        self.clock.advance(GATHER)
        seen = self.read(self.transport)
        self.assertEqual(
            [(each.job.id, each.job.status) for each in seen], [(n, "success") for n in ids]
        )

    def test_many_lines(self) -> None:
        """Of a job that says very much in a moment the last lines are shown."""
        job_id = self.submit_one()
        self.run_job(job_id)
        self.say(job_id, *map(str, range(MOST_LINES + 50)))
        self.clock.advance(GATHER)
        lines = [each.text for each in self.read(self.transport)[1:]]
        self.assertEqual(lines, [str(n) for n in range(50, MOST_LINES + 50)])

    def test_queue(self) -> None:
        """The drain flag and counts."""
        self.queue.drained = True
        self.clock.advance(LOOK)
        (changed,) = self.read(self.transport)
        self.assertTrue(changed.queue.drained)
        self.clock.pump([LOOK] * 5)
        self.assertEqual(self.kinds(self.transport), [])

    def test_candidates_and_faults(self) -> None:
        """Each is told when it changes."""
        self.replicas = [Replica("node2", CandidateStanding.LAGGING, 7)]
        self.observed_journal.fault = "no room"
        self.clock.advance(LOOK)
        candidates, faults = self.read(self.transport)
        self.assertEqual(
            [(each.node, each.current, each.waiting) for each in candidates.candidates],
            [("node2", False, 7)],
        )
        self.assertEqual(faults.faults, ["Commits fail: no room"])

    def test_configuration(self) -> None:
        """Which objects were added, changed and removed, and nothing of their content."""
        node2, node3 = self.snapshot.node("node2"), self.snapshot.node("node3")
        changed = replace(node2, offline=True, serial_no=5)
        self.snapshot = self.snapshot.with_object("nodes", changed)
        self.snapshot = self.snapshot.without("nodes", node3.uuid)
        self.clock.advance(LOOK)
        (told,) = self.read(self.transport)
        self.assertEqual(
            [(each.section, each.name, each.what, each.serial) for each in told.changed],
            [("nodes", "node2", "changed", 5), ("nodes", "node3", "removed", None)],
        )

    def test_no_secrets(self) -> None:
        """Parameters of opcodes are not in the stream, private ones least of all."""
        secret = "hidden-value"
        op = decode_opcode(
            {
                "OP_ID": "OP_INSTANCE_REINSTALL",
                "instance_name": "web1",
                "osparams_private": {"password": secret},
                "osparams_secret": {"key": secret},
            }
        )
        self.submit_one(op)
        self.clock.advance(LOOK)
        raw = self.transport.value()
        self.assertIn(b"web1", raw)
        _, later = self.view()
        self.assertIn(b"web1", later.value())
        for sent in (raw, later.value()):
            self.assertNotIn(secret.encode(), sent)
            self.assertNotIn(b"osparams", sent)


class SlowTests(StreamScene):
    """Viewers that don't read."""

    def test_full_state_later(self) -> None:
        """One that can't take more gets nothing, and when it can again the full state, once."""
        _, slow = self.view()
        _, quick = self.view()
        self.read(slow), self.read(quick)
        slow.producer.pauseProducing()  # type: ignore[union-attr]
        for _ in range(50):
            self.finish(self.submit_one())
            self.clock.advance(GATHER)
        self.assertEqual(slow.value(), b"")
        self.assertGreater(len(self.read(quick)), 49)
        slow.producer.resumeProducing()  # type: ignore[union-attr]
        self.assertEqual(self.kinds(slow), ["FullState"])
        self.submit_one()
        self.clock.advance(GATHER)
        self.assertIn("JobSeen", self.kinds(slow))

    def test_nothing_missed(self) -> None:
        """One that was slow while nothing happened is told nothing again."""
        _, slow = self.view()
        self.read(slow)
        slow.producer.pauseProducing()  # type: ignore[union-attr]
        slow.producer.resumeProducing()  # type: ignore[union-attr]
        self.assertEqual(slow.value(), b"")

    def test_never_reads(self) -> None:
        """One that never reads loses its place; one that reads nothing new keeps it."""
        _, slow = self.view()
        _, idle = self.view()
        slow.producer.pauseProducing()  # type: ignore[union-attr]
        self.clock.pump([BEAT] * (PATIENCE + 1))
        self.assertTrue(slow.disconnecting)
        self.assertFalse(idle.disconnecting)

    def test_too_many(self) -> None:
        """There is a most of viewers; other pages are still answered, and who leaves makes room."""
        viewers = [self.view() for _ in range(MAX_VIEWERS)]
        _, refused = self.view()
        self.assertIn(b" 503 ", refused.value().splitlines()[0])
        self.assertEqual(self.ask("/status").code, 200)
        self.leave(viewers[0][0])
        _, let_in = self.view()
        self.assertIn(b" 200 ", let_in.value().splitlines()[0])


class FormTests(StreamScene):
    """The two forms, and how to go on."""

    def test_server_sent_events(self) -> None:
        """A browser's form: fields id and data, a wait before the next try, signs of life."""
        _, transport = self.view("")
        head, _, body = transport.value().partition(b"\r\n\r\n")
        self.assertIn(b"Content-Type: text/event-stream", head)
        self.assertIn(b"X-Accel-Buffering: no", head)
        self.assertIn(b"Content-Security-Policy", head)
        first, event, rest = body.split(b"\n\n", 2)
        self.assertEqual((first, rest), (b"retry: 2000", b""))
        number, data = event.split(b"\n")
        self.assertEqual(number, b"id: %d" % json.loads(data.removeprefix(b"data: "))["seq"])
        transport.clear()
        self.clock.pump([BEAT / 3] * 3)
        self.assertEqual(transport.value(), b": alive\n\n")

    def test_since(self) -> None:
        """A viewer that comes back goes on after the last message that it had."""
        protocol, transport = self.view()
        (state,) = self.read(transport)
        self.leave(protocol)
        first, second = self.submit_one(), self.submit_one()
        self.clock.advance(GATHER)
        protocol, transport = self.view(f"?format=jsonl&since={state.seq}")
        seen = self.read(transport)
        self.assertEqual([each.job.id for each in seen], [first, second])
        self.assertEqual([each.seq for each in seen], [state.seq + 1, state.seq + 2])
        _, again = self.view(f"?format=jsonl&since={seen[0].seq}")
        self.assertEqual([each.job.id for each in self.read(again)], [second])
        _, idle = self.view(f"?format=jsonl&since={seen[1].seq}")
        self.assertEqual(self.read(idle), [])

    def test_since_too_long_ago(self) -> None:
        """Who was away too long, or asks for what never was, gets the full state."""
        _protocol, transport = self.view()
        (state,) = self.read(transport)
        for _ in range(KEPT + 1):
            self.queue.drained = not self.queue.drained
            self.clock.advance(LOOK)
        for since in (0, state.seq, 10**17):
            _, other = self.view(f"?format=jsonl&since={since}")
            self.assertEqual(self.kinds(other), ["FullState"], since)

    def test_since_while_nobody_looked(self) -> None:
        """What happened while nothing was observed is not taken for nothing."""
        protocol, transport = self.view()
        (state,) = self.read(transport)
        self.leave(protocol)
        self.clock.pump([1] * int(LINGER + 1))
        self.submit_one()
        _, transport = self.view(f"?format=jsonl&since={state.seq}")
        self.assertEqual(self.kinds(transport), ["FullState"])

    def test_refusals(self) -> None:
        """Wrong parameters, paths and methods are refused."""
        for query in ("?format=xml", "?since=x", "?since=-1", f"?since={'9' * 19}"):
            self.assertEqual(self.ask(f"/events{query}").code, 400, query)
        self.assertEqual(self.ask("/events/x").code, 404)
        self.assertEqual(self.ask("/events", "POST", b"x").code, 405)
        self.assertEqual(self.ask("/events", "HEAD").code, 200)
        self.assertFalse(self.events.observed(JobShown))

    def test_schema(self) -> None:
        """The schema that is shipped, and that is served, is that of the messages."""
        shipped = files("ganeti_masterd.monitoring").joinpath("events.schema.json").read_bytes()
        served = json.loads(self.ask("/events.schema.json").body)
        for found in (served, schema.schema()):
            self.assertEqual(evened(json.loads(shipped)), evened(found))
