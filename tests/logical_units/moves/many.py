"""Two groups of nodes with instances that are to move, and the jobs that are submitted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import succeed

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.opcodes.base import COMMON_PARAMETERS
from ganeti_masterd.rpc.interfaces import NodeResult
from tests.logical_units.instances.scene import InstanceScene

FAR_NODES = ("node5", "node6", "node7")

#: The instance that every test world has, mirrored on node2 and node3.
WEB = "web.example.com"


def told(op: Any) -> tuple[Any, ...]:
    """Returns an opcode's id, and those of its own parameters that aren't as by default."""
    defaults = dict(zip(op.__struct_fields__[::-1], op.__struct_defaults__[::-1], strict=False))
    fields = {
        name: getattr(op, name)
        for name in op.__struct_fields__
        if name not in COMMON_PARAMETERS and getattr(op, name) != defaults.get(name)
    }
    return op.op_id.removeprefix("OP_INSTANCE_"), fields


class MovingScene(InstanceScene):
    """Base: node1 to node4 are in the group "default", node5 to node7 in "far"."""

    def renew(self, **settings: Any) -> None:
        """Starts anew."""
        super().renew(**{"nodes": 7, **settings})
        self.world.run("OP_GROUP_ADD", group_name="far")
        self.world.run("OP_GROUP_ASSIGN_NODES", group_name="far", nodes=FAR_NODES)
        cluster = self.world.now.cluster
        self.modify(cluster.uuid, lambda now: replace(now, default_iallocator=""))
        (disk,) = self.world.now.disks_of(self.now(WEB))
        halves = tuple(
            Disk(
                uuid=f"d-web-{kind}",
                dev_type="plain",
                size=size,
                logical_id=("xenvg", f"web_{kind}"),
                nodes=disk.nodes,
            )
            for kind, size in (("data", disk.size), ("meta", 128))
        )
        self.modify(disk.uuid, lambda now: replace(now, children=halves))
        self.forget()

    @property
    def default(self) -> str:
        """The uuid of the first group."""
        return self.world.now.group("default").uuid

    @property
    def far(self) -> str:
        """The uuid of the second group."""
        return self.world.now.group("far").uuid

    def uuids(self, *names: str) -> list[str]:
        """Returns the uuids of nodes, sorted as ``locks_of`` sorts them."""
        return sorted(self.world.now.node(name).uuid for name in names)

    def jobs(self, op_id: str, **parameters: Any) -> list[list[tuple[Any, ...]]]:
        """Runs an opcode; returns what :func:`told` tells of the jobs that it submitted."""
        self.world.submitted.clear()
        self.world.lines.clear()
        result = self.world.run(op_id, **parameters)
        self.assertEqual(self.world.faults(), [])
        self.assertEqual(len(result["jobs"]), len(self.world.submitted))
        self.assertTrue(all(good is True for good, _ in result["jobs"]))
        self.assertEqual(len({job for _, job in result["jobs"]}), len(self.world.submitted))
        return [[told(op) for op in job] for job in self.world.submitted]

    def refuses(self, text: str, code: str, op_id: str, **parameters: Any) -> None:
        """Expects a refusal, after which no job is submitted."""
        self.world.submitted.clear()
        self.assertRefused(text, code, op_id, **parameters)
        self.assertEqual(self.world.submitted, [])

    def allocator_says(self, result: Any = (), *, success: bool = True, info: str = "fine") -> None:
        """Has any script that is named answer this."""
        text = json.dumps({"success": success, "info": info, "result": result})
        inner = self.world.nodes.call
        self.scripts: list[Any] = []

        def call(targets: Any, procedure: str, arguments: Any = (), **options: Any) -> Any:
            if procedure != "iallocator_runner":
                return inner(targets, procedure, arguments, **options)
            (target,) = targets
            self.scripts.append(arguments(target) if callable(arguments) else arguments)
            return succeed({target.key: NodeResult(target.name, procedure, text)})

        self.world.nodes.call = call  # type: ignore[method-assign]

    def asked(self) -> tuple[str, Any, Any]:
        """Returns the name, the request and the options of the one script that was run."""
        ((name, document, options),) = self.scripts
        return name, json.loads(document)["request"], options

    def forthcoming(self, name: str) -> None:
        """Makes an instance one that is only planned."""
        self.modify(self.now(name).uuid, lambda now: replace(now, forthcoming=True))

    def set_node(self, name: str, **about: Any) -> None:
        """Changes a node."""
        self.world.run("OP_NODE_SET_PARAMS", node_name=name, force=True, **about)
        self.forget()

    def fill(self, template: str, pairs: Sequence[Sequence[str]]) -> list[str]:
        """Makes an instance on each of these nodes; returns their names."""
        names = [f"i{number}" for number in range(1, len(pairs) + 1)]
        for name, nodes in zip(names, pairs, strict=True):
            self.make(template, nodes, name)
        return names
