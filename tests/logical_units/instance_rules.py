"""Rules of the state machine about instances and their disks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import rule
from msgspec.structs import replace

from ganeti_masterd.config.changes import Update
from ganeti_masterd.config.objects import Disk
from ganeti_masterd.config.templates import TEMPLATES
from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.simulation.description import DescribedNode, DescribedVolume, Description
from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.node import OSDefinition, StorageProvider
from ganeti_masterd.simulation.state import Hardware, PhysicalVolume, VolumeGroup
from tests.logical_units.holdings import differences, leaks
from tests.logical_units.world import MustWait, Refused, World

NODES = ("node1", "node2", "node3", "node4")
NAMES = ("one.example.com", "two.example.com", "three.example.com")

#: Volumes that instances may adopt, on each node.
SPARE = ("spare1", "spare2")

#: A cluster's nodes with little room, so that it may run out.
DESCRIPTION = Description(
    default=DescribedNode(
        hardware=Hardware(
            memory=1536,
            memory_dom0=512,
            groups=(VolumeGroup("xenvg", (PhysicalVolume("/dev/sda2", 2048),)),),
            file_space=1024,
        ),
        volumes=tuple(DescribedVolume("xenvg", name, 32) for name in SPARE),
    ),
    systems=(OSDefinition("noop"),),
    providers=(StorageProvider("store", device="/dev/ext/{name}"),),
)

#: Calls that may fail, and how: refused, out of reach, or done and the answer lost.
CALLS = (
    "blockdev_assemble",
    "blockdev_create",
    "blockdev_getdimensions",
    "blockdev_getmirrorstatus",
    "blockdev_grow",
    "blockdev_pause_resume_sync",
    "blockdev_remove",
    "blockdev_rename",
    "blockdev_shutdown",
    "blockdev_convert",
    "blockdev_setinfo",
    "blockdev_wipe",
    "drbd_attach_net",
    "file_storage_dir_rename",
    "file_storage_dir_create",
    "file_storage_dir_remove",
    "hooks_runner",
    "instance_info",
    "instance_os_add",
    "instance_reboot",
    "instance_shutdown",
    "instance_start",
    "node_info",
    None,
)
faults = st.builds(
    SimulatedFault,
    kind=st.sampled_from(["error", "unreachable", "garbage", "lost"]),
    node=st.one_of(st.none(), st.sampled_from(NODES)),
    call=st.sampled_from(CALLS),
    after=st.integers(0, 3),
    count=st.integers(1, 3),
    payload=st.just([[1]]),
)

#: Instances by their places: mostly one that is there for what needs one, or a name that is free.
places = st.integers(0, 11)
nodes = st.sampled_from(NODES)
flags = st.booleans()
#: Few are true, so that most things go their usual way.
seldom = st.sampled_from([False, False, False, True])
sizes = st.lists(st.sampled_from([16, 64, 600]), min_size=1, max_size=2)
templates = st.sampled_from(["drbd", "drbd", "drbd", *sorted(set(TEMPLATES) - {"blockdev"})])
nics = st.sampled_from(
    [
        [],
        [{}],
        [{"ip": "pool", "network": "lan"}],
        [{"ip": "pool", "network": "lan"}, {"ip": "203.0.113.2", "network": "lan"}],
    ]
)

shapes = st.builds(
    lambda template, sizes, more: {
        "mode": "create",
        "disk_template": template,
        "disks": [] if template == "diskless" else [_disk(template, size) for size in sizes],
        "os_type": "noop",
        "name_check": False,
        "ip_check": False,
        **more,
    },
    templates,
    sizes,
    st.fixed_dictionaries(
        {
            "nics": nics,
            "start": flags,
            "wait_for_sync": flags,
            "no_install": seldom,
            "beparams": st.sampled_from([{}, {"memory": 256}, {"memory": 700}]),
        }
    ),
)
NAMED = ("pnode", "snode")


def _disk(template: str, size: int) -> dict[str, Any]:
    return {"size": size, **({"provider": "store"} if template == "ext" else {})}


#: What can be done with an instance: opcode, and its parameters.
deeds = st.one_of(
    st.tuples(
        st.just("OP_INSTANCE_STARTUP"),
        st.fixed_dictionaries(
            {"force": flags, "ignore_offline_nodes": seldom, "no_remember": seldom}
        ),
    ),
    st.tuples(
        st.just("OP_INSTANCE_SHUTDOWN"),
        st.fixed_dictionaries(
            {"force": flags, "ignore_offline_nodes": seldom, "no_remember": seldom}
        ),
    ),
    st.tuples(
        st.just("OP_INSTANCE_REBOOT"),
        st.fixed_dictionaries(
            {
                "reboot_type": st.sampled_from(["soft", "hard", "full"]),
                "ignore_secondaries": flags,
            }
        ),
    ),
    st.tuples(
        st.just("OP_INSTANCE_ACTIVATE_DISKS"),
        st.fixed_dictionaries({"ignore_size": flags, "wait_for_sync": flags}),
    ),
    st.tuples(st.just("OP_INSTANCE_DEACTIVATE_DISKS"), st.fixed_dictionaries({"force": seldom})),
    st.tuples(
        st.just("OP_INSTANCE_GROW_DISK"),
        st.fixed_dictionaries(
            {
                "disk": st.integers(0, 1),
                "amount": st.sampled_from([0, 16, 128, 4096]),
                "absolute": seldom,
                "wait_for_sync": flags,
            }
        ),
    ),
    st.tuples(
        st.just("OP_INSTANCE_RECREATE_DISKS"),
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"nodes": st.lists(nodes, min_size=1, max_size=2)}),
            st.fixed_dictionaries({"disks": st.sampled_from([[0], [1], [[0, {"size": 48}]]])}),
            st.fixed_dictionaries({"iallocator": st.just(".")}),
        ),
    ),
    st.tuples(
        st.just("OP_INSTANCE_SET_PARAMS"),
        st.one_of(
            st.fixed_dictionaries(
                {
                    "disk_template": st.sampled_from(["drbd", "drbd", "plain", "file", "rbd"]),
                    "wait_for_sync": flags,
                },
                optional={"remote_node": nodes},
            ),
            st.fixed_dictionaries(
                {
                    "disks": st.lists(
                        st.sampled_from(
                            [
                                ["add", -1, {"size": 16}],
                                ["add", 0, {"size": 16, "name": "data"}],
                                ["remove", -1, {}],
                                ["modify", 0, {"mode": "ro"}],
                            ]
                        ),
                        min_size=1,
                        max_size=2,
                    ),
                    "hotplug_if_possible": flags,
                    "wait_for_sync": flags,
                }
            ),
            st.fixed_dictionaries(
                {
                    "nics": st.lists(
                        st.sampled_from(
                            [
                                ["add", -1, {"ip": "pool", "network": "lan"}],
                                ["add", -1, {"ip": "203.0.113.2", "network": "lan"}],
                                ["modify", 0, {"ip": "pool", "network": "lan"}],
                                ["modify", 0, {"ip": "203.0.113.3", "network": "lan"}],
                                ["modify", 0, {"network": "none"}],
                                ["remove", -1, {}],
                            ]
                        ),
                        min_size=1,
                        max_size=3,
                    )
                }
            ),
            st.fixed_dictionaries({"offline": flags}),
            st.fixed_dictionaries(
                {
                    "beparams": st.sampled_from([{"memory": 256}, {"minmem": 300}]),
                    "os_name": st.just("noop"),
                }
            ),
            st.fixed_dictionaries({"pnode": nodes}),
        ),
    ),
    st.tuples(st.just("OP_INSTANCE_REINSTALL"), st.just({"os_type": "noop"})),
    st.tuples(
        st.just("OP_INSTANCE_RENAME"),
        st.fixed_dictionaries(
            {
                "new_name": st.sampled_from([*NAMES, "four.example.com"]),
                "name_check": st.just(False),
                "ip_check": st.just(False),
            }
        ),
    ),
    st.tuples(st.just("OP_INSTANCE_REMOVE"), st.fixed_dictionaries({"ignore_failures": seldom})),
    st.tuples(st.just("OP_INSTANCE_CONSOLE"), st.just({})),
)

Deed = tuple[str, Mapping[str, Any]]


def _is_unremembered(parameters: Mapping[str, Any]) -> bool:
    """Whether an opcode is to do something without recording it, or only to record it."""
    return bool(parameters.get("no_remember") or parameters.get("ignore_offline_nodes"))


def new_world() -> World:
    """Returns a cluster without instances, of nodes with little room, with a small network."""
    world = World(
        len(NODES), description=DESCRIPTION, disk_templates=sorted(TEMPLATES), candidate_pool_size=3
    )
    # Its volumes are nowhere, and so easily removed.
    nodes = world.now.nodes_of(world.now.instance("web.example.com"))
    children = tuple(
        Disk(dev_type="plain", size=64, logical_id=("xenvg", name), nodes=nodes, uuid=name)
        for name in ("web.data", "web.meta")
    )
    world.store.change("d-web.example.com", lambda disk: replace(disk, children=children))
    world.run("OP_INSTANCE_REMOVE", instance_name="web.example.com")
    # The allocator that comes with the daemon.
    uuid = world.now.cluster.uuid
    world.store.change(uuid, lambda cluster: replace(cluster, default_iallocator=""))
    world.run("OP_NETWORK_ADD", network_name="lan", network="203.0.113.0/29")
    world.run(
        "OP_NETWORK_CONNECT",
        group_name="default",
        network_name="lan",
        network_mode="routed",
        network_link="tab9",
    )
    return world


class InstanceRules:
    """Makes, uses and removes instances, with faults, kills and each other in between.

    After each opcode what nodes hold is what is configured, or was so before it, or a warning or
    the error of the opcode tells of it.
    """

    world: World

    def found(self) -> set[Any]:
        """Returns how nodes differ from the configuration."""
        return differences(self.world, spared=[f"/dev/xenvg/{name}" for name in SPARE])

    def leaks(self) -> list[str]:
        """Returns what the configuration has lost."""
        return leaks(self.world.now)

    def attempt(
        self,
        deed: Callable[[], object],
        *,
        alone: bool = True,
        unremembered: bool = False,
        remade: bool = False,
    ) -> None:
        """Does something; checks what it leaves.

        ``alone``: no other opcode runs meanwhile. ``unremembered``: that an instance runs, or
        doesn't, is meant to differ from what is recorded. ``remade``: disks are made anew.
        """
        world = self.world
        world.lines.clear()
        before, held = world.now, self.found()
        errors: list[str] = []
        refused = False
        try:
            deed()
        except Refused as ended:
            errors.append(str(ended.error.args[0]) if ended.error.args else repr(ended.error))
            refused = isinstance(ended.error, OpPrereqError)
        except MustWait:
            refused = True
        finally:
            world.meanwhile = []
            world.kill_after = None
        found = self.found()
        failed = bool(errors)
        if refused and alone:
            assert world.now is before, f"refused, yet changed: {errors}"
            assert found == held, f"refused, yet changed: {sorted(found - held)}: {errors}"
        errors += self.said
        self.said.clear()
        down = {one.instance for one in held if one.kind == "stopped"}
        told = [line for line in world.lines if "WARNING" in line or "Warning" in line]
        untold = [
            one
            for one in sorted(found - held)
            if not one.is_told_in([*told, *errors])
            and not (unremembered and one.kind in ("runs", "stopped"))
            # Mirrors that were made anew go on to synchronize.
            and not (remade and one.kind == "assembled" and one.instance)
            # That an instance could not be started is told by each verification.
            and not (failed and one.kind == "stopped")
            # It was down before, on another node.
            and not (one.kind == "stopped" and one.instance in down)
        ]
        text = "\n".join([*world.lines, *errors])
        assert not untold, f"nobody tells of {untold}:\n{text}"
        lost = self.leaks()
        assert not lost, f"{lost}:\n{text}"

    #: What opcodes that ran within others failed with.
    said: list[str]

    def aside(self, op_id: str, **parameters: Any) -> None:
        """Runs an opcode while another one does."""
        try:
            self.world.run(op_id, **parameters)
        except Refused as ended:
            self.said.append(str(ended.error.args[0]))
        except MustWait:
            pass

    def new(self, place: int) -> str:
        """Returns a name for a new instance; now and then one that is there already."""
        there = {instance.name for instance in self.world.now.instances.values()}
        free = [name for name in NAMES if name not in there]
        return free[place % len(free)] if free and place < 11 else NAMES[place % len(NAMES)]

    def there(self, place: int) -> str:
        """Returns the name of an instance; now and then one that isn't there."""
        names = sorted(instance.name for instance in self.world.now.instances.values())
        return names[place % len(names)] if names and place < 11 else NAMES[place % len(NAMES)]

    def placed(self, shape: Mapping[str, Any], where: tuple[str, str]) -> dict[str, Any]:
        """Returns the parameters of a creation on nodes."""
        found = {**shape, "pnode": where[0]}
        if shape["disk_template"] == "drbd":
            found["snode"] = where[1]
        return found

    # Around the opcodes

    @rule(fault=faults)
    def nodes_misbehave(self, fault: SimulatedFault) -> None:
        self.world.nodes.faults.add(fault)

    @rule()
    def nodes_behave(self) -> None:
        self.world.nodes.faults.clear()

    @rule(node=nodes, call=st.sampled_from(CALLS))
    def node_is_out_of_reach(self, node: str, call: str | None) -> None:
        self.world.nodes.faults.add(SimulatedFault(kind="unreachable", node=node, call=call))

    @rule(node=st.sampled_from(NODES[1:]), offline=flags)
    def node_goes_or_comes(self, node: str, offline: bool) -> None:
        self.world.try_run("OP_NODE_SET_PARAMS", node_name=node, offline=offline, force=True)

    @rule(wipe=flags)
    def disks_are_wiped(self, wipe: bool) -> None:
        uuid = self.world.now.cluster.uuid
        change = Update(uuid, lambda now: replace(now, prealloc_wipe_disks=wipe))
        self.world.store.apply([change])

    @rule(place=places)
    def instance_crashes(self, place: int) -> None:
        for node in NODES:
            self.world.nodes.node(node).state.instances.pop(self.there(place))

    @rule(place=st.integers(0, 20), node=nodes)
    def volume_is_lost(self, place: int, node: str) -> None:
        shelf = self.world.nodes.node(node).state.devices
        paths = sorted(path for path, _ in shelf.items())
        if paths:
            shelf.pop(paths[place % len(paths)])

    # Opcodes

    @rule(place=places, shape=shapes, where=st.tuples(nodes, nodes))
    def make(self, place: int, shape: dict[str, Any], where: tuple[str, str]) -> None:
        name, parameters = self.new(place), self.placed(shape, where)
        self.attempt(lambda: self.world.run("OP_INSTANCE_CREATE", instance_name=name, **parameters))

    @rule(place=places, shape=shapes, opportunistic=flags)
    def make_somewhere(self, place: int, shape: dict[str, Any], opportunistic: bool) -> None:
        self.attempt(
            lambda: self.world.run(
                "OP_INSTANCE_CREATE",
                instance_name=self.new(place),
                opportunistic_locking=opportunistic,
                **shape,
            )
        )

    @rule(
        place=places,
        spare=st.lists(st.sampled_from(SPARE), min_size=1, max_size=2, unique=True),
        node=nodes,
        start=flags,
    )
    def adopt(self, place: int, spare: list[str], node: str, start: bool) -> None:
        self.attempt(
            lambda: self.world.run(
                "OP_INSTANCE_CREATE",
                instance_name=self.new(place),
                mode="create",
                disk_template="plain",
                disks=[{"adopt": volume} for volume in spare],
                nics=[],
                os_type="noop",
                name_check=False,
                ip_check=False,
                pnode=node,
                start=start,
            )
        )

    @rule(
        many=st.dictionaries(st.sampled_from(NAMES), shapes, min_size=1),
        opportunistic=flags,
        where=st.one_of(st.none(), st.tuples(nodes, nodes)),
    )
    def make_many(
        self,
        many: dict[str, dict[str, Any]],
        opportunistic: bool,
        where: tuple[str, str] | None,
    ) -> None:
        """The jobs that are submitted run afterwards."""
        instances = [
            {
                "OP_ID": "OP_INSTANCE_CREATE",
                "instance_name": name,
                **(shape if where is None else self.placed(shape, where)),
            }
            for name, shape in many.items()
        ]
        self.world.submitted.clear()
        self.attempt(
            lambda: self.world.run(
                "OP_INSTANCE_MULTI_ALLOC",
                instances=instances,
                opportunistic_locking=opportunistic,
            )
        )
        jobs, self.world.submitted[:] = list(self.world.submitted), []
        for (op,) in jobs:
            parameters = msgspec.to_builtins(op)
            op_id = parameters.pop("OP_ID")
            self.attempt(lambda: self.world.run(op_id, **parameters))  # noqa: B023

    @rule(place=places, shape=shapes, where=st.tuples(nodes, nodes))
    def plan(self, place: int, shape: dict[str, Any], where: tuple[str, str]) -> None:
        name = self.new(place)
        parameters = self.placed({**shape, "forthcoming": True}, where)
        self.attempt(lambda: self.world.run("OP_INSTANCE_CREATE", instance_name=name, **parameters))

    @rule(place=places, shape=shapes)
    def make_as_planned(self, place: int, shape: dict[str, Any]) -> None:
        name = self.there(place)
        planned = self.world.now.instances.named(name)
        if planned is not None:
            disks = self.world.now.disks_of(planned)
            template = disks[0].dev_type if disks else "diskless"
            shape = {**shape, "disk_template": template}
            shape["disks"] = [_disk(template, disk.size) for disk in disks]
        self.attempt(
            lambda: self.world.run("OP_INSTANCE_CREATE", instance_name=name, commit=True, **shape)
        )

    @rule(place=places, deed=deeds)
    def use(self, place: int, deed: Deed) -> None:
        op_id, parameters = deed
        name = self.there(place)
        self.attempt(
            lambda: self.world.run(op_id, instance_name=name, **parameters),
            unremembered=_is_unremembered(parameters),
            remade=op_id == "OP_INSTANCE_RECREATE_DISKS",
        )

    @rule(place=places, deed=deeds, fault=faults)
    def use_with_fault(self, place: int, deed: Deed, fault: SimulatedFault) -> None:
        mend = self.world.nodes.faults.add(fault)
        self.use(place, deed)
        mend()

    @rule(place=places, deed=deeds, checkpoints=st.integers(0, 20))
    def use_killed(self, place: int, deed: Deed, checkpoints: int) -> None:
        self.world.kill_after = checkpoints
        self.use(place, deed)

    @rule(place=places, shape=shapes, where=st.tuples(nodes, nodes), fault=faults)
    def make_with_fault(
        self, place: int, shape: dict[str, Any], where: tuple[str, str], fault: SimulatedFault
    ) -> None:
        mend = self.world.nodes.faults.add(fault)
        self.make(place, shape, where)
        mend()

    @rule(place=places, shape=shapes, where=st.tuples(nodes, nodes), checkpoints=st.integers(0, 60))
    def make_killed(
        self, place: int, shape: dict[str, Any], where: tuple[str, str], checkpoints: int
    ) -> None:
        self.world.kill_after = checkpoints
        self.make(place, shape, where)

    @rule(
        one=st.tuples(places, deeds),
        others=st.lists(st.tuples(places, deeds), min_size=1, max_size=3),
        gap=st.integers(0, 5),
    )
    def use_at_once(self, one: tuple[int, Deed], others: list[tuple[int, Deed]], gap: int) -> None:
        self.world.meanwhile = [lambda: None] * gap
        for place, (op_id, parameters) in others:
            self.world.meanwhile.append(
                partial(self.aside, op_id, instance_name=self.there(place), **parameters)
            )
        place, (op_id, parameters) = one
        name = self.there(place)
        self.attempt(
            lambda: self.world.run(op_id, instance_name=name, **parameters),
            alone=False,
            unremembered=any(_is_unremembered(about) for _, (_, about) in (one, *others)),
            remade=any(op == "OP_INSTANCE_RECREATE_DISKS" for _, (op, _) in (one, *others)),
        )

    @rule(
        one=st.tuples(places, shapes, st.tuples(nodes, nodes)),
        other=st.tuples(places, shapes, st.tuples(nodes, nodes)),
        gap=st.integers(0, 12),
    )
    def make_two_at_once(self, one: Any, other: Any, gap: int) -> None:
        self.world.meanwhile = [lambda: None] * gap
        self.world.meanwhile.append(
            lambda: self.aside(
                "OP_INSTANCE_CREATE",
                instance_name=self.new(other[0]),
                **self.placed(other[1], other[2]),
            )
        )
        self.attempt(
            lambda: self.world.run(
                "OP_INSTANCE_CREATE",
                instance_name=self.new(one[0]),
                **self.placed(one[1], one[2]),
            ),
            alone=False,
        )

    @rule(some=st.lists(places, max_size=2), static=flags)
    def query(self, some: list[int], static: bool) -> None:
        before = self.world.now
        self.attempt(
            lambda: self.world.run(
                "OP_INSTANCE_QUERY_DATA",
                instances=[self.there(place) for place in some],
                static=static,
                use_locking=True,
            )
        )
        assert self.world.now is before
