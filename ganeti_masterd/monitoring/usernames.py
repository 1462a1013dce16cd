"""Who a user id is, without asking a directory service, which would hold up the reactor."""

from __future__ import annotations

import os


class UserNames:
    """Names of user ids, from the file of this host's own users; it is read again if it changed."""

    def __init__(self, path: str = "/etc/passwd") -> None:
        self._path = path
        self._read: tuple[int, int] | None = None
        self._names: dict[int, str] = {}

    def __call__(self, uid: int) -> str:
        """Returns the name of a user; ``uid NUMBER`` if this host doesn't know one."""
        try:
            status = os.stat(self._path)
            if (version := (status.st_mtime_ns, status.st_ino)) != self._read:
                self._read, self._names = version, _names(self._path)
        except OSError:
            self._names = {}
        return self._names.get(uid, f"uid {uid}")


def _names(path: str) -> dict[int, str]:
    found: dict[int, str] = {}
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            uid = rest.split(":")[1:2]
            if uid and uid[0].isascii() and uid[0].isdigit():
                found.setdefault(int(uid[0]), name)  # as in the system, the first one counts
    return found
