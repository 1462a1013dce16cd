"""What changes to an instance's NICs come to: the NICs afterwards, and what the result says.

Addresses are reserved as the changes are read, so that everything is refused before anything
changes. Texts are those of real daemon 3.0.2; where the rules differ, docs/differences.rst
says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.objects import Instance, Network, Nic
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.types import NIC
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ECODE_INVAL, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.device_changes import (
    ADD,
    ATTACH,
    DETACH,
    REMOVE,
    DeviceChange,
    ModifiedEntries,
    check_room_for,
    place_of,
)
from ganeti_masterd.logical_units.instances.hotplugging import (
    NOT_PLUGGED,
    PLUG,
    PLUGGED,
    REPLUG,
    UNPLUG,
    hotplug_nic,
)
from ganeti_masterd.logical_units.instances.naming import NONE, check_device_names
from ganeti_masterd.logical_units.instances.nics import (
    MOST_NICS,
    POOL,
    NicWish,
    read_nic,
    require_distinct,
    settle_nic,
    wish_of,
)
from ganeti_masterd.opcodes.instances import InstanceSetParams
from ganeti_masterd.rpc import calls

#: The refusal of a routed NIC without an address at a change.
_NO_ADDRESS = "Cannot set the NIC IP address to None on a routed NIC if not attached to a network"


class NicStep(Struct, frozen=True):
    """One change to the NICs, ready to be done.

    ``nic`` is the NIC after it (before it if it is removed), ``label`` what the result calls
    it where it was plugged in or out by ``plugging``.
    """

    plugging: str
    label: str
    index: int
    nic: Nic
    entries: Sequence[tuple[str, Any]]


class NicPlan(Struct, frozen=True):
    """All changes to the NICs, and the NICs after them."""

    nics: tuple[Nic, ...]
    steps: Sequence[NicStep] = ()


def plan_nics(
    ctx: Context, instance: Instance, changes: Sequence[DeviceChange], op: InstanceSetParams
) -> NicPlan:
    """Returns what changes come to; addresses are reserved, and bridges are asked for.

    Raises ``OpPrereqError``.
    """
    planning = _NicPlanning(ctx, instance, op)
    steps = [planning.step(change) for change in changes]
    if changes:
        check_device_names("NIC", [nic.name for nic in planning.nics])
        require_distinct(planning.nics)
    return NicPlan(tuple(planning.nics), steps)


def do_nics(ctx: Context, instance: Instance, plan: NicPlan, *, hotplug: bool) -> ModifiedEntries:
    """Plugs NICs in and out where that is wanted; returns what the result says of all changes.

    The configuration is the caller's to change.
    """
    entries: ModifiedEntries = []
    for step in plan.steps:
        entries += step.entries
        if hotplug:
            good = hotplug_nic(ctx, instance, step.plugging, step.nic, step.index)
            entries.append((step.label, PLUGGED if good else NOT_PLUGGED))
    return entries


class _NicPlanning:
    """The NICs of an instance, as one change after another leaves them."""

    def __init__(self, ctx: Context, instance: Instance, op: InstanceSetParams) -> None:
        self._ctx = ctx
        self._op = op
        self._primary = instance.primary_node
        self.nics = list(instance.nics)

    def step(self, change: DeviceChange) -> NicStep:
        """Returns what one change comes to, and applies it to :attr:`nics`."""
        if change.action in (ATTACH, DETACH):
            raise prereq(
                f"{change.action.capitalize()} operation is not supported for NICs", ECODE_INVAL
            )
        index = place_of("NIC", change, self.nics)
        if change.action == REMOVE:
            label = f"NIC/{index}"
            return NicStep(UNPLUG, label, index, self.nics.pop(index), [(label, REMOVE)])
        if change.action == ADD:
            check_room_for("network interfaces", len(self.nics), MOST_NICS)
            return self._added(index, change.params)
        return self._modified(index, change.params)

    def _added(self, index: int, given: Mapping[Any, str | None]) -> NicStep:
        params = _resolved(self._ctx.snapshot(), given)
        cluster = self._ctx.snapshot().cluster
        nic = self._settled(
            read_nic(params, cluster, without_address=_NO_ADDRESS), index, before=None
        )
        self.nics.insert(index, nic)
        label = f"nic.{index}"
        network = None if _is_none(given.get("network")) else given["network"]
        text = (
            f"add:mac={nic.mac},ip={nic.ip},mode={nic.nicparams['mode']},"
            f"link={nic.nicparams['link']},network={network}"
        )
        return NicStep(PLUG, label, index, nic, [(label, text)])

    def _modified(self, index: int, given: Mapping[Any, str | None]) -> NicStep:
        snapshot = self._ctx.snapshot()
        old = self.nics[index]
        params = _resolved(snapshot, given)
        _check_modification(old, params)
        wish = read_nic(params, snapshot.cluster, old=wish_of(old), without_address=_NO_ADDRESS)
        if params.get("mac") is None and _prefix(snapshot, wish.network) != _prefix(
            snapshot, old.network
        ):
            wish = replace(wish, mac="auto")
        nic = self._settled(wish, index, before=old)
        self.nics[index] = nic
        entries = _entries_of(index, old, nic, given)
        return NicStep(REPLUG, f"nic/{index}", index, nic, entries)

    def _settled(self, wish: NicWish, index: int, before: Nic | None) -> Nic:
        """Returns the NIC with its addresses reserved and all its parameters filled in."""
        ctx = self._ctx
        network = None if wish.network is None else ctx.snapshot().network(wish.network)
        if network is not None and _is_taken(wish, network, before):
            ctx.info(f"Reserving IP {wish.ip} in network {network.name}")
        nic = settle_nic(
            ctx,
            wish,
            index,
            self._primary,
            conflicts_check=self._op.conflicts_check,
            before=before,
        )
        cluster = ctx.snapshot().cluster
        filled = effective.of_nic(cluster, nic)
        nic = replace(nic, nicparams={key: filled.get(key, "") for key in NIC})
        if before is None or _where(effective.of_nic(cluster, before)) != _where(filled):
            self._check_link(nic)
        return nic

    def _check_link(self, nic: Nic) -> None:
        """Asks the primary node for the bridge of a NIC; with force a missing one is a warning."""
        ctx = self._ctx
        mode, link = nic.nicparams["mode"], nic.nicparams["link"]
        if mode == "openvswitch":
            ctx.info("OVS links are currently not checked for correctness")
        if mode != "bridged":
            return
        answer = ctx.call_one(self._primary, calls.BRIDGES_EXIST, ([link],))
        text = f"Error checking bridges on node '{answer.node}'"
        if answer.failed and self._op.force:
            ctx.warning(f"{text}: {answer.error}")
            return
        answer.or_refuse(text)


def _resolved(snapshot: Snapshot, given: Mapping[Any, str | None]) -> dict[Any, str | None]:
    """Returns parameters with the uuid of the network in place of its name."""
    params = dict(given)
    network = params.get("network")
    if network is not None and not _is_none(network):
        params["network"] = snapshot.network(network).uuid
    return params


def _check_modification(old: Nic, params: Mapping[Any, str | None]) -> None:
    mac = params.get("mac")
    if mac is not None and mac.lower() == "auto":
        raise prereq(
            "'auto' is not a valid MAC address when modifying an existing NIC", ECODE_INVAL
        )
    stays = "network" not in params or params["network"] == old.network
    if old.network and stays and (params.get("link") or params.get("mode")):
        raise prereq(
            "Not allowed to change link or mode of a NIC that is connected to a network",
            ECODE_INVAL,
        )


def _entries_of(index: int, old: Nic, nic: Nic, given: Mapping[Any, str | None]) -> ModifiedEntries:
    entries: ModifiedEntries = []
    if "mac" in given or nic.mac != old.mac:
        entries.append((f"nic.mac/{index}", nic.mac))
    if "ip" in given:
        entries.append((f"nic.ip/{index}", nic.ip))
    if "name" in given:
        entries.append((f"nic.name/{index}", nic.name))
    if nic.network != old.network:
        shown = None if nic.network is None else given["network"]
        entries.append((f"nic.network/{index}", shown))
    return entries + [(f"nic.{key}/{index}", nic.nicparams[key]) for key in NIC]


def _is_taken(wish: NicWish, network: Network, before: Nic | None) -> bool:
    """Whether an address that was given is new to a NIC."""
    if wish.ip in (None, POOL):
        return False
    return before is None or (before.network, before.ip) != (network.uuid, wish.ip)


def _prefix(snapshot: Snapshot, network: str | None) -> str:
    found = snapshot.networks.get(network) if network is not None else None
    own = found.mac_prefix if found is not None else None
    return own or snapshot.cluster.mac_prefix


def _where(filled: Mapping[str, Any]) -> tuple[Any, Any]:
    return filled.get("mode"), filled.get("link")


def _is_none(value: str | None) -> bool:
    return value is None or value.lower() == NONE
