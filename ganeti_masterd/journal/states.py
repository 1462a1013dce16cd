"""The whole states that the rows of the journal amount to, edits applied. Pure.

The journal is complete in itself: the first row of each job in it is whole, and each edit builds
on the row of its job before it.
"""

from __future__ import annotations

from collections.abc import Iterable

from ganeti_masterd.journal.digests import digest_of
from ganeti_masterd.journal.edits import apply_edit
from ganeti_masterd.journal.store import Entries, JobEdit, JobEntry


def last_states(held: Entries) -> tuple[dict[int, JobEntry], list[JobEdit]]:
    """Returns the last state of each job, and the edits that can't be applied.

    Such an edit builds on a row that is missing, or doesn't make what it should; a job's
    last state is then the one before.
    """
    last: dict[int, JobEntry] = {}
    broken = []
    rows: Iterable[JobEntry | JobEdit] = held.jobs
    if held.edits:
        rows = sorted((*held.jobs, *held.edits), key=lambda entry: entry.seq)
    for entry in rows:
        if isinstance(entry, JobEntry):
            last[entry.job_id] = entry
            continue
        state = _edited(last.get(entry.job_id), entry)
        if state is None:
            broken.append(entry)
        else:
            last[entry.job_id] = state
    return last, broken


def last_rows(held: Entries) -> dict[int, JobEntry]:
    """Returns the last state of each job, as far as it can be had."""
    return last_states(held)[0]


def first_after(held: Entries, seq: int) -> list[JobEntry]:
    """Returns for each job whose first row above ``seq`` is an edit what that makes, whole.

    These take the place of the edits before the rows up to ``seq`` are dropped. Raises
    ``ValueError`` where an edit can't be applied.
    """
    if not held.edits:
        return []
    first: dict[int, JobEntry | JobEdit] = {}
    rows: Iterable[JobEntry | JobEdit] = [*held.jobs, *held.edits]
    for entry in rows:
        known = first.get(entry.job_id)
        if entry.seq > seq and (known is None or entry.seq < known.seq):
            first[entry.job_id] = entry
    found = []
    for job_id, edit in first.items():
        if isinstance(edit, JobEdit):
            until = Entries(
                jobs=[row for row in held.jobs if row.job_id == job_id and row.seq <= seq],
                edits=[row for row in held.edits if row.job_id == job_id and row.seq <= edit.seq],
            )
            last, broken = last_states(until)
            if broken:
                raise ValueError(f"row {broken[0].seq} of job {job_id} can't be applied")
            found.append(last[job_id])
    return found


def _edited(before: JobEntry | None, edit: JobEdit) -> JobEntry | None:
    if before is None or before.archived or before.made != edit.base:
        return None
    try:
        body = apply_edit(before.body, edit.edit)
    except ValueError:
        return None
    if digest_of(body) != edit.made:
        return None
    return JobEntry(edit.seq, edit.job_id, False, body, edit.base, edit.made)
