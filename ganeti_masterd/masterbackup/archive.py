"""The file of a backup: a compressed tar with the manifest last. Blocking.

It is written under another name, read back, and only then has its own. Reading checks all before
anything of it is used: a file that is cut off, changed, or of other contents is refused by name.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Self

import msgspec

from ganeti_masterd import safely
from ganeti_masterd.config.document import parse
from ganeti_masterd.errors import GenericError
from ganeti_masterd.jobs.model import decode_job_of
from ganeti_masterd.journal.layout import parse_serial
from ganeti_masterd.masterbackup.contents import (
    CONFIG,
    KEYS,
    LARGEST,
    MANIFEST,
    QUEUE,
    SERIAL,
    BackupFault,
    BackupManifest,
    decode_manifest,
    digest,
    job_in,
    mode_of,
)

#: gzip's fastest level: it is text, of which even that leaves a tenth.
_LEVEL = 1

#: Types of members that only say more about the next one.
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.GNUTYPE_SPARSE,
)

#: A file of a backup: its name and its content.
BackupFile = tuple[str, bytes]


def write_backup(
    path: str,
    files: Iterable[BackupFile],
    manifest: Callable[[dict[str, str]], BackupManifest],
) -> BackupManifest:
    """Makes a backup at ``path``, mode 0600, and reads it back.

    ``manifest`` is called with the digests of all files once these are written. Raises
    :class:`BackupFault` if there is such a file already, or it doesn't read back; ``OSError``.
    No file is left then.
    """
    name, partial = os.path.basename(path), f"{path}.partial"
    folder = safely.open_folder(os.path.dirname(os.path.abspath(path)))
    try:
        if _exists(folder, name):
            raise BackupFault(f"{path} exists already")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        descriptor = safely.open_file_in(folder, partial, flags, 0o600)
        try:
            with open(descriptor, "r+b") as file:
                _write(file, files, manifest)
                file.flush()
                os.fsync(descriptor)
                file.seek(0)
                found = check_backup(file)
            # Unlike a renaming, this replaces nothing that came meanwhile.
            temporary = os.path.basename(partial)
            try:
                os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            except FileExistsError:
                raise BackupFault(f"{path} exists already") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.basename(partial), dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)
    return found


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _write(
    file: BinaryIO,
    files: Iterable[BackupFile],
    manifest: Callable[[dict[str, str]], BackupManifest],
) -> None:
    digests: dict[str, str] = {}
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=_LEVEL) as tar:
        for name, content in files:
            _add(tar, name, content, mode_of(name, content))
            digests[name] = digest(content)
        _add(tar, MANIFEST, msgspec.json.encode(manifest(digests)), 0o600)


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))


def check_backup(file: BinaryIO) -> BackupManifest:
    """Reads a whole backup; raises :class:`BackupFault` for whatever is wrong with it."""
    digests: dict[str, str] = {}
    manifest: BackupManifest | None = None
    config: bytes | None = None
    serial: int | None = None
    jobs: set[int] = set()
    for name, content in read_files(file):
        if manifest is not None:
            raise BackupFault(f"it goes on with {name} after its {MANIFEST}")
        if name == MANIFEST:
            manifest = decode_manifest(content)
            continue
        if name in digests:
            raise BackupFault(f"it has {name} twice")
        mode_of(name, content)
        digests[name] = digest(content)
        job_id = job_in(name)
        if name == CONFIG:
            config = content
        elif name == SERIAL:
            serial = parse_serial(content)
        elif job_id is not None:
            if job_id in jobs:
                raise BackupFault(f"it has job {job_id} twice")
            jobs.add(job_id)
            if not name.startswith(f"{QUEUE.archive}/"):  # nobody depends on what is there
                _check_job(name, job_id, content)
    if manifest is None:
        raise BackupFault(f"it has no {MANIFEST}: it is cut off, or no backup of a master")
    _compare(manifest, digests)
    _check_config(manifest, config)
    if serial is None or serial != manifest.last_job or max(jobs, default=0) > serial:
        raise BackupFault(f"its {SERIAL} doesn't fit its jobs")
    return manifest


def read_files(file: BinaryIO) -> Iterator[BackupFile]:
    """Yields the files of a backup as they come; raises :class:`BackupFault`."""
    try:
        with gzip.GzipFile(fileobj=file, mode="rb") as plain:
            with tarfile.open(fileobj=plain, mode="r|", tarinfo=_PlainHeader) as tar:
                for member in tar:
                    yield member.name, _content(tar, member)
            while plain.read(1 << 20):  # to the end, where its checksum is
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, MemoryError) as error:
        if isinstance(error, BackupFault):
            raise
        raise BackupFault(f"it is cut off or damaged, or no backup: {error}") from None


class _PlainHeader(tarfile.TarInfo):
    """A member's header. Extended ones (of pax, of GNU for long names) are refused unread.

    No backup has them. tarfile reads them whole, however long they say to be, and one within
    the other.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Returns the header in a block; raises :class:`BackupFault`."""
        header = super().frombuf(buf, encoding, errors)
        if header.type in _EXTENDED:
            raise BackupFault(f"it has {header.name!r}, an extended header of {header.size} bytes")
        return header


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if not member.isreg():
        raise BackupFault(f"it has {member.name!r}, which is no regular file")
    if member.size > LARGEST:
        raise BackupFault(f"its {member.name!r} is too large")
    content = tar.extractfile(member)
    assert content is not None
    return content.read()


def _compare(manifest: BackupManifest, digests: dict[str, str]) -> None:
    for name in sorted(manifest.files.keys() | digests.keys()):
        if name not in digests:
            raise BackupFault(f"its {name} is missing")
        if name not in manifest.files:
            raise BackupFault(f"its {name} isn't in its {MANIFEST}")
        if manifest.files[name] != digests[name]:
            raise BackupFault(f"its {name} was changed")


def _check_config(manifest: BackupManifest, config: bytes | None) -> None:
    if config is None:
        raise BackupFault(f"its {CONFIG} is missing")
    try:
        snapshot = parse(config)
    except GenericError as error:
        raise BackupFault(f"its {CONFIG} can't be used: {error}") from None
    if (snapshot.cluster.uuid, snapshot.header.serial_no) != (manifest.cluster, manifest.serial):
        raise BackupFault(f"its {CONFIG} doesn't fit its {MANIFEST}")


def _check_job(name: str, job_id: int, content: bytes) -> None:
    try:
        decode_job_of(job_id, content)
    except msgspec.DecodeError as error:
        raise BackupFault(f"its {name} can't be used: {error}") from None


def key_files(data: str) -> Iterator[BackupFile]:
    """Yields the keys, certificates and passwords that a master has in its data folder."""
    for name in KEYS:
        with contextlib.suppress(FileNotFoundError):
            yield name, safely.read(f"{data}/{name}")
