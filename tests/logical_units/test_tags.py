"""Tags: refusals, locks, and what changes."""

from __future__ import annotations

from ganeti_masterd.errors import OpPrereqError, TagError
from ganeti_masterd.locking.levels import BGL, Level, exclusive, shared
from tests.logical_units.scene import UnitScene


class TagTests(UnitScene):
    """OP_TAGS_GET, SET, DEL, SEARCH."""

    def tags(self, kind: str, name: str | None = None) -> list[str]:
        return self.run_unit("OP_TAGS_GET", kind=kind, name=name)

    def test_each_kind(self) -> None:
        """Tags can be added to and removed from every kind of object."""
        for kind, name in [
            ("cluster", None),
            ("node", "node2"),
            ("nodegroup", "default"),
            ("instance", "web.example.com"),
        ]:
            self.run_unit("OP_TAGS_SET", kind=kind, name=name, tags=["b", "a"])
            self.assertEqual(self.tags(kind, name), ["a", "b"])
            self.run_unit("OP_TAGS_DEL", kind=kind, name=name, tags=["b"])
            self.assertEqual(self.tags(kind, name), ["a"])

    def test_shortened_name(self) -> None:
        """An instance is found by its name up to a dot."""
        self.run_unit("OP_TAGS_SET", kind="instance", name="web", tags=["x"])
        self.assertEqual(self.tags("instance", "web.example.com"), ["x"])

    def test_serial(self) -> None:
        """Setting tags increases the object's serial."""
        before = self.ctx.snapshot().node("node2").serial_no
        self.run_unit("OP_TAGS_SET", kind="node", name="node2", tags=["x"])
        self.assertEqual(self.ctx.snapshot().node("node2").serial_no, before + 1)

    def test_unknown_objects(self) -> None:
        """An object that isn't there is refused by name."""
        for kind in ("node", "nodegroup", "instance", "network"):
            error = self.assertRaises(
                OpPrereqError, self.unit, "OP_TAGS_SET", kind=kind, name="nosuch", tags=["x"]
            )
            self.assertIn("nosuch", error.args[0])
            self.assertEqual(error.args[1], "unknown_entity")

    def test_bad_tags(self) -> None:
        """Invalid tags are refused and nothing changes."""
        for tag in ("", "bad tag!", "x" * 129):
            self.assertRaises(
                TagError, self.run_unit, "OP_TAGS_SET", kind="cluster", tags=["good", tag]
            )
        self.assertEqual(self.tags("cluster"), [])

    def test_remove_what_is_not_there(self) -> None:
        """All tags or none are removed; the missing ones are named."""
        self.run_unit("OP_TAGS_SET", kind="cluster", tags=["a"])
        error = self.assertRaises(
            OpPrereqError, self.run_unit, "OP_TAGS_DEL", kind="cluster", tags=["a", "z", "y"]
        )
        self.assertEqual(error.args, ("Tag(s) 'y', 'z' not found", "unknown_entity"))
        self.assertEqual(self.tags("cluster"), ["a"])

    def test_search(self) -> None:
        """A search finds tags anywhere, with the paths of their objects."""
        for kind, name in [("cluster", None), ("node", "node3"), ("instance", "web")]:
            self.run_unit("OP_TAGS_SET", kind=kind, name=name, tags=["env:prod", "other"])
        self.run_unit("OP_TAGS_SET", kind="nodegroup", name="default", tags=["env:test"])
        self.assertEqual(
            self.run_unit("OP_TAGS_SEARCH", pattern="^env:"),
            [
                ("/cluster", "env:prod"),
                ("/instances/web.example.com", "env:prod"),
                ("/nodes/node3", "env:prod"),
                ("/nodegroup/default", "env:test"),
            ],
        )

    def test_bad_pattern(self) -> None:
        """A pattern that is no regular expression is refused, with what is wrong."""
        error = self.assertRaises(OpPrereqError, self.unit, "OP_TAGS_SEARCH", pattern="(")
        self.assertIn("'('", error.args[0])

    def test_locks(self) -> None:
        """Only the one object is locked, and for reading only if asked to."""
        node = self.ctx.snapshot().node("node2").uuid
        cluster = {Level.CLUSTER: shared(BGL)}
        change = self.unit("OP_TAGS_SET", kind="node", name="node2", tags=["x"])
        self.assertEqual(self.wanted(change), {**cluster, Level.NODE: exclusive(node)})
        instance = self.unit("OP_TAGS_DEL", kind="instance", name="web", tags=["x"])
        self.assertEqual(
            self.wanted(instance), {**cluster, Level.INSTANCE: exclusive("web.example.com")}
        )
        whole = self.unit("OP_TAGS_SET", kind="cluster", tags=["x"])
        self.assertEqual(self.wanted(whole), cluster)
        read = self.unit("OP_TAGS_GET", kind="node", name="node2")
        self.assertEqual(self.wanted(read), cluster)
        read = self.unit("OP_TAGS_GET", kind="node", name="node2", use_locking=True)
        self.assertEqual(self.wanted(read), {**cluster, Level.NODE: shared(node)})
