"""LUXI methods that query the cluster. None of them changes anything or takes locks."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.errors import prereq
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.query.resources import TAGGED
from ganeti_masterd.query.sources import named
from ganeti_masterd.requests.daemon import Daemon
from ganeti_masterd.requests.methods import method

_TAG_KINDS = ", ".join(TAGGED)


@method("Query")
def query(daemon: Daemon, peer: Peer, what: str, fields: list[str], filter_: Any) -> Any:
    """Answers ``{"fields", "data"}`` for a resource; a null filter selects everything."""
    return daemon.engine.answer(what, fields, filter_)


@method("QueryFields")
def query_fields(daemon: Daemon, peer: Peer, what: str, names: list[str] | None) -> Any:
    """Answers the definitions of a resource's fields; null selects all fields."""
    return daemon.engine.query_fields(what, names)


@method("QueryNodes")
def query_nodes(
    daemon: Daemon, peer: Peer, names: list[str], fields: list[str], locking: bool
) -> Any:
    """Answers a row for each node, in the classic form."""
    return daemon.engine.nodes(names, fields, locking)


@method("QueryInstances")
def query_instances(
    daemon: Daemon, peer: Peer, names: list[str], fields: list[str], locking: bool
) -> Any:
    """Answers a row for each instance, in the classic form."""
    return daemon.engine.instances(names, fields, locking)


@method("QueryGroups")
def query_groups(
    daemon: Daemon, peer: Peer, names: list[str], fields: list[str], locking: bool
) -> Any:
    """Answers a row for each node group, in the classic form."""
    return daemon.engine.groups(names, fields, locking)


@method("QueryNetworks")
def query_networks(
    daemon: Daemon, peer: Peer, names: list[str], fields: list[str], locking: bool
) -> Any:
    """Answers a row for each network, in the classic form."""
    return daemon.engine.networks(names, fields, locking)


@method("QueryExports")
def query_exports(daemon: Daemon, peer: Peer, nodes: list[str], locking: bool) -> Any:
    """Answers ``[node, export]`` for each export on the nodes."""
    return daemon.engine.exports(nodes, locking)


@method("QueryClusterInfo", any_arguments=True)
def query_cluster_info(daemon: Daemon, peer: Peer) -> Any:
    """Answers the cluster's parameters, and the protocol versions."""
    return daemon.engine.cluster_info()


@method("QueryConfigValues")
def query_config_values(daemon: Daemon, peer: Peer, fields: list[str]) -> Any:
    """Answers single values of the configuration; null for an unknown name."""
    return daemon.engine.config_values(fields)


@method("QueryTags")
def query_tags(daemon: Daemon, peer: Peer, kind: str, name: str) -> Any:
    """Answers the tags of one object; the name is ignored for the cluster."""
    snapshot = daemon.store.snapshot
    if kind == "cluster":
        return sorted(snapshot.cluster.tags)
    if kind not in TAGGED:
        raise prereq(f"QueryTags: argument kind: expected one of {_TAG_KINDS}, not {kind!r}")
    return sorted(named(snapshot, TAGGED[kind], name).tags)
