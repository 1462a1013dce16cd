"""The account that the daemon runs as: users, groups, and dropping root's privileges.

See protocol/startup.rst, Checks before the start and protocol/startup.rst, Files and their owners.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
from collections.abc import Iterable, Iterator

from msgspec import Struct

#: The user that the daemon runs as on a real root, and the group that may connect to it.
USER = "gnt-masterd"
GROUP = "gnt-daemons"
#: The group that may read the configuration.
READERS_GROUP = "gnt-confd"
#: The group that may read logs and certificates.
OWN_GROUP = "gnt-masterd"


class Account(Struct, frozen=True):
    """The user and group that the daemon is to run as, each by name and number."""

    user: str
    group: str
    uid: int
    gid: int


def find_account(user: str | None, group: str | None) -> Account | None:
    """Returns the account; None if the user or the group doesn't exist.

    If ``user`` is None, the current user is taken; if ``group`` is None, the user's primary group.
    """
    try:
        who = pwd.getpwuid(os.geteuid()) if user is None else pwd.getpwnam(user)
        whose = grp.getgrgid(who.pw_gid) if group is None else grp.getgrnam(group)
    except KeyError:
        return None
    return Account(who.pw_name, whose.gr_name, who.pw_uid, whose.gr_gid)


def group_id(name: str) -> int | None:
    """Returns a group's number; None if there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def may_give_to(gid: int) -> bool:
    """Returns whether this process may change the group of its files to that group."""
    return os.geteuid() == 0 or gid == os.getegid() or gid in os.getgroups()


def account_of(uid: int, gid: int) -> Account:
    """Returns the account with these numbers; the names are the numbers where there are none."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return Account(user, group, uid, gid)


@contextlib.contextmanager
def acting_as(account: Account | None, groups: Iterable[int] = ()) -> Iterator[None]:
    """Switches this process to another account within the body, if it is root.

    The account is in ``groups`` (gids) as well as in its own. What the body does to files is
    then no more than that account could do itself. Nothing is switched for None.
    """
    if account is None or os.geteuid() != 0 or account.uid == 0:
        yield
        return
    before, gid = os.getgroups(), os.getegid()
    try:
        os.initgroups(account.user, account.gid)
        os.setgroups([*os.getgroups(), *groups])
        os.setegid(account.gid)
        os.seteuid(account.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(before)
