"""OP_INSTANCE_REINSTALL: an operating system is installed over an instance that is down.

Texts and the order of calls are those of real daemon 3.0.2; docs/differences.rst, Instances says
where ours differs.
"""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.config.objects import Disk, Instance
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_INVAL, OpExecError, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.disks.activating import activate_disks, current, shut_disks
from ganeti_masterd.logical_units.instances import setting_up, specification, untrusted
from ganeti_masterd.logical_units.instances.base import (
    InstanceUnit,
    require_online,
    require_stopped,
)
from ganeti_masterd.logical_units.instances.helper_vm import HelperImage, require_memory_for_it
from ganeti_masterd.logical_units.instances.requirements import (
    check_system_on_nodes,
)
from ganeti_masterd.opcodes.instances import InstanceReinstall


class ReinstallInstance(InstanceUnit[InstanceReinstall], runs=InstanceReinstall):
    """Installs the instance's operating system anew, or another one in its place.

    The opcode's OS parameters are merged with those of the instance. They are written, together
    with the operating system, when the installation begins: until then nothing but
    ``disks_active`` changes. However it ends, the disks are shut down.
    """

    #: The operating system with its variant after the opcode; empty if there is none.
    os: str
    #: The instance's own OS parameters after the opcode, with the secret ones of this time.
    own: specification.OsParameters
    #: The same with the cluster's under them: what the scripts get.
    filled: specification.OsParameters

    #: What a helper VM boots from that installs it; None where the node runs the scripts.
    helper: HelperImage | None = None

    @property
    def image(self) -> str | None:
        """The image for the first disk, None without one."""
        image: str | None = self.own.public.get(specification.OS_IMAGE)
        return image

    def check(self, ctx: Context) -> None:
        """Refuses what can't be installed; merges the parameters and has nodes validate them."""
        snapshot, op = ctx.snapshot(), self.op
        instance = self.instance(snapshot)
        require_online(
            snapshot, instance.primary_node, "Instance primary node offline, cannot reinstall"
        )
        if not instance.disks:
            raise prereq(f"Instance '{instance.name}' has no disks", ECODE_INVAL)
        require_stopped(ctx, instance, "cannot reinstall", ("down",))
        self.os = op.os_type or instance.os
        self.own = specification.os_parameters(
            op.osparams,
            op.osparams_private,
            op.osparams_secret,
            specification.OsParameters(public=instance.osparams, private=instance.osparams_private),
        )
        self.filled = specification.filled_os(snapshot.cluster, self.os, self.own)
        if self.os:
            with self.filled.kept_from_errors():
                check_system_on_nodes(
                    ctx,
                    _online(snapshot, instance),
                    self.os,
                    self.filled.together(),
                    force_variant=op.force_variant,
                )
            if not untrusted.is_trusted(ctx, instance.primary_node, self.os):
                self.helper = untrusted.find_install_image(
                    ctx,
                    instance.primary_node,
                    instance.hypervisor,
                    effective.hypervisor(snapshot.cluster, instance),
                    {},
                )
                require_memory_for_it(ctx, instance)
                untrusted.warn_if_unreachable(ctx, instance.nics)

    def exec(self, ctx: Context) -> None:
        """Makes the disks ready, records what is installed, installs it, shuts the disks down."""
        instance = self.instance(ctx.snapshot())
        if not self.os and self.image is None:
            ctx.info(
                "No OS scripts or OS image specified or found in the instance's configuration, "
                "nothing to install"
            )
            return
        before = "is down, and nothing of it was changed"
        with setting_up.staying(ctx, instance, before):
            if not activate_disks(ctx, instance).good:
                raise OpExecError("Disk consistency error")
            instance = self._record(ctx, instance)
        half_way = (
            "is down, and what is on its disks may be neither the old operating system nor the "
            "new one: reinstall it again"
        )
        with setting_up.staying(ctx, instance, half_way), self.filled.kept_from_errors():
            disks = ctx.snapshot().disks_of(instance)
            self._install(ctx, instance, disks)
        with ctx.shielded():
            setting_up.tell_metadata(ctx, current(ctx, instance), self.own.secret)
            shut_disks(ctx, current(ctx, instance))

    def _record(self, ctx: Context, instance: Instance) -> Instance:
        """Writes the operating system and its parameters in one change; returns the instance."""
        if self.image is not None:
            ctx.feedback(f"Using OS image '{self.image}'")
        if self.os != instance.os:
            ctx.feedback(f"Changing OS scripts to '{self.os}'...")
        wanted = {
            "os": self.os,
            "osparams": self.own.public,
            "osparams_private": self.own.private,
        }

        def changed(now: Instance) -> Instance:
            same = all(getattr(now, name) == value for name, value in wanted.items())
            return now if same else replace(now, **wanted)

        written: Instance = ctx.change(instance.uuid, changed)
        return written

    def _install(self, ctx: Context, instance: Instance, disks: tuple[Disk, ...]) -> None:
        if self.image is not None:
            setting_up.image_disk(ctx, instance, disks[0], self.image)
        if self.helper is not None:
            untrusted.install(ctx, instance, self.helper, self.own.secret, reason=self.op.reason)
        elif self.os:
            setting_up.run_scripts_again(
                ctx, instance, self.filled.together(), debug=self.op.debug_level or 0
            )


def _online(snapshot: Snapshot, instance: Instance) -> list[str]:
    """Returns the uuids of an instance's nodes that aren't marked offline."""
    return [node for node in snapshot.nodes_of(instance) if not snapshot.nodes[node].offline]
