"""Journals that don't fit the files, or are damaged: set aside, listed, resolved by the operator.

Another daemon or another master was at work since they were written (architecture.rst,
journal rule 4), or they are not what was written (rule 8). Nothing of them is replayed until
``gnt-luxi recover`` says which side is right; while one stands there, no journal opens beside it.
"""

from __future__ import annotations

import contextlib
import os.path
import re
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from ganeti_masterd.decoding import decode_json
from ganeti_masterd.journal.examination import Examined, examine
from ganeti_masterd.journal.faults import JournalError, JournalSetAside
from ganeti_masterd.journal.files import replace_file
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import QueueFiles, encode_serial, parse_serial
from ganeti_masterd.journal.replay import (
    CheckJob,
    MergeConfig,
    MergeLog,
    carry_out,
    plan,
)
from ganeti_masterd.journal.sqlite import SQLiteStore
from ganeti_masterd.journal.states import last_rows
from ganeti_masterd.journal.store import Entries, IStore, JournalHeader
from ganeti_masterd.journal.tip import tip_path
from ganeti_masterd.statuses import job_status

#: "files": the journal is forgotten; "journal": its rows win over the files.
SetAsideDecision = Literal["files", "journal"]

DROPPED_SUFFIX = ".dropped"

#: Of the name of a store that exists while a decision is carried out.
SCRATCH_SUFFIX = ".saved"


#: How many losses a message of one line names.
SHOWN_LOSSES = 5

#: Job ids that may have been given without a row each: of jobs that were refused.
SPARE_IDS = 1000


class Resolved(Struct, frozen=True):
    """How a decision was carried out.

    ``kept`` is where the journal is, never to be read again; None for one whose rows are all
    in the files. ``lost`` says what of its rows could not be written, for the decision
    "journal".
    """

    kept: str | None
    lost: list[str]


def set_aside(store: IStore, disk: IDisk, reason: str, now: float) -> JournalSetAside:
    """Closes the store and gives its file the name of one that is set aside.

    ``now`` is in seconds since the epoch. Returns the error to raise.
    """
    header = store.header()
    if header is not None:
        store.adopt(msgspec.structs.replace(header, reason=reason))
    held = store.load()
    store.close()
    path, directory = store.path, os.path.dirname(store.path)
    leftover = os.path.basename(_log_of(path))
    if leftover in disk.names(directory):
        raise JournalError(path, f"can't be set aside ({reason}): {leftover} is still there")
    aside = _aside(path, now)
    _move(path, aside, disk)
    return JournalSetAside(aside, _statuses(held), reason)


def set_damaged_aside(path: str, examined: Examined, disk: IDisk, now: float) -> JournalSetAside:
    """Renames a damaged journal with all its parts, which stay as they were found, byte by byte.

    A file that is missing is set aside as an empty one. Returns the error to raise.
    """
    directory, name = os.path.split(path)
    if name not in disk.names(directory):
        disk.write(path, b"", 0o600)
        disk.sync(path)
    aside = _aside(path, now)
    _move(path, aside, disk)
    return _error(aside, examined)


def standing(
    path: str, disk: IDisk, examine: Callable[[str], Examined] = examine
) -> JournalSetAside | None:
    """Returns the error of a journal beside ``path`` that was set aside and not resolved."""
    directory, own = os.path.split(path)
    pattern = re.compile(re.escape(os.path.basename(_stem(path))) + r"\d{8}T\d{6}Z")
    names = disk.names(directory)
    for name in filter(pattern.fullmatch, names):
        aside = f"{directory}/{name}"
        if own not in names:
            _move_parts(path, aside, disk)  # a crash may have come between
        return _error(aside, examine(aside))
    return None


def resolve(
    path: str,
    decision: SetAsideDecision,
    *,
    disk: IDisk,
    files: QueueFiles,
    merge_log: MergeLog,
    check_job: CheckJob,
    merge_config: MergeConfig,
) -> Resolved:
    """Ends the wait for a decision on the journal that was set aside as ``path``.

    "files" keeps the files as they are, and the journal under a name that is
    returned and never read again. "journal" writes its rows over the files,
    whatever these hold now, and removes it; only ``serial`` keeps the higher
    number. Of a damaged one it writes what can be read, and keeps the journal as well. Cut
    short, it can be called again. No daemon may run meanwhile.
    """
    if os.path.basename(path) not in disk.names(os.path.dirname(path)):
        raise JournalError(path, "there is no such journal")
    if decision == "files":
        with contextlib.suppress(JournalError):  # of what is no journal at all, nothing is known
            examined = examine(path)
            if examined.losses:
                _pass_over_ids(examined, disk, files)
        return Resolved(_drop(path, disk), [])
    examined = examine(path)
    held, header = examined.entries, examined.header
    planned = plan(
        held,
        examined.reached,
        disk,
        files,
        merge_log=merge_log,
        check_job=check_job,
        merge_config=merge_config,
    )
    lost = [*examined.losses, *planned.unusable]
    # A store for what is known while the files are written. The journal itself stays as it
    # is until they are.
    scratch = path + SCRATCH_SUFFIX
    _remove(scratch, disk)
    store = SQLiteStore(scratch)
    try:
        store.adopt(header if header is not None else JournalHeader("", "", (), ()))
        if held:
            carry_out(planned, store, disk, files)
    finally:
        store.close()
        _remove(scratch, disk)
    if lost:
        _pass_over_ids(examined, disk, files)
        return Resolved(_drop(path, disk), lost)
    _remove(path, disk)
    disk.sync_directory(os.path.dirname(path))
    return Resolved(None, [])


def unused_from(examined: Examined, serial: int) -> int:
    """Returns a number that no job has whose row is lost, given that in the file ``serial``.

    Each job that was acknowledged had a row of its own, so there are no more of them than
    rows that the journal ever had beyond the files, and a few numbers that were passed over.
    """
    held = examined.entries
    known = [
        serial,
        *(entry.reserved for entry in held.serials),
        *(entry.job_id for entry in held.jobs),
    ]
    followed = examined.header.followed if examined.header is not None else 0
    return max(known) + max(examined.reached - followed, 0) + SPARE_IDS


def _pass_over_ids(examined: Examined, disk: IDisk, files: QueueFiles) -> None:
    """Makes sure that no id of a job that was lost is given again."""
    serial = unused_from(examined, parse_serial(disk.read(files.serial)) or 0)
    replace_file(disk, files.serial, encode_serial(serial))
    disk.sync_directory(files.queue)


def _error(aside: str, examined: Examined) -> JournalSetAside:
    reason = examined.header.reason if examined.header is not None else ""
    held = examined.entries
    saved = {
        "jobs": len(held.jobs) + len(held.edits),
        "log lines": len(held.logs),
        "configuration": len(held.config),
        "serials": len(held.serials),
    }
    if examined.losses:
        reason = damage(examined.losses)
    return JournalSetAside(aside, _statuses(held), reason, examined.losses, saved)


def damage(losses: Sequence[str]) -> str:
    """Returns in a line what is damaged."""
    shown = "; ".join(losses[:SHOWN_LOSSES])
    more = len(losses) - SHOWN_LOSSES
    return f"it is damaged: {shown}" + (f"; and {more} more" if more > 0 else "")


def _aside(path: str, now: float) -> str:
    return _stem(path) + time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))


def _stem(path: str) -> str:
    return os.path.splitext(path)[0] + ".set-aside-"


def _log_of(path: str) -> str:
    """Returns where SQLite has the write-ahead log of a journal."""
    return path + "-wal"


def _move(old: str, new: str, disk: IDisk) -> None:
    """Renames a journal, durably, and then its parts: what is left then is known to be its own."""
    disk.rename(old, new)
    disk.sync_directory(os.path.dirname(old))
    _move_parts(old, new, disk)


def _move_parts(old: str, new: str, disk: IDisk) -> None:
    directory = os.path.dirname(old)
    names = disk.names(directory)
    for part, target in ((_log_of(old), _log_of(new)), (tip_path(old), tip_path(new))):
        if os.path.basename(part) in names:
            disk.rename(part, target)
    disk.sync_directory(directory)


def _drop(path: str, disk: IDisk) -> str:
    dropped = path + DROPPED_SUFFIX
    _move_parts(path, dropped, disk)
    disk.rename(path, dropped)
    disk.sync_directory(os.path.dirname(path))
    return dropped


def _remove(path: str, disk: IDisk) -> None:
    for name in (path, _log_of(path), tip_path(path)):
        disk.unlink(name)


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
