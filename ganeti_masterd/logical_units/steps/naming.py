"""What the name of an object has to be like that no other host has to resolve."""

from __future__ import annotations

from ganeti_masterd.errors import prereq

#: The longest name, in bytes; that of a file, as hooks and tools may make one of it.
LONGEST_NAME = 255


def check_name(kind: str, name: str) -> None:
    """Refuses a name that is too long, or has a control character or line separator in it.

    Names of groups and networks are lines of ssconf files on every node. ``kind`` is what is to
    have the name.
    """
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        raise prereq(f"{kind} name is longer than {LONGEST_NAME} bytes: {name[:40]!r}...")
    if not name.replace("\N{NO-BREAK SPACE}", " ").isprintable():
        raise prereq(f"{kind} name {name!r} has a control character in it")
