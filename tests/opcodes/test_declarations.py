"""The declarations against the recorded facts of Ganeti 3.0.2."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.opcodes import OPCODES, Hooks, Opcode, decode_opcode, encode_opcode
from ganeti_masterd.opcodes.base import COMMON_PARAMETERS

from .facts import FACTS, minimal


class DeclarationTests(SynchronousTestCase):
    def test_all_opcodes(self) -> None:
        """Each opcode of Ganeti 3.0.2 is declared, and no other."""
        self.assertEqual(set(OPCODES), set(FACTS["opcodes"]))

    def test_parameters_and_their_order(self) -> None:
        """A job file has an opcode's own parameters, the common ones, then OP_ID."""
        common = [parameter["name"] for parameter in FACTS["common"]]
        self.assertEqual(list(COMMON_PARAMETERS), common)
        for op_id, facts in FACTS["opcodes"].items():
            own = [parameter["name"] for parameter in facts["params"]]
            names = list(encode_opcode(decode_opcode(minimal(op_id))))
            self.assertEqual(sorted(names), sorted([*own, *common, "OP_ID"]), op_id)
            self.assertEqual(names[len(own) :], [*common, "OP_ID"], op_id)

    def test_defaults(self) -> None:
        """A parameter that is left out takes Ganeti's default."""
        for op_id, facts in FACTS["opcodes"].items():
            values = encode_opcode(decode_opcode(minimal(op_id)))
            for parameter in [*facts["params"], *FACTS["common"]]:
                if parameter["name"] not in facts["required"]:
                    self.assertEqual(
                        values[parameter["name"]],
                        parameter["default"],
                        f"{op_id}.{parameter['name']}",
                    )

    def test_defaults_are_not_shared(self) -> None:
        """Changing one opcode's default object doesn't change another's."""
        first = decode_opcode(minimal("OP_INSTANCE_CREATE"))
        second = decode_opcode(minimal("OP_INSTANCE_CREATE"))
        self.assertIsNot(
            first.hvparams,  # type: ignore[attr-defined]
            second.hvparams,  # type: ignore[attr-defined]
        )

    def test_required(self) -> None:
        """Exactly the parameters that luxid requires are required, and named if missing."""
        for op_id, facts in FACTS["opcodes"].items():
            for name in facts["required"]:
                values = minimal(op_id)
                del values[name]
                error = self.assertRaises(OpPrereqError, decode_opcode, values)
                self.assertEqual(
                    error.args, (f"opcode: {op_id}: missing parameter {name}", "wrong_input")
                )

    def test_null(self) -> None:
        """Null is accepted where Ganeti accepts it, else means the default, else is refused."""
        for op_id, facts in FACTS["opcodes"].items():
            for parameter in [*facts["params"], *FACTS["common"]]:
                name, place = parameter["name"], f"{op_id}.{parameter['name']}"
                values = minimal(op_id, **{name: None})
                if name in facts["required"] and parameter["type"] != "Anything":
                    error = self.assertRaises(OpPrereqError, decode_opcode, values)
                    self.assertIn(f"parameter {name}: expected", error.args[0], place)
                    self.assertTrue(error.args[0].endswith(", not null"), place)
                else:
                    self.assertEqual(
                        encode_opcode(decode_opcode(values))[name], parameter["default"], place
                    )

    def test_hooks(self) -> None:
        """The path and the object type of hooks are Ganeti's."""
        for op_id, facts in FACTS["opcodes"].items():
            wanted = Hooks(*facts["hooks"]) if facts["hooks"] else None
            self.assertEqual(OPCODES[op_id].HOOKS, wanted, op_id)

    def test_summary_parameter(self) -> None:
        """The parameter that a summary shows is Ganeti's."""
        for op_id, facts in FACTS["opcodes"].items():
            self.assertEqual(OPCODES[op_id].SUMMARY, facts["summary"], op_id)

    def test_documented(self) -> None:
        """Each opcode has a docstring."""
        for op_id, cls in OPCODES.items():
            self.assertRegex(cls.__doc__ or "", r"^[A-Z].*\.", op_id)

    def test_frozen(self) -> None:
        """An opcode is immutable: its parameters can't be set."""
        opcode = decode_opcode(minimal("OP_TEST_DELAY"))
        with self.assertRaises(AttributeError):
            opcode.priority = 5  # type: ignore[misc]

    def test_made_in_code(self) -> None:
        """An opcode made in the daemon is equal to the same one from a client."""
        cls = OPCODES["OP_TAGS_SET"]
        made: Opcode = cls(kind="cluster", tags=("t",))  # type: ignore[call-arg]
        self.assertEqual(made, decode_opcode(minimal("OP_TAGS_SET")))
        self.assertEqual(made.op_id, "OP_TAGS_SET")
