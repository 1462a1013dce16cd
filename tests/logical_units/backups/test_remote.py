"""Exports to another cluster, and imports from one: both in one cluster here, under two names."""

from __future__ import annotations

import os
from typing import Any

from ganeti_masterd.errors import JobQueueError
from ganeti_masterd.jobs.devices import Fate
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.logical_units.steps import signing
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.backups.scene import EXPORT
from tests.logical_units.backups.test_importing import COPY, CREATE, OWN_NIC, ImportScene
from tests.logical_units.instances.scene import NAME
from tests.logical_units.world import Refused

PREPARE = "OP_BACKUP_PREPARE"
SECRET = "0123456789abcdef"


class RemoteScene(ImportScene):
    """Base: two jobs, of which the first awaits the disks that the second sends."""

    def arrange(self, template: str = "plain", *, removed: bool = False, **about: Any) -> None:
        """Makes the cluster, which has a secret; the instance runs."""
        self.prepare(template, **about)
        self.world.root = self.mktemp()
        path = self.world.root + signing.SECRET_FILE
        os.makedirs(os.path.dirname(path))
        with open(path, "w", encoding="utf-8") as file:
            file.write(SECRET + "\n")
        self.sent: Any = None
        self.announced: Any = None
        #: Parameters of the export that differ.
        self.other: dict[str, Any] = {}
        self.world.on_entry = self.send

    def asked(self) -> Any:
        """Returns what the source says before anything is sent."""
        return self.world.run(PREPARE, instance_name=NAME, mode="remote")

    def received(self, told: Any, **parameters: Any) -> dict[str, Any]:
        """Returns the parameters of the import."""
        return {
            "instance_name": COPY,
            "mode": "remote-import",
            "pnode": "node3",
            "os_type": "noop",
            "disk_template": "plain",
            "disks": [{"size": 64}, {"size": 32}],
            "nics": [OWN_NIC],
            "name_check": False,
            "ip_check": False,
            "start": False,
            "source_handshake": told["handshake"],
            "source_x509_ca": told["x509_ca"],
            "source_instance_name": NAME,
            **parameters,
        }

    def send(self, kind: str, value: Any) -> None:
        """Exports to where the disks are awaited."""
        self.assertEqual(kind, "remote-import")
        self.announced = value
        self.sent = self.world.try_run(EXPORT, **self.sending(), **self.other)

    def sending(self) -> dict[str, Any]:
        """Returns the parameters of the export."""
        return {
            "instance_name": NAME,
            "mode": "remote",
            "target_node": [list(place) for place in self.announced["disks"]],
            "x509_key_name": self.told["x509_key_name"],
            "destination_x509_ca": self.announced["x509_ca"],
        }

    def go(self, **parameters: Any) -> Any:
        """Prepares, imports and exports."""
        self.told = self.asked()
        return self.world.run(CREATE, **self.received(self.told, **parameters))


class RemoteTests(RemoteScene):
    """What is signed, sent and received."""

    def test_prepare(self) -> None:
        """A local export needs nothing; a remote one three signed things, and a key for a day."""
        self.arrange()
        self.assertIsNone(self.world.run(PREPARE, instance_name=NAME, mode="local"))
        told = self.asked()
        signing.check_handshake(SECRET, told["handshake"])
        key, signature, salt = told["x509_key_name"]
        self.assertTrue(signing.is_signed(SECRET, key, signature, salt))
        self.assertEqual(len(salt), 16)
        certificate = signing.certificate_of(SECRET, told["x509_ca"])
        keys = self.world.nodes.node("node2").state.facts["keys"]
        self.assertEqual(keys, {key: certificate})
        made = self.calls.index(("node2", "x509_cert_create"))
        self.assertEqual(self.arguments[made], (86400,))
        self.assertIn("Generating X509 certificate on node2", self.world.lines)

    def test_there(self) -> None:
        """The data arrives; keys and daemons are gone on both sides."""
        for template in ("plain", "drbd"):
            self.arrange(template)
            self.assertEqual(self.go(), ["node3"])
            self.assertEqual(self.sent, (True, [True, True]))
            self.assertEqual(self.data(), [("data of 0",), ("data of 1",)])
            self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))
            for line in (
                "* preparing remote import...",
                "Disk 0 is now listening",
                "Disk 1 finished receiving data",
                "Disk 1 finished sending data",
                f"Running rename script for {COPY}",
            ):
                self.assertIn(line, self.world.lines)
            self.assertNothingLeft()

    def test_announcement(self) -> None:
        """Where the disks are awaited, signed, and the options of the daemons."""
        self.arrange()
        self.go(source_shutdown_timeout=100)
        address = self.world.now.node("node3").primary_ip
        for index, place in enumerate(self.announced["disks"]):
            host, port, _ = signing.place_of(SECRET, index, place)
            self.assertEqual(host, address)
            self.assertGreater(port, 0)
            self.assertIn(f"Sending disk {index} to {host}:{port}", self.world.lines)
        authority = signing.certificate_of(SECRET, self.announced["x509_ca"])
        options = {
            name: arguments[0]
            for (_, name), arguments in zip(self.calls, self.arguments, strict=True)
            if name in ("import_start", "export_start")
        }
        self.assertEqual(options["export_start"]["ca_pem"], authority)
        self.assertEqual(options["export_start"]["connect_timeout"], 180)
        self.assertEqual(
            options["import_start"]["ca_pem"],
            signing.certificate_of(SECRET, self.told["x509_ca"]),
        )
        self.assertEqual(options["import_start"]["connect_timeout"], 280)
        self.assertEqual(options["export_start"]["magic"], self.announced["disks"][1][2])

    def test_removed(self) -> None:
        """It goes at the source once all of it has arrived."""
        self.arrange()
        self.other = {"remove_instance": True}
        self.go()
        self.assertIsNone(self.world.now.instances.named(NAME))
        self.assertEqual(self.data(), [("data of 0",), ("data of 1",)])

    def test_locks(self) -> None:
        """A remote export needs no node."""
        self.arrange()
        self.told = self.asked()
        self.announced = {"disks": [], "x509_ca": "x"}
        self.assertEqual(self.locks_of(EXPORT, **self.sending()), {"instance": ([NAME], True)})
        self.assertEqual(
            self.locks_of(PREPARE, instance_name=NAME, mode="remote"),
            {"instance": ([NAME], False)},
        )


class DistrustTests(RemoteScene):
    """What isn't signed with the secret, or isn't there."""

    def test_import(self) -> None:
        """Before anything is made."""
        self.arrange()
        told = self.asked()
        other = signing.handshake("another secret")
        newer = (1, signing.digest(SECRET, "1:Hi, I'm Ganeti", "salt"), "salt")
        for text, changes in (
            ("Missing source handshake", {"source_handshake": None}),
            ("Missing source X509 CA", {"source_x509_ca": None}),
            ("Missing source instance name", {"source_instance_name": None}),
            ("Invalid handshake: Invalid data: 2 parts instead of 3", {"source_handshake": [1, 2]}),
            (
                "Invalid handshake: Hash didn't match, clusters don't share the same domain secret",
                {"source_handshake": other},
            ),
            (
                "Invalid handshake: Hash didn't match, clusters don't share the same domain secret",
                {"source_handshake": [0, 1, 2]},
            ),
            (
                "Invalid handshake: Clusters don't have the same remote import/export protocol "
                "(local=0, remote=1)",
                {"source_handshake": newer},
            ),
            (
                "Invalid source X509 CA (Couldn't find a certificate)",
                {"source_x509_ca": "nonsense"},
            ),
            (
                "Invalid source X509 CA (Couldn't find X509 certificate signature)",
                {"source_x509_ca": told["x509_ca"].partition("\n\n")[2]},
            ),
            (
                "Invalid source X509 CA (X509 certificate signature is invalid)",
                {
                    "source_x509_ca": told["x509_ca"].replace(
                        "CERTIFICATE-----\n", "CERTIFICATE-----\n0", 1
                    )
                },
            ),
        ):
            self.assertRefused(text, "wrong_input", CREATE, **self.received(told, **changes))
        self.world.root = "/nonexistent"
        error = self.fails(CREATE, **self.received(told))
        self.assertIn("Can't read the cluster domain secret", error.args[0])

    def test_export(self) -> None:
        """Before the instance is stopped; the import gives up."""
        self.arrange()
        place = signing.signed_place(SECRET, 0, "192.0.2.1", 1234, "magic", "salt")
        for text, changes in (
            (
                f"Received destination information for 1 disks, but instance {NAME} has 2 disks",
                {"target_node": [[1]]},
            ),
            ("Invalid data for X509 key name", {"x509_key_name": ["one"]}),
            ("HMAC for X509 key name is wrong", {"x509_key_name": ["name", "0", "salt"]}),
            (
                "Invalid destination X509 CA (Couldn't find a certificate)",
                {"destination_x509_ca": "x"},
            ),
            (
                "Target info for disk 0: Invalid data: not host, port, magic, signature and salt",
                {"target_node": [[1], [2]]},
            ),
            (
                "Target info for disk 0: Missing destination host, port or magic",
                {"target_node": [["", 0, "", "", ""], [2]]},
            ),
            ("Target info for disk 1: HMAC is wrong", {"target_node": [place, place]}),
        ):

            def send(kind: str, value: Any, text: str = text, changes: Any = changes) -> None:
                self.announced = value
                refused = self.assertRaises(
                    Refused, self.world.run, EXPORT, **{**self.sending(), **changes}
                )
                self.assertEqual(refused.error.args, (text, "wrong_input"))

            self.world.on_entry = send
            self.told = self.asked()
            error = self.fails(CREATE, **self.received(self.told))
            self.assertEqual(
                error.args[0],
                f"Instance {COPY} is not made: its disk(s) 0, 1 could not be imported",
            )
            self.assertNotIn(("node2", "instance_shutdown"), self.calls)
            self.assertIsNone(self.world.now.instances.named(COPY))


class BrokenTests(RemoteScene):
    """A transfer that breaks off leaves nothing at the target, and the instance where it was."""

    def assertUntouched(self, context: object) -> None:
        """Expects the instance as it was, and nothing of the other one."""
        self.assertIsNone(self.world.now.instances.named(COPY), context)
        self.assertEqual(self.devices("node3"), {}, context)
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]), context)
        for node in ("node2", "node3"):
            state = self.world.nodes.node(node).state
            self.assertFalse([path for path in state.devices if path.endswith(".snap")])
        self.assertEqual(len(self.world.nodes.world.cluster.transfers), 0, context)
        self.assertFalse(self.world.nodes.node("node3").state.facts.get("keys"), context)
        self.assertEqual(self.world.faults(), [])

    def test_nobody_comes(self) -> None:
        """The source never connects: the import ends by its time-out."""
        self.arrange()
        self.world.on_entry = lambda kind, value: None
        self.told = self.asked()
        error = self.fails(CREATE, **self.received(self.told))
        self.assertIn("its disk(s) 0, 1 could not be imported", error.args[0])
        self.assertTrue(any("failed to receive data" in line for line in self.world.lines))
        self.assertUntouched(None)

    def test_one_disk(self) -> None:
        """One disk of two isn't sent: both sides fail, and say which."""
        self.arrange()
        self.break_call("export_start", count=1)
        error = self.assertRaises(Refused, self.go).error
        self.assertIn("its disk(s) 0 could not be imported", error.args[0])
        self.assertIsNone(self.sent)
        self.assertUntouched(None)
        self.assertFalse(self.world.nodes.node("node2").state.facts.get("keys"))

    def test_import_killed(self) -> None:
        """A kill of the import, with the export under way or not."""

        def prepare() -> None:
            self.arrange()
            self.told = self.asked()
            self.forget()

        prepare()
        parameters = self.received(self.told)
        found = set()
        for moment in range(200):
            prepare()
            self.world.kill_after = moment
            try:
                self.world.run(CREATE, **{**parameters, **self.received(self.told)})
            except Refused as refused:
                there = self.world.now.instances.named(COPY) is not None
                found.add(there)
                self.assertIn("was killed", refused.error.args[0])
                if not there:
                    self.assertUntouched(moment)
                else:
                    self.assertEqual(self.data(), [("data of 0",), ("data of 1",)])
            else:
                break
        self.assertGreater(moment, 20)
        self.assertEqual(found, {False, True})

    def arrived(self) -> None:
        """Prepares an import of an instance that the source removes once it has sent it."""
        self.arrange()
        self.other = {"remove_instance": True}
        self.told = self.asked()

    def assertThere(self) -> None:
        """Expects the instance at the target alone, with all its data."""
        self.assertIsNone(self.world.now.instances.named(NAME))
        self.assertEqual(self.world.now.instance(COPY).admin_state, "down")
        self.assertEqual(self.data(), [("data of 0",), ("data of 1",)])

    def test_disk_refuses_after_arrival(self) -> None:
        """What has arrived stays if that can't be recorded; the import goes on with a warning."""
        self.arrived()

        def refuse(ctx: SynchronousContext, devices: Any) -> None:
            raise JobQueueError("the journal can't be written")

        self.patch(SynchronousContext, "forget_devices", refuse)
        self.assertEqual(self.world.run(CREATE, **self.received(self.told)), ["node3"])
        self.assertThere()
        lines = "\n".join(map(str, self.world.lines))
        self.assertIn(
            f"Could not record that the disks of instance {COPY} are complete: the journal can't "
            "be written",
            lines,
        )
        self.assertIn(f"Running rename script for {COPY}", lines)

    def test_killed_after_arrival(self) -> None:
        """What has arrived stays if the job is killed then, and the error says how it is."""
        self.arrived()
        before = SynchronousContext.forget_devices

        def kill(ctx: SynchronousContext, devices: Any) -> None:
            before(ctx, devices)
            self.patch(SynchronousContext, "checkpoint", killed)

        def killed(ctx: SynchronousContext) -> None:
            restored()
            raise JobKilled("Job 1 was killed")

        checkpoint = SynchronousContext.checkpoint

        def restored() -> None:
            self.patch(SynchronousContext, "checkpoint", checkpoint)

        self.patch(SynchronousContext, "forget_devices", kill)
        error = self.fails(CREATE, **self.received(self.told))
        self.assertEqual(
            error.args[0],
            f"Job 1 was killed; instance {COPY} is in the cluster with all its data, marked to be "
            "down, and its rename script may not have run",
        )
        self.assertThere()
        assert self.world.last is not None
        self.assertNotIn(Fate.RECEIPT, [each.fate for each in self.world.last.devices])

    def test_export_killed(self) -> None:
        """A kill of the export: the instance runs, its key is gone."""
        for moment in range(200):
            self.arrange()
            self.told = self.asked()
            killed = []

            def send(kind: str, value: Any, moment: int = moment, killed: Any = killed) -> None:
                self.announced = value
                self.world.kill_after = moment
                try:
                    self.world.run(EXPORT, **self.sending())
                except Refused as refused:
                    killed.append(refused)
                self.world.kill_after = None

            self.world.on_entry = send
            self.world.try_run(CREATE, **self.received(self.told))
            if not killed:
                break
            self.assertEqual(self.state(), ("up", "admin", True, ["node2"]), moment)
            state = self.world.nodes.node("node2").state
            self.assertFalse([path for path in state.devices if path.endswith(".snap")])
            if self.world.now.instances.named(COPY) is None:
                self.assertUntouched(moment)
        self.assertGreater(moment, 10)

    def test_key_stays(self) -> None:
        """A key that can't be removed is a warning on each side."""
        self.arrange()
        self.break_call("x509_cert_remove", None)
        self.go()
        self.assertEqual(self.data(), [("data of 0",), ("data of 1",)])
        warnings = [line for line in self.world.lines if "remove the key" in line]
        self.assertEqual(len(warnings), 2)
