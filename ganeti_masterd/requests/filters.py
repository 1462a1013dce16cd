"""LUXI methods of the queue's filter rules.

See protocol/luxi.rst, Methods and protocol/queue.rst, Order and filter rules.
"""

from __future__ import annotations

import uuid as uuids
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from ganeti_masterd.config.changes import Add, Change, Update
from ganeti_masterd.config.objects import FilterRule
from ganeti_masterd.config.store import ChangeAuthor
from ganeti_masterd.errors import GenericError, OpPrereqError, prereq
from ganeti_masterd.jobs.model import nanoseconds
from ganeti_masterd.jobs.rules import compile_rule
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.arguments import ReasonTrail, RuleId, RuleIdOrNew
from ganeti_masterd.requests.daemon import Daemon
from ganeti_masterd.requests.methods import method

#: The source in the reason entry that is added to each rule, as luxid does.
REASON_SOURCE = "luxid"


@method("QueryFilters")
def query_filters(daemon: Daemon, peer: Peer, uuids: list[str] | None, fields: list[str]) -> Any:
    """Answers a row for each filter rule."""
    return daemon.engine.filters(uuids, fields)


@method("ReplaceFilter", changes=True)
def replace_filter(
    daemon: Daemon,
    peer: Peer,
    uuid: RuleIdOrNew,
    priority: int,
    predicates: list[Any],
    action: Any,
    reason: ReasonTrail,
) -> Deferred[str]:
    """Sets a filter rule, or creates it for null or an unknown UUID; answers its UUID.

    The rule's watermark is the id of the last job submitted so far.
    """
    rule = FilterRule(
        watermark=daemon.queue.last_id,
        priority=priority,
        predicates=tuple(predicates),
        action=action,
        reason_trail=(*reason, (REASON_SOURCE, "", nanoseconds(daemon.queue.timers.now()))),
        uuid=uuid or str(uuids.uuid4()),
    )
    try:
        compile_rule(rule)
    except OpPrereqError as error:
        raise prereq(f"ReplaceFilter: argument {error.args[0]}")

    def renewed(current: FilterRule) -> FilterRule:
        return replace(rule, rest=current.rest, shape=current.shape)

    known = rule.uuid in daemon.store.tip.filters
    change: Change = Update(rule.uuid, renewed) if known else Add("filters", rule)
    author = ChangeAuthor(uid=peer.uid)
    return daemon.store.apply([change], author).addCallback(lambda _: rule.uuid)


@method("DeleteFilter", changes=True)
def delete_filter(daemon: Daemon, peer: Peer, uuid: RuleId) -> Deferred[None]:
    """Removes a filter rule; jobs that it held back may start."""
    if uuid not in daemon.store.tip.filters:
        raise GenericError(f"Filter rule {uuid} doesn't exist")
    author = ChangeAuthor(uid=peer.uid)
    return daemon.store.remove("filters", uuid, author=author).addCallback(lambda _: None)
