"""Steps are done in order, and undone in reverse."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.switching.steps import SwitchFault, SwitchReport, SwitchStep, carry_out


class Log(list[str]):
    """What steps did; ``breaks`` are the entries at which they raise."""

    def __init__(self, **breaks: Exception) -> None:
        super().__init__()
        self.breaks = breaks

    def enter(self, name: str) -> None:
        self.append(name)
        if name in self.breaks:
            raise self.breaks[name]


def step(name: str) -> SwitchStep[Log]:
    """A step that is logged; its undo too."""
    return SwitchStep(
        name=name,
        does=f"Do {name}",
        do=lambda log: log.enter(name),
        undoes=f"Undo {name}",
        undo=lambda log: log.enter(f"un{name}"),
    )


ONLY_LOOKS: SwitchStep[Log] = SwitchStep(name="b", does="Look", do=lambda log: log.enter("b"))


class CarryOutTests(SynchronousTestCase):
    """The procedure."""

    def setUp(self) -> None:
        self.said: list[str] = []
        self.interrupted_at = 99

    def interrupted(self) -> bool:
        self.interrupted_at -= 1
        return self.interrupted_at < 0

    def carry_out(self, log: Log) -> SwitchReport:
        steps = [step("a"), ONLY_LOOKS, step("c")]
        return carry_out(steps, log, self.said.append, self.interrupted)

    def test_all(self) -> None:
        """Nothing fails: each is done and said."""
        log = Log()
        self.assertEqual(self.carry_out(log), SwitchReport(["a", "b", "c"]))
        self.assertEqual(log, ["a", "b", "c"])
        self.assertEqual(self.said, ["Do a", "Look", "Do c"])

    def test_first_fails(self) -> None:
        """The one that failed is undone as well: it may be half done."""
        log = Log(a=SwitchFault("no"))
        self.assertEqual(self.carry_out(log), SwitchReport([], "a", "no", ["a"]))
        self.assertEqual(log, ["a", "una"])

    def test_last_fails(self) -> None:
        """All are undone, the latest first."""
        log = Log(c=OSError(28, "No space left", "/etc/default/ganeti"))
        report = self.carry_out(log)
        fault = "/etc/default/ganeti: No space left"
        self.assertEqual(report, SwitchReport(["a", "b"], "c", fault, ["c", "a"]))
        self.assertEqual(log, ["a", "b", "c", "unc", "una"])
        self.assertEqual(self.said[3:], [f"Failed: {fault}", "Undo: Undo c", "Undo: Undo a"])

    def test_undo_fails(self) -> None:
        """The others are undone all the same, and what is left is said."""
        log = Log(c=KeyError("bug"), unc=SwitchFault("stuck"))
        report = self.carry_out(log)
        self.assertEqual((report.undone, report.left), (["a"], [("c", "stuck")]))
        self.assertEqual(log, ["a", "b", "c", "unc", "una"])

    def test_interrupted(self) -> None:
        """A step that was not begun is not undone; those before it are."""
        for number, expected in enumerate(([], ["a", "una"], ["a", "b", "una"])):
            self.interrupted_at = number
            log = Log()
            report = self.carry_out(log)
            self.assertEqual(log, expected)
            self.assertEqual((report.failed, report.fault), ("abc"[number], "interrupted"))
