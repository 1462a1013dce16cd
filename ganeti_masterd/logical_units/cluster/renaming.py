"""OP_CLUSTER_RENAME: sets a new name, and as master address the one that it resolves to."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

from msgspec.structs import replace

from ganeti_masterd.config.objects import Cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.constants import DEFAULT_NODED_PORT
from ganeti_masterd.errors import ECODE_NOTUNIQUE, ECODE_RESOLVER, OpPrereqError, prereq
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.cluster.master_ip import bring_up, take_down
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.cluster import ClusterRename
from ganeti_masterd.rpc import calls
from ganeti_masterd.rpc.wire import file_content

PING_TIMEOUT = 10.0

KNOWN_HOSTS = "/var/lib/ganeti/known_hosts"
KNOWN_HOSTS_MODE = 0o600


def known_hosts(cluster: Cluster) -> bytes:
    """Returns the known_hosts file, with which ssh knows all nodes by the cluster's name."""
    keys = (("ssh-rsa", cluster.rsahostkeypub), ("ssh-dss", cluster.dsahostkeypub))
    return "".join(f"{cluster.cluster_name} {kind} {key}\n" for kind, key in keys if key).encode()


def resolve(name: str, family: int) -> tuple[str, str]:
    """Returns the full name of a host and its address. Blocks.

    Raises ``OpPrereqError`` (``resolver_error``) for a name that doesn't resolve.
    """
    kind = socket.AF_INET if family == 2 else socket.AF_INET6
    try:
        found = socket.getaddrinfo(name, None, kind, 0, 0, socket.AI_CANONNAME)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise OpPrereqError(f"The given name ({name}) does not resolve: {why}", ECODE_RESOLVER)
    return found[0][3] or name, str(found[0][4][0])


def answers(address: str) -> bool:
    """Returns whether a machine answers at an address, with or without a node daemon. Blocks."""
    try:
        with socket.create_connection((address, DEFAULT_NODED_PORT), PING_TIMEOUT):
            return True
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


class RenameCluster(LogicalUnit[ClusterRename], runs=ClusterRename):
    """Takes the master's address down, renames, and brings up the new address.

    Holds the cluster exclusively, as its name is used to reach nodes.
    """

    alone = True

    new_name: str
    new_ip: str

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns the master for pre hooks, all nodes for post hooks."""
        return HookNodes((snapshot.master.uuid,), tuple(snapshot.nodes))

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the old name and the new one."""
        return {"OP_TARGET": snapshot.cluster.cluster_name, "NEW_NAME": self.op.name}

    def check(self, ctx: Context) -> None:
        """Refuses the present name, and one whose address is in use."""
        cluster = ctx.snapshot().cluster
        self.new_name, self.new_ip = resolve(self.op.name, cluster.primary_ip_family)
        if (self.new_name, self.new_ip) == (cluster.cluster_name, cluster.master_ip):
            raise prereq("Neither the name nor the IP address of the cluster has changed")
        if self.new_ip != cluster.master_ip and answers(self.new_ip):
            raise prereq(
                f"The given cluster IP address ({self.new_ip}) is reachable on the network",
                ECODE_NOTUNIQUE,
            )

    def exec(self, ctx: Context) -> str:
        """Renames the cluster; returns its new name.

        An address is brought up again even after an error, the old one if the configuration wasn't
        changed. A kill takes effect before all of this or after it.
        """
        ctx.checkpoint()
        with ctx.shielded():
            self._rename(ctx, ctx.snapshot().cluster)
        return self.new_name

    def _rename(self, ctx: Context, before: Cluster) -> None:
        take_down(ctx, before).require("Could not disable the master role")
        try:
            after = ctx.change(
                before.uuid,
                lambda now: replace(now, cluster_name=self.new_name, master_ip=self.new_ip),
            )
            self._write_known_hosts(ctx, after)
        finally:
            answer = bring_up(ctx, ctx.snapshot().cluster)
            if answer.failed:
                ctx.warning(
                    "Could not re-enable the master role on the master, please restart"
                    f" manually: {answer.error}"
                )

    def _write_known_hosts(self, ctx: Context, cluster: Cluster) -> None:
        """Writes the file on all online nodes, including the master."""
        nodes = [node.uuid for node in ctx.snapshot().nodes.values() if not node.offline]
        now = time.time()
        path = ctx.root + KNOWN_HOSTS
        content = file_content(known_hosts(cluster))
        file = [path, content, KNOWN_HOSTS_MODE, "gnt-masterd", "gnt-masterd", now, now]
        for result in ctx.call(nodes, calls.UPLOAD_FILE, (file,)).values():
            if result.failed:
                ctx.warning(f"Copy of file {path} to node {result.node} failed: {result.error}")
