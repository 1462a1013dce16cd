"""The desk where jobs ask for places: turns, batches, and jobs that give up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.allocation.desk import PendingPlace, PlacementDesk, PlaceWanted
from ganeti_masterd.allocation.requests import Allocate
from ganeti_masterd.config.newcluster import new_cluster
from tests.logical_units.cluster import with_instance

#: Seconds after which a thread that should have gone on is given up.
PATIENCE = 30.0


class Killed(Exception):
    """A job was killed."""


def wanted(job_id: int, template: str = "drbd") -> PlaceWanted:
    """Returns the wish of a job for an instance."""
    return PlaceWanted(
        job_id,
        Allocate(
            name=f"new{job_id}",
            memory=128,
            vcpus=1,
            disk_template=template,
            disks=[{"size": 128}],
            os="noop",
            hypervisor="fake",
        ),
    )


class DeskTests(SynchronousTestCase):
    """Jobs in threads of their own; one of them finds places at a time."""

    def setUp(self) -> None:
        self.snapshot = new_cluster("cluster", 4, 1000.0)
        self.nodes = [self.snapshot.node(f"node{number}").uuid for number in range(1, 5)]
        self.pending: dict[int, PendingPlace] = {}
        self.desk = PlacementDesk(self.pending)
        self.batches: list[list[int]] = []
        self.found: dict[int, Any] = {}

    def find(self, batch: Sequence[PlaceWanted]) -> None:
        """Places all on the first two nodes."""
        self.batches.append([each.job_id for each in batch])
        for each in batch:
            self.desk.settle(each, self.nodes[:2], self.snapshot)

    def start(
        self,
        want: PlaceWanted,
        find: Callable[[Sequence[PlaceWanted]], None] | None = None,
        checkpoint: Callable[[], object] = lambda: None,
    ) -> Thread:
        """Lets a job ask in a thread; what comes of it is in ``found``."""

        def ask() -> None:
            try:
                self.found[want.job_id] = self.desk.place(want, find or self.find, checkpoint)
            except Exception as error:
                self.found[want.job_id] = error

        thread = Thread(target=ask, daemon=True)
        thread.start()
        return thread

    def serve_slowly(self, fails: bool = False) -> tuple[Event, Thread]:
        """Lets job 1 find places until the event is set; returns when it has begun."""
        begun, go_on = Event(), Event()

        def find(batch: Sequence[PlaceWanted]) -> None:
            begun.set()
            self.assertTrue(go_on.wait(PATIENCE))
            if fails:
                raise Killed
            self.find(batch)

        thread = self.start(wanted(1), find)
        self.assertTrue(begun.wait(PATIENCE))
        return go_on, thread

    def test_one(self) -> None:
        """A job alone finds its place itself; the place is pending."""
        place = self.desk.place(wanted(1), self.find, lambda: None)
        assert place is not None
        self.assertEqual(place.nodes, tuple(self.nodes[:2]))
        self.assertEqual(self.pending, {1: place})
        self.assertEqual(self.desk.others(), [place])

    def test_batch(self) -> None:
        """Jobs that ask meanwhile are answered together; those with other disks are not."""
        go_on, first = self.serve_slowly()
        waits = [Event(), Event(), Event()]
        threads = [
            self.start(wanted(2), checkpoint=waits[0].set),
            self.start(wanted(3), checkpoint=waits[1].set),
            self.start(wanted(4, "plain"), checkpoint=waits[2].set),
        ]
        for each in waits:
            self.assertTrue(each.wait(PATIENCE))
        go_on.set()
        for thread in [first, *threads]:
            thread.join(PATIENCE)
        self.assertEqual(self.batches[0], [1])
        self.assertEqual(sorted(sorted(batch) for batch in self.batches[1:]), [[2, 3], [4]])
        self.assertEqual(set(self.pending), {1, 2, 3, 4})

    def test_failure(self) -> None:
        """If the job that finds places fails, the others find theirs themselves."""
        go_on, first = self.serve_slowly(fails=True)
        waits = Event()
        second = self.start(wanted(2), checkpoint=waits.set)
        self.assertTrue(waits.wait(PATIENCE))
        go_on.set()
        first.join(PATIENCE)
        second.join(PATIENCE)
        self.assertIsInstance(self.found[1], Killed)
        self.assertEqual((self.batches, set(self.pending)), ([[2]], {2}))

    def test_failure_of_another_ones_batch(self) -> None:
        """A job whose request was taken and not answered asks again when it has its turn."""
        one, other = wanted(1), wanted(2)

        def find(batch: Sequence[PlaceWanted]) -> None:
            self.assertEqual(list(batch), [other, one])
            raise Killed

        self.desk._waiting.append(other)
        self.assertRaises(Killed, self.desk.place, one, find, lambda: None)
        self.assertEqual(self.desk._waiting, [other])

    def test_killed_while_waiting(self) -> None:
        """A job that is killed as it waits is withdrawn, and no place is noted for it."""
        go_on, first = self.serve_slowly()

        def kill() -> None:
            raise Killed

        killed = wanted(2)
        self.start(killed, checkpoint=kill).join(PATIENCE)
        self.assertIsInstance(self.found[2], Killed)
        go_on.set()
        first.join(PATIENCE)
        self.assertEqual((self.batches, set(self.pending)), ([[1]], {1}))
        self.desk.settle(killed, self.nodes[:2], self.snapshot)
        self.assertEqual(set(self.pending), {1})

    def test_no_place(self) -> None:
        """A job without a place is answered, and nothing is pending for it."""
        found = self.desk.place(
            wanted(1), lambda batch: self.desk.settle(batch[0], [], self.snapshot), lambda: None
        )
        self.assertEqual((found, self.pending), (None, {}))


class PendingPlaceTests(SynchronousTestCase):
    """Whether a place still holds when its locks are there."""

    def setUp(self) -> None:
        cluster = new_cluster("cluster", 4, 1000.0)
        self.snapshot = with_instance(cluster, "web", ("node2", "node3"), template="drbd")
        self.desk = PlacementDesk({})

    def place(self, job_id: int, *nodes: str) -> PendingPlace:
        """Returns the pending place of a job on these nodes."""
        want = wanted(job_id)
        uuids = [self.snapshot.node(name).uuid for name in nodes]
        self.desk.settle(want, uuids, self.snapshot)
        assert want.found is not None
        return want.found

    def test_nothing_new(self) -> None:
        """What was there then, and what goes on elsewhere, doesn't matter."""
        place = self.place(1, "node1", "node2")
        self.assertTrue(place.holds(self.snapshot))
        elsewhere = with_instance(self.snapshot, "new", ("node3", "node4"), template="drbd")
        self.assertTrue(place.holds(elsewhere))

    def test_new_instance(self) -> None:
        """An instance that came to one of the nodes, as primary or secondary, undoes the place."""
        place = self.place(1, "node1", "node2")
        for nodes in (("node1", "node3"), ("node4", "node2")):
            came = with_instance(self.snapshot, "new", nodes, template="drbd")
            self.assertFalse(place.holds(came))

    def test_changed_instance(self) -> None:
        """An instance on the nodes that was changed undoes the place."""
        place = self.place(1, "node1", "node2")
        (web,) = self.snapshot.instances_on(self.snapshot.node("node2"))
        changed = self.snapshot.with_object("instances", replace(web, serial_no=web.serial_no + 1))
        self.assertFalse(place.holds(changed))

    def test_placed_beside(self) -> None:
        """Instances whose places were chosen before or after it, in its sight, are expected."""
        places = {job: self.place(job, "node1", "node4") for job in (1, 2, 3)}
        for job, place in places.items():
            now = self.snapshot
            for other in set(places) - {job}:
                now = with_instance(now, f"new{other}", ("node1", "node4"), template="drbd")
            self.assertTrue(place.holds(now))

    def test_unusable_node(self) -> None:
        """A node that can take no instances any more undoes the place."""
        place = self.place(1, "node1", "node4")
        node = self.snapshot.node("node4")
        for change in ({"offline": True}, {"drained": True}, {"vm_capable": False}):
            changed = self.snapshot.with_object("nodes", replace(node, **change))
            self.assertFalse(place.holds(changed))
