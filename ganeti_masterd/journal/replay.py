"""Bringing the files up to what a journal holds, and log lines into their job's document.

Replay is one round of following, over rows that a former process left behind.
Each stage is durable before the next one relies on it, so a replay that is
cut short anywhere begins again and comes to the same end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace
from twisted.logger import Logger

from ganeti_masterd.journal.digests import digest_of
from ganeti_masterd.journal.following import EncodedImage, FileFollower, Round
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.layout import QueueFiles, parse_serial
from ganeti_masterd.journal.rows import ConfigRow, JobRow
from ganeti_masterd.journal.states import last_rows
from ganeti_masterd.journal.store import Entries, IStore, JobEntry, StoredLogEntry

log = Logger()

#: Adds ``(op_index, entry)`` log lines, oldest first, to a job's document.
MergeLog = Callable[[bytes, Sequence[tuple[int, bytes]]], bytes]

#: Raises if a job's document is not one of the job with this id.
CheckJob = Callable[[int, bytes], object]

#: Puts rows, oldest first, into the document config.data (b"" where it is missing);
#: raises if that makes no configuration that a daemon can load.
MergeConfig = Callable[[bytes, Sequence[ConfigRow]], bytes]


def folded_logs(
    held: Entries, after: int, disk: IDisk, files: QueueFiles, merge_log: MergeLog
) -> list[JobEntry]:
    """Returns a job row for each job that has log lines newer than its last row.

    They get the numbers after ``after``, or after the last one held. A document that can't
    take its lines stays as it is, which is logged: no log line may stop a start.
    """
    last = last_rows(held)
    open_lines: dict[int, list[StoredLogEntry]] = {}
    for line in held.logs:
        if line.job_id not in last or line.seq > last[line.job_id].seq:
            open_lines.setdefault(line.job_id, []).append(line)
    folded: list[JobEntry] = []
    seq = max(held.last_seq, after)
    for job_id, lines in open_lines.items():
        row = last.get(job_id)
        body = row.body if row is not None else disk.read(files.job(job_id))
        if body is None:
            log.warn("Job {job_id} has log lines but no file: they are dropped", job_id=job_id)
            continue
        try:
            merged = merge_log(body, [(line.op_index, line.entry) for line in lines])
        except Exception:
            log.failure(
                "Log lines don't fit into the file of job {job_id}: they are dropped",
                job_id=job_id,
            )
            continue
        seq += 1
        archived = row is not None and row.archived
        base = row.made if row is not None else lines[0].base
        folded.append(JobEntry(seq, job_id, archived, merged, base, digest_of(merged)))
    return folded


class PlannedReplay(Struct, frozen=True):
    """What a replay writes, made and checked in full before a file is touched.

    ``folded`` are rows that it adds to the journal first. ``unusable`` says what can't be
    written, and why: rows that are as they were written, but make no sense to their readers.
    """

    round: Round
    folded: list[JobEntry]
    unusable: list[str]


def plan(
    held: Entries,
    after: int,
    disk: IDisk,
    files: QueueFiles,
    *,
    merge_log: MergeLog,
    check_job: CheckJob,
    merge_config: MergeConfig,
) -> PlannedReplay:
    """Returns how the files are brought up to ``held``; changes nothing.

    ``after`` is a number that no row it adds may have, or a lower one. ``serial`` never goes
    down.
    """
    unusable: list[str] = []
    folded = folded_logs(held, after, disk, files, merge_log)
    held = replace(held, jobs=[*held.jobs, *folded])
    image = None
    if held.config:
        rows = [ConfigRow(entry.section, entry.uuid, entry.body) for entry in held.config]
        try:
            image = EncodedImage(merge_config(disk.read(files.config) or b"", rows))
        except OSError:
            raise
        except Exception as error:
            unusable.append(f"its changes to {files.config} make no configuration ({error})")
    serial = None
    if held.serials:
        on_disk = parse_serial(disk.read(files.serial)) or 0
        serial = max(on_disk, *(entry.reserved for entry in held.serials))
    jobs = {}
    for job_id, entry in last_rows(held).items():
        try:
            check_job(job_id, entry.body)
        except Exception as error:
            unusable.append(f"its document of job {job_id} makes no sense ({error})")
        else:
            jobs[job_id] = entry.seq, JobRow(job_id, entry.body, entry.archived)
    last = max(held.last_seq, after)
    # Lines of a job without a document go, too.
    logs = [(job_id, last + 1) for job_id in {line.job_id for line in held.logs}]
    return PlannedReplay(Round(last, serial, image, jobs, logs), folded, unusable)


def carry_out(planned: PlannedReplay, store: IStore, disk: IDisk, files: QueueFiles) -> None:
    """Writes what was planned into the files, then empties the store.

    Fails with what the disk or the store raises, and leaves the rows where it does.
    """
    if planned.folded:
        store.append(Entries(jobs=planned.folded))
    for _ in FileFollower(disk, store, files).steps(planned.round):
        pass
