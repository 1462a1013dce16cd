"""Objects of the configuration that have locks of their own come and go together with these.

At any time an object that others can see has its lock: the lock is made before
the object is published, and removed after the object is gone. Those who wait
for it then fail, as the object that they want is no more.
"""

from __future__ import annotations

from collections.abc import Mapping

from ganeti_masterd.config.changes import Add, Remove
from ganeti_masterd.config.objects import Network, NodeGroup
from ganeti_masterd.locking.levels import Level
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.query.resources import CONFIGURED

#: Sections whose objects are locked by uuid, each at one level.
LEVELS: Mapping[str, Level] = {
    resource.objects.section: resource.level
    for resource in CONFIGURED
    if resource.level is not None and not resource.objects.locked_by_name
}


def add_object(ctx: Context, section: str, obj: Network | NodeGroup) -> None:
    """Adds an object and its lock, whose name the job holds because it asked to create it.

    Fails as ``ctx.change_all`` does, and leaves neither then.
    """
    level = LEVELS[section]
    ctx.add_lock(level, obj.uuid)
    try:
        ctx.change_all([Add(section, obj)])
    except BaseException:
        ctx.remove_lock(level, obj.uuid)
        raise


def remove_object(ctx: Context, section: str, uuid: str) -> None:
    """Removes an object, then its lock, which the job holds alone.

    Fails as ``ctx.change_all`` does, and leaves both then.
    """
    ctx.change_all([Remove(section, uuid)])
    ctx.remove_lock(LEVELS[section], uuid)
