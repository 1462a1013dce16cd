"""Links and other things that accounts of the daemons' group put in the way of a start by root."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeti_masterd.luxi.blocking import BlockingClient
from ganeti_masterd.startup.accounts import find_account
from ganeti_masterd.startup.ownership import set_right
from ganeti_masterd.testing.daemon import twistd
from tests.functional.conftest import do_without, need_root
from tests.functional.readable import wrapper
from tests.functional.test_startup import DETACHED, NO_VOTE, Site
from tests.functional.waiting import process_ends, until

SECRET = "nobody may change this\n"

#: Puts a link in the place of each name, again and again, until its standard input ends.
RACE = """
import os, select, sys, time
target, folder, *names = sys.argv[1:]
print("racing", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    for name in names:
        fresh = f"{folder}/.race"
        try:
            os.symlink(target, fresh)
        except OSError:
            pass
        for act, paths in (
            (os.rename, (fresh, f"{folder}/{name}")),
            (time.sleep, (0.002,)),
            (os.unlink, (f"{folder}/{name}",)),
        ):
            try:
                act(*paths)
            except OSError:
                pass
"""


class Attacked:
    """A real root that was made right once, a secret of root's, and whoever attacks it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.paths = site.paths
        self.secret = site.folder / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o640)
        self.den = site.folder / "den"
        self.den.mkdir(mode=0o755)
        self.before = self._state()
        script = site.folder / "twistd"
        script.write_text(wrapper(Path(twistd())))
        script.chmod(0o755)
        self.program = str(script)

    def as_user(self, user: str, *command: str) -> None:
        """Runs a command with an account and all its groups."""
        subprocess.run(command, check=True, **self.account(user))  # type: ignore[call-overload]

    def account(self, user: str) -> dict[str, object]:
        """Returns the keywords with which a process runs as that user."""
        who = pwd.getpwnam(user)
        return {
            "user": user,
            "group": who.pw_gid,
            "extra_groups": os.getgrouplist(user, who.pw_gid),
        }

    @contextlib.contextmanager
    def race(self, user: str, target: Path | str, folder: str, *names: str) -> Iterator[None]:
        """Within the body the names turn into links again and again."""
        command = [sys.executable, "-I", "-c", RACE, str(target), folder, *names]
        interpreter = os.path.realpath(sys.executable)
        with subprocess.Popen(
            [interpreter, *command[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **self.account(user),  # type: ignore[call-overload]
        ) as process:
            try:
                assert process.stdout.readline() == b"racing\n"
                yield
                assert process.poll() is None
            finally:
                process.stdin.close()
                process.kill()

    def check_up(self) -> None:
        """A start succeeds, and its daemon answers."""
        with (
            self.site.detached(*NO_VOTE, simulate=False, program=self.program),
            BlockingClient(self.paths.socket, timeout=20) as master,
        ):
            assert master.config_values(["cluster_name"]) == ["cluster"]
        self.check_unchanged()

    def start_and_stop(self) -> None:
        """Starts the daemon, which may be refused in the race, and ends what was started."""
        done = self.site.start(*NO_VOTE, how=DETACHED, simulate=False, program=self.program)
        assert "Traceback" not in done.stderr, done
        self.check_unchanged()
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdigit() and self._is_daemon(entry):
                    os.kill(int(entry), signal.SIGTERM)
                    process_ends(int(entry))

    def _is_daemon(self, pid: str) -> bool:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return f"--root={self.paths.root}".encode() in words

    def check_refused(self, *texts: str) -> None:
        """A start is refused, and says all of this."""
        done = self.site.start(*NO_VOTE, how=DETACHED, simulate=False, program=self.program)
        assert done.returncode == 1, done
        for text in texts:
            assert text in done.stderr, done
        assert "Traceback" not in done.stderr
        self.check_unchanged()

    def check_unchanged(self) -> None:
        """Neither the configuration, nor what is root's, has changed."""
        assert self._state() == self.before

    def _state(self) -> object:
        config = Path(self.paths.config)
        return [
            (path.read_bytes(), path.stat().st_mode, path.stat().st_uid, path.stat().st_gid)
            for path in (self.secret, config)
        ] + [(sorted(os.listdir(self.den)), self.den.stat().st_mode, self.den.stat().st_uid)]


@pytest.fixture
def attacked(folder: Path) -> Attacked:
    """A root of the system's accounts, as after an earlier start."""
    need_root("only root can start the daemon as another account")
    try:
        for user in ("gnt-masterd", "gnt-rapi"):
            pwd.getpwnam(user)
        assert "gnt-rapi" in grp.getgrnam("gnt-daemons").gr_mem
    except KeyError:
        do_without("there is no gnt-masterd or no gnt-rapi (Debian's package ganeti)")
    site = Site(folder, "localhost")
    site.prepare()
    folder.chmod(0o755)
    for path in (site.paths.config, site.paths.ssconf("master_node")):
        content = Path(path).read_bytes().replace(b"node1", b"localhost")
        os.unlink(path)
        Path(path).write_bytes(content)
    site.environment = {"GANETI_HOSTNAME": "localhost", "GANETI_ROOTDIR": site.paths.root}
    account = find_account("gnt-masterd", "gnt-daemons")
    assert account is not None
    set_right(site.paths, account)
    return Attacked(site)


def test_pid_files_that_lead_to_the_configuration(attacked: Attacked) -> None:
    """A member of the group makes all three PID files links to config.data: they are replaced."""
    paths = attacked.paths
    for path in (paths.pid, *paths.peers_pids):
        attacked.as_user("gnt-rapi", "ln", "-s", paths.config, path)
    attacked.check_up()


def test_pid_files_that_lead_elsewhere(attacked: Attacked) -> None:
    """So are links to a file of root's, a folder, a FIFO, and files of the member's own."""
    paths = attacked.paths
    for command in (
        ["ln", "-s", str(attacked.secret)],
        ["mkdir"],
        ["mkfifo"],
        ["sh", "-c", 'echo 1 > "$0"; chmod 600 "$0"'],
    ):
        for path in (paths.pid, *paths.peers_pids):
            attacked.as_user("gnt-rapi", *command, path)
        attacked.check_up()


@pytest.mark.parametrize("name", ["ganeti-query.d", "ganeti-wconfd.d"])
def test_a_prepared_folder_of_the_socket(attacked: Attacked, name: str) -> None:
    """Neither a link nor a folder with something in it stops the start or is changed."""
    place = f"{attacked.paths.sockets}/{name}"
    attacked.as_user("gnt-rapi", "ln", "-s", str(attacked.den), place)
    attacked.check_up()
    attacked.as_user("gnt-rapi", "mkdir", "-p", f"{place}/q/deep")
    attacked.check_up()


def test_a_race(attacked: Attacked) -> None:
    """Links that come back all the time lead nobody to another file, at any moment."""
    paths = attacked.paths
    names = [os.path.basename(path) for path in (paths.pid, *paths.peers_pids)]
    sockets = ["ganeti-query.d", "ganeti-wconfd.d", "ganeti-query", "ganeti-query.new"]
    for target in (paths.config, str(attacked.secret)):
        with attacked.race("gnt-rapi", target, paths.run, *names):
            for _ in range(5):
                attacked.start_and_stop()
    with attacked.race("gnt-rapi", str(attacked.den), paths.sockets, *sockets):
        for _ in range(3):
            attacked.start_and_stop()


@pytest.mark.parametrize("name", ["queue/lock", "masterd/journal.db", "queue/serial"])
def test_files_of_the_data_folder(attacked: Attacked, name: str) -> None:
    """What gnt-masterd itself makes a link to a file of root's, root does not open."""
    place = Path(attacked.paths.data, name)
    place.parent.mkdir(exist_ok=True)
    os.chown(place.parent, pwd.getpwnam("gnt-masterd").pw_uid, -1)
    place.unlink(missing_ok=True)
    attacked.as_user("gnt-masterd", "ln", "-s", str(attacked.secret), str(place))
    attacked.check_refused(str(place))


def test_folders_of_the_data_folder(attacked: Attacked) -> None:
    """Nor does it use a folder of root's through a link; recover says why as well."""
    queue = attacked.paths.queue
    attacked.as_user("gnt-masterd", "mv", queue, queue + ".old")
    attacked.as_user("gnt-masterd", "ln", "-s", str(attacked.den), queue)
    attacked.check_refused(f"{queue} is a link that uid")
    done = subprocess.run(
        [f"{sys.prefix}/bin/gnt-luxi", "--root", attacked.paths.root, "recover"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{queue}: is a link that uid" in done.stderr
    attacked.check_unchanged()
    os.unlink(queue)
    os.rename(queue + ".old", queue)
    journal = os.path.dirname(attacked.paths.journal)
    attacked.as_user("gnt-masterd", "ln", "-s", str(attacked.den), journal)
    attacked.check_refused("ermission denied")


def test_a_snapshot_of_hard_links(attacked: Attacked) -> None:
    """After ``cp -al`` every file has a second name, and the daemon starts all the same."""
    copy = attacked.site.folder / "snapshot"
    subprocess.run(["cp", "-al", attacked.paths.data, copy], check=True)
    attacked.check_up()
    Path(copy, "config.data").chmod(0o600)
    done = attacked.site.start(*NO_VOTE, how=DETACHED, simulate=False, program=attacked.program)
    assert "config.data has another name (it is a hard link)" in done.stderr


def test_a_removed_socket_comes_back(attacked: Attacked) -> None:
    """What a member of the group removes or replaces, the daemon makes again."""
    with attacked.site.detached(*NO_VOTE, simulate=False, program=attacked.program):
        for command in (["rm"], ["ln", "-sf", "/nowhere"]):
            attacked.as_user("gnt-rapi", *command, attacked.paths.socket)

            def answers() -> bool:
                try:
                    with BlockingClient(attacked.paths.socket, timeout=5) as master:
                        return bool(master.config_values(["cluster_name"]) == ["cluster"])
                except Exception:
                    return False

            until("the socket is there again", answers)
