"""Makes this Python and this project readable by every user, for one program that is run.

A checkout or a Python below root's home can't be read by the user that the
daemon becomes. In a mount namespace of the program's own the folders above,
which are in the way, are replaced by empty ones that anybody enters.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

#: Whoever runs what is made here needs all that is below these.
NEEDED = (Path(sys.base_prefix), Path(sys.prefix), Path(__file__).resolve().parents[2])


def barrier(folder: Path) -> Path | None:
    """Returns the topmost folder on the way to one that others may not enter, if any."""
    for above in [*reversed(folder.parents), folder]:
        if not above.stat().st_mode & 0o001:
            return above
    return None


def wrapper(program: Path, needed: Iterable[Path] = NEEDED) -> str:
    """Returns a shell script that runs ``program``, which anybody can read then."""
    barred: dict[Path, set[Path]] = {}
    for folder in {each.resolve() for each in needed}:
        found = barrier(folder)
        if found is not None:
            barred.setdefault(found, set()).add(folder)
    run = f'exec {shlex.quote(str(program))} "$@"\n'
    if not barred:
        return "#!/bin/sh\n" + run
    inside = "".join(_opened(above, folders) for above, folders in barred.items()) + run
    return (
        f"#!/bin/sh\nexec unshare --mount --propagation private sh -e -c {shlex.quote(inside)}"
        ' sh "$@"\n'
    )


def _opened(above: Path, folders: set[Path]) -> str:
    """Returns commands that hide a folder, and put others back that are below it."""
    hidden = shlex.quote(str(above))
    kept = [each for each in sorted(folders) if not folders & set(each.parents)]
    lines = ["umask 022", "kept=$(mktemp -d)"]
    for place, folder in enumerate(kept):
        lines += [
            f'mkdir "$kept/{place}"',
            f'mount --bind {shlex.quote(str(folder))} "$kept/{place}"',
        ]
    lines.append(f"mount -t tmpfs -o mode=755 tmpfs {hidden}")
    for place, folder in enumerate(kept):
        back = shlex.quote(str(folder))
        lines += [
            f"mkdir -p {back}",
            f'mount --bind "$kept/{place}" {back}',
            f'umount -l "$kept/{place}"',
            f'rmdir "$kept/{place}"',
        ]
    lines.append('rmdir "$kept"')
    return "\n".join(lines) + "\n"
