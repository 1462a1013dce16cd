"""Updated indexes and pages: always the same as rebuilt ones, with little work."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config import pages
from ganeti_masterd.config.base import ConfigObject
from ganeti_masterd.config.changes import Add, Change, Remove, Update, draft
from ganeti_masterd.config.document import parse
from ganeti_masterd.config.indexes import Groups, Order
from ganeti_masterd.config.kinds import SECTIONS
from ganeti_masterd.config.objects import Disk, Instance, Network, Nic
from ganeti_masterd.config.pages import Pages
from ganeti_masterd.config.reservations import RESERVED
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.ssconf import same_ssconf, ssconf_values
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.journal.digests import digest_of
from ganeti_masterd.query.names import in_order

from .sample import (
    CLUSTER,
    EXAMPLES,
    GROUP,
    INSTANCE1,
    NODE1,
    NODE2,
    NODE3,
    big,
    sample,
    uuid,
)

NODES = [NODE1, NODE2, NODE3]
NUMBERS = st.integers(0, 7)


def instance(number: int, name: int, node: str) -> Instance:
    """Returns an instance with a NIC and a disk; names differ in more ways than uuids."""
    names = ("web2", "web10", "web02.example", "Web2.example.com", "a", "web2.example", "b.c", "b")
    nic = Nic(uuid=uuid(900 + number), mac=f"AA:00:00:00:00:0{name}", ip=f"192.0.2.{name}")
    return Instance(
        name=names[name],
        uuid=uuid(100 + number),
        primary_node=node,
        disks=(uuid(200 + number), uuid(200 + name)),
        nics=(nic,),
        network_port=11000 + name,
    )


def disk(number: int, one: str, other: str) -> Disk:
    """Returns a mirrored disk."""
    ends = (one, other, 11000 + number, number, number + 1, "s")
    volume = Disk(dev_type="plain", size=1, uuid=uuid(300 + number), logical_id=("vg", f"{number}"))
    return Disk(
        dev_type="drbd", size=1, uuid=uuid(200 + number), logical_id=ends, children=(volume,)
    )


def tags(tag: str) -> Callable[[Any], Any]:
    """Returns a function that gives an object a tag."""
    return lambda obj: obj.with_tags([tag])


CHANGES = st.one_of(
    st.builds(lambda *a: Add("instances", instance(*a)), NUMBERS, NUMBERS, st.sampled_from(NODES)),
    st.builds(lambda n, *a: Add("disks", disk(n, *a)), NUMBERS, *[st.sampled_from(NODES)] * 2),
    st.builds(
        lambda n: Add("networks", Network(name=f"n{n}", network="192.0.2.0/24", uuid=uuid(n))),
        NUMBERS,
    ),
    st.builds(lambda n: Remove("instances", uuid(100 + n)), NUMBERS),
    st.builds(lambda n: Remove("disks", uuid(200 + n)), NUMBERS),
    st.builds(
        lambda n, *a: Update(uuid(100 + n), lambda old: replace(instance(n, *a), tags=old.tags)),
        NUMBERS,
        NUMBERS,
        st.sampled_from(NODES),
    ),
    st.builds(
        lambda node, *flags: Update(
            node, lambda old: replace(old, master_candidate=flags[0], offline=flags[1])
        ),
        st.sampled_from(NODES),
        st.booleans(),
        st.booleans(),
    ),
    st.builds(
        lambda who, port: Update(who, lambda old: replace(old, ndparams={"ssh_port": port})),
        st.sampled_from([CLUSTER, GROUP, NODE2]),
        NUMBERS,
    ),
    st.builds(
        lambda who, tag: Update(who, tags(f"t{tag}")),
        st.sampled_from([*NODES, INSTANCE1]),
        NUMBERS,
    ),
)


def use(snapshot: Snapshot) -> list[Any]:
    """Asks a snapshot for everything that it caches, and returns it."""
    return [
        ssconf_values(snapshot),
        snapshot.candidates(),
        [snapshot.members(group) for group in snapshot.groups],
        [snapshot.instances_on(node) for node in NODES],
        [snapshot.secondaries_on(node) for node in NODES],
        [snapshot.disks_on(node) for node in NODES],
        [snapshot.owner_of(disk) for disk in snapshot.disks.values()],
        [snapshot.lookup("instance", name) for name in ("web2", "WEB2", "web2.Example", "b", "x")],
        list(in_order(snapshot.nodes)),
        list(in_order(snapshot.instances)),
        [sorted(map(str, used(snapshot))) for _, used in RESERVED.values()],
        snapshot.networks.named("n3"),
    ]


class UpkeepTests(SynchronousTestCase):
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(st.lists(st.tuples(st.lists(CHANGES, min_size=1, max_size=3), st.booleans())))
    def test_as_if_made_anew(self, steps: list[tuple[list[Change], bool]]) -> None:
        """Values, indexes, orders, bytes and digests equal those of the file read again."""
        snapshot, kept = sample(), Pages()
        use(snapshot)
        for number, (changes, looked_at) in enumerate(steps):
            before = snapshot
            try:
                snapshot, _ = draft(before, changes, 1800000000.0 + number)
            except ConfigurationError:
                continue
            if not looked_at:
                continue
            content = kept.content(snapshot)
            fresh = parse(content)
            self.assertEqual(fresh, snapshot)
            self.assertEqual(use(fresh), use(snapshot))
            for key in SECTIONS:
                for index in snapshot.section(key)._indexes.values():
                    made = type(index).of  # type: ignore[attr-defined]
                    given = index.keys if isinstance(index, Groups) else index.key  # type: ignore[attr-defined]
                    again = made(given, fresh.section(key).values())
                    for name in ("uuids", "names"):
                        self.assertEqual(getattr(index, name, None), getattr(again, name, None))
            self.assertEqual(content, Pages().content(fresh))
            self.assertEqual(kept.size(snapshot), len(content))
            self.assertEqual(digest_of(content), digest_of(Pages().content(snapshot)))
            travelled = base64.b64decode(kept.compressed(snapshot), validate=True)
            self.assertEqual(zlib.decompress(travelled), content)
            if same_ssconf(before, snapshot):
                self.assertEqual(ssconf_values(before), ssconf_values(snapshot))

    def test_one_comes_as_another_goes(self) -> None:
        """Adding one object and removing another is noticed although the count is the same."""
        kept, before = Pages(), sample()
        kept.content(before)
        changes = [Add("instances", instance(7, 1, NODE2)), Remove("instances", INSTANCE1)]
        after, _ = draft(before, changes, 1.0)
        self.assertEqual(len(after.instances), len(before.instances))
        self.assertEqual(kept.content(after), Pages().content(after))

    def test_moved_and_renamed(self) -> None:
        """Moving an instance doesn't affect others, and it is found by its new name."""
        before, _ = draft(sample(), [Add("instances", instance(1, 1, NODE1))], 1.0)
        before, _ = draft(before, [Add("instances", instance(2, 4, NODE1))], 2.0)
        use(before)
        moved = Update(uuid(101), lambda old: replace(old, name="zebra", primary_node=NODE2))
        after, _ = draft(before, [moved], 3.0)
        self.assertEqual(use(after), use(parse(Pages().content(after))))
        self.assertIn(after.instances[uuid(101)], after.instances_on(NODE2))
        back, _ = draft(after, [Update(uuid(101), lambda _: instance(1, 1, NODE1))], 4.0)
        self.assertEqual(use(back), use(parse(Pages().content(back))))

    def test_older_snapshots_stay(self) -> None:
        """An older snapshot's indexes aren't affected by changes made to it."""
        before = sample()
        seen = use(before)
        order = before.instances.ordered(str.lower)
        names, uuids = list(order.names), list(order.uuids)
        after, _ = draft(before, [Add("instances", instance(1, 1, NODE2))], 1.0)
        after, _ = draft(after, [Remove("instances", INSTANCE1)], 2.0)
        self.assertNotEqual(use(after), seen)
        self.assertEqual(use(before), seen)
        self.assertEqual((order.names, order.uuids), (names, uuids))


class WorkTests(SynchronousTestCase):
    """One of 2,000 instances changes; the work for that is counted."""

    def setUp(self) -> None:
        self.before = parse(big(2000))
        self.pages = Pages()
        self.pages.compressed(self.before)
        use(self.before)
        for cls in (Order, Groups):
            self.patch(cls, "of", lambda *args: self.fail("an index is made anew"))
        self.encoded: list[ConfigObject] = []
        plain = ConfigObject.plain

        def counted(obj: ConfigObject) -> dict[str, Any]:
            if not isinstance(obj, Nic):  # a part of its instance
                self.encoded.append(obj)
            return plain(obj)

        self.patch(ConfigObject, "plain", counted)
        self.joined: list[int] = []
        joined = pages._joined

        def counted_objects(keys: Any, objects: Any) -> bytes:
            self.joined.append(len(objects))
            return joined(keys, objects)

        self.patch(pages, "_joined", counted_objects)

    def test_tags(self) -> None:
        """A tag encodes one object anew, joins one page, sorts nothing and makes no index."""
        after, _ = draft(self.before, [Update(uuid(1000), tags("t"))], 1.0)
        self.pages.compressed(after)
        self.assertEqual(self.encoded, [after.instances[uuid(1000)], after.header])
        self.assertEqual(len(self.joined), 1)
        self.assertLess(self.joined[0], 1500)  # 64 on average
        self.assertTrue(same_ssconf(self.before, after))
        use(after)

    def test_the_same_again(self) -> None:
        """An image of the same snapshot joins nothing."""
        self.pages.content(self.before)
        self.pages.compressed(self.before)
        self.assertEqual((self.encoded, self.joined), ([], []))

    def test_add_and_remove(self) -> None:
        """Adding or removing an instance affects only its own page, and rebuilds no index."""
        added = replace(instance(5, 1, NODE2), uuid=uuid(5000))
        after, _ = draft(self.before, [Add("instances", added)], 1.0)
        self.pages.compressed(after)
        self.assertLessEqual(len(self.joined), 2)
        self.assertEqual(len(self.encoded), 3)  # itself, the cluster's serial, the document's
        use(after)
        after, _ = draft(after, [Remove("instances", uuid(1000))], 1.0)
        self.pages.compressed(after)
        self.assertLessEqual(len(self.joined), 4)
        self.assertEqual(len(self.encoded), 5)
        use(after)

    def test_rename(self) -> None:
        """A new name is inserted at its place in each order."""
        rename = Update(uuid(1000), lambda obj: replace(obj, name="other"))
        after, _ = draft(self.before, [rename], 1.0)
        self.assertFalse(same_ssconf(self.before, after))
        self.assertIn("other", ssconf_values(after)["instance_list"])
        self.assertNotIn("instance1000.example.com", ssconf_values(after)["instance_list"])
        self.assertIs(after.lookup("instance", "OTHER"), after.instances[uuid(1000)])
