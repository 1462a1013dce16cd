"""The node that is switched: its daemons, daemon-util's settings, systemd's units. Blocking."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ganeti_masterd.constants import STATUS_CANCELING, STATUS_RUNNING, STATUS_WAITING
from ganeti_masterd.errors import PidFileLockError
from ganeti_masterd.jobs.files import QueueFolder, load
from ganeti_masterd.jobs.takeover import is_locked, living
from ganeti_masterd.luxi.failures import CallFailed
from ganeti_masterd.startup.checks import IMachine, StartRefused, named_master
from ganeti_masterd.startup.configuration import read_config
from ganeti_masterd.startup.locks import refuse_held
from ganeti_masterd.startup.paths import Paths
from ganeti_masterd.switching.commands import ProgramRun, environment_below, run_program
from ganeti_masterd.switching.hook import hooked, is_hooked, unhooked
from ganeti_masterd.switching.plan import LUXID, WCONFD, NodeStanding
from ganeti_masterd.switching.steps import SwitchFault

DAEMON_UTIL = "/usr/lib/ganeti/daemon-util"

#: Where a switch writes the unit, and the line by which it knows that it did.
UNIT = "gnt-masterd.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
UNIT_NOTE = "# Written by gnt-luxi switch, which removes it on the way back.\n"

#: The folder of the programs as the unit has it that comes with the daemon.
_USUAL_PROGRAMS = "/opt/ganeti-masterd/bin"

#: Seconds: a start or stop (systemd gives the unit fifteen minutes), an answer, between two looks.
COMMAND_LIMIT = 1000.0
ANSWER_LIMIT = 120.0
LOOK_AGAIN = 0.2

#: Jobs that have begun. Those that are queued may go on under the other daemon.
BEGUN = frozenset({STATUS_WAITING, STATUS_RUNNING, STATUS_CANCELING})


class ISwitchClient(Protocol):
    """The LUXI calls of a switch; see :class:`ganeti_masterd.luxi.calls.Calls`."""

    def query_jobs(self, jobs: Any, fields: Any) -> Any:
        """Returns rows of fields of jobs."""

    def set_drain_flag(self, drained: bool) -> Any:
        """Closes the queue, or opens it."""

    def call(self, method: str, *args: Any) -> Any:
        """Calls any method."""


class SwitchedNode:
    """This node, for :class:`.plan.ISwitchHost`.

    ``programs`` is the folder of twistd and gnt-luxi, ``share`` that of the hook and the unit.
    ``patience`` is in seconds: how long jobs may go on before the switch gives up.
    """

    def __init__(
        self,
        paths: Paths,
        client: ISwitchClient,
        *,
        programs: str,
        share: str,
        patience: float,
        environment: Mapping[str, str],
        machine: IMachine,
        say: Callable[[str], None],
        interrupted: Callable[[], bool],
        sleep: Callable[[float], object],
        now: Callable[[], float],
        run: Callable[[list[str], Mapping[str, str], float], ProgramRun] = run_program,
        system: str = "",
    ) -> None:
        self.paths = paths
        self.client = client
        self.programs = programs
        self.share = share
        self._patience = patience
        self._environment = environment_below(paths.root, environment)
        self._machine = machine
        self._say = say
        self._interrupted = interrupted
        self._sleep = sleep
        self._now = now
        self._run = run
        self._system = system  # stands for / where systemd is concerned; not '' in tests
        self._jobs: set[int] | None = None
        self._settings_before: str | None = None

    # What it is like

    def standing(self) -> NodeStanding:
        """Returns what this node is like now."""
        systemd = self._has_systemd()
        peers = {f"{name}.service": self._enabled(f"{name}.service") for name in (LUXID, WCONFD)}
        text = self._settings()
        return NodeStanding(
            master=self.is_master(),
            luxid=self.runs(LUXID),
            wconfd=self.runs(WCONFD),
            own=self.own_runs(),
            drained=QueueFolder(self.paths.queue).drained(),
            hook=is_hooked(text),
            hook_current=text == hooked(text, self.programs, self.hook_file),
            systemd=systemd,
            unit=systemd and self._loaded(),
            own_unit=systemd and self._unit_text().startswith(UNIT_NOTE),
            enabled=systemd and self._enabled(UNIT) == "enabled",
            peer_units=tuple(name for name, state in peers.items() if state == "enabled"),
        )

    def is_master(self) -> bool:
        """Whether this node is the master, by its own ssconf; raises ``SwitchFault``."""
        try:
            return named_master(self.paths) == self._machine.host_name()
        except StartRefused as error:
            raise SwitchFault(error.message) from None

    def runs(self, name: str) -> bool:
        """Whether a daemon of Ganeti's runs. While this daemon does, it holds their PID files."""
        return _held(f"{self.paths.run}/{name}.pid") and not self.own_runs()

    def own_runs(self) -> bool:
        """Whether this daemon runs."""
        return _held(self.paths.pid)

    @property
    def hook_file(self) -> str:
        """The file that daemon-util reads."""
        return f"{self.share}/daemon-util.sh"

    @property
    def settings_file(self) -> str:
        """The file of daemon-util's settings."""
        return f"{self.paths.root}/etc/default/ganeti"

    # Jobs

    def drain(self, closed: bool) -> None:
        """See :class:`.plan.ISwitchHost`."""
        self._until_answered(lambda: self.client.call("QueryClusterInfo"))
        # luxid gives no answer when asked to open a queue that is open.
        if QueueFolder(self.paths.queue).drained() != closed:
            self.client.set_drain_flag(closed)

    def wait_for_jobs(self) -> None:
        """See :class:`.plan.ISwitchHost`."""

        def begun() -> list[str]:
            rows = self.client.query_jobs(None, ["id", "status", "summary"])
            self._jobs = {row[0] for row in rows}
            return [
                f"{job} ({status}, {', '.join(summary or ())})"
                for job, status, summary in rows
                if status in BEGUN
            ]

        self._until_none(begun, "job")

    def wait_for_processes(self) -> None:
        """See :class:`.plan.ISwitchHost`."""

        def alive() -> list[str]:
            jobs = load(QueueFolder(self.paths.queue)).jobs
            return list(map(str, living(jobs.values(), is_locked)))

        self._until_none(alive, "process")

    def answers(self, own: bool) -> None:
        """See :class:`.plan.ISwitchHost`."""
        uuid = self._until_answered(lambda: self.client.call("QueryClusterInfo"))["uuid"]
        if own != self.own_runs():
            raise SwitchFault(f"What answers is not {'gnt-masterd' if own else 'luxid'}")
        expected = read_config(self.paths).cluster.uuid
        if uuid != expected:
            raise SwitchFault(f"The daemon has cluster {uuid}, not {expected}")
        rows = self.client.query_jobs(None, ["id"])
        missing = sorted((self._jobs or set()) - {row[0] for row in rows})
        if missing:
            raise SwitchFault(f"The daemon doesn't know jobs that there were: {missing}")

    def _until_answered(self, call: Callable[[], Any]) -> Any:
        until = self._now() + ANSWER_LIMIT
        while True:
            try:
                return call()
            except CallFailed as error:
                if self._now() >= until:
                    raise SwitchFault(
                        f"No master daemon answers within {ANSWER_LIMIT:g} seconds: {error}"
                    ) from None
            self._sleep(LOOK_AGAIN)

    def _until_none(self, look: Callable[[], list[str]], noun: str) -> None:
        """Waits until nothing is seen; says what is, each time that it changes."""
        until = self._now() + self._patience
        said: list[str] = []
        while found := look():
            if found != said:
                self._say(f"  waiting for {noun} " + ", ".join(found))
                said = found
            if self._interrupted():
                raise SwitchFault("interrupted")
            if self._now() >= until:
                raise SwitchFault(
                    f"Still there after {self._patience:g} seconds: {noun} {', '.join(found)};"
                    " --wait gives them more time"
                )
            self._sleep(LOOK_AGAIN)

    # Daemons

    def start_peer(self, name: str) -> None:
        """See :class:`.plan.ISwitchHost`."""
        if not self.runs(name):
            self._daemon_util("start", name)
        self._see(name, lambda: self.runs(name))

    def stop_peer(self, name: str) -> None:
        """See :class:`.plan.ISwitchHost`."""
        if self.runs(name):
            self._daemon_util("stop", name)
        if self.runs(name):
            raise SwitchFault(f"{name} still runs")

    def start_own(self) -> None:
        """See :class:`.plan.ISwitchHost`."""
        if not self.own_runs():
            self._daemon_util("start", LUXID)
        self._see("gnt-masterd", self.own_runs)

    def stop_own(self) -> None:
        """See :class:`.plan.ISwitchHost`.

        A daemon that was started by hand, so that neither systemd nor daemon-util knows it, gets a
        signal. The unit is also stopped where it waits to start the daemon again.
        """
        if self._has_systemd() and self._loaded():
            self._systemctl("stop", UNIT)
        if self.own_runs() and is_hooked(self._settings()):
            self._daemon_util("stop", LUXID)
        if self.own_runs():
            self._terminate()
        if os.path.exists(self.paths.config):
            self._program([f"{self.programs}/gnt-luxi", "recover"]).checked()

    def _terminate(self) -> None:
        with open(self.paths.pid, encoding="ascii") as file:
            pid = int(file.read())
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        self._see(f"The end of process {pid}", lambda: not self.own_runs())

    def _see(self, what: str, there: Callable[[], bool]) -> None:
        until = self._now() + ANSWER_LIMIT
        while not there():
            if self._now() >= until:
                raise SwitchFault(f"{what}: not seen within {ANSWER_LIMIT:g} seconds")
            self._sleep(LOOK_AGAIN)

    def _daemon_util(self, action: str, name: str) -> None:
        self._program([DAEMON_UTIL, action, name]).checked()

    def _program(self, command: list[str]) -> ProgramRun:
        return self._run(command, self._environment, COMMAND_LIMIT)

    def check_only(self) -> ProgramRun:
        """Runs the daemon's own checks of a start, which change nothing."""
        return self._program(
            [f"{self.programs}/twistd", "--pidfile=", "gnt-masterd", "--check-only"]
        )

    # daemon-util's settings

    def hook(self, wanted: bool) -> None:
        """See :class:`.plan.ISwitchHost`. What was there before comes back with the undo."""
        text = self._settings()
        if self._settings_before is not None:
            new, self._settings_before = self._settings_before, None
        else:
            self._settings_before = text
            new = hooked(text, self.programs, self.hook_file) if wanted else unhooked(text)
        if new != text:
            _replace(self.settings_file, new)

    def _settings(self) -> str:
        return _text_of(self.settings_file)

    # systemd

    def unit(self, wanted: bool) -> None:
        """See :class:`.plan.ISwitchHost`."""
        if wanted:
            with open(f"{self.share}/{UNIT}", encoding="utf-8") as file:
                text = file.read().replace(_USUAL_PROGRAMS, self.programs)
            _replace(self._system + UNIT_FILE, UNIT_NOTE + text)
        elif self._unit_text().startswith(UNIT_NOTE):
            os.unlink(self._system + UNIT_FILE)
        self._systemctl("daemon-reload")

    def enable(self, own: bool) -> None:
        """See :class:`.plan.ISwitchHost`."""
        peers = [
            name
            for name in (f"{LUXID}.service", f"{WCONFD}.service")
            if self._enabled(name) in ("enabled", "disabled")
        ]
        if peers:
            self._systemctl("disable" if own else "enable", *peers)
        if self._loaded():
            self._systemctl("enable" if own else "disable", UNIT)

    def _has_systemd(self) -> bool:
        """Whether systemd runs this node; not below a root of its own, as of virtual nodes."""
        return (
            not self.paths.root
            and os.path.isdir(f"{self._system}/run/systemd/system")
            and shutil.which("systemctl", path=self._environment["PATH"]) is not None
        )

    def _loaded(self) -> bool:
        shown = self._program(["systemctl", "show", "--property=LoadState", UNIT])
        return shown.output.strip() == "LoadState=loaded"

    def _enabled(self, unit: str) -> str:
        """Returns ``enabled``, ``disabled`` or another of systemd's words; '' without it."""
        if not self._has_systemd():
            return ""
        return self._program(["systemctl", "is-enabled", unit]).output.strip()

    def _systemctl(self, *arguments: str) -> None:
        self._program(["systemctl", *arguments]).checked()

    def _unit_text(self) -> str:
        return _text_of(self._system + UNIT_FILE)


def _held(path: str) -> bool:
    try:
        refuse_held([path])
    except PidFileLockError:
        return True
    return False


def _text_of(path: str) -> str:
    """Returns what a file has, "" if there is none; bytes that are no text survive."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _replace(path: str, text: str) -> None:
    """Replaces a file, or what a link stands for, as a whole; it keeps its owner and mode."""
    path = os.path.realpath(path)
    with _beside(path) as (file, name):
        file.write(text)
        file.flush()
        with contextlib.suppress(FileNotFoundError):
            old = os.stat(path)
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
            os.fchmod(file.fileno(), old.st_mode & 0o7777)
        os.fsync(file.fileno())
        os.replace(name, path)


@contextlib.contextmanager
def _beside(path: str) -> Iterator[tuple[Any, str]]:
    """Yields a new file in the same folder, with mode 0644, and its name."""
    folder = os.path.dirname(path)
    descriptor, name = tempfile.mkstemp(prefix=".gnt-luxi-", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            os.fchmod(file.fileno(), 0o644)
            yield file, name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
