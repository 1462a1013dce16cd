"""Commands on instances that Ganeti 3.0.2 ran on clusters of its own, once, and what they ended with.

The group ``instance`` is of three nodes with files and instances without disks; the others are of
the five nodes that ``simulation/clusters/recorded.toml`` describes. Each group begins on a
cluster without instances.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from tests.functional.gnt import Said

GROUPS = ("instance", "inst-create", "batch-create", "inst-life", "inst-disks")

_FILE = Path(__file__).parents[1] / "data" / "gnt_instances.json"

#: Opcodes that this daemon can't run yet, as the commands name them.
_NOT_BUILT = re.compile(
    r"gnt-instance (failover|migrate|move|replace-disks|change-group)"
    r"|gnt-node (migrate|failover|evacuate)"
)

_CHANGED = "comes after a command that can't be run yet"
_MACHINE = "depends on the machine"
_NO_TERMINAL = "the tool's own"

#: Commands that aren't run, and why.
LEFT_OUT: dict[str, dict[int, str]] = {
    "instance": {},
    "inst-create": {},
    "batch-create": {},
    "inst-life": {},
    "inst-disks": {},
}

_OURS = "docs/differences.rst"
_TIE = "hail's choice between nodes that are equal"

#: Commands of which only the exit code is compared, and why.
ONLY_CODE: dict[str, dict[int, str]] = {
    "instance": {},
    "inst-create": {},
    "batch-create": {},
    "inst-life": {},
    "inst-disks": {},
}

#: Commands that end otherwise here, as docs/differences.rst says.
OTHER_CODE: dict[tuple[str, int], int] = {}

#: What is run after a command that ended otherwise, so that the next ones find what they should.
AFTERWARDS: dict[tuple[str, int], str] = {}

#: What differs from one run or machine to the next, and what is said in its place.
_MOMENTARY = [
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
    (r"\b\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}\b", "TIME"),
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d([.,]\d+)?", "TIME"),
    (r"\b1[67]\d{8}\d*(\.\d+)?\b", "TIME"),
    (r"(?i)\b(jobs?(?: ?id)?:?) \d+(, \d+)*", r"\1 ID"),
    (r"(?i)\b(pid|port)[ =:]+\d+", r"\1 N"),
    (r"(?i)(serial[ _]n\w*'?): \d+", r"\1: N"),
    (r"(\*RECOVERING\*)[ \d.%]+, ETA [\w.]+", r"\1"),
    (r"\(choose from [^)]*\)", "(choose from SET)"),
    # Not waited for here, as docs/differences.rst says; how far a sync is depends on the moment.
    (r"(?m)^.* - device disk/\d+: .*% done.*\n", ""),
    (r"(?m)^.* - INFO: (Waiting for instance .* to sync disks|Instance .*'s disks are in sync)\n", ""),
    (r"(?m)^.* \* checking mirrors status\n", ""),
    (r"[ \t]+", " "),
    (r"-{3,}", "---"),
]

#: The sizes of another machine, in the group that ran on one.
_SIZES = [(r"\b\d+(\.\d+)?[MGT]\b", "SIZE")]


class RecordedOnInstances(Struct, frozen=True):
    """A command and what it did."""

    group: str
    number: int
    command: str
    code: int
    out: str
    err: str

    @property
    def name(self) -> str:
        """Which one it is, for people."""
        return f"{self.group} {self.number}: {self.command[:100]}"

    @property
    def place(self) -> tuple[str, int]:
        """The group and the number in it."""
        return self.group, self.number

    @property
    def left_out(self) -> bool:
        """Whether it isn't run."""
        return bool(_NOT_BUILT.search(self.command)) or self.number in LEFT_OUT[self.group]

    @property
    def expected_code(self) -> int:
        """How it is to end here."""
        return OTHER_CODE.get(self.place, self.code)

    @property
    def only_code(self) -> bool:
        """Whether only the exit code is compared."""
        return self.place in OTHER_CODE or self.number in ONLY_CODE[self.group]

    def same_output(self, said: Said, folders: Mapping[str, str]) -> bool:
        """Whether both outputs are what was recorded, but for what is of the moment."""
        return self._lines(self.out, {}) == self._lines(said.out, folders) and self._lines(
            self.err, {}
        ) == self._lines(said.err, folders)

    def _lines(self, text: str, folders: Mapping[str, str]) -> list[str]:
        """Returns the lines; the real daemons have no certain order."""
        for folder, instead in folders.items():
            text = text.replace(folder, instead)
        for pattern, instead in _MOMENTARY + (_SIZES if self.group == "instance" else []):
            text = re.sub(pattern, instead, text)
        return sorted(line.strip() for line in text.splitlines() if line.strip())


def recorded_on_instances(group: str) -> list[RecordedOnInstances]:
    """Returns the recorded commands of a group, in their order."""
    rows = json.loads(_FILE.read_bytes())
    return [RecordedOnInstances(**row) for row in rows if row["group"] == group]
