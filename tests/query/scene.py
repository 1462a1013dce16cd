"""What the tests of queries work on: a rich configuration and nodes that answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from ganeti_masterd.config.document import parse
from ganeti_masterd.config.section import Section
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.jobs.model import Job, decode_job
from ganeti_masterd.locking.listing import LockRow
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.testing.nodes import Failed, ScriptedNodes
from ganeti_masterd.timing import Timers

DATA = Path(__file__).parent.parent / "data"


def recorded() -> dict[str, Any]:
    """Returns luxid's recorded answers, and the nodes' answers to luxid."""
    content: dict[str, Any] = json.loads((DATA / "query_answers.json").read_bytes())
    return content


def rich_snapshot() -> Snapshot:
    """Returns the configuration with which the answers were recorded."""
    return parse((DATA / "query_config.data").read_bytes())


def big_snapshot(nodes: int, instances: int) -> Snapshot:
    """Returns a configuration with so many nodes and instances."""
    base = rich_snapshot()
    node = base.master
    instance = next(one for one in base.instances.values() if one.name == "instance31")
    node_section = {
        f"n{n}": replace(node, uuid=f"n{n}", name=f"node{n}.example.com") for n in range(nodes)
    }
    instance_section = {
        f"i{n}": replace(
            instance, uuid=f"i{n}", name=f"inst{n}.example.com", primary_node=f"n{n % nodes}"
        )
        for n in range(instances)
    }
    sections: dict[str, Section[Any]] = {
        "nodes": Section(node_section),
        "nodegroups": base.groups,
        "instances": Section(instance_section),
    }
    return Snapshot(base.header, replace(base.cluster, master_node="n0"), sections)


def recorded_nodes(nodes: Mapping[str, Mapping[str, Any]]) -> ScriptedNodes:
    """Returns nodes that answer like those that luxid asked."""

    def answer(procedure: str) -> Callable[[Target, list[Any]], Any]:
        def of(target: Target, arguments: list[Any]) -> Any:
            if target.name == "node5.example.com":
                return Failed("Can't connect")
            said = nodes.get(target.name, {}).get(procedure, nodes["*"].get(procedure))
            if said == "units":
                return _node_info(*arguments)
            good, payload = said
            return payload if good else Failed(payload)

        return of

    calls = ("node_info", "all_instances_info", "instance_console_info", "export_list")
    return ScriptedNodes({name: answer(name) for name in calls})


def _node_info(units: list[Any], hypervisors: list[Any]) -> Any:
    size = {"file": (1000, 100), "lvm-vg": (2000, 200), "lvm-pv": (30, 3)}
    storage = [
        {
            "type": kind,
            "name": name,
            "storage_size": size[kind][0],
            "storage_free": size[kind][1],
        }
        for kind, name, _ in units
    ]
    space = {"memory_total": 100, "memory_dom0": 10, "memory_free": 80, "cpu_total": 2}
    space |= {"cpu_dom0": 1, "cpu_nodes": 1, "cpu_sockets": 1}
    return ["boot-1", storage, [space for _ in hypervisors]]


class Jobs:
    """A queue that holds the given jobs; a source of jobs for the engine."""

    def __init__(self, live: Iterable[Job] = (), archived: Iterable[Job] = ()) -> None:
        self.jobs = {job.id: job for job in live}
        self.archive = {job.id: job for job in archived}
        #: How many archived jobs each call asked for.
        self.pages: list[int] = []

    def live(self) -> Mapping[int, Job]:
        return self.jobs

    def archived_ids(self) -> Deferred[list[int]]:
        return succeed(sorted(self.archive))

    def archived(self, job_ids: Iterable[int], /) -> Deferred[Mapping[int, Job]]:
        job_ids = list(job_ids)
        self.pages.append(len(job_ids))
        return succeed({one: self.archive[one] for one in job_ids if one in self.archive})


class State:
    """The cluster's state that isn't in the configuration."""

    drained = False
    watcher_pause: int | None = None


class Scene:
    """An engine and everything that it works on."""

    def __init__(
        self,
        snapshot: Snapshot | None = None,
        nodes: Any = None,
        jobs: Jobs | None = None,
        locks: Iterable[LockRow] = (),
        clock: Any = None,
    ) -> None:
        self.snapshot = snapshot if snapshot is not None else rich_snapshot()
        self.nodes = nodes if nodes is not None else ScriptedNodes()
        self.jobs = jobs if jobs is not None else Jobs()
        self.locks = list(locks)
        self.state = State()
        self.clock = clock if clock is not None else Clock()
        self.engine = QueryEngine(
            Timers(self.clock),
            lambda: self.snapshot,
            self.nodes,
            self.jobs,
            lambda: self.locks,
            self.state,
        )

    def result(self, case: Any, value: Any) -> Any:
        """Returns a value, or a Deferred's result after some turns of the reactor, as JSON."""
        if isinstance(value, Deferred):
            while self.clock.getDelayedCalls():
                self.clock.advance(0)
            value = case.successResultOf(value)
        if hasattr(value, "data"):
            return json.loads(value.data)
        return json.loads(msgspec.json.encode(value))

    def query(self, case: Any, resource: str, fields: list[str], filter_: Any = None) -> Any:
        """Returns the rows of a query, after checking that values and JSON are the same."""
        values = self.result(case, self.engine.query(resource, fields, filter_))
        encoded = self.result(case, self.engine.answer(resource, fields, filter_))
        case.assertEqual(values, encoded)
        return values["data"]


def recorded_job() -> Job:
    """Returns the job that was in luxid's queue."""
    return decode_job(json.dumps(recorded()["job"]).encode())
