"""Mirrors of an instance on their simulated nodes: what they hold, and what breaks off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ganeti_masterd.config.objects import Disk
from ganeti_masterd.logical_units.steps import node_objects
from ganeti_masterd.logical_units.steps.procedure import carry_out
from ganeti_masterd.simulation.description import Description
from ganeti_masterd.simulation.devices import looked_up
from ganeti_masterd.simulation.ends import PRIMARY, UP_TO_DATE, SyncPace
from ganeti_masterd.simulation.switches import throw
from ganeti_masterd.simulation.volumes import of_node
from tests.logical_units.instances.scene import NAME, InstanceScene

#: Mirrors are filled with so many MiB a second.
SPEED = 32.0


class Crash(BaseException):
    """The daemon is gone: nothing that it would have done happens, nor is anything taken back."""


#: What the options of ``gnt-instance replace-disks`` stand for.
_MODES: Mapping[str, Mapping[str, str]] = {
    "-a": {"mode": "replace_auto"},
    "-n": {"mode": "replace_new_secondary"},
    "-p": {"mode": "replace_on_primary"},
    "-s": {"mode": "replace_on_secondary"},
}


def _step_of(crash: Crash) -> tuple[str, str]:
    """Returns what the innermost step that broke off says of the state it leaves, and its end."""
    found = ("", "")
    first: BaseException = crash
    while isinstance(first.__context__, Crash):
        first = first.__context__
    trace = first.__traceback__
    while trace is not None:
        about = trace.tb_frame.f_locals
        if trace.tb_frame.f_code is carry_out.__code__ and "step" in about:
            names = about["state"].names()
            found = (about["step"].leaves.format_map(names), about["step"].finish.format_map(names))
        trace = trace.tb_next
    return found


class MirrorScene(InstanceScene):
    """Base: nodes whose mirrors take time to fill; never two ends of one are written at once."""

    def renew(self, **settings: Any) -> None:
        """Starts anew; ``settings`` are those of a new cluster."""
        settings.setdefault("description", Description(pace=SyncPace(speed=SPEED)))
        super().renew(**settings)
        #: After how many calls to nodes the daemon is gone; None: never.
        self.crash_after: int | None = None
        inner = self.world.nodes.call

        def call(targets: Any, procedure: str, *arguments: Any, **options: Any) -> Any:
            if self.crash_after is not None:
                self.crash_after -= 1
                if self.crash_after < 0:
                    raise Crash
            done = inner(targets, procedure, *arguments, **options)
            self.assertNoTwoWriters()
            return done

        self.world.nodes.call = call  # type: ignore[method-assign]

    def assertNoTwoWriters(self) -> None:
        """Expects that no mirror is Primary at both its ends, and no instance runs twice."""
        writers: dict[int, list[str]] = {}
        for node in self.world.nodes.nodes():
            for minor, end in self.world.nodes.mirrors.of_node(node.name).items():
                if end.role == PRIMARY and end.link is not None:
                    port = int(end.link.local.rpartition(":")[2])
                    writers.setdefault(port, []).append(f"{node.name}/{minor}")
        self.assertEqual([each for each in writers.values() if len(each) > 1], [])
        self.assertLessEqual(len(self.where()), 1)

    def made(self, *, up: bool = True, sizes: tuple[int, ...] = (64, 32), **about: Any) -> None:
        """Makes an instance on node2 and node3, mirrors in sync."""
        self.make("drbd", sizes=sizes, **about)
        self.world.run("OP_INSTANCE_ACTIVATE_DISKS", instance_name=NAME, wait_for_sync=True)
        if up:
            self.world.run("OP_INSTANCE_STARTUP", instance_name=NAME)
        else:
            self.world.run("OP_INSTANCE_DEACTIVATE_DISKS", instance_name=NAME, force=True)
        self.forget()
        self.assertWhole(up=up)

    def throw(self, *command: str) -> str:
        """Throws a switch of the simulated nodes."""
        return throw(self.world.nodes, command)

    def volumes(self, node: str) -> set[str]:
        """Returns the volumes (``group/name``) of a node."""
        found = of_node(self.world.nodes.node(node))
        return {path.removeprefix("/dev/") for path, _ in found}

    def configured(self) -> dict[str, set[str]]:
        """Returns the volumes that each node should have, by the node's name."""
        found: dict[str, set[str]] = {}
        for disk in self.world.now.disks_of(self.now()):
            for uuid in disk.all_nodes():
                name = self.world.now.nodes[uuid].name
                found.setdefault(name, set()).update(str(each.volume) for each in disk.children)
        return found

    def strays(self) -> dict[str, set[str]]:
        """Returns the volumes that are there although nobody has them, by node."""
        wanted = self.configured()
        found = {
            node.name: self.volumes(node.name) - wanted.get(node.name, set())
            for node in self.world.now.nodes.values()
        }
        return {name: volumes for name, volumes in found.items() if volumes}

    def assertWhole(self, *, up: bool = True, strays: dict[str, set[str]] | None = None) -> None:
        """Expects mirrors as configured, in sync (``up``) or down, and nothing else on nodes."""
        now = self.world.now
        minors: dict[str, set[int]] = {}
        for disk in now.disks_of(self.now()):
            for uuid, minor in disk.minors():
                name = now.nodes[uuid].name
                if up:
                    minors.setdefault(name, set()).add(minor)
                    seen = self.world.nodes.mirrors.status(name, minor)
                    state = (seen.connection, seen.data)
                    self.assertEqual(state, ("Connected", UP_TO_DATE), f"{name}: {minor}")
        for node in now.nodes.values():
            there = set(self.world.nodes.mirrors.of_node(node.name))
            self.assertEqual(there, minors.get(node.name, set()), node.name)
        for name, wanted in self.configured().items():
            self.assertLessEqual(wanted, self.volumes(name), name)
        self.assertEqual(self.strays(), strays or {})
        self.assertEqual(self.now().disks_active, up)
        self.assertEqual(self.world.faults(), [])

    def data(self, node: str) -> list[tuple[str, str]]:
        """Returns index and content of the data volumes of a node."""
        count = len(self.now().disks)
        return [(str(index), self.throw("data", node, NAME, str(index))) for index in range(count)]

    def write(self, text: str) -> None:
        """Has the primary node write to all disks, as far as their halves can be reached."""
        node = self.world.nodes.node(self.world.now.nodes[self.now().primary_node].name)
        for disk in self.world.now.disks_of(self.now()):
            block = looked_up(node, self.sent(disk, node.name))
            assert block is not None
            block.write((text,))

    def sent(self, disk: Disk, node: str) -> dict[str, Any]:
        """Returns a disk as a node gets it."""
        uuid = self.world.now.node(node).uuid
        return node_objects.disk(self.world.now, disk, self.now(), uuid)

    def at_call(self, wanted: str, happens: Callable[[], object]) -> None:
        """Has something happen before the first call of that name."""
        inner = self.world.nodes.call
        waiting = [happens]

        def call(targets: Any, procedure: str, *arguments: Any, **options: Any) -> Any:
            if procedure == wanted and waiting:
                waiting.pop()()
            return inner(targets, procedure, *arguments, **options)

        self.world.nodes.call = call  # type: ignore[method-assign]

    def held(self) -> dict[str, list[str]]:
        """Returns the locks below the cluster that are held now, by level."""
        found: dict[str, list[str]] = {}
        for row in self.world.locks.rows():
            level, _, name = row.name.partition("/")
            if level != "cluster" and name != "[lockset]":
                found.setdefault(level, []).append(name)
        return {level: sorted(names) for level, names in found.items()}

    def follow(self, command: str) -> None:
        """Runs a command that a procedure names as its way out."""
        words = command.split()
        self.assertNotIn("{", command)
        if words[:2] == ["gnt-cluster", "command"]:
            self.assertEqual((words[2], *words[4:6]), ("-n", "lvremove", "-f"))
            for volume in words[6:]:
                self.throw("remove-lv", words[3], volume)
            return
        op_id, parameters = {
            "activate-disks": ("OP_INSTANCE_ACTIVATE_DISKS", {}),
            "replace-disks": ("OP_INSTANCE_REPLACE_DISKS", _MODES.get(words[2], {})),
        }[words[1]]
        if words[2] == "-n":
            parameters = {**parameters, "remote_node": words[3]}
        self.world.run(op_id, instance_name=words[-1], **parameters)

    def let_sync(self) -> None:
        """Lets time pass until all mirrors are filled."""
        self.world.clock.advance(600.0)

    def each_crash(self, prepare: Callable[[], object], op_id: str, **parameters: Any) -> Any:
        """Runs an opcode again and again; the daemon is gone one call later each time.

        ``prepare`` makes the cluster anew. Yields the number of the call that was not made,
        and what the step says that was under way: how it leaves things, and what to run then
        (empty outside of a procedure). Ends when the opcode does.
        """
        for moment in range(300):
            prepare()
            self.crash_after = moment
            try:
                self.world.run(op_id, **parameters)
            except Crash as crash:
                self.crash_after = None
                self.forget()
                yield moment, *_step_of(crash)
            else:
                self.assertGreater(moment, 10)
                return
        raise self.failureException(f"{op_id} never ends")
