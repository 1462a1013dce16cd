"""A helper VM: it runs in an instance's place, with its disks, from an image of the cluster's.

It boots from a temporary disk, which comes before those of the instance. Only the job knows of
that disk: the configuration of the instance isn't changed. The VM shuts itself down at the end.
Texts and the order of calls are those of real daemon 3.0.2; where ours differs,
docs/differences.rst says so.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any
from uuid import uuid4

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import DEFAULT_SHUTDOWN_TIMEOUT
from ganeti_masterd.errors import ECODE_STATE, OpExecError, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import current
from ganeti_masterd.logical_units.disks.making import create_disks, exclusive_storage
from ganeti_masterd.logical_units.disks.noting import helper_vm
from ganeti_masterd.logical_units.disks.syncing import sync_paused
from ganeti_masterd.logical_units.instances import power
from ganeti_masterd.logical_units.instances.base import is_running
from ganeti_masterd.logical_units.instances.images import image_size
from ganeti_masterd.logical_units.instances.requirements import require_memory, require_room
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.polling import poll, time_left
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.rpc import calls

#: Seconds between two looks until it is up; until it is done, a part of the time so far.
BOOT_PACE = 5.0
WORK_PART = 0.1

#: How many looks one after the other its node may leave unanswered.
UNANSWERED_LOOKS = 10


class HelperImage(Struct, frozen=True):
    """What a helper VM boots from: a file of its node or a URL, and its size in MiB."""

    place: str
    size: int


class _Seen(Enum):
    """What the node says of the helper VM."""

    NOTHING = "the node doesn't know it"
    RUNNING = "it runs"
    ENDED = "it has shut itself down"


def find_image(ctx: Context, place: str, node: str, beside: dict[str, int]) -> HelperImage:
    """Returns an image for which a node (its uuid) has room, beside the MiB of other new disks.

    ``beside`` are those by volume group. Raises ``OpPrereqError``.
    """
    group = ctx.snapshot().cluster.volume_group_name
    if not group:
        raise prereq(
            "Cluster does not support lvm-based instances: a helper VM needs a volume to boot from",
            ECODE_STATE,
        )
    image = HelperImage(place, image_size(ctx, place, node))
    require_room(ctx, (node,), {**beside, group: beside.get(group, 0) + image.size})
    return image


def require_memory_for_it(ctx: Context, instance: Instance) -> None:
    """Refuses a helper VM for which the primary node has no memory left; ``OpPrereqError``."""
    needed = int(effective.backend(ctx.snapshot().cluster, instance)["minmem"])
    reason = f"starting the helper VM of instance {instance.name}"
    require_memory(ctx, instance.primary_node, instance.hypervisor, needed, reason)


def boots_from_disk(hypervisor: str, filled: Params) -> bool:
    """Whether these parameters of a hypervisor, filled, make a machine boot from its first disk."""
    order = str(filled.get("boot_order", "disk"))
    # Xen has a letter for each kind of device.
    return order.startswith("c") if hypervisor == "xen-hvm" else order == "disk"


class HelperVM:
    """A helper VM in the place of an instance that doesn't run, and whose disks are ready.

    ``doing`` says what it is for, before each line of the log; ``reason`` is the opcode's.
    """

    def __init__(
        self, ctx: Context, instance: Instance, image: HelperImage, *, doing: str, reason: Any
    ) -> None:
        self._ctx = ctx
        self._instance = instance
        self._image = image
        self._doing = doing
        self._reason = list(reason)
        self._node = ctx.snapshot().nodes[instance.primary_node]
        self._disk = _boot_disk(ctx.snapshot(), instance, image)
        self._note = helper_vm(ctx, instance, self._disk)
        self._unanswered = 0
        #: Whether it may run although all that could be done to stop it was done.
        self.left = False

    def run(
        self,
        *,
        boots_in: float,
        ends_in: float,
        made: Callable[[], object] = lambda: None,
    ) -> None:
        """Boots it and waits for its end; takes back whatever was made, however that goes.

        ``boots_in`` are the seconds until it has to be up, ``ends_in`` those until it has to have
        shut itself down from then on. ``made`` is called once its disk is there. Raises
        ``OpExecError``; :attr:`left` says whether it may run on then.
        """
        with UndoStack(self._ctx) as undo:
            self._make_disk(undo)
            made()
            self._boot(undo, boots_in)
            self._wait_for_end(ends_in)
            self._say("Regular cleanup of temporary disk")
            gone = undo.run()
        if self.left:
            raise OpExecError(self._named(f"Could not shut down {self._called}"))
        if gone:
            self._say("Temporary disk removed")
        self._say("Helper VM execution completed")

    @property
    def _called(self) -> str:
        return f"helper VM with image {self._image.place}"

    def _named(self, text: str) -> str:
        return f"{self._doing}: {text}"

    def _say(self, text: str) -> None:
        self._ctx.feedback(self._named(text))

    def _sent(self) -> dict[str, Any]:
        """Returns what the node is sent: the instance, with one disk more before its own."""
        snapshot, now = self._ctx.snapshot(), current(self._ctx, self._instance)
        with_it = replace(now, disks=(self._disk.uuid, *now.disks))
        disks = (self._disk, *snapshot.disks_of(now))
        return node_objects.instance(snapshot, with_it, self._node.uuid, disks=disks)

    def _sent_disk(self) -> dict[str, Any]:
        snapshot = self._ctx.snapshot()
        return node_objects.disk(snapshot, self._disk, self._instance, self._node.uuid)

    def _make_disk(self, undo: UndoStack) -> None:
        ctx, node = self._ctx, self._node
        self._say("Attempting to create temporary disk")
        create_disks(ctx, undo, self._instance, [self._disk])
        self._say("Temporary disk created")
        self._say("Activating helper VM's temporary disks")
        ctx.call_one(
            node.uuid, calls.BLOCKDEV_ASSEMBLE, (self._sent_disk(), self._sent(), True, 0)
        ).or_fail(self._named(f"Could not prepare the temporary disk on node {node.name}"))
        self._say(f"Imaging temporary disks with image {self._image.place}")
        with sync_paused(ctx, self._instance, [self._disk]):
            ctx.info(f"Imaging disk '0' for instance '{self._instance.name}' on node '{node.name}'")
            arguments = (self._sent_disk(), self._image.place, self._disk.size)
            ctx.call_one(node.uuid, calls.BLOCKDEV_IMAGE, arguments).or_fail(
                self._named(f"Could not image the temporary disk on node {node.name}")
            )

    def _boot(self, undo: UndoStack, limit: float) -> None:
        ctx, node = self._ctx, self._node
        self._say("Starting helper VM")
        ctx.note_devices([self._note])
        undo.push(
            f"stop the helper VM of instance {self._instance.name} on node {node.name}",
            self._stop,
            hint=f"It may still run in the place of the instance: {self._note.command}",
        )
        # A node that goes on with a start that nobody waits for would start it after the stop.
        with ctx.shielded():
            arguments = (self._sent(), False, self._reason)
            answer = ctx.call_one(node.uuid, calls.INSTANCE_START, arguments)
        answer.or_fail(self._named(f"Could not start {self._called}"))
        began = ctx.seconds()

        def look() -> float | None:
            if self._look() in (_Seen.RUNNING, _Seen.ENDED):
                return None
            if ctx.seconds() - began >= limit:
                raise OpExecError(
                    self._named(f"Could not boot instance using image {self._image.place}")
                )
            return BOOT_PACE

        poll(ctx, look)
        self._say("Helper VM is up")

    def _wait_for_end(self, limit: float) -> None:
        ctx, began = self._ctx, self._ctx.seconds()
        self._say("Waiting for helper VM to finish")

        def look() -> float | None:
            if self._look() in (_Seen.NOTHING, _Seen.ENDED):
                return None
            if ctx.seconds() - began >= limit:
                ctx.warning(
                    self._named(
                        "Helper VM has not finished within the timeout; shutting it down forcibly"
                    )
                )
                raise OpExecError(
                    self._named(
                        f"Error running {self._called}: it has not shut itself down within "
                        f"{limit:.0f} seconds"
                    )
                )
            so_far = ctx.seconds() - began
            text = f"Helper VM runs for {time_left(so_far)}, at most {time_left(limit)}"
            ctx.progress(f" - INFO: {self._named(text)}")
            return so_far * WORK_PART

        poll(ctx, look)

    def _look(self) -> _Seen | None:
        """Returns what the node says; None if it doesn't answer, for so long as that may be."""
        answer = power.ask(self._ctx, self._instance)
        if answer.failed:
            self._unanswered += 1
            if self._unanswered >= UNANSWERED_LOOKS:
                raise OpExecError(
                    self._named(
                        f"Can't tell whether the helper VM runs on node {answer.node}: "
                        f"{answer.error}"
                    )
                )
            return None
        self._unanswered = 0
        if is_running(answer.payload):
            return _Seen.RUNNING
        return _Seen.ENDED if answer.payload.known else _Seen.NOTHING

    def _stop(self) -> None:
        """Stops it, or clears away what its hypervisor keeps of one that has shut itself down."""
        self._say("Shutting down instance")
        self.left = True
        arguments = (self._sent(), DEFAULT_SHUTDOWN_TIMEOUT, self._reason)
        self._ctx.call_one(self._node.uuid, calls.INSTANCE_SHUTDOWN, arguments).or_fail(
            "the node refuses"
        )
        # Only then the instance itself may run again: by the note a restart would stop it.
        self._ctx.forget_surely([self._note])
        self.left = False


def _boot_disk(snapshot: Snapshot, instance: Instance, image: HelperImage) -> Disk:
    """Returns the disk that a helper VM boots from, a volume that is called as its uuid."""
    uuid, node = str(uuid4()), instance.primary_node
    return Disk(
        dev_type="plain",
        logical_id=(snapshot.cluster.volume_group_name, uuid),
        nodes=(node,),
        size=image.size,
        spindles=1 if exclusive_storage(snapshot, node) else None,
        uuid=uuid,
    )
