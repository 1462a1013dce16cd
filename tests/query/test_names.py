"""Natural order, and shortened host names."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.query.names import in_order, means, natural
from tests.query.scene import rich_snapshot

NAMES = st.text(alphabet="ab0129.-", max_size=12)


def _plainly(name: str) -> list[object]:
    """The sort key, written plainly and without regard for speed."""
    parts: list[object] = [*re.split(r"([0-9]+)", name)]
    parts[1::2] = [(int(str(part)),) for part in parts[1::2]]
    return parts


class NameTests(SynchronousTestCase):
    """Names of objects."""

    def test_numbers(self) -> None:
        """Numbers in names are compared by value."""
        names = ["node10", "node2", "node", "node1.b", "node1.a", "a9b10", "a9b9", "node02"]
        self.assertEqual(
            natural(names),
            ["a9b9", "a9b10", "node", "node1.a", "node1.b", "node02", "node2", "node10"],
        )

    @given(st.lists(NAMES, unique=True, max_size=12))
    @settings(deadline=None, max_examples=150)
    def test_as_written_down_plainly(self, names: list[str]) -> None:
        """The order is that of the plain sort key."""
        found = natural(names)
        self.assertEqual(sorted(found), sorted(names))
        keys = [_plainly(name) for name in found]
        self.assertEqual(keys, sorted(keys))
        self.assertEqual(found, natural(reversed(names)))

    def test_section(self) -> None:
        """A section is sorted by name, also after a name or another value has changed."""
        snapshot = rich_snapshot()
        nodes = snapshot.nodes

        def order(snapshot: object) -> list[str]:
            return [node.name for node in in_order(snapshot.nodes)]  # type: ignore[attr-defined]

        before = order(snapshot)
        self.assertEqual(before[-2:], ["node10.example.com", "node11.example.com"])
        tagged = replace(nodes[snapshot.cluster.master_node], tags=("new",))
        changed = snapshot.with_object("nodes", tagged)
        self.assertEqual(order(changed), before)
        self.assertEqual(in_order(changed.nodes)[0].tags, ("new",))
        renamed = snapshot.with_object("nodes", replace(tagged, name="node7"))
        self.assertEqual(order(renamed), [*before[1:5], "node7", *before[5:]])
        self.assertEqual(order(snapshot), before)

    def test_nothing(self) -> None:
        """An empty section is sorted too."""
        snapshot = rich_snapshot()
        for uuid in list(snapshot.filters):
            snapshot = snapshot.without("filters", uuid)
        self.assertEqual(list(in_order(snapshot.filters)), [])

    def test_shortened(self) -> None:
        """A host name may be cut at a dot, and nowhere else."""
        name = "node1.example.com"
        for given_name in ("node1", "node1.example", name):
            self.assertTrue(means(given_name, name))
        for given_name in ("node", "node1.", "node1.ex", "", "node1.example.com.x"):
            self.assertFalse(means(given_name, name))
