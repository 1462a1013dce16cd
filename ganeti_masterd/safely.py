"""Opens, makes, gives away and walks files in folders that other accounts may write to.

Members of gnt-daemons may create and rename names in ``/run/ganeti``, and gnt-masterd may in
``/var/lib/ganeti``. A name there may be a link that leads root, or the daemon, to another file. So
everything here goes by descriptors, from the root of the file system down: a link on the way is
followed only if root or this user made it where nobody else can, the last component is never
followed, what was opened is looked at before it is used, and nothing is truncated on opening. A
refusal (:class:`UnsafePath`) names the component and the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator

#: Links followed on the way to one folder; as many as the kernel's own limit.
_MOST_LINKS = 40

_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Neither a FIFO nor a terminal that has the file's name may block or bind this process.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: How often an alien name is cleared away before its maker is taken to be faster.
_TRIES = 20


class UnsafePath(OSError):
    """A path that must not be used; ``filename`` is the component at fault, the text says why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(errno.ELOOP, reason, path)

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


def open_folder(path: str, *, make: bool = False) -> int:
    """Returns a descriptor of the folder ``path``; raises ``OSError``.

    With ``make``, missing folders are created (0755 less the umask). Links are followed only if
    root or this user made them in folders that only these can change.
    """
    trusted = {0, os.geteuid()}
    ahead = [part for part in os.path.abspath(path).split("/") if part][::-1]
    here, at, links = os.open("/", _LOOK | os.O_DIRECTORY), "/", 0
    try:
        while ahead:
            name = ahead.pop()
            below = os.path.join(at, name)
            with _naming(below):
                found = _component(here, name, make=make)
            try:
                kind = os.fstat(found)
                if stat.S_ISLNK(kind.st_mode):
                    links += 1
                    _check_link(below, kind, os.fstat(here), trusted, links)
                    target = os.readlink("", dir_fd=found)
                    ahead += [part for part in target.split("/") if part][::-1]
                    if target.startswith("/"):
                        os.close(here)
                        here, at = os.open("/", _LOOK | os.O_DIRECTORY), "/"
                    continue
                if not stat.S_ISDIR(kind.st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), below)
                here, found, at = found, here, below
            finally:
                os.close(found)
        with _naming(path):
            return os.open(".", _FOLDER, dir_fd=here)
    finally:
        os.close(here)


def open_file(
    path: str, flags: int, mode: int = 0o600, *, single: bool = False, device: bool = False
) -> int:
    """Returns a descriptor of the regular file ``path``; raises ``OSError``.

    With ``device`` a character device of root's, such as the null device, is as good. ``single``
    refuses a file that has other names (hard links), because what is done to it would
    be done to another file. The descriptor does not block, which only matters for other kinds of
    files.
    """
    folder = open_folder(os.path.dirname(path))
    try:
        return open_file_in(folder, path, flags, mode, single=single, device=device)
    finally:
        os.close(folder)


def open_file_in(
    folder: int,
    path: str,
    flags: int,
    mode: int = 0o600,
    *,
    single: bool = False,
    device: bool = False,
) -> int:
    """Like :func:`open_file`, in a folder that is open; of ``path`` only the name is used."""
    assert not flags & os.O_TRUNC
    with _naming(path):
        descriptor = os.open(os.path.basename(path), flags | _FILE, mode, dir_fd=folder)
    try:
        if not (device and is_device(descriptor)):
            check_regular(descriptor, path, single=single)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_device(descriptor: int) -> bool:
    """Whether an open file is a character device that root made."""
    found = os.fstat(descriptor)
    return stat.S_ISCHR(found.st_mode) and found.st_uid == 0


def check_regular(descriptor: int, path: str, *, single: bool = False) -> os.stat_result:
    """Returns what is known of an open file; raises :class:`UnsafePath` if it is another kind."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise UnsafePath(path, "is no regular file")
    if single and found.st_nlink != 1:
        raise UnsafePath(path, "has another name (it is a hard link)")
    return found


def read(path: str) -> bytes:
    """Returns the content of the regular file ``path``; raises ``OSError``."""
    with open(open_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def give(descriptor: int, path: str, uid: int, gid: int, mode: int | None = None) -> None:
    """Sets the owner, the group and the mode of an open file or folder where they differ.

    ``uid`` and ``gid`` may be -1 for no change. Raises :class:`UnsafePath` if a file that would
    change has another name: it may be one that nobody meant to give away. A file that is right
    already is left alone, however many names it has.
    """
    found = os.fstat(descriptor)
    moves = uid not in (-1, found.st_uid) or gid not in (-1, found.st_gid)
    remode = mode is not None and stat.S_IMODE(found.st_mode) != mode
    if not moves and not remode:
        return
    if not stat.S_ISDIR(found.st_mode):
        check_regular(descriptor, path, single=True)
    with _naming(path):
        if moves:
            os.fchown(descriptor, uid, gid)
        if mode is not None and (remode or moves):  # a new owner may clear bits
            os.fchmod(descriptor, mode)


def give_tree(path: str, uid: int, gid: int) -> None:
    """Gives a folder and everything in it to an account, links themselves too; as root only.

    Raises :class:`UnsafePath` for a file of another owner that has another name as well.
    """
    folder = open_folder(path, make=True)
    try:
        _give_tree(folder, path, uid, gid)
    finally:
        os.close(folder)


def _give_tree(folder: int, path: str, uid: int, gid: int) -> None:
    os.fchown(folder, uid, gid)
    for name in os.listdir(folder):
        below = os.path.join(path, name)
        try:
            found = os.open(name, _LOOK, dir_fd=folder)
        except FileNotFoundError:
            continue
        try:
            kind = os.fstat(found)
            if stat.S_ISDIR(kind.st_mode):
                inner = os.open(".", _FOLDER, dir_fd=found)
                try:
                    _give_tree(inner, below, uid, gid)
                finally:
                    os.close(inner)
            elif (kind.st_uid, kind.st_gid) != (uid, gid):
                if kind.st_nlink != 1:
                    raise UnsafePath(below, "has another name (it is a hard link)")
                # By the descriptor: the name may stand for another file by now.
                os.chown(f"/proc/self/fd/{found}", uid, gid)
        finally:
            os.close(found)


def own_folder(parent: int, path: str) -> int:
    """Returns a descriptor of the folder ``path`` that only this user can enter.

    ``parent`` is the open folder that it is in. Anything else of that name, made by another
    account, is removed or renamed. Raises ``OSError``.
    """
    name = os.path.basename(path)
    with _naming(path):
        for _ in range(_TRIES):
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=parent)
            try:
                folder = os.open(name, _FOLDER, dir_fd=parent)
            except FileNotFoundError:
                continue
            except (NotADirectoryError, PermissionError):
                folder = -1
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                folder = -1
            if folder >= 0 and os.fstat(folder).st_uid == os.geteuid():
                os.fchmod(folder, 0o700)
                return folder
            if folder >= 0:
                os.close(folder)
            clear(parent, name)
    raise UnsafePath(path, "is made again and again by another account")


def clear(parent: int, name: str) -> None:
    """Takes a name out of an open folder, whatever it stands for; raises ``OSError``.

    A folder that is not empty is not looked into, only renamed to a hidden name.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            os.unlink(name, dir_fd=parent)
        except (IsADirectoryError, PermissionError):
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                aside = f".{name}.{secrets.token_hex(8)}"
                os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=parent)


def _component(folder: int, name: str, *, make: bool) -> int:
    while True:
        try:
            return os.open(name, _LOOK, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=folder)


def _check_link(
    path: str, link: os.stat_result, folder: os.stat_result, trusted: set[int], links: int
) -> None:
    others = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not folder.st_mode & stat.S_ISVTX
    if link.st_uid not in trusted:
        raise UnsafePath(path, f"is a link that uid {link.st_uid} made")
    if others or folder.st_uid not in trusted:
        raise UnsafePath(path, "is a link in a folder that other accounts can change")
    if links > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """Errors of the body name the whole path, and a link that must not be followed as such."""
    try:
        yield
    except UnsafePath:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UnsafePath(path, "is a link") from None
        raise OSError(error.errno, error.strerror, path) from None
