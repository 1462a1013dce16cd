"""Clients that ask for everything that changes something, until their daemon is killed."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import threading
from collections.abc import Callable
from typing import Any

from ganeti_masterd.errors import GenericError
from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.luxi.failures import CallFailed
from tests.functional.ledger import FINAL, Ledger

#: Names opcodes and tags apart, over all clients and daemons of the process.
_numbers = itertools.count(1)

NODES = ("node1", "node2", "node3")

#: Seconds since the epoch after which no test will run any more.
_FAR = 10_000_000_000


class _Severable(BlockingClient):
    """A client whose connection another thread may cut."""

    def sever(self) -> None:
        connection = self._socket
        if connection is not None:
            with contextlib.suppress(OSError):  # closed meanwhile
                connection.shutdown(socket.SHUT_RDWR)


class Client(threading.Thread):
    """One client with a connection and a ledger of its own. It ends with the daemon.

    ``alone``: no other client changes what there is only one of in a cluster.
    ``pause`` is how long it does nothing after each answer, in seconds.
    """

    def __init__(self, path: str, seed: int, *, alone: bool, pause: float = 0.0) -> None:
        super().__init__(name=f"client {seed}", daemon=True)
        self.ledger = Ledger()
        self.answered = 0
        self._master = _Severable(path, timeout=30.0)
        self._pause_between = pause
        self._dead = threading.Event()
        self._random = random.Random(seed)
        self._recent: list[int] = []
        self._ended: list[int] = []
        self._own_tags: list[str] = []
        self.alone = alone

    def run(self) -> None:
        """Asks until there is no answer."""
        actions: list[tuple[int, Callable[[BlockingClient], None]]] = [
            (30, self._submit),
            (12, self._submit_many),
            (14, self._cancel),
            (10, self._archive),
            (8, self._change_priority),
            (16, self._look),
            (12, self._watch),
            (8, self._tag),
            (4, self._untag),
            (4, self._look_at_tags),
        ]
        if self.alone:
            actions += [(6, self._pause), (2, self._sweep)]
        weights = [weight for weight, _ in actions]
        try:
            with self._master as master:
                while not self._dead.wait(self._pause_between):
                    action = self._random.choices(actions, weights)[0][1]
                    action(master)
                    self.answered += 1
        except CallFailed:
            pass
        except GenericError as error:
            self.ledger.faults.append(f"{self.name}: {error!r}")

    def die(self) -> None:
        """Cuts its connection, whatever it waits for, as when its process is killed."""
        self._dead.set()
        self._master.sever()

    def _opcode(self) -> dict[str, Any]:
        roll = self._random.random()
        # Apart by so little that the millionth takes as long as the first.
        duration = round(0.002 + next(_numbers) * 1e-10, 10)
        repeat = self._random.choice((0, 0, 0, 2))
        self.ledger.sent.add(duration)
        self.ledger.rounds[duration] = max(repeat, 1)
        return {
            "OP_ID": "OP_TEST_DELAY",
            "duration": duration,
            "on_master": False,
            "on_nodes": [self._random.choice(NODES)],
            "no_locks": roll < 0.6,
            "repeat": repeat,
            "priority": self._random.choice((-10, 0, 0, 10)),
        }

    def _job(self) -> list[dict[str, Any]]:
        return [self._opcode() for _ in range(self._random.choice((1, 1, 1, 2, 3)))]

    def _acknowledged(self, job: int, ops: list[dict[str, Any]]) -> None:
        if job in self.ledger.jobs:
            self.ledger.faults.append(f"job id {job} was given twice")
        self.ledger.jobs[job] = [op["duration"] for op in ops]
        self._recent = [*self._recent[-40:], job]

    def _submit(self, master: BlockingClient) -> None:
        ops = self._job()
        self._acknowledged(master.submit_job(ops), ops)

    def _submit_many(self, master: BlockingClient) -> None:
        jobs = [self._job() for _ in range(self._random.randint(2, 12))]
        for before, ops in itertools.pairwise(jobs):
            if self._random.random() < 0.2:
                ops[0]["depends"] = [[-1, ["success"]]]
                ops[0]["priority"] = before[0]["priority"]
        for (good, job), ops in zip(master.submit_many_jobs(jobs), jobs, strict=True):
            if good:
                self._acknowledged(job, ops)
            else:
                self.ledger.faults.append(f"a job was refused: {job}")

    def _cancel(self, master: BlockingClient) -> None:
        if self._recent:
            job = self._random.choice(self._recent[-6:])
            done, _ = master.cancel_job(job)
            if done:
                self.ledger.canceled.add(job)

    def _archive(self, master: BlockingClient) -> None:
        if self._ended:
            job = self._ended.pop(self._random.randrange(len(self._ended)))
            self.ledger.archiving.add(job)
            if master.archive_job(job):
                self.ledger.archived.add(job)

    def _sweep(self, master: BlockingClient) -> None:
        self.ledger.swept = True
        master.auto_archive_jobs(-1, 10)

    def _change_priority(self, master: BlockingClient) -> None:
        if self._recent:
            job, priority = self._random.choice(self._recent[-6:]), self._random.randint(-20, 19)
            allowed = self.ledger.priorities.get(job)
            if allowed is not None:
                allowed.add(priority)
            done, _ = master.change_job_priority(job, priority)
            if done:
                self.ledger.priorities[job] = {priority}

    def _look(self, master: BlockingClient) -> None:
        for job, statuses in master.query_jobs(self._recent[-20:] or [1], ["id", "opstatus"]):
            if job in self.ledger.jobs and statuses is not None:
                self.ledger.seen[job] = statuses
                if all(status in FINAL for status in statuses) and job in self._recent:
                    self._recent.remove(job)
                    self._ended = [*self._ended[-40:], job]

    def _watch(self, master: BlockingClient) -> None:
        if not self._recent:
            return
        job = self._random.choice(self._recent)
        known = self.ledger.lines.setdefault(job, {})
        try:
            _, news = master.wait_for_job_change(
                job, ["status"], None, max(known, default=0), timeout=0.05
            )
        except GenericError as error:
            if type(error).__name__ != "JobLost":  # swept meanwhile
                raise
            return
        known.update({entry[0]: entry[3] for entry in news})

    def _tag(self, master: BlockingClient) -> None:
        tag = f"t{next(_numbers)}"
        self.ledger.tags_sent.add(tag)
        if self._run_tags(master, "OP_TAGS_SET", tag) == "success":
            self.ledger.tags.add(tag)
            self._own_tags.append(tag)

    def _untag(self, master: BlockingClient) -> None:
        if self._own_tags:
            tag = self._own_tags.pop()
            self.ledger.tags_dropping.add(tag)
            if self._run_tags(master, "OP_TAGS_DEL", tag) == "success":
                self.ledger.tags_dropped.add(tag)

    def _run_tags(self, master: BlockingClient, op_id: str, tag: str) -> str:
        job = master.submit_job([{"OP_ID": op_id, "kind": "cluster", "tags": [tag]}])
        self.ledger.jobs[job] = [tag]
        status = ""
        while status not in FINAL:
            try:
                (status,), _ = master.wait_for_job_change(job, ["status"], [status], timeout=20.0)
            except GenericError as error:
                if type(error).__name__ != "JobLost":
                    raise
                ((status,),) = master.query_jobs([job], ["status"])
        self.ledger.seen[job] = [status]
        return status

    def _look_at_tags(self, master: BlockingClient) -> None:
        mine = set(master.query_tags("cluster")) & self.ledger.tags_sent
        self.ledger.tags |= mine - self.ledger.tags_dropping

    def _pause(self, master: BlockingClient) -> None:
        until = self._random.choice((None, _FAR + next(_numbers)))
        self.ledger.pauses.add(until)
        master.set_watcher_pause(until)
        self.ledger.pauses, self.ledger.paused = {until}, True
