"""The configuration of a root, real or simulated, as its file has it."""

from __future__ import annotations

from ganeti_masterd.config.document import parse
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import ConfigurationError
from ganeti_masterd.journal.disk import read_file
from ganeti_masterd.startup.paths import Paths


def read_config(paths: Paths) -> Snapshot:
    """Reads config.data; raises ``ConfigurationError`` naming the file and the fault."""
    try:
        content = read_file(paths.config)
    except OSError as error:
        raise ConfigurationError(f"{paths.config} can't be read: {error.strerror}") from None
    return parse(content, paths.config)
