"""Instances that were in the making, or had a helper VM in their place, when the daemon died."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.changes import Add, Remove
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.jobs.devices import Fate, NotedDevice, by_hand
from ganeti_masterd.jobs.model import Job
from ganeti_masterd.locking.levels import BGL, Level, exclusive, shared
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.state import SimulatedInstance
from tests.execution.test_aftermath import GROUP, AftermathScene

WRITING = {"connected": True, "exit_status": None}
WELL = {"connected": True, "exit_status": 0}
BADLY = {"connected": True, "exit_status": 1}

REMOVED = "removed instance web, whose disks were not complete"
OFFLINE = (
    "Instance web is marked offline, as it isn't known whether its disks are complete: "
    "'gnt-instance remove web' removes it; if they are, 'gnt-instance modify --online web' makes "
    "it usable"
)


class InTheMakingTests(AftermathScene):
    """An instance on node2 with two disks, which an import fills."""

    async def publish(self) -> list[NotedDevice]:
        """Makes the instance with its disks; returns what the job had noted of it."""
        noted = [self.device("node2", "one"), self.device("node2", "two")]
        for device in noted:
            await self.make(device)
        disks = [
            Disk(
                uuid=f"d-{name}",
                dev_type="plain",
                logical_id=(GROUP, name),
                nodes=(self.node("node2"),),
                size=16,
            )
            for name in ("one", "two")
        ]
        instance = Instance(
            name="web",
            uuid="i-web",
            primary_node=self.node("node2"),
            disks=tuple(disk.uuid for disk in disks),
        )
        changes = [*(Add("disks", disk) for disk in disks), Add("instances", instance)]
        await self.store.apply(changes)
        self.locks.populate(Level.INSTANCE, ["web"])
        return noted

    def itself(self, fate: Fate = Fate.IMPORT, fills: tuple[int, ...] = (0, 1)) -> NotedDevice:
        """Returns the note of the instance."""
        return NotedDevice(
            node=self.node("node2"),
            node_name="node2",
            owner="web",
            fate=fate,
            path="i-web",
            fills=fills,
        )

    def daemons(self, *indices: int, owner: str = "web") -> list[NotedDevice]:
        """Returns the notes of import daemons that fill these disks."""
        return [
            NotedDevice(
                node=self.node("node2"),
                node_name="node2",
                owner=owner,
                fate=Fate.DAEMON,
                path=f"import-{index}",
                fills=(index,),
            )
            for index in indices
        ]

    def tell(self, *statuses: dict[str, Any] | None) -> None:
        """Has node2 tell these of the next daemons that it is asked for, the last for good."""
        for place, status in enumerate(statuses):
            count = None if place == len(statuses) - 1 else 1
            self.nodes.faults.add(
                SimulatedFault(call="impexp_status", kind="garbage", payload=[status], count=count)
            )

    async def left(self) -> tuple[str | None, set[str]]:
        """Returns the state of the instance, None if it is gone; and node2's volumes."""
        now = self.store.snapshot.instances.named("web")
        return None if now is None else now.admin_state, await self.volumes("node2")

    async def test_nothing_arrived(self) -> None:
        """Where not all daemons were there that receive, nobody has sent anything: it goes."""
        for fate in (Fate.IMPORT, Fate.RECEIPT):
            noted = await self.publish()
            job = await self.cut_off(*noted, self.itself(fate), *self.daemons(0))
            self.assertEqual(await self.left(), (None, set()), fate)
            self.assertIn(REMOVED, self.words(job))
            self.assertIn("removed volume xenvg/one on node node2", self.words(job))
            self.assertEqual(self.store.snapshot.disks, {})
            self.assertNotIn("web", self.locks.members(Level.INSTANCE))

    async def test_lacks_data(self) -> None:
        """A disk that was being written to, or whose import failed, isn't complete: it goes."""
        for status in (WRITING, BADLY):
            noted = await self.publish()
            self.tell(WELL, status)
            job = await self.cut_off(*noted, self.itself(), *self.daemons(0, 1))
            self.assertEqual(await self.left(), (None, set()), status)
            self.assertIn(REMOVED, self.words(job))

    async def test_may_be_complete(self) -> None:
        """One that may have all its data stays, can't be started, and is named."""
        for statuses in ((WELL,), (None,), (None, WELL)):
            noted = await self.publish()
            self.tell(*statuses)
            job = await self.cut_off(*noted, self.itself(), *self.daemons(0, 1))
            self.assertEqual(await self.left(), ("offline", {"one", "two"}), statuses)
            self.assertTrue(self.told(job).endswith(OFFLINE), job)
            self.assertEqual(self.messages(job)[-1], f" - WARNING: {OFFLINE}")
            await self.begin_again()

    async def test_node_does_not_answer(self) -> None:
        """What isn't known may be complete."""
        noted = await self.publish()
        self.nodes.faults.add(SimulatedFault(call="impexp_status", kind="error", text="broken"))
        job = await self.cut_off(*noted, self.itself(), *self.daemons(0, 1))
        self.assertEqual(await self.left(), ("offline", {"one", "two"}))
        self.assertIn(OFFLINE, self.told(job))

    async def test_sent_by_another_cluster(self) -> None:
        """Which may have removed it by now: what is still written is waited for, and all stays."""
        waits: list[float] = []
        later = self.timers.later

        def sooner(seconds: float, *what: Any) -> Any:
            waits.append(seconds)
            return later(0.0 if seconds == 1.0 else seconds, *what)

        self.patch(self.timers, "later", sooner)
        noted = await self.publish()
        self.tell(WRITING, WRITING, WELL)
        job = await self.cut_off(*noted, self.itself(Fate.RECEIPT), *self.daemons(0, 1))
        self.assertEqual(await self.left(), ("offline", {"one", "two"}))
        self.assertEqual(waits.count(1.0), 1)
        self.assertIn(OFFLINE, self.told(job))
        await self.begin_again()
        waits.clear()
        noted = await self.publish()
        self.tell(WRITING)
        await self.cut_off(*noted, self.itself(Fate.RECEIPT), *self.daemons(0, 1))
        self.assertEqual(await self.left(), ("offline", {"one", "two"}))
        self.assertEqual(waits.count(1.0), 60)

    async def test_not_published(self) -> None:
        """One that never came into the configuration leaves only devices."""
        device = self.device("node2", "one")
        await self.make(device)
        job = await self.cut_off(device, self.itself())
        self.assertEqual(await self.left(), (None, set()))
        self.assertNotIn("instance web", self.words(job))

    async def test_creation(self) -> None:
        """One that was being made stays, and is named."""
        noted = await self.publish()
        job = await self.cut_off(*noted, self.itself(Fate.CREATION, ()))
        self.assertEqual(await self.left(), ("down", {"one", "two"}))
        self.assertIn(
            "Instance web is in the cluster, marked to be down, and may not be complete: "
            "'gnt-instance remove web' removes it",
            self.told(job),
        )

    async def test_creation_that_runs(self) -> None:
        """One that was started was complete."""
        noted = await self.publish()
        await self.store.change("i-web", lambda now: replace(now, admin_state="up"))
        job = await self.cut_off(*noted, self.itself(Fate.CREATION, ()))
        self.assertEqual(await self.left(), ("up", {"one", "two"}))
        self.assertIn("Nothing that no disk has is left", self.told(job))

    async def test_filled_and_started(self) -> None:
        """One that was filled and started was complete, whatever the job could still note."""
        for fate in (Fate.IMPORT, Fate.RECEIPT):
            noted = await self.publish()
            await self.store.change("i-web", lambda now: replace(now, admin_state="up"))
            job = await self.cut_off(*noted, self.itself(fate), *self.daemons(0))
            self.assertEqual(await self.left(), ("up", {"one", "two"}), fate)
            self.assertIn("Nothing that no disk has is left", self.told(job))
            await self.begin_again()

    async def test_marked_before(self) -> None:
        """One that an earlier restart marked stays, whatever its daemons say, and is named."""
        for fate in (Fate.IMPORT, Fate.RECEIPT):
            noted = await self.publish()
            await self.store.change("i-web", lambda now: replace(now, admin_state="offline"))
            before = self.store.snapshot.instance("web")
            job = await self.cut_off(*noted, self.itself(fate), *self.daemons(0))
            self.assertEqual(await self.left(), ("offline", {"one", "two"}), fate)
            self.assertEqual(self.store.snapshot.instance("web"), before)
            self.assertTrue(self.told(job).endswith(OFFLINE), job)
            await self.begin_again()

    def told(self, job: Job) -> str:
        """Returns the text of the job's result."""
        return str(job.ops[0].result[1][0])

    async def begin_again(self) -> None:
        """Takes the instance away."""
        self.nodes.faults.clear()
        snapshot = self.store.snapshot
        await self.store.apply(
            [Remove("instances", "i-web"), *(Remove("disks", uuid) for uuid in snapshot.disks)]
        )
        for name in await self.volumes("node2"):
            await self.call("node2", "blockdev_remove", self.device("node2", name).disk)
        self.locks.acquire(99, Level.CLUSTER, shared(BGL))
        self.locks.acquire(99, Level.INSTANCE, exclusive("web"))
        self.locks.remove_lock(99, Level.INSTANCE, "web")
        self.locks.release_all(99)


class HelperVMTests(AftermathScene):
    """A helper VM that ran in the place of an instance."""

    def helper(self) -> NotedDevice:
        """Returns the note of the helper VM."""
        return replace(self.device("node2", "boot"), fate=Fate.GUEST)

    async def begin(self) -> None:
        """Has the helper VM run, from a volume that it holds open."""
        await self.store.apply(
            [
                Add(
                    "instances",
                    Instance(
                        name="web",
                        uuid="i-web",
                        primary_node=self.node("node2"),
                        hypervisor="fake",
                        admin_state="up",
                    ),
                )
            ]
        )
        self.locks.populate(Level.INSTANCE, ["web"])
        await self.make(self.device("node2", "boot"))
        state = self.nodes.node("node2").state
        state.instances["web"] = SimulatedInstance("fake", 128, 1, ("/dev/xenvg/boot",))

    async def test_stopped(self) -> None:
        """It is stopped before its disk is removed; the instance is as it was."""
        await self.begin()
        before = self.store.snapshot.instance("web")
        job = await self.cut_off(self.device("node2", "boot"), self.helper())
        self.assertEqual(await self.volumes("node2"), set())
        self.assertNotIn("web", self.nodes.node("node2").state.instances)
        self.assertIn(
            "The restart stopped helper VM of instance web on node node2, removed volume "
            "xenvg/boot on node node2",
            self.words(job),
        )
        self.assertEqual(self.store.snapshot.instance("web"), before)

    async def test_forgotten(self) -> None:
        """Once the job has seen to its end, whatever runs is the instance itself."""
        await self.begin()
        state = self.nodes.node("node2").state
        state.instances["web"] = SimulatedInstance("fake", 128, 1, ())
        await self.cut_off(self.device("node2", "boot"))
        self.assertIn("web", state.instances)

    async def test_node_is_down(self) -> None:
        """One that can't be stopped is named with the command that does it."""
        await self.begin()
        uuid = self.node("node2")
        await self.store.change(uuid, lambda now: replace(now, offline=True))
        job = await self.cut_off(self.device("node2", "boot"), self.helper())
        self.assertIn(
            "helper VM of instance web on node node2 (gnt-instance shutdown web)", self.words(job)
        )

    def test_named(self) -> None:
        """On a new master all is named, and nothing is done."""
        noted = [self.helper(), replace(self.helper(), fate=Fate.IMPORT, path="i-web")]
        self.assertEqual(
            by_hand(noted),
            "helper VM of instance web on node node2 (gnt-instance shutdown web); instance web, "
            "unless its disks are complete, on node node2 (gnt-instance remove web)",
        )
