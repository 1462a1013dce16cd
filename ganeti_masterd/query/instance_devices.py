"""The fields of instances' network interfaces and disks, each also by its number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ganeti_masterd.config.objects import Disk, Instance, Nic
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.templates import summary_name
from ganeti_masterd.query.fields import Field, View, declare, number, other, text, unit

#: How many network interfaces, and how many disks, have fields of their own by number.
NICS = 8
DISKS = 16

#: A function from the view and a device to a value.
OfDevice = Callable[[View, Any], Any]


def disks(view: View, instance: Instance) -> Sequence[Disk]:
    """Returns an instance's disks in order."""
    return view.snapshot.disks_of(instance)


def nics(view: View, instance: Instance) -> Sequence[Nic]:
    """Returns an instance's network interfaces in order."""
    return instance.nics


def _each(devices: Callable[[View, Instance], Sequence[Any]], value: OfDevice) -> OfDevice:
    return lambda view, instance: [value(view, device) for device in devices(view, instance)]


def _one(
    devices: Callable[[View, Instance], Sequence[Any]], place: int, value: OfDevice
) -> OfDevice:
    def of_one(view: View, instance: Instance) -> Any:
        found = devices(view, instance)
        return value(view, found[place]) if place < len(found) else None

    return of_one


def _nic(view: View, nic: Nic) -> dict[str, Any]:
    return effective.of_nic(view.snapshot.cluster, nic)


def _bridge(view: View, nic: Nic) -> Any:
    merged = _nic(view, nic)
    return merged.get("link") if merged.get("mode") == "bridged" else None


def _vlan(view: View, nic: Nic) -> Any:
    merged = _nic(view, nic)
    return (merged.get("vlan") or None) if merged.get("mode") == "openvswitch" else None


def _network_name(view: View, nic: Nic) -> str | None:
    network = view.snapshot.networks.get(nic.network) if nic.network is not None else None
    return None if network is None else network.name


#: Facts of a network interface: name and title of the field of one (by number), name and
#: title of the field of all, the function that computes it, and a description.
_NIC_FACTS: tuple[tuple[str, str, str, str, OfDevice, str], ...] = (
    ("nic.ip", "NicIP", "nic.ips", "NIC_IPs", lambda view, nic: nic.ip, "IP address"),
    ("nic.mac", "NicMAC", "nic.macs", "NIC_MACs", lambda view, nic: nic.mac, "MAC address"),
    ("nic.name", "NicName", "nic.names", "NIC_Names", lambda view, nic: nic.name, "name"),
    ("nic.uuid", "NicUUID", "nic.uuids", "NIC_UUIDs", lambda view, nic: nic.uuid, "UUID"),
    (
        "nic.mode",
        "NicMode",
        "nic.modes",
        "NIC_modes",
        lambda view, nic: _nic(view, nic).get("mode"),
        "mode",
    ),
    (
        "nic.link",
        "NicLink",
        "nic.links",
        "NIC_links",
        lambda view, nic: _nic(view, nic).get("link"),
        "link",
    ),
    ("nic.vlan", "NicVLAN", "nic.vlans", "NIC_VLANs", _vlan, "VLAN"),
    ("nic.bridge", "NicBridge", "nic.bridges", "NIC_bridges", _bridge, "bridge"),
    (
        "nic.network",
        "NicNetwork",
        "nic.networks",
        "NIC_networks",
        lambda view, nic: nic.network,
        "network's UUID",
    ),
    (
        "nic.network.name",
        "NicNetworkName",
        "nic.networks.names",
        "NIC_networks_names",
        _network_name,
        "network's name",
    ),
)

#: The same for disks, with the kind of the field of one.
_DISK_FACTS: tuple[tuple[str, str, str, str, str, OfDevice, str], ...] = (
    ("disk.name", "DiskName", "text", "disk.names", "Disk_names", lambda _, d: d.name, "name"),
    ("disk.size", "Disk", "unit", "disk.sizes", "Disk_sizes", lambda _, d: d.size, "size"),
    (
        "disk.spindles",
        "DiskSpindles",
        "number",
        "disk.spindles",
        "Disk_spindles",
        lambda _, d: d.spindles,
        "number of spindles",
    ),
    ("disk.uuid", "DiskUUID", "text", "disk.uuids", "Disk_UUIDs", lambda _, d: d.uuid, "UUID"),
)


def nic_fields() -> Iterator[Field]:
    """Declares the fields of network interfaces."""
    yield number(
        "nic.count", "NICs", of=lambda one: len(one.nics), doc="How many interfaces it has."
    )
    yield other(
        "custom_nicparams",
        "CustomNicParameters",
        of=lambda one: [dict(nic.nicparams) for nic in one.nics],
        doc="The parameters that are set for each interface alone.",
    )
    for single, title, plural, plural_title, value, what in _NIC_FACTS:
        yield other(
            plural, plural_title, given=_each(nics, value), doc=f"The {what} of each interface."
        )
        for place in range(NICS):
            yield text(
                f"{single}/{place}",
                f"{title}/{place}",
                given=_one(nics, place, value),
                doc=f"The {what} of interface {place}.",
            )
    first = {fact[0]: fact for fact in _NIC_FACTS}
    for name, single in (
        ("ip", "nic.ip"),
        ("mac", "nic.mac"),
        ("bridge", "nic.bridge"),
        ("nic_mode", "nic.mode"),
        ("nic_link", "nic.link"),
        ("nic_network", "nic.network"),
    ):
        _, title, _, _, value, what = first[single]
        yield text(
            name, f"{title}/0", given=_one(nics, 0, value), doc=f"The {what} of interface 0."
        )


def disk_fields() -> Iterator[Field]:
    """Declares the fields of disks."""
    yield number("disk.count", "Disks", of=lambda one: len(one.disks), doc="How many disks it has.")
    yield text("disk_template", "Disk_template", given=template, doc="What its disks are made of.")
    yield unit("disk_usage", "DiskUsage", given=usage, doc="The space that its disks take.")
    for single, title, kind, plural, plural_title, value, what in _DISK_FACTS:
        yield other(
            plural, plural_title, given=_each(disks, value), doc=f"The {what} of each disk."
        )
        for place in range(DISKS):
            yield declare(
                f"{single}/{place}",
                f"{title}/{place}",
                kind,
                given=_one(disks, place, value),
                doc=f"The {what} of disk {place}.",
            )
    for place, name in enumerate(("sda_size", "sdb_size")):
        yield unit(
            name,
            f"Disk/{place}",
            given=_one(disks, place, lambda _, disk: disk.size),
            doc=f"The size of disk {place}.",
        )


def template(view: View, instance: Instance) -> str:
    """Returns the template of an instance's disks: ``mixed`` if several, ``diskless`` if none."""
    return summary_name(disk.dev_type for disk in disks(view, instance))


def usage(view: View, instance: Instance) -> int:
    """Returns how much of the cluster's storage an instance's disks take, in MiB.

    DRBD's metadata is counted; adopted block devices are not.
    """
    return sum(disk.template.room(disk.size) for disk in disks(view, instance))
