"""Filter rules and rate limits: what they decide about a job.

See protocol/queue.rst, Order and filter rules, and gnt-filter(8).

Pure. Rules are weighed in the order of priority, watermark and uuid. A rule
applies to a job if all its predicates match; the first that applies and isn't
CONTINUE decides. A reason ``rate-limit:N:label`` limits a job besides, whatever
the rules say. What decides about a job never changes while it lives, but for
the rules themselves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct
from twisted.logger import Logger

from ganeti_masterd.config.objects import FilterRule
from ganeti_masterd.errors import OpPrereqError, prereq
from ganeti_masterd.jobs.expressions import compile_expression
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.jobs.scheduler import Limit
from ganeti_masterd.opcodes.base import COMMON_PARAMETERS

log = Logger()

#: Whether a predicate matches a job.
RulePredicate = Callable[[Job], bool]

_RATE_LIMIT = re.compile(r"rate-limit:([0-9]{1,9}):([\x00-\x7f]*)", re.DOTALL)
_RATE_LIMIT_START = "rate-limit:"

#: Parameters that the opcode predicate can't see: they are not the opcode's own.
_HIDDEN = frozenset(COMMON_PARAMETERS)


class Action(Enum):
    """What a rule does with the jobs to which it applies."""

    ACCEPT = "ACCEPT"
    CONTINUE = "CONTINUE"
    PAUSE = "PAUSE"
    REJECT = "REJECT"
    RATE_LIMIT = "RATE_LIMIT"


class JobRule(Struct, frozen=True):
    """A filter rule that has been understood; ``most`` counts for RATE_LIMIT alone."""

    uuid: str
    order: tuple[int, int, str]
    predicates: tuple[RulePredicate, ...]
    action: Action
    most: int = 0

    def applies(self, job: Job) -> bool:
        """Whether all predicates match."""
        return all(predicate(job) for predicate in self.predicates)


class RuleVerdict(Struct, frozen=True):
    """What becomes of a queued job: ``action`` is ACCEPT, PAUSE or REJECT.

    ``limits`` are those that an accepted job is under, ``rule`` is the uuid of the
    rule that decided, empty for none.
    """

    action: Action = Action.ACCEPT
    limits: tuple[Limit, ...] = ()
    rule: str = ""


ACCEPTED = RuleVerdict()


def compile_rule(rule: FilterRule) -> JobRule:
    """Returns a rule, understood.

    Raises ``OpPrereqError`` with ``wrong_input`` for one that makes no sense, naming
    the place.
    """
    if rule.priority < 0:
        raise prereq(f"priority: expected 0 or more, not {rule.priority}")
    action, most = _action(rule.action)
    predicates = tuple(
        _predicate(document, f"predicates[{n}]", rule.watermark)
        for n, document in enumerate(rule.predicates)
    )
    return JobRule(rule.uuid, (rule.priority, rule.watermark, rule.uuid), predicates, action, most)


def in_order(rules: Iterable[FilterRule]) -> list[JobRule]:
    """Returns rules as they are weighed. One that makes no sense is logged and left out."""
    understood = []
    for rule in rules:
        try:
            understood.append(compile_rule(rule))
        except OpPrereqError as error:
            log.error(
                "Filter rule {uuid} makes no sense and decides nothing: {fault}",
                uuid=rule.uuid,
                fault=error.args[0],
            )
    return sorted(understood, key=lambda rule: rule.order)


def weigh(rules: Sequence[JobRule], job: Job) -> RuleVerdict:
    """Returns what rules (in order) and the job's own reasons decide about it."""
    limits = reason_limits(job)
    for rule in rules:
        if rule.action is Action.CONTINUE or not rule.applies(job):
            continue
        if rule.action is Action.RATE_LIMIT:
            own = Limit(("rule", rule.uuid), rule.most)
            return RuleVerdict(Action.ACCEPT, (own, *limits), rule.uuid)
        return RuleVerdict(rule.action, limits, rule.uuid)
    return RuleVerdict(limits=limits) if limits else ACCEPTED


def reason_limits(job: Job) -> tuple[Limit, ...]:
    """Returns the limits that the job's reasons ask for, each once."""
    limits: dict[Limit, None] = {}
    for op in job.ops:
        for entry in op.input.get("reason") or ():
            text = entry[1] if len(entry) > 1 else None
            if isinstance(text, str) and text.startswith(_RATE_LIMIT_START):
                match = _RATE_LIMIT.fullmatch(text)
                if match and (most := int(match[1])) > 0:
                    limits[Limit(("reason", f"{most}:{match[2]}"), most)] = None
    return tuple(limits)


def _action(document: Any) -> tuple[Action, int]:
    if isinstance(document, str) and document in Action.__members__:
        action = Action[document]
        if action is not Action.RATE_LIMIT:
            return action, 0
    if (
        isinstance(document, (list, tuple))
        and len(document) == 2
        and document[0] == Action.RATE_LIMIT.value
        and type(document[1]) is int
        and document[1] > 0
    ):
        return Action.RATE_LIMIT, document[1]
    raise prereq(
        "action: expected ACCEPT, CONTINUE, PAUSE, REJECT or [RATE_LIMIT, n] with n above 0, "
        f"not {document!r}"
    )


def _predicate(document: Any, where: str, watermark: int) -> RulePredicate:
    if not isinstance(document, (list, tuple)) or len(document) != 2:
        raise prereq(f"{where}: expected a list of a name and an expression")
    name, expression = document
    where = f"{where}[1]"
    if name == "jobid":
        by_id = compile_expression(
            expression, where, comparisons_only=True, substitutes={"watermark": watermark}
        )
        return lambda job: by_id({"id": job.id})
    if name == "opcode":
        by_opcode = compile_expression(expression, where)
        return lambda job: any(by_opcode(_own_parameters(op.input)) for op in job.ops)
    if name == "reason":
        by_reason = compile_expression(expression, where, comparisons_only=True)
        return lambda job: any(
            by_reason(dict(zip(("source", "reason", "timestamp"), entry, strict=False)))
            for op in job.ops
            for entry in op.input.get("reason") or ()
        )
    raise prereq(f"{where[:-3]}: expected jobid, opcode or reason, not {name!r}")


def _own_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _HIDDEN}
