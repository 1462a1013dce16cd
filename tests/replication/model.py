"""A queue and configuration as plain values, and checks of what a candidate may hold of them.

A job's document has its version and the changes of the configuration that the job made; the
configuration has the changes that it includes. So a candidate's files alone show whether they are
consistent with each other.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.rows import ConfigRow, JobRow, Row, SerialRow
from ganeti_masterd.replication.states import (
    ArchiveMove,
    ConfigFile,
    DrainFlag,
    JobFile,
    ReplicatedState,
    SerialFile,
)

FILES = QueueFiles(queue="/root/queue", config="/root/config.data")

QUEUED, RUNNING, ENDED = "queued", "running", "ended"
BLOCK = 3


class Model:
    """What the master has published."""

    def __init__(self) -> None:
        self.jobs: dict[int, bytes] = {}
        self.archive: dict[int, bytes] = {}
        self.status: dict[int, str] = {}
        self.changes: list[int] = []
        self.reserved = 0
        self.drained = False
        self._last = 0
        self._version = 0

    # What happens; each returns the rows of the commit.

    def begin_at(self, job_id: int) -> None:
        """Lets the next job have the id after this one, as if all up to it were given."""
        self._last = self.reserved = job_id

    def submit(self) -> list[Row]:
        rows: list[Row] = []
        self._last += 1
        if self._last > self.reserved:
            self.reserved = self._last + BLOCK
            rows.append(SerialRow(self.reserved))
        return [*rows, self._job(self._last, QUEUED)]

    def run(self, job_id: int) -> list[Row]:
        return [self._job(job_id, RUNNING)]

    def change(self, job_id: int) -> list[Row]:
        self.changes.append(job_id)
        return [ConfigRow("cluster", "", b"{}")]

    def end(self, job_id: int) -> list[Row]:
        return [self._job(job_id, ENDED)]

    def put_away(self, job_id: int) -> list[Row]:
        body = self.jobs.pop(job_id)
        self.archive[job_id] = body
        return [JobRow(job_id, body, archived=True)]

    def ids(self, status: str) -> list[int]:
        return [job_id for job_id in self.jobs if self.status[job_id] == status]

    def config(self) -> bytes:
        return json.dumps(self.changes).encode()

    def files(self) -> dict[str, bytes]:
        """All files of the queue (except the archive) and the configuration."""
        found = {FILES.job(job_id): body for job_id, body in self.jobs.items()}
        found[FILES.config] = self.config()
        found[FILES.serial] = b"%d\n" % self.reserved
        return found

    def _job(self, job_id: int, status: str) -> JobRow:
        self._version += 1
        self.status[job_id] = status
        document = {
            "id": job_id,
            "status": status,
            "version": self._version,
            "made": self.changes.count(job_id),
            "end_timestamp": [1, 0] if status == ENDED else None,
        }
        self.jobs[job_id] = json.dumps(document).encode()
        return JobRow(job_id, self.jobs[job_id])


class Bytes:
    """An image of bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.serial_no = 1

    def encode(self) -> bytes:
        return self.content

    def size(self) -> int:
        return len(self.content)

    def compressed(self) -> str:
        return base64.b64encode(zlib.compress(self.content)).decode()


def apply(files: dict[str, bytes], state: ReplicatedState) -> None:
    """Changes files as noded would."""
    match state:
        case JobFile():
            files[FILES.job(state.job_id)] = state.body
        case SerialFile():
            files[FILES.serial] = b"%d\n" % state.reserved
        case ConfigFile():
            files[FILES.config] = state.content
        case ArchiveMove():
            old, new = FILES.job(state.job_id), FILES.archived_job(state.job_id)
            files[new] = files.pop(old)
        case DrainFlag():
            if state.drained:
                files[FILES.queue + "/drain"] = b""
            else:
                files.pop(FILES.queue + "/drain", None)


def documents(files: Mapping[str, bytes]) -> Iterable[dict[str, Any]]:
    """The documents of all jobs, archived ones too."""
    return [json.loads(body) for path, body in files.items() if "/job-" in path]


def check_order(files: Mapping[str, bytes]) -> None:
    """Fails unless these files could be taken over by a new master."""
    serial = int(files.get(FILES.serial, b"0"))
    changes = json.loads(files.get(FILES.config, b"[]"))
    jobs = {document["id"]: document for document in documents(files)}
    for job_id, document in jobs.items():
        assert job_id <= serial, f"the id of job {job_id} would be given again"
        if document["status"] == ENDED:
            made = document["made"]
            assert changes.count(job_id) >= made, f"a change of job {job_id}, which ended, is lost"
    for job_id in set(changes):
        # It may have been archived before it was sent to this candidate.
        status = jobs[job_id]["status"] if job_id in jobs else None
        assert status != QUEUED, f"job {job_id} would do its work a second time"
    for path, body in files.items():
        if "/archive/" in path:
            assert json.loads(body)["status"] == ENDED, f"{path} is archived before its end"
