"""The types of opcode parameters, as msgspec decodes them.

The sets of values are Ganeti's (3.0.2). Where msgspec's types can't describe what a value
must be, the type carries a check (:mod:`ganeti_masterd.opcodes.checks`), which ``validation``
runs, and a description of what is expected, which ``wording`` puts into messages.

Lists are decoded as tuples, because threads share opcodes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from ganeti_masterd.constants import OP_PRIO_HIGHEST, OP_PRIO_LOWEST
from ganeti_masterd.opcodes import checks
from ganeti_masterd.opcodes.checks import LONGEST_NAME, NicParams, NonEmptyStr, ObjectName

# Numbers and texts
PositiveInt = Annotated[int, Meta(ge=1)]
DiskIndex = Annotated[int, Meta(ge=0, lt=16)]
Priority = Annotated[int, Meta(ge=OP_PRIO_HIGHEST, le=OP_PRIO_LOWEST)]
ObjectNames = tuple[ObjectName, ...]
ObjectNameOrEmpty = Annotated[str, Meta(max_length=LONGEST_NAME)]
Tag = Annotated[str, Meta(max_length=LONGEST_NAME)]
ParamValues = dict[str, Any]

# Addresses
IPv4Address = Annotated[
    str, Meta(extra={"check": checks.is_ipv4_address, "expected": "an IPv4 address"})
]
IPv4Network = Annotated[
    str,
    Meta(
        extra={"check": checks.is_ipv4_network, "expected": "an IPv4 network such as 192.0.2.0/24"}
    ),
]
IPv6Address = Annotated[
    str, Meta(extra={"check": checks.is_ipv6_address, "expected": "an IPv6 address"})
]
IPv6Network = Annotated[
    str,
    Meta(
        extra={"check": checks.is_ipv6_network, "expected": "an IPv6 network such as 2001:db8::/64"}
    ),
]

# OS parameters that must not be shown (private), or not even be written to disk (secret).
# "depth" is how many levels of objects down the values are.
PrivateParams = Annotated[ParamValues, Meta(extra={"secrecy": "private", "depth": 1})]
SecretParams = Annotated[ParamValues, Meta(extra={"secrecy": "secret", "depth": 1})]
PrivateParamsByOs = Annotated[
    dict[str, ParamValues], Meta(extra={"secrecy": "private", "depth": 2})
]

# Opcodes nested in an opcode, in the form in which clients submit them; redaction looks into
# them.
InnerOpcodes = Annotated[tuple[Any, ...], Meta(extra={"opcodes": True})]
AnyInnerOpcodes = Annotated[Any, Meta(extra={"opcodes": True})]

# Clusters, nodes and groups
Hypervisor = Literal["chroot", "fake", "kvm", "lxc", "xen-hvm", "xen-pvm"]
AllocPolicy = Literal["preferred", "last_resort", "unallocable"]
SshKeyType = Literal["dsa", "ecdsa", "rsa"]
OobAction = Literal["health", "power-cycle", "power-off", "power-on", "power-status"]
EvacuationMode = Literal["all", "primary-only", "secondary-only"]
UidRange = tuple[int, int]
OsStatusChange = tuple[Literal["add", "attach", "detach", "remove"], NonEmptyStr]
VerifyCheck = Literal["nplusone_mem"]
VerifyCode = Literal[
    "ECLUSTERCERT",
    "ECLUSTERCFG",
    "ECLUSTERCLIENTCERT",
    "ECLUSTERDANGLINGINST",
    "ECLUSTERDANGLINGNODES",
    "ECLUSTERFILECHECK",
    "EEXTAGS",
    "EGROUPDIFFERENTPVSIZE",
    "EINSTANCEBADNODE",
    "EINSTANCEDOWN",
    "EINSTANCEFAULTYDISK",
    "EINSTANCELAYOUT",
    "EINSTANCEMISSINGCFGPARAMETER",
    "EINSTANCEMISSINGDISK",
    "EINSTANCEPOLICY",
    "EINSTANCESPLITGROUPS",
    "EINSTANCEUNSUITABLENODE",
    "EINSTANCEWRONGNODE",
    "ENODEDRBD",
    "ENODEDRBDHELPER",
    "ENODEDRBDVERSION",
    "ENODEFILECHECK",
    "ENODEFILESTORAGEPATHS",
    "ENODEFILESTORAGEPATHUNUSABLE",
    "ENODEGLUSTERSTORAGEPATHUNUSABLE",
    "ENODEHOOKS",
    "ENODEHV",
    "ENODELVM",
    "ENODEN1",
    "ENODENET",
    "ENODEOOBPATH",
    "ENODEORPHANINSTANCE",
    "ENODEORPHANLV",
    "ENODEOS",
    "ENODERPC",
    "ENODESETUP",
    "ENODESHAREDFILESTORAGEPATHUNUSABLE",
    "ENODESSH",
    "ENODETIME",
    "ENODEUSERSCRIPTS",
    "ENODEVERSION",
]

# Storage
DiskTemplateName = Literal[
    "blockdev", "diskless", "drbd", "ext", "file", "gluster", "plain", "rbd", "sharedfile"
]
StorageType = Literal[
    "blockdev", "diskless", "ext", "file", "gluster", "lvm-pv", "lvm-vg", "rados", "sharedfile"
]
FileDriver = Literal["blktap", "blktap2", "loop"]
ParamsByTemplate = dict[DiskTemplateName, ParamValues]

# Instances, their NICs and disks
Nics = tuple[NicParams, ...]
Disks = tuple[checks.DiskParams, ...]
CreateMode = Literal["create", "import", "remote-import"]
ExportMode = Literal["local", "remote"]
RebootType = Literal["full", "hard", "soft"]
MigrationMode = Literal["live", "non-live"]
AdminStateSource = Literal["admin", "user"]
ReplaceMode = Literal[
    "replace_auto", "replace_new_secondary", "replace_on_primary", "replace_on_secondary"
]
NicChanges = Annotated[
    tuple[tuple[Any, ...], ...],
    Meta(
        extra={
            "check": checks.is_list_of_nic_changes,
            "expected": "a list of [action, index or name, NIC parameters]"
            " (or, all of them, of [action or index, NIC parameters])",
        }
    ),
]
DiskChanges = Annotated[
    tuple[tuple[Any, ...], ...],
    Meta(
        extra={
            "check": checks.is_list_of_disk_changes,
            "expected": "a list of [action, index or name, disk parameters]"
            " (or, all of them, of [action or index, disk parameters])",
        }
    ),
]
RecreatedDisks = Annotated[
    tuple[Any, ...],
    Meta(
        extra={
            "check": checks.is_list_of_recreated_disks,
            "expected": "a list of disk indices or a list of [disk index, disk parameters]",
        }
    ),
]

# Networks
NicMode = Literal["bridged", "openvswitch", "pool", "routed"]

# Tags and queries
TagKind = Literal["cluster", "instance", "network", "node", "nodegroup"]
QueryResource = Literal[
    "cluster",
    "export",
    "extstorage",
    "filter",
    "group",
    "instance",
    "job",
    "lock",
    "network",
    "node",
    "os",
]

# Allocators
AllocatorDirection = Literal["in", "out"]
AllocatorMode = Literal[
    "allocate",
    "allocate-secondary",
    "change-group",
    "multi-allocate",
    "node-evacuate",
    "relocate",
]

# What every opcode has
FinalStatus = Literal["canceled", "error", "success"]
Reason = tuple[str, str, int]


class Dependency(Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A job to wait for: ``[job id, [final states]]`` on the wire.

    A negative ``job`` is relative to the id of the job that contains the opcode
    (-1 is the job submitted just before). Empty ``states`` mean success or error.
    """

    job: int
    states: tuple[FinalStatus, ...]
