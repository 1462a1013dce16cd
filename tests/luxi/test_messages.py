"""Requests and replies."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd import errors
from ganeti_masterd.errors import LuxiError, OpPrereqError, ProgrammerError
from ganeti_masterd.luxi.documents import ProtocolError
from ganeti_masterd.luxi.messages import (
    Encoded,
    LuxiRequest,
    decode_reply,
    decode_request,
    encode_error,
    encode_reply,
    encode_request,
)
from tests.luxi.doubles import examples

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def message(**keys: Any) -> bytes:
    return json.dumps(keys).encode()


class RequestTests(SynchronousTestCase):
    """The table of protocol/luxi.rst, Framing."""

    def test_plain(self) -> None:
        """Method, arguments and version are taken, other keys ignored."""
        got = decode_request(message(method="Query", args=["node"], version=3000000, x={"y": 1}))
        self.assertEqual(got, LuxiRequest("Query", ["node"], 3000000))

    def test_newline_before_the_end(self) -> None:
        """The Python client's newline is accepted."""
        self.assertEqual(decode_request(b'{"method":"A","args":[]}\n').method, "A")

    def test_versions(self) -> None:
        """None, null, 3.x and 2.x are spoken; 2.x alone is classic."""
        self.assertEqual(decode_request(message(method="A", args=[])).version, None)
        versions: tuple[tuple[int | None, bool], ...] = (
            (None, False),
            (3000000, False),
            (3010000, False),
            (2050000, True),
            (2055555, True),
            (2060000, True),
        )
        for version, classic in versions:
            got = decode_request(message(method="A", args=[], version=version))
            self.assertEqual((got.version, got.classic), (version, classic))

    def test_other_versions(self) -> None:
        """Another version is an error that names both, and no reason to close."""
        versions: tuple[Any, ...] = (
            2040000,
            2060001,
            4000000,
            -1,
            1.5,
            3e6,
            "3000000",
            True,
            [],
            {},
        )
        for version in versions:
            error = self.assertRaises(
                LuxiError, decode_request, message(method="A", args=[], version=version)
            )
            self.assertNotIsInstance(error, ProtocolError)
            self.assertIn("3000000", str(error))
            self.assertIn(str(version), str(error))

    def test_not_a_request(self) -> None:
        """What isn't an object with both keys can't be understood."""
        for data in (b"[]", b"1", b"null", b'"x"', b"{}", b'{"method":"A"}', b'{"args":[]}', b"x"):
            self.assertRaises(ProtocolError, decode_request, data)

    def test_duplicate_keys(self) -> None:
        """Neither the first nor the last method wins."""
        self.assertRaises(ProtocolError, decode_request, b'{"method":"A","args":[],"method":"B"}')

    def test_wrong_types(self) -> None:
        """Arguments that aren't a list, or a method that isn't a string: wrong input, stay open."""
        for keys, named in (
            ({"method": "Query", "args": {}}, "Query"),
            ({"method": "Query", "args": None}, "null"),
            ({"method": "Query", "args": "x"}, "string"),
            ({"method": 1, "args": []}, "method"),
            ({"method": None, "args": []}, "null"),
            ({"method": ["A"], "args": []}, "list"),
        ):
            error = self.assertRaises(OpPrereqError, decode_request, message(**keys))
            self.assertIn(named, error.args[0])
            self.assertEqual(error.args[1], errors.ECODE_INVAL)

    def test_non_ascii_method(self) -> None:
        """A method name of any letters is a method name."""
        self.assertEqual(decode_request('{"method":"Größe","args":[]}'.encode()).method, "Größe")

    @given(st.text(), st.lists(VALUES), st.sampled_from([None, 3000000, 2050000]))
    @examples(100)
    def test_round_trip(self, method: str, args: list[Any], version: int | None) -> None:
        """What a client encodes the server decodes, integers exactly."""
        try:
            data = encode_request(method, args, version)
        except ProgrammerError:  # lone surrogates
            return
        self.assertNotIn(b"\x03", data)
        self.assertEqual(decode_request(data), LuxiRequest(method, args, version))

    def test_unencodable(self) -> None:
        """An argument without a form in JSON is the caller's fault."""
        error = self.assertRaises(ProgrammerError, encode_request, "A", [object()])
        self.assertIn("A: an argument", str(error))


class ReplyTests(SynchronousTestCase):
    """Results and errors on their way back."""

    @given(VALUES)
    @examples(100)
    def test_round_trip(self, result: Any) -> None:
        """What the server encodes the client decodes, and 0x03 is never inside."""
        try:
            data = encode_reply(result)
        except ProgrammerError:
            return
        self.assertNotIn(b"\x03", data)
        self.assertEqual(decode_reply(data), result)

    def test_bytes(self) -> None:
        """A reply is compact, without a version, in UTF-8."""
        self.assertEqual(encode_reply(["é", None]), '{"success":true,"result":["é",null]}'.encode())

    def test_encoded(self) -> None:
        """JSON that is there already is put in as it is, and can be had back."""
        for parts in ([], [b""], [b"1"], [b"1,2", b"", b"3", b""]):
            rows = b",".join(part for part in parts if part)
            made = Encoded.of_parts(b'{"a":[', parts, b"]}")
            self.assertEqual(made.reply, Encoded(b'{"a":[%b]}' % rows).reply)
            self.assertEqual(made.data, b'{"a":[%b]}' % rows)
        encoded = Encoded(b'{"a":1}')
        self.assertEqual(encode_reply(encoded), b'{"success":true,"result":{"a":1}}')
        self.assertIs(encode_reply(encoded), encode_reply(encoded))
        self.assertEqual(encoded.data, b'{"a":1}')

    def test_unencodable_result(self) -> None:
        """A result without a form in JSON is an error with a reason."""
        loop: list[Any] = []
        loop.append(loop)
        for result in (object(), "\ud800", {(1, 2): 3}, loop, 1j, [10**5000]):
            error = self.assertRaises(ProgrammerError, encode_reply, result)
            self.assertIn("can't be sent", str(error))

    def test_error(self) -> None:
        """An error is its class and arguments, and comes out as itself."""
        data = encode_error(OpPrereqError("no such node", errors.ECODE_NOENT))
        self.assertEqual(
            data,
            b'{"success":false,"result":["OpPrereqError",["no such node","unknown_entity"]]}',
        )
        error = self.assertRaises(OpPrereqError, decode_reply, data)
        self.assertEqual(error.args, ("no such node", "unknown_entity"))

    def test_protocol_error_travels_as_luxi_error(self) -> None:
        """Clients know ``LuxiError`` and not our own subclasses of it."""
        self.assertEqual(
            json.loads(encode_error(ProtocolError("x")))["result"], ["LuxiError", ["x"]]
        )

    def test_error_with_any_arguments(self) -> None:
        """Arguments without a form in JSON travel as text; nothing is raised."""

        class Mute(Exception):
            def __str__(self) -> str:
                raise ValueError

            __repr__ = __str__

        for error in (
            LuxiError(object(), "a"),
            LuxiError("\ud800"),
            LuxiError(Mute()),
            Mute(),
            KeyError("x"),
            ValueError("\ud800"),
        ):
            reply = json.loads(encode_error(error))
            self.assertIs(reply["success"], False)
            name, args = reply["result"]
            self.assertIn(name, ("LuxiError", "OpExecError"))
            self.assertIsInstance(args, list)
        self.assertEqual(json.loads(encode_error(LuxiError(object(), "a")))["result"][1][1], "a")

    def test_bare_text_error(self) -> None:
        """The text that other servers answer is an error too."""
        error = self.assertRaises(
            errors.GenericError, decode_reply, b'{"success":false,"result":"Failed"}'
        )
        self.assertEqual(str(error), "Failed")

    def test_unknown_error(self) -> None:
        """A class that isn't known keeps its name in the text."""
        error = self.assertRaises(
            errors.GenericError, decode_reply, b'{"success":false,"result":["NewError",["x"]]}'
        )
        self.assertIn("NewError", str(error))

    def test_not_a_reply(self) -> None:
        """What isn't a reply can't be understood."""
        for data in (b"", b"[]", b"{}", b'{"success":true}', b'{"success":1,"result":1}'):
            self.assertRaises(ProtocolError, decode_reply, data)

    def test_version_of_reply(self) -> None:
        """A version in a reply must be the one that was sent."""
        data = b'{"success":true,"result":1,"version":2050000}'
        self.assertEqual(decode_reply(data, 2050000), 1)
        self.assertRaises(LuxiError, decode_reply, data, 3000000)
        self.assertRaises(LuxiError, decode_reply, data, None)
