"""Tests of the file of users, and of how passwords are checked."""

from __future__ import annotations

import base64
from collections.abc import Callable

from click.testing import CliRunner
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.cli.main import program
from ganeti_masterd.monitoring import logins
from ganeti_masterd.monitoring.logins import MAX_CHECKS, MAX_HOSTS, MAX_WRONG, WITHIN, Login, Logins
from ganeti_masterd.monitoring.passwords import NOBODY, StoredPassword, password_line, read_users


def header(name: str, password: str) -> str:
    """Returns what a browser sends."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode("ascii")


class FileTests(SynchronousTestCase):
    """Lines of the file."""

    def test_right_and_wrong(self) -> None:
        """A line that was made lets in that password alone, and no two lines are the same."""
        line = password_line("anna", "sésame")
        stored = read_users(f"# who may look\n\n{line}\n")["anna"]
        self.assertTrue(stored.matches("sésame".encode()))
        for wrong in (b"", b"sesame", "sésame ".encode()):
            self.assertFalse(stored.matches(wrong))
        self.assertNotEqual(line, password_line("anna", "sésame"))
        self.assertNotIn("same", line)
        self.assertFalse(NOBODY.matches(b""))

    def test_known_value(self) -> None:
        """The digest is that of RFC 7914, 12: another program can make such lines."""
        digest = bytes.fromhex(
            "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
            "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
        )
        stored = StoredPassword(14, 8, 1, b"SodiumChloride", digest)
        self.assertTrue(stored.matches(b"pleaseletmein"))

    def test_faults(self) -> None:
        """What is wrong is said with the line, and never with the hash."""
        good = password_line("anna", "x")
        rest = good.partition(":")[2]
        for text, said in [
            ("", "has no user"),
            ("# nobody", "has no user"),
            ("anna", "line 1: is not NAME:"),
            (f"{good}\n{good}", "line 2: anna has a line already"),
            (f"\n:{rest}", "line 2: '' is no name"),
            (f"an na:{rest}", "is no name"),
            ("anna:secret", "line 1: the password of anna is not in the form"),
            ("anna:$2y$05$abcdefghijklmnopqrstuv", "is not in the form"),
            (good.replace("ln=15", "ln=30"), "has ln=30"),
            (good.replace("ln=15", "ln=1"), "has ln=1"),
            (good.replace("r=8", "r=64"), "r=64"),
            (good.replace("p=1", "p=0"), "p=0"),
            (good[:-30], "is cut off"),
            (good[:-1] + "$", "is not in the form"),
            (f"anna:$scrypt$ln=15,r=8,p=1$A${'A' * 43}", "is cut off or isn't base64"),
        ]:
            with self.assertRaises(ValueError) as caught:
                read_users(text)
            self.assertIn(said, str(caught.exception))
            self.assertNotIn(rest[-20:], str(caught.exception))

    def test_names(self) -> None:
        """A name that can't stand in the file is refused, and an empty password."""
        for name in ("", "a:b", "a b", "a\n", "x" * 65, "ä"):
            self.assertRaises(ValueError, password_line, name, "x")
        self.assertRaises(ValueError, password_line, "anna", "")


class CommandTests(SynchronousTestCase):
    """``gnt-luxi monitoring-password``."""

    def run_with(self, *arguments: str, text: str) -> tuple[int, str]:
        """Runs the command with a text on standard input."""
        done = CliRunner().invoke(program, ["monitoring-password", *arguments], input=text)
        return done.exit_code, done.output

    def test_line(self) -> None:
        """The password comes from standard input, without the end of its line."""
        code, said = self.run_with("anna", text="secret\r\nmore\n")
        self.assertEqual(code, 0)
        self.assertTrue(read_users(said)["anna"].matches(b"secret"))

    def test_refused(self) -> None:
        """No password, no name, or the password as an argument."""
        for arguments, text in ((["anna"], ""), ([], "x"), (["an:na"], "x"), (["anna", "x"], "x")):
            self.assertNotEqual(self.run_with(*arguments, text=text)[0], 0)


class LoginScene(SynchronousTestCase):
    """Logins whose checks the test does itself."""

    def setUp(self) -> None:
        self.now = 1000.0
        self.checks: list[tuple[Callable[[], bool], Deferred[bool]]] = []
        stored = read_users(password_line("anna", "right"))
        self.logins = Logins(stored, self.check, lambda: self.now)

    def check(self, work: Callable[[], bool]) -> Deferred[bool]:
        """Takes a check."""
        self.checks.append((work, Deferred()))
        return self.checks[-1][1]

    def ask(self, name: str, password: str, host: str = "host") -> Login | Deferred[Login]:
        """Sends a name and a password from a host."""
        return self.logins.login(header(name, password), host)

    def wrong(self, host: str) -> Login:
        """Sends a wrong password, which is found wrong; returns what came of it."""
        login = self.ask("anna", "wrong", host)
        if isinstance(login, Login):
            return login
        self.checks.pop()[1].callback(False)
        return self.successResultOf(login)


class LoginTests(LoginScene):
    """Passwords of requests."""

    def test_right(self) -> None:
        """A right password is checked once, and then known; another of that name is checked."""
        login = self.ask("anna", "right")
        assert isinstance(login, Deferred)
        self.assertNoResult(login)
        work, done = self.checks.pop()
        self.assertTrue(work())
        done.callback(True)
        self.assertIs(self.successResultOf(login), Login.GOOD)
        self.assertIs(self.ask("anna", "right"), Login.GOOD)
        self.assertIs(self.wrong("host"), Login.REFUSED)
        self.assertIs(self.ask("anna", "right"), Login.GOOD)

    def test_wrong(self) -> None:
        """A wrong password is refused, and an unknown name after the same work."""
        self.assertIs(self.wrong("host"), Login.REFUSED)
        login = self.ask("nobody", "right")
        assert isinstance(login, Deferred)
        work, done = self.checks.pop()
        self.assertFalse(work())
        done.callback(True)  # even if it were
        self.assertIs(self.successResultOf(login), Login.REFUSED)
        self.assertIsInstance(self.ask("nobody", "right"), Deferred)

    def test_none(self) -> None:
        """No header, another scheme, and what is none costs no check."""
        for text in (
            None,
            "",
            "Basic",
            "Basic !!!",
            "Basic YQ==",
            "Bearer YTpi",
            "Basic /zpi",
            header("anna", "x" * 2000),
        ):
            self.assertIs(self.logins.login(text, "host"), Login.REFUSED, text)
        self.assertEqual(self.checks, [])

    def test_too_many_wrong(self) -> None:
        """A host that tried many wrong ones has to wait; others and who is known don't."""
        self.ask("anna", "right", "other")
        self.checks.pop()[1].callback(True)
        for _ in range(MAX_WRONG):
            self.assertIs(self.wrong("bad"), Login.REFUSED)
        self.assertIs(self.ask("anna", "guess", "bad"), Login.TOO_MANY)
        self.assertIs(self.ask("anna", "right", "bad"), Login.GOOD)
        self.assertIs(self.wrong("third"), Login.REFUSED)
        self.now += WITHIN
        self.assertIs(self.wrong("bad"), Login.REFUSED)

    def test_side_by_side(self) -> None:
        """Many at once are as many tries, and no more wait than may."""
        for number in range(MAX_CHECKS):
            self.assertIsInstance(self.ask("anna", f"guess {number}"), Deferred)
        self.assertIs(self.ask("anna", "guess"), Login.BUSY)
        self.assertIs(self.ask("anna", "guess", "other"), Login.BUSY)
        for _, done in self.checks:
            done.callback(False)
        self.assertIsInstance(self.ask("anna", "guess", "other"), Deferred)

    def test_failed_check(self) -> None:
        """A check that fails gives its place free, and is no login."""
        login = self.ask("anna", "right")
        assert isinstance(login, Deferred)
        self.checks.pop()[1].errback(MemoryError())
        self.failureResultOf(login, MemoryError)
        self.assertIsInstance(self.ask("anna", "right"), Deferred)

    def test_hosts_are_bounded(self) -> None:
        """No more hosts are remembered than a bound."""
        for number in range(MAX_HOSTS + 5):
            self.wrong(f"host{number}")
        self.assertEqual(len(self.logins._wrong), MAX_HOSTS)

    def test_constant_time(self) -> None:
        """Digests are compared by what takes as long for any two."""
        compared: list[object] = []
        real = logins.hmac.compare_digest

        def compare(one: bytes, other: bytes) -> bool:
            compared.append(one)
            return real(one, other)

        self.patch(logins.hmac, "compare_digest", compare)
        self.ask("anna", "right")
        work, done = self.checks.pop()
        self.assertTrue(work())
        done.callback(True)
        self.assertEqual(len(compared), 2)
