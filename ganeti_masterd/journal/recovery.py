"""Opening a journal: whether it still fits the files, replay, and what the daemon goes on with."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Iterable

from msgspec import Struct
from twisted.logger import Logger

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.journal.digests import NOTHING, Chain, digest_of
from ganeti_masterd.journal.examination import Examined, examine
from ganeti_masterd.journal.files import TEMPORARY_SUFFIX
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import QueueFiles, job_number, parse_serial
from ganeti_masterd.journal.replay import CheckJob, MergeConfig, MergeLog, carry_out, plan
from ganeti_masterd.journal.setaside import set_aside, set_damaged_aside, standing
from ganeti_masterd.journal.sqlite import SQLiteStore
from ganeti_masterd.journal.store import Entries, IStore, JournalHeader

log = Logger()

JOURNAL_DIRECTORY_PERMS = 0o700


class Identity(Struct, frozen=True):
    """Whose journal it is: the cluster's uuid and the master node's name."""

    cluster: str
    master: str


class Recovered(Struct, frozen=True):
    """An open, empty journal whose rows are in the files.

    ``reserved`` is the number in the file ``serial`` (0 where it is missing);
    ``replayed`` counts the rows that a former process had left; ``numbered`` is the last
    number of a row, with which the next process goes on.
    """

    store: IStore
    disk: IDisk
    files: QueueFiles
    chain: Chain
    merge_log: MergeLog
    reserved: int
    replayed: int
    numbered: int


def recover(
    path: str,
    *,
    identity: Identity,
    files: QueueFiles,
    disk: IDisk,
    merge_log: MergeLog,
    check_job: CheckJob,
    merge_config: MergeConfig,
    now: Callable[[], float],
    open_store: Callable[[str], IStore] = SQLiteStore,
    examine: Callable[[str], Examined] = examine,
) -> Recovered:
    """Opens the journal at ``path`` and brings the files up to date; blocking.

    Its directory is made where it is missing (0700), not those above. To be
    called before anything reads the files, with the queue's lock held, and
    after the daemon has detached.

    Everything is read, made and checked before a file is touched. Raises
    :class:`JournalSetAside` where the journal is damaged, where it has rows that
    make no sense, or the files are not those that it left, and as long as one that was set
    aside waits for a decision; the other classes of ``faults``; what the disk raises.
    """
    directory = os.path.dirname(path)
    disk.make_directory(directory, JOURNAL_DIRECTORY_PERMS)
    disk.sync_directory(os.path.dirname(directory))
    _refuse_standing(path, disk)
    examined = _whole(path, disk, now, examine)
    held = examined.entries
    store = open_store(path)
    try:
        disk.sync_directory(directory)
        reason = _misfit(examined, identity, disk, files)
        if reason is not None:
            raise set_aside(store, disk, reason, now())
        planned = plan(
            held,
            examined.reached,
            disk,
            files,
            merge_log=merge_log,
            check_job=check_job,
            merge_config=merge_config,
        )
        if planned.unusable:
            raise set_aside(store, disk, "; ".join(planned.unusable), now())
        _tidy(disk, files)
        if held:
            log.info("The journal holds {rows} rows: the files take them", rows=len(held))
            carry_out(planned, store, disk, files)
        numbered = planned.round.seq
        _clear(store, numbered)
        serial, config = disk.read(files.serial), disk.read(files.config)
        store.adopt(
            JournalHeader(
                identity.cluster,
                identity.master,
                (digest_of(config),),
                (digest_of(serial),),
                followed=numbered,
            )
        )
    except BaseException:
        store.close()
        raise
    names = disk.names(files.queue)
    present = [number for name in names if (number := job_number(name)) is not None]
    return Recovered(
        store=store,
        disk=disk,
        files=files,
        chain=Chain(disk, files, present),
        merge_log=merge_log,
        reserved=parse_serial(serial) or 0,
        replayed=len(held),
        numbered=numbered,
    )


def check_journal(
    path: str,
    *,
    identity: Identity,
    files: QueueFiles,
    disk: IDisk,
    now: Callable[[], float],
    open_store: Callable[[str], IStore] = SQLiteStore,
    examine: Callable[[str], Examined] = examine,
) -> None:
    """Raises what :func:`recover` would raise about the journal; replays nothing, makes nothing.

    It does not look whether the rows make sense to their readers. To be called with the queue's
    lock held; before the daemon has detached, as nothing stays open.
    """
    _refuse_standing(path, disk)
    examined = _whole(path, disk, now, examine)
    reason = _misfit(examined, identity, disk, files)
    if reason is not None:
        raise set_aside(open_store(path), disk, reason, now())


def _refuse_standing(path: str, disk: IDisk) -> None:
    waiting = standing(path, disk)
    if waiting is not None:
        raise waiting


def _whole(
    path: str, disk: IDisk, now: Callable[[], float], examine: Callable[[str], Examined]
) -> Examined:
    """Returns what is in a journal that is whole; sets aside any other and raises."""
    examined = examine(path)
    if examined.losses:
        raise set_damaged_aside(path, examined, disk, now())
    return examined


def _clear(store: IStore, seq: int) -> None:
    """Drops rows that were in the files already when the journal was examined."""
    left = store.load()
    if left:
        store.followed(seq, [(line.job_id, seq + 1) for line in left.logs], None, None)


def _misfit(examined: Examined, identity: Identity, disk: IDisk, files: QueueFiles) -> str | None:
    if not examined.entries:
        return None
    assert examined.header is not None
    return misfit(examined.entries, examined.header, identity, disk, files)


def misfit(
    held: Entries, header: JournalHeader, identity: Identity, disk: IDisk, files: QueueFiles
) -> str | None:
    """Returns why the rows must not go over the files, None where they fit.

    They fit if cluster and master are the same, config.data and serial are as
    this journal wrote them or was about to, and each job's file is one that
    its rows replace or make (architecture.rst, journal rules 2 and 4).
    """
    if header.cluster != identity.cluster:
        return f"it belongs to cluster {header.cluster}, not {identity.cluster}"
    if header.master != identity.master:
        return f"it was written on master {header.master}, now the master is {identity.master}"
    if digest_of(disk.read(files.config)) not in header.config:
        return f"{files.config} was changed by another daemon"
    if digest_of(disk.read(files.serial)) not in header.serial:
        return f"{files.serial} was changed by another daemon"
    for job_id, (lawful, archived) in _lawful_digests(held).items():
        path = files.job(job_id)
        found = digest_of(disk.read(path))
        if found not in lawful and not (archived and found == NOTHING):
            return f"{path} was changed by another daemon"
        if archived:
            path = files.archived_job(job_id)
            if digest_of(disk.read(path)) not in lawful | {NOTHING}:
                return f"{path} was changed by another daemon"
    return None


def _lawful_digests(held: Entries) -> dict[int, tuple[set[bytes], bool]]:
    """Returns for each job the digests that its file may have, and whether it is archived."""
    first: dict[int, tuple[int, bytes]] = {}
    lawful: dict[int, set[bytes]] = {}
    archived: dict[int, bool] = {}
    entries: Iterable[tuple[int, int, bytes]] = (
        *((entry.job_id, entry.seq, entry.base) for entry in held.jobs),
        *((edit.job_id, edit.seq, edit.base) for edit in held.edits),
        *((line.job_id, line.seq, line.base) for line in held.logs),
    )
    for job_id, seq, base in entries:
        if job_id not in first or seq < first[job_id][0]:
            first[job_id] = seq, base
    for entry in held.jobs:
        lawful.setdefault(entry.job_id, set()).add(entry.made)
        archived[entry.job_id] = entry.archived
    for edit in held.edits:
        lawful.setdefault(edit.job_id, set()).add(edit.made)
    return {
        job_id: (lawful.get(job_id, set()) | {base}, archived.get(job_id, False))
        for job_id, (_, base) in first.items()
    }


def _tidy(disk: IDisk, files: QueueFiles) -> None:
    """Removes what a crash left half written, before anything is written anew.

    Where the disk lost a part of a renaming, such a name may stand for the very file that
    has its proper name by now: to write there would be to write into that.
    """
    names = [name for name in disk.names(files.queue) if name.endswith(TEMPORARY_SUFFIX)]
    for path in (files.config + TEMPORARY_SUFFIX, *(f"{files.queue}/{name}" for name in names)):
        try:
            disk.unlink(path)
        except (IsADirectoryError, PermissionError) as error:
            own = path.removesuffix(TEMPORARY_SUFFIX)
            if own in (files.config, files.serial) or job_number(os.path.basename(own)) is not None:
                # The file of this name could never be written.
                raise JobQueueError(
                    f"{path} is in the way and can't be removed: {error.strerror}"
                ) from None
            log.error("{path} can't be removed ({error}); it is left alone", path=path, error=error)
