"""What a tag may be."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ganeti_masterd.constants import MAX_TAG_LEN, MAX_TAGS_PER_OBJ
from ganeti_masterd.errors import TagError

_VALID = re.compile(r"[\w.+*/:@-]+")


def check_tag(tag: object) -> str:
    """Returns the tag; raises ``TagError``, in the real daemon's words, if it isn't one.

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
    """Returns both sets of tags as one, sorted as the file has them.

    Raises ``TagError`` for a tag of ``more`` that isn't one, and past 4,096 tags.
    """
    tags = {*present, *map(check_tag, more)}
    if len(tags) > MAX_TAGS_PER_OBJ:
        raise TagError("Too many tags")
    return tuple(sorted(tags))


def remaining_tags(present: Iterable[str], fewer: Iterable[str]) -> tuple[str, ...]:
    """Returns the tags that stay; raises ``TagError`` for one that isn't there."""
    before = set(present)
    gone = {check_tag(tag) for tag in fewer}
    if missing := gone - before:
        names = ", ".join(f"'{tag}'" for tag in sorted(missing))
        raise TagError(f"Tag(s) {names} not found")
    return tuple(sorted(before - gone))
