"""The simulated nodes fulfil the contract of ``INodeRPC``."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyClass, verifyObject

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.events import Events, NodeCalled
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.interfaces import CallAbandoned, INodeRPC
from ganeti_masterd.simulation.cluster import BUILT, SimulatedNodes
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.node import SimulatedNode
from tests.simulation.nodes import SimulationCase, instance, target


class DoorTests(SimulationCase):
    def test_interface(self) -> None:
        """Simulated nodes implement ``INodeRPC``."""
        verifyClass(INodeRPC, SimulatedNodes)
        verifyObject(INodeRPC, self.nodes)

    def test_built(self) -> None:
        """All implemented calls are in the table of calls."""
        for name in BUILT:
            self.assertIn(name, CALLS)

    def test_order_and_keys(self) -> None:
        """There is one result for each target, by its key, in the order given."""
        targets = [target(name) for name in ("b", "a", "c")]
        found = self.successResultOf(self.nodes.call(targets, "version"))
        self.assertEqual(list(found), ["uuid-b", "uuid-a", "uuid-c"])
        self.assertEqual([r.node for r in found.values()], ["b", "a", "c"])
        self.assertEqual({r.payload for r in found.values()}, {3000000})

    def test_none(self) -> None:
        """Without targets there are no results."""
        self.assertEqual(self.successResultOf(self.nodes.call([], "version")), {})

    def test_programmer(self) -> None:
        """Unknown calls, wrong counts and values that aren't JSON raise before any node acts."""
        one = [target("a")]
        self.assertRaises(ProgrammerError, self.nodes.call, one, "no_such_call")
        self.assertRaises(ProgrammerError, self.nodes.call, one, "test_delay")
        self.assertRaises(ProgrammerError, self.nodes.call, one, "test_delay", lambda _: [])
        self.assertRaises(ProgrammerError, self.nodes.call, one, "test_delay", ["1"])
        self.assertRaises(ProgrammerError, self.nodes.call, one, "set_watcher_pause", [object()])
        self.assertEqual(self.nodes.pending, 0)

    def test_every_call(self) -> None:
        """Every node call that an opcode makes is implemented."""
        self.assertEqual({call.name for call in CALLS} - set(BUILT), set())

    def test_not_built(self) -> None:
        """A call that isn't implemented fails, naming it."""
        self.patch(self.nodes, "implementation", lambda name: None)
        self.assertEqual(self.fault("a", "version"), "simulated node: version is not built")

    def test_offline(self) -> None:
        """Offline nodes are not called, except for the two calls that are for them."""
        targets = [target("a"), target("b", offline=True)]
        found = self.successResultOf(self.nodes.call(targets, "master_node_name"))
        self.assertFalse(found["uuid-a"].offline)
        self.assertTrue(found["uuid-b"].offline)
        self.assertEqual(found["uuid-b"].error, "Node is marked offline")
        found = self.successResultOf(self.nodes.call(targets, "version"))
        self.assertEqual(found["uuid-b"].payload, 3000000)

    def test_bug(self) -> None:
        """An exception in the simulation's code is logged as a bug."""

        def broken(node: SimulatedNode) -> None:
            raise KeyError("oops")

        async def later(node: SimulatedNode) -> None:
            raise LookupError("late")

        for function, kind in (
            (broken, KeyError),
            (lambda node: Deferred.fromCoroutine(later(node)), LookupError),
        ):
            self.patch(self.nodes, "implementation", lambda name, it=function: it)
            error = self.fault("a", "version")
            self.assertTrue(error.startswith("simulated node: version: a bug in the simulation:"))
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)

    def test_unexpected(self) -> None:
        """An error that noded doesn't expect has its standard prefix, and isn't logged as a bug."""
        self.assertEqual(
            self.fault("a", "node_info", [["ext", "x", []]], None),
            "Error while executing backend function: ",
        )

    def test_arguments_of_each(self) -> None:
        """Arguments may be a function of the node."""
        targets = [target("a"), target("b")]
        done = self.nodes.call(targets, "test_delay", lambda t: [1 if t.name == "a" else 2])
        self.clock.advance(1)
        self.assertNoResult(done)
        self.clock.advance(1)
        self.successResultOf(done)

    def test_arguments_are_kept_apart(self) -> None:
        """Changing an argument after the call changes nothing on the node."""
        given = instance()
        self.ask("a", "instance_start", given, False, [])
        given["beparams"]["maxmem"] = 1
        self.assertEqual(self.ask("a", "instance_info", "web", "fake", {})["memory"], 512)

    def test_delay(self) -> None:
        """A delay takes its time by the clock, and is pending until then."""
        done = self.nodes.call([target("a"), target("b")], "test_delay", [2.5])
        self.assertEqual(self.nodes.pending, 2)
        self.clock.advance(2.4)
        self.assertNoResult(done)
        self.clock.advance(0.2)
        found = self.successResultOf(done)
        self.assertFalse(found["uuid-a"].failed)
        self.assertEqual(self.nodes.pending, 0)
        self.assertEqual(len(self.timers), 0)
        self.assertEqual(self.fault("a", "test_delay", -1), "Invalid sleep duration")

    def test_timeout(self) -> None:
        """A call that times out fails; the others have their results."""
        nodes = self.make(latency={"slow": 70.0})
        done = nodes.call([target("slow"), target("fast")], "version")
        self.clock.advance(59)
        self.assertNoResult(done)
        self.clock.advance(2)
        found = self.successResultOf(done)
        self.assertEqual(found["uuid-slow"].error, "Node slow gave no answer within 60 seconds")
        self.assertEqual(found["uuid-fast"].payload, 3000000)

    def test_timeout_is_no_failure(self) -> None:
        """A node still completes a call after the time-out."""
        self.nodes = nodes = self.make(latency=2.0)
        done = nodes.call([target("a")], "instance_start", [instance(), False, []], timeout=1.0)
        self.clock.advance(1)
        self.assertTrue(self.successResultOf(done)["uuid-a"].failed)
        self.clock.advance(1)
        self.assertIn("web", nodes.node("a").state.instances)

    def test_latency(self) -> None:
        """Each call begins after the node's latency."""
        nodes = self.make(latency=0.02)
        done = nodes.call([target("a")], "version")
        self.assertNoResult(done)
        self.clock.advance(0.02)
        self.successResultOf(done)

    def test_unknown_node(self) -> None:
        """If the names of nodes are given, no other node answers."""
        self.nodes = self.make(names=["a"])
        self.ask("a", "version")
        self.assertIn("No route to host", self.fault("b", "version"))

    def test_close(self) -> None:
        """Closing ends calls in flight and leaves no timer; later calls fail."""
        slow = self.make(latency=5.0)
        first = self.nodes.call([target("a")], "test_delay", [5])
        second = slow.call([target("a")], "version")
        self.successResultOf(self.nodes.close())
        self.successResultOf(slow.close())
        self.successResultOf(slow.close())
        for done in (first, second, self.nodes.call([target("a")], "version")):
            self.assertIn("given up", str(self.successResultOf(done)["uuid-a"].error))
        self.assertEqual((self.nodes.pending, len(self.timers)), (0, 0))

    def test_cancelled(self) -> None:
        """A cancelled call fails with the names of nodes that go on; late answers are ignored."""
        self.nodes.faults.add(SimulatedFault(kind="error", node="b"))
        done = self.nodes.call([target("a"), target("b"), target("c")], "test_delay", [1])
        other = self.nodes.call([target("a")], "test_delay", [1])
        done.cancel()
        abandoned = self.failureResultOf(done, CallAbandoned).value
        self.assertEqual(abandoned.nodes, ("a", "c"))
        self.assertEqual(abandoned.still_under_way(), "test_delay may still be under way at a, c")
        self.assertEqual(self.nodes.pending, 1)
        self.clock.advance(1)
        self.assertEqual((self.nodes.pending, len(self.timers)), (0, 0))
        self.assertFalse(self.successResultOf(other)["uuid-a"].failed)

    def test_cancelled_and_lost(self) -> None:
        """A cancelled call to a silent node does, too."""
        self.nodes.faults.add(SimulatedFault(kind="silent"))
        done = self.nodes.call([target("a")], "version")
        done.cancel()
        self.assertEqual(self.failureResultOf(done, CallAbandoned).value.nodes, ("a",))
        self.assertEqual((self.nodes.pending, len(self.timers)), (0, 0))

    def test_events(self) -> None:
        """Observers get an event for each call with its result and duration."""
        events = Events()
        seen: list[NodeCalled] = []
        events.subscribe(NodeCalled, seen.append)
        self.nodes = self.make(events=events)
        self.nodes.call([target("a")], "test_delay", [2])
        self.clock.advance(2)
        self.fault("a", "test_delay", -1)
        self.assertEqual(seen[0], NodeCalled("test_delay", "a", None, 2.0))
        self.assertEqual(seen[1].error, "Invalid sleep duration")

    def test_needs_disk(self) -> None:
        """Nodes with a root need a disk thread and must be started."""
        self.assertRaises(ProgrammerError, SimulatedNodes, self.timers, root="somewhere")
        nodes = SimulatedNodes(self.timers, root=self.mktemp(), in_disk_thread=self.disk.run)
        self.assertRaises(ProgrammerError, nodes.call, [target("a")], "version")
