"""The table of kinds of objects, against what is said of them elsewhere."""

from __future__ import annotations

import typing

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.kinds import KINDS, SECTIONS
from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import TAG_CLUSTER
from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.cluster.tags import SEARCHED
from ganeti_masterd.logical_units.steps.locked_objects import LEVELS
from ganeti_masterd.query.resources import CONFIGURED, TAGGED
from tests.query.scene import rich_snapshot


class KindTests(SynchronousTestCase):
    def test_sections(self) -> None:
        """A snapshot has each section under its attribute, with objects of its class, no other."""
        hints = typing.get_type_hints(Snapshot)
        expected = {kind.attribute: Section[kind.objects] for kind in SECTIONS.values()}
        self.assertEqual(hints, expected)
        snapshot = rich_snapshot()
        for key, kind in SECTIONS.items():
            self.assertIs(snapshot.section(key), getattr(snapshot, kind.attribute))
            for obj in snapshot.section(key).values():
                self.assertIs(type(obj), kind.objects)

    def test_names(self) -> None:
        """Exactly the classes that have names are looked up by them, and missed in words."""
        for kind in SECTIONS.values():
            named = "name" in kind.objects.__struct_fields__
            self.assertEqual(bool(kind.kind), named, kind.section)
        for name, kind in KINDS.items():
            error = self.assertRaises(OpPrereqError, rich_snapshot().find, name, "nosuch")
            self.assertEqual(error.args, (kind.missing.format("nosuch"), "unknown_entity"))

    def test_tagged(self) -> None:
        """What can carry tags can be searched for them."""
        tagged = {
            kind.kind for kind in SECTIONS.values() if "tags" in kind.objects.__struct_fields__
        }
        self.assertEqual(set(TAGGED), {TAG_CLUSTER, *tagged})
        self.assertEqual({kind for _, kind in SEARCHED}, tagged)

    def test_levels(self) -> None:
        """Each level of locks is some kind's, but for the cluster's and the second one of nodes."""
        levels = [resource.level for resource in CONFIGURED]
        self.assertEqual(sorted([*levels, Level.CLUSTER, Level.NODE_RES]), list(Level))
        self.assertEqual(LEVELS["networks"], Level.NETWORK)
        self.assertEqual(LEVELS["nodegroups"], Level.NODEGROUP)

    def test_locks(self) -> None:
        """Instances are locked by name, all else by uuid."""
        snapshot = rich_snapshot()
        for kind in KINDS.values():
            for obj in snapshot.section(kind.section).values():
                expected = obj.name if kind.kind == "instance" else obj.uuid
                self.assertEqual(kind.lock_of(obj), expected)
