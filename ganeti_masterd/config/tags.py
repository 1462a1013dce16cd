"""Rules for tags: which are valid, and how a set of them changes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ganeti_masterd.constants import MAX_TAG_LEN, MAX_TAGS_PER_OBJ
from ganeti_masterd.errors import TagError

_VALID = re.compile(r"[\w.+*/:@-]+")


def check_tag(tag: object) -> str:
    """Returns ``tag``; raises ``TagError``, in the real daemon's words, if it is invalid.

    A tag has 1 to 128 characters: letters, digits and ``_ . + * / : @ -``.
    """
    if not isinstance(tag, str):
        raise TagError("Invalid tag type (not a string)")
    if len(tag) > MAX_TAG_LEN:
        raise TagError(f"Tag too long (>{MAX_TAG_LEN} characters)")
    if not tag:
        raise TagError("Tags cannot be empty")
    if not _VALID.fullmatch(tag):
        raise TagError("Tag contains invalid characters")
    return tag


def joined_tags(present: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    """Returns the union of both sets of tags, sorted as in the file.

    Raises ``TagError`` for an invalid tag in ``more``, and for more than 4,096 tags in all.
    """
    tags = {*present, *map(check_tag, more)}
    if len(tags) > MAX_TAGS_PER_OBJ:
        raise TagError("Too many tags")
    return tuple(sorted(tags))


def remaining_tags(present: Iterable[str], fewer: Iterable[str]) -> tuple[str, ...]:
    """Returns ``present`` without ``fewer``; raises ``TagError`` for one that isn't present."""
    before = set(present)
    gone = {check_tag(tag) for tag in fewer}
    if missing := gone - before:
        names = ", ".join(f"'{tag}'" for tag in sorted(missing))
        raise TagError(f"Tag(s) {names} not found")
    return tuple(sorted(before - gone))
