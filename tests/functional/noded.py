"""Real node daemons on loopback: Debian's ``ganeti-noded`` with TLS, each in a root of its own.

A small cluster without a master daemon: the node daemons, their certificates
and the list of who may call. Needs root, as the node daemon does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from ganeti_masterd.rpc.interfaces import Target
from tests.functional.waiting import until
from tests.rpc import pki

#: Seconds in which a node daemon listens, also on a machine that is busy.
PATIENCE = 30.0


class NodeDaemon:
    """One real node daemon on an address of its own, all on the same port."""

    def __init__(self, program: str, root: Path, address: str, port: int) -> None:
        """Makes the root, whose last part is the node's name (virtual clusters need that)."""
        self.root = root
        self.name = root.name
        self.address = address
        self.port = port
        self.data = root / "var/lib/ganeti"
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        for folder in (self.data / "queue", *(root / "var" / each for each in FOLDERS)):
            folder.mkdir(parents=True)

    @property
    def target(self) -> Target:
        """The node as one to call."""
        return Target(f"uuid-of-{self.name}", self.name, self.address)

    def equip(self, server: pki.Identity, client: pki.Identity, *listed: pki.Identity) -> None:
        """Gives the node certificates and the list of clients that may call it."""
        server.write(str(self.data / "server.pem"))
        client.write(str(self.data / "client.pem"))
        self.list(*listed)

    def list(self, *listed: pki.Identity) -> None:
        """Says who may call; no one listed: whoever shows the cluster's own certificate."""
        lines = [f"uuid-{place}={each.digest}\n" for place, each in enumerate(listed)]
        path = self.data / "ssconf_master_candidates_certs"
        path.write_text("".join(lines), encoding="ascii")

    def start(self) -> None:
        """Starts it; returns when it listens."""
        environment = {
            **os.environ,
            "GANETI_ROOTDIR": str(self.root),
            "GANETI_HOSTNAME": self.name,
        }
        options = ["-f", "--no-mlock", "-b", self.address, "-p", str(self.port)]
        with open(self.root / "output", "ab") as output:
            self._process = subprocess.Popen(
                [self._program, *options],
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            until("noded listens", self._listens, limit=PATIENCE)
        except AssertionError as error:
            self.kill()
            raise AssertionError(f"{error}\n{(self.root / 'output').read_text('utf-8')}") from None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "noded has ended"
        # Connecting would cost it one of its children.
        port = f"{self.port:04X}"
        address = socket.inet_aton(self.address)[::-1].hex().upper()
        with open("/proc/net/tcp", encoding="ascii") as table:
            return any(line.split()[1:4:2] == [f"{address}:{port}", "0A"] for line in table)

    def signal(self, number: int) -> None:
        """Sends a signal to the daemon and the children that serve its calls."""
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Kills it with all its children, if it runs."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


FOLDERS = ("log/ganeti", "run/ganeti/instance-reason", "lock")


def free_port() -> int:
    """Returns a port on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
