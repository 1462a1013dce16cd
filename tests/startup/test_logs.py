"""The daemon's logs: rotated files, JSON, levels, syslog."""

from __future__ import annotations

import io
import json
import os
import stat
import syslog
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any, cast

from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEventAsClassicLogText
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from ganeti_masterd.luxi.peers import Peer
from ganeti_masterd.startup.logs import (
    Everywhere,
    FileObserver,
    LogFile,
    Logs,
    SyslogObserver,
    TextLines,
)
from tests.startup.scene import RootTestCase


class FullOnce(io.StringIO):
    """A file on a disk that is full at first."""

    full = True

    def write(self, text: str) -> int:
        if self.full:
            self.full = False
            raise OSError(28, "No space left on device")
        return super().write(text)


class LogTests(RootTestCase):
    """Tests of ``Logs``; each opens one."""

    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.root) / "a.log"
        self.sent: list[tuple[int, str]] = []
        self.patch(syslog, "syslog", lambda priority, text: self.sent.append((priority, text)))

    def log_to(self, **how: Any) -> tuple[Logs, Logger]:
        """Returns logs and a logger that writes to them."""
        logs = Logs(**{"path": str(self.path), **how})
        verifyObject(ILogObserver, logs.observer)
        return logs, Logger("here", observer=logs.observer)

    def said(self) -> list[str]:
        """Returns the texts of the lines in the file."""
        return [line.rpartition("] ")[2] for line in self.path.read_text().splitlines()]

    def test_text(self) -> None:
        """The file is readable by its owner only, and is appended to."""
        self.path.write_text("old\n")
        self.path.chmod(0o600)
        _, log = self.log_to()
        log.info("Hello {who}", who="w\u00f6rld")
        lines = self.path.read_text("utf-8").splitlines()
        self.assertEqual(lines[0], "old")
        self.assertTrue(lines[1].endswith("[here#info] Hello w\u00f6rld"))

    def test_same_as_twisted(self) -> None:
        """Every kind of event is formatted as by Twisted's own formatter."""
        events: list[LogEvent] = []
        log = Logger("here", observer=cast(Any, events.append))
        log.info("{peer.connection} of {many!r}: {text}", peer=Peer(7), many=[1], text="a\nb")
        log.warn("no values")
        log.error("{missing} value")
        log.info("{called()}", called=lambda: "x")
        log.info("")
        log.failure("failed", Failure(ValueError("why")))
        events.append({"log_format": "by hand", "log_time": 1.0})
        events.append({"log_format": "by hand", "log_level": LogLevel.info})
        events.append({**events[0], "log_system": "its own"})
        events.append({**events[0], "log_time": events[0]["log_time"] + 3600})
        events.append({"log_format": b"bytes", "log_time": 1.0, "log_level": LogLevel.info})
        lines = TextLines()
        for event in events:
            self.assertEqual(lines(event), formatEventAsClassicLogText(event), event)
        self.assertIn("7 of [1]: a\n\tb\n", lines(events[0]) or "")

    def test_null_device(self) -> None:
        """The null device takes the log, and is given to nobody."""
        before = os.stat(os.devnull)
        made = LogFile(os.devnull)
        made.give_to(54321, 54321)
        made.write("text")
        made.reopen()
        made._file.close()
        after = os.stat(os.devnull)
        self.assertEqual((after.st_uid, after.st_mode), (before.st_uid, before.st_mode))

    def test_control_characters(self) -> None:
        """Escapes, bells and marks that reorder text reach neither the file nor a terminal."""
        _, log = self.log_to()
        log.info("{text}", text="a\x1b]0;x\x07\u202eb\rc\x9bd\te\nf")
        log.info("{no.such}", text="")
        try:
            raise ValueError("\x1b[2J")
        except ValueError:
            log.failure("A \x07 failure")
        text = self.path.read_text("utf-8")
        self.assertIn("a\\x1b]0;x\\x07\\u202eb\\rc\\x9bd\te\n\tf\n", text)
        self.assertIn("\\x1b[2J", text)
        self.assertEqual([each for each in text if ord(each) < 32 and each not in "\n\t"], [])

    def test_gathered(self) -> None:
        """Lines logged in one reactor turn are written together at its end."""
        logs, log = self.log_to()
        later: list[Callable[[], object]] = []
        logs.gather(later.append)
        for text in ("one", "two"):
            log.info(text)
        self.assertEqual((self.path.read_text(), len(later)), ("", 1))
        later.pop()()
        self.assertEqual(self.said(), ["one", "two"])
        log.info("three")
        self.assertEqual((self.said(), len(later)), (["one", "two"], 1))

    def test_what_does_not_wait(self) -> None:
        """A warning is written at once, after buffered lines; so is a line of another thread."""
        logs, log = self.log_to()
        later: list[Callable[[], object]] = []
        logs.gather(later.append)
        log.info("one")
        log.warn("two")
        self.assertEqual(self.said(), ["one", "two"])
        log.info("three")
        thread = Thread(target=log.info, args=("four",))
        thread.start()
        thread.join()
        self.assertEqual(self.said(), ["one", "two", "three", "four"])
        for write in later:
            write()
        self.assertEqual(self.said(), ["one", "two", "three", "four"])

    def test_promptly(self) -> None:
        """``promptly`` writes the buffered lines, and from then on each line at once."""
        logs, log = self.log_to()
        logs.gather(lambda write: None)
        log.info("one")
        logs.promptly()
        self.assertEqual(self.said(), ["one"])
        log.info("two")
        self.assertEqual(self.said(), ["one", "two"])

    def test_disk_is_full(self) -> None:
        """A line that can't be written is lost; those after it are not."""
        file = FullOnce()
        observer = FileObserver(file, lambda event: str(event["log_format"]))
        self.assertRaises(OSError, observer, {"log_format": "one"})
        observer({"log_format": "two"})
        self.assertEqual(file.getvalue(), "two")

    def test_mode(self) -> None:
        """A new file has mode 0600 whatever the umask."""
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.log_to()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_levels(self) -> None:
        """Events below "info" are logged only with --debug."""
        _, log = self.log_to()
        log.debug("small")
        self.assertEqual(self.path.read_text(), "")
        _, log = self.log_to(debug=True)
        log.debug("small")
        self.assertIn("small", self.path.read_text())

    def test_reopen(self) -> None:
        """After a rotation the log goes on in a new file, and nothing is lost."""
        logs, log = self.log_to()
        log.info("one")
        old = self.path.rename(self.path.with_name("b.log"))
        log.info("two")
        logs.reopen()
        log.info("three")
        self.assertEqual(old.read_text().count("\n"), 2)
        self.assertIn("three", self.path.read_text())

    def test_reopen_fails(self) -> None:
        """If the new file can't be opened, the log goes on in the old one."""
        logs, log = self.log_to()
        old = self.path.rename(self.path.with_name("b.log"))
        self.path.mkdir()
        self.assertRaises(OSError, logs.reopen)
        log.info("still here")
        self.assertIn("still here", old.read_text())

    def test_link(self) -> None:
        """A symbolic link in place of the file is not followed."""
        self.path.symlink_to(self.root + "/elsewhere")
        self.assertRaises(OSError, self.log_to)

    def test_json(self) -> None:
        """Each event is one JSON object, whatever its values are."""
        _, log = self.log_to(json=True)
        log.warn("two\nlines {thing}", thing=object())
        try:
            raise ValueError("why")
        except ValueError:
            log.failure("It failed", Failure())
        first, second = map(json.loads, self.path.read_text().splitlines())
        self.assertEqual((first["level"], first["namespace"]), ("warn", "here"))
        self.assertEqual(first["kind"], "two\nlines {thing}")
        self.assertTrue(first["text"].startswith("two\nlines <object"))
        self.assertIsInstance(first["time"], float)
        self.assertEqual(second["text"], "It failed")
        self.assertIn("ValueError: why", second["traceback"])

    def test_stream(self) -> None:
        """In the foreground without a file it goes to standard output."""
        stream = io.StringIO()
        logs, log = self.log_to(path=None, stream=stream)
        log.info("hello")
        logs.reopen()
        self.assertIn("hello", stream.getvalue())

    def test_syslog(self) -> None:
        """Events go to syslog in addition to the file or instead of it, with their priority."""
        for to_syslog in ("yes", "only"):
            _, log = self.log_to(to_syslog=to_syslog)
            log.error("a\nb")
            self.assertEqual(self.sent, [(syslog.LOG_ERR, "a"), (syslog.LOG_ERR, "b")])
            self.sent.clear()
        self.assertEqual(self.path.read_text().count("error"), 1)

    def test_one_that_raises(self) -> None:
        """If an observer raises, the others still get the event, and the error is logged."""
        heard: list[str] = []

        def bad(event: LogEvent) -> None:
            raise OSError("No space left on device")

        def good(event: LogEvent) -> None:
            heard.append(str(event["log_format"]))

        everywhere = Everywhere([good, bad, good, bad], debug=False)
        for text in ("one", "two"):
            self.assertRaises(OSError, everywhere, {"log_format": text})
        self.assertEqual(heard, ["one", "one", "two", "two"])

    def test_observers(self) -> None:
        """Each level has its syslog priority."""
        observer = SyslogObserver()
        verifyObject(ILogObserver, observer)
        log = Logger("here", observer=observer)
        for level in LogLevel.iterconstants():
            log.emit(level, "x")
        self.assertEqual(
            [priority for priority, _ in self.sent],
            [
                syslog.LOG_DEBUG,
                syslog.LOG_INFO,
                syslog.LOG_WARNING,
                syslog.LOG_ERR,
                syslog.LOG_CRIT,
            ],
        )
