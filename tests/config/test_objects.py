"""Objects: nothing in the file is lost."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import ValidationError
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.base import defaults_of, load
from ganeti_masterd.config.objects import Cluster, Disk, FilterRule, Instance, Network, Nic, Node
from ganeti_masterd.errors import TagError

from .sample import EXAMPLES, document

NODE = {"name": "n", "primary_ip": "192.0.2.1", "secondary_ip": "192.0.2.1", "group": "g"}
NODE |= {"uuid": "u"}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
names = st.text(max_size=8)


class RoundTrip(SynchronousTestCase):
    def same(self, cls: Any, plain: dict[str, Any]) -> Any:
        loaded = load(cls, plain)
        self.assertEqual(list(json.loads(loaded.encoded)), list(plain))
        self.assertEqual(json.loads(loaded.encoded), plain)
        return loaded

    def test_real_objects(self) -> None:
        """Every object of a real file is encoded with the same keys in the same order."""
        plain = document()
        for key, cls in (("nodes", Node), ("instances", Instance), ("disks", Disk)):
            for obj in plain[key].values():
                loaded = self.same(cls, obj)
                self.assertEqual((loaded.shape, dict(loaded.rest)), ((), {}))
        self.same(Cluster, plain["cluster"])

    def test_unknown_keys(self) -> None:
        """An unknown key is kept, also when another key changes."""
        loaded = self.same(Node, {"later": [1, {"a": None}], **NODE, "tags": []})
        changed = json.loads(replace(loaded, offline=True).encoded)
        self.assertEqual(changed["later"], [1, {"a": None}])
        self.assertIs(changed["offline"], True)
        self.assertEqual(next(iter(changed)), "later")

    def test_unknown_keys_within(self) -> None:
        """Unknown keys are kept in NICs and in the disks of a disk too."""
        nic = {"mac": "aa:00:00:00:00:01", "colour": "red", "uuid": "n", "ip": None}
        loaded = self.same(Instance, {"name": "i", "uuid": "u", "nics": [nic, dict(nic)]})
        changed = json.loads(replace(loaded, os="noop").encoded)
        self.assertEqual(changed["nics"], [nic, nic])
        child = {"dev_type": "plain", "size": 1, "uuid": "c", "new": 1}
        self.same(Disk, {"dev_type": "drbd", "size": 1, "uuid": "d", "children": [child]})

    def test_null_differs_from_absent(self) -> None:
        """An optional key that the file spells out as null stays there, an absent one absent."""
        self.same(Nic, {"mac": "m", "ip": None, "uuid": "u"})
        loaded = self.same(Nic, {"mac": "m", "uuid": "u"})
        self.assertIsNone(loaded.ip)
        given = replace(load(Nic, {"mac": "m", "ip": None, "uuid": "u"}), ip="192.0.2.7")
        self.assertEqual(json.loads(given.encoded)["ip"], "192.0.2.7")

    def test_optional_key_withdrawn(self) -> None:
        """An optional key that a change sets to None is left out of the file."""
        loaded = load(Nic, {"mac": "m", "ip": "192.0.2.7", "uuid": "u"})
        self.assertNotIn("ip", json.loads(replace(loaded, ip=None).encoded))

    def test_absent_keys_stay_absent(self) -> None:
        """A file that lacks keys with a default is saved without them, until they are set."""
        loaded = self.same(Node, NODE)
        self.assertTrue(loaded.powered)
        self.assertIs(json.loads(replace(loaded, powered=False).encoded)["powered"], False)

    def test_own_objects_have_all_keys(self) -> None:
        """An object that the daemon makes is written with every key that isn't optional."""
        made = json.loads(load(Node, NODE).encoded)
        own = json.loads(Node(**NODE).encoded)
        self.assertEqual(made, NODE)
        optional = {"hv_state_static", "disk_state_static"}
        self.assertEqual(set(own), set(defaults_of(Node)) - optional)

    def test_equal_after_reading_back(self) -> None:
        """An object that was written and read again equals the one that was made."""
        nic = Nic(mac="m", uuid="n", network="net")
        made = Instance(name="i", uuid="u", nics=(nic,), forthcoming=True)
        self.assertEqual(load(Instance, json.loads(made.encoded)), made)

    def test_numbers(self) -> None:
        """Times stay integers or floats, and big integers are exact."""
        loaded = self.same(Node, {**NODE, "ctime": 0, "mtime": 1795487388.3981037})
        self.assertIsInstance(loaded.ctime, int)
        self.same(Disk, {"dev_type": "plain", "size": 2**70, "uuid": "u"})

    def test_bytes_of_the_file_until_changed(self) -> None:
        """An unchanged object is written with the bytes that were read, whatever their format."""
        raw = b'{ "mac" : "m", "uuid":"u" }'
        loaded = load(Nic, json.loads(raw), raw)
        self.assertEqual(loaded.encoded, raw)
        self.assertEqual(replace(loaded, mac="n").encoded, b'{"mac":"n","uuid":"u"}')

    def test_keys_named_like_our_own(self) -> None:
        """A key with the name of one of the struct's internal fields is just an unknown key."""
        self.same(Nic, {"mac": "m", "uuid": "u", "rest": 1, "shape": [2], "nested": None})

    def test_wrong_type(self) -> None:
        """A fault names the key and what was expected."""
        fault = self.assertRaises(ValidationError, load, Node, {**NODE, "offline": "no"})
        self.assertIn("$.offline", str(fault))
        fault = self.assertRaises(ValidationError, load, Node, {"name": "n"})
        self.assertIn("`primary_ip`", str(fault))

    @given(
        st.permutations([*NODE.items(), ("offline", True), ("ctime", 0), ("tags", ["a"])]),
        st.dictionaries(names, json_values, max_size=4),
        st.data(),
    )
    @settings(deadline=None, max_examples=EXAMPLES)
    def test_any_order_any_unknown_keys(self, known: Any, unknown: Any, data: Any) -> None:
        """Any order of keys and any unknown ones survive loading, changing and saving."""
        pairs = [*known, *((k, v) for k, v in unknown.items() if k not in defaults_of(Node))]
        plain = dict(data.draw(st.permutations(pairs)))
        loaded = self.same(Node, plain)
        changed = json.loads(replace(loaded, name="other").encoded)
        self.assertEqual(changed, {**plain, "name": "other"})


class Meaning(SynchronousTestCase):
    def test_drbd(self) -> None:
        """A drbd disk has minors, a port and nodes."""
        disk = load(
            Disk,
            {
                "dev_type": "drbd",
                "size": 8,
                "uuid": "d",
                "logical_id": ["a", "b", 11000, 0, 3, "secret"],
                "children": [
                    {"dev_type": "plain", "size": 8, "uuid": "c", "logical_id": ["xenvg", "v"]}
                ],
            },
        )
        self.assertEqual(disk.minors(), [("a", 0), ("b", 3)])
        self.assertEqual(disk.ports(), [11000])
        self.assertEqual(disk.all_nodes(), ("a", "b"))
        self.assertEqual(disk.children[0].minors(), [])

    def test_tags(self) -> None:
        """Tags are added and removed sorted, and a bad one changes nothing."""
        node = Node(**NODE, tags=("m",))
        self.assertEqual(node.with_tags(["z", "a", "m"]).tags, ("a", "m", "z"))
        self.assertEqual(node.with_tags(["a"]).without_tags(["m"]).tags, ("a",))
        self.assertRaises(TagError, node.with_tags, ["bad tag!"])
        self.assertRaises(TagError, node.without_tags, ["x"])

    def test_other_classes(self) -> None:
        """Networks and filter rules load from the keys of the real daemon."""
        plain = {"name": "net", "network": "192.0.2.0/29", "gateway": "192.0.2.1"}
        plain |= {"reservations": "00000000", "ext_reservations": "11000001", "uuid": "n"}
        self.assertEqual(load(Network, plain).gateway, "192.0.2.1")
        rule = {"watermark": 7, "priority": 0, "predicates": [["jobid", [">", "id", 7]]]}
        rule |= {"action": ["RATE_LIMIT", 2], "reason_trail": [["u", "r", 1]], "uuid": "f"}
        self.assertEqual(json.loads(load(FilterRule, rule).encoded), rule)
