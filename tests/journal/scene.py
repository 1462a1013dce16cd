"""A journal on a forgetful disk, with documents as small as a test can read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.task import Clock

from ganeti_masterd.journal.following import EncodedImage
from ganeti_masterd.journal.interfaces import IDisk
from ganeti_masterd.journal.journal import Journal
from ganeti_masterd.journal.layout import QueueFiles
from ganeti_masterd.journal.recovery import Identity, Recovered, recover
from ganeti_masterd.journal.rows import ConfigRow, JobRow
from ganeti_masterd.testing.disk import ForgetfulDisk, MemoryStore, Power, SteppedThread
from ganeti_masterd.timing import Timers

FILES = QueueFiles("/queue", "/etc/config.data")
JOURNAL = "/var/masterd/journal.db"
IDENTITY = Identity("7f3a", "node1")


def merge_log(body: bytes, entries: Sequence[tuple[int, bytes]]) -> bytes:
    """Adds log lines to a job's document: the list under "log"."""
    document = msgspec.json.decode(body)
    document["log"] += [msgspec.json.decode(entry) for _, entry in entries]
    return msgspec.json.encode(document)


def check_job(job_id: int, body: bytes) -> None:
    """Refuses a document that says it is another job's."""
    document = msgspec.json.decode(body)
    if document.get("id", job_id) != job_id:
        raise ValueError(f"it is job {document['id']}")


def merge_config(config: bytes, rows: Sequence[ConfigRow]) -> bytes:
    """Puts rows into a configuration, which is one object of uuids."""
    document = msgspec.json.decode(config or b"{}")
    for row in rows:
        if row.body is None:
            document.pop(row.uuid, None)
        else:
            document[row.uuid] = msgspec.json.decode(row.body)
    return encode_config(document)


def encode_config(document: dict[str, Any]) -> bytes:
    """Returns the configuration's one form."""
    return msgspec.json.encode(document, order="sorted")


def job(job_id: int, n: int = 0, archived: bool = False, **more: Any) -> JobRow:
    """Returns a row of a job whose document holds what is given."""
    return JobRow(job_id, msgspec.json.encode({"n": n, "log": [], **more}), archived)


def put(disk: IDisk, path: str, content: bytes) -> None:
    """Makes a file durable in one go."""
    disk.write(path, content, 0o640)
    disk.sync(path)
    disk.sync_directory(path.rpartition("/")[0])


class Scene:
    """Everything below a journal; survives its restarts.

    ``config`` is what is published; ``serial`` the last id given. ``journal``
    is the one that :meth:`open` returned last.
    """

    def __init__(self) -> None:
        self.power = Power()
        self.disk = ForgetfulDisk(["/queue", "/etc", "/var"], self.power)
        self.store = MemoryStore(JOURNAL, self.power)
        self.config: dict[str, Any] = {}
        self.serial: int | None = None
        put(self.disk, FILES.config, b"{}")
        self.images = 0

    def recover(self, identity: Identity = IDENTITY) -> Recovered:
        """Opens the journal's store, and replays what it holds."""
        return recover(
            JOURNAL,
            identity=identity,
            files=FILES,
            disk=self.disk,
            merge_log=merge_log,
            check_job=check_job,
            merge_config=merge_config,
            now=lambda: 1_000_000_000.0,
            open_store=lambda path: self.store,
            examine=lambda path: self.store.examined(),
        )

    def open(self, **more: Any) -> Journal:
        """Returns a new, started journal, as after a start of the daemon."""
        recovered = self.recover()
        self.clock = Clock()
        self.thread = SteppedThread()
        self.journal = Journal(recovered, self.thread, Timers(self.clock), **more)
        self.journal.config_from(self.image)
        self.journal.serial_from(lambda: self.serial)
        self.journal.start()
        return self.journal

    def image(self) -> EncodedImage:
        """Returns what is published."""
        self.images += 1
        return EncodedImage(encode_config(self.config))

    def run(self, seconds: float = 0.0) -> None:
        """Lets the disk do all it can, then time pass, then the disk again."""
        self.thread.run()
        self.clock.advance(seconds)
        self.thread.run()
