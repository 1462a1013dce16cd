"""What the lock query shows."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.locking.levels import BGL, Level, all_exclusive, all_shared, exclusive, shared
from ganeti_masterd.locking.listing import LockRow, lock_rows
from ganeti_masterd.locking.table import LockTable

NODE1 = "386b2b1c-71fb-4ad4-ad61-319548fe11cf"
NODE2 = "cc5e57c2-6393-4193-99cd-134dc5b6230d"


class ListingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.table = LockTable()
        self.table.add(Level.NODE, [NODE1, NODE2])
        for job in (222, 223, 1000):
            self.table.request(job, Level.CLUSTER, shared(BGL))

    def rows(self) -> list[LockRow]:
        return lock_rows(self.table.states())

    def node_rows(self) -> list[LockRow]:
        return [row for row in self.rows() if row.name.startswith("node/")]

    def test_nothing(self) -> None:
        """Locks that nobody holds or waits for aren't listed."""
        self.assertEqual(lock_rows(LockTable().states()), [])

    def test_as_luxid(self) -> None:
        """A waiting job is listed in luxid's form and order, with luxid's rows for levels."""
        self.table.release_all(1000)
        self.table.request(222, Level.NODE, exclusive([NODE1, NODE2]))
        self.table.request(223, Level.NODE, exclusive(NODE2))
        self.assertEqual(
            self.rows(),
            [
                LockRow("cluster/BGL", "shared", ["222", "223"], []),
                LockRow("cluster/[lockset]", None, [], []),
                LockRow(f"node/{NODE1}", "exclusive", ["222"], []),
                LockRow("node/[lockset]", None, [], []),
                LockRow(f"node/{NODE2}", "exclusive", ["222"], [("exclusive", ["223"])]),
            ],
        )

    def test_whole_level(self) -> None:
        """A whole level that is held or waited for is listed as the level's own lock."""
        self.table.request(222, Level.NODE, all_exclusive)
        self.table.request(223, Level.NODE, all_shared)
        self.table.request(1000, Level.NODE, shared(NODE1))
        self.assertEqual(
            self.node_rows(),
            [
                LockRow(f"node/{NODE1}", None, [], [("shared", ["1000"])]),
                LockRow("node/[lockset]", "exclusive", ["222"], [("shared", ["223"])]),
            ],
        )

    def test_pending_in_order_of_grant(self) -> None:
        """Waiting jobs are listed in the order of the line, sharers together."""
        for job in range(1, 7):
            self.table.request(job, Level.CLUSTER, shared(BGL))
        self.table.request(222, Level.NODE, exclusive(NODE1))
        self.table.request(1, Level.NODE, exclusive(NODE1))
        self.table.request(2, Level.NODE, exclusive(NODE1))
        self.table.request(3, Level.NODE, shared(NODE1))
        self.table.request(4, Level.NODE, shared([NODE1, NODE2]))
        self.table.request(5, Level.NODE, exclusive(NODE1), -10)
        (row, _) = self.node_rows()[:2]
        self.assertEqual(
            row.pending,
            [
                ("exclusive", ["5"]),
                ("exclusive", ["1"]),
                ("exclusive", ["2"]),
                ("shared", ["3", "4"]),
            ],
        )
