"""The daemon for wconfd's socket alone, as one Twisted service: no LUXI, no jobs, no journal.

Ganeti's own tools have it started through daemon-util while they change the configuration
themselves: ``gnt-cluster renew-crypto`` on the master, while no master daemon runs, and
``gnt-cluster master-failover`` on the candidate that becomes the master. Each change is written to
config.data at once, recorded in the configuration's history, and then sent to the nodes that
answer. The queue is not touched: until the old master is stopped, it is still that one's.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Generator
from typing import Any, cast

from msgspec.structs import replace
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    DeferredLock,
    ensureDeferred,
    inlineCallbacks,
)
from twisted.internet.interfaces import (
    IReactorFromThreads,
    IReactorSocket,
    IReactorTime,
)
from twisted.logger import Logger

from ganeti_masterd import safely
from ganeti_masterd.assembly import Settings, make_listener, trusted_users
from ganeti_masterd.config.document import ConfigImage, apply_rows, encode, parse
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.config.store import ConfigStore
from ganeti_masterd.constants import WCONFD_SOCKET_PERMS
from ganeti_masterd.errors import ConfigurationError, GenericError
from ganeti_masterd.failover import asking
from ganeti_masterd.failover.adoption import forget_journal, queue_held
from ganeti_masterd.failover.newest import check_candidate, promoted
from ganeti_masterd.history.recorder import ConfigHistory
from ganeti_masterd.jobs.model import decode_job_of, merge_log
from ganeti_masterd.journal.disk import RealDisk
from ganeti_masterd.journal.files import replace_file
from ganeti_masterd.journal.hanging import DiskWatch
from ganeti_masterd.journal.one_file import ConfigFileJournal
from ganeti_masterd.journal.progress import WatchedDisk
from ganeti_masterd.journal.recovery import Identity, recover
from ganeti_masterd.journal.thread import DiskThread
from ganeti_masterd.luxi.budget import Budget
from ganeti_masterd.mailbox import Mailbox
from ganeti_masterd.query.slices import Slices
from ganeti_masterd.requests.config_lock import ConfigLock, LiveLocks
from ganeti_masterd.requests.config_writing import ConfigWriter
from ganeti_masterd.requests.wconfd import WCONFD_METHODS, WconfdAnswers, WconfdParts
from ganeti_masterd.rpc.interfaces import Target
from ganeti_masterd.service import fit_descriptors
from ganeti_masterd.startup.checks import StartRefused, named_master
from ganeti_masterd.startup.doors import RealDoor
from ganeti_masterd.startup.dumps import forbid_dumps
from ganeti_masterd.startup.locks import Locks, queue_locked
from ganeti_masterd.startup.notify import READY
from ganeti_masterd.startup.ownership import groups_of
from ganeti_masterd.startup.socket import LOOK_EVERY
from ganeti_masterd.startup.surroundings import ProcessService, ProcessSurroundings
from ganeti_masterd.startup.teardown import end_in_order
from ganeti_masterd.timing import Timers

log = Logger()

#: How much longer than twice config.data a request may be.
_ROOM = 1 << 20


class ConfigService(ProcessService):
    """Answers on wconfd's socket until it is stopped.

    ``own`` is this node's name. On a node that isn't the master (``--force-node``) the one change
    of the master that is allowed is to this node.
    """

    def __init__(
        self, reactor: Any, settings: Settings, surroundings: ProcessSurroundings, own: str
    ) -> None:
        super().__init__(reactor, settings.account, surroundings)
        self._settings = settings
        self._own = own
        self._locks = Locks()
        self._sending = DeferredLock()
        paths = settings.paths
        self._paths = paths
        self._timers = Timers(cast(IReactorTime, reactor), time.time)
        mailbox = Mailbox(cast(IReactorFromThreads, reactor))
        self._thread = DiskThread(mailbox, purpose=f"work on {paths.config}")
        disk = RealDisk(groups_of(paths, settings.account))
        self._disk = WatchedDisk(disk, self._thread.progress)
        self._history_thread = DiskThread(mailbox, "history", f"work on {paths.history}")
        self._reading_thread = DiskThread(mailbox, "reading", "reading messages")
        self._door = RealDoor(reactor, self._timers, paths, in_thread=self._reading_thread.run)
        self._slices = Slices(self._timers)
        self._store: ConfigStore
        self._journal: ConfigFileJournal

    # Start

    def startService(self) -> None:
        """Starts to answer; if that fails, undoes all and ends the process."""
        try:
            forbid_dumps()
            # Not the master daemon's own, by which daemon-util knows that clients are served.
            self._locks.take_pid_file(self._paths.wconfd_pid)
            self._build(self._read())
            fit_descriptors([self._listener.factory])
            self._listener.socket.listen(
                cast(IReactorSocket, self._reactor), self._listener.factory
            )
        except (GenericError, StartRefused, OSError, sqlite3.Error) as error:
            self._locks.release()
            self._surroundings.launch.refuse(str(error))
        except BaseException:
            self._locks.release()
            raise
        self._thread.start()
        others = {"history": self._history_thread.progress}
        DiskWatch(self._thread.progress, self._timers, others).begin()
        self._reading_thread.start()
        self._history.start()
        self._take_signals()
        self._timers.every(LOOK_EVERY, self._listener.socket.restore)
        super().startService()
        log.info(
            "The configuration of cluster {cluster} can be changed by tools on {path}; no jobs run",
            cluster=self._store.snapshot.cluster.cluster_name,
            path=self._paths.wconfd_socket,
        )
        self._surroundings.launch.succeeded()
        self._surroundings.notifier.tell(READY)

    def _read(self) -> bytes:
        """Returns config.data; on the master, what a journal holds is in the files before."""
        paths = self._paths
        content = safely.read(paths.config)
        if not self._foreign:
            before = parse(content, paths.config)
            with queue_locked(paths.queue_lock):
                recover(
                    paths.journal,
                    identity=Identity(before.cluster.uuid, before.master.name),
                    files=paths.queue_files,
                    disk=self._disk,
                    merge_log=merge_log,
                    check_job=decode_job_of,
                    merge_config=apply_rows,
                    now=time.time,
                ).store.close()
            content = safely.read(paths.config)
        return content

    @property
    def _foreign(self) -> bool:
        """Whether this node isn't the master, as far as ssconf knows."""
        return named_master(self._paths) != self._own

    def _build(self, content: bytes) -> None:
        settings, paths = self._settings, self._paths
        self._moves_master = self._foreign
        snapshot = parse(content, paths.config)
        self._journal = ConfigFileJournal(
            paths.config, content, self._disk, self._thread.run, apply_rows
        )
        self._store = ConfigStore(snapshot, self._journal, self._timers)
        self._history = ConfigHistory(
            paths.history,
            self._history_thread,
            self._timers,
            lambda: self._store.snapshot,
            lambda job_id: None,
        )
        self._store.on_publication(self._history.record)
        self._config_lock = ConfigLock(self._store, self._timers, LiveLocks(paths.live_locks))
        writer = ConfigWriter(
            self._store,
            self._config_lock,
            self._slices,
            self._timers,
            self._send,
            self._check_new_master,
        )
        answers = WconfdAnswers(
            WconfdParts(
                store=self._store,
                locks=lambda: iter(()),
                flushed=self._send,
                slices=self._slices,
                lock_file=paths.wconfd_pid,
                pid=os.getpid(),
                config_lock=self._config_lock,
                writer=writer,
            )
        )
        # A tool writes the whole document back, which it has made somewhat longer.
        longest = max(settings.max_message_size, 2 * len(content) + _ROOM)
        settings = replace(
            settings,
            max_message_size=longest,
            max_buffered=max(settings.max_buffered, 4 * longest),
        )
        self._listener = make_listener(
            settings,
            self._timers,
            Budget(settings.max_buffered, trusted_users(settings)),
            "wconfd",
            answers,
            answers.read_ahead,
            self._reading_thread.run,
            WCONFD_METHODS,
            paths.wconfd_socket,
            WCONFD_SOCKET_PERMS,
        )

    # Changes

    def _check_new_master(self, before: Snapshot, after: Snapshot) -> None:
        """Raises ``ConfigurationError`` unless this node becomes the master, and may."""
        if not self._moves_master:
            raise ConfigurationError(
                f"This node, {self._own}, is the master: another one becomes it by"
                " gnt-cluster master-failover on that node"
            )
        new = before.nodes.get(after.cluster.master_node)
        if new is None or new.name != self._own:
            name = after.cluster.master_node if new is None else new.name
            raise ConfigurationError(f"Only this node, {self._own}, may become the master: {name}")
        try:
            check_candidate(before, self._own)
            with queue_held(self._paths):
                kept = forget_journal(self._paths, before.master.name, self._timers.now())
        except StartRefused as refused:
            raise ConfigurationError(refused.message) from None
        for path in kept:
            log.warn("A journal from a time when this node was the master is now {path}", path=path)

    def _send(self) -> Deferred[None]:
        """Sends the configuration to candidates and ssconf to all nodes; fires when that is done.

        A node that can't be reached is logged: the master daemon brings it up to date later.
        """
        return self._sending.run(self._send_now)

    def _send_now(self) -> Deferred[None]:
        snapshot = self._store.snapshot
        online = [node for node in snapshot.nodes.values() if not node.offline]
        candidates = [n for n in online if n.master_candidate and n.name != self._own]
        nodes, files = self._door.nodes, self._paths.queue_files
        sent = [
            asking.send_config(
                nodes, list(map(Target.of, candidates)), files, ConfigImage(snapshot)
            ),
            asking.send_ssconf(nodes, list(map(Target.of, online)), snapshot),
        ]

        def told(results: list[tuple[bool, Any]]) -> None:
            for good, found in results:
                for fault in found if good else [found.getErrorMessage()]:
                    log.warn("A node wasn't told of the change: {fault}", fault=fault)

        return DeferredList(
            [ensureDeferred(each) for each in sent], consumeErrors=True
        ).addCallback(told)

    @inlineCallbacks
    def _keep_master(self) -> Generator[Any, Any, None]:
        """Makes this node the master once more if the old one has overwritten that.

        The old master was stopped after the change, and may have sent what it did until then. Its
        newer configuration is taken, with this node as its master.
        """
        if not self._moves_master or self._store.snapshot.master.name != self._own:
            return
        content = safely.read(self._paths.config)
        found = parse(content, self._paths.config)
        overwritten = found.master.name != self._own
        if overwritten:
            log.warn(
                "{node} has changed the configuration until it was stopped: that is kept",
                node=found.master.name,
            )
            snapshot = promoted(found, self._own, self._timers.now())
            yield self._thread.run(lambda: self._replace(snapshot))
            self._store = ConfigStore(snapshot, self._journal, self._timers)
        if overwritten or self._foreign:
            yield self._send()

    def _replace(self, snapshot: Snapshot) -> None:
        replace_file(self._disk, self._paths.config, encode(snapshot))
        self._disk.sync_directory(self._paths.data)

    # Stop

    @inlineCallbacks
    def stopService(self) -> Generator[Any, Any, None]:
        """Stops in order; fires once everything acknowledged is in the files."""
        super().stopService()
        failed = yield end_in_order(
            [
                ("the socket", self._listener.socket.close),
                ("the configuration's lock", self._config_lock.close),
                ("the journal", self._journal.close),
                ("the change of the master", self._keep_master),
                ("the connections", self._listener.factory.close),
                ("the verification", self._slices.close),
                ("the nodes", self._door.close),
                ("the reading of messages", self._reading_thread.close),
                ("the history", self._history.close),
                ("the disk", self._thread.close),
                ("the timers", self._timers.cancel_all),
                ("the file locks", self._locks.release),
            ]
        )
        log.info("The daemon for wconfd's socket has stopped")
        self._end(bool(failed))
