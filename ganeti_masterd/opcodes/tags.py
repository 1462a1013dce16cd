"""Opcodes of tags."""

from __future__ import annotations

from ganeti_masterd.opcodes.base import Opcode
from ganeti_masterd.opcodes.checks import NonEmptyStr
from ganeti_masterd.opcodes.types import ObjectNameOrEmpty, ObjectNames, Tag, TagKind


class TagsGet(Opcode, tag="OP_TAGS_GET", frozen=True, kw_only=True):
    """Lists the tags of the cluster, a group, a node, a network or an instance."""

    SUMMARY = "name"
    RESULT = ObjectNames

    kind: TagKind
    use_locking: bool = False
    name: ObjectNameOrEmpty | None = None


class TagsSearch(Opcode, tag="OP_TAGS_SEARCH", frozen=True, kw_only=True):
    """Lists the paths of objects and their tags that match a regular expression."""

    SUMMARY = "pattern"
    RESULT = list[tuple[NonEmptyStr, NonEmptyStr]]

    pattern: NonEmptyStr


class TagsSet(Opcode, tag="OP_TAGS_SET", frozen=True, kw_only=True):
    """Adds tags to the cluster, a group, a node, a network or an instance."""

    kind: TagKind
    tags: tuple[Tag, ...]
    name: ObjectNameOrEmpty | None = None


class TagsDel(Opcode, tag="OP_TAGS_DEL", frozen=True, kw_only=True):
    """Removes tags from the cluster, a group, a node, a network or an instance."""

    kind: TagKind
    tags: tuple[Tag, ...]
    name: ObjectNameOrEmpty | None = None
