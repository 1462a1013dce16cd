"""Real scripts of simulated nodes: hooks, allocators, restricted commands."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor  # noqa: TID251 (programs need a real one)
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from ganeti_masterd.simulation import scripts
from ganeti_masterd.simulation.cluster import SimulatedNodes
from ganeti_masterd.simulation.programs import Programs
from ganeti_masterd.simulation.scripts import escaped
from ganeti_masterd.timing import Timers
from tests.simulation.nodes import Disk, SimulationCase, target


class EscapeTests(SimulationCase):
    def test_escaped(self) -> None:
        """Output becomes one line of printable ASCII."""
        self.assertEqual(escaped("a\tb\nc\rd\x01é~"), "a\\tb\\nc\\'rd\\x01\\xe9~")


class WithoutTests(SimulationCase):
    def test_no_hooks(self) -> None:
        """Without scripts a hook starts no process, with a root or without."""
        self.assertEqual(self.ask("a", "hooks_runner", "node-add", "pre", {}), [])
        self.nodes = self.make(root=self.mktemp())
        self.assertEqual(self.ask("a", "hooks_runner", "node-add", "post", {}), [])
        self.assertEqual(
            self.fault("a", "hooks_runner", "node-add", "mid", {}), "Unknown hooks phase 'mid'"
        )

    def test_no_allocator(self) -> None:
        """An allocator that isn't installed fails with noded's message."""
        for name in ("no-such-allocator", "../../../../bin/true"):
            self.assertEqual(
                self.fault("a", "iallocator_runner", name, "{}", {}),
                f"iallocator module '{name}' not found in the search path",
            )

    def test_restricted(self) -> None:
        """A command that isn't allowed is refused after ten seconds."""
        self.nodes = self.make(root=self.mktemp())
        for name in ("reboot", "", "../../x", "a b"):
            done = self.nodes.call([target("a")], "restricted_command", [name])
            self.clock.advance(9.9)
            self.assertNoResult(done)
            self.clock.advance(0.1)
            error = self.successResultOf(done)["uuid-a"].error
            self.assertEqual(error, f"Executing command '{name}' failed")


class ProgramsTests(SimulationCase):
    """Programs on a reactor whose behaviour the test sets."""

    def spawnProcess(self, program: Any, *args: Any, **named: Any) -> Any:
        if self.refusal is not None:
            raise self.refusal
        return self

    def signalProcess(self, signal: str) -> None:
        self.killed += 1
        raise ProcessExitedAlready

    def setUp(self) -> None:
        super().setUp()
        self.refusal: Exception | None = None
        self.killed = 0
        self.programs = Programs(self)  # type: ignore[arg-type]

    def test_cannot_be_started(self) -> None:
        """An error when starting a program is its failure's reason."""
        for self.refusal in (OSError(8, "Exec format error"), TypeError("a NUL"), ValueError("x")):
            ended = self.successResultOf(self.programs.run(["/bin/x"], {}))
            self.assertEqual(ended.reason, str(self.refusal))
        self.assertEqual(len(self.programs), 0)

    def test_stop(self) -> None:
        """If a program has ended already, the others are still killed."""
        for _ in range(3):
            self.assertNoResult(self.programs.run(["/bin/x"], {}))
        self.programs.stop()
        self.assertEqual(self.killed, 3)


class ScriptTests(TestCase):
    def setUp(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        os.makedirs(self.root)
        self.nodes = SimulatedNodes(
            Timers(reactor),
            root=self.root,
            master="a",
            in_disk_thread=Disk().run,
            processes=reactor,
        )
        self.addCleanup(self.nodes.close)
        return self.nodes.start()

    def script(self, path: str, text: str, mode: int = 0o755) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + text)
        os.chmod(path, mode)

    def hook(self, name: str, text: str, mode: int = 0o755, node: str = "simulation/b") -> None:
        self.script(f"{self.root}/{node}/etc/ganeti/hooks/node-add-pre.d/{name}", text, mode)

    @inlineCallbacks
    def call(self, node: str, procedure: str, *arguments: Any) -> Any:
        found = yield self.nodes.call([target(node)], procedure, arguments)
        return found[f"uuid-{node}"]

    @inlineCallbacks
    def test_hooks(self) -> Any:
        """Scripts run in order with exactly the environment sent; each has its result."""
        self.hook("10-good", "echo out; echo err >&2; env | grep -v ^_= | sort")
        self.hook("20-bad", "echo no; exit 3")
        self.hook("30-killed", "kill -9 $$")
        self.hook("40-binary", "printf '\\377'")
        self.hook("50-not-executable", "echo", 0o644)
        self.hook("60-bad.name", "echo")
        self.hook(".hidden", "echo")
        self.hook("70-not-a-program", "x", 0o755)
        path = f"{self.root}/simulation/b/etc/ganeti/hooks/node-add-pre.d/70-not-a-program"
        with open(path, "wb") as file:
            file.write(b"\x00\x01")
        result = yield self.call(
            "b", "hooks_runner", "node-add", "pre", {"PATH": "/bin", "X": "1 2"}
        )
        rows = {
            name.rpartition("/")[2]: (status, output) for name, status, output in result.payload
        }
        self.assertEqual(result.payload[0][0], "node-add-pre.d/10-good")
        self.assertEqual([row[0] for row in result.payload], sorted(r[0] for r in result.payload))
        status, output = rows["10-good"]
        self.assertEqual(status, 2)
        self.assertEqual(
            sorted(output.split("\\n")), sorted(["out", "err", "PATH=/bin", "PWD=/", "X=1 2"])
        )
        self.assertEqual(rows["20-bad"], (1, "no"))
        self.assertEqual(rows["30-killed"], (1, ""))
        self.assertEqual(rows["40-binary"][0], 1)
        self.assertEqual(rows["50-not-executable"], (0, ""))
        self.assertEqual(rows["60-bad.name"], (0, ""))
        self.assertEqual(rows["70-not-a-program"][0], 1)
        self.assertNotIn(".hidden", rows)

    @inlineCallbacks
    def test_master_hooks(self) -> Any:
        """The master's hooks are below the daemon's root; other nodes don't run them."""
        self.hook("here", "echo master", node=".")
        result = yield self.call("a", "hooks_runner", "node-add", "pre", {})
        self.assertEqual(result.payload, [["node-add-pre.d/here", 2, "master"]])
        result = yield self.call("b", "hooks_runner", "node-add", "pre", {})
        self.assertEqual(result.payload, [])

    @inlineCallbacks
    def test_allocator(self) -> Any:
        """An allocator gets the request in a file, parameters as options; stdout is its answer."""
        folder = f"{self.root}/allocators"
        self.patch(scripts, "ALLOCATOR_DIRS", (folder,))
        self.script(
            f"{folder}/echo", 'for last; do :; done; cat "$last"; echo "$1 $2"; echo hm >&2'
        )
        result = yield self.call("a", "iallocator_runner", "echo", "{}", {"flag": None, "n": "5"})
        self.assertEqual(result.payload, "{}--flag --n=5\n")
        self.script(f"{folder}/bad", "echo sorry >&2; exit 2")
        result = yield self.call("a", "iallocator_runner", "bad", "{}", {})
        self.assertEqual(
            result.error,
            "iallocator module 'bad' failed: exited with exit code 2, output 'sorry\n'",
        )

    @inlineCallbacks
    def test_restricted(self) -> Any:
        """A command that the node's administrator has allowed is run."""
        folder = f"{self.root}/simulation/b/etc/ganeti/restricted-commands"
        self.script(f"{folder}/uptime", "echo long")
        self.script(f"{folder}/bad", "exit 1")
        result = yield self.call("b", "restricted_command", "uptime")
        self.assertEqual(result.payload, "long\n")
        result = yield self.call("b", "restricted_command", "bad")
        self.assertIn("Restricted command 'bad' failed: exited with exit code 1", result.error)

    @inlineCallbacks
    def test_out_of_band(self) -> Any:
        """What the program for a node's power prints is JSON, or nothing."""
        prints = {"power-status": '{"powered": true}', "power-off": "", "health": "[", "other": ""}
        cases = "".join(f"{name}) echo '{text}';;" for name, text in prints.items() if text)
        self.script(f"{self.root}/sbin/oob", f"case $1 in other) exit 3;; {cases} esac")
        found = {}
        for command in prints:
            found[command] = yield self.call("a", "run_oob", "/sbin/oob", command, "b", 60)
        self.assertEqual(found["power-status"].payload, {"powered": True})
        self.assertEqual((found["power-off"].payload, found["power-off"].error), (None, None))
        self.assertIn("Error while executing backend function", found["health"].error)
        self.assertIn("exited with exit code 3", found["other"].error)

    @inlineCallbacks
    def test_closed(self) -> Any:
        """Closing kills running programs, which ends their calls."""
        self.hook("slow", "exec sleep 60")
        waiting = self.call("b", "hooks_runner", "node-add", "pre", {"PATH": "/bin:/usr/bin"})
        yield self.nodes.close()
        result = yield waiting
        self.assertIn("given up", result.error)
        programs = self.nodes._programs
        assert programs is not None
        while len(programs):
            yield self.turn()

    def turn(self) -> Any:
        """Fires in the reactor's next turn."""
        return deferLater(reactor, 0)
