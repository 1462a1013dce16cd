"""An opcode that is interrupted at any of its calls leaves a sound cluster and a clear message."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.verify import verify
from ganeti_masterd.errors import DaemonStopping
from ganeti_masterd.logical_units.cluster import renaming
from ganeti_masterd.logical_units.context import JobKilled
from tests.logical_units.half_way import ATTEMPTS, Attempt, BreakingNodes, Mode, new_world
from tests.logical_units.world import Refused, World

#: Calls whose failure needs no message: stopping a daemon that isn't used.
QUIET = frozenset({"node_ensure_daemon"})

#: Calls that change something outside of the configuration before that is changed.
PREPARING = frozenset({"etc_hosts_modify", "node_configure_ovs", "upload_file"})

#: Calls that only query, or notify nodes of the configuration's change.
ASKING = frozenset(
    {"hooks_runner", "node_crypto_tokens", "node_verify", "node_verify_light", "version"}
)


class HalfWayTests(SynchronousTestCase):
    """Each opcode, interrupted at each call."""

    def setUp(self) -> None:
        self.patch(renaming, "resolve", lambda name, family: ("new.example.com", "192.0.2.9"))
        self.patch(renaming, "answers", lambda address: False)

    def run_broken(
        self, attempt: Attempt, at: int | None = None, mode: Mode = "refused", **about: Any
    ) -> tuple[World, BreakingNodes, BaseException | None]:
        """Runs an opcode on a new cluster; returns that, its nodes, and the opcode's error."""
        world = new_world()
        attempt.sets_up(world)
        world.lines.clear()
        nodes = BreakingNodes(world.nodes, at, mode)
        world.nodes = nodes  # type: ignore[assignment]
        for name, value in about.items():
            setattr(world, name, value)
        try:
            world.run(attempt.op_id, **attempt.parameters)
        except Refused as refused:
            return world, nodes, refused.error
        return world, nodes, None

    def settle(self, attempt: Attempt, world: World) -> None:
        """Checks that what is left to do can be done."""
        rest = attempt.settles(world.now)
        if rest is not None:
            op_id, parameters = rest
            world.run(op_id, **parameters)
        self.assertTrue(attempt.is_done(world.now))
        self.assertEqual(world.faults(), [])

    def calls_of(self, attempt: Attempt) -> list[tuple[str, str]]:
        """Returns the calls of an opcode that isn't interrupted."""
        world, nodes, error = self.run_broken(attempt)
        self.assertIsNone(error)
        self.assertTrue(attempt.is_done(world.now))
        self.assertEqual(world.faults(), [])
        return nodes.calls

    def test_calls(self) -> None:
        """The opcodes make the calls at which they are interrupted below."""
        made = {name: {call for _, call in self.calls_of(a)} for name, a in ATTEMPTS.items()}
        for name, calls in (
            ("add", {"version", "etc_hosts_modify", "node_verify", "node_configure_ovs"}),
            ("add", {"node_crypto_tokens", "upload_file", "node_ssh_key_add"}),
            ("add again", {"node_demote_from_mc", "node_ssh_key_remove", "node_ssh_key_add"}),
            ("remove", {"node_ssh_key_remove", "node_crypto_tokens", "node_ssh_key_add"}),
            ("remove", {"node_leave_cluster", "etc_hosts_modify", "hooks_runner"}),
            ("demote", {"node_demote_from_mc", "node_ssh_key_add", "node_ssh_key_remove"}),
            ("rename", {"node_deactivate_master_ip", "upload_file", "node_activate_master_ip"}),
            ("renew", {"node_crypto_tokens", "node_ssh_keys_renew"}),
            ("set parameters", {"node_demote_from_mc", "node_ssh_key_remove"}),
            ("connect", {"hooks_runner"}),
            ("assign", {"hooks_runner"}),
        ):
            self.assertLessEqual(calls, made[name], name)

    def break_everywhere(self, mode: Mode) -> None:
        for name, attempt in ATTEMPTS.items():
            for at in range(len(self.calls_of(attempt))):
                world, nodes, error = self.run_broken(attempt, at, mode)
                where = f"{name}, call {at}, {nodes.broken}, {error}, {world.lines}"
                self.assertEqual(world.faults(), [], where)
                self.assert_told(attempt, world, nodes, error, where)
                nodes.at = None
                self.settle(attempt, world)

    def assert_told(
        self,
        attempt: Attempt,
        world: World,
        nodes: BreakingNodes,
        error: BaseException | None,
        where: str,
    ) -> None:
        """Checks that the error or the log says what failed, and the state if it has changed."""
        assert nodes.broken is not None
        assert nodes.at is not None
        node, call = nodes.broken
        names = (node, "the master") if node == "node1" else (node,)
        said = [str(text) for text in (*(error.args if error else ()), *world.lines)]
        named = any(name in text for name in names for text in said)
        asked_again = nodes.broken in nodes.calls[nodes.at + 1 :]
        self.assertTrue(named or call in QUIET or asked_again, where)
        if error is None:
            self.assertTrue(attempt.is_done(world.now), where)
            return
        if attempt.is_done(world.now):
            self.assertTrue(any("Hint: " in line for line in world.lines), where)

    def test_refused(self) -> None:
        """If a node fails, the message says what is left to do, and that can be done."""
        self.break_everywhere("refused")

    def test_lost(self) -> None:
        """The same holds if the node runs the call, but its answer is lost."""
        self.break_everywhere("lost")

    def test_stopping(self) -> None:
        """If the daemon stops at any call, the configuration is sound."""
        for name, attempt in ATTEMPTS.items():
            for at in range(len(self.calls_of(attempt))):
                world, nodes, error = self.run_broken(attempt, at, "stopping")
                where = f"{name}, call {at}, {nodes.broken}"
                self.assertIsInstance(error, DaemonStopping, where)
                self.assertEqual(verify(world.now), [], where)
                candidates = {node.uuid for node in world.now.candidates()}
                self.assertEqual(candidates, set(world.now.cluster.candidate_certs), where)

    def test_killed(self) -> None:
        """A kill takes effect before any change, or after all; else the log says so."""
        for name, attempt in ATTEMPTS.items():
            calls = self.calls_of(attempt)
            for after in range(1000):
                world, nodes, error = self.run_broken(attempt, kill_after=after)
                if error is None:
                    break
                where = f"{name}, killed after {after}, {nodes.calls}, {world.lines}"
                self.assertIsInstance(error, JobKilled, where)
                self.assertEqual(world.faults(), [], where)
                if attempt.is_done(world.now):
                    self.assertEqual(_essential(nodes.calls), _essential(calls), where)
                elif _essential(nodes.calls):
                    self.assertLessEqual({call for _, call in _essential(nodes.calls)}, PREPARING)
                    self.assertTrue(any("Hint: " in line for line in world.lines), where)
                self.settle(attempt, world)


def _essential(calls: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(node, call) for node, call in calls if call not in ASKING]
