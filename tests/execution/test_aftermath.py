"""Devices that a job noted and left, cleared away by the next daemon before the job ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.changes import Add
from ganeti_masterd.config.objects import Disk
from ganeti_masterd.execution.aftermath import is_owned
from ganeti_masterd.jobs import model
from ganeti_masterd.jobs.devices import Fate, NotedDevice
from ganeti_masterd.jobs.model import Job, OpState, new_job
from ganeti_masterd.locking.levels import BGL, Level, exclusive, shared
from ganeti_masterd.opcodes import encode_opcode
from ganeti_masterd.rpc.interfaces import Target
from tests.execution.scene import ExecutionScene, dummy

GROUP = "xenvg"


class AftermathScene(ExecutionScene):
    """Base: one job that was cut off, on simulated nodes."""

    def node(self, name: str) -> str:
        return self.store.snapshot.node(name).uuid

    def device(self, name: str, volume: str, fate: Fate = Fate.REMOVE, **more: Any) -> NotedDevice:
        """Returns a volume on a node, as a job would have noted it."""
        disk = {
            "dev_type": "plain",
            "logical_id": [GROUP, volume],
            "size": 16,
            "uuid": volume,
            "mode": "rw",
            "iv_name": "disk/0",
            "params": {},
            "dynamic_params": {},
        }
        return NotedDevice(
            node=self.node(name), node_name=name, owner="web", fate=fate, disk=disk, **more
        )

    async def call(self, name: str, procedure: str, *arguments: Any) -> Any:
        target = Target.of(self.store.snapshot.node(name))
        answers = await self.nodes.call([target], procedure, arguments)
        (answer,) = answers.values()
        self.assertIsNone(answer.error)
        return answer.payload

    async def make(self, device: NotedDevice) -> None:
        await self.call(
            device.node_name, "blockdev_create", device.disk, 16, "web", True, "", False
        )

    async def volumes(self, name: str) -> set[str]:
        return {each.partition("/")[2] for each in await self.call(name, "lv_list", [GROUP])}

    async def cut_off(self, *devices: NotedDevice) -> Job:
        """Has a job that was cut off with these devices end; returns it."""
        job = new_job(self.queue.last_id + 1, [encode_opcode(dummy())], 1.0)
        self.queue.last_id = job.id
        job = model.begin_running(job, 0, 2.0)
        await self.queue.commit([model.note_devices(job, devices)])
        self.executor.clear_away([job.id])
        ended = await self.ends(job.id)
        await self.executor.when_idle()
        self.assertFalse(ended.devices)
        return ended

    def words(self, job: Job) -> str:
        return str(job.ops[0].result)


class AftermathTests(AftermathScene):
    """Devices."""

    async def test_removed(self) -> None:
        """What no disk has goes and is named; what never came to be is not mentioned."""
        here, never = self.device("node2", "made"), self.device("node3", "never")
        await self.make(here)
        job = await self.cut_off(here, never)
        self.assertEqual(job.status, "error")
        self.assertEqual(await self.volumes("node2"), set())
        self.assertIn("removed volume xenvg/made on node node2", self.words(job))
        self.assertNotIn("never", self.words(job))
        self.assertEqual(self.messages(job), [" - INFO: removed volume xenvg/made on node node2"])

    async def test_owned(self) -> None:
        """What a disk of the configuration has stays; on another node it has no right to it."""
        both = [self.device("node2", "kept"), self.device("node3", "kept")]
        for device in both:
            await self.make(device)
        disk = Disk(
            uuid="d1",
            dev_type="plain",
            logical_id=(GROUP, "kept"),
            nodes=(self.node("node2"),),
            size=16,
        )
        await self.store.apply([Add("disks", disk)])
        await self.cut_off(*both)
        self.assertEqual(await self.volumes("node2"), {"kept"})
        self.assertEqual(await self.volumes("node3"), set())

    async def test_node_is_down(self) -> None:
        """What can't be removed is named with its node and the command that does it."""
        await self.make(self.device("node3", "good"))
        uuid = self.node("node2")
        await self.store.change(uuid, lambda now: replace(now, offline=True))
        job = await self.cut_off(self.device("node2", "left"), self.device("node3", "good"))
        command = "gnt-cluster command -n node2 lvremove -f xenvg/left"
        self.assertIn(f"volume xenvg/left on node node2 ({command})", self.words(job))
        self.assertIn("removed volume xenvg/good on node node3", self.words(job))
        self.assertIn(f"      Hint: {command}", self.messages(job))

    async def test_node_is_gone(self) -> None:
        """A node that left the cluster is named, too."""
        gone = replace(self.device("node2", "left"), node="nobody", node_name="node9")
        job = await self.cut_off(gone)
        self.assertIn("volume xenvg/left on node node9", self.words(job))

    async def test_transfers(self) -> None:
        """A transfer is ended before what it holds open is removed, or is named."""
        volume = self.device("node2", "copied")
        await self.make(volume)
        transfers = [
            NotedDevice(
                node=self.node(name), node_name=name, owner="web", fate=Fate.DAEMON, path="import-1"
            )
            for name in ("node2", "node3")
        ]
        uuid = self.node("node3")
        await self.store.change(uuid, lambda now: replace(now, offline=True))
        made: list[str] = []
        call = self.nodes.call

        def noted(targets: Sequence[Target], procedure: str, *more: Any, **options: Any) -> Any:
            if any(target.name == "node2" for target in targets):
                made.append(procedure)
            return call(targets, procedure, *more, **options)

        self.patch(self.nodes, "call", noted)
        job = await self.cut_off(volume, *transfers)
        order = [each for each in made if each in ("impexp_cleanup", "blockdev_remove")]
        self.assertEqual(order, ["impexp_cleanup", "blockdev_remove"])
        self.assertIn("removed volume xenvg/copied", self.words(job))
        command = "gnt-cluster command -n node3 pkill -f import-1"
        self.assertIn(f"transfer import-1 on node node3 ({command})", self.words(job))

    async def test_told(self) -> None:
        """What may be somebody's data stays, and is named if it is there."""
        there = self.device("node2", "data", Fate.TELL)
        await self.make(there)
        job = await self.cut_off(there, self.device("node3", "absent", Fate.TELL))
        self.assertEqual(await self.volumes("node2"), {"data"})
        self.assertIn("Left for you to remove: volume xenvg/data on node node2", self.words(job))
        self.assertNotIn("absent", self.words(job))

    async def test_renamed_back(self) -> None:
        """A device that was renamed gets its old name back, and is not removed."""
        new = self.device("node2", "new", Fate.RENAME, old=(GROUP, "theirs"))
        await self.make(new)
        job = await self.cut_off(new)
        self.assertEqual(await self.volumes("node2"), {"theirs"})
        self.assertIn("old name back to volume xenvg/new", self.words(job))

    async def test_in_use_meanwhile(self) -> None:
        """Names stay reserved, and the instance locked, until all is cleared away."""
        held: list[object] = []
        device = self.device("node2", "made")
        await self.make(device)
        call = self.nodes.call

        def watched(targets: Any, procedure: str, *arguments: Any, **options: Any) -> Any:
            if procedure == "blockdev_remove":
                held.append(self.reservations.owner("volume", f"{GROUP}/made"))
                held.append(self.locks.owned_alone(job_id, Level.INSTANCE))
            return call(targets, procedure, *arguments, **options)

        job_id = self.queue.last_id + 1
        self.patch(self.nodes, "call", watched)
        await self.cut_off(device)
        self.assertEqual(held, [job_id, frozenset({"web"})])

    async def test_waits_for_locks(self) -> None:
        """Locks that somebody holds are waited for."""
        self.locks.acquire(99, Level.CLUSTER, shared(BGL))
        self.locks.acquire(99, Level.NODE, exclusive(self.node("node2")))
        self.timers.later(0.01, self.locks.release_all, 99)
        job = await self.cut_off(self.device("node2", "made"))
        self.assertIn("Nothing that no disk has is left", self.words(job))

    async def test_not_to_be_cancelled(self) -> None:
        """Neither a cancel nor a kill ends it before it is done."""
        self.locks.acquire(99, Level.CLUSTER, shared(BGL))
        self.locks.acquire(99, Level.NODE, exclusive(self.node("node2")))
        job = new_job(5, [encode_opcode(dummy())], 1.0)
        job = model.note_devices(model.begin_running(job, 0, 2.0), [self.device("node2", "x")])
        await self.queue.commit([job])
        self.executor.clear_away([5])
        self.assertFalse(self.executor.kill(5))
        self.assertFalse(self.executor.cancel_waiting(5))
        self.executor.give_up_waiting()
        self.assertEqual(self.executor.under_way(), [5])
        self.locks.release_all(99)
        self.assertEqual((await self.ends(5)).status, "error")
        await self.executor.when_idle()


class OwnershipTests(ExecutionScene):
    """Who has a device."""

    async def test_mirror(self) -> None:
        """A mirror has its minors and the volumes below it, on both of its nodes and no other."""
        one, two, three = (self.store.snapshot.node(f"node{number}").uuid for number in (1, 2, 3))
        child = Disk(uuid="c", dev_type="plain", logical_id=(GROUP, "data"), size=8)
        mirror = Disk(
            uuid="m",
            dev_type="drbd",
            logical_id=(one, two, 11000, 3, 4, "secret"),
            nodes=(one, two),
            children=(child, replace(child, uuid="e", logical_id=(GROUP, "meta"))),
            size=8,
        )
        await self.store.apply([Add("disks", mirror)])

        def owned(node: str, **disk: Any) -> bool:
            device = NotedDevice(node=node, node_name="n", owner="web", fate=Fate.REMOVE, disk=disk)
            return is_owned(self.store.snapshot, device)

        for node, minor, volume in ((one, 3, True), (two, 4, True), (three, 3, False)):
            local = {"local-minor": minor}
            self.assertIs(owned(node, dev_type="drbd", dynamic_params=local), volume)
            self.assertIs(owned(node, dev_type="plain", logical_id=[GROUP, "data"]), volume)
        self.assertFalse(owned(one, dev_type="drbd", dynamic_params={"local-minor": 4}))

    def test_record(self) -> None:
        """Devices are in the job's file only until its end, however it ends."""
        job = Job(id=1, ops=(OpState(input={"OP_ID": "OP_X"}),))
        self.assertNotIn(b"devices", model.encode_job(job))
        running = model.begin_running(job, 0, 1.0)
        device = NotedDevice(
            node="u", node_name="n", owner="web", fate=Fate.DIRECTORY, path="/srv/x"
        )
        noted = model.note_devices(model.note_devices(running, [device]), [device])
        again = model.decode_job(model.encode_job(noted))
        self.assertEqual(again, noted)
        self.assertEqual(again.devices, (device, device))
        for ended in (
            model.succeed(again, 0, None, 2.0),
            model.fail(again, 0, ["OpExecError", []], 2.0),
        ):
            self.assertNotIn(b"devices", model.encode_job(ended))
