"""From what an opcode says of an instance to complete parameters and disks, checked. Pure.

What only nodes can tell is asked in ``requirements``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Cluster, NodeGroup
from ganeti_masterd.config.parameters import effective
from ganeti_masterd.config.parameters.devices import ACCESS_MODES
from ganeti_masterd.config.parameters.hypervisors import (
    check_hypervisor,
    is_normal_path,
    is_url,
)
from ganeti_masterd.config.parameters.limits import check_backend, split_memory
from ganeti_masterd.config.parameters.merging import AUTO, DEFAULT, refuse_globals, updated
from ganeti_masterd.config.parameters.policy import PolicyDemand, violations
from ganeti_masterd.config.parameters.types import BACKEND, HYPERVISOR, enforce, parse_size
from ganeti_masterd.config.templates import TEMPLATES, DiskTemplate
from ganeti_masterd.errors import (
    ECODE_INVAL,
    ECODE_STATE,
    OpExecError,
    OpPrereqError,
    TypeEnforcementError,
    prereq,
)
from ganeti_masterd.logical_units.disks.trees import DiskSpecification
from ganeti_masterd.logical_units.instances.naming import check_device_names, device_name
from ganeti_masterd.opcodes import REDACTED

#: The most disks that an instance can have.
MOST_DISKS = 16

#: The public OS parameter that names an image for the first disk.
OS_IMAGE = "os-image"

#: What an opcode may say of any disk; ext takes whatever its provider knows as well.
DISK_KEYS = (
    "access",
    "adopt",
    "dev_type",
    "metavg",
    "mode",
    "name",
    "provider",
    "size",
    "spindles",
    "vg",
)
_MODES = ("ro", "rw")


#: From so many characters on, a value is no common part of words.
TELLING = 4


class OsParameters(Struct, frozen=True, kw_only=True):
    """The OS parameters of an instance in their three visibilities. Never in a log."""

    public: Params = {}
    private: Params = {}
    secret: Params = {}

    def __repr__(self) -> str:
        return "OsParameters(...)"

    def masked(self, text: str) -> str:
        """Returns what a node said, without private and secret values that its scripts printed.

        Short values (below :data:`TELLING` characters) are only masked as whole words.
        """
        values = [str(each) for kind in (self.private, self.secret) for each in kind.values()]
        for value in sorted(filter(None, values), key=len, reverse=True):
            pattern = re.escape(value)
            if len(value) < TELLING:
                pattern = rf"(?<!\w){pattern}(?!\w)"
            text = re.sub(pattern, REDACTED, text)
        return text

    @contextmanager
    def kept_from_errors(self) -> Iterator[None]:
        """Masks (:meth:`masked`) the text of an error that is raised within."""
        try:
            yield
        except (OpExecError, OpPrereqError) as error:
            text, *others = error.args
            masked = self.masked(str(text))
            if masked == text:
                raise
            raise type(error)(masked, *others) from None

    def together(self) -> dict[str, Any]:
        """Returns all of them in one dictionary, in which ``os_validate`` takes them."""
        return {**self.public, **self.private, **self.secret}


# Backend parameters


def backend(cluster: Cluster, given: Params, old: Params | None = None) -> dict[str, Any]:
    """Returns an instance's own backend parameters after a change.

    ``auto`` stands for the cluster's value at this time, ``default`` and None for whatever
    the cluster has. Raises ``TypeEnforcementError``, and ``OpPrereqError`` for values that
    can't be, such as less memory at most than at least.
    """
    defaults = cluster.beparams.get("default", {})
    meant = {
        name: defaults.get(name) if value == AUTO else value
        for name, value in split_memory(given).items()
    }
    own = updated(old or {}, enforce(meant, BACKEND, special=(DEFAULT, None)), null=True)
    check_backend({**defaults, **own})
    return own


# Hypervisors


def enabled_hypervisor(cluster: Cluster, given: str | None) -> str:
    """Returns the hypervisor that is meant: None is the cluster's first.

    Raises ``OpPrereqError`` with ``wrong_state`` for one that isn't enabled.
    """
    enabled = cluster.enabled_hypervisors
    if given is None or given == AUTO:
        return enabled[0]
    if given not in enabled:
        raise prereq(
            f"Selected hypervisor ({given}) not enabled in the cluster ({','.join(enabled)})",
            ECODE_STATE,
        )
    return given


def hypervisor(
    cluster: Cluster, name: str, os: str, given: Params, old: Params | None = None
) -> dict[str, Any]:
    """Returns an instance's own parameters of its hypervisor after a change.

    ``default`` takes one back to the cluster's. Raises ``TypeEnforcementError``,
    ``HypervisorError`` for values that can't be, and ``OpPrereqError`` for parameters that
    hold for whole nodes.
    """
    refuse_globals(given, effective.NODE_WIDE, "hypervisor", "instance", "cluster")
    own = updated(old or {}, enforce(given, HYPERVISOR, special=(DEFAULT,)))
    check_hypervisor(name, {**inherited_hypervisor(cluster, name, os), **own})
    return own


def inherited_hypervisor(cluster: Cluster, name: str, os: str) -> dict[str, Any]:
    """Returns the parameters of a hypervisor that an instance with an OS has without its own."""
    return {**cluster.hvparams.get(name, {}), **cluster.os_hvp.get(os, {}).get(name, {})}


# Operating systems


def os_parameters(
    public: Params | None = None,
    private: Params | None = None,
    secret: Params | None = None,
    old: OsParameters | None = None,
) -> OsParameters:
    """Returns an instance's own OS parameters after a change; secret ones are never kept.

    ``default`` and None take one away. Raises ``OpPrereqError`` for a parameter that has
    more than one visibility.
    """
    before = old or OsParameters()
    check_visibilities(public or {}, private or {}, secret or {})
    found = OsParameters(
        public=updated(before.public, public or {}, null=True),
        private=updated(before.private, private or {}, null=True),
        secret=updated({}, secret or {}, null=True),
    )
    check_visibilities(found.public, found.private, found.secret)
    image = found.public.get(OS_IMAGE)
    if image is not None and not (is_normal_path(image) or is_url(image)):
        raise prereq("OS image must be an absolute path or a URL", ECODE_INVAL)
    return found


def check_visibilities(*kinds: Params) -> None:
    """Refuses parameters that are in more than one of ``kinds``, by their names."""
    times = Counter(name for kind in kinds for name in kind)
    twice = sorted(name for name, count in times.items() if count > 1)
    if twice:
        raise prereq(
            "Cannot assign multiple values to OS parameters. The following parameters are given "
            f"in more than one visibility: {', '.join(twice)}",
            ECODE_INVAL,
        )


def filled_os(cluster: Cluster, os: str, own: OsParameters) -> OsParameters:
    """Returns OS parameters with the cluster's for the OS and its variant under them."""
    base = os.partition("+")[0]
    return OsParameters(
        public={**cluster.osparams.get(base, {}), **cluster.osparams.get(os, {}), **own.public},
        private={
            **cluster.osparams_private_cluster.get(base, {}),
            **cluster.osparams_private_cluster.get(os, {}),
            **own.private,
        },
        secret=own.secret,
    )


def check_os_allowed(cluster: Cluster, os: str) -> None:
    """Refuses an operating system that the cluster has on its black list."""
    if os and os.partition("+")[0] in cluster.blacklisted_os:
        raise prereq(f"Guest OS '{os}' is not allowed for installation", ECODE_STATE)


def without_defaults(own: Params, defaults: Params) -> dict[str, Any]:
    """Returns parameters without those that are as they would be anyway."""
    return {
        name: value
        for name, value in own.items()
        if not (name in defaults and defaults[name] == value)
    }


# Disks


def enabled_template(cluster: Cluster, given: str | None) -> DiskTemplate:
    """Returns the disk template that is meant: None is the cluster's first.

    Raises ``OpPrereqError`` for one that isn't enabled.
    """
    enabled = cluster.enabled_disk_templates
    name = enabled[0] if given is None else given
    if name not in enabled:
        raise prereq(
            f"Disk template '{name}' is not enabled in cluster. Enabled disk templates are: "
            f"{','.join(enabled)}"
        )
    template = TEMPLATES[name]
    if template.lvm and not cluster.volume_group_name:
        raise prereq("Cluster does not support lvm-based instances", ECODE_STATE)
    return template


def read_disk(
    given: Mapping[str, Any], template: DiskTemplate, cluster: Cluster
) -> DiskSpecification:
    """Returns what an opcode says of one new disk, checked.

    One that is adopted may leave out its size, which is 0 then. The group of metadata
    stays empty where none is given (:func:`with_metadata_group`). Raises ``OpPrereqError``
    and ``TypeEnforcementError``.
    """
    own = {key: value for key, value in given.items() if key not in DISK_KEYS}
    is_ext = template.name == "ext"
    if own and not is_ext:
        raise TypeEnforcementError(f"Unknown parameter '{next(iter(own))}'")
    mode = given.get("mode", "rw")
    if mode not in _MODES:
        raise prereq(f"Invalid disk access mode '{mode}'", ECODE_INVAL)
    if given.get("dev_type", template.name) != template.name:
        raise prereq(
            f"Disk template of a disk ({given['dev_type']}) differs from the instance's "
            f"({template.name})",
            ECODE_INVAL,
        )
    params: dict[str, Any] = {}
    if is_ext:
        if "provider" not in given:
            raise prereq("Missing provider for template 'ext'", ECODE_INVAL)
        params = {"provider": given["provider"], **own}
    elif "provider" in given:
        raise prereq(
            f"The 'provider' option is only valid for the ext disk template, not {template.name}",
            ECODE_INVAL,
        )
    if "access" in given:
        params["access"] = _access(template, given["access"])
    adopt = given.get("adopt")
    return DiskSpecification(
        size=_size(given, adopted=adopt is not None),
        mode=mode,
        name=device_name("disk", given.get("name")),
        group=given.get("vg") or cluster.volume_group_name or "" if template.lvm else "",
        meta_group=given.get("metavg", "") if template.internal else "",
        adopt=adopt,
        spindles=_spindles(given),
        params=params,
    )


def read_disks(
    given: Sequence[Mapping[str, Any]], template: DiskTemplate, cluster: Cluster
) -> list[DiskSpecification]:
    """Returns what an opcode says of all disks of a new instance; see :func:`read_disk`."""
    if len(given) > MOST_DISKS:
        raise prereq(
            f"Instance has too many disks ({len(given)} of at most {MOST_DISKS})", ECODE_STATE
        )
    if given and template.name == "diskless":
        raise prereq("An instance without disks (template diskless) can't have disks", ECODE_INVAL)
    wanted = [read_disk(each, template, cluster) for each in given]
    check_device_names("disk", [disk.name for disk in wanted])
    return wanted


def with_metadata_group(
    disks: Iterable[DiskSpecification],
    template: DiskTemplate,
    cluster: Cluster,
    group: NodeGroup,
) -> list[DiskSpecification]:
    """Returns disks with the volume group of their metadata: a node group's, if none is given."""
    if not template.internal:
        return list(disks)
    default = effective.of_disks(cluster, group).get(template.name, {}).get("metavg")
    return [
        disk if disk.meta_group else replace(disk, meta_group=default or disk.group)
        for disk in disks
    ]


# Policies


def demand(
    filled: Params, template: str, sizes: Sequence[int], nics: int, spindles: int | None = None
) -> PolicyDemand:
    """Returns what an instance takes, given its complete backend parameters.

    ``sizes`` are those of its disks, in MiB; ``spindles`` stands for the backend parameter
    where disks have spindles of their own.
    """
    return PolicyDemand(
        memory=filled.get("maxmem"),
        cpus=filled.get("vcpus"),
        disk_sizes=list(sizes),
        disk_types=[template] * len(sizes),
        nics=nics,
        spindles=filled.get("spindle_use") if spindles is None else spindles,
    )


def check_policy_kept(cluster: Cluster, group: NodeGroup, wanted: PolicyDemand) -> None:
    """Raises ``OpPrereqError`` if an instance breaks the policy of a node group."""
    found = violations(effective.instance_policy(cluster, group), wanted)
    if found:
        raise prereq(
            f"Instance allocation to group {group.uuid} ({group.name}) violates policy: "
            f"{', '.join(found)}",
            ECODE_INVAL,
        )


def _size(given: Mapping[str, Any], *, adopted: bool) -> int:
    if adopted:
        return 0
    if given.get("size") is None:
        raise prereq("Missing disk size", ECODE_INVAL)
    try:
        size = parse_size(given["size"])
    except ValueError:
        raise prereq(f"Invalid disk size '{given['size']}'", ECODE_INVAL)
    if size <= 0:
        raise prereq(f"Invalid disk size '{given['size']}'", ECODE_INVAL)
    return size


def _access(template: DiskTemplate, access: str) -> str:
    if not template.access:
        raise prereq(
            f"Disks of the template {template.name} have no 'access' parameter", ECODE_INVAL
        )
    if access not in ACCESS_MODES:
        raise prereq(
            f"Invalid disk access parameter '{access}' (expected one of {', '.join(ACCESS_MODES)})",
            ECODE_INVAL,
        )
    return access


def _spindles(given: Mapping[str, Any]) -> int | None:
    if given.get("spindles") is None:
        return None
    spindles: int = enforce({"spindles": given["spindles"]}, {"spindles": "int"})["spindles"]
    if spindles < 1:
        raise prereq(f"Invalid number of spindles '{given['spindles']}'", ECODE_INVAL)
    return spindles
