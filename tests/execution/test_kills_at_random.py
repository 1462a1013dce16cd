"""Jobs that do anything are killed at any moment: nothing of them is left."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from ganeti_masterd.config.reservations import ReservationError
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import OpExecError, OpPrereqError
from ganeti_masterd.execution import run
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, nothing, shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.rpc.calls import TEST_DELAY, VERSION
from ganeti_masterd.simulation.faults import SimulatedFault
from tests.execution.scene import ExecutionScene, dummy

JOBS = 60
#: Seconds of a wait that only a kill ends.
LONG = 3600.0


def nodes_of(ctx: Context) -> list[str]:
    """The uuids of all nodes."""
    return sorted(ctx.snapshot().nodes)


def hang(ctx: Context) -> None:
    """Calls nodes that say nothing."""
    ctx.call(nodes_of(ctx), VERSION)


def call(ctx: Context) -> None:
    """Calls nodes that take a moment."""
    ctx.call(nodes_of(ctx), TEST_DELAY, (0.002,))


def query(ctx: Context) -> None:
    """Asks nodes that say nothing."""
    ctx.ask(lambda engine: engine.query("node", ["name", "mfree"]))


def sleep(ctx: Context) -> None:
    """Sleeps for long."""
    ctx.sleep(LONG)


def nap(ctx: Context) -> None:
    """Sleeps for a moment."""
    ctx.sleep(0.002)


def change(ctx: Context) -> None:
    """Changes the configuration."""
    uuid = nodes_of(ctx)[ctx.job_id % 3]
    ctx.change(uuid, lambda node: node.with_tags([f"job{ctx.job_id}"]))


def reserve(ctx: Context) -> None:
    """Reserves something."""
    ctx.new_mac()
    try:
        ctx.reserve("instance", f"web{ctx.job_id % 4}")
    except ReservationError as error:
        raise OpExecError(str(error))


def submit(ctx: Context) -> None:
    """Submits a job that ends at once."""
    ctx.submit([[dummy(messages="")]])


def give_back(ctx: Context) -> None:
    """Gives locks back."""
    ctx.release(Level.NODE)


def say(ctx: Context) -> None:
    """Says something."""
    ctx.info("said")


def undo(ctx: Context) -> None:
    """Does what must be finished, with a node that says nothing in it."""
    with ctx.shielded():
        ctx.call(nodes_of(ctx)[:1], VERSION, timeout=0.01)
        ctx.sleep(0.002)


STEPS: dict[str, Callable[[Context], None]] = {
    step.__name__: step
    for step in (hang, call, query, sleep, nap, change, reserve, submit, give_back, say, undo)
}


class AnythingAtAll(LogicalUnit[Any]):
    """Does the steps whose names are in ``messages``, holding the nodes in ``fail``."""

    waits_for_resources = True

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        if level is not Level.NODE:
            return super().locks(level, snapshot)
        names = (self.op.fail or "").split()
        uuids = [snapshot.node(name).uuid for name in names if name != "shared"]
        if not uuids:
            return nothing
        return shared(uuids) if "shared" in names else exclusive(uuids)

    def check(self, ctx: Context) -> None:
        if "lacking" in self.op.messages and self.attempt < 2:
            ctx.new_mac()
            raise OpPrereqError("not enough", "temp_insufficient_resources")

    def exec(self, ctx: Context) -> None:
        for name in self.op.messages.split():
            if name in STEPS:
                STEPS[name](ctx)


class Preparing(AnythingAtAll):
    """The same, with a wait before its locks."""

    prepares = True

    def prepare(self, ctx: Context) -> None:
        nap(ctx)
        if "hang" in self.op.messages:
            hang(ctx)


class RandomTests(ExecutionScene):
    """Many jobs, many kills."""

    timeout = 60

    async def test_nothing_is_left(self) -> None:
        """No lock, slot, reservation, hop, call or thread is left; every job has ended."""
        seed = int.from_bytes(os.urandom(4))
        try:
            await self.kill_at_random(random.Random(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise

    async def kill_at_random(self, chance: random.Random) -> None:
        self.patch(run, "RESOURCES_PAUSE", 0.005)
        for procedure in ("version", "node_info"):
            self.nodes.faults.add(SimulatedFault(kind="silent", call=procedure))
        jobs = []
        for _ in range(JOBS):
            self.patch_unit("OP_TEST_DUMMY", chance.choice((AnythingAtAll, Preparing)))
            jobs.append(await self.submit(*(self.anything(chance) for _ in range(2))))
        while not all(self.queue.jobs[job_id].finished for job_id in jobs):
            if chance.random() < 0.1:
                self.journal.held = not self.journal.held
                self.journal.release()
            if chance.random() < 0.02:
                self.executor.set_limit(chance.randint(1, 4))
            if chance.random() < 0.5:
                self.kill(chance.choice(jobs), chance.random() < 0.7)
            await self.tick()
        self.journal.held = False
        self.journal.release()
        for job_id in list(self.queue.jobs):
            await self.ends(job_id)
        await self.executor.when_idle()
        self.assertEqual((self.locks.rows(), len(self.reservations)), ([], 0))
        self.assertEqual((len(self.hops), self.threads.busy), (0, 0))
        self.assertEqual((len(self.nodes.exchanges), len(self.queue.opcodes)), (0, 0))
        scheduler = self.queue.scheduler
        self.assertEqual(scheduler.running | scheduler.blocked, set())
        ends = {self.queue.jobs[job_id].status for job_id in jobs}
        self.assertLessEqual({"error", "canceled"}, ends)

    def kill(self, job_id: int, kill: bool) -> None:
        """Kills or cancels a job; what becomes of it is seen in its end."""
        asked: Deferred[Any] = self.control.cancel(job_id, kill=kill)
        asked.addErrback(self.fail)

    def anything(self, chance: random.Random) -> Any:
        """Returns an opcode with any steps and any locks."""
        steps = chance.choices([*STEPS, "lacking"], k=chance.randint(0, 5))
        locks = chance.sample(["node1", "node2", "node3", "shared"], chance.randint(0, 3))
        return dummy(messages=" ".join(steps), fail=" ".join(locks))
