"""OP_BACKUP_REMOVE: exports go from all nodes."""

from __future__ import annotations

from msgspec.structs import replace

from ganeti_masterd.simulation.state import StoredExport
from tests.logical_units.backups.scene import BackupScene
from tests.logical_units.instances.scene import NAME
from tests.logical_units.world import Refused

REMOVE = "OP_BACKUP_REMOVE"

NOT_FOUND = (
    "Export not found. If trying to remove an export belonging to a deleted instance please use "
    "its Fully Qualified Domain Name."
)


class RemoveTests(BackupScene):
    """One export on node3 and one on node4, of which one isn't complete."""

    sizes = (64,)

    def arrange(self) -> None:
        """Makes the cluster with exports."""
        self.prepare()
        self.export()
        state = self.world.nodes.node("node4").state
        state.facts["exports"] = []
        other = state.exports
        other[NAME] = StoredExport()
        other[NAME + ".new"] = StoredExport()
        other["another"] = StoredExport()
        self.forget()

    def remove(self, name: str = NAME) -> None:
        """Removes the exports of an instance."""
        self.assertIsNone(self.world.run(REMOVE, instance_name=name))

    def test_all(self) -> None:
        """From both nodes, with what isn't complete; a node without any isn't worth a word."""
        self.arrange()
        self.remove()
        self.assertEqual(self.exports(), {})
        self.assertEqual(list(self.exports("node4")), ["another"])
        self.assertEqual(self.world.lines, [])
        self.assertNotIn("hooks_runner", [name for _, name in self.calls])

    def test_name_of_another(self) -> None:
        """The export of an instance that is called as an unfinished one would be stays."""
        self.prepare()
        self.export()
        state = self.world.nodes.node("node3").state
        other = f"{NAME}.new"
        whole = state.exports[NAME]
        text = str(whole.config).replace(f"name = {NAME}", f"name = {other}")
        state.exports[other] = replace(whole, config=text)
        self.world.run("OP_BACKUP_REMOVE", instance_name=NAME)
        self.assertEqual(list(self.exports()), [other])
        error = self.assertRaises(Refused, self.export)
        self.assertIn(f"is that of instance {other}, and in the way", str(error))
        self.assertEqual(list(self.exports()), [other])

    def test_nothing(self) -> None:
        """Of an instance without exports: nothing is said; of an unknown name it is."""
        self.prepare()
        self.remove()
        self.assertEqual(self.world.lines, [])
        self.remove("nosuch")
        self.assertEqual(self.world.lines, [NOT_FOUND])
        self.remove("../../etc")
        self.assertEqual(self.world.lines, [NOT_FOUND] * 2)

    def test_instance_gone(self) -> None:
        """By its name alone."""
        self.arrange()
        self.world.run("OP_INSTANCE_REMOVE", instance_name=NAME)
        self.remove()
        self.assertEqual(self.exports(), {})

    def test_failure(self) -> None:
        """One that stays fails the job, and doesn't keep the others."""
        self.arrange()
        mend = self.break_call("export_remove", "node3")
        self.assertFails(
            f"Could not remove {NAME} from node node3 (broken)", REMOVE, instance_name=NAME
        )
        self.assertEqual(list(self.exports("node4")), ["another"])
        mend()
        self.remove()
        self.assertEqual(self.exports(), {})

    def test_silent_node(self) -> None:
        """A node that can't say what it has is named once."""
        self.arrange()
        self.break_call("export_list", "node3")
        self.remove()
        self.assertEqual(
            self.world.lines,
            [" - WARNING: Failed to query node node3 (continuing): broken"],
        )
        self.assertEqual(list(self.exports()), [NAME])

    def test_locks(self) -> None:
        """Only nodes that have something are held while it goes."""
        self.arrange()
        held = []
        nodes = {self.world.now.node(name).uuid for name in ("node3", "node4")}
        self.world.meanwhile = [
            lambda: None,
            lambda: held.extend(row for row in self.world.locks.rows()),
        ]
        self.remove()
        names = {row.name for row in held if row.mode}
        for uuid in (node.uuid for node in self.world.now.nodes.values()):
            self.assertEqual(f"node/{uuid}" in names, uuid in nodes)
