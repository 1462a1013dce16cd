"""Decoding and encoding opcodes: messages about mistakes, and round trips."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError, OpResultError
from ganeti_masterd.opcodes import (
    OPCODES,
    Dependency,
    check_result,
    decode_opcode,
    encode_opcode,
    load_opcode,
)
from tests.examples import examples

from .facts import FACTS, SUBMITTED, minimal

EXAMPLES = examples(300, 2_000)


class MistakeTests(SynchronousTestCase):
    """Each kind of mistake has a message that says where it is and what was expected."""

    def refused(self, raw: object, message: str) -> None:
        error = self.assertRaises(OpPrereqError, decode_opcode, raw, "opcode 1")
        self.assertEqual(error.args, (f"opcode 1: {message}", "wrong_input"))

    def test_not_an_object(self) -> None:
        """An opcode must be a JSON object."""
        for raw in (None, 5, "OP_TEST_DELAY", [], [{"OP_ID": "OP_TEST_DELAY"}]):
            self.refused(raw, "expected an object with OP_ID and parameters")

    def test_no_name(self) -> None:
        """An opcode must have its name in OP_ID."""
        for raw in ({}, {"OP_ID": None}, {"OP_ID": 5}, {"OP_ID": ["OP_TEST_DELAY"]}):
            self.refused(raw, "expected an object with OP_ID, the opcode's name, in it")

    def test_unknown_opcode(self) -> None:
        """The message has the unknown name, and a similar known one."""
        self.refused({"OP_ID": "OP_TAG_SET"}, "unknown opcode 'OP_TAG_SET' (is it OP_TAGS_SET?)")
        self.refused({"OP_ID": "OP_ON_NODE"}, "unknown opcode 'OP_ON_NODE'")
        self.refused({"OP_ID": "zz"}, "unknown opcode 'zz'")
        self.refused({"OP_ID": "z" * 100_000}, f"unknown opcode '{'z' * 60}...'")

    def test_unknown_parameter(self) -> None:
        """The message names the unknown parameter."""
        self.refused(
            minimal("OP_TEST_DELAY", on_node=["x"]),
            "OP_TEST_DELAY: unknown parameter 'on_node' (is it on_nodes?)",
        )
        self.refused(
            minimal("OP_CLUSTER_QUERY", zz=None), "OP_CLUSTER_QUERY: unknown parameter 'zz'"
        )

    def test_missing_parameter(self) -> None:
        """The message names all missing parameters."""
        self.refused({"OP_ID": "OP_TAGS_SET"}, "OP_TAGS_SET: missing parameter kind, tags")

    def test_wrong_kind(self) -> None:
        """The message shows a value of the wrong type, and what was expected."""
        self.refused(
            minimal("OP_TEST_DELAY", duration="1"),
            'OP_TEST_DELAY: parameter duration: expected a number, not "1"',
        )
        self.refused(
            minimal("OP_TEST_DELAY", on_master=1),
            "OP_TEST_DELAY: parameter on_master: expected true or false, not 1",
        )
        self.refused(
            minimal("OP_TEST_DELAY", on_nodes="node1"),
            "OP_TEST_DELAY: parameter on_nodes: expected a list, each a string that isn't empty,"
            ' of at most 1024 characters, not "node1"',
        )
        self.refused(
            minimal("OP_CLUSTER_SET_PARAMS", beparams=[]),
            "OP_CLUSTER_SET_PARAMS: parameter beparams: expected an object or null, not []",
        )

    def test_long_names(self) -> None:
        """Whatever names an object has a bound; the message names the parameter."""
        seen = 0
        for op_id, cls in OPCODES.items():
            for name in cls.__struct_fields__:
                if name in ("vg_name", "os_name", "x509_key_name") or not re.fullmatch(
                    "(.*_)?name|pnode|snode|src_node|(remote|target)_node", name
                ):
                    continue
                seen += 1
                raw = minimal(op_id, **{name: "x" * 1025})
                error = self.assertRaises(OpPrereqError, decode_opcode, raw, "opcode 1")
                self.assertIn(f"{op_id}: parameter {name}: expected", error.args[0])
                self.assertIn("of at most 1024 characters", error.args[0])
                self.assertLess(len(error.args[0]), 400)
        self.assertGreater(seen, 50)

    def test_long_tags(self) -> None:
        """So has each tag, and each name in a list."""
        for op_id in ("OP_TAGS_SET", "OP_TAGS_DEL"):
            decode_opcode(minimal(op_id, kind="cluster", tags=["x" * 1024]), "opcode 1")
            raw = minimal(op_id, kind="cluster", tags=["a", "x" * 1025])
            error = self.assertRaises(OpPrereqError, decode_opcode, raw, "opcode 1")
            self.assertIn(f"{op_id}: parameter tags[1]: expected", error.args[0])
            self.assertIn("of at most 1024 characters", error.args[0])
        raw = minimal("OP_TEST_DELAY", on_nodes=["node1", "x" * 1025])
        error = self.assertRaises(OpPrereqError, decode_opcode, raw, "opcode 1")
        self.assertIn("parameter on_nodes[1]: expected", error.args[0])

    def test_null(self) -> None:
        """Null is refused for a parameter without a default."""
        self.refused(
            minimal("OP_TEST_DELAY", duration=None),
            "OP_TEST_DELAY: parameter duration: expected a number, not null",
        )

    def test_out_of_range(self) -> None:
        """The message about a number that is too small or too large has the bounds."""
        self.refused(
            minimal("OP_TEST_DELAY", repeat=-1),
            "OP_TEST_DELAY: parameter repeat: expected an integer of at least 0, not -1",
        )
        self.refused(
            minimal("OP_INSTANCE_GROW_DISK", disk=16),
            "OP_INSTANCE_GROW_DISK: parameter disk: expected an integer from 0 to 15, not 16",
        )
        self.refused(
            minimal("OP_TEST_DELAY", repeat=2.5),
            "OP_TEST_DELAY: parameter repeat: expected an integer of at least 0, not 2.5",
        )

    def test_not_one_of(self) -> None:
        """The message about a value that isn't allowed lists the allowed ones."""
        self.refused(
            minimal("OP_INSTANCE_REBOOT", reboot_type="warm"),
            "OP_INSTANCE_REBOOT: parameter reboot_type: expected one of full, hard, soft,"
            ' not "warm"',
        )

    def test_inside_a_list(self) -> None:
        """The message has the index in a list."""
        self.refused(
            minimal("OP_TEST_DELAY", on_nodes=["node1", ""]),
            "OP_TEST_DELAY: parameter on_nodes[1]: expected a string that isn't empty,"
            ' of at most 1024 characters, not ""',
        )
        self.refused(
            minimal("OP_CLUSTER_SET_PARAMS", uid_pool=[[1, 2], [3, "x"]]),
            'OP_CLUSTER_SET_PARAMS: parameter uid_pool[1][1]: expected an integer, not "x"',
        )
        self.refused(
            minimal("OP_CLUSTER_SET_PARAMS", uid_pool=[[1, 2, 3]]),
            "OP_CLUSTER_SET_PARAMS: parameter uid_pool[0]: expected [an integer, an integer],"
            " not [1,2,3]",
        )

    def test_inside_an_object(self) -> None:
        """The message has the key in an object, for a wrong value and for a wrong key."""
        self.refused(
            minimal("OP_INSTANCE_CREATE", nics=[{}, {"ip": 5}]),
            "OP_INSTANCE_CREATE: parameter nics[1].ip: expected a string or null, not 5",
        )
        self.refused(
            minimal("OP_CLUSTER_SET_PARAMS", hvparams={"kvm": {}, "xen-pvm": 5}),
            'OP_CLUSTER_SET_PARAMS: parameter hvparams["xen-pvm"]: expected an object, not 5',
        )
        self.refused(
            minimal("OP_INSTANCE_CREATE", nics=[{"iq": None}]),
            "OP_INSTANCE_CREATE: parameter nics[0]: expected keys to be one of"
            ' bridge, ip, link, mac, mode, name, network, vlan, not "iq"',
        )

    def test_checked(self) -> None:
        """A value that only a check can refuse has the same kind of message."""
        self.refused(
            minimal("OP_NETWORK_ADD", network="192.0.2.1/24"),
            "OP_NETWORK_ADD: parameter network: expected an IPv4 network such as 192.0.2.0/24,"
            ' not "192.0.2.1/24"',
        )
        self.refused(
            minimal("OP_NETWORK_ADD", add_reserved_ips=["192.0.2.1", "x"]),
            'OP_NETWORK_ADD: parameter add_reserved_ips[1]: expected an IPv4 address, not "x"',
        )
        self.refused(
            minimal("OP_INSTANCE_RECREATE_DISKS", disks=[0, [1, {}]]),
            "OP_INSTANCE_RECREATE_DISKS: parameter disks: expected a list of disk indices or a"
            " list of [disk index, disk parameters], not [0,[1,{}]]",
        )

    def test_priority(self) -> None:
        """Only three priorities can be submitted; others can be set later."""
        for priority in (-20, -11, -1, 1, 19):
            self.refused(
                minimal("OP_TEST_DELAY", priority=priority),
                f"OP_TEST_DELAY: parameter priority: expected one of -10, 0, 10, not {priority}",
            )

    def test_dependencies(self) -> None:
        """The message about a malformed dependency says what was expected."""
        for depends, words in (
            ([[5]], "depends[0]: expected [an integer, a list, each one of"),
            ([["x", []]], 'depends[0][0]: expected an integer, not "x"'),
            ([["-5", []]], 'depends[0][0]: expected an integer, not "-5"'),
            ([["9" * 5000, []]], 'depends[0][0]: expected an integer, not "999'),
            ([["\u0665", []]], 'depends[0][0]: expected an integer, not "\u0665"'),
            ([[1, []], [2, ["running"]]], "depends[1][1][0]: expected one of canceled, error,"),
            ([[5, [], 1]], "depends[0]: expected [an integer,"),
        ):
            error = self.assertRaises(
                OpPrereqError, decode_opcode, minimal("OP_TEST_DELAY", depends=depends)
            )
            self.assertIn(f"OP_TEST_DELAY: parameter {words}", error.args[0])

    def test_reason(self) -> None:
        """A reason must be a list of source, text and time."""
        self.refused(
            minimal("OP_TEST_DELAY", reason=[["gnt:user", "why"]]),
            "OP_TEST_DELAY: parameter reason[0]: expected [a string, a string, an integer],"
            ' not ["gnt:user","why"]',
        )

    def test_long_values_are_cut(self) -> None:
        """A message cuts off a large value."""
        error = self.assertRaises(
            OpPrereqError, decode_opcode, minimal("OP_TEST_DELAY", duration="x" * 100_000)
        )
        self.assertLess(len(error.args[0]), 200)


class LenienceTests(SynchronousTestCase):
    def test_null_is_the_default(self) -> None:
        """Null for a parameter with a default means that default."""
        values = minimal("OP_TEST_DELAY", on_nodes=None, no_locks=None, priority=None, reason=None)
        self.assertEqual(decode_opcode(values), decode_opcode(minimal("OP_TEST_DELAY")))

    def test_null_does_not_hide_mistakes(self) -> None:
        """A null that means a default doesn't hide a mistake in another parameter."""
        values = minimal("OP_TEST_DELAY", on_nodes=None, repeat="x")
        error = self.assertRaises(OpPrereqError, decode_opcode, values)
        self.assertIn("parameter repeat: expected", error.args[0])

    def test_whole_floats(self) -> None:
        """A whole number may be written as a float, and becomes an integer."""
        opcode = decode_opcode(minimal("OP_OOB_COMMAND", timeout=5.0))
        self.assertEqual(repr(encode_opcode(opcode)["timeout"]), "5")

    def test_numbers(self) -> None:
        """A float parameter accepts integers, a boolean one accepts only booleans."""
        opcode = decode_opcode(minimal("OP_TEST_DELAY", duration=1))
        self.assertEqual(encode_opcode(opcode)["duration"], 1.0)
        for number in (0, 1, 0.0):
            self.assertRaises(
                OpPrereqError, decode_opcode, minimal("OP_TEST_DELAY", no_locks=number)
            )

    def test_dependencies(self) -> None:
        """Job ids become integers, even if they were strings; relative ones are negative."""
        opcode = decode_opcode(
            minimal("OP_TEST_DELAY", depends=[["5", ["success"]], [-1, []], [7, ["error"]]])
        )
        self.assertEqual(
            opcode.depends,
            (
                Dependency(5, ("success",)),
                Dependency(-1, ()),
                Dependency(7, ("error",)),
            ),
        )
        self.assertEqual(
            encode_opcode(opcode)["depends"], [[5, ["success"]], [-1, []], [7, ["error"]]]
        )

    def test_input_is_left_alone(self) -> None:
        """Decoding doesn't modify its argument."""
        values = minimal("OP_TEST_DELAY", depends=[["5", []]], on_nodes=None, repeat=1.0)
        before = msgspec.json.encode(values)
        decode_opcode(values)
        self.assertEqual(msgspec.json.encode(values), before)


class RoundTripTests(SynchronousTestCase):
    def test_submitted(self) -> None:
        """What real clients submit is the same when encoded, with defaults filled in."""
        self.assertGreater(len(SUBMITTED), 40)
        for op_id, opcodes in SUBMITTED.items():
            for values in opcodes:
                encoded = encode_opcode(decode_opcode(values))
                self.assertEqual({name: encoded[name] for name in values}, values, op_id)
                self.assertEqual(decode_opcode(encoded), decode_opcode(values), op_id)

    def test_job_file(self) -> None:
        """An encoded opcode has the parameters of a job file of Ganeti 3.0.2, in the same order."""
        values = {
            "duration": 0.01,
            "on_master": True,
            "on_nodes": [],
            "on_node_uuids": ["386b2b1c-71fb-4ad4-ad61-319548fe11cf"],
            "repeat": 0,
            "interruptible": False,
            "no_locks": True,
            "dry_run": None,
            "debug_level": 0,
            "priority": 0,
            "depends": None,
            "comment": None,
            "reason": [["gnt:opcode:test_delay", "job=308;index=0", 1795487643570599000]],
            "OP_ID": "OP_TEST_DELAY",
        }
        self.assertEqual(list(encode_opcode(load_opcode(values)).items()), list(values.items()))

    def test_queued_job_file(self) -> None:
        """Parameters that luxid leaves out of a queued job's file are None."""
        values = {
            "priority": 0,
            "depends": None,
            "comment": None,
            "reason": [["gnt:opcode:tags_set", "job=674;index=0", 1795494150250104000]],
            "OP_ID": "OP_TAGS_SET",
            "kind": "node",
            "tags": ["x"],
        }
        encoded = encode_opcode(load_opcode(values))
        self.assertEqual([encoded["name"], encoded["dry_run"]], [None, None])

    def test_job_file_has_any_priority(self) -> None:
        """A job's priority may have changed since it was submitted, within bounds."""
        for priority in (-20, 7, 19):
            opcode = load_opcode(minimal("OP_TEST_DELAY", priority=priority))
            self.assertEqual(opcode.priority, priority)
        for priority in (-21, 20):
            self.assertRaises(
                OpPrereqError, load_opcode, minimal("OP_TEST_DELAY", priority=priority)
            )

    def test_encoded_is_new(self) -> None:
        """Changing the encoded form doesn't change the opcode."""
        opcode = decode_opcode(minimal("OP_INSTANCE_CREATE", hvparams={"a": [1]}))
        encode_opcode(opcode)["hvparams"]["a"].append(2)
        self.assertEqual(encode_opcode(opcode)["hvparams"], {"a": [1]})

    def test_big_integers(self) -> None:
        """Integers of any size are exact."""
        values = minimal("OP_TEST_DUMMY", result=2**100, messages=-(2**64))
        encoded = encode_opcode(decode_opcode(values))
        self.assertEqual([encoded["result"], encoded["messages"]], [2**100, -(2**64)])


class ResultTests(SynchronousTestCase):
    GOOD: dict[str, list[Any]] = {
        "OP_TEST_DELAY": [None],
        "OP_CLUSTER_VERIFY_CONFIG": [True],
        "OP_CLUSTER_VERIFY": [{"jobs": [[True, 5], [True, "6"], [False, "no"]]}],
        "OP_CLUSTER_SET_PARAMS": [None, {"jobs": []}],
        "OP_NODE_SET_PARAMS": [[], [("offline", True)], [["drained", None]]],
        "OP_OOB_COMMAND": [[[(0, "node1"), (0, None)]]],
        "OP_INSTANCE_CREATE": [["node1"]],
        "OP_INSTANCE_ACTIVATE_DISKS": [[["node1", "disk/0", None]]],
        "OP_BACKUP_EXPORT": [(True, [True, False])],
        "OP_GROUP_VERIFY_DISKS": [({}, ["i"], {"i": [["node1", "vg/lv"]]})],
        "OP_INSTANCE_QUERY_DATA": [{"i": {"name": "i"}}],
        "OP_QUERY": [
            {
                "fields": [{"name": "name", "title": "Node", "kind": "text", "doc": "Name"}],
                "data": [[[0, "node1"]], [[3, None]]],
            }
        ],
    }
    BAD: dict[str, list[Any]] = {
        "OP_TEST_DELAY": [False, 0, []],
        "OP_CLUSTER_VERIFY_CONFIG": [1, None],
        "OP_CLUSTER_VERIFY": [None, {}, {"jobs": [[1, 5]]}, {"jobs": [], "more": 1}],
        "OP_NODE_SET_PARAMS": [None, [["", 1]], [["offline"]]],
        "OP_OOB_COMMAND": [[[(5, "node1")]]],
        "OP_INSTANCE_CREATE": [[""], "node1"],
        "OP_BACKUP_EXPORT": [(True,), (True, [1])],
        "OP_QUERY": [{"fields": [], "data": [[[9, 1]]]}, {"data": []}],
    }

    def test_good(self) -> None:
        """Results of the declared type pass, whether lists or tuples."""
        for op_id, results in self.GOOD.items():
            for result in results:
                check_result(decode_opcode(minimal(op_id)), result)

    def test_bad(self) -> None:
        """A result of another type is an error that names the opcode."""
        for op_id, results in self.BAD.items():
            for result in results:
                error = self.assertRaises(
                    OpResultError, check_result, decode_opcode(minimal(op_id)), result
                )
                self.assertIn(f"{op_id}: the result is not as declared", error.args[0])

    def test_no_form_in_json(self) -> None:
        """A result that can't be encoded as JSON is an error, too."""
        for op_id, result in (("OP_CLUSTER_QUERY", {"a": 1j}), ("OP_NODE_QUERYVOLS", [object()])):
            error = self.assertRaises(
                OpResultError, check_result, decode_opcode(minimal(op_id)), result
            )
            self.assertIn(f"{op_id}: the result has no form in JSON", error.args[0])

    def test_every_type_is_usable(self) -> None:
        """Each opcode's result type is one that msgspec can check."""
        for op_id in OPCODES:
            opcode = decode_opcode(minimal(op_id))
            if FACTS["opcodes"][op_id]["result"].startswith("None"):
                check_result(opcode, None)
            else:
                self.assertRaises(OpResultError, check_result, opcode, None)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**64, max_value=2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    | st.sampled_from(["`$.x`", " - at `$.depends[0]`", "add", "192.0.2.0/24", "success", "5"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["ip", "size", "kvm", "plain", "x.y", "`", ""])
            | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@st.composite
def nearly_right(draw: st.DrawFn) -> dict[str, Any]:
    """An opcode that is valid except for some of its parameters."""
    op_id = draw(st.sampled_from(sorted(OPCODES)))
    facts = FACTS["opcodes"][op_id]
    names = [parameter["name"] for parameter in [*facts["params"], *FACTS["common"]]]
    wrong = draw(st.dictionaries(st.sampled_from(names), JSON, min_size=1, max_size=3))
    return minimal(op_id, **wrong)


class AnyInputTests(SynchronousTestCase):
    def refused_or_round_trips(self, raw: Any) -> None:
        try:
            opcode = decode_opcode(raw)
        except OpPrereqError as error:
            message, code = error.args
            self.assertEqual(code, "wrong_input")
            self.assertTrue(message.startswith("opcode: "))
            return
        encoded = encode_opcode(opcode)
        self.assertEqual(load_opcode(encoded), opcode)

    @settings(max_examples=EXAMPLES, deadline=None)
    @given(JSON)
    def test_any_json(self, raw: Any) -> None:
        """Any JSON value is either refused with OpPrereqError or decoded completely."""
        self.refused_or_round_trips(raw)

    @settings(max_examples=EXAMPLES * 5, deadline=None)
    @given(nearly_right())
    def test_any_parameter(self, raw: dict[str, Any]) -> None:
        """The message about a wrong value names one of the parameters given."""
        self.refused_or_round_trips(raw)
        try:
            decode_opcode(raw)
        except OpPrereqError as error:
            found = re.match(r"opcode: (\w+): parameter (\w+)", error.args[0])
            self.assertEqual(found and found[1], raw["OP_ID"], error.args[0])
            self.assertIn(found and found[2], raw)
