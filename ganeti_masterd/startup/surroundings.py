"""The process around a daemon, and what every kind of daemon does with it."""

from __future__ import annotations

from signal import Signals as Signal
from typing import Any, cast

from msgspec import Struct
from twisted.application.service import Service
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger

from ganeti_masterd.startup.accounts import Account
from ganeti_masterd.startup.ending import Ending
from ganeti_masterd.startup.launch import Launch, dress
from ganeti_masterd.startup.logs import Logs
from ganeti_masterd.startup.notify import STOPPING, Notifier
from ganeti_masterd.startup.signals import Signals

log = Logger()


class ProcessSurroundings(Struct, frozen=True):
    """The process around the daemon: launch, logs, exit, systemd."""

    launch: Launch
    logs: Logs
    ending: Ending
    notifier: Notifier


class ProcessService(Service):
    """A daemon as the one Twisted service of its process, which signals stop.

    ``account`` is None where the daemon stays the user that started it.
    """

    name = "gnt-masterd"

    def __init__(
        self, reactor: Any, account: Account | None, surroundings: ProcessSurroundings
    ) -> None:
        self._reactor = reactor
        self._account = account
        self._surroundings = surroundings
        self._asked = False

    def setServiceParent(self, parent: Any) -> None:
        """Joins an application, and has it log and drop root privileges as the daemon needs."""
        super().setServiceParent(parent)
        dress(parent, self._surroundings.logs, self._account)

    def stopService(self) -> Any:
        """Begins to stop: what is logged from now on is written at once, and systemd is told."""
        super().stopService()
        self._surroundings.logs.promptly()
        self._surroundings.notifier.tell(STOPPING)

    def _take_signals(self) -> None:
        """Has signals stop the daemon or reopen its log file from now on."""
        Signals(self._reactor, self._signalled, self._reopen_logs).install()

    def _asked_to_end(self) -> None:
        """Does what a signal that ends a process asks for."""
        self._stop_reactor()

    def _stop_reactor(self) -> None:
        if not self._asked:
            self._asked = True
            cast(IReactorCore, self._reactor).stop()

    def _end(self, failed: bool) -> None:
        """Has the process end when the reactor has; all parts are closed, or some ``failed``."""
        if failed:
            self._surroundings.ending.failed()
        self._surroundings.ending.arrange(self._reactor)

    def _signalled(self, number: Signal) -> None:
        log.info("Received {signal}", signal=number.name)
        if self._surroundings.ending.signal is None:
            self._surroundings.ending.signal = number
        self._asked_to_end()

    def _reopen_logs(self) -> None:
        try:
            self._surroundings.logs.reopen()
        except OSError as error:
            log.error("The log file can't be opened again: {error}", error=error)
        else:
            log.info("The log file was opened again")
