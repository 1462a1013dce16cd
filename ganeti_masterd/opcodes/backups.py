"""Opcodes of exports of instances."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.opcodes.base import Hooks
from ganeti_masterd.opcodes.checks import NonEmptyStr, NonNegativeInt, ObjectName
from ganeti_masterd.opcodes.targets import InstanceOpcode
from ganeti_masterd.opcodes.types import ExportMode, ParamValues


class BackupPrepare(InstanceOpcode, tag="OP_BACKUP_PREPARE", frozen=True, kw_only=True):
    """Prepares the export of an instance; a remote one needs a key and a handshake."""

    RESULT = ParamValues | None

    mode: ExportMode


class BackupExport(InstanceOpcode, tag="OP_BACKUP_EXPORT", frozen=True, kw_only=True):
    """Exports an instance to a node, or to another cluster.

    The result is whether the export could be finalised, and for each disk whether it was exported.
    """

    HOOKS = Hooks("instance-export", "INSTANCE")
    RESULT = tuple[bool, list[bool]]

    compress: str = "none"
    shutdown_timeout: NonNegativeInt = 120
    target_node: ObjectName | tuple[Any, ...]
    target_node_uuid: NonEmptyStr | None = None
    shutdown: bool = True
    remove_instance: bool = False
    ignore_remove_failures: bool = False
    mode: ExportMode = "local"
    x509_key_name: tuple[Any, ...] | None = None
    destination_x509_ca: NonEmptyStr | None = None
    zero_free_space: bool = False
    zeroing_timeout_fixed: int | None = None
    zeroing_timeout_per_mib: float | None = None
    long_sleep: bool = False


class BackupRemove(InstanceOpcode, tag="OP_BACKUP_REMOVE", frozen=True, kw_only=True):
    """Removes the exports of an instance from all nodes."""
