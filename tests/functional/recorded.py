"""Clusters as they were when real commands were recorded, and what those commands printed.

The recording is of Debian's Ganeti 3.0.2 with its fake hypervisor on three virtual nodes.
``config.data`` is how it ended; here it is taken back to the states in between that the
lists were asked of.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ganeti_masterd.simulation.state import SimulatedInstance
from ganeti_masterd.simulation.store import NodeStore
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.startup.simulated_root import write_ssconf

DATA = Path(__file__).parents[1] / "data"

#: What differs from run to run and from machine to machine, and a name for it.
_NORMAL = (
    (r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "STAMP"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "UUID"),
    (r" +", " "),
    (r"(?m) $", ""),
)
#: What depends on the nodes' machines.
_MACHINE = (
    (r"\b\d+\.\d[GT]\b|\b\d{3,}M\b|\b\d{4,}\b", "SIZE"),
    (r"(?m)^UUID \d+ \d+ \d+ STAMP \d+ ", "UUID CPUS STAMP CPUS "),
)


def normal(text: str, machine: bool = False) -> str:
    """Returns output without what differs from run to run; ``machine``: nor by machine."""
    for pattern, name in (*_NORMAL, *(_MACHINE if machine else ())):
        text = re.sub(pattern, name, text)
    return text


def recorded(cluster: str) -> list[dict[str, Any]]:
    """Returns the recorded commands of a state (nodes, instances): command, code, out, err."""
    rows: list[dict[str, Any]] = json.loads((DATA / "gnt_lists.json").read_bytes())
    return [row for row in rows if row["cluster"] == cluster]


def fields_of(resource: str) -> dict[str, dict[str, Any]]:
    """Returns the fields that a resource has in 3.0.2, in the order in which it lists them."""
    tables: dict[str, dict[str, Any]] = json.loads((DATA / "query_fields.json").read_bytes())

    def place(name: str) -> list[Any]:
        # Texts and numbers alternate, so that only like is compared with like.
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return {name: tables[resource][name] for name in sorted(tables[resource], key=place)}


def final() -> dict[str, Any]:
    """Returns the configuration at the end of the recording."""
    document: dict[str, Any] = json.loads((DATA / "config.data").read_bytes())
    return document


def rich() -> dict[str, Any]:
    """Returns a configuration with networks, filter rules, groups and nodes of every state."""
    document: dict[str, Any] = json.loads((DATA / "query_config.data").read_bytes())
    return document


def without_instances() -> dict[str, Any]:
    """Returns the configuration after the nodes had been added."""
    document = final()
    document.update(instances={}, disks={})
    for node in document["nodes"].values():
        node.update(ndparams={}, tags=[], serial_no=1)
    return document


#: The first instances: node, whether they are up, how often they had changed, disks (MiB, name).
_FIRST: dict[str, tuple[str, bool, int, tuple[tuple[int, str | None], ...]]] = {
    "instance1": ("node1", True, 2, ()),
    "instance2": ("node2", False, 1, ()),
    "instance3": ("node3", False, 1, ()),
    "instance4": ("node2", True, 3, ((32, None),)),
    "instance5": ("node1", True, 4, ((16, None), (16, "data"))),
    "instance6": ("node3", False, 2, ((16, None),)),
    "instance8": ("node1", False, 1, ()),
}
#: Of them, those that run, by node.
FIRST_RUNNING = {"node1": {"instance1": 128, "instance5": 128}, "node2": {"instance4": 128}}


def with_first_instances() -> dict[str, Any]:
    """Returns the configuration after the first instances had been added."""
    document = without_instances()
    document["cluster"]["beparams"]["default"].update(minmem=128, maxmem=128)
    document["cluster"]["nicparams"]["default"].update(mode="routed", link="100", vlan="")
    nodes = {node["name"]: uuid for uuid, node in document["nodes"].items()}
    known = {one["name"]: one for one in final()["instances"].values()}
    for name, (node, up, serial, disks) in _FIRST.items():
        instance = dict(known.get(name) or known["instance8"], name=name, tags=[])
        if name not in known:
            instance["uuid"] = f"00000000-0000-4000-8000-00000000000{name[-1]}"
        if name != "instance8":
            instance.pop("forthcoming", None)
        parameters = {"minmem": 128, "maxmem": 128, "vcpus": 1} if name == "instance1" else {}
        instance.update(
            primary_node=nodes[node],
            admin_state="up" if up else "down",
            beparams=parameters,
            osparams={},
            disks_active=up,
            serial_no=serial,
            disks=[],
        )
        for index, (size, title) in enumerate(disks):
            uuid = f"00000000-0000-4000-8000-0000000{index}000{name[-1]}"
            instance["disks"].append(uuid)
            document["disks"][uuid] = {
                "uuid": uuid,
                "dev_type": "file",
                "logical_id": ["loop", f"/srv/file-storage/{name}/disk{index}"],
                "children": [],
                "nodes": [nodes[node]],
                "iv_name": f"disk/{index}",
                "size": size,
                "mode": "rw",
                "params": {},
                "serial_no": 1,
                "ctime": 1795487228.0,
                "mtime": 1795487228.0,
                **({} if title is None else {"name": title}),
            }
        document["instances"][instance["uuid"]] = instance
    return document


def prepare(
    root: Path,
    configuration: Mapping[str, Any],
    running: Mapping[str, Mapping[str, int]] | None = None,
    facts: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Makes a root for a daemon with this configuration.

    ``running`` says which instances run, by the node's name, with how much
    memory; ``facts`` what else simulated nodes hold.
    """
    paths = Paths(str(root))
    Path(paths.config).parent.mkdir(parents=True)
    Path(paths.config).write_text(json.dumps(configuration), encoding="utf-8")
    write_ssconf(paths, read_config(paths))
    store = NodeStore(str(root / "simulation" / "nodes.sqlite"), synced=False)
    store.load()
    store.write(
        [
            (node, "instance", name, msgspec.json.encode(SimulatedInstance("fake", memory, 1)))
            for node, instances in (running or {}).items()
            for name, memory in instances.items()
        ]
        + [
            (node, "fact", name, msgspec.json.encode(value))
            for node, values in (facts or {}).items()
            for name, value in values.items()
        ]
    )
    store.close()
