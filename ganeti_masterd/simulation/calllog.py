"""The log of calls that reached simulated nodes; answers can wait until it is durable.

A line is one JSON object: ``time``, ``node``, ``call``, ``arguments`` and ``error`` (None: it
succeeded). Arguments are shortened: an instance to its name, a long value to its digest, a file to
its length; a secret is left out.

In the mode ``synced`` a call is answered only when its line and its changes of the node are on the
disk. So a crash of the daemon loses nothing that a node did, as if the nodes were other machines,
and the log shows which calls ran. All calls that end while the disk is busy share one write.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ganeti_masterd.rpc.declarations import ArgumentForm, Call
from ganeti_masterd.simulation.store import NodeStore, StoredChange
from ganeti_masterd.timing import Timer, Timers

log = Logger()

_encode = msgspec.json.Encoder().encode

CallLogMode = Literal["off", "buffered", "synced"]

#: Called with None when a line is on the disk, or with the reason why it isn't.
CallLogged = Callable[[str | None], None]


def summary(call: Call[Any], arguments: Sequence[Any]) -> list[Any]:
    """Returns the arguments in the form in which they are logged."""
    show = _ARGUMENTS.get(call.name)
    if show is None:
        show = _ARGUMENTS[call.name] = [_SHOWN[declared.form] for declared in call.arguments]
    return [shown(value) for shown, value in zip(show, arguments, strict=False)]


def _brief(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= 128:
        return value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = _encode(value)
    if len(text) <= 128:
        return value
    return f"sha256:{hashlib.sha256(text).hexdigest()[:16]}"


def _upload(file: Any) -> Any:
    return [file[0], _length(file[1])] if isinstance(file, list) and file else None


def _length(content: Any) -> str:
    return f"({len(content[1])} characters)" if isinstance(content, list) and content else "()"


def _names(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("name") or value.get("uuid") or sorted(map(str, value))
    if isinstance(value, list):
        return [_names(item) for item in value]
    return value if isinstance(value, (bool, str)) else None


_SHOWN: dict[ArgumentForm, Callable[[Any], Any]] = {
    **dict.fromkeys(ArgumentForm, _brief),
    ArgumentForm.SECRET: lambda _: "(secret)",
    ArgumentForm.CONTENT: _length,
    ArgumentForm.UPLOAD: _upload,
    ArgumentForm.OBJECT: _names,
}

#: Caches for each call how its arguments are shown.
_ARGUMENTS: dict[str, list[Callable[[Any], Any]]] = {}


class CallLogLine(Struct, frozen=True):
    """One line of the log."""

    time: float
    node: str
    call: str
    arguments: list[Any]
    error: str | None


class CallLog:
    """Writes lines and node changes in the disk thread.

    ``path`` is the log (None: as mode ``off``), ``store`` stores the nodes' state (None: it isn't
    stored). Unless the mode is ``synced``, lines and changes are written at most ``BEHIND`` seconds
    after they were made. A log longer than ``LONG`` bytes is rotated.
    """

    BEHIND = 0.5
    LONG = 64 * 1048576

    def __init__(
        self,
        path: str | None,
        mode: CallLogMode,
        store: NodeStore | None,
        take_changes: Callable[[], list[StoredChange]],
        in_disk_thread: Callable[..., Deferred[Any]],
        timers: Timers,
    ) -> None:
        self.mode: CallLogMode = mode if path is not None else "off"
        #: Whether lines are written at all.
        self.on = self.mode != "off"
        self._path = path
        self._store = store
        self._take_changes = take_changes
        self._in_disk_thread = in_disk_thread
        self._timers = timers
        self._lines: list[bytes] = []
        self._told: list[CallLogged] = []
        self._file: int | None = None
        self._timer: Timer | None = None
        self._writing: Deferred[None] | None = None
        self._unwritten: list[StoredChange] = []
        self._behind = False
        self._closed = False

    def add(
        self,
        node: str,
        call: Call[Any],
        arguments: Sequence[Any],
        error: str | None,
        told: CallLogged | None = None,
    ) -> None:
        """Logs a call that has ended; ``told`` is called when it may be answered.

        That is at once unless the mode is ``synced``.
        """
        line = CallLogLine(self._timers.now(), node, call.name, summary(call, arguments), error)
        self._lines.append(_encode(line))
        if self.mode != "synced":
            if self._timer is None:
                self._schedule(self.BEHIND)
            if told is not None:
                told(None)
            return
        if told is not None:
            self._told.append(told)
        self._schedule(0.0)

    def changed(self) -> None:
        """Records that the state of some node has changed."""
        if self._store is not None:
            self._behind = True
            if self._timer is None:
                self._schedule(0.0 if self.mode == "synced" else self.BEHIND)

    def flush(self) -> Deferred[None]:
        """Writes everything; fires when that is done, even if it failed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        own = self._writing is None
        if own:
            self._write()
        writing = self._writing
        if writing is None:
            return succeed(None)
        done: Deferred[None] = Deferred()

        def again(_: None) -> None:
            # Later lines are written, too, but a failing disk is tried only once.
            if own and self._unwritten:
                done.callback(None)
            else:
                self.flush().chainDeferred(done)

        writing.addBoth(again)
        return done

    def close(self) -> Deferred[None]:
        """Writes everything and closes the files; later lines are dropped."""
        self._closed = True

        def close(_: None) -> Deferred[None]:
            return self._in_disk_thread(self._close)

        return self.flush().addCallback(close)

    def _schedule(self, delay: float) -> None:
        if self._writing is None and self._timer is None and not self._closed:
            self._timer = self._timers.later(delay, self._write)

    def _write(self) -> None:
        self._timer = None
        lines, self._lines = self._lines, []
        told, self._told = self._told, []
        changes = self._unwritten + self._take_changes()
        self._unwritten = []
        self._behind = False
        if not lines and not changes:
            return
        writing: Deferred[None] = Deferred()
        self._writing = writing

        def written(result: Any) -> None:
            error: str | None = None
            if isinstance(result, Failure):
                error = result.getErrorMessage()
                log.error("Simulated nodes can't be written: {error}", error=error)
                self._unwritten = changes
            self._writing = None
            for tell in told:
                try:
                    tell(error)
                except Exception:
                    log.failure("A simulated node's answer can't be given")
            if self._lines or self._behind:
                self._schedule(0.0 if self.mode == "synced" else self.BEHIND)
            writing.callback(None)

        maybeDeferred(self._in_disk_thread, self._to_disk, lines, changes).addBoth(written)

    def _to_disk(self, lines: list[bytes], changes: list[StoredChange]) -> None:
        """Writes the changes, then the log. Runs in the disk thread."""
        if changes and self._store is not None:
            self._store.write(changes)
        if lines and self._path is not None:
            if self.mode == "buffered" and self._file is not None:
                self._turn_over(self._file, self._path)
            if self._file is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o640)
            text = b"\n".join(lines) + b"\n"
            while text:
                text = text[os.write(self._file, text) :]
            if self.mode == "synced":
                os.fsync(self._file)

    def _turn_over(self, file: int, path: str) -> None:
        """Rotates the log if it is too long; keeps one old log."""
        if os.fstat(file).st_size > self.LONG:
            os.close(file)
            self._file = None
            os.replace(path, f"{path}.1")

    def _close(self) -> None:
        """Closes the files. Runs in the disk thread."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
        if self._store is not None:
            self._store.close()
