"""The listening sockets: their permissions at each moment."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from typing import Any

from twisted.internet import (
    reactor,  # noqa: TID251 - real sockets
    unix,
)
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SkipTest, TestCase

from ganeti_masterd.startup import socket as socket_module
from ganeti_masterd.startup.socket import MasterSocket


class MasterSocketTests(TestCase):
    """A socket in a folder of its own, on the real reactor."""

    timeout = 30

    def setUp(self) -> None:
        self.root = tempfile.mkdtemp(prefix="gnt-")
        self.addCleanup(shutil.rmtree, self.root)
        self.addCleanup(os.umask, os.umask(0))
        self.path = self.root + "/socket"

    def listen(self, mode: int = 0o600, owner: tuple[int, int] | None = None) -> MasterSocket:
        """Listens until the test has ended."""
        made = MasterSocket(self.path, mode, owner)
        made.listen(reactor, Factory.forProtocol(Protocol))  # type: ignore[arg-type]
        self.addCleanup(made.close)
        return made

    def mode(self, path: str) -> int:
        """Returns the mode of a file or folder."""
        return stat.S_IMODE(os.stat(path).st_mode)

    @inlineCallbacks
    def test_modes(self) -> Any:
        """The socket has the given mode, and only the owner can enter its private folder."""
        for mode in (0o600, 0o660, 0o666):
            made = self.listen(mode)
            self.assertEqual(self.mode(self.path), mode)
            self.assertEqual(self.mode(self.path + ".d"), 0o700)
            yield made.close()

    def test_folder_that_is_open_to_others(self) -> None:
        """A private folder left with other permissions is closed before the socket is bound."""
        os.mkdir(self.path + ".d", 0o777)
        self.listen()
        self.assertEqual(self.mode(self.path + ".d"), 0o700)

    def test_rights_before_the_name(self) -> None:
        """Mode and owner are set before the socket gets its name and accepts connections."""
        found: list[tuple[str, Any]] = []
        chmod, chown, rename = os.chmod, os.chown, os.rename

        def recording(name: str, function: Any) -> Any:
            def act(path: Any, *args: Any, **how: Any) -> None:
                self.assertFalse(os.path.exists(self.path))
                found.append((name, (os.path.basename(os.fsdecode(path)), *args)))
                if name != "chown":  # only root may give it away
                    function(path, *args, **how)

            return act

        for name, function in (("chmod", chmod), ("chown", chown), ("rename", rename)):
            self.patch(socket_module.os, name, recording(name, function))
        self.listen(0o660, (-1, 4321))
        fresh = found[-1][1][0]
        self.assertEqual(
            found,
            [
                ("chmod", ("q", 0o666)),  # Twisted's own
                ("chmod", ("q", 0o660)),
                ("chown", ("q", -1, 4321)),
                ("rename", (fresh, "socket")),
            ],
        )

    def test_owner(self) -> None:
        """The socket gets the given group and keeps its owner."""
        if os.geteuid() != 0:
            raise SkipTest("only root gives files away")
        self.listen(0o660, (-1, 4321))
        self.assertEqual((os.stat(self.path).st_uid, os.stat(self.path).st_gid), (0, 4321))

    @inlineCallbacks
    def test_takes_clients(self) -> Any:
        """Clients can connect, even if a stale socket was replaced; closing leaves no file."""
        yield self.listen().close()
        self.assertEqual(os.listdir(self.root), [])
        with open(self.path, "w"):
            pass
        made = self.listen()
        client = yield connectProtocol(UNIXClientEndpoint(reactor, self.path), Protocol())
        client.transport.abortConnection()
        yield made.close()
        self.assertEqual(os.listdir(self.root), [])

    @inlineCallbacks
    def check_answers(self) -> Any:
        """A client can connect by the name, which is a socket with the right mode."""
        self.assertEqual(stat.S_IFMT(os.lstat(self.path).st_mode), stat.S_IFSOCK)
        self.assertEqual(self.mode(self.path), 0o660)
        client = yield connectProtocol(UNIXClientEndpoint(reactor, self.path), Protocol())
        client.transport.abortConnection()

    @inlineCallbacks
    def test_name_that_is_gone(self) -> Any:
        """The name is made again where it was removed, or stands for anything else."""
        made = self.listen(0o660)
        made.restore()  # nothing to do
        port = made._port
        for spoil in (
            lambda: None,
            lambda: os.symlink("/nowhere", self.path),
            lambda: os.mkdir(self.path),
            lambda: os.makedirs(self.path + "/deep"),
            lambda: os.mkfifo(self.path),
        ):
            os.unlink(self.path)
            spoil()
            made.restore()
            yield self.check_answers()
        self.assertIs(made._port, port)
        yield made.close()
        self.assertFalse(os.path.lexists(self.path))

    @inlineCallbacks
    def test_folder_that_is_gone(self) -> Any:
        """Where the private folder was removed as well, another socket is bound."""
        made = self.listen(0o660)
        for _ in range(2):
            shutil.rmtree(self.path + ".d")
            os.unlink(self.path)
            made.restore()
            yield self.check_answers()
        yield made.close()
        self.assertEqual(os.listdir(self.root), [])
        ports = [each for each in reactor.getReaders() if isinstance(each, unix.Port)]
        self.assertEqual(ports, [])
        held = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd")]
        self.assertEqual([path for path in held if path.startswith(self.root)], [])

    @inlineCallbacks
    def test_socket_that_can_not_be_made_again(self) -> Any:
        """A failure is logged once; it is made as soon as that is possible."""
        made = self.listen(0o660)
        os.rename(self.root, self.root + ".away")
        for _ in range(2):
            made.restore()
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        os.rename(self.root + ".away", self.root)
        os.unlink(self.path)
        made.restore()
        yield self.check_answers()
        yield made.close()
        made.restore()
        self.assertEqual(os.listdir(self.root), [])
