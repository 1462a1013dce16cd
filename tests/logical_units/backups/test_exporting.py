"""OP_BACKUP_EXPORT to a node: what is done, and what is refused."""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.config.objects import Nic
from ganeti_masterd.logical_units.steps.exports import read_document
from tests.logical_units.backups.scene import EXPORT, BackupScene
from tests.logical_units.instances.scene import NAME


class ExportTests(BackupScene):
    """An export to a node."""

    sizes = (64,)

    def test_running(self) -> None:
        """The calls and the log of real daemon 3.0.2; it runs on while a snapshot is copied."""
        self.prepare()
        self.assertEqual(self.export(), (True, [True]))
        made = [each for each in self.made_calls() if each[1] != "impexp_status"]
        self.assertEqual(
            made,
            [
                ("node1", "export_list"),
                ("node2", "export_list"),
                ("node4", "export_list"),
                ("node3", "export_list"),
                ("node2", "instance_shutdown"),
                ("node2", "blockdev_snapshot"),
                ("node2", "instance_start"),
                ("node3", "import_start"),
                ("node2", "export_start"),
                ("node3", "impexp_cleanup"),
                ("node2", "blockdev_remove"),
                ("node2", "impexp_cleanup"),
                ("node3", "finalize_export"),
            ],
        )
        self.assertEqual(
            self.world.lines,
            [
                f"Shutting down instance {NAME}",
                "Creating a snapshot of disk/0 on node node2",
                f"Starting instance {NAME}",
                "Exporting snapshot/0 from node2 to node3",
                "snapshot/0 is now listening, starting export",
                "snapshot/0 is receiving data on node3",
                "snapshot/0 is sending data on node2",
                "snapshot/0 finished receiving data",
                "snapshot/0 finished sending data",
                "Removing snapshot of disk/0 on node node2",
                "Finalizing export on node3",
                f"Removing old exports for instance {NAME}",
            ],
        )
        self.assertIn(" - INFO: snapshot/0 sent 8M, 16.0 MiB/s, 12%, ETA 4s", self.world.progressed)
        self.assertEqual(self.contents(), [("data of 0",)])
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))
        self.assertNothingLeft()

    def test_live(self) -> None:
        """Without a shutdown it is never stopped."""
        self.prepare()
        self.export(shutdown=False)
        self.assertNotIn(("node2", "instance_shutdown"), self.calls)
        self.assertEqual(self.contents(), [("data of 0",)])
        self.assertNothingLeft()

    def test_mirror(self) -> None:
        """A snapshot is that of the data's volume."""
        self.prepare("drbd")
        self.export()
        self.assertEqual(self.contents(), [("data of 0",)])
        self.assertIn("disk_template = plain", str(self.exports()[NAME].config))
        self.assertNothingLeft()

    def test_stopped(self) -> None:
        """One that is down is exported as it is; its disks are shut down again."""
        for template in ("plain", "drbd", "file"):
            self.prepare(template, up=False)
            self.export()
            self.assertEqual(self.contents(), [("data of 0",)], template)
            self.assertEqual(self.state(), ("down", "admin", False, []))
            self.assertNotIn(("node2", "blockdev_snapshot"), self.calls)
            self.assertIn("Exporting disk/0 from node2 to node3", self.world.lines)
            self.assertIn(f"Deactivating disks for {NAME}", self.world.lines)
            self.assertNothingLeft()

    def test_long_sleep(self) -> None:
        """Files have no snapshots: it is down until they are copied, if that is allowed."""
        self.prepare("file")
        self.export(long_sleep=True)
        names = [name for _, name in self.made_calls()]
        self.assertGreater(names.index("instance_start"), names.index("finalize_export"))
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))
        self.assertEqual(self.contents(), [("data of 0",)])
        self.assertNothingLeft()

    def test_inactive_disks_of_one_that_runs(self) -> None:
        """They are left ready: it runs on them."""
        self.prepare()
        self.modify(self.now().uuid, lambda now: replace(now, disks_active=False))
        self.export()
        self.assertEqual(self.state(), ("up", "admin", True, ["node2"]))
        self.assertNothingLeft()

    def test_remove_instance(self) -> None:
        """It goes once all of it is in the export."""
        self.prepare()
        self.export(remove_instance=True)
        self.assertIsNone(self.world.now.instances.named(NAME))
        self.assertEqual(self.devices("node2"), {})
        self.assertEqual(self.contents(), [("data of 0",)])
        self.assertNotIn(("node2", "blockdev_snapshot"), self.calls)
        self.assertNothingLeft()

    def test_ignore_remove_failures(self) -> None:
        """It is forgotten with disks that can't be removed, if that is wanted."""
        for ignored in (False, True):
            self.prepare()
            mend = self.break_call("blockdev_remove")
            parameters = {"remove_instance": True, "ignore_remove_failures": ignored}
            if ignored:
                self.export(**parameters)
                self.assertIsNone(self.world.now.instances.named(NAME))
            else:
                error = self.fails(EXPORT, **self.arguments_of(), **parameters)
                self.assertEqual(error.args[0], "Can't remove instance's disks")
                self.assertEqual(self.state()[0], "down")
                self.assertIn(f"      Hint: To go on: gnt-instance remove {NAME}", self.world.lines)
            mend()
            self.assertEqual(self.contents(), [("data of 0",)])

    def test_compress(self) -> None:
        """With one of the cluster's tools."""
        self.prepare()
        self.export(compress="gzip")
        options = [
            arguments[0]["compress"]
            for (_, name), arguments in zip(self.calls, self.arguments, strict=True)
            if name in ("import_start", "export_start")
        ]
        self.assertEqual(options, ["gzip", "gzip"])

    def test_replaces_older(self) -> None:
        """The older export goes: on the same node, and on others."""
        self.prepare()
        self.export(target_node="node4")
        self.assertEqual(list(self.exports("node4")), [NAME])
        self.fill("newer")
        self.export()
        self.assertEqual(self.exports("node4"), {})
        self.fill("newest")
        self.export()
        self.assertEqual(self.contents(), [("newest of 0",)])
        self.assertNothingLeft()

    def test_older_stays(self) -> None:
        """One that can't be removed is a warning: the new one is complete."""
        self.prepare()
        self.export(target_node="node4")
        mend = self.break_call("export_remove", "node4")
        self.export()
        mend()
        self.assertIn(
            f" - WARNING: Could not remove older export for instance {NAME} on node node4: broken",
            self.world.lines,
        )

    def test_hooks(self) -> None:
        """What they are told, also when the instance is gone."""
        self.prepare()
        self.export(remove_instance=True)
        for told in self.hook_variables():
            self.assertEqual(told["GANETI_EXPORT_MODE"], "local")
            self.assertEqual(told["GANETI_EXPORT_NODE"], "node3")
            self.assertEqual(told["GANETI_EXPORT_DO_SHUTDOWN"], "True")
            self.assertEqual(told["GANETI_REMOVE_INSTANCE"], "True")
            self.assertEqual(told["GANETI_INSTANCE_NAME"], NAME)
        nodes = {node for node, name in self.calls if name == "hooks_runner"}
        self.assertEqual(nodes, {"node1", "node2", "node3"})

    def test_locks(self) -> None:
        """The instance and the node that gets it."""
        self.prepare()
        self.assertEqual(
            self.locks_of(EXPORT, **self.arguments_of()),
            {
                "instance": ([NAME], True),
                "node": ([self.world.now.node("node3").uuid], True),
            },
        )


class DocumentTests(BackupScene):
    """What is written beside the disks."""

    sizes = (64,)

    def config(self) -> str:
        """Exports; returns config.ini."""
        self.export()
        return str(self.exports()[NAME].config)

    def test_private(self) -> None:
        """Private parameters are left out, unless a tag of instance or cluster asks for them."""
        about = {"osparams": {"rate": "100%"}, "osparams_private": {"password": "s3cret"}}
        self.prepare(**about)
        text = self.config()
        self.assertNotIn("s3cret", text)
        self.assertIn("rate = 100%%", text)
        self.assertIn("[os_private]\n\n", text)
        tag = "ganeti-masterd:export-private-parameters"
        self.prepare(**about, tags=(tag,))
        self.assertIn("password = s3cret", self.config())
        self.prepare(**about)
        self.modify(self.world.now.cluster.uuid, lambda now: replace(now, tags=(tag,)))
        self.assertIn("password = s3cret", self.config())

    def test_percent(self) -> None:
        """A node refuses a single percent sign, wherever it stands."""
        nic = Nic(mac="aa:00:00:00:00:01", name="50%", nicparams={"link": "br%d"}, uuid="nic")
        self.prepare(nics=(nic,), osparams={"rate": "%(x)s 100%"}, hvparams={})
        disk = self.world.now.disks_of(self.now())[0]
        self.modify(disk.uuid, lambda now: replace(now, name="a%b"))
        text = self.config()
        for line in ("rate = %%(x)s 100%%", "nic0_name = 50%%", "nic0_link = br%%d"):
            self.assertIn(line, text)
        self.assertIn("disk0_name = a%%b", text)
        read = read_document(text)
        self.assertEqual(read.osparams["rate"], "%(x)s 100%")
        self.assertEqual((read.nics[0]["name"], read.nics[0]["link"]), ("50%", "br%d"))
        self.assertEqual(read.disks[0].name, "a%b")


class RefusalTests(BackupScene):
    """Each says why, and changes nothing."""

    def refused(self, text: str, code: str, **parameters: object) -> None:
        """Expects a refusal, before anything was done."""
        self.forget()
        self.assertRefused(text, code, EXPORT, **{**self.arguments_of(), **parameters})
        self.assertFalse(
            {name for _, name in self.calls}
            - {"export_list", "node_verify", "hooks_runner", "instance_info"}
        )
        self.assertNothingLeft()

    def test_arguments(self) -> None:
        """Those of any instance."""
        self.prepare()
        for text, code, parameters in (
            (
                "Can not remove instance without shutting it down before",
                "wrong_state",
                {"remove_instance": True, "shutdown": False},
            ),
            ("Node 'nosuch' not known", "unknown_entity", {"target_node": "nosuch"}),
            (
                "Compression tool not allowed, tools allowed are [gzip, gzip-fast, gzip-slow]",
                "wrong_input",
                {"compress": "odd"},
            ),
            (
                "Zeroing timeout options can only be used only with the --zero-free-space option",
                "wrong_input",
                {"zeroing_timeout_fixed": 3},
            ),
            (
                "A zeroing image must be set for zeroing to work",
                "wrong_input",
                {"zero_free_space": True},
            ),
            (
                "The long sleep option only makes sense when the instance can be shut down.",
                "wrong_input",
                {"long_sleep": True, "shutdown": False},
            ),
            ("A local export needs the name of a node", "wrong_input", {"target_node": []}),
            ("A remote export needs the places of the disks", "wrong_input", {"mode": "remote"}),
            (
                "Missing X509 key name for encryption",
                "wrong_input",
                {"mode": "remote", "target_node": []},
            ),
            (
                "Missing destination X509 CA",
                "wrong_input",
                {"mode": "remote", "target_node": [], "x509_key_name": ["key", "0", "0"]},
            ),
        ):
            self.refused(text, code, **parameters)

    def test_zeroing(self) -> None:
        """The guest must be able to stop, and must boot from its disk."""
        self.prepare(up=False, hypervisor="kvm")
        self.refused(
            "Instance shutdown detection must be enabled for zeroing to work",
            "wrong_input",
            zero_free_space=True,
        )
        self.modify(
            self.now().uuid,
            lambda now: replace(now, hvparams={"user_shutdown": True, "boot_order": "network"}),
        )
        self.refused(
            "Booting from disk must be set for zeroing to work",
            "wrong_input",
            zero_free_space=True,
        )

    def test_snapshots(self) -> None:
        """Refused before the instance is stopped, not after."""
        self.prepare("file")
        self.refused(
            "Not all disks could be snapshotted, and you requested a live export; aborting",
            "wrong_state",
            shutdown=False,
        )
        self.refused(
            "Not all disks could be snapshotted, and you did not allow the instance to remain "
            "offline for a longer time through the --long-sleep option; aborting",
            "wrong_state",
        )

    def test_no_disks(self) -> None:
        """There is nothing to copy."""
        self.prepare("diskless")
        self.refused(f"Instance {NAME} has no disks: there is nothing to export", "wrong_state")

    def test_nodes(self) -> None:
        """One that is drained, or offline; the source as well."""
        self.prepare()
        self.world.run("OP_NODE_SET_PARAMS", node_name="node3", drained=True)
        self.refused("Can't use drained node node3", "wrong_state")
        self.set_offline("node4")
        self.refused("Can't use offline node: node4", "wrong_state", target_node="node4")
        self.set_offline("node2")
        self.refused("Can't use offline node: node2", "wrong_state", target_node="node1")
