"""Mirrors get another secondary node, filled from the primary one.

The order of the calls is that of real daemon 3.0.2 (docs/procedures.rst); the configuration
changes in one transaction, up to which everything is taken back.
"""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.config.changes import Change, Update
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.jobs.devices import Fate
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import note_removed
from ganeti_masterd.logical_units.disks.consistency import look_at
from ganeti_masterd.logical_units.moves.replacement import (
    ReplacementPlan,
    on_new_secondary,
    unconnected,
    volumes_of,
)
from ganeti_masterd.logical_units.moves.replacement_steps import (
    Numbered,
    check_groups,
    check_peer,
    find_disk,
    remove_old,
    sync,
)
from ganeti_masterd.logical_units.moves.volumes import (
    assemble,
    make_mirror,
    make_volume,
    take_back_volumes,
)
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.procedure import Procedure, Step
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.interfaces import NodeResult, Target

#: How many minors are tried that no disk has, but a device that is up on the node.
MOST_MINORS = 16


class NewSecondary:
    """An instance's mirrors leave their secondary node for another one.

    ``settles``: the disks were just made ready, and may need some seconds to find each other.
    """

    def __init__(
        self, ctx: Context, instance: Instance, plan: ReplacementPlan, *, settles: bool = False
    ) -> None:
        assert plan.old is not None
        self.ctx = ctx
        self.instance = instance
        self.plan = plan
        self.primary = plan.other
        self.new = plan.target
        self.left = plan.old
        self.settles = settles
        self.before: list[Numbered] = list(enumerate(ctx.snapshot().disks_of(instance)))
        #: The disks as they are to be, from :meth:`allocate` on.
        self.after: list[Numbered] = []

    def name(self, node: str) -> str:
        """Returns the name of a node."""
        return self.ctx.snapshot().nodes[node].name

    def names(self) -> dict[str, str]:
        """See ``Undertaking.names``."""
        return {
            "instance": self.instance.name,
            "primary": self.name(self.primary),
            "old": self.name(self.left),
            "new": self.name(self.new),
            "volumes": " ".join(volumes_of(disk for _, disk in self.before)),
            "minors": ", ".join(str((disk.logical_id or ())[4]) for _, disk in self.after),
        }

    def find(self) -> None:
        """Finds the disks on the primary node, and their volume groups on the new one."""
        self.ctx.feedback("STEP 1/6 Check device existence")
        for index, disk in self.before:
            find_disk(self.ctx, self.instance, disk, index, self.primary)
        check_groups(self.ctx, [disk for _, disk in self.before], self.new)

    def check_peer(self) -> None:
        """Checks that the primary node has all data; the other half may be lost."""
        check_peer(
            self.ctx,
            self.instance,
            self.before,
            self.primary,
            local_only=True,
            settles=self.settles,
        )

    def plan_disks(self, *, look: bool = True) -> None:
        """Reserves a minor for each disk on the new node, and plans the disks.

        With ``look`` a minor that is in use there, though no disk has it, is left alone.
        """
        self.after = []
        for index, disk in self.before:
            minor = self._free_minor(disk) if look else self.ctx.new_minors([self.new])[0]
            self.after.append((index, on_new_secondary(disk, self.primary, self.new, minor)))

    def _free_minor(self, disk: Disk) -> int:
        for _ in range(MOST_MINORS):
            (minor,) = self.ctx.new_minors([self.new])
            planned = on_new_secondary(disk, self.primary, self.new, minor)
            answer = look_at(self.ctx, self.instance, planned, self.new)
            found = answer.or_fail(f"Can't look for free minors on node {answer.node}")
            if found is None:
                return minor
            self.ctx.warning(f"Minor {minor} is in use on node {answer.node}, but no disk has it")
        raise OpExecError(f"Too many minors are in use on node {self.name(self.new)}")

    def allocate(self) -> None:
        """Makes the volumes on the new node."""
        ctx = self.ctx
        ctx.feedback("STEP 3/6 Allocate new storage")
        self.plan_disks()
        note_removed(ctx, self.instance, [disk for _, disk in self.after], nodes=(self.new,))
        for index, disk in self.after:
            ctx.info(f"Adding new local storage on {self.name(self.new)} for disk/{index}")
            for child in range(len(disk.children)):
                make_volume(ctx, self.instance, disk, child, self.new)

    def deallocate(self) -> None:
        """Removes the volumes from the new node."""
        take_back_volumes(self.ctx, self.instance, [disk for _, disk in self.after], self.new)

    def make_mirrors(self) -> None:
        """Brings up the mirrors on the new node, without connecting them."""
        self.ctx.feedback("STEP 4/6 Changing drbd configuration")
        for index, disk in self.after:
            self.ctx.info(f"activating a new drbd on {self.name(self.new)} for disk/{index}")
            make_mirror(self.ctx, self.instance, unconnected(disk), self.new)

    def shut_new(self) -> None:
        """Takes down the mirrors on the new node."""
        for _, disk in self.after:
            self._shut(unconnected(disk), self.new).or_fail("the node refuses")

    def shut_old(self) -> None:
        """Takes down the mirrors on the node that is left; that they stay up is a warning."""
        for index, disk in self.before:
            self.ctx.info(f"Shutting down drbd for disk/{index} on old node")
            answer = self._shut(disk, self.left)
            if answer.failed:
                self.ctx.warning(
                    f"Failed to shutdown drbd for disk/{index} on old node {answer.node}: "
                    f"{answer.error}",
                    hint="Please cleanup this device manually as soon as possible",
                )

    def assemble_old(self) -> None:
        """Brings up the mirrors on the node that was to be left."""
        if not self.ctx.snapshot().nodes[self.left].offline:
            self._assemble(self.left)

    def disconnect(self) -> None:
        """Has the primary node's ends stand alone."""
        self.ctx.info("Detaching primary drbds from the network (=> standalone)")
        arguments = ([self._sent(disk, self.primary) for _, disk in self.before],)
        self.ctx.call_one(self.primary, calls.DRBD_DISCONNECT_NET, arguments).or_fail(
            f"Can't detach the disks from the network on node {self.name(self.primary)}"
        )

    def reconnect(self) -> None:
        """Connects the primary node's ends with the node that was to be left."""
        self._assemble(self.primary)

    def record(self) -> None:
        """Changes the configuration."""
        self.ctx.info("Updating instance configuration")
        # Until the new node is in sync, its data may be worth keeping.
        note_removed(
            self.ctx,
            self.instance,
            [disk for _, disk in self.before],
            nodes=(self.left,),
            fate=Fate.REMOVE if self.plan.early else Fate.TELL,
        )
        record(self.ctx, [disk for _, disk in self.after])
        self.ctx.release(Level.NODE)

    def attach(self) -> None:
        """Connects both ends; the new one is filled from then on."""
        ctx = self.ctx
        ctx.info("Attaching primary drbds to new secondary (standalone => connected)")

        def arguments(target: Target) -> tuple[object, ...]:
            return [self._sent(disk, target.key) for _, disk in self.after], False

        answers = ctx.call((self.primary, self.new), calls.DRBD_ATTACH_NET, arguments)
        failed = [f"{each.node}: {each.error}" for each in answers.values() if each.failed]
        if failed:
            raise OpExecError(
                f"Can't attach drbd disks on node {'; '.join(failed)} (please do a gnt-instance "
                f"info {self.instance.name} to see the status of disks)"
            )

    def remove_old(self) -> None:
        """Removes the volumes from the node that was left."""
        labels = [(str(index), disk) for index, disk in self.before]
        remove_old(self.ctx, self.instance, labels, self.left, early=self.plan.early)

    def sync(self) -> None:
        """Waits until the mirrors are in sync."""
        sync(self.ctx, self.instance, self.after, early=self.plan.early)

    def _sent(self, disk: Disk, node: str) -> dict[str, object]:
        return node_objects.disk(self.ctx.snapshot(), disk, self.instance, node)

    def _shut(self, disk: Disk, node: str) -> NodeResult[object]:
        return self.ctx.call_one(node, calls.BLOCKDEV_SHUTDOWN, (self._sent(disk, node),))

    def _assemble(self, node: str) -> None:
        for index, disk in self.before:
            assemble(self.ctx, self.instance, disk, index, node)


def record(ctx: Context, disks: list[Disk]) -> None:
    """Writes the nodes and minors of disks to the configuration, in one transaction."""

    def moved(disk: Disk) -> Change:
        return Update(
            disk.uuid,
            lambda now: replace(
                now, logical_id=disk.logical_id, nodes=disk.nodes, children=disk.children
            ),
        )

    ctx.change_all([moved(disk) for disk in disks])


_AGAIN = "gnt-instance replace-disks -n {new} {instance}"
_ACTIVATE = "gnt-instance activate-disks {instance}"
_CLEAR_NEW = "gnt-cluster command -n {new} lvremove -f {volumes}"
_CLEAR_OLD = "gnt-cluster command -n {old} lvremove -f {volumes}"

NEW_SECONDARY: Procedure[NewSecondary] = Procedure(
    "Replacement of the secondary node",
    (
        Step(
            does="find the disks on {primary}, and their volume groups on {new}",
            leaves="Nothing of {instance} has changed",
            finish=_AGAIN,
            run=NewSecondary.find,
            looks=True,
        ),
        Step(
            does="check that {primary} has all data",
            leaves="Nothing of {instance} has changed",
            finish=_AGAIN,
            run=NewSecondary.check_peer,
            looks=True,
        ),
        Step(
            does="make volumes on {new}",
            leaves="The disks of {instance} have not changed; the volumes {volumes} may be left on "
            "{new}",
            finish=_CLEAR_NEW,
            run=NewSecondary.allocate,
            undo=NewSecondary.deallocate,
        ),
        Step(
            does="bring up the mirrors on {new}, not yet connected",
            leaves="The disks of {instance} have not changed; on {new} are the volumes {volumes}, "
            "and mirrors with the minors {minors} may be up: take these down first, with drbdsetup",
            finish=_CLEAR_NEW,
            run=NewSecondary.make_mirrors,
            undo=NewSecondary.shut_new,
        ),
        Step(
            does="shut down the mirrors on {old}",
            leaves="The disks of {instance} are on {primary} and {old} and may be down on {old}; "
            "on {new} are volumes, {volumes}, and mirrors with the minors {minors}, that no disk "
            "has",
            finish=_ACTIVATE,
            run=NewSecondary.shut_old,
            undo=NewSecondary.assemble_old,
        ),
        Step(
            does="disconnect the mirrors on {primary}",
            leaves="The disks of {instance} are on {primary} and {old}, down on {old} and not "
            "connected on {primary}; on {new} are volumes, {volumes}, and mirrors with the minors "
            "{minors}, that no disk has",
            finish=_ACTIVATE,
            run=NewSecondary.disconnect,
            undo=NewSecondary.reconnect,
        ),
        Step(
            does="record {new} as the secondary node of all disks, in one transaction",
            leaves="The disks of {instance} are not connected; they are on {primary} and {new}, or "
            "still {old}; on the other of these are volumes, {volumes}, that no disk has, and on "
            "{new} mirrors with the minors {minors}",
            finish=_ACTIVATE,
            run=NewSecondary.record,
            final=True,
        ),
        Step(
            does="connect {primary} and {new}",
            leaves="The disks of {instance} are on {primary} and {new}, but may not be connected; "
            "the volumes {volumes} are left on {old}",
            finish=_ACTIVATE,
            run=NewSecondary.attach,
            shielded=True,
        ),
        Step(
            does="remove the volumes on {old} before the disks are in sync, if that was asked for",
            leaves="The disks of {instance} are filled on {new}; the volumes {volumes} may be left "
            "on {old}",
            finish=_CLEAR_OLD,
            run=NewSecondary.remove_old,
            skip=lambda state: not state.plan.early,
        ),
        Step(
            does="wait until the disks are in sync",
            leaves="The disks of {instance} are filled on {new} by themselves; once they are in "
            "sync, the volumes {volumes} that are left on {old} can go",
            finish=_CLEAR_OLD,
            run=NewSecondary.sync,
        ),
        Step(
            does="remove the volumes on {old}",
            leaves="The disks of {instance} are on {primary} and {new}; the volumes {volumes} may "
            "be left on {old}",
            finish=_CLEAR_OLD,
            run=NewSecondary.remove_old,
            skip=lambda state: state.plan.early,
        ),
    ),
)
