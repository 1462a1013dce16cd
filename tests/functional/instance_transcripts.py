"""Commands on instances that Ganeti 3.0.2 ran once, on clusters of its own, and how they ended.

The group ``instance`` is of three nodes with files and instances without disks; the others are of
the five nodes that ``simulation/clusters/recorded.toml`` describes. Each group begins on a
cluster without instances. ``rename`` looks no names up, as there may be nothing to ask.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from tests.functional.gnt import Said

GROUPS = ("instance", "inst-create", "batch-create", "inst-life", "inst-disks", "inst-move")

_FILE = Path(__file__).parents[1] / "data" / "gnt_instances.json"

_OURS = "docs/differences.rst"
_TIMING = "how far a removal or a sync is by then"

#: Commands of which only the exit code is compared, and why.
ONLY_CODE: dict[str, dict[int, str]] = {
    "instance": {
        1: "descriptions of the fields are our own",
        19: "memory and processors of the machine",
        **dict.fromkeys((66, 78), _OURS),
        110: _TIMING,
    },
    "inst-create": {
        **dict.fromkeys((33, 45, 52, 71, 75, 102, 112), _OURS),
    },
    "batch-create": {13: _OURS},
    "inst-life": dict.fromkeys((26, 47, 50, 85, 88), _OURS),
    "inst-disks": dict.fromkeys((39, 43, 58, 61, 67, 74, 78, 79, 81, 84, 91, 93), _OURS),
    "inst-move": dict.fromkeys((24, 48, 60, 61, 63, 78, 83, 84), _OURS),
}

#: Refusals whose type is better here: nothing was begun, so it isn't an execution that failed
#: (docs/differences.rst). All else that they say is the same.
OTHER_TYPE: dict[str, tuple[int, ...]] = {
    "instance": (11, 12, 79, 101, 102),
    "inst-create": (27, 28, 30, 31, 32, 61, 62, 103, 104),
    "inst-life": (52, 53, 56),
}

#: Where hail goes by uuids: which of equal nodes it chooses, which group it names first.
TIES: dict[str, tuple[int, ...]] = {
    "inst-create": (19, 20, 21, 22, 23, 24, 111),
    "batch-create": (11, 12),
    # Here jobs run side by side, so that it finds other memory free.
    "inst-move": (62, 75, 81),
}

#: Where it depends on the moment whether a mirror is in sync yet.
SYNCING: dict[str, tuple[int, ...]] = {
    "inst-create": (17,),
    "inst-life": (20, 70, 89),
    "inst-disks": (20, 56, 69, 77),
}

#: Commands that end otherwise here, as docs/differences.rst says.
OTHER_CODE: dict[tuple[str, int], int] = {
    ("inst-create", 66): 1,
    ("inst-create", 79): 1,
    ("inst-create", 105): 0,
    ("batch-create", 4): 0,
    ("inst-disks", 21): 0,
    ("inst-move", 85): 0,
}

#: Commands that 3.0.2 breaks off by an assertion of its own, and those that only show what that
#: has left: they don't count where the agreement is measured.
ASIDE: dict[str, tuple[int, ...]] = {
    "inst-create": (105,),
    "inst-disks": (21, 81, 91, 93),
    "inst-move": (83, 84, 85),
}

#: How many of the commands of each group that count end, and print, as recorded, at least: on
#: simulated nodes and on real node daemons.
FLOORS: dict[str, tuple[int, int]] = {
    "instance": (117, 112),
    "inst-create": (113, 106),
    "batch-create": (24, 23),
    "inst-life": (95, 90),
    "inst-disks": (90, 81),
    "inst-move": (88, 82),
}

_FORTHCOMING = (
    "gnt-instance remove -f instance31; gnt-instance add --no-ip-check --no-name-check -t drbd "
    "-n node1:node2 -o demo+plain -s 64M --forthcoming --no-nics instance31"
)
#: On the nodes that the allocator chose, without any volume, as the assertion leaves it.
_ELSEWHERE = (
    "gnt-instance recreate-disks -n node5:node4 instance1; gnt-instance deactivate-disks instance1;"
    " $BLK lose-lv node5 instance1; $BLK lose-lv node4 instance1"
)
_SMALLER = (
    "gnt-instance recreate-disks --disk 0:mode=ro,size=64M instance1; for node in node4 node5; do "
    "$BLK down $node instance1 0; $BLK lose-lv $node instance1 0; done"
)

#: What is run before a group. Where recorded commands moved mirrors to and fro, seconds lay between
#: two of them, in which a mirror came in sync again; here they follow at once.
BEFORE = {"inst-move": "$BLK sync 0"}

#: What is run after a command that ended otherwise, so that the next ones find what they should.
AFTERWARDS: dict[tuple[str, int], str] = {
    ("inst-create", 105): _FORTHCOMING,
    ("batch-create", 4): "gnt-instance remove -f instance44; gnt-instance remove -f instance45",
    # A reinstallation that fails keeps its parameters here.
    ("inst-life", 51): "gnt-instance modify -O fs=default instance1",
    # Nor does a size change, if the disk can't be made.
    ("inst-disks", 73): "$BLK lose-lv node2 instance2; "
    "gnt-instance recreate-disks --disk 0:size=96M instance2",
    # The mirrors are in sync before the next command, however fast the machine is.
    ("inst-disks", 62): "while gnt-instance info instance1 | grep -qE 'RECOVERING|DEGRADED'; "
    "do :; done",
    ("inst-disks", 81): _ELSEWHERE,
    ("inst-disks", 85): _SMALLER,
    # A move for which there is no room stops nothing.
    ("inst-move", 60): "$BLK crash node3 instance2",
    # Where the allocator may have chosen another node.
    ("inst-move", 75): "gnt-instance migrate -f -n node3 instance4",
    # A mirror goes to its other node, whatever allocator is named.
    ("inst-move", 78): "gnt-instance migrate -f instance2; "
    "gnt-instance migrate -f -n node2 instance4",
}

#: How long the recording waited for jobs, and what does so here.
_SLEEP = re.compile(r"sleep (15|20);")
_UNTIL_ENDED = (
    "while gnt-job list --no-headers -o id --pending --running | grep -q .; do sleep 0.2; done;"
)

_LEAVES_JOBS = re.compile(
    r"--submit|evacuate|change-group|verify|batch|gnt-node (migrate|failover)"
)

#: What differs from one run or machine to the next, and what is said in its place.
_MOMENTARY = [
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b", "MAC"),
    (r"\b\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}\b", "TIME"),
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d([.,]\d+)?", "TIME"),
    (r"\b1[67]\d{8}\d*(\.\d+)?\b", "TIME"),
    (r"(?i)\b(jobs?(?: ?id)?:?) \d+(, \d+)*", r"\1 ID"),
    (r"(?m)^ *\d+ +(?=(success|error|queued|waiting|running|canceled) )", "ID "),
    (r"(?i)\b(pid|port)[ =:]+\d+", r"\1 N"),
    (r"(?i)(serial[ _]n\w*'?): \d+", r"\1: N"),
    (r"(\*RECOVERING\*)[ \d.%]+, ETA [\w.]+", r"\1"),
    (r"\(choose from [^)]*\)", "(choose from SET)"),
    # The minors of volumes: which were free on the machine.
    (r"\((251|253):\d+\)", r"(\1:N)"),
    # The addresses of the recorded nodes.
    (r"(?m)^( *(primary|secondary) ip): [\d.]+$", r"\1: ADDRESS"),
    (r"(does not resolve): .*", r"\1"),
    (r"(?m)^\d+: (?=instance\d+$)", "ID: "),
    # How far a sync is at the moment.
    (r"(?m)^.* - device disk/\d+: .*% done.*\n", ""),
    # Whether a copy is seen at work, and how far it is.
    (r"(?m)^.* disk/\d+ (is (receiving|sending) data on \w+|sent \d.*)\n", ""),
    # The rest is in docs/differences.rst.
    (r"(?m)^.* - INFO: Waiting for instance .* to sync disks\n", ""),
    (r"(?m)^.* - INFO: Instance .*'s disks are in sync\n", ""),
    (r"(?m)^.* \* checking mirrors status\n", ""),
    (r"(?m)^.* - INFO: Instance OS create scripts have finished after .*\n", ""),
    (r"(?m)^.* - INFO: Running instance OS rename script...\n", ""),
    (r"(?m)^.*ghost disk .* in temporary DRBD map\n", ""),
    (r"\((instance \w+|instace) has (no disks|disks [-\d]+ to [-\d]+)\)?", "(NUMBER OF DISKS)"),
    (r"(allocation to group) (\{.*\}|UUID) \(", r"\1 ("),
    (r"block device (<.*>|disk/\d+ \(\w+\)) on node", "block device DISK on node"),
    (r"[ \t]+", " "),
    (r"-{3,}", "---"),
]

#: The sizes of another machine, in the group that ran on one.
_SIZES = [(r"\b\d+(\.\d+)?[MGT]\b", "SIZE")]

#: What a refusal says before its text.
_TYPES = [
    (r"Failure: (command execution error|prerequisites not met for this operation):", "Failure:"),
    (r"(?m)^error type: \w+, error details:\n", ""),
    (r"(?m)^Instance '\w+': (?=forthcoming)", ""),
]

#: How far it is.
_SYNC = [(r"(\*RECOVERING\*|in sync), status (\*DEGRADED\*|ok)", "SYNC")]

#: Which node it is, and what of two groups is said first.
_EITHER = [(r"\bnode\d\b", "NODE"), (r"Request failed: .*", "Request failed")]


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
    def played(self) -> str:
        """The command, which waits for jobs until they have ended, not for some seconds."""
        return _SLEEP.sub(_UNTIL_ENDED, self.command)

    @property
    def leaves_jobs(self) -> bool:
        """Whether jobs go on after it, for whose end the recording waited."""
        return bool(_LEAVES_JOBS.search(self.command))

    @property
    def aside(self) -> bool:
        """Whether what was recorded is plainly wrong, and so isn't counted."""
        return self.number in ASIDE.get(self.group, ())

    @property
    def expected_code(self) -> int:
        """How it is to end here."""
        return OTHER_CODE.get(self.place, self.code)

    @property
    def only_code(self) -> bool:
        """Whether only the exit code is compared."""
        return self.place in OTHER_CODE or self.number in ONLY_CODE.get(self.group, {})

    def same_output(self, said: Said, folders: Mapping[str, str]) -> bool:
        """Whether both outputs are what was recorded, but for what is of the moment."""
        return self._lines(self.out, {}) == self._lines(said.out, folders) and self._lines(
            self.err, {}
        ) == self._lines(said.err, folders)

    def _lines(self, text: str, folders: Mapping[str, str]) -> list[str]:
        """Returns the lines; the real daemons have no certain order."""
        for folder, instead in folders.items():
            text = text.replace(folder, instead)
        patterns = list(_MOMENTARY)
        if self.group == "instance":
            patterns += _SIZES
        if self.number in OTHER_TYPE.get(self.group, ()):
            patterns += _TYPES
        if self.number in TIES.get(self.group, ()):
            patterns += _EITHER
        if self.number in SYNCING.get(self.group, ()):
            patterns += _SYNC
        for pattern, instead in patterns:
            text = re.sub(pattern, instead, text)
        return sorted(line.strip() for line in text.splitlines() if line.strip())


def recorded_on_instances(group: str) -> list[RecordedOnInstances]:
    """Returns the recorded commands of a group, in their order."""
    rows = json.loads(_FILE.read_bytes())
    return [RecordedOnInstances(**row) for row in rows if row["group"] == group]
