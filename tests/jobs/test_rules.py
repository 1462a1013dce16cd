"""What filter rules and rate limits decide about a job."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import FilterRule
from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.filtertree import MAX_DEPTH
from ganeti_masterd.jobs.expressions import compile_expression
from ganeti_masterd.jobs.model import Job, OpState
from ganeti_masterd.jobs.rules import Action, compile_rule, in_order, reason_limits, weigh
from ganeti_masterd.jobs.scheduler import Limit


def job(*inputs: dict[str, Any], job_id: int = 7) -> Job:
    """Returns a queued job."""
    return Job(id=job_id, ops=tuple(OpState(input={"OP_ID": "OP_X", **each}) for each in inputs))


def rule(action: Any, *predicates: Any, priority: int = 0, watermark: int = 5, uuid: str = "u"):
    """Returns a filter rule."""
    return FilterRule(
        watermark=watermark, priority=priority, predicates=predicates, action=action, uuid=uuid
    )


class ExpressionTests(SynchronousTestCase):
    """Expressions alone."""

    values = {
        "name": "alpha",
        "size": 5,
        "part": 0.5,
        "flag": True,
        "off": False,
        "list": ["a", 1],
        "none": None,
    }

    def check(self, expected: bool, *expression: Any) -> None:
        self.assertIs(compile_expression(list(expression), "x")(self.values), expected, expression)

    def test_comparisons(self) -> None:
        """Texts compare with texts, numbers with numbers."""
        for operator in ("=", "=="):
            self.check(True, operator, "name", "alpha")
            self.check(False, operator, "name", "al")
            self.check(True, operator, "size", 5)
        self.check(True, "!=", "name", "beta")
        self.check(True, "<", "name", "beta")
        self.check(True, ">", "size", 4)
        self.check(True, "<=", "size", 5)
        self.check(False, ">=", "size", 6)
        self.check(True, "<", "part", 1)

    def test_other_operators(self) -> None:
        """Truth, search and membership."""
        self.check(True, "?", "flag")
        self.check(False, "?", "off")
        self.check(True, "=~", "name", "ph")
        self.check(False, "=~", "name", "^ph")
        self.check(True, "=[]", "list", "a")
        self.check(True, "=[]", "list", 1)
        self.check(False, "=[]", "list", "1")

    def test_joins(self) -> None:
        """And, or, not; an empty and holds, an empty or doesn't."""
        yes, no = ["?", "flag"], ["?", "off"]
        self.check(True, "&")
        self.check(False, "|")
        self.check(True, "&", yes, yes)
        self.check(False, "&", yes, no)
        self.check(True, "|", no, yes)
        self.check(True, "!", no)

    def test_no_answer_never_matches(self) -> None:
        """A missing field, or a value of the wrong type, matches neither way."""
        for unanswerable in (
            ["=", "missing", 1],
            ["=", "size", "5"],
            ["=", "flag", 1],
            ["=", "name", 5],
            ["=", "none", "x"],
            ["?", "size"],
            ["?", "missing"],
            ["=~", "size", "5"],
            ["=[]", "name", "a"],
        ):
            self.check(False, *unanswerable)
            self.check(False, "!", unanswerable)
            self.check(False, "&", ["?", "flag"], unanswerable)
            # What is decided before is not put in question by it.
            self.check(True, "|", ["?", "flag"], unanswerable)
            self.check(True, "!", ["&", ["?", "off"], unanswerable])

    def test_comparisons_only(self) -> None:
        """Where only comparisons count, other operators match neither way."""
        for other in (["=~", "name", "a"], ["?", "flag"], ["=[]", "list", "a"]):
            for expression in (other, ["!", other]):
                matches = compile_expression(expression, "x", comparisons_only=True)
                self.assertFalse(matches(self.values))

    def test_malformed(self) -> None:
        """What is no expression is refused, and the message names the place."""
        for expression, place in (
            (None, "x"),
            ([], "x"),
            ("=", "x"),
            ([["="]], "x[0]"),
            (["=*", "name", "a"], "x[0]"),
            (["=", "name"], "x"),
            (["=", "name", "a", "b"], "x"),
            (["=", 1, "a"], "x[1]"),
            (["=", "name", None], "x[2]"),
            (["=", "name", True], "x[2]"),
            (["=", "name", 1.5], "x[2]"),
            (["!", ["?", "flag"], ["?", "flag"]], "x"),
            (["?"], "x"),
            (["=~", "name", "("], "x[2]"),
            (["=~", "name", 1], "x[2]"),
            (["&", ["?", "flag"], ["|", ["bad"]]], "x[2][1][0]"),
        ):
            error = self.assertRaises(OpPrereqError, compile_expression, expression, "x")
            self.assertTrue(error.args[0].startswith(f"{place}: "), error.args)
            self.assertEqual(error.args[1], "wrong_input")

    def test_deep(self) -> None:
        """Nesting has an end."""
        expression: list[Any] = ["?", "flag"]
        for _ in range(MAX_DEPTH - 1):
            expression = ["!", expression]
        compile_expression(expression, "x")
        self.assertRaises(OpPrereqError, compile_expression, ["!", expression], "x")

    json = st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(max_size=4)
        | st.sampled_from(["&", "|", "!", "?", "=", "=~", "=[]", "<", "name", "size"]),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=12,
    )

    @given(json)
    @settings(deadline=None, max_examples=200)
    def test_any_json(self, document: Any) -> None:
        """Whatever comes, it is refused in order or gives a boolean."""
        try:
            matches = compile_expression(document, "x")
        except OpPrereqError:
            return
        self.assertIsInstance(matches(self.values), bool)


class PredicateTests(SynchronousTestCase):
    """The three predicates."""

    def applies(self, found: Job, *predicates: Any) -> bool:
        return compile_rule(rule("PAUSE", *predicates)).applies(found)

    def test_none(self) -> None:
        """A rule without predicates applies to every job."""
        self.assertTrue(self.applies(job({})))

    def test_all_must_match(self) -> None:
        """All predicates of a rule must match."""
        yes, no = ["jobid", ["=", "id", 7]], ["jobid", ["=", "id", 8]]
        self.assertTrue(self.applies(job({}), yes, yes))
        self.assertFalse(self.applies(job({}), yes, no))

    def test_job_id(self) -> None:
        """The job's id compares with numbers and with the rule's watermark."""
        self.assertTrue(self.applies(job({}), ["jobid", [">", "id", "watermark"]]))
        self.assertFalse(self.applies(job({}, job_id=5), ["jobid", [">", "id", "watermark"]]))
        self.assertTrue(self.applies(job({}, job_id=5), ["jobid", ["<=", "id", "watermark"]]))
        self.assertFalse(self.applies(job({}), ["jobid", ["=", "id", "7"]]))
        self.assertFalse(self.applies(job({}), ["jobid", ["!", ["=~", "id", "7"]]]))
        self.assertFalse(self.applies(job({}), ["jobid", ["!", ["=", "uuid", "x"]]]))

    def test_opcode(self) -> None:
        """One opcode that matches is enough; its own parameters count, common ones don't."""
        found = job({"OP_ID": "OP_A", "nodes": ["n1"]}, {"OP_ID": "OP_B", "size": 3})
        self.assertTrue(self.applies(found, ["opcode", ["=", "OP_ID", "OP_B"]]))
        self.assertTrue(self.applies(found, ["opcode", ["=[]", "nodes", "n1"]]))
        self.assertTrue(self.applies(found, ["opcode", ["=~", "OP_ID", "^OP_[AX]$"]]))
        self.assertFalse(
            self.applies(found, ["opcode", ["&", ["=", "OP_ID", "OP_A"], ["=", "size", 3]]])
        )
        # The opcode without the parameter doesn't match either way, the other one does.
        self.assertTrue(self.applies(found, ["opcode", ["!", ["=", "size", 4]]]))
        self.assertFalse(self.applies(found, ["opcode", ["!", ["=", "size", 3]]]))
        hidden = job({"priority": 10, "comment": "x", "dry_run": False, "debug_level": 0})
        for name, value in (("priority", 10), ("comment", "x"), ("debug_level", 0)):
            self.assertFalse(self.applies(hidden, ["opcode", ["=", name, value]]))
            self.assertFalse(self.applies(hidden, ["opcode", ["!", ["=", name, value]]]))

    def test_watermark_elsewhere(self) -> None:
        """Only a job id may be compared with the watermark."""
        self.assertFalse(self.applies(job({"size": 5}), ["opcode", ["=", "size", "watermark"]]))

    def test_reason(self) -> None:
        """One entry of one opcode that matches is enough."""
        found = job(
            {"reason": [["gnt:user", "why", 3]]},
            {"reason": [["gnt:client:x", "add", 4], ["gnt:opcode:x", "job=7;index=1", 5]]},
        )
        self.assertTrue(self.applies(found, ["reason", ["=", "reason", "why"]]))
        self.assertTrue(self.applies(found, ["reason", ["=", "source", "gnt:client:x"]]))
        self.assertTrue(self.applies(found, ["reason", [">", "timestamp", 4]]))
        self.assertFalse(
            self.applies(
                found, ["reason", ["&", ["=", "source", "gnt:user"], ["=", "reason", "add"]]]
            )
        )
        self.assertFalse(self.applies(found, ["reason", ["=~", "reason", "why"]]))
        self.assertFalse(self.applies(job({}), ["reason", ["=", "reason", "why"]]))
        self.assertFalse(self.applies(job({"reason": [[]]}), ["reason", ["=", "reason", "why"]]))

    def test_malformed_rules(self) -> None:
        """A rule that makes no sense is refused, and the message names the place."""
        for bad, place in (
            (rule("PAUSE", "jobid"), "predicates[0]"),
            (rule("PAUSE", ["jobid"]), "predicates[0]"),
            (rule("PAUSE", ["jobid", ["=", "id", 1]], ["user", ["=", "id", 1]]), "predicates[1]"),
            (rule("PAUSE", ["jobid", ["=", "id", None]]), "predicates[0][1][2]"),
            (rule("PAUSE", priority=-1), "priority"),
            *(
                (rule(action), "action")
                for action in (
                    "pause",
                    "RATE_LIMIT",
                    ["RATE_LIMIT"],
                    ["RATE_LIMIT", 0],
                    ["RATE_LIMIT", True],
                    ["RATE_LIMIT", "1"],
                    ["RATE_LIMIT", 1, 1],
                    ["PAUSE", 1],
                    3,
                    None,
                    {},
                )
            ),
        ):
            error = self.assertRaises(OpPrereqError, compile_rule, bad)
            self.assertTrue(error.args[0].startswith(place + ": "), error.args)


class WeighingTests(SynchronousTestCase):
    """Several rules."""

    def verdict(self, found: Job, *rules: FilterRule) -> tuple[Action, str]:
        verdict = weigh(in_order(rules), found)
        return verdict.action, verdict.rule

    def test_nothing_decides(self) -> None:
        """Without a rule that applies a job is accepted."""
        self.assertEqual(self.verdict(job({})), (Action.ACCEPT, ""))
        other = rule("REJECT", ["jobid", ["=", "id", 8]])
        self.assertEqual(self.verdict(job({}), other), (Action.ACCEPT, ""))

    def test_order(self) -> None:
        """By priority, then watermark, then uuid, wherever they stand."""
        rules = [
            rule("PAUSE", priority=1, watermark=1, uuid="a"),
            rule("REJECT", priority=0, watermark=9, uuid="b"),
            rule("ACCEPT", priority=0, watermark=2, uuid="d"),
            rule("PAUSE", priority=0, watermark=2, uuid="c"),
        ]
        self.assertEqual([one.uuid for one in in_order(rules)], ["c", "d", "b", "a"])
        self.assertEqual(self.verdict(job({}), *rules), (Action.PAUSE, "c"))

    def test_continue(self) -> None:
        """CONTINUE decides nothing."""
        rules = [rule("CONTINUE", uuid="a"), rule("REJECT", uuid="b")]
        self.assertEqual(self.verdict(job({}), *rules), (Action.REJECT, "b"))

    def test_accept_ends_it(self) -> None:
        """After ACCEPT nothing else is looked at."""
        rules = [rule("ACCEPT", uuid="a"), rule("REJECT", uuid="b")]
        self.assertEqual(self.verdict(job({}), *rules), (Action.ACCEPT, "a"))

    def test_nonsense_is_left_out(self) -> None:
        """A rule that can't be understood decides nothing, which is logged."""
        rules = [rule("EXPLODE", uuid="a"), rule("REJECT", uuid="b")]
        self.assertEqual(self.verdict(job({}), *rules), (Action.REJECT, "b"))

    def test_rate_limit(self) -> None:
        """A limit is the deciding rule's own; limits by reason come on top."""
        found = job({"reason": [["gnt:user", "rate-limit:2:backup", 1]]})
        rules = in_order([rule(["RATE_LIMIT", 3], uuid="a"), rule("REJECT", uuid="b")])
        self.assertEqual(
            weigh(rules, found).limits,
            (Limit(("rule", "a"), 3), Limit(("reason", "2:backup"), 2)),
        )
        self.assertEqual(
            weigh(in_order([rule("ACCEPT")]), found).limits, (Limit(("reason", "2:backup"), 2),)
        )

    def test_reasons(self) -> None:
        """Only the exact form limits; the number belongs to the label; each counts once."""
        texts = [
            "rate-limit:2:a",
            "rate-limit:2:a",
            "rate-limit:3:a",
            "rate-limit:1:",
            "rate-limit:1:b:c",
            " rate-limit:2:x",
            "rate-limit:0:x",
            "rate-limit:-1:x",
            "rate-limit:x:x",
            "rate-limit:2",
            "Rate-limit:2:x",
            "rate-limit:2:\u00e4",
            "rate-limit:99999999999:x",
        ]
        entries = [["gnt:user", text, 1] for text in texts]
        found = job({"reason": entries}, {"reason": [["gnt:user", "rate-limit:2:a", 9]]})
        self.assertEqual(
            [limit.key[1] for limit in reason_limits(found)], ["2:a", "3:a", "1:", "1:b:c"]
        )
        self.assertEqual(reason_limits(job({"reason": [["x"], [], ["a", 3, 4]]})), ())
