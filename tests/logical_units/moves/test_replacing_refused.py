"""OP_INSTANCE_REPLACE_DISKS: what it refuses, what it locks, and what hooks are told."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from ganeti_masterd.config.parameters import effective
from tests.logical_units.instances.scene import NAME
from tests.logical_units.moves.scene import MirrorScene

OP = "OP_INSTANCE_REPLACE_DISKS"
NEW = {"mode": "replace_new_secondary"}
IN_PLACE = {"mode": "replace_on_secondary"}
AUTO = {"mode": "replace_auto"}


class RefusalTests(MirrorScene):
    """Everything that can be refused is refused before anything changes."""

    def refused(self, text: str, code: str, **parameters: Any) -> None:
        """Expects a refusal, of an instance whose mirrors stay as they are."""
        self.assertRefused(text, code, OP, instance_name=NAME, **parameters)
        self.assertFalse(
            {call for _, call in self.calls}
            - {
                "blockdev_find",
                "blockdev_getmirrorstatus",
                "lv_list",
                "node_info",
                "all_instances_info",
            }
        )

    def test_nodes_without_a_mode(self) -> None:
        """Only a new secondary node can be named, in one of two ways."""
        self.made()
        missing = (
            "When changing the secondary either an iallocator script must be used or the new node "
            "given"
        )
        self.refused(missing, "wrong_input", **NEW)
        self.refused(
            "Do not specify both, iallocator and node",
            "wrong_input",
            **NEW,
            iallocator="hail",
            remote_node="node4",
        )
        for mode in (IN_PLACE, AUTO, {"mode": "replace_on_primary"}):
            for about in ({"iallocator": "hail"}, {"remote_node": "node4"}):
                self.refused(
                    "The iallocator and new node options can only be used when changing the "
                    "secondary node",
                    "wrong_input",
                    **mode,
                    **about,
                )

    def test_names(self) -> None:
        """The instance and the node have to be there."""
        self.made()
        self.assertRefused(
            "Instance 'nosuch' not known", "unknown_entity", OP, instance_name="nosuch", **IN_PLACE
        )
        self.refused("Node 'nosuch' not known", "unknown_entity", **NEW, remote_node="nosuch")
        uuid = self.world.now.node("node4").uuid
        self.refused(
            f"The nodes UUID '{uuid}' does not match the expected UUID 'x' for node 'node4'. Maybe "
            "the node changed since you submitted this job.",
            "resource_not_unique",
            **NEW,
            remote_node="node4",
            remote_node_uuid="x",
        )

    def test_layout(self) -> None:
        """Without exactly one secondary node there is nothing to replace from."""
        for template in ("plain", "diskless", "sharedfile"):
            self.renew()
            self.make(template, ("node2",))
            for mode in (
                IN_PLACE,
                AUTO,
                {**NEW, "remote_node": "node4"},
                {**NEW, "iallocator": "."},
            ):
                self.refused(
                    "The instance has a strange layout, expected one secondary but found 0",
                    "internal_error",
                    **mode,
                )

    def test_own_nodes(self) -> None:
        """They are not new; that comes before the refusal of disks."""
        self.made()
        for node, text in (
            ("node2", "The specified node is the primary node of the instance"),
            ("node3", "The specified node is already the secondary node of the instance"),
        ):
            for disks in ([], [0]):
                self.refused(text, "wrong_input", **NEW, remote_node=node, disks=disks)

    def test_disks(self) -> None:
        """A mode that chooses by itself takes none; others take those that are there."""
        self.made()
        for mode in (AUTO, {**NEW, "remote_node": "node4"}):
            self.refused("Cannot specify disks to be replaced", "wrong_input", **mode, disks=[0])
        self.refused(
            f"Invalid disk index: 5 (instance {NAME} has disks 0 to 1)",
            "wrong_input",
            **IN_PLACE,
            disks=[0, 5],
        )

    def set_node(self, name: str, **flags: bool) -> None:
        """Changes the flags of a node."""
        self.world.run("OP_NODE_SET_PARAMS", node_name=name, force=True, **flags)
        self.forget()

    def test_nodes(self) -> None:
        """Those that are used must be usable."""
        self.made()
        for flag, text in (
            ("drained", "Can't use drained node node4"),
            ("offline", "Can't use offline node: node4"),
        ):
            self.set_node("node4", **{flag: True})
            self.refused(text, "wrong_state", **NEW, remote_node="node4")
            self.set_node("node4", **{flag: False})
        self.set_node("node4", vm_capable=False)
        text = "Can't use non-vm_capable node node4"
        self.refused(text, "wrong_state", **NEW, remote_node="node4")
        self.set_offline("node3")
        for mode in (IN_PLACE, AUTO, {"mode": "replace_on_primary"}):
            self.refused("Can't use offline node: node3", "wrong_state", **mode)

    def test_primary_offline(self) -> None:
        """The data are there."""
        self.made(up=False)
        self.set_offline("node2")
        for mode in (IN_PLACE, {**NEW, "remote_node": "node4"}):
            self.refused("Can't use offline node: node2", "wrong_state", **mode)

    def test_room(self) -> None:
        """The new node must have its volume group, and room for data and metadata."""
        self.made()
        self.throw("fill", "node4", "xenvg", "348")
        self.refused(
            "Not enough disk space on target node node4 vg xenvg: required 352 MiB, available 348 "
            "MiB",
            "insufficient_resources",
            **NEW,
            remote_node="node4",
        )
        self.throw("fill", "node4", "xenvg", "352")
        self.world.run(OP, instance_name=NAME, **NEW, remote_node="node4")
        self.assertEqual(self.strays()["node4"], {"xenvg/filler"})

    def test_volumes_of_the_same_names(self) -> None:
        """What is on the new node already may be somebody's last copy."""
        self.made()
        name = min(self.configured()["node3"])
        self.throw("make-lv", "node4", name, "64")
        self.refused(
            f"Node node4 has volumes that are called as those of instance {NAME}, and may hold old "
            f"data: {name}; remove them first",
            "already_exists",
            **NEW,
            remote_node="node4",
        )
        self.assertIn(name, self.volumes("node4"))

    def test_exclusive_storage(self) -> None:
        """Mirrors can't be on nodes that keep physical volumes apart."""
        self.made()
        self.world.run("OP_GROUP_ADD", group_name="other", ndparams={"exclusive_storage": True})
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node4"], force=True)
        self.forget()
        self.refused(
            "Disk template drbd not supported with exclusive storage",
            "wrong_state",
            **NEW,
            remote_node="node4",
        )

    def test_policy(self) -> None:
        """That of the new node's group counts if it is another group; it can be ignored."""
        self.made()
        self.world.run("OP_GROUP_ADD", group_name="other")
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="other", nodes=["node4"], force=True)
        group = self.world.now.group("other")
        policy = effective.instance_policy(self.world.now.cluster, group)
        self.modify(
            group.uuid, lambda now: replace(now, ipolicy={**policy, "disk-templates": ("plain",)})
        )
        self.forget()
        text = (
            "Instance does not meet target node group's (other) instance policy: Disk template "
            "drbd is not allowed (allowed templates: plain)"
        )
        self.refused(text, "wrong_input", **NEW, remote_node="node4")
        self.world.run(OP, instance_name=NAME, **NEW, remote_node="node4", ignore_ipolicy=True)
        self.assertIn(f" - WARNING: {text}", self.world.lines)
        self.assertWhole()

    def test_allocator_finds_nothing(self) -> None:
        """No node is left."""
        self.made()
        for name in ("node1", "node4"):
            self.set_node(name, vm_capable=False)
        error = self.fails(OP, instance_name=NAME, **NEW, iallocator="builtin")
        self.assertEqual(error.args[1], "insufficient_resources")
        self.assertIn("Can't compute nodes using iallocator 'builtin'", error.args[0])

    def test_both_faulty(self) -> None:
        """Nobody knows which half is right."""
        self.made()
        self.throw("detach", "node3", NAME, "0")
        self.throw("detach", "node2", NAME, "1")
        self.refused(
            f"Instance {NAME} has faulty disks on more than one node and can not be repaired "
            "automatically",
            "wrong_state",
            **AUTO,
        )
        self.assertIn(" - INFO: Faulty on node2: disk/1", self.world.lines)
        self.assertIn(" - INFO: Faulty on node3: disk/0", self.world.lines)

    def test_status_unknown(self) -> None:
        """A node that can't say which disks are faulty."""
        for node in ("node2", "node3"):
            self.renew()
            self.made()
            self.break_call("blockdev_getmirrorstatus", node)
            self.refused(
                f"Failed to get disk status from node {node}: broken", "environment_error", **AUTO
            )

    def test_peer_is_not_whole(self) -> None:
        """The node that is to be the source must have all data."""
        for command, mode, node in (
            (("detach", "node2", NAME, "0"), IN_PLACE, "node2"),
            (("detach", "node2", NAME, "0"), {**NEW, "remote_node": "node4"}, "node2"),
            (("detach", "node3", NAME, "0"), {"mode": "replace_on_primary"}, "node3"),
            (("disconnect", "node2", NAME), IN_PLACE, "node2"),
        ):
            self.renew()
            self.made()
            self.throw(*command)
            self.assertFails(
                f"Node {node} has degraded storage, unsafe to replace disks for instance {NAME} "
                "(disk/0)",
                OP,
                instance_name=NAME,
                **mode,
            )
            self.assertEqual(self.strays(), {})
            self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
            self.let_sync()
            self.assertWhole()

    def test_peer_is_being_filled(self) -> None:
        """The message says how far that is."""
        self.made()
        self.throw("sync-speed", "1")
        self.throw("detach", "node3", NAME)
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.world.clock.advance(8.0)
        self.assertFails(
            f"Node node2 has degraded storage, unsafe to replace disks for instance {NAME} "
            "(disk/0 is being synchronized, 12.5% done)",
            OP,
            instance_name=NAME,
            **IN_PLACE,
        )

    def test_primary_device_is_gone(self) -> None:
        """It is not brought up by the way: it may be in use elsewhere."""
        self.made(up=False)
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME)
        self.throw("down", "node2", NAME, "1")
        for mode in (IN_PLACE, {**NEW, "remote_node": "node4"}):
            self.assertFails(
                "Can't find disk/1 on node node2: disk not found\nDisks seem to be not properly "
                "activated. Try running activate-disks on the instance before using replace-disks.",
                OP,
                instance_name=NAME,
                **mode,
            )

    def test_volume_group_is_gone(self) -> None:
        """There is nowhere to put the new volumes."""
        self.made()
        self.break_call("vg_list", "node3", kind="garbage", payload={"other": 1.0})
        self.assertFails(
            "Volume group 'xenvg' not found on node node3", OP, instance_name=NAME, **IN_PLACE
        )
        self.assertWhole()


class LockTests(MirrorScene):
    """What is held, and where hooks run."""

    def test_locks(self) -> None:
        """Its nodes and the new one; with an allocator the groups of its nodes with all members.

        As a resource only the one that is filled, unless it is still to be found.
        """
        self.made()
        known = {node.name: node.uuid for node in self.world.now.nodes.values()}
        own = sorted((known["node2"], known["node3"]))
        every = sorted(known.values())
        for parameters, nodes, filled in (
            (IN_PLACE, own, [known["node3"]]),
            ({"mode": "replace_on_primary"}, own, [known["node2"]]),
            ({"mode": "replace_auto"}, own, own),
            ({**NEW, "remote_node": "node4"}, sorted([*own, known["node4"]]), [known["node4"]]),
            ({**NEW, "iallocator": "hail"}, every, every),
        ):
            found = self.locks_of(OP, instance_name=NAME, **parameters)
            expected: dict[str, Any] = {
                "instance": ([NAME], True),
                "node": (nodes, True),
                "node-res": (filled, True),
            }
            if "iallocator" in parameters:
                expected["nodegroup"] = ([self.world.now.group("default").uuid], False)
            self.assertEqual(found, expected)

    def test_hooks(self) -> None:
        """On the master, the primary and the node named; afterwards the new secondary is told."""
        for parameters, new, after, nodes in (
            ({**NEW, "remote_node": "node4"}, "node4", "node4", ["node1", "node2", "node4"]),
            (IN_PLACE, "None", "node3", ["node1", "node2"]),
        ):
            self.renew()
            self.made()
            self.world.run(OP, instance_name=NAME, **parameters)
            told = [
                (arguments[1], node)
                for (node, call), arguments in zip(self.calls, self.arguments, strict=True)
                if call == "hooks_runner" and arguments[0] == "mirrors-replace"
            ]
            self.assertEqual(told, [(phase, node) for phase in ("pre", "post") for node in nodes])
            before, later = self.hook_variables()
            self.assertEqual(before["GANETI_MODE"], parameters["mode"])
            self.assertEqual(before["GANETI_NEW_SECONDARY"], new)
            self.assertEqual(before["GANETI_OLD_SECONDARY"], "node3")
            self.assertEqual(before["GANETI_INSTANCE_SECONDARIES"], "node3")
            self.assertEqual(later["GANETI_POST_OLD_SECONDARY"], after)
            self.assertEqual(later["GANETI_OLD_SECONDARY"], "node3")
