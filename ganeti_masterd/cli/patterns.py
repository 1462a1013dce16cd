"""Names on a command line, which may be patterns such as ``web*``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_WILD = re.compile(r"([*?])")
_MEANING = {"*": "[^.]*", "?": "[^.]"}


def pattern(glob: str) -> str:
    """Returns the regular expression for a pattern of host names.

    ``*`` matches any characters except dots, ``?`` one of them. The pattern matches a
    whole name, or its beginning up to a dot.
    """
    parts = (_MEANING.get(part) or re.escape(part) for part in _WILD.split(glob))
    return rf"^{''.join(parts)}(\..*)?$"


def name_filter(field: str, names: Iterable[str]) -> list[Any] | None:
    """Returns the filter for names, some of which may be patterns; None if there are none.

    Without patterns it is an "or of equals", which the daemon answers in the order asked.
    """
    tests = [
        ["=~", field, pattern(name)] if _WILD.search(name) else ["=", field, name] for name in names
    ]
    return ["|", *tests] if tests else None
