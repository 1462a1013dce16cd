"""Whether the daemon's user can read what the daemon is made of.

Modules are also imported long after root was given up. An installation below a
folder that only root enters, such as root's home, would fail then, one request
or the other, instead of at the start.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

import msgspec

import ganeti_masterd
import twisted
from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.checks import StartRefused


def parts() -> list[str]:
    """Returns a file of each place that modules come from."""
    files = [module.__file__ for module in (os, twisted, msgspec, ganeti_masterd)]
    return [file for file in files if file is not None]


def check_readable(account: Account, files: Iterable[str]) -> None:
    """Raises :class:`.checks.Refused` if one of the files can't be read by that account.

    Checks nothing unless this process is root: it stays who it is then.
    """
    if os.geteuid() != 0 or account.uid == 0:
        return
    with _as(account):
        for file in files:
            try:
                os.close(os.open(file, os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise StartRefused(
                    f"The user {account.user}, as which the daemon is to run, can't read what the"
                    f" daemon is made of: {file}: {error.strerror}; install it where that user may"
                    " read it, such as below /opt"
                ) from None


@contextlib.contextmanager
def _as(account: Account) -> Iterator[None]:
    """Lets this process, which is root's, act as somebody else for a while."""
    groups, gid = os.getgroups(), os.getegid()
    try:
        os.initgroups(account.user, account.gid)
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)
