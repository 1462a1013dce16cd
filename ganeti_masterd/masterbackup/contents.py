"""Which files a backup may hold, where they belong, and its list of them. Pure.

Names are relative to ``/var/lib/ganeti``. Any other name is refused, so nothing in an archive says
where on the machine it goes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

import msgspec
from msgspec import Struct

from ganeti_masterd.decoding import decode_json
from ganeti_masterd.errors import GenericError
from ganeti_masterd.journal.layout import (
    QueuePaths,
    archive_number,
    job_file_mode,
    job_number,
)

#: The version of the format.
FORMAT = 1

MANIFEST = "MANIFEST.json"
CONFIG = "config.data"

#: The names of the queue's files in a backup.
QUEUE = QueuePaths("queue")
SERIAL = QUEUE.serial

#: Keys, certificates and passwords, and their modes; only root can put them into a backup.
KEYS = {
    "server.pem": 0o400,
    "client.pem": 0o400,
    "rapi.pem": 0o440,
    "spice.pem": 0o440,
    "spice-ca.pem": 0o440,
    "hmac.key": 0o440,
    "cluster-domain-secret": 0o600,
    "known_hosts": 0o644,
    "rapi/users": 0o640,
}

_SSCONF = re.compile(r"ssconf_[a-z_-]+")
_JOB = re.compile(r"queue/(?:archive/(\d+)/)?(job-\d+)")

#: More than this no file of a master has.
LARGEST = 1 << 30


class BackupFault(GenericError):
    """A backup that can't be made, or used; the text says why."""


class BackupManifest(Struct, frozen=True):
    """What a backup holds, and of which moment.

    ``taken`` is in seconds since the epoch; ``serial`` the configuration's, ``last_job`` the last
    job id that was given. ``files`` are SHA-256 digests (hex) by name.
    """

    format: int
    cluster: str
    name: str
    master: str
    taken: float
    serial: int
    last_job: int
    files: Mapping[str, str]


def digest(content: bytes) -> str:
    """Returns the digest of a file."""
    return sha256(content).hexdigest()


def job_in(name: str) -> int | None:
    """Returns the id of the job whose file has this name; None for other names."""
    found = _JOB.fullmatch(name)
    if found is None:
        return None
    number = job_number(found[2])
    if number is None or (found[1] is not None and archive_number(found[1]) is None):
        return None
    return number


def mode_of(name: str, content: bytes) -> int:
    """Returns the mode of a file; raises :class:`BackupFault` for a name that no backup has."""
    if name in KEYS:
        return KEYS[name]
    if name in (CONFIG, SERIAL, QUEUE.version):
        return 0o640
    if name == QUEUE.drain:
        return 0o644
    if _SSCONF.fullmatch(name):
        return 0o444
    if job_in(name) is not None:
        return job_file_mode(content)
    raise BackupFault(f"no backup of a master has a file {name!r}")


def decode_manifest(content: bytes) -> BackupManifest:
    """Reads a manifest; raises :class:`BackupFault`."""
    try:
        manifest = decode_json(content, BackupManifest)
    except msgspec.DecodeError as error:
        raise BackupFault(f"its {MANIFEST} can't be read: {error}") from None
    if manifest.format != FORMAT:
        raise BackupFault(f"it has the format {manifest.format}, this program reads {FORMAT}")
    return manifest
