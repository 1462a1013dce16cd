"""The long profile of a fail-over: masters that are killed under load, one after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.failures import CallFailed
from tests.functional.test_failover import Nodes, nodes
from tests.functional.waiting import equal_to, job_is, until

__all__ = ["nodes"]

#: Who is master when, and for how many seconds of load.
MASTERS = ("node1", "node2", "node3", "node1")
LOAD = 8.0

#: Clients that submit jobs, besides the one that changes the configuration.
CLIENTS = 4


class Load:
    """Clients of one master, and what it has acknowledged to them."""

    def __init__(self, socket: str, tag: str) -> None:
        self.jobs: list[int] = []
        self.tags: list[str] = []
        self._socket = socket
        self._tag = tag
        self._threads = [threading.Thread(target=self._guarded, args=[self._change])]
        self._threads += [
            threading.Thread(target=self._guarded, args=[self._submit]) for _ in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()

    def wait(self) -> None:
        """Waits until the master is gone for all clients."""
        for thread in self._threads:
            thread.join()

    def _guarded(self, work: Callable[[BlockingClient], None]) -> None:
        with BlockingClient(self._socket, timeout=30) as client:
            try:
                while True:
                    work(client)
            except CallFailed:  # it was killed
                pass

    def _submit(self, client: BlockingClient) -> None:
        opcode = {"OP_ID": "OP_TEST_DELAY", "duration": 0.05, "on_master": False, "no_locks": True}
        self.jobs.append(self._job(client, [{**opcode, "reason": []}]))

    def _change(self, client: BlockingClient) -> None:
        tag = f"{self._tag}-{len(self.tags)}"
        job = self._job(
            client, [{"OP_ID": "OP_TAGS_SET", "kind": "cluster", "tags": [tag], "reason": []}]
        )
        self.jobs.append(job)
        job_is(client, job, "success")
        self.tags.append(tag)

    @staticmethod
    def _job(client: BlockingClient, opcodes: Sequence[dict[str, Any]]) -> int:
        job: int = client.call("SubmitJob", list(opcodes))
        return job


def test_killed_under_load(nodes: Nodes) -> None:
    """Of all that was acknowledged nothing is lost, no id is given twice, all jobs end."""
    acknowledged: list[int] = []
    tags: list[str] = []
    for before, after in pairwise(MASTERS):
        load = Load(nodes.paths(before).socket, before)
        time.sleep(LOAD)
        nodes.kill_master(before)
        load.wait()
        assert load.jobs
        assert load.tags
        assert not set(load.jobs) & set(acknowledged)
        acknowledged += load.jobs
        tags += load.tags

        nodes.fail_over(after).checked()
        assert set(acknowledged) <= set(nodes.jobs(after))
        held = nodes.cluster.run("gnt-cluster list-tags", after).checked().out.split()
        assert set(tags) <= set(held)
        until(
            "jobs end",
            lambda node=after: set(nodes.jobs(node).values()),
            lambda statuses: statuses <= {"success", "error"},
        )
        # The next fail-over may need it: it is told who is master, and brought up to date.
        nodes.noded("start", before)
        until(
            f"{before} gets config.data",
            lambda node=before: nodes.master_by_config(node),
            equal_to(after),
        )
    assert len(acknowledged) == len(set(acknowledged))
