"""OP_NETWORK_CONNECT and OP_NETWORK_DISCONNECT: let groups' instances use a network, or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from msgspec.structs import replace

from ganeti_masterd.config.addresspool import pool_of
from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Instance, Nic, NodeGroup
from ganeti_masterd.config.parameters.devices import check_nic
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_STATE, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, shared
from ganeti_masterd.logical_units.base import HookNodes, LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.networks import NetworkConnect, NetworkDisconnect

O_co = TypeVar("O_co", bound=NetworkConnect | NetworkDisconnect, covariant=True)


class _Connection(LogicalUnit[O_co]):
    """A group's connection to a network: holds the group exclusively, and shares the network.

    While the group is held, no instance enters it or changes its NICs. Hooks run on the master and
    on all nodes of the group.
    """

    group: NodeGroup

    def expand(self, snapshot: Snapshot) -> None:
        """Finds the group and the network."""
        self.network_uuid = snapshot.network(self.op.network_name).uuid
        self.group_uuid = snapshot.group(self.op.group_name).uuid

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the group exclusively, and shares the network."""
        if level is Level.NODEGROUP:
            return exclusive(self.group_uuid)
        if level is Level.NETWORK:
            return shared(self.network_uuid)
        return super().locks(level, snapshot)

    def hook_nodes(self, snapshot: Snapshot) -> HookNodes:
        """Returns the master and the nodes of the group."""
        members = [node.uuid for node in snapshot.members(self.group_uuid)]
        nodes = tuple(dict.fromkeys((snapshot.master.uuid, *members)))
        return HookNodes(nodes, nodes)

    def refuse_conflicts(self, ctx: Context, action: str, conflicts: Callable[[Nic], bool]) -> None:
        """Raises ``OpPrereqError`` if any NIC in the group conflicts; logs each of these."""
        found = conflicting_nics(instances_in(ctx.snapshot(), self.group_uuid), conflicts)
        if found:
            listed = ", ".join(
                f"{name}: {', '.join(f'nic{place}/{address}' for place, address in nics)}"
                for name, nics in found.items()
            )
            ctx.warning(
                f"IP addresses from network '{self.op.network_name}', which is about to {action}"
                f" node group '{self.group.name}', are in use: {listed}"
            )
            raise prereq(
                "Conflicting IP addresses found;  remove/modify the corresponding network"
                " interfaces",
                ECODE_STATE,
            )


class ConnectNetwork(_Connection[NetworkConnect], runs=NetworkConnect):
    """Connects a network to a group; only warns if it is connected already."""

    def check(self, ctx: Context) -> None:
        """Refuses invalid NIC parameters, and addresses that are in use."""
        check_nic(self.parameters)
        snapshot = ctx.snapshot()
        self.group = snapshot.groups[self.group_uuid]
        self.connected = self.network_uuid in self.group.networks
        if self.connected:
            ctx.warning(
                f"Network '{self.op.network_name}' is already mapped to group '{self.group.name}'"
            )
        elif self.op.conflicts_check:
            pool = pool_of(snapshot.networks[self.network_uuid])
            self.refuse_conflicts(ctx, "connect to", lambda nic: pool.contains(nic.ip))

    @property
    def parameters(self) -> dict[str, str]:
        """Returns the parameters of NICs in this network and group."""
        return {
            "mode": self.op.network_mode,
            "link": self.op.network_link,
            "vlan": self.op.network_vlan,
        }

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the group's name and the NIC parameters."""
        return group_variables(self.op.group_name, self.parameters)

    def exec(self, ctx: Context) -> None:
        """Connects the network."""
        if not self.connected:
            uuid, parameters = self.network_uuid, self.parameters
            ctx.change(
                self.group_uuid,
                lambda group: replace(group, networks={**group.networks, uuid: parameters}),
            )


class DisconnectNetwork(_Connection[NetworkDisconnect], runs=NetworkDisconnect):
    """Removes a group's connection to a network; only warns if there is none."""

    def check(self, ctx: Context) -> None:
        """Refuses a network in which an instance of the group has a NIC."""
        self.group = ctx.snapshot().groups[self.group_uuid]
        self.parameters: Params | None = self.group.networks.get(self.network_uuid)
        if self.parameters is None:
            ctx.warning(
                f"Network '{self.op.network_name}' is not mapped to group '{self.group.name}'"
            )
        else:
            uuid = self.network_uuid
            self.refuse_conflicts(ctx, "disconnect from", lambda nic: nic.network == uuid)

    def hook_environment(self, snapshot: Snapshot) -> Mapping[str, object]:
        """Returns the group's name and the connection's NIC parameters."""
        return group_variables(self.op.group_name, self.parameters)

    def exec(self, ctx: Context) -> None:
        """Disconnects the network."""
        if self.parameters is not None:
            uuid = self.network_uuid
            ctx.change(self.group_uuid, lambda group: without_network(group, uuid))


def instances_in(snapshot: Snapshot, group_uuid: str) -> list[Instance]:
    """Returns the instances whose primary node is in a group."""
    return [
        instance
        for node in snapshot.members(group_uuid)
        for instance in snapshot.instances_on(node)
    ]


def conflicting_nics(
    instances: Sequence[Instance], conflicts: Callable[[Nic], bool]
) -> dict[str, list[tuple[int, str | None]]]:
    """Returns the index and address of each conflicting NIC, by instance name. Pure."""
    found = {
        instance.name: [
            (place, nic.ip) for place, nic in enumerate(instance.nics) if conflicts(nic)
        ]
        for instance in instances
    }
    return {name: nics for name, nics in found.items() if nics}


def group_variables(name: str, parameters: Params | None) -> dict[str, object]:
    """Returns the hook variables of a connection, which has no parameters if it doesn't exist."""
    variables: dict[str, object] = {"GROUP_NAME": name}
    for key in ("mode", "link", "vlan") if parameters is not None else ():
        variables[f"GROUP_NETWORK_{key.upper()}"] = (parameters or {}).get(key, "")
    return variables


def without_network(group: NodeGroup, uuid: str) -> NodeGroup:
    """Returns the group without its connection to a network."""
    return replace(
        group,
        networks={key: params for key, params in group.networks.items() if key != uuid},
    )
