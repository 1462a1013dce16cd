"""OP_INSTANCE_REPLACE_DISKS that fails, is killed, or ends with the daemon, wherever it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.simulation.faults import FaultKind
from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.scene import MirrorScene
from tests.logical_units.world import Refused

OP = "OP_INSTANCE_REPLACE_DISKS"

#: Each way to replace disks: its parameters, what is broken before, and how large the disks are.
WAYS: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...], tuple[int, ...]]] = {
    "secondary": ({"mode": "replace_on_secondary"}, (), (64, 32)),
    "primary": ({"mode": "replace_on_primary"}, (), (64,)),
    "lost": ({"mode": "replace_auto"}, ("lose-lv", "node3", NAME), (64,)),
    "new": ({"mode": "replace_new_secondary", "remote_node": "node4"}, (), (64, 32)),
    "early": (
        {"mode": "replace_new_secondary", "remote_node": "node4", "early_release": True},
        (),
        (64,),
    ),
}


class BrokenOffCase(MirrorScene):
    """Base: runs one of the ways."""

    def start(self, way: str, *, up: bool = True) -> Mapping[str, Any]:
        """Makes the cluster anew; returns the parameters of the opcode."""
        self.renew()
        parameters, broken, sizes = WAYS[way]
        self.made(up=up, sizes=sizes)
        if broken:
            self.throw(*broken)
        self.forget()
        return {"instance_name": NAME, **parameters}

    def calls_of(self, way: str) -> Iterator[tuple[str, str, int]]:
        """Yields node, procedure and number of each call that the opcode makes."""
        parameters = self.start(way)
        self.world.run(OP, **parameters)
        counts: dict[tuple[str, str], int] = {}
        for each in self.made_calls():
            yield (*each, counts.get(each, 0))
            counts[each] = counts.get(each, 0) + 1

    def assertNamed(self, strays: Mapping[str, set[str]], text: str, what: object = None) -> None:
        """Expects that a text names each volume that is left over."""
        for volume in (each for volumes in strays.values() for each in volumes):
            self.assertIn(volume, text, what)

    def assertWayOut(self, before: Any, what: object) -> None:
        """Expects that all was taken back, or that the log's last line leads out."""
        lines = list(self.world.lines)
        text = "\n".join(lines)
        self.let_sync()
        hints = [line for line in lines if "To go on:" in line]
        if not hints:
            self.assertIs(self.world.now.disks, before.disks, what)
            if "lose-lv" not in str(what):
                self.assertWhole()
            return
        self.assertIs(hints[-1], lines[-1], (what, lines))
        self.forget()
        self.follow(hints[-1].partition("To go on: ")[2])
        self.let_sync()
        strays = self.strays()
        self.assertNamed(strays, text, what)
        self.assertWhole(strays=strays)


class FailureTests(BrokenOffCase):
    """A call fails: the node refuses it, or its answer is lost."""

    def each_failure(self, way: str, kind: FaultKind) -> None:
        """Lets each call fail once."""
        for node, procedure, number in list(self.calls_of(way)):
            what = (way, kind, node, procedure, number)
            parameters = self.start(way)
            before = self.world.now
            self.break_call(procedure, node, kind=kind, after=number, count=1)
            try:
                self.world.run(OP, **parameters)
            except Refused as refused:
                text = str(refused.error.args[0])
                self.assertIn(node, text, what)
                if way == "lost" and not any("To go on" in line for line in self.world.lines):
                    # As broken as before, and no more.
                    self.world.run(OP, **parameters)
                    self.assertWhole()
                else:
                    self.assertWayOut(before, what)
            else:
                strays = self.strays()
                text = "\n".join(self.world.lines)
                self.assertIn("WARNING", text, what)
                self.assertNamed(strays, text, what)
                if procedure == "blockdev_shutdown":
                    self.throw("down", "node3", NAME) if kind == "error" else None
                    for volume in strays.get("node3", ()):
                        self.throw("remove-lv", "node3", volume)
                    strays = self.strays()
                self.let_sync()
                self.assertWhole(strays=strays)
            self.assertEqual(self.where(), ["node2"], what)

    def test_not_taken_back(self) -> None:
        """What can't be taken back either is named, with what to run."""
        for way, node in (("secondary", "node3"), ("new", "node4")):
            parameters = self.start(way)
            self.break_call("blockdev_create", node, after=2)
            mend = self.break_call("blockdev_remove", node)
            self.fails(OP, **parameters)
            mend()
            self.world.nodes.faults.clear()
            strays = self.strays()
            self.assertEqual([len(volumes) for volumes in strays.values()], [2])
            self.assertNamed(strays, "\n".join(self.world.lines))
            hint = self.world.lines[-1]
            self.assertIn("Hint: To go on: gnt-", hint)
            self.follow(hint.partition("To go on: ")[2])
            self.assertWhole()

    def test_refused(self) -> None:
        """The node says no."""
        for way in WAYS:
            self.each_failure(way, "error")

    def test_lost(self) -> None:
        """The node does it, and nobody knows."""
        for way in WAYS:
            self.each_failure(way, "lost")


class KillTests(BrokenOffCase):
    """The job is killed at each checkpoint."""

    def test_up(self) -> None:
        """What was done is taken back, or the last line leads out; the instance runs on."""
        for way in WAYS:
            parameters = self.start(way)
            for moment in self.each_kill(partial(self.start, way), OP, **parameters):
                what = (way, moment)
                if way == "lost" and not any("To go on" in line for line in self.world.lines):
                    self.world.run(OP, **parameters)
                    self.assertWhole()
                else:
                    self.assertWayOut(self.world.now, what)
                self.assertEqual(self.where(), ["node2"], what)

    def test_never_parted(self) -> None:
        """No kill leaves the primary node without a partner to look for."""
        parameters = self.start("new")
        for moment in self.each_kill(partial(self.start, "new"), OP, **parameters):
            for minor in self.world.nodes.mirrors.of_node("node2"):
                seen = self.world.nodes.mirrors.status("node2", minor)
                self.assertNotEqual(seen.connection, "StandAlone", moment)

    def test_never_without_volumes(self) -> None:
        """No kill leaves an end without volumes that had some."""
        for way, node in (("secondary", "node3"), ("primary", "node2")):
            parameters = self.start(way)
            for moment in self.each_kill(partial(self.start, way), OP, **parameters):
                for minor in self.world.nodes.mirrors.of_node(node):
                    seen = self.world.nodes.mirrors.status(node, minor)
                    self.assertNotEqual(seen.data, "Diskless", (way, moment))

    def test_down(self) -> None:
        """Disks that were down are down again, and the next try succeeds."""
        for way in ("secondary", "new", "lost"):
            parameters = self.start(way, up=False)
            prepare = partial(self.start, way, up=False)
            for _ in self.each_kill(prepare, OP, **parameters):
                self.assertFalse(self.now().disks_active)
                for node in ("node2", "node3", "node4"):
                    self.assertEqual(self.world.nodes.mirrors.of_node(node), {})
                text = "\n".join(self.world.lines)
                lines = [line for line in self.world.lines if "To go on:" in line]
                self.forget()
                if lines:
                    self.follow(lines[-1].partition("To go on: ")[2])
                else:
                    self.world.run(OP, **parameters)
                self.assertNamed(self.strays(), text)

    def test_error(self) -> None:
        """It ends as a job that was killed."""
        parameters = self.start("new")
        self.world.kill_after = 40
        refused = self.assertRaises(Refused, self.world.run, OP, **parameters)
        self.assertIsInstance(refused.error, JobKilled)


class CrashTests(BrokenOffCase):
    """The daemon ends at each call, and takes nothing back: the tables of docs/procedures.rst."""

    def test_each(self) -> None:
        """The command that the step names brings back a whole mirror; it names what is left."""
        for way in WAYS:
            parameters = self.start(way)
            for moment, leaves, finish in self.each_crash(
                partial(self.start, way), OP, **parameters
            ):
                what = (way, moment, leaves)
                self.let_sync()
                if finish:
                    self.follow(finish)
                    self.let_sync()
                elif way == "lost":
                    self.world.run(OP, **parameters)
                for minor in self.world.nodes.mirrors.of_node("node4"):
                    configured = any(
                        (self.world.now.node("node4").uuid, minor) in disk.minors()
                        for disk in self.world.now.disks_of(self.now())
                    )
                    if not configured:
                        self.assertIn(str(minor), leaves, what)
                        self.world.nodes.mirrors.lose("node4", minor)
                strays = self.strays()
                self.assertNamed(strays, leaves, what)
                self.assertWhole(strays=strays)
                self.assertEqual(self.where(), ["node2"], what)

    def test_down(self) -> None:
        """Disks that were down stay up then, until they are deactivated."""
        for way in ("secondary", "new"):
            parameters = self.start(way, up=False)
            prepare = partial(self.start, way, up=False)
            for moment, leaves, finish in self.each_crash(prepare, OP, **parameters):
                self.let_sync()
                if finish:
                    self.follow(finish)
                    self.let_sync()
                self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME)
                for minor in self.world.nodes.mirrors.of_node("node4"):
                    self.world.nodes.mirrors.lose("node4", minor)
                strays = self.strays()
                self.assertNamed(strays, leaves, (way, moment))
                self.assertWhole(up=False, strays=strays)
                self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
                self.let_sync()
                self.assertWhole(strays=strays)
