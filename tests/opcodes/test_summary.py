"""The summary of an opcode, as luxid 3.0.2 shows it in job lists."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.opcodes import decode_opcode, summary

from .facts import minimal


class SummaryTests(SynchronousTestCase):
    def test_recorded(self) -> None:
        """Summaries equal the recorded ones."""
        for op_id, parameters, wanted in (
            ("OP_CLUSTER_POST_INIT", {}, "CLUSTER_POST_INIT"),
            ("OP_TAGS_DEL", {}, "TAGS_DEL"),
            ("OP_TAGS_SEARCH", {"pattern": "["}, "TAGS_SEARCH([)"),
            ("OP_NODE_ADD", {"node_name": "node2"}, "NODE_ADD(node2)"),
            ("OP_INSTANCE_CREATE", {"instance_name": "i1"}, "INSTANCE_CREATE(i1)"),
            ("OP_INSTANCE_RENAME", {}, "INSTANCE_RENAME"),
            ("OP_GROUP_RENAME", {}, "GROUP_RENAME"),
            ("OP_TEST_ALLOCATOR", {"iallocator": "hail"}, "TEST_ALLOCATOR(hail)"),
            ("OP_TEST_ALLOCATOR", {}, "TEST_ALLOCATOR(None)"),
            ("OP_QUERY", {"what": "os"}, "QUERY(os)"),
        ):
            opcode = decode_opcode(minimal(op_id, **parameters))
            self.assertEqual(summary(opcode), wanted)

    def test_numbers(self) -> None:
        """Numbers always have a point, and an exponent if they are small or large."""
        for duration, wanted in (
            (0, "0.0"),
            (1, "1.0"),
            (-3, "-3.0"),
            (0.1, "0.1"),
            (0.01, "1.0e-2"),
            (0.05, "5.0e-2"),
            (-0.05, "-5.0e-2"),
            (0.099999, "9.9999e-2"),
            (1e-05, "1.0e-5"),
            (5e-324, "5.0e-324"),
            (1 / 3, "0.3333333333333333"),
            (100, "100.0"),
            (1234567.5, "1234567.5"),
            (9999999.0, "9999999.0"),
            (10000000.0, "1.0e7"),
            (12345678.9, "1.23456789e7"),
            (123456789012345678, "1.2345678901234568e17"),
            (1e22, "1.0e22"),
            (1e100, "1.0e100"),
        ):
            opcode = decode_opcode(minimal("OP_TEST_DELAY", duration=duration))
            self.assertEqual(summary(opcode), f"TEST_DELAY({wanted})")
