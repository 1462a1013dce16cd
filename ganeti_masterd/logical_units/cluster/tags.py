"""Tags of the cluster, node groups, nodes, networks and instances."""

from __future__ import annotations

from typing import Any, TypeVar

from ganeti_masterd.config.kinds import KINDS
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.tags import check_tag
from ganeti_masterd.constants import TAG_CLUSTER, TAG_INSTANCE, TAG_NETWORK, TAG_NODE, TAG_NODEGROUP
from ganeti_masterd.errors import ECODE_NOENT, prereq
from ganeti_masterd.locking.levels import Level, WantedLocks, exclusive, nothing, shared
from ganeti_masterd.logical_units.base import LogicalUnit
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.opcodes.tags import TagsDel, TagsGet, TagsSearch, TagsSet
from ganeti_masterd.patterns import BadPattern, Pattern
from ganeti_masterd.query.resources import TAGGED

#: Path prefixes in the answer of a search, with the kinds of objects searched, in order.
SEARCHED: tuple[tuple[str, str], ...] = (
    ("/instances", TAG_INSTANCE),
    ("/nodes", TAG_NODE),
    ("/nodegroup", TAG_NODEGROUP),
    ("/network", TAG_NETWORK),
)

O_co = TypeVar("O_co", bound=TagsGet | TagsSet | TagsDel, covariant=True)
C_co = TypeVar("C_co", bound=TagsSet | TagsDel, covariant=True)


class _OnOneObject(LogicalUnit[O_co]):
    """An opcode about one object that has tags."""

    target: Any
    level: Level

    def expand(self, snapshot: Snapshot) -> None:
        """Resolves the name, unless the object is the cluster."""
        self.target = snapshot.find(self.op.kind, self.op.name)
        level = TAGGED[self.op.kind].level
        self.level = Level.CLUSTER if level is None else level

    @property
    def lock(self) -> str:
        """The name under which the object is locked."""
        return TAGGED[self.op.kind].objects.lock_of(self.target)

    def current(self, ctx: Context) -> Any:
        """Returns the current object."""
        return ctx.snapshot().find(self.op.kind, self.target.uuid)


class GetTags(_OnOneObject[TagsGet], runs=TagsGet):
    """Returns the tags of an object; locks it only if asked to."""

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Shares the object, with ``use_locking``."""
        if level is self.level and level is not Level.CLUSTER:
            return shared(self.lock) if self.op.use_locking else nothing
        return super().locks(level, snapshot)

    def exec(self, ctx: Context) -> list[str]:
        """Returns the tags, sorted."""
        return sorted(self.current(ctx).tags)


class _ChangesTags(_OnOneObject[C_co]):
    """Holds the object whose tags change; calls no node."""

    def locks(self, level: Level, snapshot: Snapshot) -> WantedLocks:
        """Holds the object exclusively; the cluster's tags need no extra lock."""
        if level is self.level and level is not Level.CLUSTER:
            return exclusive(self.lock)
        return super().locks(level, snapshot)

    def check(self, ctx: Context) -> None:
        """Raises ``TagError`` for what isn't a tag."""
        for tag in self.op.tags:
            check_tag(tag)


class AddTags(_ChangesTags[TagsSet], runs=TagsSet):
    """Adds tags to an object; tags that it already has are not an error."""

    def exec(self, ctx: Context) -> None:
        """Adds the tags."""
        ctx.change(self.target.uuid, lambda obj: obj.with_tags(self.op.tags))


class RemoveTags(_ChangesTags[TagsDel], runs=TagsDel):
    """Removes tags from an object, all or none."""

    def check(self, ctx: Context) -> None:
        """Refuses tags that the object doesn't have."""
        super().check(ctx)
        missing = sorted(set(self.op.tags) - set(self.current(ctx).tags))
        if missing:
            names = ", ".join(f"'{tag}'" for tag in missing)
            raise prereq(f"Tag(s) {names} not found", ECODE_NOENT)

    def exec(self, ctx: Context) -> None:
        """Removes the tags."""
        ctx.change(self.target.uuid, lambda obj: obj.without_tags(self.op.tags))


class SearchTags(LogicalUnit[TagsSearch], runs=TagsSearch):
    """Finds the tags that match a pattern, anywhere in the cluster."""

    def expand(self, snapshot: Snapshot) -> None:
        """Compiles the pattern."""
        try:
            self.pattern = Pattern(self.op.pattern)
        except BadPattern as error:
            raise prereq(f"Invalid search pattern '{self.op.pattern}': {error}")

    def exec(self, ctx: Context) -> list[tuple[str, str]]:
        """Returns ``(path of the object, tag)`` for each match."""
        snapshot = ctx.snapshot()
        found = [(f"/{TAG_CLUSTER}", tag) for tag in self._matching(snapshot.cluster.tags)]
        for prefix, kind in SEARCHED:
            for obj in snapshot.section(KINDS[kind].section).values():
                found += [(f"{prefix}/{obj.name}", tag) for tag in self._matching(obj.tags)]
        return found

    def _matching(self, tags: tuple[str, ...]) -> list[str]:
        return [tag for tag in tags if self.pattern.search(tag)]
