"""Two ends of a mirror alone: their tables, and what happens when they meet and part."""

from __future__ import annotations

from itertools import count

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.simulation.ends import (
    KINSHIP,
    MEETING,
    Backing,
    End,
    EndStanding,
    Kinship,
    Link,
    Meeting,
    Metadata,
    SyncPace,
)
from ganeti_masterd.simulation.mirrors import Mirrors
from ganeti_masterd.simulation.shelves import Shelf

#: Maps each outcome of a meeting to that of the other end.
OTHER = {
    Meeting.REST: Meeting.REST,
    Meeting.SPLIT: Meeting.SPLIT,
    Meeting.SOURCE: Meeting.TARGET,
    Meeting.TARGET: Meeting.SOURCE,
}


class World:
    """A ``Ground`` whose volumes, links and time the test sets."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.speed = SyncPace()
        self.cut = False
        self.gone: set[tuple[str, str]] = set()
        self.copied: list[tuple[tuple[str, str], tuple[str, str]]] = []
        self._generations = count()

    def now(self) -> float:
        return self.time

    def joined(self, one: str, other: str) -> bool:
        return not self.cut

    def volume(self, node: str, path: str) -> int | None:
        return None if (node, path) in self.gone else 1024

    def copy(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        self.copied.append((source, target))

    def pace(self) -> SyncPace:
        return self.speed

    def next_generation(self) -> str:
        return str(next(self._generations))


class TableTests(SynchronousTestCase):
    """The tables agree, seen from either end."""

    def test_meeting(self) -> None:
        """Every pair is in the table, and matches the reversed pair."""
        self.assertEqual(
            set(MEETING), {(one, other) for one in EndStanding for other in EndStanding}
        )
        for (one, other), meeting in MEETING.items():
            turned = MEETING[other, one]
            self.assertEqual(turned, None if meeting is None else OTHER[meeting])

    def test_sources(self) -> None:
        """An end is a sync's source only if its data is up to date and the other's isn't."""
        for (one, other), meeting in MEETING.items():
            fills = one is EndStanding.CURRENT and other in (EndStanding.FRESH, EndStanding.BEHIND)
            self.assertEqual(meeting is Meeting.SOURCE, fills, (one, other))

    def test_generations(self) -> None:
        """Of two up-to-date ends the older is synced from the newer; unrelated ones are split."""
        self.assertIsNone(MEETING[EndStanding.CURRENT, EndStanding.CURRENT])
        self.assertEqual(
            KINSHIP,
            {
                Kinship.SAME: Meeting.REST,
                Kinship.OURS_NEWER: Meeting.SOURCE,
                Kinship.THEIRS_NEWER: Meeting.TARGET,
                Kinship.STRANGERS: Meeting.SPLIT,
            },
        )


class PairTests(SynchronousTestCase):
    """The ends a and b, which are connected and up to date; a is the primary."""

    def setUp(self) -> None:
        self.world = World()
        self.mirrors = Mirrors(Shelf("end", End, {}), Shelf("meta", Metadata, {}), self.world)
        for node in "ab":
            self.make(node)
        self.connect("a", "b")
        self.mirrors.promote("a", 1, force=True)
        self.connect("b", "a")
        self.seen("Connected Primary UpToDate", "Connected Secondary UpToDate")

    def make(self, node: str, rate: int = 61440) -> None:
        """Makes an end with a disk, and without a network."""
        self.mirrors.create_metadata(node, "/meta")
        self.mirrors.allocate(node, 1, rate)
        self.mirrors.attach(node, 1, Backing("/data", "/meta", 1024))

    def connect(self, node: str, peer: str) -> None:
        """Sets an end's network."""
        self.mirrors.connect(node, 1, Link(f"{node}:1", f"{peer}:1", "secret"))

    def state(self, node: str) -> str:
        """Returns connection, role and data of an end."""
        status = self.mirrors.status(node, 1)
        return f"{status.connection} {status.role} {status.data}"

    def seen(self, a: str, b: str) -> None:
        """Checks the states of both ends, whichever is looked at first."""
        self.assertEqual((self.state("a"), self.state("b"), self.state("a")), (a, b, a))

    def part(self) -> None:
        """Cuts the link, which both ends notice."""
        self.world.cut = True
        self.seen("WFConnection Primary UpToDate", "WFConnection Secondary UpToDate")

    def test_primary_elsewhere_meanwhile(self) -> None:
        """After a primary lost its peer, the other end's data isn't newer than its own."""
        self.part()
        self.mirrors.promote("b", 1, force=False)
        self.mirrors.demote("b", 1, held=False)
        self.world.cut = False
        self.seen("StandAlone Primary UpToDate", "StandAlone Secondary UpToDate")
        self.assertEqual(len(self.world.copied), 1)

    def test_second_primary(self) -> None:
        """Two primaries don't connect, even if one has nothing that the other lacks."""
        for node in "ab":
            self.mirrors.disconnect(node, 1)
        self.mirrors.promote("b", 1, force=False)
        self.connect("a", "b")
        self.connect("b", "a")
        self.seen("StandAlone Primary UpToDate", "StandAlone Primary UpToDate")
        self.assertEqual(len(self.world.copied), 1)

    def test_behind(self) -> None:
        """An end that is behind isn't up to date until it is synced."""
        self.part()
        self.world.speed = SyncPace(quick_seconds=10.0, seconds=100.0)
        self.world.cut = False
        self.seen("SyncSource Primary UpToDate", "SyncTarget Secondary Inconsistent")
        self.world.time += 10
        self.seen("Connected Primary UpToDate", "Connected Secondary UpToDate")

    def test_paused_before(self) -> None:
        """A paused end isn't synced, even by a sync that takes no time."""
        self.part()
        self.mirrors.pause("b", 1, True)
        self.world.cut = False
        self.seen("PausedSyncS Primary UpToDate", "PausedSyncT Secondary Inconsistent")
        self.mirrors.pause("b", 1, False)
        self.seen("Connected Primary UpToDate", "Connected Secondary UpToDate")

    def test_slower_end(self) -> None:
        """A mirror syncs at the rate of the slower end."""
        self.world.speed = SyncPace(speed=1000.0)
        for node in "ab":
            self.mirrors.lose(node, 1)
        self.make("a", 20480)
        self.make("b", 10240)
        self.connect("a", "b")
        self.mirrors.promote("a", 1, force=True)
        self.connect("b", "a")
        self.assertEqual(self.mirrors.status("a", 1).left, 102.0)

    def test_volume_that_vanished(self) -> None:
        """An end whose volume was removed in any way has no disk."""
        for path in ("/data", "/meta"):
            self.world.gone = {("b", path)}
            self.seen("Connected Primary UpToDate", "Connected Secondary Diskless")
            self.world.gone = set()
            self.mirrors.attach("b", 1, Backing("/data", "/meta", 1024))
            self.seen("Connected Primary UpToDate", "Connected Secondary UpToDate")

    def test_points_at_one_that_points_elsewhere(self) -> None:
        """An end whose peer is connected with another end waits."""
        self.make("c")
        self.connect("c", "b")
        self.assertEqual(self.state("c"), "WFConnection Secondary Inconsistent")
        self.seen("Connected Primary UpToDate", "Connected Secondary UpToDate")
        self.assertIsNone(self.mirrors.peer("c", 1))
