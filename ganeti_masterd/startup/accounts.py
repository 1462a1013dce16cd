"""Under whose rights the daemon works: users, groups, and giving up root.

See protocol/startup.rst, Checks before the start and protocol/startup.rst, Files and their owners.
"""

from __future__ import annotations

import grp
import os
import pwd

from msgspec import Struct

#: Whom the daemon becomes on a real root, and who may talk to it.
USER = "gnt-masterd"
GROUP = "gnt-daemons"
#: Whom the configuration is for besides the daemon.
READERS_GROUP = "gnt-confd"
#: Whom logs and certificates are for.
OWN_GROUP = "gnt-masterd"


class Account(Struct, frozen=True):
    """A user and a group by name and number, as the daemon is to run."""

    user: str
    group: str
    uid: int
    gid: int


def find_account(user: str | None, group: str | None) -> Account | None:
    """Returns the account; None if the user or the group doesn't exist.

    A null ``user`` is the one who asks, a null ``group`` the user's own.
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
    """Whether this process may give its files to that group."""
    return os.geteuid() == 0 or gid == os.getegid() or gid in os.getgroups()
