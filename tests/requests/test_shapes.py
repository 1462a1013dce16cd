"""The number and values of arguments that methods take: as luxid 3.0.2, with listed exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure

from ganeti_masterd.errors import GenericError, OpPrereqError
from ganeti_masterd.requests.registry import METHODS
from tests.requests.scene import DELAY, RequestScene

_DATA = Path(__file__).parent.parent / "data"

#: For each method: good arguments, the counts that luxid takes, and the values at each place.
RECORDED: dict[str, dict[str, Any]] = msgspec.json.decode(
    (_DATA / "luxi_methods.json").read_bytes()
)["methods"]

#: Methods that luxid always answers with an error, even for well-formed arguments.
_ALWAYS_FAIL = {"DeleteFilter", "PickupJob"}


def _is_fraction(value: Any) -> bool:
    return isinstance(value, float) and not value.is_integer()


#: Values that luxid takes and that are refused here: method (or any), place, which values, why.
REFUSED_HERE: list[tuple[str, int | None, Callable[[Any], bool], str]] = [
    ("*", None, lambda value: value in ([[]], [], ["1"], ["x"]), "a list read as a text"),
    ("*", None, _is_fraction, "a fraction read as an integer"),
    ("WaitForJobChange", 3, lambda value: True, "any value that is no number read as none"),
    ("SetWatcherPause", 0, lambda value: True, "rubbish and times in the past, which end it"),
    ("SubmitJob", 0, lambda value: value == [], "a job without opcodes"),
    ("SubmitJobToDrainedQueue", 0, lambda value: value == [], "a job without opcodes"),
]


class ShapeTests(RequestScene):
    """Requests that luxid 3.0.2 answered and refused, sent to this daemon."""

    def setUp(self) -> None:
        super().setUp()
        self.call("SubmitManyJobs", [[DELAY]] * 5)

    def answers_to(self, method: str, args: list[Any]) -> bool:
        """Returns whether a request is answered or waits; a refusal must have the right class."""
        failures: list[Failure] = []
        maybeDeferred(self.ask, method, *args).addErrback(failures.append)
        for failure in failures:
            # An error of another class would be a bug in the daemon.
            failure.trap(GenericError)
        return not failures

    def cases(self) -> Iterator[tuple[str, int, list[Any], bool]]:
        """Yields each recorded value: its method, its place, all arguments, luxid's answer."""
        for method, recorded in RECORDED.items():
            for place, values in enumerate(recorded["values"]):
                for key, answered in (("answered", True), ("refused", False)):
                    for value in values[key]:
                        args = list(recorded["arguments"])
                        args[place] = value
                        yield method, place, args, answered

    def test_complete(self) -> None:
        """Every method is recorded, with as many arguments as it declares."""
        self.assertEqual(set(RECORDED), set(METHODS))
        for name, recorded in RECORDED.items():
            self.assertEqual(len(METHODS[name].arguments), len(recorded["arguments"]), name)

    def test_counts(self) -> None:
        """A number of arguments is accepted or refused as by luxid; defaults are the same.

        The exception is more than one for SetWatcherPause: refused here, ends the pause in luxid.
        """
        for name, recorded in RECORDED.items():
            for count in range(8):
                args = [*recorded["arguments"], *[None] * 8][:count]
                wanted = count in recorded["counts"]
                if name == "SetWatcherPause":
                    wanted = count <= 1
                try:
                    METHODS[name].read(args)
                except OpPrereqError as error:
                    self.assertFalse(wanted, f"{name}: {count} arguments")
                    self.assertIn(f"{name}: expected [", error.args[0])
                    self.assertIn(f"not {count} argument", error.args[0])
                else:
                    self.assertTrue(wanted, f"{name}: {count} arguments")

    def test_values(self) -> None:
        """A value is accepted or refused as by luxid, except for those listed."""
        used = set()
        for method, place, args, answered in self.cases():
            why = [
                (at, reason)
                for at, (name, where, matches, reason) in enumerate(REFUSED_HERE)
                if name in (method, "*") and where in (place, None) and matches(args[place])
            ]
            got = self.answers_to(method, args)
            if got != answered:
                self.assertTrue(answered, f"{method} {args}: only answered here")
                self.assertTrue(why, f"{method} {args}: only answered by luxid")
                used.update(at for at, _ in why)
        self.assertEqual(used, set(range(len(REFUSED_HERE))), "listed, and not needed")

    def test_whole_floats(self) -> None:
        """A whole number may be written as a float, wherever an integer is expected."""
        for method, args in (
            ("QueryJobs", [[1.0], ["id"]]),
            ("ChangeJobPriority", [1.0, 5.0]),
            ("WaitForJobChange", [1.0, ["id"], None, 0.0, 1.0]),
        ):
            self.assertTrue(self.answers_to(method, args), method)
        self.assertEqual(self.call("QueryJobs", [1], ["priority"]), [[5]])
