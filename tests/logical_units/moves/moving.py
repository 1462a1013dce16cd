"""Instances that move in a small cluster whose mirrors are watched at each call to a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ganeti_masterd.config.objects import Instance
from ganeti_masterd.rpc.interfaces import NodeResult
from ganeti_masterd.simulation.ends import CONNECTED, PRIMARY, STANDALONE, UP_TO_DATE
from tests.logical_units.instances.scene import NAME, InstanceScene

MIGRATE = "OP_INSTANCE_MIGRATE"
FAILOVER = "OP_INSTANCE_FAILOVER"

#: Calls that lose their answer: the node is called, and the caller learns of a failure.
Lost = tuple[str, str]


class Crash(BaseException):
    """The daemon is gone: nothing that it would have done happens, nor is anything taken back."""


class MovingScene(InstanceScene):
    """Base: the instance has a mirror on node2 (its primary) and node3.

    After each call to a node two things are held against the simulated cluster: no mirror has two
    primaries unless both of its ends allow it, and an instance runs on one node at most.
    """

    def renew(self, **settings: Any) -> None:
        """See :meth:`InstanceScene.renew`."""
        super().renew(**settings)
        inner = self.world.nodes.call
        self.lost: list[Lost] = []
        #: After how many calls to nodes the daemon is gone; None: never.
        self.crash_after: int | None = None

        def call(targets: Any, procedure: str, arguments: Any = (), **options: Any) -> Any:
            if self.crash_after is not None:
                self.crash_after -= 1
                if self.crash_after < 0:
                    raise Crash
            done: Deferred[Any] = inner(targets, procedure, arguments, **options)

            def seen(found: dict[str, NodeResult[Any]]) -> dict[str, NodeResult[Any]]:
                self.check_nodes(procedure)
                return {key: self._lose(answer) for key, answer in found.items()}

            return done.addCallback(seen)

        self.world.nodes.call = call  # type: ignore[method-assign]

    def _lose(self, answer: NodeResult[Any]) -> NodeResult[Any]:
        if (answer.node, answer.procedure) not in self.lost:
            return answer
        return NodeResult(answer.node, answer.procedure, None, "no answer in time")

    def check_nodes(self, procedure: str) -> None:
        """Fails if an instance runs twice, or if a mirror that allows one primary has two."""
        for instance in self.world.now.instances.values():
            running = [node for node in self.where(instance.name) if self.runs(node, instance)]
            self.assertLessEqual(len(running), 1, f"after {procedure}: {running}")
        ends = self.ends()
        if [end.role for end in ends.values()].count(PRIMARY) == 2:
            linked = [end.link for end in ends.values()]
            dual = [link is None or link.dual for link in linked]
            self.assertTrue(all(dual), f"two primaries after {procedure}: {ends}")

    def runs(self, node: str, instance: Instance) -> bool:
        """Whether a node runs an instance that it lists.

        It doesn't where the instance waits for its memory, or where it is stopped as all its
        memory has been sent.
        """
        nodes = self.world.nodes
        if nodes.node(node).state.instances[instance.name].incoming:
            return False
        sent = nodes.world.cluster.migrations.get(instance.name)
        now = nodes.world.now()
        return sent is None or sent.source != node or sent.percent(now) < 100 or sent.broken

    def ends(self) -> dict[str, Any]:
        """Returns the ends of the instance's mirrors, by node."""
        mirrors = self.world.nodes.world.mirrors
        instance = self.world.now.instances.named(NAME)
        if instance is None:
            return {}
        own = {
            str(disk.children[0].logical_id[1])  # type: ignore[index]
            for disk in self.world.now.disks_of(instance)
            if disk.children
        }
        return {
            node.name: end
            for node in self.world.now.nodes.values()
            for end in mirrors.of_node(node.name).values()
            if end.backing is not None and end.backing.data.rpartition("/")[2] in own
        }

    def assertWhole(self, primary: str, *, up: bool = True, ended: bool = True) -> None:
        """Expects the instance on a node, running or not, with its mirror whole, nothing else.

        Not ``ended``: the node may not have been told of the end of the migration.
        """
        instance = self.now()
        self.assertEqual(self.world.now.nodes[instance.primary_node].name, primary)
        self.assertEqual(self.where(), [primary] if up else [])
        self.assertEqual(self.world.faults(), [])
        if up:
            self.assertTrue(instance.disks_active)
            held = self.world.nodes.node(primary).state.instances[instance.name]
            self.assertFalse(ended and held.incoming)
        mirrors = self.world.nodes.world.mirrors
        for node, minors in ((name, mirrors.of_node(name)) for name in self.ends()):
            for minor in minors:
                if mirrors.get(node, minor) is None:
                    continue
                seen = mirrors.status(node, minor)
                if up:
                    self.assertEqual(
                        (seen.connection, seen.data, seen.peer_data),
                        (CONNECTED, UP_TO_DATE, UP_TO_DATE),
                        node,
                    )
                    self.assertEqual(seen.role == PRIMARY, node == primary, node)
                else:
                    self.assertEqual(seen.connection, STANDALONE, node)
        for node, end in self.ends().items():
            self.assertFalse(end.link is not None and end.link.dual, f"{node} is dual")

    def move(self, op_id: str, **parameters: Any) -> Any:
        """Runs an opcode on the instance."""
        return self.world.run(op_id, instance_name=NAME, **parameters)

    def each_call(self, prepare: Callable[[], object], op_id: str, **parameters: Any) -> Any:
        """Yields (node, procedure) of each call that an opcode makes in ``exec``, once each."""
        prepare()
        self.forget()
        self.move(op_id, **parameters)
        hooks = [place for place, (_, name) in enumerate(self.calls) if name == "hooks_runner"]
        middle = self.calls[hooks[0] : hooks[-1]]
        for each in dict.fromkeys(middle):
            if each[1] != "hooks_runner":
                yield each
