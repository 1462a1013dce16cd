"""What hooks are told of an instance (protocol/rpc.rst, Hooks). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganeti_masterd.config.objects import Disk, Instance, Nic
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.templates import summary_name


def instance_environment(
    snapshot: Snapshot,
    instance: Instance,
    *,
    disks: Sequence[Disk] | None = None,
    status: object = None,
    backend: Mapping[str, Any] | None = None,
) -> dict[str, object]:
    """Returns the variables that every opcode on an instance has, without their prefix.

    ``disks`` are those of an instance that isn't in the configuration yet; ``status``
    stands for its state, ``backend`` for its filled backend parameters.
    """
    held = snapshot.disks_of(instance) if disks is None else disks
    cluster = snapshot.cluster
    filled = effective.backend(cluster, instance) if backend is None else backend
    nodes = [uuid for disk in held for uuid in disk.all_nodes()]
    secondaries = [uuid for uuid in dict.fromkeys(nodes) if uuid != instance.primary_node]
    environment: dict[str, object] = {
        "OP_TARGET": instance.name,
        "INSTANCE_NAME": instance.name,
        "INSTANCE_PRIMARY": _name(snapshot, instance.primary_node),
        "INSTANCE_SECONDARIES": " ".join(_name(snapshot, uuid) for uuid in secondaries),
        "INSTANCE_OS_TYPE": instance.os,
        "INSTANCE_HYPERVISOR": instance.hypervisor,
        "INSTANCE_DISK_TEMPLATE": summary_name(disk.dev_type for disk in held),
        "INSTANCE_TAGS": " ".join(instance.tags),
        "INSTANCE_STATUS": instance.admin_state if status is None else status,
        "INSTANCE_MINMEM": filled.get("minmem"),
        "INSTANCE_MAXMEM": filled.get("maxmem"),
        "INSTANCE_MEMORY": filled.get("maxmem"),
        "INSTANCE_VCPUS": filled.get("vcpus"),
        "INSTANCE_NIC_COUNT": len(instance.nics),
        "INSTANCE_DISK_COUNT": len(held),
    }
    for index, nic in enumerate(instance.nics):
        environment |= _nic(snapshot, nic, f"INSTANCE_NIC{index}_")
    for index, disk in enumerate(held):
        environment |= _disk(disk, f"INSTANCE_DISK{index}_")
    environment |= {f"INSTANCE_BE_{key}": value for key, value in filled.items()}
    hypervisor = effective.hypervisor(cluster, instance)
    return environment | {f"INSTANCE_HV_{key}": value for key, value in hypervisor.items()}


def _name(snapshot: Snapshot, uuid: str) -> str:
    node = snapshot.nodes.get(uuid)
    return uuid if node is None else node.name


def _nic(snapshot: Snapshot, nic: Nic, prefix: str) -> dict[str, object]:
    filled = effective.of_nic(snapshot.cluster, nic)
    told: dict[str, object] = {"NAME": nic.name} if nic.name else {}
    told |= {
        "UUID": nic.uuid,
        "IP": nic.ip or "",
        "MAC": nic.mac,
        "MODE": filled.get("mode"),
        "LINK": filled.get("link"),
        "VLAN": filled.get("vlan"),
    }
    if filled.get("mode") in ("bridged", "openvswitch"):
        told["BRIDGE"] = filled.get("link")
    network = snapshot.networks.get(nic.network) if nic.network else None
    if network is not None:
        told |= {
            "NETWORK_NAME": network.name,
            "NETWORK_UUID": network.uuid,
            "NETWORK_TAGS": " ".join(network.tags),
        }
        optional = {
            "NETWORK_SUBNET": network.network,
            "NETWORK_GATEWAY": network.gateway,
            "NETWORK_SUBNET6": network.network6,
            "NETWORK_GATEWAY6": network.gateway6,
            "NETWORK_MAC_PREFIX": network.mac_prefix,
        }
        told |= {key: value for key, value in optional.items() if value}
    return {prefix + key: value for key, value in told.items()}


def _disk(disk: Disk, prefix: str) -> dict[str, object]:
    told: dict[str, object] = {"NAME": disk.name} if disk.name else {}
    told |= {"UUID": disk.uuid, "SIZE": disk.size, "MODE": disk.mode, "DEV_TYPE": disk.dev_type}
    unique = disk.logical_id or ()
    if disk.dev_type == "drbd" and len(unique) >= 5:
        data, meta = (child.logical_id or ("", "") for child in disk.children)
        told |= {
            "PNODE": unique[0],
            "SNODE": unique[1],
            "PORT": unique[2],
            "PMINOR": unique[3],
            "SMINOR": unique[4],
            "DATA_VG": data[0],
            "DATA_ID": data[1],
            "META_VG": meta[0],
            "META_ID": meta[1],
        }
    elif len(unique) >= 2:
        told["ID"] = unique[1]
        told[_ORIGIN.get(disk.dev_type, "DRIVER")] = unique[0]
    return {prefix + key: value for key, value in told.items()}


#: What the first part of a disk's id is called where it isn't a driver.
_ORIGIN = {"plain": "VG", "ext": "PROVIDER"}
