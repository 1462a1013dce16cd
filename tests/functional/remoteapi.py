"""The real remote API (Debian's ``ganeti-rapi``) beside a daemon, and its own client for Python."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from ganeti_masterd.testing.daemon import DaemonProcess
from tests.functional.conftest import do_without, require
from tests.functional.waiting import until

#: How long the remote API may take to start, seconds.
START_LIMIT = 20.0

#: Debian's Python, which finds Debian's client.
SYSTEM_PYTHON = "/usr/bin/python3"

#: Calls the client's methods that come on standard input, and waits for the jobs they submit.
_SCRIPT = """
import json, sys
from ganeti.rapi import client
port, user, password = sys.argv[1:]
rapi = client.GanetiRapiClient("127.0.0.1", port=int(port), username=user, password=password)
answers = []
for method, args, named in json.load(sys.stdin):
    try:
        answer = getattr(rapi, method)(*args, **named)
        if isinstance(answer, (int, str)) and str(answer).isdigit():
            rapi.WaitForJobCompletion(answer, period=0.05, retries=-1)
            job = rapi.GetJobStatus(answer)
            answer = {name: job[name] for name in ("status", "summary", "opresult")}
    except client.GanetiApiError as error:
        answer = {"code": error.code, "error": str(error)}
    answers.append(answer)
json.dump(answers, sys.stdout)
"""


def may_connect() -> list[str]:
    """Lets the remote API's user connect, by a group that it is in; only root can do that."""
    return ["--user=root", "--group=gnt-daemons"] if os.geteuid() == 0 else []


def _user() -> pwd.struct_passwd:
    """The user that the remote API insists on; the test is skipped, or fails in CI, without."""
    try:
        user = pwd.getpwnam("gnt-rapi")
    except KeyError:
        user = None
    if user is None or os.geteuid() != 0:
        do_without("the remote API needs its user gnt-rapi, and root to become it")
    return user


@contextlib.contextmanager
def remote_api(daemon: DaemonProcess, users: str, *options: str) -> Iterator[int]:
    """Runs ganeti-rapi as its own user beside the daemon; yields its port.

    ``users`` is its list of users: name, password, and ``read`` or ``write``.
    """
    program = require("ganeti-rapi", "ganeti-3.0")
    setpriv = require("setpriv", "util-linux")
    user = _user()
    root = daemon.root
    for name in ("var/lib/ganeti/rapi", "var/log/ganeti", "var/run/ganeti"):
        folder = root / name
        folder.mkdir(exist_ok=True)
        shutil.chown(folder, user.pw_uid)
    (root / "var/run/ganeti/socket").chmod(0o755)
    (root / "var/lib/ganeti/rapi/users").write_text(users, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    log = root.parent / "rapi.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--init-groups"),
                *(program, "-f", "-b", "127.0.0.1", "-p", str(port), *options),
            ],
            env=daemon.environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )

    def listens() -> bool:
        assert process.poll() is None, log.read_text()
        with socket.socket() as tried:
            return tried.connect_ex(("127.0.0.1", port)) == 0

    try:
        until("the remote API listens", listens, limit=START_LIMIT)
        yield port
    finally:
        process.terminate()
        process.wait(20)


class RapiClient:
    """Debian's client of the remote API, run by Debian's Python."""

    def __init__(self, port: int, user: str, password: str) -> None:
        require(SYSTEM_PYTHON, "python3")
        self._command = [SYSTEM_PYTHON, "-c", _SCRIPT, str(port), user, password]
        found = subprocess.run(
            [SYSTEM_PYTHON, "-c", "import ganeti.rapi.client"], check=False, capture_output=True
        )
        if found.returncode != 0:
            do_without("no ganeti.rapi.client (Debian's package python3-ganeti-rapi)")

    def calls(self, *wanted: tuple[str, Sequence[Any], dict[str, Any]]) -> list[Any]:
        """Calls methods, one after the other; returns what each returned.

        Of a method that submits a job it is how the job ended: ``status``, ``summary`` and
        ``opresult``. Of one that is refused, or whose job can't be asked for, it is ``code`` and
        ``error``.
        """
        done = subprocess.run(
            self._command,
            input=json.dumps(wanted),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        print(done.stderr, file=sys.stderr)
        assert done.returncode == 0, done.stderr
        answers: list[Any] = json.loads(done.stdout)
        return answers

    def __call__(self, method: str, *args: Any, **named: Any) -> Any:
        """The same for one method."""
        (answer,) = self.calls((method, args, named))
        return answer
