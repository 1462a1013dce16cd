"""What goes wrong for a LUXI client before an answer comes.

All are ``LuxiError``, so that whoever handles Ganeti's errors handles these too.
"""

from __future__ import annotations

import errno

from ganeti_masterd.errors import LuxiError


class CallFailed(LuxiError):
    """The client got no answer; args: message."""


class DaemonUnreachable(CallFailed):
    """No connection could be made. The call was not sent."""


class ConnectionLost(CallFailed):
    """The connection ended after the call was sent: the daemon may have done it or not."""


class CallTimeout(CallFailed):
    """No answer came in time. ``sent`` says if the daemon may have done what was asked."""

    def __init__(self, message: str, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class ClientClosed(CallFailed):
    """The client was closed before the answer came."""


_ADVICE = {
    errno.ENOENT: (
        "there is no such socket: the master daemon does not run, or this is not the master "
        "node; look with 'gnt-cluster getmaster', and start the daemon there"
    ),
    errno.ECONNREFUSED: (
        "nothing listens on the socket: the master daemon has died or is stopping; "
        "look into its log file, and start it again"
    ),
    errno.EACCES: (
        "permission denied: run this as root or as a member of the group that owns the socket"
    ),
    errno.EAGAIN: "the daemon takes no more connections at the moment; try again later",
}

#: What no second try makes better.
HOPELESS = frozenset({errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ENAMETOOLONG})


def unreachable(where: str, code: int | None, text: str) -> DaemonUnreachable:
    """Returns the error of a connection that could not be made, with what to do about it.

    ``where`` is the socket, ``code`` the system's error number if there is one, and
    ``text`` what is said for a number that isn't known here.
    """
    return DaemonUnreachable(f"Can't connect to {where}: {_ADVICE.get(code or 0, text)}")
