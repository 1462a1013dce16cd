"""The types of ``node_verify``'s answers, on which the checks can rely.

Any key may be missing, None, or an error message. Values typed as ``Any`` must be validated by the
checks that read them.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from ganeti_masterd.rpc.interfaces import NodeResult

_Text = str | None | UnsetType


class ReportedVolume(Struct):
    """One row of ``pvlist``; the size is in MiB."""

    name: str
    vg_name: str
    size: float


class Shape(Struct, rename=lambda name: name.replace("_", "-")):
    """The keys that the checks read."""

    hypervisor: dict[str, str | None] | _Text = UNSET
    hvparms: list[tuple[str, str, str]] | _Text = UNSET
    nodesetup: list[str] | UnsetType = UNSET
    nodelist: dict[str, str] | UnsetType | None = UNSET
    node_net_test: dict[str, str] | UnsetType | None = UNSET
    user_scripts: list[str] | UnsetType | None = UNSET
    oob_paths: list[str | None] | UnsetType | None = UNSET
    allowed_file_storage_paths: list[str] | UnsetType = UNSET
    vglist: dict[str, float] | _Text = UNSET
    lvlist: dict[str, Any] | _Text = UNSET
    pvlist: list[ReportedVolume] | _Text = UNSET
    exclusive_pvs: list[tuple[str, list[str]]] | UnsetType | None = UNSET
    drbd_helper: tuple[bool, str | None] | UnsetType | None = UNSET
    drbd_list: list[int] | _Text = UNSET
    drbd_version: _Text = UNSET
    bridges: list[str] | _Text = UNSET
    instancelist: list[str] | _Text = UNSET
    filelist: dict[str, str] | UnsetType | None = UNSET
    ssh_setup: list[str] | _Text = UNSET
    ssh_clutter: list[str] | _Text = UNSET


def well_formed(result: NodeResult[Any]) -> NodeResult[Any]:
    """Returns the result, or a failed one if its payload has the wrong types.

    So the payload of a successful result is a dictionary that conforms to :class:`Shape`.
    """
    if result.failed:
        return result
    try:
        msgspec.convert(result.payload, dict[str, Any])
        msgspec.convert(result.payload, Shape)
    except msgspec.ValidationError as error:
        return replace(result, payload=None, error=f"malformed answer: {error}")
    return result
