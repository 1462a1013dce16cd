"""Requests and answers as bytes."""

from __future__ import annotations

import base64
import json
import zlib
from types import MappingProxyType

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import ProgrammerError
from ganeti_masterd.rpc.calls import CALLS
from ganeti_masterd.rpc.wire import (
    MAX_DEPTH,
    MAX_VALUES,
    VIRTUAL,
    VirtualPaths,
    decode,
    encode,
    file_content,
    request_body,
)
from tests.examples import examples

EXAMPLES = examples(100, 2000)

ROOT = "/srv/cluster/node1"
REAL = VirtualPaths()
HERE = VirtualPaths(ROOT)

texts = st.text(st.characters(exclude_categories=("Cs",)))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)  # fmt: skip


class EncodeTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=EXAMPLES)
    @given(values)
    def test_ascii(self, value: object) -> None:
        """Any encoded value is ASCII, and decodes to the same value."""
        encoded = encode(value)
        self.assertTrue(encoded.isascii())
        self.assertEqual(json.loads(encoded), value)
        self.assertEqual(decode(encoded + b"\n"), value)

    def test_beyond_the_plane(self) -> None:
        """A character beyond 16 bits is sent as two escapes."""
        self.assertEqual(encode(["é\U0001f600\x7f"]), b'["\\u00e9\\ud83d\\ude00\x7f"]')

    def test_read_only_mappings(self) -> None:
        """The configuration's read-only mappings are dictionaries on the wire."""
        self.assertEqual(encode([MappingProxyType({"a": MappingProxyType({})})]), b'[{"a":{}}]')

    def test_no_json(self) -> None:
        """A value that can't be encoded as JSON is the caller's error; its content isn't quoted."""
        loop: list[object] = []
        loop.append(loop)
        for value in (object(), {"key": {1j}}, "very secret \ud800", loop):
            error = self.assertRaises(ProgrammerError, encode, value)
            self.assertNotIn("secret", str(error))

    def test_malformed(self) -> None:
        """The error for a malformed answer says where it is wrong, and never quotes it."""
        for body in (
            b"[true, NaN]",
            b"[1e400]",
            b"",
            b"secret",
            b'[true, "secret',
            b'["secret\xff"]',
            b"[" * 5000,
            b"[1] 2",
        ):
            error = self.assertRaises(ValueError, decode, body)
            self.assertTrue(str(error).startswith("malformed answer: "), str(error))
            self.assertNotIn("secret", str(error))

    def test_bounds(self) -> None:
        """An answer may be large or deep up to the limits, whatever names are in it."""
        for name in ('"a"', '"\\udc80"'):
            for opened, closed in (("[", "]"), ('{"a":', "}")):
                for depth in (MAX_DEPTH, MAX_DEPTH + 1):
                    body = (opened * depth + name + closed * depth).encode()
                    if depth == MAX_DEPTH:
                        decode(body)
                    else:
                        error = self.assertRaises(ValueError, decode, body)
                        self.assertIn(f"more than {MAX_DEPTH} deep", str(error))
        many = b"[1" + b",1" * (MAX_VALUES - 1) + b"]"
        self.assertEqual(len(decode(many)), MAX_VALUES)
        error = self.assertRaises(ValueError, decode, many[:-1] + b",1]")
        self.assertIn(f"more than {MAX_VALUES} values", str(error))

    def test_odd_names(self) -> None:
        """Text that isn't UTF-8 loses some characters, but the answer can be read."""
        body = json.dumps([True, {"os-\udc80": ["\ud83d", "a\udcffb", "\U0001f600", 1.5, None]}])
        expected = [True, {"os-\ufffd": ["\ufffd", "a\ufffdb", "\U0001f600", 1.5, None]}]
        self.assertEqual(decode(body.encode("ascii")), expected)
        encode(decode(body.encode("ascii")))


class ContentTests(SynchronousTestCase):
    def test_text(self) -> None:
        """ASCII is sent unchanged."""
        self.assertEqual(file_content(b"7\n"), [0, "7\n"])
        self.assertEqual(file_content(b""), [0, ""])

    @settings(deadline=None, max_examples=EXAMPLES)
    @given(st.binary())
    def test_bytes(self, data: bytes) -> None:
        """Any bytes arrive unchanged."""
        form, text = file_content(data)
        arrived = zlib.decompress(base64.b64decode(text)) if form else str(text).encode("ascii")
        self.assertEqual(arrived, data)


class VirtualTests(SynchronousTestCase):
    def body(self, name: str, *arguments: object, paths: VirtualPaths = HERE) -> object:
        return json.loads(request_body(CALLS[name], arguments, paths))

    def test_paths(self) -> None:
        """Paths in exactly the declared arguments are sent without the root."""
        config, queue = "/var/lib/ganeti/config.data", "/var/lib/ganeti/queue"
        there = VIRTUAL + config
        self.assertEqual(
            self.body("jobqueue_update", ROOT + queue + "/serial", [0, ROOT]),
            [VIRTUAL + queue + "/serial", [0, ROOT]],
        )
        self.assertEqual(
            self.body("jobqueue_rename", [[ROOT + queue + "/job-1", ROOT + queue + "/archive/0"]]),
            [[[VIRTUAL + queue + "/job-1", VIRTUAL + queue + "/archive/0"]]],
        )
        rest = [[0, ""], 416, "a", "b", None, None]
        self.assertEqual(self.body("upload_file_single", ROOT + config, *rest), [there, *rest])
        self.assertEqual(self.body("upload_file", [ROOT + config, *rest]), [[there, *rest]])
        checks = {"filelist": [ROOT + config, "/etc/hosts"], "file-storage-path": ROOT}
        self.assertEqual(
            self.body("node_verify", checks, "c", {}),
            [{**checks, "filelist": [there, "/etc/hosts"]}, "c", {}],
        )
        self.assertEqual(checks["filelist"], [ROOT + config, "/etc/hosts"])
        self.assertEqual(self.body("node_verify", {"time": None}, "c", {})[0], {"time": None})

    def test_left_alone(self) -> None:
        """Other paths are sent unchanged, as are all paths in a real cluster."""
        self.assertEqual(self.body("file_storage_dir_create", ROOT + "/x"), [ROOT + "/x"])
        self.assertEqual(
            self.body("hooks_runner", "a", "pre", {"D": ROOT}), ["a", "pre", {"D": ROOT}]
        )
        plain = self.body("jobqueue_update", "/var/lib/ganeti/queue/serial", [0, ""], paths=REAL)
        self.assertEqual(plain, ["/var/lib/ganeti/queue/serial", [0, ""]])

    def test_already_virtual(self) -> None:
        """A path that is virtual already isn't changed."""
        path = VIRTUAL + "/var/lib/ganeti/queue/serial"
        self.assertEqual(self.body("jobqueue_update", path, [0, ""]), [path, [0, ""]])

    def test_elsewhere(self) -> None:
        """A path below another root is the caller's error."""
        for path in ("/var/lib/ganeti/config.data", ROOT + "0/config.data", ROOT):
            self.assertRaises(ProgrammerError, self.body, "jobqueue_update", path, [0, ""])

    def test_payload(self) -> None:
        """The files in the answer of node_verify get this node's root."""
        call = CALLS["node_verify"]
        payload = {"filelist": {VIRTUAL + "/var/lib/a": "sum", "/etc/hosts": "s"}, "time": [1, 2]}
        self.assertEqual(
            HERE.payload(call, payload),
            {"filelist": {ROOT + "/var/lib/a": "sum", "/etc/hosts": "s"}, "time": [1, 2]},
        )
        self.assertIs(REAL.payload(call, payload), payload)
        self.assertIs(HERE.payload(CALLS["version"], payload), payload)
        for odd in (None, [], {"filelist": "no"}):
            self.assertEqual(HERE.payload(call, odd), odd)

    def test_wrong_form(self) -> None:
        """Arguments without the declared form, or too few, are the caller's error."""
        self.assertRaises(ProgrammerError, self.body, "upload_file", [])
        self.assertRaises(ProgrammerError, self.body, "jobqueue_rename", 5)
        self.assertRaises(ProgrammerError, self.body, "node_verify", None, "c", {})
        self.assertRaises(ProgrammerError, self.body, "jobqueue_update", "a")

    def test_bare(self) -> None:
        """A bare call's argument is the body itself."""
        self.assertEqual(self.body("instance_console_info", {"a": {}}), {"a": {}})
        self.assertEqual(self.body("version"), [])
