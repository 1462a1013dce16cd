"""Tags: which are valid, and the real daemon's errors for others."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.tags import check_tag, joined_tags, remaining_tags
from ganeti_masterd.errors import TagError


class Tags(SynchronousTestCase):
    def test_valid(self) -> None:
        """Letters, digits and a few signs, up to 128."""
        for tag in ("a", "htools:iextags:x", "A.b+c*d/e:f@g-h_0", "x" * 128, "caf\u00e9"):
            self.assertEqual(check_tag(tag), tag)

    def test_invalid(self) -> None:
        """Invalid tags are refused."""
        for tag, text in (
            ("bad tag!", "Tag contains invalid characters"),
            ("a\n", "Tag contains invalid characters"),
            ("a,b", "Tag contains invalid characters"),
            ("x" * 129, "Tag too long (>128 characters)"),
            ("", "Tags cannot be empty"),
            (7, "Invalid tag type (not a string)"),
        ):
            self.assertEqual(self.assertRaises(TagError, check_tag, tag).args, (text,))

    def test_sets(self) -> None:
        """Tags are sets, written sorted."""
        self.assertEqual(joined_tags(["b"], ["a", "b", "a"]), ("a", "b"))
        self.assertEqual(remaining_tags(["b", "a", "c"], ["a"]), ("b", "c"))

    def test_too_many(self) -> None:
        """An object has at most 4,096 tags."""
        present = [f"t{number}" for number in range(4095)]
        self.assertEqual(len(joined_tags(present, ["t1", "more"])), 4096)
        fault = self.assertRaises(TagError, joined_tags, present, ["one", "two"])
        self.assertEqual(fault.args, ("Too many tags",))

    def test_not_there(self) -> None:
        """Only present tags can be removed; the error names those that aren't."""
        fault = self.assertRaises(TagError, remaining_tags, ["a"], ["a", "z", "b"])
        self.assertEqual(fault.args, ("Tag(s) 'b', 'z' not found",))
