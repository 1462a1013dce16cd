"""Private and secret parameters: which they are, and where they must not appear."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.opcodes import (
    OPCODES,
    REDACTED,
    decode_opcode,
    encode_opcode,
    load_opcode,
    private_fields,
    redact,
    secret_fields,
    strip_secrets,
)

from .facts import FACTS, minimal

HUSH = "hush-hush"


def create(**more: Any) -> dict[str, Any]:
    """Returns an instance creation with private and secret parameters."""
    return minimal(
        "OP_INSTANCE_CREATE",
        osparams={"open": "yes"},
        osparams_private={"p": HUSH},
        osparams_secret={"s": HUSH, "t": {"deep": HUSH}},
        **more,
    )


class FieldTests(SynchronousTestCase):
    def test_which(self) -> None:
        """Exactly the parameters that Ganeti calls private are private or secret here."""
        for op_id, facts in FACTS["opcodes"].items():
            declared = {p["name"] for p in facts["params"] if "Private" in p["type"]}
            cls = OPCODES[op_id]
            secret = {name for name in declared if name == "osparams_secret"}
            self.assertEqual(set(secret_fields(cls)), secret, op_id)
            self.assertEqual(set(private_fields(cls)), declared - secret, op_id)

    def test_of_a_value(self) -> None:
        """The functions accept an opcode as well as its class."""
        opcode = decode_opcode(create())
        self.assertEqual(private_fields(opcode), ("osparams_private",))
        self.assertEqual(secret_fields(opcode), ("osparams_secret",))


class RedactionTests(SynchronousTestCase):
    def test_answer(self) -> None:
        """An answer has the names of private and secret parameters, not their values."""
        shown = redact(create())
        self.assertNotIn(HUSH, repr(shown))
        self.assertEqual(shown["osparams_private"], {"p": REDACTED})
        self.assertEqual(shown["osparams_secret"], {"s": REDACTED, "t": REDACTED})
        self.assertEqual(shown["osparams"], {"open": "yes"})

    def test_disk(self) -> None:
        """Private values are written to disk, secret ones are not."""
        kept = strip_secrets(create())
        self.assertEqual(kept["osparams_private"], {"p": HUSH})
        self.assertEqual(kept["osparams_secret"], {"s": REDACTED, "t": REDACTED})

    def test_by_os(self) -> None:
        """Private parameters of the cluster are redacted for each operating system."""
        values = minimal("OP_CLUSTER_SET_PARAMS", osparams_private_cluster={"noop": {"p": HUSH}})
        self.assertEqual(redact(values)["osparams_private_cluster"], {"noop": {"p": REDACTED}})
        self.assertIs(strip_secrets(values), values)

    def test_inside_of_opcodes(self) -> None:
        """Nested opcodes are redacted too (luxid 3.0.2 doesn't)."""
        several = minimal("OP_INSTANCE_MULTI_ALLOC", instances=[create(), 5])
        dummy = minimal("OP_TEST_DUMMY", submit_jobs=[[minimal("OP_CLUSTER_QUERY"), create()]])
        for values in (several, dummy):
            self.assertNotIn(HUSH, repr(redact(values)))
            self.assertIn(HUSH, repr(strip_secrets(values)))
            self.assertEqual(strip_secrets(strip_secrets(values)), strip_secrets(values))
        self.assertEqual(
            strip_secrets(several)["instances"][0]["osparams_secret"],
            {"s": REDACTED, "t": REDACTED},
        )

    def test_unknown_opcode(self) -> None:
        """In an unknown opcode, every parameter is hidden that is sensitive in any opcode."""
        values = {"OP_ID": "OP_NEW", "osparams_secret": {"s": HUSH}, "osparams_private": HUSH}
        self.assertNotIn(HUSH, repr(redact(values)))

    def test_not_changed(self) -> None:
        """The argument isn't modified, and is returned itself if there is nothing to hide."""
        values = create()
        redact(values)
        self.assertEqual(values, create())
        for values in (
            minimal("OP_TEST_DELAY"),
            minimal("OP_INSTANCE_CREATE", osparams_secret=None),
            minimal("OP_INSTANCE_MULTI_ALLOC", instances=[minimal("OP_INSTANCE_CREATE")]),
        ):
            self.assertIs(redact(values), values)

    def test_read_back(self) -> None:
        """What was written without secrets can be read again."""
        stored = strip_secrets(encode_opcode(decode_opcode(create())))
        self.assertEqual(encode_opcode(load_opcode(stored)), stored)


class LeakTests(SynchronousTestCase):
    def test_repr(self) -> None:
        """An opcode in a log line or a traceback shows no parameters."""
        self.assertEqual(repr(decode_opcode(create())), "<OP_INSTANCE_CREATE>")

    def test_messages(self) -> None:
        """A message about a secret parameter has the type of the wrong value, not the value."""
        for values in (
            minimal("OP_INSTANCE_CREATE", osparams_secret=HUSH),
            minimal("OP_INSTANCE_CREATE", osparams_private=[HUSH]),
            minimal("OP_CLUSTER_SET_PARAMS", osparams_private_cluster={"noop": HUSH}),
            minimal("OP_INSTANCE_MULTI_ALLOC", instances=create()),
        ):
            error = self.assertRaises(OpPrereqError, decode_opcode, values)
            self.assertNotIn(HUSH, error.args[0])
