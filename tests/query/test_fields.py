"""Exactly luxid's fields are declared."""

from __future__ import annotations

import json
from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.kinds import KINDS
from ganeti_masterd.errors import OpPrereqError, ProgrammerError
from ganeti_masterd.opcodes.types import TagKind
from ganeti_masterd.query.fields import Field, View, fields, text
from ganeti_masterd.query.resources import RESOURCES, TAGGED, Source, describe, select
from ganeti_masterd.query.sources import named, section_of
from tests.query.scene import DATA, Scene, rich_snapshot


class FieldTests(SynchronousTestCase):
    """The tables of fields."""

    def setUp(self) -> None:
        self.facts = json.loads((DATA / "query_fields.json").read_bytes())

    def test_as_in_the_facts(self) -> None:
        """Names, titles and kinds of all 441 fields are Ganeti's."""
        self.assertEqual(set(RESOURCES), set(self.facts))
        ours = {
            name: {field.name: (field.title, field.kind) for field in resource.fields.values()}
            for name, resource in RESOURCES.items()
        }
        theirs = {
            name: {field: (fact["title"], fact["kind"]) for field, fact in facts.items()}
            for name, facts in self.facts.items()
        }
        self.assertEqual(ours, theirs)
        self.assertEqual(sum(map(len, ours.values())), 441)

    def test_each_is_explained(self) -> None:
        """Every field has a description and a function that computes it."""
        for resource in RESOURCES.values():
            for name, field in resource.fields.items():
                with self.subTest([resource.name, name]):
                    self.assertRegex(field.doc, r"^[A-Z].*[.?]$")
                    self.assertNotEqual(field.of is None, field.given is None)

    def test_descriptions(self) -> None:
        """QueryFields describes the named fields in order, or all fields if none are named."""
        everything = describe("node", None)
        self.assertEqual([field["name"] for field in everything], sorted(self.facts["node"]))
        self.assertEqual(everything, describe("node", []))
        asked = describe("node", ["role", "nosuch", "role"])
        self.assertEqual([field["name"] for field in asked], ["role", "nosuch", "role"])
        self.assertEqual([asked[1]["title"], asked[1]["kind"]], ["nosuch", "unknown"])
        self.assertEqual(set(asked[0]), {"name", "title", "kind", "doc"})
        self.assertEqual(Scene().engine.query_fields("node"), {"fields": everything})

    def test_unknown_resource(self) -> None:
        """A resource that doesn't exist is refused by name."""
        error = self.assertRaises(OpPrereqError, select, "nosuch", ["name"])
        self.assertIn("'nosuch'", error.args[0])
        self.assertEqual(error.args[1], "wrong_input")

    def test_sources(self) -> None:
        """Exactly the sections of the configuration have objects that errors can name."""
        self.assertEqual({resource.source for resource in RESOURCES.values()}, set(Source))
        self.assertEqual(set(TAGGED), set(get_args(TagKind)))
        snapshot = rich_snapshot()
        for resource in RESOURCES.values():
            if resource.source is not Source.SECTION:
                self.assertNotIn(resource.kind, KINDS)
                continue
            self.assertEqual(resource.key, "name")
            self.assertIsNotNone(resource.level)
            self.assertIs(section_of(snapshot, resource), getattr(snapshot, f"{resource.name}s"))
            error = self.assertRaises(OpPrereqError, named, snapshot, resource, "nosuch")
            self.assertEqual(error.args[0], f"{resource.objects.title} name nosuch not found")

    def test_configured(self) -> None:
        """Rows that depend on more than the configuration are never cached."""
        configured = {name for name, resource in RESOURCES.items() if resource.configured}
        self.assertEqual(configured, {"node", "instance", "group", "network", "filter"})

    def test_declared_twice(self) -> None:
        """A name can't be declared twice in a table, nor a field without a function."""
        field = text("name", "Name", of=str, doc="A name.")
        self.assertRaises(ProgrammerError, fields, field, field)
        empty = Field("name", "Name", "text", "A name.")
        self.assertRaises(ProgrammerError, empty.bound, View(rich_snapshot()))

    def test_very_many_fields(self) -> None:
        """A long list of fields is answered, but not cached."""
        selection = select("node", ["name"] * 1000)
        self.assertEqual(len(selection.names), 1000)
        self.assertIsNot(selection, select("node", ["name"] * 1000))
