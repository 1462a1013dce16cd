"""Devices are plugged into an instance while it runs, and unplugged (KVM only)."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.config.objects import Disk, Instance, Nic
from ganeti_masterd.errors import ECODE_STATE, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.rpc import calls

PLUG = "hotadd"
UNPLUG = "hotremove"
REPLUG = "hotmod"

#: What the result of an opcode says of a device that was, or couldn't be, plugged.
PLUGGED = "hotplug:done"
NOT_PLUGGED = "hotplug:failed"


def can_hotplug(ctx: Context, instance: Instance, *, required: bool) -> bool:
    """Whether devices can be plugged into an instance now; its primary node says so.

    Where that is ``required`` raises ``OpPrereqError`` with ``wrong_state`` instead.
    """
    node = instance.primary_node
    sent = node_objects.instance(ctx.snapshot(), instance, node)
    answer = ctx.call_one(node, calls.HOTPLUG_SUPPORTED, (sent,))
    if not answer.failed:
        return True
    if required:
        raise prereq(f"Hotplug is not possible: {answer.error}", ECODE_STATE)
    ctx.warning(str(answer.error))
    ctx.info("Modification will take place without hotplugging.")
    return False


def hotplug_nic(ctx: Context, instance: Instance, action: str, nic: Nic, index: int) -> bool:
    """Plugs, unplugs or replugs a NIC; returns whether it could be.

    A failure is a warning: the change holds from the next start of the instance.
    """
    sent = node_objects.nic(ctx.snapshot(), nic)
    good = _hotplug(ctx, instance, action, "nic", sent, None, index)
    if not good:
        ctx.info(
            f"Continuing execution: NIC {index} of instance {instance.name} changes with its "
            "next start"
        )
    return good


def plug_disk(
    ctx: Context, instance: Instance, disk: Disk, index: int, link: Any, uri: str | None
) -> bool:
    """Plugs in a disk that is ready on the primary; returns whether it could be.

    ``link`` and ``uri`` are what the node answered as it was made ready. A failure is a
    warning: the instance has the disk from its next start.
    """
    sent = node_objects.disk(ctx.snapshot(), disk, instance, instance.primary_node)
    good = _hotplug(ctx, instance, PLUG, "disk", sent, (link, uri), index)
    if not good:
        ctx.info(
            f"Continuing execution: instance {instance.name} has disk {index} from its next start"
        )
    return good


def unplug_disk(ctx: Context, instance: Instance, disk: Disk, index: int) -> bool:
    """Unplugs a disk; returns whether it could be. A failure is a warning."""
    sent = node_objects.disk(ctx.snapshot(), disk, instance, instance.primary_node)
    return _hotplug(ctx, instance, UNPLUG, "disk", sent, None, index)


def _hotplug(
    ctx: Context,
    instance: Instance,
    action: str,
    kind: str,
    device: dict[str, Any],
    extra: tuple[Any, Any] | None,
    index: int,
) -> bool:
    ctx.info("Trying to hotplug device...")
    node = instance.primary_node
    sent = node_objects.instance(ctx.snapshot(), instance, node)
    answer = ctx.call_one(node, calls.HOTPLUG_DEVICE, (sent, action, kind, device, extra, index))
    if answer.failed:
        ctx.warning(f"Could not hotplug device: {answer.error}")
        return False
    ctx.info("Hotplug done.")
    return True
