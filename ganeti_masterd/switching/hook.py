"""The lines in /etc/default/ganeti by which daemon-util knows this daemon. Pure."""

from __future__ import annotations

import re
import shlex

_BEGIN = "# gnt-masterd takes the place of luxid and wconfd; written by gnt-luxi switch."
_END = "# End of gnt-masterd's lines."

#: Lines as an administrator may have written them, by an earlier version's instructions.
_BY_HAND = re.compile(r"GNT_MASTERD_BIN=.*|\. .*/daemon-util\.sh")


def is_hooked(text: str) -> bool:
    """Whether the text of the file has the lines, by whomever they were written."""
    return any(_is_own(line) for line in text.splitlines())


def hooked(text: str, programs: str, hook: str) -> str:
    """Returns the text with the lines at its end, in place of those that it may have.

    ``programs`` is the folder of twistd and gnt-luxi, ``hook`` the file that daemon-util is to
    read. If that file is gone daemon-util works as if it didn't know of this daemon.
    """
    rest = unhooked(text)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    file = shlex.quote(hook)
    lines = [
        _BEGIN,
        f"GNT_MASTERD_BIN={shlex.quote(programs)}",
        f"if [ -r {file} ]; then",
        f"  . {file}",
        "fi",
        _END,
    ]
    return rest + "".join(f"{line}\n" for line in lines)


def unhooked(text: str) -> str:
    """Returns the text without the lines."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        bare = line.rstrip("\n")
        if bare == _BEGIN and f"\n{_END}\n" in text:
            inside = True
        elif inside:
            inside = bare != _END
        elif not _BY_HAND.fullmatch(bare):
            kept.append(line)
    return "".join(kept)


def _is_own(line: str) -> bool:
    return line == _BEGIN or _BY_HAND.fullmatch(line) is not None
