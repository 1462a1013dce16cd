"""Where the daemon's log goes: a file that can be reopened, standard output, syslog.

Text for people, or with ``--json-log`` one JSON object a line for machines: ``time`` (seconds since
the epoch), ``level``, ``namespace``, ``kind`` (the format string of the text; None for lines of
other libraries that have none), ``text``, and ``traceback`` if there is one.
"""

from __future__ import annotations

import os
import syslog
from collections import deque
from collections.abc import Callable
from threading import RLock, get_ident
from typing import IO, Any, Literal

import msgspec
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    eventAsText,
    formatEventAsClassicLogText,
    formatTime,
)
from zope.interface import implementer

from ganeti_masterd import safely

#: Values of --syslog: no syslog, syslog in addition to the file, or instead of it.
Syslog = Literal["no", "yes", "only"]

LOG_PERMS = 0o600

#: The daemon's name in syslog.
SYSLOG_NAME = "ganeti-masterd"

_PRIORITIES = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}


#: Levels whose lines may be buffered to be written together.
_PATIENT = (LogLevel.info, LogLevel.debug)

#: Matches formats that only Twisted's own formatter can write.
_UNUSUAL = frozenset({"log_failure", "log_system", "log_flattened"})


#: Control characters (C0 and C1), DEL, and those that reorder text, with their escapes.
_ESCAPES = {
    code: chr(code).encode("unicode_escape").decode("ascii")
    for code in (
        *(code for code in range(0x20) if chr(code) not in "\n\t"),
        *range(0x7F, 0xA0),
        *(0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)),
    )
}


class LogFile:
    """A log file; :meth:`reopen` opens it again after a rotation has moved it away.

    It is created with mode 0600. Raises ``OSError`` if it can't be opened, or is a link.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = self._open()

    def write(self, text: str) -> None:
        """Appends text."""
        self._file.write(text)

    def flush(self) -> None:
        """Writes buffered text to the file."""
        self._file.flush()

    def reopen(self) -> None:
        """Opens the file by its name again; keeps the old one and raises if that fails."""
        fresh = self._open()
        self._file.close()
        self._file = fresh

    def give_to(self, uid: int, gid: int) -> None:
        """Changes the file's owner, before root's privileges are dropped."""
        if not safely.is_device(self._file.fileno()):
            safely.give(self._file.fileno(), self.path, uid, gid)

    def _open(self) -> IO[str]:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        descriptor = safely.open_file(self.path, flags, LOG_PERMS, device=True)
        return open(descriptor, "a", encoding="utf-8", errors="backslashreplace")


@implementer(ILogObserver)
class FileObserver:
    """Writes events to a file that has ``write`` and ``flush``, as lines of ``form``.

    After :meth:`gather`, what the reactor thread logs in one turn is written together: a busy
    daemon has a line for each request, and each write costs it a system call and the interpreter
    lock. Warnings and worse, and what other threads log, are written at once, after all buffered
    lines.
    """

    def __init__(self, file: Any, form: Callable[[LogEvent], str | None]) -> None:
        self._file = file
        self._form = form
        self._lines: deque[str] = deque()
        self._later: Callable[[Callable[[], object]], object] | None = None
        self._thread = 0
        self._due = False
        # A finalizer run by the garbage collector may log while a line is written.
        self._lock = RLock()

    def gather(self, later: Callable[[Callable[[], object]], object]) -> None:
        """Buffers lines until ``later`` calls the function it is given. Reactor thread only."""
        self._thread = get_ident()
        self._later = later

    def promptly(self) -> None:
        """Writes buffered lines, and from now on every line at once."""
        self._later = None
        self._write()

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
        line = self._form(event)
        if not line:
            return
        self._lines.append(line)
        later = self._later
        if later is None or event.get("log_level") not in _PATIENT or get_ident() != self._thread:
            self._write()
        elif not self._due:
            self._due = True
            later(self._write)

    def _write(self) -> None:
        with self._lock:
            self._due = False
            lines = self._lines
            text = "".join([lines.popleft() for _ in range(len(lines))])
            if text:
                self._file.write(text)
                self._file.flush()


@implementer(ILogObserver)
class SyslogObserver:
    """Sends each event to syslog (facility daemon), a line at a time."""

    def __init__(self, name: str = SYSLOG_NAME) -> None:
        syslog.openlog(name, syslog.LOG_PID, syslog.LOG_DAEMON)

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
        text = eventAsText(event, includeTimestamp=False, includeSystem=False)
        priority = _PRIORITIES.get(event.get("log_level", LogLevel.info), syslog.LOG_INFO)
        for line in escaped(text).splitlines():
            syslog.syslog(priority, line)


@implementer(ILogObserver)
class Everywhere:
    """Gives each event to several observers; those for debugging only with ``debug``.

    If one raises, the others still get the event; the first such error is raised afterwards, and
    Twisted logs it.
    """

    def __init__(self, observers: list[Any], debug: bool) -> None:
        self.observers = observers
        self._debug = debug

    def __call__(self, event: LogEvent) -> None:
        """See ``ILogObserver``."""
        if self._debug or event.get("log_level") is not LogLevel.debug:
            error: Exception | None = None
            for observer in tuple(self.observers):
                try:
                    observer(event)
                except Exception as raised:
                    error = error or raised
            if error is not None:
                raise error


def _classic(event: LogEvent) -> str | None:
    text = formatEventAsClassicLogText(event)
    return text if text is None else escaped(text)


class TextLines:
    """Formats events as Twisted does for a text file, in a fraction of the time.

    Each request that changes something logs a line, so formatting must be fast. Only events that
    need more than ``str.format_map`` are left to Twisted: calls in the format, failures, an
    explicit ``log_system``, a missing value.
    """

    def __init__(self) -> None:
        self._second = -1
        self._stamp = ""

    def __call__(self, event: LogEvent) -> str | None:
        """Returns the line with its newline; None for an event without text."""
        text = event.get("log_format")
        time = event.get("log_time")
        if type(text) is not str or "(" in text or time is None or not _UNUSUAL.isdisjoint(event):
            return _classic(event)
        try:
            text = text.format_map(event)
            level = event["log_level"].name
        except Exception:
            return _classic(event)
        if not text:
            return None
        second = int(time)
        if second != self._second:
            self._second, self._stamp = second, formatTime(time)
        if not text.isprintable():
            text = escaped(text).replace("\n", "\n\t")
        return f"{self._stamp} [{event.get('log_namespace', '-')}#{level}] {text}\n"


def escaped(text: str) -> str:
    """Returns text whose control characters, except newlines and tabs, are escaped.

    What clients and nodes send may be in it, and someone may read the log on a terminal.
    """
    return text.translate(_ESCAPES)


def as_json(event: LogEvent) -> str:
    """Returns an event as one line of JSON."""
    level = event.get("log_level")
    line = {
        "time": event.get("log_time"),
        "level": level.name if level is not None else "info",
        "namespace": event.get("log_namespace", ""),
        "kind": event.get("log_format"),
        "text": eventAsText(
            event, includeTraceback=False, includeTimestamp=False, includeSystem=False
        ),
    }
    if event.get("log_failure") is not None:
        line["traceback"] = event["log_failure"].getTraceback()
    return msgspec.json.encode(line, enc_hook=str).decode() + "\n"


class Logs:
    """All logs of the daemon.

    ``path`` is the log file; if it is None, the log goes to ``stream``. ``debug`` lets events below
    "info" through.
    """

    def __init__(
        self,
        *,
        path: str | None,
        stream: IO[str] | None = None,
        to_syslog: Syslog = "no",
        syslog_name: str = SYSLOG_NAME,
        json: bool = False,
        debug: bool = False,
    ) -> None:
        """Opens them; raises ``OSError`` if that can't be done."""
        self.file = LogFile(path) if path is not None and to_syslog != "only" else None
        observers: list[Any] = []
        out: Any = self.file if self.file is not None else stream
        self._lines: FileObserver | None = None
        if out is not None and to_syslog != "only":
            self._lines = FileObserver(out, as_json if json else TextLines())
            observers.append(self._lines)
        if to_syslog != "no":
            observers.append(SyslogObserver(syslog_name))
        self.observer: ILogObserver = Everywhere(observers, debug)

    def reopen(self) -> None:
        """Opens the log file again by its name; raises ``OSError`` if that can't be done."""
        if self.file is not None:
            self.file.reopen()

    def gather(self, later: Callable[[Callable[[], object]], object]) -> None:
        """Writes the lines of one reactor turn together; see :meth:`FileObserver.gather`."""
        if self._lines is not None:
            self._lines.gather(later)

    def promptly(self) -> None:
        """Writes each line at once from now on, as before :meth:`gather`."""
        if self._lines is not None:
            self._lines.promptly()
