"""The fields of locks, filter rules and exports."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from ganeti_masterd.config.objects import FilterRule
from ganeti_masterd.filtertree import MalformedFilter, read_filter, written
from ganeti_masterd.query.entries import NO_DATA, NULL, Entry
from ganeti_masterd.query.fields import Matching, fields, number, other, text


class ListedExport(Struct, frozen=True):
    """An export on a node, or an entry that says why the node's exports can't be shown."""

    node: str
    export: str | Entry = NO_DATA


def _spelled(expression: Any) -> Any:
    """A rule's expression with ``==`` for ``=``, which mean the same, as luxid spells it."""
    try:
        return written(read_filter(expression, "expression"))
    except MalformedFilter:
        return expression


def _predicates(rule: FilterRule) -> list[Any]:
    return [
        [predicate[0], *map(_spelled, predicate[1:])]
        if isinstance(predicate, (list, tuple)) and predicate
        else predicate
        for predicate in rule.predicates
    ]


LOCK_FIELDS = fields(
    text("name", "Name", of=lambda row: row.name, doc="The lock's level and name."),
    other(
        "mode",
        "Mode",
        of=lambda row: NULL if row.mode is None else row.mode,
        doc="How it is held: exclusive, shared, or not at all.",
    ),
    other("owner", "Owner", of=lambda row: row.owner, doc="The jobs that hold it."),
    other(
        "pending",
        "Pending",
        of=lambda row: [list(waiting) for waiting in row.pending],
        doc="Who waits for it, in order: mode and jobs.",
    ),
)

FILTER_FIELDS = fields(
    text("uuid", "UUID", of=lambda rule: rule.uuid, doc="The rule's UUID."),
    number(
        "watermark",
        "Watermark",
        of=lambda rule: rule.watermark,
        doc="The id of the last job when the rule was added.",
    ),
    number(
        "priority",
        "Priority",
        of=lambda rule: rule.priority,
        doc="Its priority among the rules; the lowest is evaluated first.",
    ),
    other(
        "predicates",
        "Predicates",
        of=_predicates,
        doc="The conditions that a job must meet for the rule to apply.",
    ),
    other("action", "Action", of=lambda rule: rule.action, doc="What is done with such a job."),
    other(
        "reason_trail",
        "ReasonTrail",
        of=lambda rule: list(rule.reason_trail),
        doc="Who added the rule, and why.",
    ),
)

EXPORT_FIELDS = fields(
    text(
        "node",
        "Node",
        of=lambda row: row.node,
        matching=Matching.HOST_NAME,
        doc="The name of the node.",
    ),
    text("export", "Export", of=lambda row: row.export, doc="The name of the export on it."),
)
