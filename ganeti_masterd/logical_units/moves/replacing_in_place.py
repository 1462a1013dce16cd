"""Mirrors get new volumes on a node that they stay on, filled from their other node.

The configuration isn't changed: the new volumes take over the names of the old ones. The order
of the calls is that of real daemon 3.0.2 (docs/procedures.rst).
"""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.constants import LDS_FAULTY
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.jobs.devices import Fate
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.consistency import look_at
from ganeti_masterd.logical_units.disks.noting import disk_devices
from ganeti_masterd.logical_units.disks.renaming import Renamed, rename, rename_back
from ganeti_masterd.logical_units.moves.replacement import (
    ReplacementPlan,
    VolumeSwap,
    swap,
    volumes_of,
)
from ganeti_masterd.logical_units.moves.replacement_steps import (
    check_groups,
    check_peer,
    clear_leftovers,
    find_disk,
    remove_old,
    sync,
)
from ganeti_masterd.logical_units.moves.volumes import assemble, make_volume, take_back_volumes
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.procedure import Procedure, Step, carry_out
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.declarations import Call
from ganeti_masterd.rpc.interfaces import NodeResult


class InPlace:
    """Volumes of an instance's mirrors are replaced on one of its nodes.

    ``option`` is that of ``gnt-instance replace-disks`` which asks for it. ``settles``: the
    disks were just made ready, and may need some seconds to find each other.
    """

    def __init__(
        self,
        ctx: Context,
        instance: Instance,
        plan: ReplacementPlan,
        option: str,
        *,
        settles: bool = False,
    ) -> None:
        disks = ctx.snapshot().disks_of(instance)
        self.ctx = ctx
        self.instance = instance
        self.plan = plan
        self.option = option
        self.settles = settles
        self.disks = disks
        self.swaps = [swap(index, disks[index], ctx.job_id) for index in plan.disks]
        #: What has its new volumes.
        self.done: list[VolumeSwap] = []
        #: Mirrors over volumes that no longer belong to any disk and go in the end.
        self.old: list[tuple[int, Disk]] = []

    def name(self, node: str) -> str:
        """Returns the name of a node."""
        return self.ctx.snapshot().nodes[node].name

    def names(self) -> dict[str, str]:
        """See ``Undertaking.names``."""
        return {
            "instance": self.instance.name,
            "target": self.name(self.plan.target),
            "other": self.name(self.plan.other),
            "option": self.option,
            "new": " ".join(volumes_of(each.fresh for each in self.swaps)),
            "replaced": " ".join(volumes_of(each.aside for each in self.swaps)),
        }

    def find(self) -> None:
        """Finds the disks on both nodes; brings up what isn't on the target."""
        ctx, plan = self.ctx, self.plan
        ctx.feedback("STEP 1/6 Check device existence")
        for each in self.swaps:
            for node in (plan.other, plan.target):
                mends = node == plan.target
                if find_disk(ctx, self.instance, each.disk, each.index, node, mends=mends):
                    self.settles = True
        check_groups(ctx, [each.disk for each in self.swaps], plan.target)

    def check_peer(self) -> None:
        """Checks that the other node has all data."""
        chosen = [(each.index, each.disk) for each in self.swaps]
        check_peer(self.ctx, self.instance, chosen, self.plan.other, settles=self.settles)

    def clear(self) -> None:
        """Removes what an earlier replacement has left on the target."""
        clear_leftovers(self.ctx, self.instance, self.plan.target)

    def allocate(self) -> None:
        """Makes the new volumes."""
        ctx = self.ctx
        ctx.feedback("STEP 3/6 Allocate new storage")
        noted = []
        for each in self.swaps:
            # The old ones have the data until the new ones are in sync.
            for disk, fate in ((each.aside, Fate.TELL), (each.fresh, Fate.REMOVE)):
                noted += disk_devices(
                    ctx, self.instance, disk, (self.plan.target,), itself=False, fate=fate
                )
        ctx.note_devices(noted)
        for each in self.swaps:
            ctx.info(f"Adding storage on {self.name(self.plan.target)} for disk/{each.index}")
            for child in range(len(each.fresh.children)):
                make_volume(ctx, self.instance, each.fresh, child, self.plan.target)

    def deallocate(self) -> None:
        """Removes new volumes that no mirror has."""
        unused = [each.fresh for each in self.swaps if each not in self.done]
        take_back_volumes(self.ctx, self.instance, unused, self.plan.target)

    def exchange(self) -> None:
        """Gives each mirror its new volumes."""
        self.ctx.feedback("STEP 4/6 Changing drbd configuration")
        for each in self.swaps:
            carry_out(EXCHANGE, OneExchange(self, each))
            self.done.append(each)
        self.ctx.release(Level.NODE)

    def keep_exchanged(self) -> None:
        """Says which mirrors keep their new volumes, as they are filled already, or have none."""
        for each in self.swaps:
            answer = look_at(self.ctx, self.instance, each.disk, self.plan.target)
            if answer.failed or answer.payload is None or answer.payload.ldisk_status == LDS_FAULTY:
                raise OpExecError(
                    f"disk/{each.index} of instance {self.instance.name} has no volumes on node "
                    f"{self.name(self.plan.target)}"
                )
        if self.done:
            names = ", ".join(f"disk/{each.index}" for each in self.done)
            old = ", ".join(volumes_of(disk for _, disk in self.old))
            raise OpExecError(
                f"{names} of instance {self.instance.name} has new volumes on node "
                f"{self.name(self.plan.target)} and is filled from node "
                f"{self.name(self.plan.other)}; the old volumes are left there: {old}"
            )

    def remove_old(self) -> None:
        """Removes the volumes that were replaced."""
        labels = [(f"disk/{index}", disk) for index, disk in self.old]
        remove_old(self.ctx, self.instance, labels, self.plan.target, early=self.plan.early)

    def sync(self) -> None:
        """Waits until the mirrors are in sync."""
        chosen = [(each.index, each.disk) for each in self.swaps]
        sync(self.ctx, self.instance, chosen, early=self.plan.early)


class OneExchange:
    """The volumes of one mirror are exchanged."""

    def __init__(self, place: InPlace, swap: VolumeSwap) -> None:
        self.ctx = place.ctx
        self.place = place
        self.swap = swap
        self.node = place.plan.target
        #: The volumes that are there, and how they are set aside.
        self.set_aside: list[Renamed] = []

    def names(self) -> dict[str, str]:
        """See ``Undertaking.names``."""
        return {**self.place.names(), "disk": f"disk/{self.swap.index}"}

    def detach(self) -> None:
        """Takes its volumes from the mirror; does nothing if it has none."""
        self.ctx.info(f"Detaching disk/{self.swap.index} drbd from local storage")
        self._children(calls.BLOCKDEV_REMOVECHILDREN).or_fail(
            f"Can't detach drbd from local storage on node {self.place.name(self.node)} for "
            f"device disk/{self.swap.index}"
        )

    def attach_old(self) -> None:
        """Gives the mirror the volumes that have the configured names."""
        assemble(self.ctx, self.place.instance, self.swap.disk, self.swap.index, self.node)

    def put_aside(self) -> None:
        """Finds the old volumes, says which are missing, and renames the others."""
        ctx, swap, missing = self.ctx, self.swap, []
        for child, volume in enumerate(swap.disk.children):
            answer = look_at(ctx, self.place.instance, swap.disk, self.node, child)
            name = self.place.name(self.node)
            if answer.or_fail(f"Can't find volume {volume.volume} on node {name}") is None:
                missing.append(str(volume.volume))
            else:
                self.set_aside.append((volume, swap.aside.children[child]))
        if missing:
            ctx.info(f"Volumes missing on {self.place.name(self.node)}: {', '.join(missing)}")
        ctx.info("Renaming the old LVs on the target node")
        failure = f"Can't rename old LVs on node {self.place.name(self.node)}"
        rename(ctx, self.node, self.set_aside, failure)

    def put_back(self) -> None:
        """Gives the old volumes their names back."""
        rename_back(self.ctx, self.place.instance, self.node, self.set_aside)

    @property
    def taken_over(self) -> list[Renamed]:
        """The new volumes and the names that they get."""
        return list(zip(self.swap.fresh.children, self.swap.disk.children, strict=True))

    def take_over(self) -> None:
        """Gives the new volumes the configured names."""
        self.ctx.info("Renaming the new LVs on the target node")
        failure = f"Can't rename new LVs on node {self.place.name(self.node)}"
        rename(self.ctx, self.node, self.taken_over, failure)

    def give_up(self) -> None:
        """Gives the new volumes the names under which they were made."""
        rename_back(self.ctx, self.place.instance, self.node, self.taken_over)

    def attach_new(self) -> None:
        """Attaches the new volumes, which are filled from then on."""
        self.ctx.info(f"Adding new mirror component on {self.place.name(self.node)}")
        self._children(calls.BLOCKDEV_ADDCHILDREN).or_fail(
            f"Can't add local storage to drbd on node {self.place.name(self.node)} for device "
            f"disk/{self.swap.index}"
        )
        aside = tuple(renamed for _, renamed in self.set_aside)
        if aside:
            self.place.old.append((self.swap.index, replace(self.swap.disk, children=aside)))

    def detach_new(self) -> None:
        """Takes the new volumes from the mirror; does nothing if it has none."""
        self._children(calls.BLOCKDEV_REMOVECHILDREN).or_fail("the node refuses")

    def _children(self, call: Call[object]) -> NodeResult[object]:
        snapshot, instance, disk = self.ctx.snapshot(), self.place.instance, self.swap.disk
        sent = node_objects.disk(snapshot, disk, instance, self.node)
        children = [
            node_objects.disk_child(snapshot, disk, child, instance, self.node)
            for child in range(len(disk.children))
        ]
        return self.ctx.call_one(self.node, call, (sent, children))


_AGAIN = "gnt-instance replace-disks {option} {instance}"
_REPAIR = "gnt-instance replace-disks -a {instance}"

EXCHANGE: Procedure[OneExchange] = Procedure(
    "Exchange of a disk's volumes",
    (
        Step(
            does="detach the volumes of {disk} on {target}",
            leaves="{disk} of {instance} has no volumes on {target} and is served by {other}",
            finish=_REPAIR,
            run=OneExchange.detach,
            undo=OneExchange.attach_old,
        ),
        Step(
            does="rename the old volumes of {disk} on {target}",
            leaves="{disk} of {instance} has no volumes on {target} and is served by {other}; "
            "the old ones may be called {replaced}",
            finish=_REPAIR,
            run=OneExchange.put_aside,
            undo=OneExchange.put_back,
        ),
        Step(
            does="give the new volumes of {disk} on {target} the names of the old ones",
            leaves="{disk} of {instance} has no volumes on {target} and is served by {other}; "
            "the old ones are called {replaced}",
            finish=_REPAIR,
            run=OneExchange.take_over,
            undo=OneExchange.give_up,
        ),
        Step(
            does="attach the new volumes of {disk} on {target}",
            leaves="{disk} of {instance} may have no volumes on {target}, or is filled from "
            "{other}; the old ones are called {replaced}",
            finish=_REPAIR,
            run=OneExchange.attach_new,
            undo=OneExchange.detach_new,
        ),
    ),
)

IN_PLACE: Procedure[InPlace] = Procedure(
    "Replacement of disks on the same node",
    (
        Step(
            does="find the disks on {other} and {target}, and bring up those that aren't on "
            "{target}",
            leaves="Nothing of {instance} has changed",
            finish=_AGAIN,
            run=InPlace.find,
        ),
        Step(
            does="check that {other} has all data",
            leaves="Nothing of {instance} has changed",
            finish=_AGAIN,
            run=InPlace.check_peer,
            looks=True,
        ),
        Step(
            does="remove what an earlier replacement has left on {target}",
            leaves="Volumes that no disk has may be left on {target}",
            finish=_AGAIN,
            run=InPlace.clear,
        ),
        Step(
            does="make new volumes on {target}",
            leaves="The disks of {instance} have not changed; the volumes {new} may be left on "
            "{target}",
            finish=_AGAIN,
            run=InPlace.allocate,
            undo=InPlace.deallocate,
        ),
        Step(
            does="exchange the volumes of one disk after the other",
            leaves="Disks of {instance} have their old volumes on {target}, new ones that are "
            "filled from {other}, or none",
            finish=_REPAIR,
            run=InPlace.exchange,
            undo=InPlace.keep_exchanged,
            final=True,
        ),
        Step(
            does="remove the old volumes before the disks are in sync, if that was asked for",
            leaves="The disks of {instance} are filled on {target}; the volumes {replaced} may be "
            "left there",
            finish=_REPAIR,
            run=InPlace.remove_old,
            skip=lambda state: not state.plan.early,
        ),
        Step(
            does="wait until the disks are in sync",
            leaves="The disks of {instance} are filled on {target} by themselves; the volumes "
            "{replaced} are left there",
            finish=_REPAIR,
            run=InPlace.sync,
        ),
        Step(
            does="remove the old volumes",
            leaves="The disks of {instance} are replaced; the volumes {replaced} may be left on "
            "{target}",
            finish=_REPAIR,
            run=InPlace.remove_old,
            skip=lambda state: state.plan.early,
        ),
    ),
)
