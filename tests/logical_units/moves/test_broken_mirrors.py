"""Broken mirrors are found (OP_GROUP_VERIFY_DISKS) and mended, and volume groups repaired."""

from __future__ import annotations

from typing import Any

from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.scene import MirrorScene


class VerifyDisksTests(MirrorScene):
    """What ``gnt-cluster verify-disks`` lists, and activates, of broken mirrors."""

    def setUp(self) -> None:
        super().setUp()
        self.made()

    def verify(self) -> Any:
        """Verifies the disks of the group, of the instance of this test alone."""
        errors, inactive, missing = self.world.run("OP_GROUP_VERIFY_DISKS", group_name="default")
        self.assertEqual(self.world.faults(), [])
        return errors, inactive, missing

    def uuid(self, node: str) -> str:
        """Returns the uuid of a node."""
        return self.world.now.node(node).uuid

    def activate(self) -> None:
        """Does what ``gnt-cluster verify-disks`` does with the instances listed."""
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.let_sync()

    def test_sound(self) -> None:
        """Nothing is listed."""
        self.assertEqual(self.verify(), ({}, [], {}))
        self.assertEqual(self.world.lines, [])

    def test_mended_by_activation(self) -> None:
        """No volume is missing: the instance is listed, and to activate its disks mends it."""
        for command in (
            ("detach", "node3", NAME),
            ("detach", "node2", NAME, "0"),
            ("disconnect", "node3", NAME),
            ("disconnect", "node2", NAME, "1"),
            ("down", "node3", NAME),
            ("reboot", "node3"),
        ):
            self.renew()
            self.made()
            self.throw(*command)
            self.assertEqual(self.verify(), ({}, [NAME], {}), command)
            self.activate()
            self.assertEqual(self.verify(), ({}, [], {}), command)
            self.assertWhole()

    def test_mended_by_replacement(self) -> None:
        """Volumes are missing: the instance is listed with them, and replace-disks mends it."""
        for node in ("node2", "node3"):
            self.renew()
            self.made()
            self.throw("lose-lv", node, NAME, "1")
            lost = sorted(self.configured()[node] - self.volumes(node))
            errors, inactive, missing = self.verify()
            self.assertEqual((errors, inactive), ({}, [NAME]))
            self.assertEqual(sorted(missing), [NAME])
            self.assertEqual(
                sorted(map(tuple, missing[NAME])), [(self.uuid(node), each) for each in lost]
            )
            self.world.run("OP_INSTANCE_REPLACE_DISKS", instance_name=NAME, mode="replace_auto")
            self.assertEqual(self.verify(), ({}, [], {}))
            self.assertWhole()

    def test_ends_that_wait(self) -> None:
        """Each end is well by itself, but they don't talk: degraded, so it is listed."""
        self.throw("net", "node2", "node3", "down")
        self.assertEqual(self.verify(), ({}, [NAME], {}))
        self.assertEqual(
            self.world.lines,
            [
                f" - WARNING: disk/{index} of instance {NAME} is degraded on node node2 and is not "
                "being filled"
                for index in (0, 1)
            ],
        )
        self.throw("net", "node2", "node3", "up")
        self.activate()
        self.assertEqual(self.verify(), ({}, [], {}))

    def test_being_filled(self) -> None:
        """A mirror that is filled is degraded too, but nothing has to be done about it."""
        self.throw("sync-speed", "0.5")
        self.throw("detach", "node3", NAME)
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.assertEqual(self.verify(), ({}, [], {}))

    def test_offline(self) -> None:
        """With a secondary node that is offline there is nothing to activate."""
        self.throw("power", "node3", "off")
        self.set_offline("node3")
        self.assertEqual(self.verify(), ({}, [], {}))

    def test_dead(self) -> None:
        """A node that is dead, though not marked offline, is an error; its mirrors are listed."""
        self.throw("power", "node3", "off")
        errors, inactive, missing = self.verify()
        self.assertEqual(list(errors), [self.uuid("node3")])
        self.assertEqual((inactive, missing), ([NAME], {}))

    def test_primary_cannot_say(self) -> None:
        """A failure of the look at links hides nothing that others found."""
        self.throw("down", "node3", NAME, "1")
        self.break_call("blockdev_getmirrorstatus_multi")
        self.assertEqual(self.verify(), ({}, [NAME], {}))

    def test_inactive(self) -> None:
        """Disks that are down are nobody's concern."""
        self.world.run("OP_INSTANCE_SHUTDOWN", instance_name=NAME)
        self.throw("lose-lv", "node3", NAME)
        self.assertEqual(self.verify(), ({}, [], {}))

    def test_each_group(self) -> None:
        """A mirror over two groups is found in both."""
        self.world.run("OP_GROUP_ADD", group_name="other")
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node3"], force=True)
        self.throw("detach", "node3", NAME)
        for group in ("default", "other"):
            found = self.world.run("OP_GROUP_VERIFY_DISKS", group_name=group)
            self.assertEqual(found, [{}, [NAME], {}])


class RepairStorageTests(MirrorScene):
    """OP_REPAIR_NODE_STORAGE where mirrors are broken."""

    def setUp(self) -> None:
        super().setUp()
        self.made()

    def repair(self, node: str, **parameters: Any) -> None:
        """Repairs the volume group of a node."""
        self.world.run(
            "OP_REPAIR_NODE_STORAGE",
            node_name=node,
            storage_type="lvm-vg",
            name="xenvg",
            **parameters,
        )

    def refusal(self, node: str) -> tuple[str, str]:
        """Returns why a repair is refused."""
        parameters = {"node_name": node, "storage_type": "lvm-vg", "name": "xenvg"}
        text, code = self.fails("OP_REPAIR_NODE_STORAGE", **parameters).args
        self.assertNotIn((node, "storage_execute"), self.calls)
        return text, code

    def test_the_broken_half(self) -> None:
        """The node that lost volumes is repaired; then its disks are replaced."""
        for command in ("break-lv", "lose-lv"):
            self.renew()
            self.made()
            self.throw(command, "node3", NAME)
            self.repair("node3")
            self.assertEqual(self.calls[-1], ("node3", "storage_execute"))
            self.world.run("OP_INSTANCE_REPLACE_DISKS", instance_name=NAME, mode="replace_auto")
            self.assertWhole()

    def test_the_last_good_half(self) -> None:
        """Not on the node that has the only data, unless consistency is ignored."""
        for node, other in (("node2", "node3"), ("node3", "node2")):
            self.renew()
            self.made()
            self.throw("lose-lv", other, NAME, "1")
            self.assertEqual(
                self.refusal(node),
                (f"Instance '{NAME}' has faulty disks on node '{other}'", "wrong_state"),
            )
            self.repair(node, ignore_consistency=True)
            self.assertIn("has faulty disks on node", self.world.lines[0])

    def test_the_other_half_is_down(self) -> None:
        """What can't be asked counts as faulty."""
        self.throw("reboot", "node3")
        text, code = self.refusal("node2")
        self.assertIn("Failed to get disk status from node node3: Can't find device", text)
        self.assertEqual(code, "environment_error")

    def test_inactive(self) -> None:
        """Disks that are down, or on other nodes, are no obstacle."""
        self.throw("lose-lv", "node3", NAME)
        self.repair("node4")
        self.world.run("OP_INSTANCE_SHUTDOWN", instance_name=NAME)
        self.repair("node2")
