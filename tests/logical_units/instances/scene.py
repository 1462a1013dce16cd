"""A small cluster with instances whose disks are on their simulated nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.changes import Add, Update
from ganeti_masterd.config.objects import Instance, Nic
from ganeti_masterd.config.reservations import with_ports
from ganeti_masterd.errors import GenericError, OpExecError, OpPrereqError
from ganeti_masterd.locking.levels import Level, LockMode
from ganeti_masterd.logical_units.disks.activating import shut_disks
from ganeti_masterd.logical_units.disks.making import create_disks
from ganeti_masterd.logical_units.disks.naming import ReservedNaming
from ganeti_masterd.logical_units.disks.trees import DiskLocation, DiskSpecification, build_disks
from ganeti_masterd.logical_units.registry import unit_for
from ganeti_masterd.logical_units.steps.undo import UndoStack
from ganeti_masterd.opcodes import decode_opcode
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.state import SimulatedInstance
from ganeti_masterd.testing.context import SynchronousContext
from tests.logical_units.world import Refused, World

#: The instance that tests are about, unless they say otherwise.
NAME = "db.example.com"

#: How many checkpoints a kill is tried at before a test says that it never ends.
MOST_CHECKPOINTS = 200


def make_instance(
    ctx: SynchronousContext,
    name: str,
    template: str,
    nodes: Sequence[str],
    *,
    sizes: Iterable[int] = (64,),
    nics: Sequence[Nic] = (),
    **about: Any,
) -> Instance:
    """Makes an instance in the configuration and its disks on their nodes, shut down."""
    uuids = tuple(ctx.snapshot().node(node).uuid for node in nodes)
    place = DiskLocation(
        instance_uuid=f"i-{name}", nodes=uuids, directory=f"/srv/ganeti/file-storage/{name}"
    )
    wanted = [
        DiskSpecification(size=size, group="xenvg", meta_group="xenvg")
        for size in (() if template == "diskless" else sizes)
    ]
    disks = build_disks(template, wanted, place, ReservedNaming(ctx))
    instance = Instance(
        name=name,
        uuid=about.pop("uuid", f"i-{name}"),
        primary_node=uuids[0],
        hypervisor=about.pop("hypervisor", "fake"),
        os=about.pop("os", "noop"),
        nics=tuple(nics),
        disks=tuple(disk.uuid for disk in disks),
        disks_active=True,
        **about,
    )
    with UndoStack(ctx) as undo:
        create_disks(ctx, undo, instance, disks)
        undo.keep()
    ports = [port for disk in disks for port in disk.ports()]
    if instance.network_port is not None:
        ports.append(instance.network_port)
    ctx.change_all(
        [
            *(Add("disks", disk) for disk in disks),
            Add("instances", instance),
            Update(ctx.snapshot().cluster.uuid, lambda cluster: with_ports(cluster, ports)),
        ]
    )
    shut_disks(ctx, instance)
    return ctx.snapshot().instance(name)


class InstanceScene(SynchronousTestCase):
    """Base: a world whose calls to nodes are written down.

    ``calls`` are (node, procedure); ``arguments`` and ``timeouts`` are theirs.
    """

    def setUp(self) -> None:
        self.renew()

    def renew(self, **settings: Any) -> None:
        """Starts anew; ``settings`` are those of a new cluster."""
        self.world = World(**settings)
        self.calls: list[tuple[str, str]] = []
        self.arguments: list[Any] = []
        self.timeouts: list[float | None] = []
        inner = self.world.nodes.call

        def call(targets: Any, procedure: str, arguments: Any = (), **options: Any) -> Any:
            for target in targets:
                if not target.offline and procedure != "write_ssconf_files":
                    self.calls.append((target.name, procedure))
                    self.arguments.append(arguments(target) if callable(arguments) else arguments)
                    self.timeouts.append(options.get("timeout"))
            return inner(targets, procedure, arguments, **options)

        self.world.nodes.call = call  # type: ignore[method-assign]

    def make(
        self,
        template: str = "drbd",
        nodes: Sequence[str] = ("node2", "node3"),
        name: str = NAME,
        *,
        sizes: Iterable[int] = (64,),
        up: bool = False,
        **about: Any,
    ) -> Instance:
        """Makes an instance with its disks, shut down; started if it is to be ``up``."""
        ctx = SynchronousContext(
            self.world.now, self.world.nodes, job_id=999, clock=self.world.clock
        )
        ctx.store, ctx.reservations = self.world.store, self.world.reservations
        make_instance(ctx, name, template, nodes, sizes=sizes, **about)
        self.world.reservations.drop(999)
        self.world.locks.populate(Level.INSTANCE, [name])
        if up:
            self.world.run("OP_INSTANCE_STARTUP", instance_name=name)
        self.forget()
        return self.now(name)

    def forget(self) -> None:
        """Forgets the calls and the log lines so far."""
        self.calls.clear()
        self.arguments.clear()
        self.timeouts.clear()
        self.world.lines.clear()

    def now(self, name: str = NAME) -> Instance:
        """Returns the instance as it is configured."""
        return self.world.now.instance(name)

    def state(self, name: str = NAME) -> tuple[str, str, bool, list[str]]:
        """Returns what is recorded (state, its source, disks active) and where it runs."""
        now = self.now(name)
        return now.admin_state, now.admin_state_source, now.disks_active, self.where(name)

    def where(self, name: str = NAME) -> list[str]:
        """Returns the nodes on which the instance runs."""
        names = sorted(node.name for node in self.world.now.nodes.values())
        return [each for each in names if name in self.world.nodes.node(each).state.instances]

    def run_on(self, node: str, name: str = NAME, hypervisor: str = "fake") -> None:
        """Has a node run the instance, whatever is configured."""
        running = SimulatedInstance(hypervisor, 128, 1)
        self.world.nodes.node(node).state.instances[name] = running

    def crash(self, node: str = "node2", name: str = NAME) -> None:
        """Stops the instance behind the daemon's back."""
        self.world.nodes.node(node).state.instances.pop(name)

    def modify(self, uuid: str, function: Callable[[Any], Any]) -> None:
        """Changes an object of the configuration."""
        self.world.store.change(uuid, function)

    def set_offline(self, *names: str) -> None:
        """Marks nodes as offline."""
        for name in names:
            self.world.run("OP_NODE_SET_PARAMS", node_name=name, offline=True, force=True)
        self.forget()

    def break_call(
        self, call: str, node: str | None = "node2", **about: Any
    ) -> Callable[[], object]:
        """Makes a call fail at a node; returns what mends it."""
        settings: dict[str, Any] = {"kind": "error", "text": "broken", **about}
        return self.world.nodes.faults.add(SimulatedFault(call=call, node=node, **settings))

    def made_calls(self) -> list[tuple[str, str]]:
        """Returns the calls so far, those for hooks left out."""
        return [each for each in self.calls if each[1] != "hooks_runner"]

    def locks_of(self, op_id: str, **parameters: Any) -> dict[str, tuple[list[str], bool]]:
        """Returns what an opcode locks below the cluster: names, and whether alone, by level."""
        unit = unit_for(decode_opcode({"OP_ID": op_id, **parameters}))
        assert unit is not None
        unit.expand(self.world.now)
        wanted = {level: unit.locks(level, self.world.now) for level in Level}
        return {
            level.label: (sorted(each.names or ()), each.mode is LockMode.EXCLUSIVE)
            for level, each in wanted.items()
            if level is not Level.CLUSTER and not each.empty
        }

    def hook_variables(self) -> list[dict[str, str]]:
        """Returns the variables of each run of hooks, before and after."""
        found = [
            arguments[2]
            for (_, procedure), arguments in zip(self.calls, self.arguments, strict=True)
            if procedure == "hooks_runner" and arguments[0] != "config-update"
        ]
        unique: list[dict[str, str]] = []
        for each in found:
            if each not in unique:
                unique.append(each)
        return unique

    def assertRefused(self, text: str, code: str, op_id: str, **parameters: Any) -> None:
        """Expects a refusal with exactly this text and code, and nothing changed or left over."""
        before = self.world.now.instances, self.world.now.disks
        error = self.fails(op_id, **parameters)
        self.assertIsInstance(error, OpPrereqError)
        self.assertEqual(error.args, (text, code))
        self.assertEqual((self.world.now.instances, self.world.now.disks), before)

    def assertFails(self, text: str, op_id: str, **parameters: Any) -> None:
        """Expects a failure of the work with exactly this text, and nothing left over."""
        error = self.fails(op_id, **parameters)
        self.assertIsInstance(error, OpExecError)
        self.assertEqual(error.args[0], text)

    def fails(self, op_id: str, **parameters: Any) -> GenericError:
        """Returns the error with which an opcode ends."""
        refused: Refused = self.assertRaises(Refused, self.world.run, op_id, **parameters)
        self.assertEqual(self.world.faults(), [])
        return refused.error

    def each_kill(self, prepare: Callable[[], object], op_id: str, **parameters: Any) -> Any:
        """Runs an opcode again and again, killed one checkpoint later each time.

        ``prepare`` makes the cluster anew. Yields the number of each checkpoint, after a kill
        there; ends when the opcode does.
        """
        for moment in range(MOST_CHECKPOINTS):
            prepare()
            self.world.kill_after = moment
            try:
                self.world.run(op_id, **parameters)
            except Refused as refused:
                self.assertIn("was killed", str(refused.error.args[0]))
                self.assertEqual(self.world.faults(), [], f"after checkpoint {moment}")
                yield moment
            else:
                self.assertGreater(moment, 3)
                return
        raise self.failureException(f"{op_id} never ends")
