"""Operating systems whose scripts no node is to run: they run in a helper VM.

The helper VM gets the definition of the operating system, with the environment of its script, as
a package that the node packs and that its metadata daemon serves to the instance. Texts and the
order of calls are those of real daemon 3.0.2; where ours differs, docs/differences.rst says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.base import Params
from ganeti_masterd.config.objects import Disk, Instance, Nic
from ganeti_masterd.constants import HELPER_VM_SHUTDOWN, HELPER_VM_STARTUP
from ganeti_masterd.errors import ECODE_INVAL, ECODE_STATE, prereq
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.instances.helper_vm import (
    HelperImage,
    HelperVM,
    boots_from_disk,
    find_image,
)
from ganeti_masterd.logical_units.instances.nics import COMMUNICATION_PREFIX
from ganeti_masterd.logical_units.instances.setting_up import tell_metadata
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.rpc import calls

#: The script that runs in the helper VM.
SCRIPT = "create_untrusted"

#: The public OS parameter with the path of the package, on the primary node.
PACKAGE = "os-install-package"

#: What a guest's disks are called, by hypervisor, before the letter of each.
_DISK_PREFIXES = {"kvm": "/dev/vd", "xen-pvm": "/dev/xvd", "xen-hvm": "/dev/xvd"}


def is_trusted(ctx: Context, node: str, os: str) -> bool:
    """Whether a node (its uuid) may run the scripts of an operating system by itself.

    Raises ``OpPrereqError``.
    """
    name = ctx.snapshot().nodes[node].name
    found = ctx.call_one(node, calls.OS_DIAGNOSE).or_refuse(
        f"Failed to get OS '{os}' from node {name}"
    )
    base = os.partition("+")[0]
    system = next((one for one in found if one.name == base), None)
    if system is None:
        raise prereq(f"OS '{os}' is not available in node '{name}'")
    return system.trusted


def refuse_untrusted(ctx: Context, node: str, os: str) -> None:
    """Refuses an import with an operating system that isn't trusted on a node (its uuid)."""
    if not is_trusted(ctx, node, os):
        raise prereq(
            f"OS '{os}' is not trusted on node {ctx.snapshot().nodes[node].name}: its import "
            "script must not run there, and a helper VM has none",
            ECODE_STATE,
        )


def find_install_image(
    ctx: Context, node: str, hypervisor: str, filled: Params, beside: dict[str, int]
) -> HelperImage:
    """Returns the image of the helper VM that installs an operating system on a node (its uuid).

    ``filled`` are the instance's hypervisor parameters; ``beside`` as in
    :func:`.helper_vm.find_image`. Raises ``OpPrereqError``.
    """
    place = ctx.snapshot().cluster.install_image
    if not place:
        raise prereq(
            "Cannot create install instance because an install image has not been specified",
            ECODE_STATE,
        )
    if hypervisor not in _DISK_PREFIXES:
        raise prereq(
            f"Cannot run OS scripts in a virtualized environment for hypervisor '{hypervisor}'",
            ECODE_STATE,
        )
    if not boots_from_disk(hypervisor, filled):
        raise prereq(
            "Booting from disk must be set for OS scripts to run in a helper VM", ECODE_INVAL
        )
    return find_image(ctx, place, node, beside)


def warn_if_unreachable(ctx: Context, nics: Sequence[Nic]) -> None:
    """Warns of an instance whose helper VM has no way to the metadata daemon."""
    if not any((nic.name or "").startswith(COMMUNICATION_PREFIX) for nic in nics):
        ctx.warning(
            "The instance has no NIC for instance communication, through which a helper VM gets "
            "what it is to install",
            hint="--communication=yes adds one",
        )


def install(
    ctx: Context,
    instance: Instance,
    image: HelperImage,
    secret: Params,
    *,
    reason: Any,
    boots_in: int | None = None,
    ends_in: int | None = None,
) -> None:
    """Has a helper VM install the operating system of an instance whose disks are ready.

    ``secret`` are OS parameters that are never stored. The helper VM has to be up after
    ``boots_in`` seconds, and to have shut itself down after ``ends_in`` (None: as Ganeti has
    it). Raises ``OpExecError``.
    """
    package = instance.osparams.get(PACKAGE)
    if package is not None:
        ctx.feedback(f"Using OS install package '{package}'")
    else:
        package = _make_package(ctx, instance)
        ctx.feedback(f"Created OS install package '{package}'")
    tell_metadata(ctx, replace(instance, osparams={**instance.osparams, PACKAGE: package}), secret)
    HelperVM(ctx, instance, image, doing="Running OS create script", reason=reason).run(
        boots_in=HELPER_VM_STARTUP if boots_in is None else boots_in,
        ends_in=HELPER_VM_SHUTDOWN if ends_in is None else ends_in,
    )


def _make_package(ctx: Context, instance: Instance) -> str:
    """Has the primary pack the operating system and its environment; returns the path there."""
    snapshot, primary = ctx.snapshot(), instance.primary_node
    sent = node_objects.instance(snapshot, instance, primary)
    environment = script_environment(instance.hypervisor, snapshot.disks_of(instance))
    return str(
        ctx.call_one(primary, calls.OS_EXPORT, (sent, environment)).or_fail(
            f"Could not export OS '{instance.os}'"
        )
    )


def script_environment(hypervisor: str, disks: Sequence[Disk]) -> dict[str, str]:
    """Returns the variables with which a script in a helper VM finds the instance's disks. Pure.

    The first disk is the one that the helper VM boots from.
    """
    prefix = _DISK_PREFIXES[hypervisor]
    paths = {
        f"DISK_{index}_PATH": f"{prefix}{chr(ord('b') + index)}" for index in range(len(disks))
    }
    return {"OS_SCRIPT": SCRIPT, **paths}
