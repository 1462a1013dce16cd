"""Replication to candidates that fail and come back, are added and removed; and to all nodes."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.journal.interfaces import IJournal
from ganeti_masterd.replication import candidate as candidate_module
from ganeti_masterd.replication import replication
from ganeti_masterd.replication.acknowledgement import Ack
from ganeti_masterd.replication.candidate import LOOK_AGAIN, PATIENCE, RETRY, SETTLED
from ganeti_masterd.replication.comparison import SLICE
from ganeti_masterd.replication.replication import ACK_PATIENCE, STOP_PATIENCE
from ganeti_masterd.replication.standing import CandidateStanding
from ganeti_masterd.rpc.interfaces import INodeRPC
from tests.replication.model import FILES
from tests.replication.scene import DOWN, DRAIN, HELD, HUNG, LATE, UP, Node, Scene, configuration


class Case(SynchronousTestCase):
    ack = Ack.CANDIDATES

    def setUp(self) -> None:
        self.scene = Scene(self.ack)
        self.nodes = self.scene.nodes
        self.model = self.scene.model

    def start(self) -> None:
        self.scene.replication.start()

    def submit(self) -> Deferred[None]:
        return self.scene.commit(self.model.submit())

    def assertCurrent(self, *names: str) -> None:
        """Checks that these nodes hold everything, and no others are candidates."""
        replicas = {each.node: each.standing for each in self.scene.replication.replicas}
        self.assertEqual(replicas, dict.fromkeys(names, CandidateStanding.CURRENT))
        for name in names:
            self.assertEqual(self.scene.held_by(name), self.model.files(), name)

    def standing(self, name: str) -> CandidateStanding:
        (found,) = [e.standing for e in self.scene.replication.replicas if e.node == name]
        return found


class CandidateTests(Case):
    def test_interfaces(self) -> None:
        """The journal and the test's nodes implement their interfaces."""
        verifyObject(IJournal, self.scene.journal)
        verifyObject(INodeRPC, self.nodes)

    def test_before_the_start(self) -> None:
        """Before the start nothing is sent and nobody waits."""
        self.successResultOf(self.submit())
        self.assertEqual(self.nodes.by_name, {})

    def test_start(self) -> None:
        """A candidate that holds nothing gets everything."""
        self.submit()
        self.submit()
        self.start()
        self.assertCurrent("node2", "node3")
        self.assertNotIn(FILES.config, self.nodes["node1"].files)

    def test_start_with_what_is_there(self) -> None:
        """Files that the candidate holds already aren't sent again."""
        self.submit()
        self.nodes["node2"].files = self.model.files()
        self.start()
        asked = self.nodes["node2"].asked
        self.assertEqual(asked, ["write_ssconf_files", "node_verify", "jobqueue_set_drain_flag"])
        self.assertCurrent("node2", "node3")

    def test_serial_that_is_held(self) -> None:
        """Of each candidate it is known which configuration it holds, once sent or found."""

        def held() -> dict[str, int | None]:
            return {each.node: each.config_serial for each in self.scene.replication.replicas}

        self.nodes["node2"].files = self.model.files()
        self.nodes["node3"].mode = DOWN
        self.start()
        serial = self.scene.state.image().serial_no
        self.assertEqual(held(), {"node2": serial, "node3": None})

    def test_commits(self) -> None:
        """A commit is acknowledged when all candidates have it."""
        self.start()
        for name in ("node2", "node3"):
            self.nodes[name].mode = HELD
        done = self.submit()
        self.nodes["node2"].release()  # the serial
        self.nodes["node2"].release()  # the job
        self.nodes["node3"].release()
        self.assertNoResult(done)
        self.nodes["node3"].release()
        self.successResultOf(done)
        self.assertCurrent("node2", "node3")

    def test_failed_commit(self) -> None:
        """A commit that fails on this node's disk isn't sent."""
        self.scene = Scene(held=True)
        self.scene.replication.start()
        rows = self.scene.model.submit()
        done = self.scene.commit(rows)
        self.scene.local.fail()
        self.failureResultOf(done, JobQueueError)
        self.assertEqual(self.scene.nodes["node2"].files.get(FILES.job(1)), None)

    def test_published_before_it_is_sent(self) -> None:
        """Readers see what is durable on this node, even if no candidate has it yet."""
        self.start()
        self.nodes["node2"].mode = HELD
        seen: list[int] = []
        done = self.scene.journal.commit(self.model.submit(), lambda: seen.append(1))
        self.assertEqual(seen, [1])
        self.assertNoResult(done)

    def test_client_goes(self) -> None:
        """A commit is sent even if the Deferred that waits for it is cancelled."""
        self.start()
        self.scene.wait(SETTLED)
        self.scene.local.held = True
        done = self.submit()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.scene.local.release()
        self.scene.clock.advance(0)
        self.assertCurrent("node2", "node3")
        self.assertEqual(len(self.scene.timers), 0)

    def test_archive(self) -> None:
        """An archived job is moved to the archive on candidates, too."""
        self.start()
        for rows in (self.model.submit(), self.model.run(1), self.model.end(1)):
            self.successResultOf(self.scene.commit(rows))
        self.successResultOf(self.scene.commit(self.model.put_away(1)))
        files = self.nodes["node2"].files
        self.assertNotIn(FILES.job(1), files)
        self.assertEqual(files[FILES.archived_job(1)], self.model.archive[1])

    def test_candidate_down(self) -> None:
        """A candidate that can't be reached is not waited for, and gets everything later."""
        self.start()
        self.nodes["node3"].mode = DOWN
        self.successResultOf(self.submit())
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        self.successResultOf(self.submit())
        self.nodes["node3"].mode = UP
        self.scene.wait(RETRY + 1)
        self.assertCurrent("node2", "node3")

    def test_one_line_for_an_outage(self) -> None:
        """An outage of any length logs one line, and its end another."""
        self.start()
        lines: list[str] = []

        def observer(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.nodes["node3"].mode = DOWN
        self.submit()
        self.scene.wait(500)
        self.nodes["node3"].mode = UP
        self.scene.wait(61)
        about = [line for line in lines if "node3" in line and "queue" in line]
        self.assertEqual(len(about), 2, about)
        self.assertIn("Connection refused", about[0])
        self.assertIn("again", about[1])

    def test_candidate_hangs(self) -> None:
        """A candidate that doesn't answer delays a commit for a limited time, and only once."""
        self.start()
        self.nodes["node3"].mode = HUNG
        done = self.submit()
        self.assertNoResult(done)
        self.scene.wait(PATIENCE)
        self.successResultOf(done)
        self.successResultOf(self.submit())

    def test_slow_candidate(self) -> None:
        """A candidate that answers too slowly is not waited for until it has caught up."""
        self.start()
        slow = self.nodes["node3"]
        slow.mode = HELD
        done = [self.submit() for _ in range(50)]
        for _ in range(3):
            self.scene.wait(PATIENCE - 1)
            slow.release()
        self.assertNoResult(done[-1])
        self.scene.wait(ACK_PATIENCE - self.scene.clock.seconds())
        for each in done:
            self.successResultOf(each)
        self.assertEqual(self.standing("node3"), CandidateStanding.LAGGING)
        self.successResultOf(self.submit())
        slow.mode = UP
        slow.release()
        self.assertCurrent("node2", "node3")

    def test_what_a_stale_candidate_still_holds(self) -> None:
        """Archived and unknown jobs are moved out of a stale candidate's queue."""
        self.start()
        for rows in (self.model.submit(), self.model.run(1)):
            self.scene.commit(rows)
        node = self.nodes["node3"]
        node.mode = DOWN
        self.scene.commit(self.model.end(1))
        self.scene.commit(self.model.put_away(1))
        node.files[FILES.job(3)] = b"{}"
        node.files[FILES.job(900)] = b"{}"
        node.mode = UP
        self.scene.wait(RETRY + 1)
        self.assertEqual(self.scene.held_by("node3").get(FILES.job(1)), None)
        self.assertEqual(node.files[FILES.archived_job(1)], self.model.archive[1])
        self.assertEqual(node.files[FILES.archived_job(3)], b"{}")
        self.assertCurrent("node2", "node3")

    def test_many_ids_ever_given(self) -> None:
        """Few questions make it current, whatever the ids; files of long ago are found after."""
        self.model.begin_at(50_000)
        self.scene.commit(self.model.submit())
        node = self.nodes["node3"]
        node.files[FILES.job(7)] = b"{}"
        node.mode = HELD
        self.start()
        for _ in range(12):
            if self.standing("node3") is CandidateStanding.CURRENT:
                break
            node.release()
        self.assertEqual(self.standing("node3"), CandidateStanding.CURRENT)
        self.assertLessEqual(node.asked.count("node_verify"), 4)
        self.assertIn(FILES.job(7), node.files)
        self.successResultOf(self.submit_while(node))
        node.mode = UP
        node.release()
        self.scene.wait(1)
        self.assertEqual(node.files[FILES.archived_job(7)], b"{}")
        self.assertCurrent("node2", "node3")
        asked = node.asked.count("node_verify")
        self.assertGreater(asked, 50_000 // SLICE)
        node.mode = DOWN
        self.submit()
        node.mode = UP
        self.scene.wait(RETRY + 1)
        self.assertCurrent("node2", "node3")
        self.assertLessEqual(node.asked.count("node_verify"), asked + 3)

    def submit_while(self, node: Node) -> Deferred[None]:
        """Commits a job whose files the node takes, one call after another."""
        done = self.submit()
        for _ in range(6):
            node.release()
        return done

    def test_file_that_is_missing(self) -> None:
        """A candidate's missing file is noticed at the next move to the archive, and restored."""
        self.start()
        for rows in (self.model.submit(), self.model.run(1), self.model.end(1)):
            self.scene.commit(rows)
        del self.nodes["node3"].files[FILES.job(1)]
        self.successResultOf(self.scene.commit(self.model.put_away(1)))
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        self.scene.wait(RETRY + 1)
        self.assertCurrent("node2", "node3")

    def test_late_answer(self) -> None:
        """An answer that comes after its call was given up changes nothing."""
        self.start()
        node = self.nodes["node3"]
        node.mode = HELD
        self.submit()
        self.scene.wait(PATIENCE)
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        node.mode = UP
        node.release()
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        self.scene.wait(RETRY + 1)
        self.assertCurrent("node2", "node3")

    def test_rubbish(self) -> None:
        """A node that answers rubbish is stale, and the log says why."""
        lines: list[LogEvent] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        self.nodes["node3"].do = lambda procedure, arguments: []  # type: ignore[method-assign]
        self.start()
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        (fault,) = (str(line["fault"]) for line in lines if "fault" in line)
        self.assertIn("RPC node_verify: malformed result", fault)
        self.successResultOf(self.submit())

    def test_no_digests(self) -> None:
        """A node whose answer has the right type but no digests becomes stale, too."""
        self.nodes["node3"].do = lambda procedure, arguments: {}  # type: ignore[method-assign]
        self.start()
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.successResultOf(self.submit())

    def test_door_raises(self) -> None:
        """A call that raises makes only its candidate stale, which catches up later."""
        self.start()
        node = self.nodes["node3"]
        works = node.do

        def broken(procedure: str, arguments: object) -> None:
            raise RuntimeError("the door is broken")

        node.do = broken  # type: ignore[method-assign]
        self.successResultOf(self.submit())
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        self.assertEqual(self.standing("node2"), CandidateStanding.CURRENT)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        node.do = works  # type: ignore[method-assign]
        self.scene.wait(RETRY + 1)
        self.assertCurrent("node2", "node3")

    def test_calls_that_cannot_be_made(self) -> None:
        """States that can't be turned into calls fail the stream, not the commit."""
        self.start()

        def broken(*args: object) -> None:
            raise RuntimeError("no such call")

        self.patch(candidate_module, "calls_for", broken)
        self.successResultOf(self.submit())
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_archived_while_compared(self) -> None:
        """A job that is archived while a candidate is compared is still found."""
        self.nodes["node3"].files = {FILES.job(1): b"{}"}
        waiting: list[Deferred[object]] = []
        archived = self.scene.state.archived

        def later(job_ids):
            waiting.append(Deferred())
            return waiting[-1].addCallback(lambda _: archived(list(job_ids)))

        self.scene.state.archived = later  # type: ignore[method-assign]
        for rows in (self.model.submit(), self.model.run(1), self.model.end(1)):
            self.scene.commit(rows)
        self.nodes["node3"].files[FILES.job(2)] = b"{}"
        self.start()
        self.assertEqual(self.standing("node3"), CandidateStanding.COMPARING)
        self.scene.commit(self.model.put_away(1))
        waiting.pop(0).callback(None)
        self.assertEqual(self.standing("node3"), CandidateStanding.COMPARING)
        waiting.pop(0).callback(None)
        self.assertCurrent("node2", "node3")
        files = self.nodes["node3"].files
        self.assertEqual(files[FILES.archived_job(1)], self.model.archive[1])


class MembershipTests(Case):
    def test_new_candidate(self) -> None:
        """A new candidate gets the whole queue before commits wait for it."""
        self.start()
        self.scene.configure(node3={"master_candidate": False})
        self.submit()
        self.assertCurrent("node2")
        self.nodes["node3"].mode = HELD
        done = self.scene.configure()
        self.nodes["node3"].held.pop()()  # the simple configuration, sent last
        self.successResultOf(done)
        self.assertEqual(self.standing("node3"), CandidateStanding.COMPARING)
        self.successResultOf(self.submit())
        self.nodes["node3"].mode = UP
        self.nodes["node3"].release()
        self.assertCurrent("node2", "node3")
        self.nodes["node3"].mode = HELD
        self.assertNoResult(self.submit())

    def test_offline(self) -> None:
        """A node marked offline is sent nothing more, and delays no commit."""
        self.start()
        self.nodes["node3"].mode = HUNG
        done = self.submit()
        self.assertNoResult(done)
        offline = self.scene.configure(node3={"offline": True})
        self.successResultOf(done)
        self.successResultOf(offline)
        self.assertCurrent("node2")
        self.scene.wait(100)
        self.assertEqual(self.nodes["node3"].asked.count("node_verify"), 1)

    def test_other_address(self) -> None:
        """A candidate whose address changed is treated as a new one."""
        self.start()
        self.scene.configure(node3={"primary_ip": "198.51.100.99"})
        self.assertEqual(self.nodes["node3"].asked.count("node_verify"), 2)
        self.assertCurrent("node2", "node3")

    def test_candidate_again(self) -> None:
        """Calls made before a demotion can't take effect after calls made since.

        Found by the state machine test: an old ``serial`` that was written last let job ids be
        given twice.
        """
        self.start()
        node = self.nodes["node3"]
        node.mode = HELD
        self.submit()
        self.scene.configure(node3={"master_candidate": False})
        node.mode = UP
        for candidate in (True, False, True):
            self.scene.configure(node3={"master_candidate": candidate})
            self.submit()
        self.assertEqual(node.asked.count("node_verify"), 1)
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        node.release()
        self.scene.wait(LOOK_AGAIN)
        self.assertCurrent("node2", "node3")
        self.scene.wait(SETTLED)
        self.assertEqual(len(self.scene.timers), 0)

    def test_online_again_after_refusals(self) -> None:
        """A call that was never sent can't take effect: a node that returns is sent all at once."""
        self.start()
        self.nodes["node3"].mode = DOWN
        self.submit()
        self.scene.configure(node3={"offline": True})
        self.nodes["node3"].mode = UP
        self.scene.configure(node3={"offline": False})
        self.assertCurrent("node2", "node3")

    def test_candidate_again_though_it_hung(self) -> None:
        """While a call that timed out may still take effect, nothing is sent."""
        self.start()
        node = self.nodes["node3"]
        node.mode = HUNG
        self.submit()
        self.scene.configure(node3={"master_candidate": False})
        node.mode = UP
        self.scene.configure()
        self.scene.wait(PATIENCE + RETRY - 1)
        self.assertEqual(node.asked.count("node_verify"), 1)
        self.scene.wait(1 + LOOK_AGAIN)
        self.assertCurrent("node2", "node3")

    def test_those_there_at_the_start_are_waited_for(self) -> None:
        """At the start commits wait until candidates that answer have caught up."""
        self.nodes["node2"].mode = HELD
        self.start()
        done = self.submit()
        self.assertNoResult(done)
        self.nodes["node2"].mode = UP
        self.nodes["node2"].release()
        self.successResultOf(done)
        self.assertCurrent("node2", "node3")

    def test_stop(self) -> None:
        """A stop waits for states in flight."""
        self.start()
        self.nodes["node2"].mode = HELD
        done = self.submit()
        closed = self.scene.replication.close()
        self.assertNoResult(closed)
        self.nodes["node2"].mode = UP
        self.nodes["node2"].release()
        self.scene.wait(1)
        self.successResultOf(closed)
        self.successResultOf(done)
        self.assertEqual(self.scene.held_by("node2"), self.model.files())
        self.assertEqual(len(self.scene.timers), 0)

    def test_stop_with_a_dead_candidate(self) -> None:
        """A stop waits a limited time for a dead candidate, and fires all Deferreds."""
        self.start()
        self.nodes["node2"].mode = HUNG
        done = self.submit()
        closed = self.scene.replication.close()
        self.scene.wait(STOP_PATIENCE + 1)
        self.successResultOf(closed)
        self.successResultOf(done)
        self.successResultOf(self.submit())
        self.scene.wait(PATIENCE)
        self.assertEqual(len(self.scene.timers), 0)


class RepeatedComparisonTests(Case):
    """After a kill, the old daemon's calls may take effect after the first comparison."""

    def setUp(self) -> None:
        super().setUp()
        self.logged: list[str] = []

        def observe(event: LogEvent) -> None:
            self.logged.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for _ in range(3):
            self.submit()
        self.start()
        self.node = self.nodes["node3"]

    def done_late(self, *paths: str) -> None:
        """Lets the node handle a killed daemon's calls, which write older files."""
        for path in paths:
            self.node.files[path] = b"{}"

    def compared(self) -> int:
        return self.node.asked.count("node_verify")

    def test_late_write(self) -> None:
        """Files written after the first comparison are corrected, with one line in the log."""
        self.scene.wait(10)
        self.done_late(FILES.job(1), FILES.serial, FILES.config, FILES.job(99))
        self.scene.wait(SETTLED - 10)
        self.assertCurrent("node2", "node3")
        self.assertEqual(self.node.files[FILES.archived_job(99)], b"{}")
        self.assertEqual(len([line for line in self.logged if "got 4 files late" in line]), 1)
        compared = self.compared()
        self.scene.wait(10 * SETTLED)
        self.assertEqual(self.compared(), compared)
        self.assertEqual(len(self.scene.timers), 0)

    def test_quiet(self) -> None:
        """If nothing is stale, only ssconf is sent again, and nothing is logged."""
        before = len(self.node.asked), len(self.logged)
        self.scene.wait(SETTLED)
        self.assertEqual(
            self.node.asked[before[0] :],
            ["write_ssconf_files", "node_verify", "jobqueue_set_drain_flag"],
        )
        self.assertEqual(len(self.logged), before[1])
        self.assertCurrent("node2", "node3")

    def test_beside_the_stream(self) -> None:
        """Commits go on during the comparison, and their changes aren't taken for late writes."""
        self.scene.wait(SETTLED - 0.5)
        self.done_late(FILES.job(3))
        self.node.mode = HELD
        self.scene.wait(0.5)
        self.assertEqual(self.node.asked[-1], "node_verify")
        verify, self.node.held = self.node.held, []
        self.node.mode = UP
        self.successResultOf(self.scene.commit(self.model.run(1)))
        self.successResultOf(self.scene.commit(self.model.end(1)))
        self.successResultOf(self.scene.commit(self.model.put_away(1)))
        self.successResultOf(self.submit())
        for work in verify:
            work()
        self.assertCurrent("node2", "node3")
        self.assertEqual(len([line for line in self.logged if "got 1 files late" in line]), 1)

    def late_lines(self) -> list[str]:
        """Returns the log lines about files that arrived late."""
        return [line for line in self.logged if " files late" in line]

    def test_answer_from_before(self) -> None:
        """A state published after the node's answer isn't a late write, and isn't sent again."""
        self.scene.wait(SETTLED - 0.5)
        self.node.mode = LATE
        self.scene.wait(0.5)
        self.assertEqual(self.node.asked[-1], "node_verify")
        self.node.mode = UP
        self.successResultOf(self.scene.commit(self.model.run(1)))
        self.successResultOf(self.submit())
        sent = len(self.node.asked)
        self.node.release()
        self.assertEqual(self.node.asked[sent:], ["jobqueue_set_drain_flag"])
        self.assertEqual(self.late_lines(), [])
        self.assertCurrent("node2", "node3")

    def test_unsent_before(self) -> None:
        """Nor is a state that was published before the node's answer and sent after it."""
        self.scene.wait(SETTLED - 0.5)
        self.node.mode = HELD
        self.submit()
        self.submit()
        self.scene.wait(1)
        self.node.mode = LATE
        self.node.release()
        self.assertEqual(self.compared(), 2)
        self.node.mode = UP
        self.node.release()
        self.assertEqual(self.late_lines(), [])
        self.assertCurrent("node2", "node3")

    def test_waits_for_what_is_in_flight(self) -> None:
        """With a call in flight the comparison begins when the call has ended."""
        self.scene.wait(SETTLED - 0.5)
        self.node.mode = HELD
        self.submit()
        self.done_late(FILES.job(2))
        self.scene.wait(1)
        self.assertEqual(self.compared(), 1)
        self.node.mode = UP
        self.node.release()
        self.assertEqual(self.compared(), 2)
        self.assertCurrent("node2", "node3")

    def test_demoted(self) -> None:
        """A candidate that is demoted before or during the comparison isn't compared again."""
        self.scene.wait(SETTLED - 1)
        self.scene.configure(node2={"master_candidate": False})
        self.node.mode = HELD
        self.scene.wait(1)
        self.assertEqual(self.compared(), 2)
        none = {"master_candidate": False}
        self.scene.configure(node2=none, node3=none)
        self.done_late(FILES.job(1))
        self.node.mode = UP
        self.node.release()
        self.assertEqual(self.node.files[FILES.job(1)], b"{}")
        self.assertEqual(self.nodes["node2"].asked.count("node_verify"), 1)
        self.scene.wait(60)
        self.assertEqual(len(self.scene.timers), 0)

    def test_fails(self) -> None:
        """A question that fails makes the candidate stale, and it is compared in full later."""
        self.node.mode = DOWN
        self.done_late(FILES.job(1))
        self.scene.wait(SETTLED)
        self.assertEqual(self.standing("node3"), CandidateStanding.STALE)
        self.node.mode = UP
        self.scene.wait(RETRY + LOOK_AGAIN)
        self.assertCurrent("node2", "node3")
        self.assertEqual(self.compared(), 3)

    def test_stale_when_it_is_due(self) -> None:
        """A candidate whose first comparison is after that time is not compared twice."""
        self.scene.wait(5)
        self.node.mode = DOWN
        self.submit()
        self.node.mode = UP
        self.scene.wait(60)
        self.assertCurrent("node2", "node3")
        self.assertEqual(self.compared(), 2)

    def test_promoted_early(self) -> None:
        """A node that becomes a candidate within that time is compared again as well."""
        self.scene.configure(node3={"master_candidate": False})
        self.scene.wait(5)
        self.scene.configure()
        self.done_late(FILES.job(1))
        self.scene.wait(SETTLED - 5)
        self.assertCurrent("node2", "node3")

    def test_stop(self) -> None:
        """A stop before or during the comparison leaves no timer."""
        self.node.mode = HELD
        self.scene.wait(SETTLED)
        self.successResultOf(self.scene.replication.close())
        self.node.release()
        self.scene.wait(60)
        self.assertEqual(len(self.scene.timers), 0)
        self.scene = Scene()
        self.scene.replication.start()
        self.successResultOf(self.scene.replication.close())
        self.assertEqual(len(self.scene.timers), 0)


class LocalTests(Case):
    ack = Ack.LOCAL

    def test_nobody_waits(self) -> None:
        """With --ack=local candidates get everything, but commits don't wait for them."""
        self.start()
        self.nodes["node2"].mode = HELD
        self.successResultOf(self.submit())
        self.successResultOf(self.scene.configure(node3={"offline": True}))
        self.successResultOf(self.scene.replication.set_drained(True))
        self.successResultOf(self.scene.replication.set_watcher_pause(7))
        self.nodes["node2"].mode = UP
        self.nodes["node2"].release()
        self.assertCurrent("node2")


class MajorityTests(Case):
    ack = Ack.MAJORITY

    def test_one_of_two(self) -> None:
        """Of three candidates the master and one other are enough if the third is dead."""
        self.start()
        self.nodes["node3"].mode = HUNG
        self.successResultOf(self.submit())
        self.nodes["node2"].mode = DOWN
        done = self.submit()
        self.scene.wait(PATIENCE + ACK_PATIENCE)
        self.assertNoResult(done)
        refusal = self.scene.replication.refusal()
        assert refusal is not None
        self.assertIn("1 of 3", str(refusal))
        self.assertIn("node2, node3", str(refusal))
        self.nodes["node2"].mode = UP
        self.scene.wait(2 * RETRY)
        self.successResultOf(done)
        self.assertIsNone(self.scene.replication.refusal())

    def test_half_is_none(self) -> None:
        """Of two candidates the master alone is no majority."""
        self.start()
        self.scene.configure(node3={"offline": True})
        self.successResultOf(self.submit())
        self.nodes["node2"].mode = DOWN
        done = self.submit()
        self.scene.wait(PATIENCE + ACK_PATIENCE)
        self.assertNoResult(done)
        self.assertIn("Only 1 of 2", str(self.scene.replication.refusal()))

    def test_catching_up_holds_nothing(self) -> None:
        """A candidate that hasn't caught up counts for no commit, however old."""
        self.nodes["node2"].mode = HELD
        self.nodes["node3"].mode = DOWN
        self.start()
        first, second = self.submit(), self.submit()
        self.nodes["node2"].release()
        self.nodes["node2"].release()
        self.assertEqual(self.standing("node2"), CandidateStanding.CATCHING_UP)
        self.assertNoResult(first)
        self.nodes["node2"].mode = UP
        self.nodes["node2"].release()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_strangers_do_not_count(self) -> None:
        """A candidate that is still being compared doesn't count for a majority."""
        for name in ("node2", "node3"):
            self.nodes[name].mode = HELD
        self.start()
        done = self.submit()
        self.scene.wait(PATIENCE)
        self.assertNoResult(done)
        self.assertIsNone(self.scene.replication.refusal())


class EveryNodeTests(Case):
    def test_changes_at_once(self) -> None:
        """Of changes published in one turn, nodes get the last simple configuration only."""
        self.start()
        node = self.nodes["node1"]
        node.asked.clear()
        replication, state = self.scene.replication, self.scene.state
        for offline in ("node2", "node3"):
            before, state.config = state.config, configuration(**{offline: {"offline": True}})
            replication.configured(before, state.config)
        self.assertEqual(node.asked, [])
        self.scene.wait(0.5)
        self.assertEqual(node.asked.count("write_ssconf_files"), 1)
        self.assertEqual(node.ssconf["offline_nodes"], ["node3"])

    def test_all_nodes_get_ssconf(self) -> None:
        """The simple configuration is sent to every online node, including the master."""
        self.start()
        for name in ("node1", "node2", "node3"):
            self.assertEqual(self.nodes[name].ssconf["master_node"], ["node1"])
        self.successResultOf(self.scene.configure(node3={"offline": True}))
        self.assertEqual(self.nodes["node1"].ssconf["offline_nodes"], ["node3"])
        self.assertEqual(self.nodes["node3"].ssconf["offline_nodes"], [])

    def test_online_again(self) -> None:
        """Calls made before a node went offline can't take effect after calls made since."""
        self.start()
        node = self.nodes["node3"]
        node.mode = HELD
        self.scene.configure(node2={"offline": True})
        self.scene.configure(node2={"offline": True}, node3={"offline": True})
        node.mode = UP
        done = self.scene.configure()
        self.assertNoResult(done)
        node.release()
        self.successResultOf(done)
        self.assertEqual(node.ssconf["offline_nodes"], [])
        self.scene.configure(node2={"offline": True})
        self.assertEqual(node.ssconf["offline_nodes"], ["node2"])

    def test_only_when_it_changed(self) -> None:
        """A change that doesn't affect ssconf sends nothing to the nodes."""
        self.start()
        self.successResultOf(self.scene.configure())
        self.assertEqual(self.nodes["node1"].asked, ["write_ssconf_files"])

    def test_redistributed(self) -> None:
        """A cluster that is only touched has ssconf sent again, at any time after the start."""
        self.start()
        self.scene.wait(2 * SETTLED)
        node = self.nodes["node2"]
        node.ssconf["cluster_name"] = ["damaged"]
        asked = node.asked.count("write_ssconf_files")
        node.mode = HELD
        done = self.scene.configure(touches=1)
        self.assertNoResult(done)
        node.release()
        self.successResultOf(done)
        self.assertEqual(node.asked.count("write_ssconf_files"), asked + 1)
        self.assertEqual(node.ssconf, self.nodes["node1"].ssconf)

    def test_done_when_all_have_it(self) -> None:
        """A change of ssconf is acknowledged when every node that answers has it."""
        self.start()
        self.nodes["node1"].mode = HELD
        done = self.scene.configure(node3={"drained": True, "master_candidate": False})
        self.assertNoResult(done)
        self.nodes["node1"].release()
        self.successResultOf(done)

    def test_node_down(self) -> None:
        """A node that missed a change gets the newest values when it is back."""
        self.start()
        self.nodes["node1"].mode = DOWN
        self.successResultOf(self.scene.configure(node3={"master_candidate": False}))
        self.successResultOf(self.scene.configure(node3={"offline": True}))
        self.nodes["node1"].mode = UP
        self.scene.wait(RETRY + 1)
        self.assertEqual(self.nodes["node1"].ssconf["offline_nodes"], ["node3"])
        self.assertEqual(self.nodes["node1"].asked.count("write_ssconf_files"), 3)

    def test_changes_while_busy(self) -> None:
        """A node that is busy during several changes gets only the last one."""
        self.start()
        node = self.nodes["node1"]
        node.mode = HELD
        done = [
            self.scene.configure(node3={"master_candidate": False}),
            self.scene.configure(node3={"vm_capable": False}),
            self.scene.configure(node3={"offline": True}),
        ]
        node.release()
        self.assertEqual(node.ssconf["node_vm_capable"][-1], "node3=True")
        node.release()
        for each in done:
            self.successResultOf(each)
        self.assertEqual(node.ssconf["offline_nodes"], ["node3"])
        self.assertEqual(node.asked.count("write_ssconf_files"), 3)

    def test_new_node(self) -> None:
        """A node that is added gets the values at once."""
        self.scene.state.config = configuration(node3={})
        self.start()
        self.assertNotIn("node3", self.nodes.by_name)
        self.successResultOf(self.scene.configure(node3={"master_candidate": False}))
        self.assertEqual(self.nodes["node3"].ssconf["node_list"][-1], "node3")

    def test_watcher_pause(self) -> None:
        """The watcher's pause is sent to every other node once it is set."""
        self.start()
        self.successResultOf(self.scene.replication.set_watcher_pause(77))
        self.successResultOf(self.scene.replication.set_watcher_pause(None))
        pauses = {name: node.pause for name, node in self.nodes.by_name.items()}
        self.assertEqual(pauses, {"node1": [], "node2": [77, None], "node3": [77, None]})

    def test_drain(self) -> None:
        """The drain flag is sent to the candidates."""
        self.start()
        self.nodes["node3"].mode = HELD
        done = self.scene.replication.set_drained(True)
        self.assertIn(DRAIN, self.nodes["node2"].files)
        self.assertNoResult(done)
        self.nodes["node3"].release()
        self.successResultOf(done)
        self.assertNotIn(DRAIN, self.nodes["node1"].files)


class FlushTests(Case):
    """A flush of the configuration, which waits for every node that can be reached."""

    def test_nothing_new(self) -> None:
        """If everything is sent, or replication hasn't started, a flush is done at once."""
        self.successResultOf(self.scene.replication.flushed())
        self.start()
        self.successResultOf(self.scene.replication.flushed())

    def test_waits_for_candidates(self) -> None:
        """A flush is done as soon as all that was published before has arrived."""
        self.start()
        self.nodes["node2"].mode = self.nodes["node3"].mode = HELD
        self.scene.commit(self.model.change(0))
        done = self.scene.replication.flushed()
        self.nodes["node2"].release()
        self.assertNoResult(done)
        self.nodes["node3"].release()
        self.successResultOf(done)
        self.assertCurrent("node2", "node3")

    def test_waits_for_simple_configuration(self) -> None:
        """When a flush is done, nodes that aren't candidates have the simple configuration."""
        self.start()
        self.scene.configure(node3={"master_candidate": False})
        self.nodes["node3"].mode = HELD
        self.scene.configure(node2={"master_candidate": False}, node3={"master_candidate": False})
        done = self.scene.replication.flushed()
        self.assertNoResult(done)
        self.nodes["node3"].release()
        self.successResultOf(done)

    def test_waits_for_newcomers(self) -> None:
        """A flush waits for a new candidate until it holds everything."""
        self.scene.state.config = configuration(node3={"master_candidate": False})
        self.start()
        self.nodes["node3"].mode = HELD
        self.scene.configure()
        done = self.scene.replication.flushed()
        for _ in range(20):
            self.assertNoResult(done)
            self.nodes["node3"].release()
            if self.standing("node3") is CandidateStanding.CURRENT:
                break
        self.nodes["node3"].release()
        self.successResultOf(done)
        self.assertCurrent("node2", "node3")

    def test_no_node_that_is_down(self) -> None:
        """A flush doesn't wait for a candidate that can't be reached, even if it just failed."""
        self.start()
        self.nodes["node2"].mode, self.nodes["node3"].mode = DOWN, HUNG
        self.scene.commit(self.model.change(0))
        done = self.scene.replication.flushed()
        self.assertNoResult(done)
        self.scene.wait(PATIENCE)
        self.successResultOf(done)

    def test_slow_candidate(self) -> None:
        """A flush gives up a candidate that takes too long; the next flush waits for it again."""
        self.patch(replication, "ACK_PATIENCE", PATIENCE / 2)
        self.setUp()
        lines: list[LogEvent] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        self.start()
        self.nodes["node2"].mode = HELD
        self.scene.commit(self.model.change(0))
        done = self.scene.replication.flushed()
        self.scene.wait(PATIENCE / 2 - 1)
        self.assertNoResult(done)
        self.scene.wait(1)
        self.successResultOf(done)
        text = "A flush of the configuration no longer waits for nodes node2"
        self.assertEqual([formatEvent(line) for line in lines].count(text), 1)
        self.nodes["node2"].release()
        self.scene.commit(self.model.change(1))
        again = self.scene.replication.flushed()
        self.assertNoResult(again)
        while self.nodes["node2"].held:
            self.nodes["node2"].release()
        self.successResultOf(again)

    def test_ends_with_the_daemon(self) -> None:
        """A waiting flush is done when the daemon stops."""
        self.start()
        self.nodes["node2"].mode = HUNG
        self.scene.commit(self.model.change(0))
        done = self.scene.replication.flushed()
        self.scene.replication.close()
        self.scene.wait(STOP_PATIENCE + 1)
        self.successResultOf(done)


class LocalFlushTests(FlushTests):
    """A flush waits for candidates even if commits don't."""

    ack = Ack.LOCAL
