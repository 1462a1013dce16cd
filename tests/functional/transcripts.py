"""Commands that Ganeti 3.0.2 ran on a cluster of its own, once, and what they ended with.

The groups node, os, debug, job and cluster, in this order, on a new cluster of
node1 alone: the commands add node2 and node3. Between os and debug the
recorded cluster got instances, so listings of jobs and of memory go another way.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from msgspec import Struct

from tests.functional.realcluster import Ran, RealCluster

GROUPS = ("node", "os", "debug", "job", "cluster")

_FILE = Path(__file__).parents[1] / "data" / "gnt_transcripts.json"

_HISTORY = "the recorded cluster had other jobs before"
_OURS = "docs/differences.rst"
_MACHINE = "depends on the machine"
_WORDS = "descriptions of the fields are our own"
_CLIENT = "the client's own text"

#: Commands of which only the exit code is compared, and why.
ONLY_CODE: dict[str, dict[int, str]] = {
    "node": {2: _WORDS, 3: _WORDS, 23: _MACHINE},
    "os": {0: _MACHINE, 1: _MACHINE, 2: _MACHINE, 4: _MACHINE, 6: _MACHINE},
    "debug": {
        11: "prints the job's id",
        22: _OURS,
        25: "prints ids of jobs, and a job's parameters as they were submitted",
        26: _OURS,
        27: _MACHINE,
        28: _OURS,
    },
    "job": {
        **dict.fromkeys((0, 2, 6, 7, 8, 9, 13, 17, 43, 44), _HISTORY),
        1: _WORDS,
        **dict.fromkeys((16, 19, 21, 26, 27, 45), "names ids or parameters of other jobs"),
        23: _OURS,
        24: _OURS,
        31: _OURS,
        41: _HISTORY,
        42: _OURS,
    },
    "cluster": {
        **dict.fromkeys((18, 19, 20, 21, 22), "the recorded cluster had instances"),
        25: _OURS,
        26: _OURS,
        36: _OURS,
        47: _CLIENT,
        48: _CLIENT,
        49: _MACHINE,
        50: _CLIENT,
        52: "the recorded cluster had instances",
    },
}

#: Commands that end otherwise here, as docs/differences.rst says.
OTHER_CODE = {("debug", 26): 0}

#: Commands that say the same on any cluster of three nodes, or undo what they do, in this order.
ANYWHERE: dict[str, tuple[int, ...]] = {
    "node": (12, 15, 17, 18, 20, 26, 45, 46, 47, 48, 49, 51),
    "os": (5, 7, 10, 11),
    "debug": (0, 4, 6, 8, 12, 16, 17, 18),
    "job": (12, 15, 29, 33),
    "cluster": (3, 6, 7, 8, 10, 38),
}

#: What differs from one moment or machine to the next, and what is said in its place.
_MOMENTARY = [
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r"\b\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4}\b", "TIME"),
    (r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d([.,]\d+)?", "TIME"),
    (r"\[1[67]\d{8}, \d+\]", "TIME"),
    (r"\b1[67]\d{8}\d*(\.\d+)?\b", "TIME"),
    (r"\d+\.\d+ ?s(ec\w*)?\b|\b(submit|exec|total)( time)?:? +[\d.]+", "SECONDS"),
    (r"\b\d+(\.\d+)?[MGT]\b", "SIZE"),
    (r"(?i)\b(jobs?(?: ?id)?:?) \d+(, \d+)*", r"\1 ID"),
    (r"(?i)(serial[ _]number): \d+", r"\1: N"),
    (r";uid=\d+;pid=\d+", ""),
    # Whole numbers have a point until the real daemons write them for the first time.
    (r"(?<![\d.])(\d+)\.0(?![\d.])", r"\1"),
    (r"[ \t]+", " "),
    (r"-{3,}", "---"),
]


class Recorded(Struct, frozen=True):
    """A command and what it did; ``out`` and ``err`` are null if only the code counts."""

    group: str
    number: int
    command: str
    code: int
    out: str | None
    err: str | None

    @property
    def name(self) -> str:
        """Which one it is, for people."""
        return f"{self.group} {self.number}: {self.command}"

    @property
    def expected_code(self) -> int:
        """How it is to end here."""
        return OTHER_CODE.get((self.group, self.number), self.code)

    def difference(self, cluster: RealCluster) -> str | None:
        """Runs it; returns what is not as it was recorded, null if all is."""
        ran = cluster.run(self.command.replace("FOLDER", str(cluster.folder)))
        return self.compared(ran, str(cluster.folder))

    def compared(self, ran: Ran, folder: str) -> str | None:
        """Returns what differs between this and a run in a cluster's folder, null if nothing."""
        if ran.code != self.expected_code:
            return (
                f"{self.name}\nexit code {ran.code}, not {self.expected_code}\n{ran.out}{ran.err}"
            )
        for was, now in ((self.out, ran.out), (self.err, ran.err)):
            if was is not None and _lines(was) != _lines(now.replace(folder, "FOLDER")):
                return f"{self.name}\n{now}\ninstead of\n{was}"
        return None


def recorded() -> list[Recorded]:
    """Returns all recorded commands, in their order."""
    rows = json.loads(_FILE.read_bytes())
    return [Recorded(**row) for row in rows]


def anywhere() -> list[Recorded]:
    """Returns those that may run on any cluster of three nodes, in their order."""
    return [each for each in recorded() if each.number in ANYWHERE[each.group]]


def _lines(text: str) -> list[str]:
    """Returns the lines, but for what is of the moment; the real daemons have no certain order."""
    for pattern, instead in _MOMENTARY:
        text = re.sub(pattern, instead, text)
    return sorted(_in_order(line.strip(" -")) for line in text.splitlines() if line.strip())


def _in_order(line: str) -> str:
    """Returns a line, its words sorted if it has a list or a mapping, whose order is any."""
    return " ".join(sorted(re.findall(r"[^\s,{}()]+", line))) if ", " in line else line
