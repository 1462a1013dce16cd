"""A method of this daemon's own: everything durable as of one moment, in pieces.

See protocol/luxi.rst, Methods of this daemon. The configuration and the jobs are values that
never change, so that the moment can be kept for as long as a client needs to fetch them.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Generator, Iterator
from typing import Any

from msgspec import UNSET, Struct
from msgspec.structs import replace
from twisted.internet.defer import Deferred, inlineCallbacks

from ganeti_masterd.config.ssconf import file_content, ssconf_values
from ganeti_masterd.errors import GenericError
from ganeti_masterd.jobs.files import QueueFolder
from ganeti_masterd.jobs.model import Job, encode_job
from ganeti_masterd.journal.disk import read_file
from ganeti_masterd.journal.layout import QueuePaths, encode_serial
from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.requests.backup_desk import BackupDesk, BackupMoment
from ganeti_masterd.requests.daemon import Daemon
from ganeti_masterd.requests.methods import OWN_METHODS, method

#: The names of the queue's files in a backup.
_QUEUE = QueuePaths("queue")

#: Bytes of files in an answer, about; a file is in one answer as a whole.
PIECE = 2 << 20


class BackupPiece(Struct, frozen=True):
    """A part of a backup: files as ``[name, content (zlib, base64)]``.

    ``token`` asks for the next one; None after the last. ``about`` says which moment it is.
    """

    token: str | None
    about: dict[str, Any]
    files: list[tuple[str, str]]


@method("Backup", changes=True, table=OWN_METHODS)
def backup(
    daemon: Daemon, peer: Peer, token: str | None = None, archive: bool = True
) -> Deferred[BackupPiece]:
    """Begins a backup, or answers the next piece of one.

    It holds secrets, so a socket for monitors doesn't serve it.
    """
    if daemon.history is None:
        raise GenericError("This daemon makes no backups")
    return _piece(daemon, daemon.history.backups, daemon.history.work, token, archive)


@inlineCallbacks
def _piece(
    daemon: Daemon, desk: BackupDesk, work: Any, token: str | None, archive: bool
) -> Generator[Any, Any, BackupPiece]:
    if token is None:
        moment = _moment(daemon, archive)
        # The files of jobs that were archived before are in the archive then.
        yield daemon.queue.journal.settle()
        token = desk.keep(moment)
    moment = desk.take(token)
    try:
        files, ended = yield work(lambda: _next(moment.files))
    except BaseException:
        desk.drop(token)
        raise
    if ended:
        desk.drop(token)
    else:
        desk.put_back(token)
    return BackupPiece(None if ended else token, moment.about, files)


def _moment(daemon: Daemon, archive: bool) -> BackupMoment:
    """Takes what is published in this turn of the reactor; all of it is durable."""
    queue, snapshot = daemon.queue, daemon.store.snapshot
    image, jobs = daemon.store.image(), dict(queue.jobs)
    about: dict[str, Any] = {
        "cluster": snapshot.cluster.uuid,
        "name": snapshot.cluster.cluster_name,
        "master": snapshot.master.name,
        "taken": queue.timers.now(),
        "serial": snapshot.header.serial_no,
        "last_job": queue.last_id,
    }

    def files() -> Iterator[tuple[str, bytes]]:
        yield "config.data", image.encode()
        yield _QUEUE.serial, encode_serial(about["last_job"])
        yield _QUEUE.version, b"1\n"
        if drained:
            yield _QUEUE.drain, b""
        for key, lines in ssconf_values(snapshot).items():
            yield f"ssconf_{key}", file_content(lines)
        for job_id, job in jobs.items():
            # Where the backup comes back, what a job was making is somebody's, or gone.
            kept = replace(job, devices=UNSET) if job.devices else job
            yield _QUEUE.job(job_id), encode_job(kept)
        if archive:
            yield from _archived(queue.folder, jobs, about["last_job"])

    drained = queue.drained
    return BackupMoment(about, files())


def _archived(
    folder: QueueFolder, live: dict[int, Job], last_id: int
) -> Iterator[tuple[str, bytes]]:
    """Yields the files of the jobs that were archived at the moment."""
    for directory in folder.archive_folders():
        for job_id in sorted(folder.ids_in(directory)):
            # Others were archived, or submitted and archived, since.
            if job_id in live or job_id > last_id:
                continue
            path = folder.archived_job(job_id)
            if not path.startswith(directory + "/"):
                continue
            try:
                content = read_file(path)
            except FileNotFoundError:  # cleaned away meanwhile
                continue
            except OSError as error:
                raise GenericError(
                    f"{path} can't be read ({error.strerror}): make the backup without the archive"
                ) from None
            yield _QUEUE.archived_job(job_id), content


def _next(files: Iterator[tuple[str, bytes]]) -> tuple[list[tuple[str, str]], bool]:
    """Returns files of about :data:`PIECE` bytes, and whether these are the last."""
    found: list[tuple[str, str]] = []
    size = 0
    for name, content in files:
        packed = base64.b64encode(zlib.compress(content, 1)).decode("ascii")
        found.append((name, packed))
        size += len(content)
        if size >= PIECE:
            return found, False
    return found, True
