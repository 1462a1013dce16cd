"""An export that breaks off: nothing of it looks whole, and the instance is as it was."""

from __future__ import annotations

from typing import Any

from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.switches import throw
from tests.logical_units.backups.scene import EXPORT, BackupScene
from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.moving import Crash


class BrokenExportTests(BackupScene):
    """The instance has an older export on node3, and one on node4."""

    def arrange(self, template: str = "plain", *, up: bool = True) -> None:
        """Makes the cluster, with older exports."""
        self.prepare(template, up=up)
        self.fill("old")
        node4 = self.world.nodes.node("node4").state
        self.export(target_node="node4", long_sleep=True)
        kept = self.exports("node4")[NAME]
        self.export(long_sleep=True)
        node4.exports[NAME] = kept
        self.fill("new")
        self.forget()

    def assertOneExport(self) -> bool:
        """Expects the old export or the new one, whole; returns whether it is the new one."""
        held = self.exports()[NAME]
        self.assertIsNotNone(held.config)
        contents = self.contents()
        new = [("new of 0",), ("new of 1",)]
        self.assertIn(contents, ([("old of 0",), ("old of 1",)], new))
        for dump in held.dumps:
            self.assertIn(dump, str(held.config))
        return contents == new

    def again(self) -> None:
        """Exports once more, with all mended: that must do."""
        self.world.nodes.faults.clear()
        self.lost.clear()
        # Daemons whose start nobody heard of wait for the other end, then give up.
        self.world.clock.advance(100)
        self.export(long_sleep=True)
        self.assertTrue(self.assertOneExport())
        self.assertEqual(list(self.exports()), [NAME])
        self.assertEqual(self.exports("node4"), {})

    def assertAsBefore(self, up: bool, context: object) -> None:
        """Expects the instance in the state in which it was."""
        state = ("up", "admin", True, ["node2"]) if up else ("down", "admin", False, [])
        self.assertEqual(self.state(), state, context)

    def test_each_call(self) -> None:
        """Each call fails once; what can be taken back is, and the export says so."""
        for template, up in (("plain", True), ("file", True), ("drbd", False)):
            for node, procedure in self.each(template, up):
                self.arrange(template, up=up)
                mend = self.break_call(procedure, node, count=1)
                failed = False
                try:
                    self.world.run(EXPORT, **self.all())
                except Exception as error:
                    failed = True
                    self.assertIn("broken", f"{error} {self.world.lines}", (node, procedure))
                mend()
                context = (template, node, procedure)
                new = self.assertOneExport()
                if failed:
                    self.assertTrue(
                        any("failed at the step" in line for line in self.world.lines), context
                    )
                    if not new:
                        self.assertAsBefore(up, context)
                        self.assertEqual(list(self.exports()), [NAME], context)
                else:
                    self.assertTrue(new, context)
                self.assertEqual(self.world.faults(), [])
                self.again()

    def all(self) -> dict[str, Any]:
        """Returns the parameters of the export that is broken off."""
        return {**self.arguments_of(), "long_sleep": True}

    def each(self, template: str, up: bool) -> list[tuple[str, str]]:
        """Returns the calls that the export makes."""
        parameters = self.all()
        del parameters["instance_name"]
        return list(self.each_call(lambda: self.arrange(template, up=up), EXPORT, **parameters))

    def test_snapshot_stays(self) -> None:
        """A snapshot that can't be removed is a warning: the copy is whole."""
        self.arrange()
        self.break_call("blockdev_remove", "node2")
        self.assertEqual(self.export(), (True, [True, True]))
        self.assertTrue(self.assertOneExport())
        self.assertTrue(
            any("Could not remove the snapshot" in line for line in self.world.lines),
            self.world.lines,
        )

    def test_lost(self) -> None:
        """The same where the node did what it was asked to, and nobody heard of it."""
        for up in (True, False):
            for each in self.each("plain", up):
                self.arrange(up=up)
                self.lost.append(each)
                self.world.try_run(EXPORT, **self.all())
                self.assertOneExport()
                if each[1] not in ("instance_start", "blockdev_assemble", "blockdev_shutdown"):
                    self.assertAsBefore(up, each)
                self.again()

    def test_killed(self) -> None:
        """A kill leaves the old export or the new one, and nothing else."""
        for template, up in (("plain", True), ("file", True), ("plain", False)):
            for moment in self.each_kill(
                lambda template=template, up=up: self.arrange(template, up=up),  # type: ignore[misc]
                EXPORT,
                **self.all(),
            ):
                self.assertOneExport()
                self.assertAsBefore(up, moment)
                self.assertNothingLeft()

    def test_killed_removal(self) -> None:
        """An instance that was to be removed is there as it was, or in the export."""
        for _ in self.each_kill(self.arrange, EXPORT, **self.all(), remove_instance=True):
            new = self.assertOneExport()
            if not new:
                self.assertAsBefore(True, None)
            self.assertNothingLeft()

    def test_crashes(self) -> None:
        """The daemon ends at any call: the same command again makes it good."""
        for number in range(200):
            self.arrange()
            self.crash_after = number
            try:
                self.world.run(EXPORT, **self.all())
            except Crash:
                self.crash_after = None
            else:
                break
            self.assertOneExport()
            self.world.run("OP_INSTANCE_STARTUP", instance_name=NAME)
            self.again()
            self.world.clock.advance(200)
            self.world.nodes.world.transfers.settle()
            for node in ("node2", "node3"):
                state = self.world.nodes.node(node).state
                self.assertEqual([each for each in state.devices if each.endswith(".snap")], [])
        self.assertGreater(number, 20)

    def test_one_disk(self) -> None:
        """One disk of two can't be read: the export has failed, and says which disk."""
        self.arrange()
        self.world.nodes.faults.add(
            SimulatedFault(call="export_start", node="node2", kind="error", text="bad", count=1)
        )
        self.assertFails("Export failed, errors in disk export: disk(s) 0", EXPORT, **self.all())
        self.assertFalse(self.assertOneExport())
        self.assertIn(" - WARNING: export 'disk0' on node2 failed: bad", self.world.lines)
        self.assertIn("snapshot/1 finished sending data", self.world.lines)
        self.assertNothingLeft()

    def test_one_disk_breaks(self) -> None:
        """One disk of two stops half-way."""
        self.arrange()
        transfers = self.world.nodes.world.transfers

        def abort() -> None:
            for name, transfer in self.world.nodes.world.cluster.transfers.items():
                if name.startswith("export-disk1") and transfer.connected is not None:
                    transfers.abort(transfer.node, name)

        self.world.meanwhile = [abort] * 60
        self.assertFails("Export failed, errors in disk export: disk(s) 1", EXPORT, **self.all())
        self.assertFalse(self.assertOneExport())
        self.assertNothingLeft()

    def test_link_cut(self) -> None:
        """The nodes lose each other: no disk arrives."""
        self.arrange()
        throw(self.world.nodes, ["net", "node2", "node3", "down"])
        self.assertFails("Export failed, errors in disk export: disk(s) 0, 1", EXPORT, **self.all())
        self.assertFalse(self.assertOneExport())
        self.assertAsBefore(True, None)
        self.assertNothingLeft()

    def test_target_dies(self) -> None:
        """From some call on the target says nothing: the instance runs, its snapshots are gone."""
        for procedure in ("import_start", "impexp_status", "finalize_export"):
            self.arrange()
            self.world.nodes.faults.add(
                SimulatedFault(call=procedure, node="node3", kind="error", text="gone")
            )
            for each in ("impexp_abort", "impexp_cleanup", "export_list", "export_remove"):
                if procedure != "import_start" or each != "export_list":
                    self.world.nodes.faults.add(
                        SimulatedFault(call=each, node="node3", kind="error", text="gone", after=1)
                        if each == "export_list"
                        else SimulatedFault(call=each, node="node3", kind="error", text="gone")
                    )
            self.fails(EXPORT, **self.all())
            self.assertFalse(self.assertOneExport())
            self.assertAsBefore(True, procedure)
            devices = self.world.nodes.node("node2").state.devices
            self.assertEqual([each for each in devices if each.endswith(".snap")], [])
            self.again()

    def test_finalized_unheard(self) -> None:
        """A target that answers too late has given the export its name: that counts."""
        self.arrange()
        self.lost.append(("node3", "finalize_export"))
        self.assertEqual(self.world.run(EXPORT, **self.all()), (True, [True, True]))
        self.assertTrue(self.assertOneExport())
