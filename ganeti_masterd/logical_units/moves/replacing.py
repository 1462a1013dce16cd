"""OP_INSTANCE_REPLACE_DISKS: mirrors get new volumes, on one of their nodes or on a new secondary.

Checks with their texts, and the order of calls, are those of real daemon 3.0.2; where ours
differs, docs/differences.rst says so. What is done is in :mod:`.replacing_in_place` and
:mod:`.replacing_secondary`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ganeti_masterd.allocation.requests import Relocate
from ganeti_masterd.config.objects import Instance, Node
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.policy import violations
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import (
    ECODE_EXISTS,
    ECODE_FAULT,
    ECODE_INVAL,
    ECODE_NOTUNIQUE,
    ECODE_STATE,
    OpExecError,
    OpPrereqError,
    prereq,
)
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.base import HookNodes, names_of
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import (
    activate_disks,
    current,
    shut_disks,
    start_disks,
)
from ganeti_masterd.logical_units.disks.consistency import (
    faulty_disks,
    is_consistent,
    look_at,
)
from ganeti_masterd.logical_units.disks.syncing import wait_for_sync
from ganeti_masterd.logical_units.groups.parameters import demand_of
from ganeti_masterd.logical_units.instances.base import (
    InstanceUnit,
    require_online,
    require_usable,
    runs,
)
from ganeti_masterd.logical_units.instances.requirements import (
    check_exclusive_storage,
    require_room,
)
from ganeti_masterd.logical_units.moves.replacement import ReplacementPlan, volumes_of
from ganeti_masterd.logical_units.moves.replacement_steps import clear_leftovers, leftovers_on
from ganeti_masterd.logical_units.moves.replacing_in_place import IN_PLACE, InPlace
from ganeti_masterd.logical_units.moves.replacing_secondary import (
    NEW_SECONDARY,
    NewSecondary,
    record,
)
from ganeti_masterd.logical_units.steps.allocating import find_nodes
from ganeti_masterd.logical_units.steps.procedure import carry_out
from ganeti_masterd.opcodes.instance_disks import InstanceReplaceDisks
from ganeti_masterd.rpc import calls

ON_PRIMARY = "replace_on_primary"
ON_SECONDARY = "replace_on_secondary"
ON_NEW = "replace_new_secondary"
AUTO = "replace_auto"

#: The option of ``gnt-instance replace-disks`` for each way that stays on the same nodes.
OPTIONS: Mapping[str, str] = {ON_PRIMARY: "-p", ON_SECONDARY: "-s", AUTO: "-a"}


class ReplaceDisks(InstanceUnit[InstanceReplaceDisks], runs=InstanceReplaceDisks):
    """Replaces volumes below the mirrors of an instance, or their secondary node.

    Its nodes are held alone until the mirrors are connected with their new volumes; the
    instance, and as a resource the node that is filled, until these are in sync. So a node is
    filled by one instance at a time, and others may be filled from the same node meanwhile.
    """

    node_levels = (Level.NODE, Level.NODE_RES)
    forthcoming_too = True

    #: The new secondary node that the opcode names.
    named: Node | None
    #: What will be done; None where that shows only once the disks are ready.
    plan: ReplacementPlan | None

    def expand(self, snapshot: Snapshot) -> None:
        """Refuses nodes for a mode that has none; finds the instance and the node."""
        op = self.op
        self.named = None
        self.plan = None
        if op.mode != ON_NEW:
            if op.remote_node is not None or op.iallocator is not None:
                raise prereq(
                    "The iallocator and new node options can only be used when changing the "
                    "secondary node",
                    ECODE_INVAL,
                )
        elif op.remote_node is None and op.iallocator is None:
            raise prereq(
                "When changing the secondary either an iallocator script must be used or the new "
                "node given",
                ECODE_INVAL,
            )
        elif op.remote_node is not None and op.iallocator is not None:
            raise prereq("Do not specify both, iallocator and node", ECODE_INVAL)
        super().expand(snapshot)
        if op.remote_node is not None:
            self.named = snapshot.node(op.remote_node)
            if op.remote_node_uuid not in (None, self.named.uuid):
                raise prereq(
                    f"The nodes UUID '{self.named.uuid}' does not match the expected UUID "
                    f"'{op.remote_node_uuid}' for node '{self.named.name}'. Maybe the node changed "
                    "since you submitted this job.",
                    ECODE_NOTUNIQUE,
                )

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds its nodes and the new one; with an allocator all of their groups.

        As a resource only the one that is filled, where that is known.
        """
        own = snapshot.nodes_of(self.instance(snapshot))
        groups = {snapshot.nodes[uuid].group for uuid in own}
        if level is Level.NODEGROUP and self.op.iallocator is not None:
            return shared(groups)
        if level in (Level.NODE, Level.NODE_RES):
            if self.op.iallocator is not None:
                return exclusive(node.uuid for group in groups for node in snapshot.members(group))
            if level is Level.NODE_RES and self.op.mode != AUTO:
                return exclusive(self._filled(own))
            return exclusive((*own, self.named.uuid) if self.named is not None else own)
        return super().locks(level, snapshot)

    def _filled(self, own: Sequence[str]) -> Sequence[str]:
        """Returns the node that gets new volumes, of an instance with these nodes."""
        if self.named is not None:
            return (self.named.uuid,)
        return own[:1] if self.op.mode == ON_PRIMARY else own[1:]

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """The master, the primary node, and the new secondary node if it was named."""
        nodes = [snapshot.master.uuid, self.instance(snapshot).primary_node]
        if self.named is not None:
            nodes.append(self.named.uuid)
        found = tuple(dict.fromkeys(nodes))
        return HookNodes(found, found)

    def own_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the mode, the new secondary node that was named, and the current one."""
        secondaries = snapshot.nodes_of(self.instance(snapshot))[1:]
        return {
            "MODE": self.op.mode,
            "NEW_SECONDARY": None if self.named is None else self.named.name,
            "OLD_SECONDARY": snapshot.nodes[secondaries[0]].name if secondaries else "",
        }

    def check(self, ctx: Context) -> None:
        """Checks the instance's layout, its nodes and disks; asks the allocator."""
        instance = self.instance(ctx.snapshot())
        if self.op.mode == ON_NEW:
            self.plan = self._on_new(ctx, instance)
        elif self.op.mode == AUTO:
            self._check_auto(ctx, instance)
        else:
            self.plan = self._in_place(ctx, instance)
        if self.plan is not None:
            ctx.release(Level.NODE, self.plan.nodes)
            ctx.release(
                Level.NODE_RES, self.plan.nodes if self.op.mode == AUTO else (self.plan.target,)
            )
        ctx.release(Level.NODEGROUP)

    # What will be done

    def _in_place(self, ctx: Context, instance: Instance) -> ReplacementPlan:
        primary, secondary = _ends(ctx, instance)
        _require_mirrors(ctx, instance)
        for node in (primary, secondary):
            require_online(ctx.snapshot(), node)
        nodes = (primary, secondary) if self.op.mode == ON_PRIMARY else (secondary, primary)
        return ReplacementPlan(self._chosen(instance), *nodes, early=self.op.early_release)

    def _chosen(self, instance: Instance) -> tuple[int, ...]:
        count = len(instance.disks)
        for index in self.op.disks:
            if index >= count:
                raise prereq(
                    f"Invalid disk index: {index} (instance {instance.name} has disks 0 to "
                    f"{count - 1})",
                    ECODE_INVAL,
                )
        return tuple(dict.fromkeys(self.op.disks)) or tuple(range(count))

    def _on_new(self, ctx: Context, instance: Instance) -> ReplacementPlan:
        primary, left = _ends(ctx, instance)
        snapshot = ctx.snapshot()
        new = self.named or self._allocated(ctx, instance, left)
        if new.uuid == primary:
            raise prereq("The specified node is the primary node of the instance", ECODE_INVAL)
        if new.uuid == left:
            raise prereq(
                "The specified node is already the secondary node of the instance", ECODE_INVAL
            )
        self._refuse_disks()
        require_usable(snapshot, new.uuid)
        _require_mirrors(ctx, instance)
        early = self.op.early_release
        if snapshot.nodes[left].offline and not early:
            early = True
            ctx.info(
                f"Old secondary {snapshot.nodes[left].name} is offline, automatically enabling "
                "early-release mode"
            )
        self._check_group(ctx, instance, new)
        require_online(snapshot, primary)
        disks = tuple(range(len(instance.disks)))
        if not instance.forthcoming:
            self._check_storage(ctx, instance, new)
        return ReplacementPlan(disks, new.uuid, primary, left, early)

    def _refuse_disks(self) -> None:
        if self.op.disks:
            raise prereq("Cannot specify disks to be replaced", ECODE_INVAL)

    def _allocated(self, ctx: Context, instance: Instance, left: str) -> Node:
        """Returns the node that the allocator chose."""
        name = self.op.iallocator
        request = Relocate(name=instance.name, leaving=(left,))
        (found,) = find_nodes(ctx, request, None if name == "." else name)
        ctx.info(f"Selected new secondary for instance '{instance.name}': {found}")
        return ctx.snapshot().node(found)

    def _check_group(self, ctx: Context, instance: Instance, new: Node) -> None:
        """Checks the instance against the policy of another group, and says that it is one."""
        snapshot = ctx.snapshot()
        own, group = snapshot.nodes[instance.primary_node].group, snapshot.groups[new.group]
        if new.group == own:
            return
        policy = effective.instance_policy(snapshot.cluster, group)
        if found := violations(policy, demand_of(snapshot, instance)):
            text = (
                f"Instance does not meet target node group's ({group.name}) instance policy: "
                f"{', '.join(found)}"
            )
            if not self.op.ignore_ipolicy:
                raise prereq(text, ECODE_INVAL)
            ctx.warning(text)
        ctx.warning(
            f"Node {new.name} is in group {group.name}, the primary node of instance "
            f"{instance.name} in group {snapshot.groups[own].name}: the instance will be split"
        )

    def _check_storage(self, ctx: Context, instance: Instance, new: Node) -> None:
        """Checks that a node has room for the disks, and no volumes that are called as theirs."""
        disks = ctx.snapshot().disks_of(instance)
        check_exclusive_storage(ctx.snapshot(), [new.uuid], "drbd", [])
        needed: dict[str, int] = {}
        names = set()
        for child in (child for disk in disks for child in disk.children):
            group = str((child.logical_id or ("",))[0])
            needed[group] = needed.get(group, 0) + child.size
            names.add(child.volume)
        require_room(ctx, [new.uuid], needed)
        answer = ctx.call_one(new.uuid, calls.LV_LIST, ([],))
        there = answer.or_refuse(f"Can't list the volumes of node {new.name}")
        if taken := sorted(name for name in there if name in names):
            raise prereq(
                f"Node {new.name} has volumes that are called as those of instance "
                f"{instance.name}, and may hold old data: {', '.join(taken)}; remove them first",
                ECODE_EXISTS,
            )

    # Which half is faulty

    def _check_auto(self, ctx: Context, instance: Instance) -> None:
        """Makes the plan, unless the disks have to be made ready first."""
        nodes = _ends(ctx, instance)
        self._refuse_disks()
        _require_mirrors(ctx, instance)
        if instance.forthcoming:
            self.plan = ReplacementPlan((), *nodes)
            return
        for node in nodes:
            require_online(ctx.snapshot(), node)
        if instance.disks_active and self._all_found(ctx, instance):
            self.plan = self._faulty(ctx, instance)

    def _all_found(self, ctx: Context, instance: Instance) -> bool:
        """Whether all disks are up on both nodes."""
        snapshot = ctx.snapshot()
        found = True
        for index, disk in enumerate(snapshot.disks_of(instance)):
            for node in snapshot.nodes_of(instance):
                ctx.info(f"Checking disk/{index} on {snapshot.nodes[node].name}")
                answer = look_at(ctx, instance, disk, node)
                if answer.failed:
                    ctx.warning(f"Can't find disk/{index} on node {answer.node}: {answer.error}")
                found = found and not answer.failed and answer.payload is not None
        return found

    def _faulty(self, ctx: Context, instance: Instance) -> ReplacementPlan:
        """Returns the plan to replace what is faulty, and says what that is."""
        primary, secondary = _ends(ctx, instance)
        on_primary, on_secondary = (
            faulty_disks(ctx, instance, node) for node in (primary, secondary)
        )
        for node, indices in ((primary, on_primary), (secondary, on_secondary)):
            if indices:
                disks = ", ".join(f"disk/{index}" for index in indices)
                ctx.info(f"Faulty on {ctx.snapshot().nodes[node].name}: {disks}")
        if on_primary and on_secondary:
            raise prereq(
                f"Instance {instance.name} has faulty disks on more than one node and can not be "
                "repaired automatically",
                ECODE_STATE,
            )
        nodes = (primary, secondary) if on_primary else (secondary, primary)
        chosen = tuple(on_primary or on_secondary)
        return ReplacementPlan(chosen, *nodes, early=self.op.early_release)

    # Doing it

    def exec(self, ctx: Context) -> None:
        """Replaces what was planned; disks that are down are up meanwhile."""
        instance = self.instance(ctx.snapshot())
        if instance.forthcoming:
            self._only_record(ctx, instance)
            return
        plan = self.plan
        if plan is not None and plan.disks:
            self._announce(ctx, instance, plan)
        with disks_ready(ctx, instance, again=plan is None) as made_ready:
            instance = current(ctx, instance)
            if plan is None:
                plan = self._faulty_by_now(ctx, instance)
                if plan.disks:
                    self._announce(ctx, instance, plan)
            if not plan.disks:
                ctx.feedback(f"No disks need replacement for instance '{instance.name}'")
                self._clear(ctx, instance)
            elif plan.old is not None:
                carry_out(NEW_SECONDARY, NewSecondary(ctx, instance, plan, settles=made_ready))
            else:
                option = OPTIONS[self.op.mode]
                state = InPlace(ctx, instance, plan, option, settles=made_ready)
                carry_out(IN_PLACE, state)

    def _faulty_by_now(self, ctx: Context, instance: Instance) -> ReplacementPlan:
        """Returns the plan to replace what is faulty of disks that were just made ready."""
        if not self._all_found(ctx, instance):
            raise prereq(
                f"Please run activate-disks on instance {instance.name} first", ECODE_STATE
            )
        return self._faulty(ctx, instance)

    def _clear(self, ctx: Context, instance: Instance) -> None:
        """Removes what earlier replacements have left, as soon as the disks are in sync."""
        nodes = _ends(ctx, instance)
        found = leftovers_on(ctx, instance, nodes)
        if not found:
            return
        disks = ctx.snapshot().disks_of(instance)
        good = wait_for_sync(ctx, instance) and all(
            is_consistent(ctx, instance, disk, node) for disk in disks for node in nodes
        )
        if not good:
            names = ", ".join(volumes_of(each for left in found.values() for each in left))
            raise OpExecError(
                f"Disks of instance {instance.name} are degraded, so that what earlier "
                f"replacements have left stays: {names}"
            )
        clear_leftovers(ctx, instance, *nodes)

    def _announce(self, ctx: Context, instance: Instance, plan: ReplacementPlan) -> None:
        snapshot = ctx.snapshot()
        primary, *others = snapshot.nodes_of(instance)
        ctx.feedback(
            f"Replacing disk(s) {', '.join(map(str, plan.disks))} for instance '{instance.name}'"
        )
        ctx.feedback(f"Current primary node: {snapshot.nodes[primary].name}")
        ctx.feedback(f"Current secondary node: {names_of(snapshot, others)}")

    def _only_record(self, ctx: Context, instance: Instance) -> None:
        """Records the new secondary node of an instance that has no disks yet."""
        plan = self.plan
        if plan is None or plan.old is None:
            if self.op.mode == AUTO:
                ctx.feedback(f"No disks need replacement for instance '{instance.name}'")
                return
            ctx.feedback("Instance forthcoming, not touching disks")
            return
        ctx.feedback("Instance forthcoming, will only update the configuration")
        state = NewSecondary(ctx, instance, plan)
        state.plan_disks(look=False)
        record(ctx, [disk for _, disk in state.after])


@contextmanager
def disks_ready(ctx: Context, instance: Instance, *, again: bool = False) -> Iterator[bool]:
    """Within it the disks of an instance are up; those that weren't before go down afterwards.

    Tells whether they were brought up just now. What a secondary node refuses doesn't count.
    ``again``: also disks that should be up are made ready once more. Raises ``OpExecError``.
    """
    if instance.disks_active:
        if again:
            activate_disks(ctx, instance, ignore_secondaries=True)
        yield again
        return
    try:
        start_disks(ctx, instance, force=True)
        yield True
    finally:
        with ctx.shielded():
            _shut_again(ctx, current(ctx, instance))


def _shut_again(ctx: Context, instance: Instance) -> None:
    """Shuts disks down unless the instance runs by now; that it can't be asked is a warning."""
    try:
        used = runs(ctx, instance)
    except OpPrereqError as error:
        ctx.warning(f"{error.args[0]}; its disks are not shut down")
        return
    if used:
        ctx.warning(f"Instance {instance.name} is running, its disks are not shut down")
    else:
        shut_disks(ctx, instance)


def _ends(ctx: Context, instance: Instance) -> tuple[str, str]:
    """Returns the primary and the only secondary node of an instance (uuids)."""
    primary, *others = ctx.snapshot().nodes_of(instance)
    if len(others) != 1:
        raise prereq(
            f"The instance has a strange layout, expected one secondary but found {len(others)}",
            ECODE_FAULT,
        )
    return primary, others[0]


def _require_mirrors(ctx: Context, instance: Instance) -> None:
    if not all(disk.template.internal for disk in ctx.snapshot().disks_of(instance)):
        raise prereq("Can only run replace disks for DRBD8-based instances", ECODE_INVAL)
