"""The benchmark's own parts: clients, verdicts, table, and the news fragments' check."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from itertools import islice, repeat
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from bench import reference, takeover
from bench.clusters import cluster
from bench.crowd import Crowd, Failed, Script
from bench.figures import AtLeast, AtMost, Figure, Line, Times
from bench.job_runs import files_behind
from bench.load import (
    Tally,
    ask,
    burst,
    instance_opcodes,
    play,
    slowest_tenth,
    submit_and_wait,
    tags,
    times,
)
from bench.loads import Beside, Counted, Instances
from bench.queues import full_queue
from bench.reference import TappedCall, stretches
from bench.report import as_json, number, table
from bench.workloads import WORKLOADS
from ganeti_masterd.jobs.files import QueueFolder, load
from ganeti_masterd.opcodes.instances import InstanceCreate, InstanceRemove
from ganeti_masterd.opcodes.tags import TagsDel, TagsSet
from ganeti_masterd.opcodes.validation import load_opcode
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.store import NodeStore
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.paths import Paths
from tools.check_fragments import faults

Answer = Callable[[Any], bytes]


class SocketCase(SynchronousTestCase):
    """A test with a socket, whose requests a thread answers."""

    def setUp(self) -> None:
        self.path = self.mktemp()  # relative, so that it stays below a socket's 107 bytes
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(self.listener.close)
        self.listener.bind(self.path)
        self.listener.listen(50)

    def serve(self, answer: Answer, connections: int = 1) -> None:
        """Answers each request of the next connections; an empty answer closes one."""

        def one(sock: socket.socket) -> None:
            buffer = b""
            with sock:
                while chunk := sock.recv(1 << 16):
                    *requests, buffer = (buffer + chunk).split(b"\x03")
                    for request in requests:
                        reply = answer(json.loads(request))
                        if not reply:
                            return
                        sock.sendall(reply)

        def accept() -> None:
            threads = []
            for _ in range(connections):
                sock, _ = self.listener.accept()
                threads.append(Thread(target=one, args=(sock,)))
                threads[-1].start()
            for thread in threads:
                thread.join()

        server = Thread(target=accept)
        server.start()
        self.addCleanup(server.join)


class CrowdTests(SocketCase):
    """Scripts on real sockets."""

    def play(self, *scripts: Script) -> Crowd:
        """Plays the scripts to their end."""
        crowd = Crowd(self.path)
        try:
            for script in scripts:
                crowd.add(script)
            crowd.run()
        finally:
            crowd.close()
        return crowd

    def test_each_reply_reaches_its_script(self) -> None:
        """Several clients each get their own answers, also ones larger than a read."""
        self.serve(lambda request: json.dumps(request * 2).encode() + b"\x03", connections=3)
        got: dict[str, Any] = {}

        def script(name: str, size: int) -> Script:
            got[name] = [json.loads((yield json.dumps(name * size).encode() + b"\x03") or b"")]
            yield 0.001
            got[name].append(json.loads((yield b'"end"\x03') or b""))

        self.play(script("a", 1), script("b", 400_000), script("c", 7))
        for name, size in [("a", 1), ("b", 400_000), ("c", 7)]:
            self.assertEqual(got[name], [name * size * 2, "endend"])

    def test_full_backlog_is_waited_for(self) -> None:
        """A server that is slow to accept gets its clients one by one; none fails."""
        self.listener.listen(0)
        self.serve(lambda request: b'{"success":true,"result":1}\x03', connections=20)
        tally = Tally()
        self.play(*[ask(b"{}\x03", tally, times(2)) for _ in range(20)])
        self.assertEqual(len(tally.latencies), 40)

    def test_lost_connection_is_counted(self) -> None:
        """A server that closes without an answer ends the script and is noted."""
        self.serve(lambda request: b"")
        tally = Tally()
        crowd = self.play(ask(b"{}\x03", tally, times(5)))
        self.assertEqual((crowd.lost, tally.latencies), (1, []))

    def test_error_answer_ends_the_load(self) -> None:
        """An error is never measured as a fast answer."""
        self.serve(lambda request: b'{"success":false,"result":["GenericError",["no"]]}\x03')
        error = self.assertRaises(Failed, self.play, ask(b"{}\x03", Tally(), times(5)))
        self.assertIn("GenericError", str(error))

    def test_later_error_ends_the_load(self) -> None:
        """Answers after the first are looked at too."""
        replies = iter([b'{"success":true,"result":1}', b'{"success":false,"result":"x"}'])
        self.serve(lambda request: next(replies) + b"\x03")
        self.assertRaises(Failed, self.play, ask(b"{}\x03", Tally(), times(5)))

    def test_asks_as_often_as_told(self) -> None:
        """The first answer is a check and not counted."""
        self.serve(lambda request: b'{"success":true,"result":1}\x03')
        tally = Tally()
        self.play(ask(b"{}\x03", tally, times(5)))
        self.assertEqual(len(tally.latencies), 5)


class LoadTests(SocketCase):
    """Loads on real sockets, played to their end."""

    def test_counted(self) -> None:
        """So many requests are made in all, whoever of the clients makes them."""
        self.serve(lambda request: b'{"success":true,"result":1}\x03', connections=3)
        crowd = Crowd(self.path)
        self.addCleanup(crowd.close)
        load = Counted(method="Query", args=[], clients=3, requests=10)
        self.assertEqual(play(load, crowd).count, 10)

    def test_beside(self) -> None:
        """One client's requests are timed apart from the small ones of another."""
        heard: set[str] = set()

        def answer(request: Any) -> bytes:
            heard.add(request["method"])
            return b'{"success":true,"result":1}\x03'

        self.serve(answer, connections=2)
        crowd = Crowd(self.path)
        self.addCleanup(crowd.close)
        measured = play(Beside(method="Query", args=[], seconds=0.05), crowd)
        self.assertEqual(heard, {"Query", "QueryConfigValues"})
        self.assertGreater(measured.count, 0)
        self.assertGreater(measured.large, 0.0)


class ScriptTests(SynchronousTestCase):
    """Scripts stepped by hand."""

    def answer(self, script: Script, result: Any) -> Any:
        """Gives a result to a script and returns the request that follows."""
        step = script.send(json.dumps({"success": True, "result": result}).encode())
        return json.loads(step[:-1]) if isinstance(step, bytes) else step

    def test_job_is_followed_to_its_end(self) -> None:
        """A client waits on from the status that it was told, over time-outs of both forms."""
        tally = Tally()
        script = submit_and_wait(tally, float("inf"), repeat({}))
        next(script)
        self.assertEqual(self.answer(script, 7)["args"], [7, ["status"], None, -1, 25])
        self.assertEqual(self.answer(script, [["running"], []])["args"][2], ["running"])
        self.assertEqual(self.answer(script, "nochange")["args"][2], ["running"])
        self.assertEqual(self.answer(script, [["error"], []])["method"], "SubmitJob")
        self.assertEqual((tally.last_job, tally.failed, len(tally.latencies)), (7, 1, 1))

    def test_tag_comes_and_goes(self) -> None:
        """A client of changes gives its instance a tag, then takes it away: valid opcodes all."""
        first, second, third = map(load_opcode, islice(tags("instance3"), 3))
        assert isinstance(first, TagsSet)
        assert isinstance(second, TagsDel)
        self.assertEqual((first.name, second.name), ("instance3", "instance3"))
        self.assertEqual((first.tags, third), (second.tags, first))

    def test_instances_of_two_clients(self) -> None:
        """Each instance is made and removed by one client, whatever the others do."""
        load = Instances(action="pair", clients=2, count=2, first=5, places=[["a", "b"], ["c"]])
        numbers = iter(range(5, 7))
        one, other = instance_opcodes(load, numbers), instance_opcodes(load, numbers)
        made = [load_opcode(next(each)) for each in (one, other)]
        removed = [load_opcode(next(each)) for each in (one, other)]
        self.assertEqual([next(one, None), next(other, None)], [None, None])
        self.assertTrue(all(isinstance(each, InstanceCreate) for each in made))
        self.assertTrue(all(isinstance(each, InstanceRemove) for each in removed))
        for op, name in zip([*made, *removed], ["bench5", "bench6"] * 2, strict=True):
            self.assertEqual(op.instance_name, name)
        self.assertEqual((made[0].pnode, made[0].snode, made[0].iallocator), ("c", None, None))
        self.assertEqual((made[1].pnode, made[1].snode), ("a", "b"))

    def test_burst_counts_what_failed(self) -> None:
        """A burst ends when all jobs have, and tells those without success."""
        tally = Tally()
        script = burst(tally, 3, limit=1e9)
        next(script)
        look = self.answer(script, [[True, 4], [True, 5], [True, 6]])
        self.assertEqual(look["args"], [[4, 5, 6], ["status"]])
        self.assertEqual(self.answer(script, [["success"], ["running"], ["error"]]), 0.05)
        next(script)
        self.assertRaises(StopIteration, self.answer, script, [["success"], ["success"], ["error"]])
        self.assertEqual((tally.last_job, tally.failed, len(tally.latencies)), (6, 1, 3))

    def test_burst_refused_in_part(self) -> None:
        """A burst that is not taken as a whole is no figure."""
        script = burst(Tally(), 2, limit=1.0)
        next(script)
        self.assertRaises(Failed, self.answer, script, [[True, 4], [False, "full"]])

    def test_slowest_tenth(self) -> None:
        """A standstill shows, whatever the mean."""
        self.assertEqual(slowest_tenth([i / 10 for i in range(100)], 0.0, 10.0), 10.0)
        self.assertEqual(slowest_tenth([i / 10 for i in range(50)], 0.0, 10.0), 0.0)


class ReportTests(SynchronousTestCase):
    """Verdicts and the table."""

    def line(self, measured: float | None, wanted: AtLeast | AtMost | None) -> Line:
        figure = Figure("rate", "rate", "1/s", wanted=wanted, limit=True)
        return Line(workload="w", figure=figure, measured=measured, machine=200.0)

    def test_verdicts(self) -> None:
        """A share counts against the limit, a bound by itself, and nothing measured is neither."""
        cases: list[tuple[float | None, AtLeast | AtMost | None, bool | None]] = [
            (100.0, AtLeast(0.5), True),
            (99.0, AtLeast(0.5), False),
            (8.0, AtMost(8.0), True),
            (8.1, AtMost(8.0), False),
            (float("inf"), AtMost(8.0), False),
            (None, AtLeast(0.5), None),
            (1.0, None, None),
        ]
        for measured, wanted, expected in cases:
            self.assertIs(self.line(measured, wanted).reached, expected, (measured, wanted))

    def test_share_of_nothing_is_missed(self) -> None:
        """Without a limit a wanted share is not reached by default."""
        figure = Figure("rate", "rate", "1/s", wanted=AtLeast(0.5), limit=True)
        line = Line(workload="w", figure=figure, measured=1.0)
        self.assertIs(line.reached, False)

    def test_times_of_a_peer(self) -> None:
        """A factor counts against the peer in the same run; without one there is no verdict."""
        figure = Figure("rate", "rate", "1/s", wanted=Times(8))
        for measured, peer, expected in (
            (16.0, 2.0, True),
            (15.9, 2.0, False),
            (16.0, None, None),
            (None, 2.0, None),
        ):
            line = Line("w", figure, measured, peer=peer)
            self.assertIs(line.reached, expected)
        shown = table([("work", Line("w", figure, 24.0, peer=2.0))], peer=True).splitlines()[-1]
        self.assertEqual(
            " ".join(shown.split()),
            "work: rate 24.0 1/s - 12.00 >= 8 times peer reached 2.00 1/s",
        )

    def test_table(self) -> None:
        """Each line stands under the head; a description is said once."""
        lines = [("work", self.line(150.0, AtLeast(0.5))), ("work", self.line(9.0, AtLeast(0.5)))]
        head, rule, first, second = table(lines, peer=False).splitlines()
        self.assertTrue(head.startswith("figure") and set(rule) == {"-"})
        self.assertEqual(
            " ".join(first.split()), "work: rate 150 1/s 200 1/s 0.75 >= 0.5 of limit reached"
        )
        self.assertTrue(second.startswith("  rate") and second.endswith("MISSED"))
        self.assertTrue(table(lines, peer=True).splitlines()[0].endswith("peer"))

    def test_json_has_no_infinity(self) -> None:
        """What never happened is null, as JSON knows no infinity."""
        data = as_json([("w", self.line(float("inf"), AtMost(1.0)))], {}, [])
        self.assertEqual(data["figures"][0]["measured"], None)
        self.assertEqual(data["figures"][0]["reached"], False)

    def test_numbers(self) -> None:
        """Numbers keep the digits that mean something."""
        shown = [number(value) for value in (12345.6, 12.34, 1.234, 0.0123, None, float("inf"))]
        self.assertEqual(shown, ["12,346", "12.3", "1.23", "0.012", "-", "never"])


class TakeoverTests(SynchronousTestCase):
    """What is measured on a real cluster, where there can be one."""

    def test_not_measured(self) -> None:
        """Without Ganeti there are no figures, and the reader is told why."""
        self.patch(takeover, "PROGRAMS", ("no-such-program",))
        remarks: list[str] = []
        self.assertEqual(takeover.measure(Path("/nowhere"), True, remarks), [])
        self.assertEqual(remarks, ["takeover: not measured, as no-such-program is not installed"])

    def test_failure(self) -> None:
        """A cluster that doesn't come up leaves figures that are not measured, and a remark."""

        def up(cluster: object, nodes: object) -> None:
            raise AssertionError("gnt-cluster init: 1")

        self.patch(takeover, "missing", lambda: None)
        self.patch(takeover.RealCluster, "up", up)
        self.patch(takeover.RealCluster, "close", lambda cluster: None)
        folder = Path(self.mktemp())
        folder.mkdir()
        remarks: list[str] = []
        lines = takeover.measure(folder, True, remarks)
        self.assertEqual([line.measured for _, line in lines], [None, None, None])
        self.assertEqual(remarks, ["takeover: gnt-cluster init: 1"])
        self.assertEqual(list(folder.iterdir()), [])


class ReferenceTests(SynchronousTestCase):
    """What real node daemons took of a job, and a reference that isn't there or fails."""

    def test_stretches(self) -> None:
        """Calls side by side count once, a pause between calls not at all."""
        calls = [TappedCall(t=10.0, ms=1000), TappedCall(t=10.5, ms=1000), TappedCall(t=13, ms=500)]
        self.assertEqual(stretches(calls, 9.0, 20.0), (2.0, 2))
        self.assertEqual(stretches(calls[::-1], 9.0, 20.0), (2.0, 2))
        self.assertEqual(stretches([], 9.0, 20.0), (0.0, 0))

    def test_span(self) -> None:
        """Only what lies within the span counts."""
        calls = [TappedCall(t=1.0, ms=1000), TappedCall(t=9.5, ms=1000), TappedCall(t=19, ms=5000)]
        self.assertEqual(stretches(calls, 10.0, 20.0), (1.5, 2))
        self.assertEqual(stretches([TappedCall(t=20.0, ms=1)], 10.0, 20.0), (0.0, 0))

    def test_one_call_after_another(self) -> None:
        """One that begins while another runs belongs to its stretch, however long it goes on."""
        calls = [TappedCall(t=10.0, ms=3000), TappedCall(t=11.0, ms=100), TappedCall(t=12, ms=2000)]
        self.assertEqual(stretches(calls, 10.0, 20.0), (4.0, 1))

    def test_no_reference(self) -> None:
        """Without the programs that make the cluster there are no figures, and a remark."""
        self.patch(os, "environ", {})
        remarks: list[str] = []
        self.assertEqual(reference.measure(Path("/nowhere"), True, remarks), [])
        self.assertEqual(
            remarks, ["reference: not measured, as GANETI_MASTERD_REFERENCE names no folder"]
        )

    def test_failure(self) -> None:
        """A cluster that doesn't come up is taken down; its figures are not measured."""
        programs, folder = Path(self.mktemp()).absolute(), Path(self.mktemp())
        for path in (programs, folder):
            path.mkdir()
        commands = {"up.sh": "echo no disks >&2; exit 3", "down.sh": 'rm -r "$VC_ROOT"'}
        for name, command in commands.items():
            (programs / name).write_text(f"#!/bin/sh\n{command}\n", encoding="ascii")
            (programs / name).chmod(0o755)
        self.patch(os, "environ", {**os.environ, "GANETI_MASTERD_REFERENCE": str(programs)})
        self.patch(reference, "missing", lambda: None)
        remarks: list[str] = []
        lines = reference.measure(folder, True, remarks)
        self.assertEqual({line.measured for _, line in lines}, {None})
        self.assertEqual(len(lines), len(reference.FIGURES))
        self.assertEqual(remarks, [f"reference: {programs}/up.sh: 3: no disks"])
        self.assertEqual(list(folder.iterdir()), [])

    def test_keys_are_unique(self) -> None:
        """A key is one figure's."""
        keys = [figure.key for figure in reference.FIGURES]
        self.assertEqual(len(set(keys)), len(keys))


class WorkloadTests(SynchronousTestCase):
    """What the declared workloads hold."""

    def test_names_and_keys_are_unique(self) -> None:
        """A name picks one workload, a key one figure of it."""
        self.assertEqual(len({each.name for each in WORKLOADS}), len(WORKLOADS))
        for each in WORKLOADS:
            self.assertEqual(len({figure.key for figure in each.figures}), len(each.figures))

    def test_shares_have_a_limit(self) -> None:
        """A wanted share names the limit that it is a share of."""
        for each in WORKLOADS:
            for figure in each.figures:
                if isinstance(figure.wanted, AtLeast):
                    self.assertTrue(figure.limit and each.limit, each.name)

    def test_files_behind(self) -> None:
        """Missing files and files of unfinished jobs are behind."""
        queue = Path(self.mktemp())
        queue.mkdir()
        for job, status in [(1, "success"), (2, "running"), (4, "success")]:
            (queue / f"job-{job}").write_text(json.dumps({"id": job, "ops": [{"status": status}]}))
        self.assertEqual(files_behind(queue, 1, 4), 2)
        self.assertEqual(files_behind(queue, 1, 1), 0)


class ClusterTests(SynchronousTestCase):
    """Clusters that are made for a workload."""

    def test_cluster(self) -> None:
        """The configuration is whole, instances run where it says, calls take their time."""
        # Not a test's own folder, whose path may be too long for a socket below it.
        root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, root)
        cluster(4, 10, 0.02)(root)
        snapshot = read_config(Paths(str(root)))
        self.assertEqual((len(snapshot.nodes), len(snapshot.instances)), (4, 10))
        store = NodeStore(str(root / "simulation" / "nodes.sqlite"), synced=False)
        self.addCleanup(store.close)
        held = store.load()
        self.assertEqual(
            sorted((snapshot.node(node).uuid, name) for node, _, name, _ in held),
            sorted((one.primary_node, one.name) for one in snapshot.instances.values()),
        )
        delays = msgspec.json.decode(
            (root / "simulation" / "faults.json").read_bytes(), type=list[SimulatedFault]
        )
        self.assertEqual({(delay.kind, delay.seconds) for delay in delays}, {("delay", 0.02)})


class QueueTests(SynchronousTestCase):
    """Queues that are full before their daemon starts."""

    def test_full_queue(self) -> None:
        """Every file is a job, those not archived half of them ended, the rest held by one."""
        root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, root)
        full_queue(5, 6)(root)
        folder = QueueFolder(Paths(str(root)).queue)
        (archive,) = folder.archive_folders()
        self.assertEqual(sorted(folder.ids_in(archive)), list(range(1, 6)))
        self.assertEqual(folder.read_serial(), 11)
        loaded = load(folder)
        self.assertEqual(loaded.corrupt, {})
        self.assertEqual(
            [loaded.jobs[job].status for job in range(6, 12)],
            ["success"] * 3 + ["queued"] * 3,
        )
        opcodes = {job: load_opcode(loaded.jobs[job].ops[0].input) for job in (9, 11)}
        self.assertEqual(opcodes[9].depends, None)
        self.assertEqual([each.job for each in opcodes[11].depends or ()], [9])


class FragmentTests(SynchronousTestCase):
    """The check of news fragments."""

    def check(self, name: str, text: str) -> list[str]:
        """Returns the faults of a fragment with that name and text."""
        folder = Path(self.mktemp())
        folder.mkdir()
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return faults(path)

    def test_good_ones(self) -> None:
        """A sentence under a known kind passes, with an issue's number or without."""
        for name in ("+walks.feature.md", "12.bugfix.md", "12.bugfix.2.md"):
            self.assertEqual(self.check(name, "It walks.\n"), [], name)

    def test_bad_ones(self) -> None:
        """Names that towncrier would pass over, and texts that make no entry, are faults."""
        for name, text in [
            ("walks.feature.md", "It walks."),
            ("+walks.novelty.md", "It walks."),
            ("+walks.feature.rst", "It walks."),
            ("+walks.feature.md", "It walks"),
            ("+walks.feature.md", ""),
            ("+walks.feature.md", "- It walks."),
            ("+walks.feature.md", "x" * 101 + "."),
        ]:
            self.assertEqual(len(self.check(name, text)), 1, (name, text))
