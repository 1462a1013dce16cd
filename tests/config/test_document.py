"""config.data: reading, writing, refusals, and applying the journal's rows."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.document import (
    ConfigImage,
    UnknownVersion,
    apply_rows,
    encode,
    merge_rows,
    parse,
    version_text,
)
from ganeti_masterd.errors import ConfigurationError, ConfigVersionMismatch, encode_error
from ganeti_masterd.journal.rows import ConfigRow
from tests.test_decoding import NONSENSE
from tests.work import calls_of

from .sample import CONTENT, EXAMPLES, INSTANCE1, NODE1, NODE2, big, document, dump, sample, uuid


class Reading(SynchronousTestCase):
    def test_real_file_unchanged(self) -> None:
        """A real file that is read and written is the same, byte for byte."""
        self.assertEqual(encode(sample()), CONTENT)
        self.assertEqual(ConfigImage(sample()).encode(), CONTENT)

    def test_change_leaves_the_rest(self) -> None:
        """A change of one object changes the bytes of that object only."""
        before = sample()
        node = before.nodes[NODE2]
        content = encode(before.with_object("nodes", replace(node, offline=True)))
        expected = document()
        expected["nodes"][NODE2]["offline"] = True
        self.assertEqual(json.loads(content), expected)
        start, _, end = CONTENT.partition(node.encoded)
        self.assertTrue(content.startswith(start))
        self.assertTrue(content.endswith(end))

    def test_later_version(self) -> None:
        """A file of 3.1 can be read, and is written unchanged."""
        content = CONTENT.replace(b'"version":3000000', b'"version":3010000')
        snapshot = parse(content)
        self.assertEqual(snapshot.header.version, 3010000)
        self.assertEqual(encode(snapshot), content)

    def test_unusual_document(self) -> None:
        """Keys in an unusual order, unknown keys and absent sections are kept."""
        plain = document()
        del plain["filters"], plain["networks"]
        plain = {"new": {"a": [1]}, "serial_no": plain.pop("serial_no"), **plain}
        content = json.dumps(plain, indent=1).encode()
        again = encode(parse(content))
        self.assertEqual(json.loads(again), plain)
        self.assertEqual(list(json.loads(again)), list(plain))
        self.assertEqual(encode(parse(again)), again)

    def test_absent_section_appears_when_needed(self) -> None:
        """A section that the file lacks is written once it has an object."""
        plain = document()
        disks = plain.pop("disks")
        snapshot = parse(dump(plain))
        disk = next(iter(sample().disks.values()))
        content = json.loads(encode(snapshot.with_object("disks", disk)))
        self.assertEqual(content["disks"], {disk.uuid: disks[disk.uuid]})

    def test_work(self) -> None:
        """Parsing 10,000 instances takes a few calls for each, and writing them fewer."""
        snapshot, calls = calls_of(parse, big(10000))
        self.assertLess(calls, 10000 * 30)
        changed = replace(snapshot.instances[uuid(5000)], os="other")
        rewritten, calls = calls_of(encode, snapshot.with_object("instances", changed))
        self.assertLess(calls, 10000 * 15)
        self.assertEqual(len(parse(rewritten).instances), 10000)


class Refusing(SynchronousTestCase):
    def refused(self, content: bytes, *words: str) -> None:
        fault = self.assertRaises(ConfigurationError, parse, content, "/x/config.data")
        for word in ("/x/config.data", *words):
            self.assertIn(word, str(fault))

    def changed(self, *path: str, value: Any) -> bytes:
        plain = target = document()
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = value
        return dump(plain)

    def test_other_version(self) -> None:
        """Another version is refused; the error has both versions and what to do."""
        for found, text in ((2160000, "2.16.0"), (3020000, "3.2.0"), (2000005, "2.0.5")):
            content = self.changed("version", value=found)
            fault = self.assertRaises(UnknownVersion, parse, content)
            self.assertIsInstance(fault, ConfigVersionMismatch)
            for word in (text, "3.0.0", "upgrade"):
                self.assertIn(word, str(fault))
            self.assertEqual(encode_error(fault)[0], "ConfigVersionMismatch")
            self.assertEqual(encode_error(fault)[1][1], found)

    def test_version_text(self) -> None:
        """A version is major, minor, revision."""
        self.assertEqual(version_text(2160003), "2.16.3")

    def test_version_wins(self) -> None:
        """The error about a file's version takes precedence over all others."""
        content = b'{"version": 2150000, "cluster": 7}'
        self.assertRaises(UnknownVersion, parse, content)

    def test_not_a_configuration(self) -> None:
        """Anything else than a configuration is refused with the file's name."""
        self.refused(b"", "truncated")
        self.refused(CONTENT[:-1], "truncated")
        self.refused(b"[]", "object")
        self.refused(b"{}", "version")
        self.refused(b'{"version":"3000000","cluster":{}}', "version")
        self.refused(b'{"version":true,"cluster":{}}', "version")
        self.refused(b'{"version":3000000}', "cluster")
        self.refused(CONTENT.replace(b"node1", b"\xff\xfe"))
        for content in NONSENSE:
            self.refused(content)
            self.refused(CONTENT.replace(b'"cluster":', b'"cluster":' + content + b',"x":'))

    def test_bad_object(self) -> None:
        """A fault in an object names section, uuid, key and what was expected."""
        self.refused(self.changed("nodes", NODE1, "offline", value="no"), f"nodes/{NODE1}: offline")
        self.refused(
            self.changed("instances", INSTANCE1, "nics", value=[{"mac": 3, "uuid": "u"}]),
            f"instances/{INSTANCE1}: nics[0].mac: Expected `str`, got `int`",
        )
        self.refused(self.changed("cluster", "master_netmask", value=None), "cluster: master_netm")
        self.refused(self.changed("nodes", value=[]), "nodes", "object")
        self.refused(self.changed("nodes", NODE1, value=None), f"nodes/{NODE1}")
        self.refused(self.changed("serial_no", value="x"), "serial_no")

    def test_missing_key(self) -> None:
        """A missing key without a default is named in the error."""
        plain = document()
        del plain["nodes"][NODE1]["group"]
        self.refused(dump(plain), f"nodes/{NODE1}", "group")

    def test_wrong_uuid(self) -> None:
        """An object that is stored under a uuid other than its own is refused."""
        self.refused(self.changed("nodes", NODE1, "uuid", value="other"), NODE1, "other")

    @given(st.integers(0, len(CONTENT) - 1), st.binary(max_size=3))
    @settings(deadline=None, max_examples=EXAMPLES)
    def test_damage(self, at: int, put: bytes) -> None:
        """A damaged file is either still a configuration or refused with ConfigurationError."""
        damaged = CONTENT[:at] + put + CONTENT[at + 1 :]
        try:
            snapshot = parse(damaged)
        except (ConfigurationError, ConfigVersionMismatch) as error:
            self.assertTrue(str(error))
        else:
            # What was accepted can be written and read again.
            self.assertEqual(encode(parse(encode(snapshot))), encode(snapshot))


class Rows(SynchronousTestCase):
    def test_nothing(self) -> None:
        """Without rows the file is unchanged."""
        self.assertEqual(apply_rows(CONTENT, []), CONTENT)

    def test_each_kind(self) -> None:
        """Objects are replaced, added and removed; the last row for an object wins."""
        rows = [
            ConfigRow("nodes", NODE2, b'{"name":"old"}'),
            ConfigRow("nodes", NODE2, b'{"name":"new"}'),
            ConfigRow("instances", INSTANCE1, None),
            ConfigRow("instances", "gone already", None),
            ConfigRow("disks", uuid(1), b'{"size":1}'),
            ConfigRow("cluster", "", b'{"cluster_name":"c"}'),
            ConfigRow("", "", b'{"version":3000000,"serial_no":284,"mtime":5}'),
        ]
        content = merge_rows(CONTENT, rows)
        expected = document()
        expected["nodes"][NODE2] = {"name": "new"}
        del expected["instances"][INSTANCE1]
        expected["disks"] = {uuid(1): {"size": 1}, **expected["disks"]}
        expected["cluster"] = {"cluster_name": "c"}
        expected.update(serial_no=284, mtime=5)
        self.assertEqual(json.loads(content), expected)
        self.assertEqual(list(json.loads(content)), list(document()))
        self.assertEqual(next(iter(json.loads(content)["disks"])), uuid(1))
        self.assertEqual(merge_rows(content, rows), content)

    def test_section_the_file_lacks(self) -> None:
        """A row for a section that the file lacks adds the section."""
        plain = document()
        del plain["filters"]
        content = merge_rows(dump(plain), [ConfigRow("filters", "f", b"{}")])
        self.assertEqual(json.loads(content)["filters"], {"f": {}})

    def test_refused(self) -> None:
        """What isn't a configuration, or a row of an unknown section, is refused."""
        self.assertRaises(ConfigurationError, apply_rows, b"x", [])
        row = ConfigRow("nonsense", "u", b"{}")
        self.assertRaises(ConfigurationError, apply_rows, CONTENT, [row])

    def test_a_result_that_cannot_be_loaded(self) -> None:
        """Rows that would make a configuration which no daemon loads are refused."""
        for section, name, body in (
            ("nodes", NODE2, b"{}"),
            ("cluster", "", b"{}"),
            ("", "", b'{"version":"x"}'),
            ("nodes", NODE2, b"rubbish"),
        ):
            row = ConfigRow(section, name, body)
            error = self.assertRaises(ConfigurationError, apply_rows, CONTENT, [row])
            self.assertIn("config.data", str(error))
        kept = ConfigRow("nodes", NODE2, sample().nodes[NODE2].encoded)
        self.assertEqual(json.loads(apply_rows(CONTENT, [kept])), document())
