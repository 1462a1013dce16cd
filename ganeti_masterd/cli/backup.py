"""``gnt-luxi backup`` and ``restore-backup``: the master in one file, and back."""

from __future__ import annotations

import base64
import binascii
import os
import zlib
from collections.abc import Iterator
from typing import Any

import click
from msgspec import Struct

from ganeti_masterd.cli.answers import read_as
from ganeti_masterd.cli.command import Command, CommandFault
from ganeti_masterd.cli.session import Session, pass_session
from ganeti_masterd.cli.words import counted, printable
from ganeti_masterd.errors import LuxiError
from ganeti_masterd.startup.paths import Paths


class FetchedPiece(Struct, frozen=True):
    """A part of a backup as the daemon sends it."""

    token: str | None
    about: dict[str, Any]
    files: list[tuple[str, str]]


class _Fetching:
    """A backup that is fetched from the daemon; ``about`` once it has begun."""

    def __init__(self, session: Session, *, archive: bool) -> None:
        self._session = session
        self._archive = archive
        self.about: dict[str, Any] = {}

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yields name and content of each file."""
        token: str | None = None
        while True:
            answer = self._session.call("Backup", token, self._archive)
            piece = read_as(FetchedPiece, answer, "the backup")
            self.about, token = piece.about, piece.token
            for name, packed in piece.files:
                try:
                    yield name, zlib.decompress(base64.b64decode(packed, validate=True))
                except (binascii.Error, zlib.error) as error:
                    raise LuxiError(f"The daemon's {printable(name)} is damaged: {error}") from None
            if token is None:
                return


@click.command("backup", cls=Command)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--keys", is_flag=True, help="Also the keys, certificates and passwords; for root.")
@click.option("--no-archive", is_flag=True, help="Without archived jobs.")
@pass_session
def backup(session: Session, file: str, keys: bool, no_archive: bool) -> None:
    """Write all that another machine needs to become the master to FILE.

    The configuration, the job queue and the ssconf files, as of one moment, while the daemon goes
    on. FILE must not exist; it is read back before it has its name. It holds secrets, and only you
    can read it: keep it so.
    """
    from ganeti_masterd.masterbackup.archive import key_files, write_backup
    from ganeti_masterd.masterbackup.contents import FORMAT, BackupManifest

    if not os.path.basename(file):
        raise CommandFault(f"FILE must name a file, not {file!r}")
    if keys and os.geteuid() != 0:
        raise CommandFault("Only root can back up the keys")
    root = session.place.root
    if keys and root is None:
        raise CommandFault("--keys works on files: give the cluster's --root, not a --socket")
    fetching = _Fetching(session, archive=not no_archive)

    def files() -> Iterator[tuple[str, bytes]]:
        yield from fetching.files()
        if keys:
            yield from key_files(Paths(root or "").data)

    def manifest(digests: dict[str, str]) -> BackupManifest:
        return read_as(
            BackupManifest, {**fetching.about, "format": FORMAT, "files": digests}, "the backup"
        )

    try:
        made = write_backup(file, files(), manifest)
    except OSError as error:
        raise CommandFault(f"{error.filename or file}: {error.strerror or error}") from error
    if session.out.json:
        session.out.document({"file": file, "serial": made.serial, "last_job": made.last_job})
        return
    session.out.line(
        f"{file}: {counted(len(made.files), 'file')}; configuration {made.serial}, jobs up to "
        f"{made.last_job}"
    )


@click.command("restore-backup", cls=Command)
@click.argument("file", type=click.Path(dir_okay=False))
@pass_session
def restore_backup(session: Session, file: str) -> None:
    """Lay a backup down on a machine without a cluster.

    Run as root, no master daemon running. FILE is checked as a whole first; if anything is wrong
    with it, or the machine has a cluster's configuration or queue, nothing is changed.
    """
    from ganeti_masterd.masterbackup.contents import BackupFault
    from ganeti_masterd.masterbackup.laying_down import lay_down
    from ganeti_masterd.startup.accounts import GROUP, USER, find_account
    from ganeti_masterd.startup.ownership import set_right

    root = session.place.root
    if root is None:
        raise CommandFault("restore-backup works on files: give a --root, not a --socket")
    paths = Paths(root)
    try:
        manifest = lay_down(file, paths)
        account = find_account(USER, GROUP)
        if os.geteuid() == 0 and not root and account is not None:
            set_right(paths, account)
    except BackupFault as error:
        text = str(error.args[0])
        where = f"{file} can't be restored, nothing was changed: "
        raise CommandFault(where + printable(text)) from error
    except OSError as error:
        raise CommandFault(f"{error.filename or file}: {error.strerror or error}") from error
    if session.out.json:
        session.out.document(
            {
                "cluster": manifest.name,
                "master": manifest.master,
                "serial": manifest.serial,
                "last_job": manifest.last_job,
            }
        )
        return
    session.out.line(
        f"The master of cluster {manifest.name} is restored in {paths.data}; it was "
        f"{manifest.master}"
    )
