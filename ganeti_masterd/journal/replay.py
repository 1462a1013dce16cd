"""Bringing the files up to what a journal holds, and log lines into their job's document.

Replay is one round of following, over rows that a former process left behind.
Each stage is durable before the next one relies on it, so a replay that is
cut short anywhere begins again and comes to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from ganeti_masterd.journal.digests import digest_of
from ganeti_masterd.journal.following import EncodedImage, FileFollower, Round
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import QueueFiles, parse_serial
from ganeti_masterd.journal.rows import ConfigRow, JobRow
from ganeti_masterd.journal.store import Entries, IStore, JobEntry, StoredLogEntry

log = Logger()

#: Adds ``(op_index, entry)`` log lines, oldest first, to a job's document.
MergeLog = Callable[[bytes, Sequence[tuple[int, bytes]]], bytes]

#: Puts rows, oldest first, into the document config.data (b"" where it is missing).
MergeConfig = Callable[[bytes, Sequence[ConfigRow]], bytes]


def fold_logs(
    store: IStore, disk: IDisk, files: QueueFiles, held: Entries, merge_log: MergeLog
) -> Entries:
    """Makes a job row of each job that has log lines newer than its last row, durably.

    Returns ``held`` with these rows added. A document that can't take its
    lines stays as it is, which is logged: no log line may stop a start.
    """
    last = last_rows(held)
    open_lines: dict[int, list[StoredLogEntry]] = {}
    for line in held.logs:
        if line.job_id not in last or line.seq > last[line.job_id].seq:
            open_lines.setdefault(line.job_id, []).append(line)
    folded = []
    seq = held.last_seq
    for job_id, lines in open_lines.items():
        row = last.get(job_id)
        body = row.body if row is not None else disk.read(files.job(job_id))
        if body is None:
            log.warn("Job {job_id} has log lines but no file: they are dropped", job_id=job_id)
            continue
        try:
            merged = merge_log(body, [(line.op_index, line.entry) for line in lines])
        except Exception:
            log.failure("Log lines don't fit into the file of job {job_id}", job_id=job_id)
            merged = body
        seq += 1
        archived = row is not None and row.archived
        base = row.made if row is not None else lines[0].base
        folded.append(JobEntry(seq, job_id, archived, merged, base, digest_of(merged)))
    if folded:
        store.append(Entries(jobs=folded))
    return Entries([*held.jobs, *folded], held.logs, held.config, held.serials)


def replay(
    store: IStore,
    disk: IDisk,
    files: QueueFiles,
    held: Entries,
    *,
    merge_log: MergeLog,
    merge_config: MergeConfig,
) -> None:
    """Writes what ``held`` says into the files, then empties the store.

    ``serial`` never goes down. Fails with what the disk or the store raises,
    and leaves the rows where it does.
    """
    held = fold_logs(store, disk, files, held, merge_log)
    image = None
    if held.config:
        rows = [ConfigRow(entry.section, entry.uuid, entry.body) for entry in held.config]
        image = EncodedImage(merge_config(disk.read(files.config) or b"", rows))
    serial = None
    if held.serials:
        on_disk = parse_serial(disk.read(files.serial)) or 0
        serial = max(on_disk, *(entry.reserved for entry in held.serials))
    last = last_rows(held)
    jobs = {
        job_id: (entry.seq, JobRow(job_id, entry.body, entry.archived))
        for job_id, entry in last.items()
    }
    beyond = held.last_seq + 1  # lines of a job without a document go too
    logs = [(job_id, beyond) for job_id in {line.job_id for line in held.logs}]
    for _ in FileFollower(disk, store, files).steps(
        Round(held.last_seq, serial, image, jobs, logs)
    ):
        pass


def last_rows(held: Entries) -> dict[int, JobEntry]:
    """Returns the last row of each job."""
    return {entry.job_id: entry for entry in held.jobs}
