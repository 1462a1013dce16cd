"""Checks of a node itself, from its answer: version, time, network, set-up. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ganeti_masterd.config.objects import Cluster, Node
from ganeti_masterd.config.ssconf import natural
from ganeti_masterd.constants import NODE_MAX_CLOCK_SKEW, PROTOCOL_VERSION, RELEASE_VERSION
from ganeti_masterd.logical_units.verification.pictures import Picture
from ganeti_masterd.logical_units.verification.report import Finding, warning

VerifyAnswer = Mapping[str, Any]


def unusable(node: Node, answer: Any) -> Finding | None:
    """Returns a finding if an answer can't be used at all, else None."""
    if not answer or not isinstance(answer, Mapping):
        return Finding("ENODERPC", node.name, "unable to verify node: no data returned")
    version = answer.get("version")
    if not isinstance(version, (list, tuple)) or len(version) != 2:
        return Finding("ENODERPC", node.name, "connection to node returned invalid data")
    if version[0] != PROTOCOL_VERSION:
        return Finding(
            "ENODEVERSION",
            node.name,
            f"incompatible protocol versions: master {PROTOCOL_VERSION}, node {version[0]}",
        )
    return None


def setup_faults(node: Node, answer: VerifyAnswer) -> Iterator[Finding]:
    """Yields what is wrong with the node's software, hypervisors and set-up."""
    release = answer["version"][1]
    if release != RELEASE_VERSION:
        yield warning(
            "ENODEVERSION",
            node.name,
            f"software version mismatch: master {RELEASE_VERSION}, node {release}",
        )
    if node.vm_capable:
        yield from _hypervisor_faults(node, answer)
    setup = answer.get("nodesetup", ["Missing NODESETUP results"])
    if setup:
        yield Finding("ENODESETUP", node.name, f"node setup error: {'; '.join(map(str, setup))}")


def time_faults(node: Node, answer: VerifyAnswer, begin: float, end: float) -> Iterator[Finding]:
    """Yields how far the node's clock is off; it was called between ``begin`` and ``end``."""
    try:
        seconds, micro = answer["time"]
        told = seconds + micro / 1000000
    except (KeyError, TypeError, ValueError):
        yield Finding("ENODETIME", node.name, "Node returned invalid time")
        return
    if told < begin - NODE_MAX_CLOCK_SKEW:
        distance = begin - told
    elif told > end + NODE_MAX_CLOCK_SKEW:
        distance = told - end
    else:
        return
    yield Finding(
        "ENODETIME",
        node.name,
        f"Node time diverges by at least {distance:.01f}s from master node time",
    )


def network_faults(node: Node, answer: VerifyAnswer, *, is_master: bool) -> Iterator[Finding]:
    """Yields the nodes that this one can't reach."""
    by_ssh = answer.get("nodelist")
    if by_ssh is None:
        yield Finding("ENODESSH", node.name, "node hasn't returned node ssh connectivity data")
    for other, text in (by_ssh or {}).items():
        yield Finding("ENODESSH", node.name, f"ssh communication with node '{other}': {text}")
    by_tcp = answer.get("node-net-test")
    if by_tcp is None:
        yield Finding("ENODENET", node.name, "node hasn't returned node tcp connectivity data")
    for other in natural(by_tcp or ()):
        text = f"tcp communication with node '{other}': {(by_tcp or {})[other]}"
        yield Finding("ENODENET", node.name, text)
    if "master-ip" not in answer:
        text = "node hasn't returned node master IP reachability data"
        yield Finding("ENODENET", node.name, text)
    elif answer["master-ip"] is False:
        text = (
            "the master node cannot reach the master IP (not configured?)"
            if is_master
            else "cannot reach the master IP"
        )
        yield Finding("ENODENET", node.name, text)


def script_faults(node: Node, answer: VerifyAnswer) -> Iterator[Finding]:
    """Yields missing user scripts and out-of-band programs."""
    broken = answer.get("user-scripts")
    if broken is None:
        yield Finding("ENODEUSERSCRIPTS", node.name, "did not return user scripts information")
    elif broken:
        yield Finding(
            "ENODEUSERSCRIPTS",
            node.name,
            f"user scripts not present or not executable: {', '.join(sorted(broken))}",
        )
    if node.master_candidate or node.master_capable:
        for text in answer.get("oob-paths") or ():
            if text:
                yield Finding("ENODEOOBPATH", node.name, str(text))


def storage_path_faults(
    cluster: Cluster, node: Node, answer: VerifyAnswer, *, is_master: bool
) -> Iterator[Finding]:
    """Yields folders of file storage that can't be used, or aren't allowed."""
    enabled = set(cluster.enabled_disk_templates)
    told = "allowed-file-storage-paths" in answer
    if is_master and enabled & {"file", "sharedfile"}:
        if not told:
            text = "Node did not return forbidden file storage paths"
            yield Finding("ENODEFILESTORAGEPATHS", node.name, text)
        elif forbidden := answer["allowed-file-storage-paths"]:
            text = f"Found forbidden file storage paths: {', '.join(forbidden)}"
            yield Finding("ENODEFILESTORAGEPATHS", node.name, text)
    elif told:
        text = "Node should not have returned forbidden file storage paths"
        yield Finding("ENODEFILESTORAGEPATHS", node.name, text)
    for template, key, code in (
        ("file", "file-storage-path", "ENODEFILESTORAGEPATHUNUSABLE"),
        ("sharedfile", "shared-file-storage-path", "ENODESHAREDFILESTORAGEPATHUNUSABLE"),
        ("gluster", "gluster-storage-path", "ENODEGLUSTERSTORAGEPATHUNUSABLE"),
    ):
        if template in enabled and key in answer:
            text = f"The configured {template} storage path is unusable: {answer[key]}"
            yield Finding(code, node.name, text)


def read_hypervisor(picture: Picture, answer: VerifyAnswer) -> Iterator[Finding]:
    """Fills in a node's running instances and free memory; yields what isn't known."""
    running = answer.get("instancelist")
    if isinstance(running, list):
        picture.running = set(running)
    else:
        text = f"rpc call to node failed (instancelist): {running}"
        yield Finding("ENODEHV", picture.name, text)
    space = answer.get("hvinfo")
    if not isinstance(space, Mapping) or "memory_free" not in space:
        yield Finding("ENODEHV", picture.name, "rpc call to node failed (hvinfo)")
        return
    try:
        picture.memory_free = int(space["memory_free"])
    except (TypeError, ValueError):
        text = "node returned invalid nodeinfo, check hypervisor"
        yield Finding("ENODERPC", picture.name, text)


def bridge_faults(node: Node, answer: VerifyAnswer, wanted: list[str]) -> Iterator[Finding]:
    """Yields bridges that the node lacks."""
    if not wanted:
        return
    missing = answer.get("bridges")
    if not isinstance(missing, list):
        yield Finding("ENODENET", node.name, "did not return valid bridge information")
    elif missing:
        yield Finding("ENODENET", node.name, f"missing bridges: {', '.join(sorted(missing))}")


def ssh_faults(node: Node, answer: Any) -> Iterator[Finding]:
    """Yields what is wrong with the node's SSH keys, on clusters that manage these."""
    if not isinstance(answer, Mapping) or not answer:
        text = "Could not verify the SSH setup of this node."
        yield Finding("ENODESSH", node.name, text)
        return
    for key in ("ssh-setup", "ssh-clutter"):
        if found := answer.get(key):
            text = " ".join(found) if isinstance(found, list) else str(found)
            yield Finding("ENODESSH", "", text)


def _hypervisor_faults(node: Node, answer: VerifyAnswer) -> Iterator[Finding]:
    hypervisors = answer.get("hypervisor")
    if isinstance(hypervisors, Mapping):
        for name, text in hypervisors.items():
            if text is not None:
                fault = f"hypervisor {name} verify failure: '{text}'"
                yield Finding("ENODEHV", node.name, fault)
    rows = answer.get("hvparms")
    if isinstance(rows, list):
        for source, name, text in rows:
            fault = f"hypervisor {name} parameter verify failure (source {source}): {text}"
            yield Finding("ENODEHV", node.name, fault)
