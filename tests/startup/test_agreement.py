"""The vote with nodes that agree, disagree, tie, or answer late, rubbish or nothing."""

from __future__ import annotations

import time
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.simulation.faults import Faults, SimulatedFault
from ganeti_masterd.startup.agreement import (
    StartWishes,
    VoteReport,
    ask_nodes,
    bring_up_address,
    hold_vote,
)
from ganeti_masterd.startup.votes import PAUSE, TRIES, VoteOutcome, VoteVerdict
from ganeti_masterd.testing.nodes import Failed, ScriptedNodes
from ganeti_masterd.timing import Timers

VOTE = "master_node_name"
ADDRESS = "node_activate_master_ip"


class Scene:
    """A cluster whose nodes give the answers that a test sets, and a clock."""

    def __init__(self, nodes: int = 3, *, held: bool = False, **votes: Any) -> None:
        self.snapshot = new_cluster("cluster", nodes, time.time())
        self.clock = Clock()
        self.nodes = ScriptedNodes(
            {(name, VOTE): answer for name, answer in votes.items()}, held=held
        )
        self.said: list[str] = []

    def vote(self) -> Deferred[VoteVerdict]:
        """Holds the vote."""
        timers = Timers(self.clock)
        return ensureDeferred(hold_vote(self.nodes, timers, self.snapshot, self.said.append))

    def ask(self, **wishes: bool) -> Deferred[VoteReport]:
        """Holds the vote and brings up the master's address."""
        return ensureDeferred(
            ask_nodes(
                self.nodes,
                Timers(self.clock),
                self.snapshot,
                StartWishes(**wishes),
                self.said.append,
            )
        )

    def set_offline(self, name: str) -> None:
        """Marks a node offline."""
        nodes = {
            node.uuid: replace(node, offline=node.name == name)
            for node in self.snapshot.nodes.values()
        }
        self.snapshot = Snapshot(
            self.snapshot.header,
            self.snapshot.cluster,
            {"nodes": Section(nodes), "nodegroups": self.snapshot.groups},
        )


class VoteTests(SynchronousTestCase):
    """The vote through the door to the nodes."""

    def outcome(self, scene: Scene) -> VoteOutcome:
        """Returns the outcome of a vote that ends without a wait."""
        return self.successResultOf(scene.vote()).outcome

    def test_agree(self) -> None:
        """All others are asked, this node is not."""
        scene = Scene(4, node2="node1", node3="node1", node4="node1")
        self.assertIs(self.outcome(scene), VoteOutcome.AGREED)
        self.assertCountEqual(
            scene.nodes.procedures(), [("node2", VOTE), ("node3", VOTE), ("node4", VOTE)]
        )

    def test_alone(self) -> None:
        """A cluster of one asks nobody."""
        scene = Scene(1)
        self.assertIs(self.outcome(scene), VoteOutcome.AGREED)
        self.assertEqual(scene.nodes.asked, [])

    def test_disagree(self) -> None:
        """A former master that comes back loses the vote at once."""
        scene = Scene(3, node2="node2", node3="node2")
        verdict = self.successResultOf(scene.vote())
        self.assertIs(verdict.outcome, VoteOutcome.LOST)
        self.assertIn("node2 is the master by 2 of 2 votes", verdict.reason)

    def test_tie(self) -> None:
        """With one vote each the greater name wins, which is not this node."""
        self.assertIs(self.outcome(Scene(3, node2="node1", node3="node3")), VoteOutcome.LOST)

    def test_rubbish(self) -> None:
        """Rubbish is a vote for nobody: one node's vote is still enough."""
        self.assertIs(self.outcome(Scene(3, node2="node1", node3=[1, 2])), VoteOutcome.AGREED)

    def test_offline(self) -> None:
        """Nodes that are marked offline are asked too."""
        scene = Scene(2, node2="node1")
        scene.set_offline("node2")
        self.assertIs(self.outcome(scene), VoteOutcome.AGREED)

    def test_no_answer(self) -> None:
        """Without answers there are six rounds, ten seconds apart; the error names --no-voting."""
        scene = Scene(3, node2=Failed("unreachable"), node3=Failed("unreachable"))
        vote = scene.vote()
        for _ in range(TRIES - 1):
            self.assertNoResult(vote)
            scene.clock.advance(PAUSE)
        verdict = self.successResultOf(vote)
        self.assertIs(verdict.outcome, VoteOutcome.LOST)
        self.assertIn("--no-voting", verdict.reason)
        self.assertEqual(len(scene.nodes.asked), 2 * TRIES)
        self.assertEqual(len(scene.said), TRIES - 1)
        self.assertIn("asking again in 10 s, 1 times at most", scene.said[-1])

    def test_cold_start(self) -> None:
        """If the nodes come up between two rounds, the start succeeds."""
        scene = Scene(3, node2=Failed("unreachable"), node3=Failed("unreachable"))
        vote = scene.vote()
        scene.clock.advance(PAUSE)
        scene.nodes.answers["node2", VOTE] = "node1"
        scene.nodes.answers["node3", VOTE] = "node1"
        self.assertNoResult(vote)
        scene.clock.advance(PAUSE)
        self.assertIs(self.successResultOf(vote).outcome, VoteOutcome.AGREED)

    def test_late(self) -> None:
        """Late answers count like others."""
        scene = Scene(3, held=True, node2="node1", node3="node1")
        vote = scene.vote()
        scene.clock.advance(50.0)
        self.assertNoResult(vote)
        scene.nodes.release()
        self.assertIs(self.successResultOf(vote).outcome, VoteOutcome.AGREED)

    def test_silent_simulated_nodes(self) -> None:
        """Calls to simulated nodes that never answer end at the call's time-out."""
        scene = Scene(3)
        timers = Timers(scene.clock)
        nodes = SimulatedNodes(timers, faults=Faults())
        nodes.faults.add(SimulatedFault(kind="silent", call=VOTE))
        vote = ensureDeferred(hold_vote(nodes, timers, scene.snapshot, scene.said.append))
        for _ in range(TRIES):
            self.assertNoResult(vote)
            scene.clock.pump([60.0, PAUSE])
        self.assertIs(self.successResultOf(vote).outcome, VoteOutcome.LOST)


class AddressTests(SynchronousTestCase):
    """The master's address."""

    def test_arguments(self) -> None:
        """The master itself is called, with 3.0's arguments."""
        scene = Scene(3)
        cluster, master = scene.snapshot.cluster, scene.snapshot.master
        self.assertIsNone(
            self.successResultOf(ensureDeferred(bring_up_address(scene.nodes, scene.snapshot)))
        )
        (asked,) = scene.nodes.asked
        self.assertEqual((asked.node, asked.procedure), ("node1", ADDRESS))
        parameters = {
            "uuid": master.uuid,
            "ip": cluster.master_ip,
            "netmask": 32,
            "netdev": "lo",
            "ip_family": 2,
        }
        self.assertEqual(asked.arguments, [parameters, False])

    def test_failure_is_logged(self) -> None:
        """A failure to bring up the address is not fatal by default."""
        scene = Scene(1)
        scene.nodes.answers[ADDRESS] = Failed("no such device")
        report = self.successResultOf(scene.ask())
        self.assertIsNone(report.refusal)
        self.assertEqual(report.lines[-1].level, "error")
        self.assertIn("no such device", report.lines[-1].text)

    def test_failure_is_fatal(self) -> None:
        """With --require-master-ip the failure is fatal."""
        scene = Scene(1)
        scene.nodes.answers[ADDRESS] = Failed("no such device")
        report = self.successResultOf(scene.ask(require_master_ip=True))
        self.assertIn("no such device", report.refusal or "")

    def test_only_after_the_vote(self) -> None:
        """A node that lost the vote leaves the address alone."""
        scene = Scene(2, node2="node2")
        report = self.successResultOf(scene.ask())
        self.assertIn("must not act as master", report.refusal or "")
        self.assertEqual(scene.nodes.procedures(), [("node2", VOTE)])

    def test_no_voting(self) -> None:
        """Without the vote no other node is asked, and the log says so."""
        scene = Scene(3)
        report = self.successResultOf(scene.ask(vote=False))
        self.assertEqual(scene.nodes.procedures(), [("node1", ADDRESS)])
        self.assertEqual([line.level for line in report.lines], ["warn", "info"])
