"""LUXI methods of the queue's filter rules: asked for, and refused to be changed yet."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.errors import OpPrereqError, prereq
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.daemon import Daemon
from ganeti_masterd.requests.methods import method


def _not_built(name: str) -> OpPrereqError:
    return prereq(f"{name} can't be answered by this daemon yet")


@method("QueryFilters")
def query_filters(daemon: Daemon, peer: Peer, uuids: list[str] | None, fields: list[str]) -> Any:
    """Answers a row for each filter rule."""
    return daemon.engine.filters(uuids, fields)


@method("ReplaceFilter", changes=True)
def replace_filter(
    daemon: Daemon,
    peer: Peer,
    uuid: str | None,
    priority: int,
    predicates: list[Any],
    action: Any,
    reason: list[Any],
) -> Any:
    """Would set a filter rule."""
    raise _not_built("ReplaceFilter")


@method("DeleteFilter", changes=True)
def delete_filter(daemon: Daemon, peer: Peer, uuid: str) -> Any:
    """Would remove a filter rule."""
    raise _not_built("DeleteFilter")
