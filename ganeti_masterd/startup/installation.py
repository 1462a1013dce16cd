"""Checks that the daemon's user can read the installed modules.

Some modules are imported long after root's privileges were dropped. With an installation below a
folder that only root can enter, such as root's home, single requests would fail then. This check
fails at the start instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

import ganeti_masterd
import twisted
from ganeti_masterd.startup.accounts import Account, acting_as
from ganeti_masterd.startup.checks import StartRefused


def parts() -> list[str]:
    """Returns one file from each place that modules are imported from."""
    files = [module.__file__ for module in (os, twisted, msgspec, ganeti_masterd)]
    return [file for file in files if file is not None]


def check_readable(account: Account, files: Iterable[str]) -> None:
    """Raises :class:`.checks.StartRefused` if one of the files can't be read by that account.

    Checks nothing unless this process is root, as any other user keeps its account.
    """
    if os.geteuid() != 0 or account.uid == 0:
        return
    with acting_as(account):
        for file in files:
            try:
                os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise StartRefused(
                    f"The user {account.user}, as which the daemon is to run, can't read what the"
                    f" daemon is made of: {file}: {error.strerror}; install it where that user may"
                    " read it, such as below /opt"
                ) from None
