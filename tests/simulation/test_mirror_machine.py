"""Random calls on the two ends of a simulated mirror, compared with a naive model.

The model has no generations: the data of an end is the set of everything ever written there. Of two
ends the one with a subset of the other's is behind; if neither is a subset, the mirror is split.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.simulation.ends import Link, SyncPace
from ganeti_masterd.simulation.switches import throw
from tests.examples import examples, run_machine
from tests.simulation.mirrored import NODES, MirroredCase

LENGTH = 4.0

nodes = st.sampled_from(NODES)


class ModelEnd:
    """One end: its disk, its network (None, "single", "dual"), its role and data.

    ``data`` is its volume's content (None: never synced), ``current`` whether that is complete,
    ``left`` the seconds until a sync is done.
    """

    def __init__(self) -> None:
        self.disk = False
        self.net: str | None = None
        self.primary = False
        self.paused = False
        self.data: frozenset[int] | None = None
        self.current = False
        self.left = LENGTH

    @property
    def up(self) -> bool:
        return self.disk or self.net is not None

    @property
    def whole(self) -> bool:
        """Returns whether it has a disk with up-to-date data."""
        return self.disk and self.current


class Model:
    """Two ends, and whether they are connected, syncing, or can't reach each other."""

    def __init__(self) -> None:
        self.ends = {node: ModelEnd() for node in NODES}
        self.talking = False
        self.filling: tuple[str, str] | None = None
        self.cut = False
        self._tokens = count()

    def other(self, node: str) -> ModelEnd:
        return self.ends["b" if node == "a" else "a"]

    def write(self, end: ModelEnd) -> None:
        end.data = (end.data or frozenset()) | {next(self._tokens)}

    def lose_peer(self, *ends: ModelEnd) -> None:
        """Disconnects these ends from their peer; a primary may then write alone."""
        if self.talking:
            for end in ends:
                if end.primary and end.whole:
                    self.write(end)

    def quiet(self) -> None:
        self.talking = False
        self.filling = None

    def settle(self) -> None:
        a, b = self.ends["a"], self.ends["b"]
        meant = a.net is not None and b.net is not None and not self.cut
        if meant and (a.net != b.net or (a.primary and b.primary and a.net == "single")):
            self.lose_peer(a, b)
            a.net = b.net = None
            meant = False
        if not meant:
            self.lose_peer(a, b)
            self.quiet()
        elif not self.talking:
            self.talking = True
            self.meet()
        self.finish()

    def meet(self) -> None:
        a, b = self.ends["a"], self.ends["b"]
        if not (a.disk and b.disk) or not (a.current or b.current):
            return
        if a.current and b.current:
            assert a.data is not None
            assert b.data is not None
            if a.data == b.data:
                return
            if not (a.data < b.data or b.data < a.data):
                self.lose_peer(a, b)
                a.net = b.net = None
                self.quiet()
                return
            a_is_source = b.data < a.data
        else:
            a_is_source = a.current
        self.filling = ("a", "b") if a_is_source else ("b", "a")
        self.ends[self.filling[1]].current = False

    def advance(self, seconds: float) -> None:
        if self.filling is not None and not any(end.paused for end in self.ends.values()):
            self.ends[self.filling[1]].left -= seconds
        self.finish()

    def finish(self) -> None:
        if self.filling is None or any(end.paused for end in self.ends.values()):
            return
        source, target = (self.ends[node] for node in self.filling)
        if target.left <= 0:
            target.data, target.current, target.left = source.data, True, LENGTH
            self.filling = None

    def promote(self, node: str, *, force: bool = False) -> bool:
        end, peer = self.ends[node], self.other(node)
        if end.primary:
            return True
        if self.talking and peer.primary and end.net != "dual":
            return False
        if not end.whole and not (self.talking and peer.whole):
            if not (force and end.disk):
                return False
            end.current = True
            end.left = LENGTH
            self.write(end)
        end.primary = True
        if end.whole and not (self.talking and peer.disk):
            self.write(end)
        if self.talking and self.filling is None:
            self.meet()
        return True

    def attach(self, node: str) -> None:
        self.ends[node].disk = True
        if self.talking and self.filling is None:
            self.meet()

    def assemble(self, node: str, *, primary: bool) -> bool:
        end = self.ends[node]
        if not end.up:
            end.primary = end.paused = False
            self.attach(node)
            end.net = "single"
        elif not end.disk:
            self.attach(node)
        elif end.net is None:
            end.net = "single"
        self.settle()
        done = not primary or self.promote(node)
        self.settle()
        return done

    def down(self, node: str) -> None:
        end = self.ends[node]
        end.primary = False
        self.lose_peer(self.other(node))
        self.quiet()
        end.disk, end.net, end.paused = False, None, False

    def disconnect(self, node: str) -> bool:
        end = self.ends[node]
        if end.net is None:
            return True
        if end.primary and not end.disk:
            return False
        end.net = None
        self.quiet()
        return True

    def detach(self, node: str) -> bool:
        end, peer = self.ends[node], self.other(node)
        if not end.disk:
            return True
        if end.primary and not (self.talking and peer.whole):
            return False
        end.disk = False
        if self.talking:
            self.filling = None
            if (end.primary or peer.primary) and peer.whole:
                self.write(peer)
        return True


class _Case(MirroredCase):
    pace = SyncPace(seconds=LENGTH, quick_seconds=LENGTH)

    def runTest(self) -> None:
        """Does nothing: the state machine drives the case."""


class MirrorMachine(RuleBasedStateMachine):
    """Drives simulation and model, which must refuse the same calls and show the same state."""

    def __init__(self) -> None:
        super().__init__()
        self.case = _Case()
        self.case.setUp()
        self.model = Model()
        for node in NODES:
            for child in self.case.disks[node]["children"]:
                self.case.create(node, child, primary=False)
            self.case.create(node, self.case.disks[node], primary=False)
            self.model.assemble(node, primary=False)

    def agree(self, node: str, good: bool, call: str, *arguments: Any) -> None:
        error = self.case.result(node, call, *arguments).error
        assert (error is None) == good, (node, call, error, good)
        self.model.settle()

    @rule(node=nodes, primary=st.booleans())
    def assemble(self, node: str, primary: bool) -> None:
        good = self.model.assemble(node, primary=primary)
        disk = self.case.disks[node]
        self.agree(node, good, "blockdev_assemble", disk, {"name": "web"}, primary, 0)

    @rule(node=nodes)
    def force(self, node: str) -> None:
        """Does what creating an instance does on its primary."""
        if not self.model.ends[node].up:
            return
        good = self.model.promote(node, force=True)
        try:
            self.case.nodes.mirrors.promote(node, 1, force=True)
        except Exception:
            assert not good
        else:
            assert good
        self.model.settle()

    @rule(node=nodes)
    def close(self, node: str) -> None:
        end = self.model.ends[node]
        good, end.primary = end.up, end.primary and not end.up
        self.agree(node, good, "blockdev_close", "web", [self.case.disks[node]])

    @rule(node=nodes)
    def shutdown(self, node: str) -> None:
        self.model.down(node)
        self.agree(node, True, "blockdev_shutdown", self.case.disks[node])

    @rule(node=nodes)
    def disconnect(self, node: str) -> None:
        good = self.model.ends[node].up and self.model.disconnect(node)
        result = self.case.result(node, "drbd_disconnect_net", [self.case.disks[node]])
        assert result.failed != good, result
        self.model.settle()

    @rule(node=nodes, dual=st.booleans())
    def connect(self, node: str, dual: bool) -> None:
        """Does drbd_attach_net at one end, without its waiting."""
        end = self.model.ends[node]
        if not end.up or end.net is not None:
            return
        one, other = (1, 2) if node == "a" else (2, 1)
        link = Link(f"192.0.2.{one}:11001", f"192.0.2.{other}:11001", "secret", dual)
        self.case.nodes.mirrors.connect(node, 1, link)
        end.net = "dual" if dual else "single"
        self.model.settle()

    @rule(node=nodes)
    def remove_children(self, node: str) -> None:
        end = self.model.ends[node]
        good = end.up and self.model.detach(node)
        disk = self.case.disks[node]
        self.agree(node, good, "blockdev_removechildren", disk, disk["children"])

    @rule(node=nodes)
    def add_children(self, node: str) -> None:
        end = self.model.ends[node]
        good = end.up and not end.disk
        if good:
            end.data, end.current, end.left = None, False, LENGTH
            self.model.attach(node)
        disk = self.case.disks[node]
        self.agree(node, good, "blockdev_addchildren", disk, disk["children"])

    @rule(node=nodes, paused=st.booleans())
    def pause(self, node: str, paused: bool) -> None:
        end = self.model.ends[node]
        if end.up:
            end.paused = paused
        self.case.ask(node, "blockdev_pause_resume_sync", [self.case.disks[node]], paused)
        self.model.settle()

    @rule(node=nodes, cut=st.booleans())
    def link(self, node: str, cut: bool) -> None:
        throw(self.case.nodes, ["net", "a", "b", "down" if cut else "up"])
        self.model.cut = cut
        self.model.settle()

    @rule(node=nodes)
    def reboot(self, node: str) -> None:
        throw(self.case.nodes, ["reboot", node])
        self.model.down(node)
        self.model.settle()

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        self.case.clock.advance(seconds)
        self.model.advance(seconds)

    @precondition(lambda self: all(end.up for end in self.model.ends.values()))
    @rule()
    def volumes_held(self) -> None:
        """A volume is held open exactly if an end has it as its disk."""
        for node in NODES:
            held = self.case.ask(node, "lv_list", None)["xenvg/data1"][2]
            assert held == self.model.ends[node].disk

    @invariant()
    def alike(self) -> None:
        for node in NODES:
            end, peer = self.model.ends[node], self.model.other(node)
            found = self.case.find(node)
            assert (found is not None) == end.up, (node, found)
            if found is None:
                continue
            seen = self.case.nodes.mirrors.status(node, 1)
            assert (seen.role == "Primary") == end.primary, (node, seen)
            state = "Diskless" if not end.disk else "UpToDate" if end.current else "Inconsistent"
            assert seen.data == state, (node, seen, state)
            assert seen.syncing == (self.model.filling is not None), (node, seen)
            assert seen.connected == (self.model.talking and self.model.filling is None), seen
            assert (seen.connection == "StandAlone") == (end.net is None), (node, seen)
            if self.model.talking:
                assert (seen.peer_role == "Primary") == peer.primary, (node, seen)
            assert found["is_degraded"] == (not seen.connected or state != "UpToDate")
            if self.model.filling is not None:
                left = self.model.ends[self.model.filling[1]].left
                expected = min(99.9, round(100.0 * (LENGTH - left) / LENGTH, 1))
                assert found["sync_percent"] == expected, (node, found, left)

    @invariant()
    def one_primary(self) -> None:
        both = all(end.primary for end in self.model.ends.values())
        if both and self.model.talking:
            assert self.model.ends["a"].net == "dual"


class MirrorMachineTests(SynchronousTestCase):
    def test_machine(self) -> None:
        """The simulated mirror does what the naive one does, whatever is asked of it."""
        run_machine(MirrorMachine, examples(100, 1000), examples(30, 50))
