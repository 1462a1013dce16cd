"""The noded calls that transfer states (protocol/rpc.rst, Objects as arguments)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ganeti_masterd.journal.layout import QueueFiles, encode_serial
from ganeti_masterd.replication.states import (
    ArchiveMove,
    ConfigFile,
    DrainFlag,
    JobFile,
    ReplicatedState,
    SerialFile,
)
from ganeti_masterd.rpc.wire import file_content

#: config.data on another node: a regular file of mode 0640, with its owner and group
#: (protocol/startup.rst, Files and their owners).
CONFIG_MODE = 0o100640
CONFIG_OWNER = "gnt-masterd"
CONFIG_GROUP = "gnt-confd"


def calls_for(states: Sequence[ReplicatedState], files: QueueFiles) -> list[tuple[str, list[Any]]]:
    """Returns the calls, procedure and arguments, that put states on a node.

    Paths are this node's own; the caller turns them into virtual paths where that is needed. All
    moves to the archive become one call.
    """
    calls: list[tuple[str, list[Any]]] = []
    moves: list[list[str]] = []
    for state in states:
        match state:
            case JobFile():
                content = file_content(state.body)
                calls.append(("jobqueue_update", [files.job(state.job_id), content]))
            case SerialFile():
                content = file_content(encode_serial(state.reserved))
                calls.append(("jobqueue_update", [files.serial, content]))
            case DrainFlag():
                calls.append(("jobqueue_set_drain_flag", [state.drained]))
            case ConfigFile():
                owner = (CONFIG_MODE, CONFIG_OWNER, CONFIG_GROUP)
                calls.append(
                    ("upload_file_single", [files.config, state.travelling, *owner, None, None])
                )
            case ArchiveMove():
                moves.append([files.job(state.job_id), files.archived_job(state.job_id)])
    if moves:
        calls.append(("jobqueue_rename", [moves]))
    return calls
