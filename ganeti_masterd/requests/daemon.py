"""The parts of the daemon that LUXI methods use, by their roles."""

from __future__ import annotations

from msgspec import Struct

from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.jobs.control import JobControl
from ganeti_masterd.jobs.queue import JobQueue
from ganeti_masterd.jobs.submission import Submission
from ganeti_masterd.jobs.switches import Switches
from ganeti_masterd.query.engine import QueryEngine
from ganeti_masterd.query.waits import JobWaits


class Daemon(Struct, frozen=True):
    """The parts that requests use; created once by the assembly."""

    queue: JobQueue
    submission: Submission
    control: JobControl
    switches: Switches
    store: ConfigStore
    engine: QueryEngine
    waits: JobWaits
