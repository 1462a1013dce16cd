"""The switch's steps on a node in memory, with a failure at each of its effects."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from msgspec.structs import asdict, replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.switching.plan import BACK, LUXID, TO, WCONFD, NodeStanding, planned
from ganeti_masterd.switching.steps import SwitchFault, SwitchReport, carry_out

UNDER_LUXID = NodeStanding(
    master=True,
    luxid=True,
    wconfd=True,
    own=False,
    drained=False,
    hook=False,
    hook_current=False,
    systemd=True,
    unit=False,
    own_unit=False,
    enabled=False,
    peer_units=("ganeti-luxid.service", "ganeti-wconfd.service"),
)
SWITCHED = replace(
    UNDER_LUXID,
    luxid=False,
    wconfd=False,
    own=True,
    hook=True,
    hook_current=True,
    unit=True,
    own_unit=True,
    enabled=True,
    peer_units=(),
)


class Memory:
    """An ``ISwitchHost`` whose state is a standing; effect number ``breaks`` fails.

    It fails before or, with ``late``, after it took place. What can't be done in a state, such as
    asking a daemon that doesn't run, fails too.
    """

    def __init__(self, now: NodeStanding, breaks: int | None = None, late: bool = False) -> None:
        self.now = now
        self.effects = 0
        self._breaks = breaks
        self._late = late

    def _effect(self, **changes: object) -> None:
        number, self.effects = self.effects, self.effects + 1
        if number == self._breaks and not self._late:
            raise SwitchFault("broken")
        self.now = replace(self.now, **changes)
        if number == self._breaks:
            raise SwitchFault("broken, late")

    def _need(self, condition: bool, what: str) -> None:
        if not condition:
            raise SwitchFault(f"impossible: {what}")

    def drain(self, closed: bool) -> None:
        self._need(self.now.luxid or self.now.own, "no daemon answers")
        self._effect(drained=closed)

    def wait_for_jobs(self) -> None:
        self._need(self.now.drained, "jobs come without end")
        self._effect()

    def wait_for_processes(self) -> None:
        self._need(not self.now.luxid, "luxid starts more")
        self._need(self.now.wconfd, "they need wconfd")
        self._effect()

    def start_peer(self, name: str) -> None:
        self._need(not self.now.own, "it holds the PID file")
        self._need(not self.now.hook or name == WCONFD, "daemon-util would start another")
        if name == LUXID:
            self._need(self.now.wconfd, "luxid needs wconfd")
        self._effect(**{name.removeprefix("ganeti-"): True})

    def stop_peer(self, name: str) -> None:
        self._need(not self.now.own, "that is another daemon")
        self._effect(**{name.removeprefix("ganeti-"): False})

    def start_own(self) -> None:
        self._need(not self.now.luxid and not self.now.wconfd, "they hold their PID files")
        self._need(self.now.hook_current, "daemon-util would start luxid")
        self._need(not self.now.systemd or self.now.unit, "there is no unit")
        self._effect(own=True)

    def stop_own(self) -> None:
        self._need(not self.now.luxid, "the queue is luxid's")
        self._effect(own=False)

    def hook(self, wanted: bool) -> None:
        self._effect(hook=wanted, hook_current=wanted)

    def unit(self, wanted: bool) -> None:
        self._effect(unit=wanted, own_unit=wanted)

    def enable(self, own: bool) -> None:
        peers = () if own else ("ganeti-luxid.service", "ganeti-wconfd.service")
        self._effect(enabled=own, peer_units=peers)

    def answers(self, own: bool) -> None:
        self._need(self.now.own if own else self.now.luxid and self.now.wconfd, "none answers")
        self._effect()


def run(table: object, memory: Memory, interrupted: Callable[[], bool] = bool) -> SwitchReport:
    steps = planned(table, memory.now)  # type: ignore[arg-type]
    return carry_out(steps, memory, lambda _: None, interrupted)


class PlanTests(SynchronousTestCase):
    """Both tables, from each standing that a node can have."""

    def test_there_and_back(self) -> None:
        """Each leads where it should, and both together to where it began."""
        for systemd, peers, drained in product((False, True), repeat=3):
            before = replace(UNDER_LUXID, systemd=systemd, drained=drained)
            after = replace(SWITCHED, systemd=systemd, drained=drained)
            if not peers or not systemd:
                before = replace(before, peer_units=())
                after = replace(after, enabled=False)
            if not systemd:
                after = replace(after, unit=False, own_unit=False)
            memory = Memory(before)
            self.assertIsNone(run(TO, memory).fault)
            self.assertEqual(memory.now, after)
            self.assertEqual(planned(TO, memory.now), [])
            self.assertIsNone(run(BACK, memory).fault)
            self.assertEqual(memory.now, before)
            self.assertEqual(planned(BACK, memory.now), [])

    def test_each_effect_fails(self) -> None:
        """Whatever fails, before or after it took place: all is as it was, and nothing is left."""
        for table, before in ((TO, UNDER_LUXID), (BACK, SWITCHED)):
            whole = Memory(before)
            run(table, whole)
            self.assertGreater(whole.effects, 7)
            for number, late in product(range(whole.effects), (False, True)):
                memory = Memory(before, number, late)
                report = run(table, memory)
                self.assertIn("broken", report.fault or "")
                self.assertEqual(report.left, [], number)
                self.assertEqual(asdict(memory.now), asdict(before), number)

    def test_interrupted_anywhere(self) -> None:
        """So it is after an interrupt before any of the steps."""
        for table, before in ((TO, UNDER_LUXID), (BACK, SWITCHED)):
            for number in range(len(planned(table, before))):
                asked = iter([False] * number + [True])
                memory = Memory(before)
                report = run(table, memory, lambda asked=asked: next(asked))  # type: ignore[misc]
                self.assertEqual(report.fault, "interrupted")
                self.assertEqual(memory.now, before)

    def test_cut_off_anywhere(self) -> None:
        """Where a switch was killed, either direction can be taken from there."""
        for table, before in ((TO, UNDER_LUXID), (BACK, SWITCHED)):
            steps = planned(table, before)
            for number, (again, goal) in product(
                range(len(steps)), ((TO, SWITCHED), (BACK, UNDER_LUXID))
            ):
                memory = Memory(before)
                carry_out(steps[:number], memory, lambda _: None, bool)
                report = run(again, memory)
                self.assertIsNone(report.fault, (number, report))
                # A queue that was closed by then is left so.
                self.assertEqual(replace(memory.now, drained=False), goal)

    def test_another_node(self) -> None:
        """On a node that isn't the master no daemon is started or stopped."""
        before = replace(UNDER_LUXID, master=False, luxid=False, wconfd=False)
        names = [step.name for step in planned(TO, before)]
        self.assertEqual(names, ["hook", "unit", "enable"])
        memory = Memory(before)
        run(TO, memory)
        self.assertEqual(planned(TO, memory.now), [])
        self.assertEqual([s.name for s in planned(BACK, memory.now)], ["enable", "unit", "hook"])
        run(BACK, memory)
        self.assertEqual(memory.now, before)

    def test_hook_of_another_installation(self) -> None:
        """Lines that name other programs are replaced, also while the daemon runs."""
        names = [step.name for step in planned(TO, replace(SWITCHED, hook_current=False))]
        self.assertEqual(names, ["hook", "answer"])
