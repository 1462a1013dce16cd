"""Steps that both ways of replacing a mirror's volumes have: the looks before, and the end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.errors import OpExecError
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.consistency import is_consistent, look_at
from ganeti_masterd.logical_units.disks.syncing import wait_for_sync
from ganeti_masterd.logical_units.moves.replacement import leftovers, volumes_of
from ganeti_masterd.logical_units.moves.volumes import assemble, remove_volumes
from ganeti_masterd.rpc import calls

#: For how many seconds the ends of a mirror may look for each other once they are up.
SETTLING_SECONDS = 10

#: An index and the disk that it belongs to.
Numbered = tuple[int, Disk]


def find_disk(
    ctx: Context, instance: Instance, disk: Disk, index: int, node: str, *, mends: bool = False
) -> bool:
    """Checks that a disk is up on a node (its uuid); returns whether it had to be brought up.

    That is done where ``mends``: as far as its volumes are there. Raises ``OpExecError``.
    """
    name = ctx.snapshot().nodes[node].name
    ctx.info(f"Checking disk/{index} on {name}")
    answer = look_at(ctx, instance, disk, node)
    if not answer.failed and answer.payload is not None:
        return False
    if mends and not answer.failed:
        ctx.info(f"disk/{index} is not active on {name}, assembling it")
        assemble(ctx, instance, disk, index, node)
        return True
    raise OpExecError(
        f"Can't find disk/{index} on node {name}: {answer.error or 'disk not found'}\n"
        "Disks seem to be not properly activated. Try running activate-disks on the instance "
        "before using replace-disks."
    )


def check_groups(ctx: Context, disks: Iterable[Disk], node: str) -> None:
    """Checks that a node (its uuid) has the volume groups of disks; raises ``OpExecError``."""
    ctx.info("Checking volume groups")
    name = ctx.snapshot().nodes[node].name
    answer = ctx.call_one(node, calls.VG_LIST)
    groups = answer.or_fail(f"Can't list the volume groups of node {name}")
    for volume in volumes_of(disks):
        group = volume.partition("/")[0]
        if group not in groups:
            raise OpExecError(f"Volume group '{group}' not found on node {name}")


def check_peer(
    ctx: Context,
    instance: Instance,
    chosen: Sequence[Numbered],
    node: str,
    *,
    local_only: bool = False,
    settles: bool = False,
) -> None:
    """Checks that a node (its uuid) has all data of disks; raises ``OpExecError``.

    ``settles``: the mirrors have just been brought up, and get some seconds to connect.
    """
    name = ctx.snapshot().nodes[node].name
    ctx.feedback("STEP 2/6 Check peer consistency")
    for index, disk in chosen:
        ctx.info(f"Checking disk/{index} consistency on node {name}")
        for _ in range(SETTLING_SECONDS if settles else 0):
            if is_consistent(ctx, instance, disk, node, local_only=local_only):
                break
            ctx.sleep(1.0)
        else:
            if not is_consistent(ctx, instance, disk, node, local_only=local_only):
                answer = look_at(ctx, instance, disk, node)
                percent = None if answer.payload is None else answer.payload.sync_percent
                state = "" if percent is None else f" is being synchronized, {percent:.1f}% done"
                raise OpExecError(
                    f"Node {name} has degraded storage, unsafe to replace disks for instance "
                    f"{instance.name} (disk/{index}{state})"
                )


def leftovers_on(ctx: Context, instance: Instance, nodes: Iterable[str]) -> dict[str, list[Disk]]:
    """Returns what earlier replacements have left, by node (uuids); see :func:`leftovers`.

    A node that can't list its volumes is a warning.
    """
    disks = ctx.snapshot().disks_of(instance)
    found = {}
    for node, answer in ctx.call(nodes, calls.LV_LIST, ([],)).items():
        if answer.failed:
            ctx.warning(f"Can't list the volumes of node {answer.node}: {answer.error}")
        elif left := [each for disk in disks for each in leftovers(disk, answer.payload)]:
            found[node] = left
    return found


def clear_leftovers(ctx: Context, instance: Instance, *nodes: str) -> None:
    """Removes what earlier replacements have left on nodes (uuids); what stays is a warning."""
    for node, left in leftovers_on(ctx, instance, nodes).items():
        ctx.info(
            f"Removing what an earlier replacement has left on {ctx.snapshot().nodes[node].name}: "
            f"{', '.join(volumes_of(left))}"
        )
        for disk in left:
            remove_volumes(ctx, instance, disk, node)


def remove_old(
    ctx: Context,
    instance: Instance,
    labelled: Iterable[tuple[str, Disk]],
    node: str,
    *,
    early: bool,
) -> None:
    """Removes volumes that belong to no disk any more; what stays is a warning.

    With ``early`` the last locks are given back then.
    """
    ctx.feedback(f"STEP {5 if early else 6}/6 Removing old storage")
    for label, disk in labelled:
        ctx.info(f"Remove logical volumes for {label}")
        remove_volumes(ctx, instance, disk, node)
    if early:
        ctx.release(Level.NODE_RES)


def sync(ctx: Context, instance: Instance, chosen: Sequence[Numbered], *, early: bool) -> None:
    """Waits until an instance's mirrors are in sync.

    Raises ``OpExecError`` if one of those ``chosen`` is degraded nevertheless.
    """
    ctx.feedback(f"STEP {6 if early else 5}/6 Sync devices")
    wait_for_sync(ctx, instance)
    primary = instance.primary_node
    for index, disk in chosen:
        answer = look_at(ctx, instance, disk, primary)
        status = answer.or_fail(f"Can't find DRBD device disk/{index} on node {answer.node}")
        if status is None or status.is_degraded:
            state = "not found" if status is None else "degraded"
            raise OpExecError(
                f"DRBD device disk/{index} of instance {instance.name} is {state} on node "
                f"{answer.node}!"
            )
