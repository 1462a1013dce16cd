"""Keys of ``gnt-luxi top``: from bytes of a terminal to what is viewed. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from ganeti_masterd.cli.topview import TopState, Viewing, moved

UP, DOWN, ENTER, ESCAPE, BACKSPACE = "up", "down", "enter", "escape", "backspace"

_NAMED = {
    "\x1b[A": UP,
    "\x1bOA": UP,
    "\x1b[B": DOWN,
    "\x1bOB": DOWN,
    "\r": ENTER,
    "\n": ENTER,
    "\x1b": ESCAPE,
    "\x7f": BACKSPACE,
    "\b": BACKSPACE,
}


def keys(text: str) -> Iterator[str]:
    """Yields the keys in what was read at once; unknown sequences of escape are left out."""
    at = 0
    while at < len(text):
        if text[at : at + 2] in ("\x1b[", "\x1bO"):
            end = at + 2
            while end < len(text) and not "@" <= text[end] <= "~":
                end += 1
            name = _NAMED.get(text[at : end + 1])
            at = end + 1
            if name is not None:
                yield name
            continue
        yield _NAMED.get(text[at], text[at])
        at += 1


def pressed(key: str, viewing: Viewing, state: TopState | None) -> Viewing | None:
    """Returns what is viewed after a key; None for the end."""
    if key == "\x03":
        return None
    if viewing.typing is not None:
        return _typed(key, viewing, viewing.typing)
    match key:
        case "q":
            return None
        case "?":
            return replace(viewing, help=not viewing.help)
        case "escape" | "b" if viewing.help:
            return replace(viewing, help=False)
        case "escape" | "b" if viewing.following is not None:
            return replace(viewing, following=None)
        case "escape":
            return replace(viewing, filter="")
        case "/" if viewing.following is None:
            return replace(viewing, typing=viewing.filter, help=False)
        case "up" | "k":
            return replace(viewing, chosen=moved(state, viewing, -1))
        case "down" | "j":
            return replace(viewing, chosen=moved(state, viewing, 1))
        case "enter":
            chosen = moved(state, viewing, 0)
            return replace(viewing, chosen=chosen, following=chosen, help=False)
    return viewing


def _typed(key: str, viewing: Viewing, typing: str) -> Viewing:
    if key == ENTER:
        return replace(viewing, filter=typing, typing=None, chosen=None)
    if key == ESCAPE:
        return replace(viewing, typing=None)
    if key == BACKSPACE:
        return replace(viewing, typing=typing[:-1])
    return replace(viewing, typing=typing + key) if len(key) == 1 and key.isprintable() else viewing
