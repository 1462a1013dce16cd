"""Journals that don't fit the files: set aside, listed, resolved by the operator.

Another daemon or another master was at work since they were written (architecture.rst,
journal rule 4). Nothing of them is replayed until ``gnt-luxi recover`` says
which side is right; while one stands there, no journal opens beside it.
"""

from __future__ import annotations

import os.path
import re
import time
from typing import Literal

import msgspec

from ganeti_masterd.decoding import decode_json
from ganeti_masterd.journal.faults import JournalError, JournalSetAside
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.replay import MergeConfig, MergeLog, last_rows, replay
from ganeti_masterd.journal.sqlite import SQLiteStore
from ganeti_masterd.journal.store import Entries, IStore
from ganeti_masterd.statuses import job_status

#: "files": the journal is forgotten; "journal": its rows win over the files.
SetAsideDecision = Literal["files", "journal"]

DROPPED_SUFFIX = ".dropped"


def set_aside(store: IStore, disk: IDisk, reason: str, now: float) -> JournalSetAside:
    """Closes the store and gives its file the name of one that is set aside.

    ``now`` is in seconds since the epoch. Returns the error to raise.
    """
    header = store.header()
    if header is not None:
        store.adopt(msgspec.structs.replace(header, reason=reason))
    jobs = _statuses(store.load())
    store.close()
    directory = os.path.dirname(store.path)
    aside = _stem(store.path) + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    leftover = os.path.basename(store.path) + "-wal"
    if leftover in disk.names(directory):
        raise JournalError(store.path, f"can't be set aside ({reason}): {leftover} is still there")
    disk.rename(store.path, aside)
    disk.sync_directory(directory)
    return JournalSetAside(aside, jobs, reason)


def standing(path: str, disk: IDisk) -> JournalSetAside | None:
    """Returns the error of a journal beside ``path`` that was set aside and not resolved."""
    directory = os.path.dirname(path)
    pattern = re.compile(re.escape(os.path.basename(_stem(path))) + r"\d{8}T\d{6}Z")
    for name in disk.names(directory):
        if pattern.fullmatch(name):
            store = SQLiteStore(f"{directory}/{name}")
            try:
                header = store.header()
                reason = header.reason if header is not None else ""
                return JournalSetAside(store.path, _statuses(store.load()), reason)
            finally:
                store.close()
    return None


def resolve(
    path: str,
    decision: SetAsideDecision,
    *,
    disk: IDisk,
    files: QueueFiles,
    merge_log: MergeLog,
    merge_config: MergeConfig,
) -> str | None:
    """Ends the wait for a decision on the journal that was set aside as ``path``.

    "files" keeps the files as they are, and the journal under a name that is
    returned and never read again. "journal" writes its rows over the files,
    whatever these hold now, and removes it; only ``serial`` keeps the higher
    number. Cut short, it can be called again. No daemon may run meanwhile.
    """
    directory = os.path.dirname(path)
    if os.path.basename(path) not in disk.names(directory):
        raise JournalError(path, "there is no such journal")
    dropped = None
    if decision == "files":
        dropped = path + DROPPED_SUFFIX
        disk.rename(path, dropped)
    else:
        store = SQLiteStore(path)
        try:
            held = store.load()
            if held:
                replay(store, disk, files, held, merge_log=merge_log, merge_config=merge_config)
        finally:
            store.close()
        disk.unlink(path)
    disk.sync_directory(directory)
    return dropped


def _stem(path: str) -> str:
    return os.path.splitext(path)[0] + ".set-aside-"


class _Opcode(msgspec.Struct):
    status: str


class _Document(msgspec.Struct):
    ops: list[_Opcode]


def _statuses(held: Entries) -> list[tuple[int, str]]:
    return sorted((job_id, _status(row.body)) for job_id, row in last_rows(held).items())


def _status(body: bytes) -> str:
    """Returns a job's status by its document, "unknown" for no document."""
    try:
        return job_status(opcode.status for opcode in decode_json(body, _Document).ops)
    except msgspec.DecodeError:
        return "unknown"
