"""Switches of a simulated cluster, in code and through the socket."""

from __future__ import annotations

import io
import json
import os
import sys
from typing import Any

from twisted.internet.testing import StringTransport

from ganeti_masterd.simulation.control import LONGEST, SwitchFactory, main
from ganeti_masterd.simulation.switches import SWITCHES, SwitchError, throw
from tests.simulation.mirrored import MirroredCase
from tests.simulation.nodes import instance, volume
from tests.test_decoding import NONSENSE


class SwitchTests(MirroredCase):
    def throw(self, command: str) -> str:
        return throw(self.nodes, command.split())

    def refused(self, command: str) -> str:
        return str(self.assertRaises(SwitchError, self.throw, command))

    def test_refused(self) -> None:
        """An invalid command gives an error, and does nothing."""
        self.create_mirror()
        for command, fault in (
            ("", "no command"),
            ("dance", "there is no command 'dance'; there are: help, "),
            ("net a b", "usage: net NODE NODE down|up"),
            ("net a b sideways", "a link is down or up, not 'sideways'"),
            ("power a dim", "power is off or on, not 'dim'"),
            ("crash a web", "web doesn't run on a"),
            ("detach a mail", "mail has no drbd disk with a volume on a"),
            ("make-lv a xenvg/x many", "'many' is no whole number"),
            ("make-lv a none/x 4", "insufficient free space"),
            ("sync fast", "'fast' is no number"),
            ("sync nan", "'nan' is no number"),
            ("sync inf", "'inf' is no number"),
            ("sync -1", "must not be below zero"),
            ("export-ini a web", "there is no export 'web' on a"),
        ):
            self.assertIn(fault, self.refused(command))

    def test_help(self) -> None:
        """The help shows all commands, with what they do."""
        said = self.throw("help")
        for name, switch in SWITCHES.items():
            self.assertIn(name, said)
            self.assertIn(switch.does, said)

    def test_volumes(self) -> None:
        """Volumes are created, removed and broken; a group is filled."""
        self.throw("make-lv a xenvg/stray 8")
        self.assertIn("xenvg/stray", self.ask("a", "lv_list", []))
        self.throw("remove-lv a xenvg/stray")
        self.throw("remove-lv a xenvg/stray")
        self.assertEqual(self.ask("a", "lv_list", []), {})
        self.throw("fill a xenvg 16")
        disk = volume("data", 32)
        error = self.fault("a", "blockdev_create", disk, 32, "web", True, "i", False)
        self.assertIn("required 32, available 16.0", error)
        self.throw("remove-lv a xenvg/filler")
        self.create_mirror()
        self.throw("break-lv b web")
        self.assertEqual(self.ask("b", "lv_list", []), {})
        found = self.ask("b", "blockdev_find", self.disks["b"]["children"][0])
        self.assertTrue(found["is_degraded"])

    def test_mirrors(self) -> None:
        """A mirror loses its disk, its network, its configuration, and is repaired."""
        self.create_mirror()
        self.throw("detach b web")
        self.assertRaises(SwitchError, self.throw, "detach b web")
        self.assertEqual(self.state("b"), "Connected Secondary Diskless")
        self.assemble("b", primary=False)
        self.throw("disconnect a web")
        self.assertEqual(self.state("a"), "StandAlone Primary UpToDate")
        self.assemble("a", primary=True)
        self.throw("down b web")
        self.assertIsNone(self.find("b"))
        self.assertIn("cs:WFConnection ro:Primary/Unknown", self.throw("proc a"))
        self.assertIn("originstname+web", self.throw("lvs a"))
        self.throw("wipe")
        self.assertEqual(self.ask("a", "lv_list", []), {})

    def test_paces(self) -> None:
        """Syncs take the time that was set last."""
        self.throw("sync 8")
        self.create_mirror()
        self.clock.advance(4)
        self.assertEqual(self.find("b")["sync_percent"], 50.0)
        self.throw("sync-speed 0")
        self.clock.advance(4)
        self.assertFalse(self.find("b")["is_degraded"])
        self.ask("b", "blockdev_shutdown", self.disks["b"])
        self.assemble("b", primary=False)
        self.assertFalse(self.find("b")["is_degraded"])

    def test_reach(self) -> None:
        """Verifying the network reports nodes that can't be reached."""
        checks = {
            "nodelist": [["b", "c"], {}, ["a"]],
            "node-net-test": [[[name, "192.0.2.1", "192.0.2.1"] for name in "abc"], ["a"]],
        }
        for command, lost in (("net a b down", ["b"]), ("power c off", ["b", "c"])):
            self.throw(command)
            found = self.ask("a", "node_verify", checks, "cluster", {})
            for check in checks:
                self.assertEqual(sorted(found[check]), lost)

    def test_instances(self) -> None:
        """Instances crash, one or all."""
        for name in ("web", "mail", "news"):
            self.ask("a", "instance_start", instance(name), False, [])
        self.throw("crash a web")
        self.assertEqual(self.ask("a", "instance_list", ["fake"], {"fake": {}}), ["mail", "news"])
        self.throw("kill-all a")
        self.assertEqual(self.ask("a", "instance_list", ["fake"], {"fake": {}}), [])


class ControlTests(MirroredCase):
    def asked(self, line: bytes) -> Any:
        """Returns the socket's answer to one request."""
        protocol = SwitchFactory(self.nodes).buildProtocol(None)
        transport = StringTransport()
        protocol.makeConnection(transport)
        protocol.dataReceived(line + b"\n")
        return json.loads(transport.value())

    def test_requests(self) -> None:
        """Each line is a command, and is answered whatever it is."""
        self.assertEqual(self.asked(b'["make-lv", "a", "xenvg/x", "4"]'), [True, ""])
        self.assertIn("xenvg/x", self.asked(b'["lvs", "a"]')[1])
        good, text = self.asked(b'["dance"]')
        self.assertFalse(good)
        self.assertIn("no command 'dance'", text)
        for line in (b"{}", b"\xff", b'["x", 5]', *NONSENSE):
            good, text = self.asked(line)
            self.assertFalse(good)
            self.assertIn("JSON list of words", text)

    def test_too_long(self) -> None:
        """A request that never ends is refused with a message."""
        good, text = self.asked(b"[" * (LONGEST + 1))
        self.assertFalse(good)
        self.assertIn(f"at most {LONGEST} bytes", text)

    def test_bug(self) -> None:
        """A bug in a switch is logged, and the connection stays open."""
        self.patch(self.nodes, "node", lambda name: 1 // 0)
        self.assertEqual(
            self.asked(b'["lvs", "a"]'),
            [False, "a bug in the simulation; the daemon's log has it"],
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_client(self) -> None:
        """The client shows its usage, and an error if nobody listens."""
        said = io.StringIO()
        self.patch(sys, "stderr", said)
        self.patch(os, "environ", {})
        self.assertEqual(main([]), 2)
        self.assertEqual(main(["help"]), 2)
        self.assertEqual(main(["--root", "/no/such/root", "help"]), 1)
        self.assertIn("usage: python -m ganeti_masterd.simulation", said.getvalue())
        self.assertIn("/no/such/root/simulation/control: ", said.getvalue())
