"""Operating systems and storage providers that are installed on simulated nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ganeti_masterd.constants import OS_API_V20
from ganeti_masterd.simulation.blocks import DeviceError
from ganeti_masterd.simulation.describing import DescribedDisk
from ganeti_masterd.simulation.devices import need, open_devices
from ganeti_masterd.simulation.node import (
    Implementations,
    NodeFailure,
    OSDefinition,
    SimulatedNode,
    Unexpected,
    failing,
    member,
)
from ganeti_masterd.simulation.state import StoredFile

calls = Implementations()

OS_CHECKS = frozenset({"parameters"})


@calls("extstorage_diagnose")
def extstorage_diagnose(node: SimulatedNode) -> list[list[Any]]:
    """The storage providers."""
    return [
        [each.name, each.path, True, "", [list(row) for row in each.parameters]]
        for each in node.world.providers
    ]


@calls("os_diagnose")
def os_diagnose(node: SimulatedNode) -> list[list[Any]]:
    """The installed operating systems."""
    return [
        [
            system.name,
            system.path,
            True,
            "",
            list(system.variants),
            [list(parameter) for parameter in system.parameters],
            list(system.api_versions),
            system.trusted,
        ]
        for system in node.systems
    ]


@calls("os_validate")
def os_validate(
    node: SimulatedNode,
    required: bool,
    name: str,
    checks: Sequence[str],
    parameters: Mapping[str, Any],
    force_variant: bool,
) -> bool:
    """Returns whether an operating system is installed and accepts the variant and parameters."""
    unknown = set(checks) - OS_CHECKS
    if unknown:
        raise NodeFailure(f"Unknown checks required for OS {name}: {unknown}")
    try:
        system = installed(node, name)
    except NodeFailure:
        if required:
            raise
        return False
    if not force_variant:
        _check_variant(system, name)
    if max(system.api_versions) < OS_API_V20:
        return True
    if "parameters" in checks:
        wrong = sorted(set(parameters) - {parameter for parameter, _ in system.parameters})
        if wrong:
            raise NodeFailure(
                "The following parameters are not supported by the OS"
                f" {system.name}: {', '.join(wrong)}"
            )
    failed = failing(system.fails, "verify", parameters)
    if failed is not None:
        code, output = failed
        raise NodeFailure(
            f"OS validation script failed (exited with exit code {code}), output: {output}"
        )
    return True


@calls("instance_os_add")
def instance_os_add(
    node: SimulatedNode, instance: Mapping[str, Any], reinstall: bool, debug: int
) -> None:
    """Installs an operating system on the disks of an instance."""
    system = installed(node, member(instance, "os"))
    if not system.trusted:
        # noded runs a script whose path it doesn't have.
        raise Unexpected("sequence item 0: expected str instance, NoneType found")
    disks = _opened(node, instance)
    parameters = os_parameters(instance)
    _check_script(system, "create", parameters)
    if system.writes is not None:
        for index, disk in enumerate(disks):
            _write(node, disk, 0, _line(system, system.writes, instance, index=str(index)))


@calls("instance_run_rename")
def instance_run_rename(
    node: SimulatedNode, instance: Mapping[str, Any], old_name: str, debug: int
) -> None:
    """Runs the rename script of an instance's operating system."""
    system = installed(node, member(instance, "os"))
    disks = _opened(node, instance)
    _check_script(system, "rename", os_parameters(instance))
    if system.renames is not None and disks:
        _write(node, disks[0], 1, _line(system, system.renames, instance, old=old_name))


@calls("os_export")
def os_export(
    node: SimulatedNode, instance: Mapping[str, Any], overrides: Mapping[str, str]
) -> str:
    """Packs an operating system with its environment; returns the archive's path."""
    system = installed(node, member(instance, "os"))
    environment = {
        "OS_NAME": system.name,
        "INSTANCE_NAME": str(member(instance, "name")),
        **{f"OSP_{key.upper()}": str(value) for key, value in os_parameters(instance).items()},
        **overrides,
    }
    text = "".join(f"{key}={value}\n" for key, value in environment.items())
    path = f"/tmp/{instance['name']}.tgz"
    node.state.files[path] = StoredFile(0, text)
    return path


def installed(node: SimulatedNode, name: str) -> OSDefinition:
    """Returns the definition of an operating system, ignoring its variant, or fails."""
    plain = name.partition("+")[0]
    for system in node.systems:
        if system.name == plain:
            return system
    raise NodeFailure(f"Directory for OS {plain} not found in search path")


def os_parameters(instance: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that scripts of an instance's operating system get."""
    return {**(instance.get("osparams") or {}), **(instance.get("osparams_private") or {})}


def _check_variant(system: OSDefinition, name: str) -> None:
    variant = name.partition("+")[2]
    if not system.variants:
        if variant:
            raise NodeFailure(f"OS '{system.name}' does not support variants ('{variant}' passed)")
    elif not variant:
        raise NodeFailure(f"OS name '{name}' must include a variant")
    elif variant not in system.variants:
        raise NodeFailure(f"OS '{system.name}' does not support variant '{variant}'")


def _check_script(system: OSDefinition, script: str, parameters: Mapping[str, Any]) -> None:
    failed = failing(system.fails, script, parameters)
    if failed is not None:
        code, output = failed
        raise NodeFailure(
            f"OS {script} script failed (exited with exit code {code}),"
            f" last lines in the log file:\n{output}"
        )


def _opened(node: SimulatedNode, instance: Mapping[str, Any]) -> list[DescribedDisk]:
    """Opens the disks of an instance for a script, and returns them."""
    disks: list[DescribedDisk] = list(member(instance, "disks_info"))
    for disk in disks:
        try:
            open_devices(node, [disk])
        except DeviceError as error:
            raise Unexpected(str(error))
    return disks


def _write(node: SimulatedNode, disk: DescribedDisk, place: int, line: str) -> None:
    block = need(node, disk)
    lines = [*block.read(), "", ""]
    lines[place] = line
    block.write(tuple(lines[: 1 if place == 0 and not lines[1] else 2]))


def _line(system: OSDefinition, template: str, instance: Mapping[str, Any], **words: str) -> str:
    variant = str(instance["os"]).partition("+")[2]
    known = {parameter: "" for parameter, _ in system.parameters}
    return template.format_map(
        {
            **known,
            **os_parameters(instance),
            "instance": instance["name"],
            "os": system.name,
            "variant": variant or (system.variants[0] if system.variants else ""),
            **words,
        }
    )
