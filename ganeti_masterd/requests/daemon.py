"""The parts of the daemon that LUXI methods use, by their roles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred

from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.history.recorder import ConfigHistory
from ganeti_masterd.jobs.control import JobControl
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.jobs.submission import Submission
from ganeti_masterd.jobs.switches import Switches
from ganeti_masterd.locking.keeper import LockKeeper
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.query.waits import JobWaits
from ganeti_masterd.requests.backup_desk import BackupDesk
from ganeti_masterd.rpc.interfaces import INodeRPC


class HistoryParts(Struct, frozen=True):
    """What the methods about the configuration's history use besides the rest."""

    history: ConfigHistory
    locks: LockKeeper
    nodes: INodeRPC
    #: Runs a function in the history's thread.
    work: Callable[[Callable[[], Any]], Deferred[Any]]
    backups: BackupDesk
    #: Has whoever restores a version now: one at a time.
    restoring: list[object] = msgspec.field(default_factory=list)


class Daemon(Struct, frozen=True):
    """The parts that requests use; created once by the assembly."""

    queue: JobQueue
    submission: Submission
    control: JobControl
    switches: Switches
    store: ConfigStore
    engine: QueryEngine
    waits: JobWaits
    history: HistoryParts | None = None
