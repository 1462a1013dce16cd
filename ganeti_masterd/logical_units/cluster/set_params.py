"""OP_CLUSTER_SET_PARAMS: changes parameters of the cluster, all of them or none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ganeti_masterd.allocation import builtin
from ganeti_masterd.config.candidates import demotions
from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, all_shared, exclusive
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.cluster import communication, consistency
from ganeti_masterd.logical_units.cluster.master_ip import bring_up, take_down
from ganeti_masterd.logical_units.cluster.node_checks import check_on_nodes
from ganeti_masterd.logical_units.cluster.planning import (
    changed,
    check_arguments,
    storage_folders,
)
from ganeti_masterd.logical_units.cluster.pool_size import resize_pool
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.setup import ensure_kvm_daemon
from ganeti_masterd.logical_units.steps.followups import with_jobs
from ganeti_masterd.opcodes.cluster import ClusterSetParams
from ganeti_masterd.rpc import calls

#: Folders with allocator scripts; the first that has a script counts.
ALLOCATOR_FOLDERS = ("/usr/local/lib/ganeti/iallocators", "/usr/lib/ganeti/iallocators")

#: Parameters that may conflict with instances: while they change, no instance may change.
_ABOUT_INSTANCES = (
    "enabled_disk_templates",
    "enabled_hypervisors",
    "vg_name",
    "drbd_helper",
    "nicparams",
    "diskparams",
)

_DRBD_HINTS = (
    "Changing DRBD parameters only affects devices created in the future, not existing ones",
    "You need to shutdown and start (not reboot!) existing instances to adopt the changes",
    "Alternatively you can swap the secondary node by running `gnt-instance replace-disks"
    " --new-secondary $instance`",
)


class SetClusterParams(LogicalUnit[ClusterSetParams], runs=ClusterSetParams):
    """Checks the parameters against configuration and nodes, then sets them in one change.

    Locks no group, only those nodes that a smaller pool of master candidates demotes, and shares
    the instances only if a parameter may conflict with them.
    """

    def expand(self, snapshot: Snapshot) -> None:
        """Checks the arguments that can be checked without the configuration."""
        check_arguments(self.op, snapshot.cluster.primary_ip_family)

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares all instances if the parameters concern them; holds nodes to be demoted."""
        size = self.op.candidate_pool_size
        if level is Level.NODE and size is not None:
            return exclusive(node.uuid for node in demotions(snapshot, size=size))
        if level is Level.INSTANCE and any(
            getattr(self.op, name) is not None for name in _ABOUT_INSTANCES
        ):
            return all_shared
        return super().locks(level, snapshot)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the cluster's name and the requested volume group."""
        return {"OP_TARGET": snapshot.cluster.cluster_name, "NEW_VG_NAME": self.op.vg_name}

    def check(self, ctx: Context) -> None:
        """Refuses conflicting parameters, naming the object with which they conflict."""
        op, snapshot = self.op, ctx.snapshot()
        after = changed(snapshot.cluster, op).cluster
        consistency.check_templates_unused(snapshot, after)
        consistency.check_volume_group(snapshot, after)
        self._check_storage_folders(ctx, after)
        consistency.check_drbd_helper(snapshot, after)
        if "drbd" in (op.diskparams or ()):
            for hint in _DRBD_HINTS:
                ctx.warning(hint)
        if op.ipolicy:
            self._warn_of_policy(ctx, snapshot, after)
        if op.nicparams:
            consistency.check_nics(snapshot, after)
        if op.diskparams:
            consistency.check_disk_access(snapshot, after, list(op.diskparams))
        consistency.check_hypervisors_unused(snapshot, after)
        check_on_nodes(ctx, op, after)
        if op.default_iallocator:
            _check_allocator(op.default_iallocator)
        if op.instance_communication_network:
            network = snapshot.lookup("network", op.instance_communication_network)
            if network is not None:
                communication.warn_of_odd_network(ctx, network)

    def exec(self, ctx: Context) -> dict[str, Any] | None:
        """Sets the parameters; returns the jobs that a new communication network needs.

        A kill takes effect before all of this or after it.
        """
        self._tell(ctx, ctx.snapshot().cluster)
        ctx.checkpoint()
        with ctx.shielded():
            return self._set(ctx, ctx.snapshot())

    def _set(self, ctx: Context, before: Snapshot) -> dict[str, Any] | None:
        op = self.op
        moves = bool(op.master_netdev)
        if moves:
            self._take_address_down(ctx, before.cluster)
        try:
            self._change(ctx)
            if op.master_netmask and not moves:  # else bringing it up uses the new one
                self._change_netmask(ctx, before.cluster)
        finally:
            if moves:
                self._bring_address_up(ctx)
        if op.enabled_hypervisors is not None or (
            op.enabled_user_shutdown not in (None, before.cluster.enabled_user_shutdown)
        ):
            known = {*before.cluster.enabled_hypervisors, *(op.enabled_hypervisors or ())}
            ensure_kvm_daemon(ctx, ctx.snapshot().nodes, silent="kvm" not in known)
        return self._ensure_network(ctx, before)

    def _check_storage_folders(self, ctx: Context, after: Cluster) -> None:
        for template, path in (
            ("file", self.op.file_storage_dir),
            ("sharedfile", self.op.shared_file_storage_dir),
            ("gluster", self.op.gluster_storage_dir),
        ):
            enabled = template in after.enabled_disk_templates
            if path == "" and enabled:
                raise prereq(
                    f"Unsetting the '{template}' storage directory while having '{template}'"
                    " storage enabled is not permitted."
                )
            if path and not enabled:
                ctx.warning(
                    f"Specified a {template} storage directory, although {template} storage is not"
                    " enabled."
                )

    def _warn_of_policy(self, ctx: Context, snapshot: Snapshot, after: Cluster) -> None:
        breakers = consistency.policy_breakers(snapshot, after)
        if breakers:
            ctx.warning(
                "After the ipolicy change the following instances violate them:"
                f" {', '.join(breakers)}"
            )

    def _tell(self, ctx: Context, cluster: Cluster) -> None:
        """Logs which parameters are set already, and which have no effect."""
        op = self.op
        if op.vg_name is not None and (op.vg_name or None) == cluster.volume_group_name:
            ctx.feedback("Cluster LVM configuration already in desired state, not changing")
        folders = storage_folders(op)
        for what, name in (
            ("file", "file_storage_dir"),
            ("shared file", "shared_file_storage_dir"),
        ):
            old = getattr(cluster, name)
            if folders.get(name) == old:
                ctx.feedback(f"Global {what} storage dir already set to value '{old}'")
        if op.drbd_helper is not None:
            enabled = op.enabled_disk_templates or cluster.enabled_disk_templates
            if "drbd" not in enabled:
                ctx.feedback(
                    "Note that you specified a drbd user helper, but did not enable the drbd disk"
                    " template."
                )
            if (op.drbd_helper or None) == cluster.drbd_usermode_helper:
                ctx.feedback("Cluster DRBD helper already in desired state, not changing")

    def _change(self, ctx: Context) -> None:
        """Changes the cluster, and if the pool's size changes, the candidates."""
        op = self.op

        def change(cluster: Cluster) -> Cluster:
            return changed(cluster, op).cluster

        for note in changed(ctx.snapshot().cluster, op).notes:
            ctx.feedback(note)
        if op.candidate_pool_size is None:
            ctx.change(ctx.snapshot().cluster.uuid, change)
        else:
            resize_pool(ctx, op.candidate_pool_size, change)

    def _take_address_down(self, ctx: Context, cluster: Cluster) -> None:
        ctx.feedback(f"Shutting down master ip on the current netdev ({cluster.master_netdev})")
        answer = take_down(ctx, cluster)
        if not self.op.force:
            answer.require("Could not disable the master ip")
        elif answer.failed:
            ctx.feedback(f"Could not disable the master ip (continuing anyway): {answer.error}")
        ctx.feedback(
            f"Changing master_netdev from {cluster.master_netdev} to {self.op.master_netdev}"
        )

    def _change_netmask(self, ctx: Context, cluster: Cluster) -> None:
        ctx.feedback(f"Changing master IP netmask to {self.op.master_netmask}")
        answer = ctx.call(
            (cluster.master_node,),
            calls.NODE_CHANGE_MASTER_NETMASK,
            (
                cluster.master_netmask,
                self.op.master_netmask,
                cluster.master_ip,
                cluster.master_netdev,
            ),
        )[cluster.master_node]
        if answer.failed:
            ctx.feedback(f"Could not change the master IP netmask: {answer.error}")

    def _bring_address_up(self, ctx: Context) -> None:
        """Brings the address up on the configured device, which after a failure is the old one."""
        cluster = ctx.snapshot().cluster
        ctx.feedback(f"Starting the master ip on the new master netdev ({cluster.master_netdev})")
        answer = bring_up(ctx, cluster)
        if answer.failed:
            ctx.warning(
                "Could not re-enable the master ip on the master, please restart manually:"
                f" {answer.error}"
            )

    def _ensure_network(self, ctx: Context, before: Snapshot) -> dict[str, Any] | None:
        name = self.op.instance_communication_network
        if name is None or not communication.tell_of_change(ctx, before, name) or not name:
            return None
        opcodes = communication.ensuring(ctx.snapshot(), name)
        return with_jobs(ctx, [opcodes]) if opcodes else None


def _check_allocator(name: str) -> None:
    """Refuses a name that is neither the built-in allocator nor a script on this node."""
    places = (os.path.join(folder, name) for folder in ALLOCATOR_FOLDERS)
    installed = os.path.basename(name) == name and any(map(os.path.isfile, places))
    if not installed and name != builtin.NAME:
        raise prereq(f"Invalid default iallocator script '{name}' specified")
