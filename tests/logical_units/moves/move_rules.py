"""Rules of the state machine about instances that move, and about nodes that die and come back."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import rule

from ganeti_masterd.simulation.faults import SimulatedFault
from ganeti_masterd.simulation.switches import throw
from tests.logical_units.instance_rules import NODES, Deed, InstanceRules, flags, places, seldom
from tests.logical_units.instance_rules import nodes as some_node

#: Calls of moves that may fail, and how: refused, out of reach, or done and the answer lost.
CALLS = (
    "accept_instance",
    "blockdev_addchildren",
    "blockdev_assemble",
    "blockdev_close",
    "blockdev_create",
    "blockdev_find",
    "blockdev_getmirrorstatus",
    "blockdev_open",
    "blockdev_remove",
    "blockdev_removechildren",
    "blockdev_rename",
    "blockdev_shutdown",
    "drbd_attach_net",
    "drbd_disconnect_net",
    "drbd_wait_sync",
    "export_start",
    "impexp_status",
    "import_start",
    "instance_finalize_migration_dst",
    "instance_finalize_migration_src",
    "instance_get_migration_status",
    "instance_info",
    "instance_migratable",
    "instance_migrate",
    "instance_shutdown",
    "instance_start",
    "migration_info",
    "node_info",
    None,
)
faults = st.builds(
    SimulatedFault,
    kind=st.sampled_from(["error", "unreachable", "lost"]),
    node=st.one_of(st.none(), st.sampled_from(NODES)),
    call=st.sampled_from(CALLS),
    after=st.integers(0, 3),
    count=st.integers(1, 3),
)

_TARGET = {"target_node": some_node}
_REMOTE = {"remote_node": some_node}

#: How an instance can move: opcode, and its parameters.
deeds = st.one_of(
    st.tuples(
        st.just("OP_INSTANCE_FAILOVER"),
        st.fixed_dictionaries({"ignore_consistency": seldom}, optional=_TARGET),
    ),
    st.tuples(
        st.just("OP_INSTANCE_MIGRATE"),
        st.fixed_dictionaries(
            {"allow_failover": seldom, "mode": st.sampled_from(["live", "non-live"])},
            optional=_TARGET,
        ),
    ),
    st.tuples(st.just("OP_INSTANCE_MIGRATE"), st.just({"cleanup": True})),
    st.tuples(
        st.just("OP_INSTANCE_REPLACE_DISKS"),
        st.one_of(
            st.fixed_dictionaries(
                {
                    "mode": st.sampled_from(
                        ["replace_auto", "replace_on_primary", "replace_on_secondary"]
                    )
                }
            ),
            st.fixed_dictionaries(
                {"mode": st.just("replace_new_secondary"), "early_release": flags, **_REMOTE}
            ),
            st.just({"mode": "replace_new_secondary", "iallocator": "."}),
        ),
    ),
    st.tuples(st.just("OP_INSTANCE_MOVE"), st.fixed_dictionaries(_TARGET)),
)

#: Opcodes that have many instances of a node moved by jobs of their own.
many = st.one_of(
    st.tuples(st.just("OP_NODE_MIGRATE"), st.fixed_dictionaries({"node_name": some_node})),
    st.tuples(
        st.just("OP_NODE_EVACUATE"),
        st.fixed_dictionaries(
            {
                "node_name": some_node,
                "mode": st.sampled_from(["primary-only", "secondary-only"]),
                "iallocator": st.just("."),
            }
        ),
    ),
)


class MoveRules(InstanceRules):
    """Moves instances between the opcodes of :class:`InstanceRules`; nodes die and come back."""

    @rule(node=st.sampled_from(NODES[1:]))
    def node_dies(self, node: str) -> None:
        throw(self.world.nodes, ["power", node, "off"])

    @rule(node=st.sampled_from(NODES[1:]))
    def node_comes_back(self, node: str) -> None:
        throw(self.world.nodes, ["power", node, "on"])

    @rule(node=st.sampled_from(NODES))
    def node_starts_anew(self, node: str) -> None:
        throw(self.world.nodes, ["reboot", node])

    @rule(place=places, deed=deeds)
    def move(self, place: int, deed: Deed) -> None:
        op_id, parameters = deed
        name = self.there(place)
        if parameters.get("ignore_consistency") and not self.knows(name):
            parameters = {**parameters, "ignore_consistency": False}
        # Looking for what is broken brings up disks that are down, and down again.
        looks = parameters.get("mode") == "replace_auto"
        self.attempt(
            lambda: self.world.run(op_id, instance_name=name, **parameters), alone=not looks
        )

    def knows(self, name: str) -> bool:
        """Whether an operator may take upon himself that an instance is started unasked.

        As the job's log demands: its node is down for certain. Where all nodes answer, it is asked.
        """
        uuids = [one.primary_node for one in self.world.now.instances.values() if one.name == name]
        node = self.world.now.nodes[uuids[0]].name if uuids else NODES[0]
        return not self.world.nodes.world.powered(node) or not self.world.nodes.faults.any(0.0)

    @rule(place=places, deed=deeds, fault=faults)
    def move_with_fault(self, place: int, deed: Deed, fault: SimulatedFault) -> None:
        mend = self.world.nodes.faults.add(fault)
        self.move(place, deed)
        mend()

    @rule(place=places, deed=deeds, checkpoints=st.integers(0, 40))
    def move_killed(self, place: int, deed: Deed, checkpoints: int) -> None:
        self.world.kill_after = checkpoints
        self.move(place, deed)

    @rule(deed=many)
    def move_many(self, deed: tuple[str, dict[str, Any]]) -> None:
        """The jobs that are submitted run afterwards."""
        op_id, parameters = deed
        self.world.submitted.clear()
        self.attempt(lambda: self.world.run(op_id, **parameters))
        jobs, self.world.submitted[:] = list(self.world.submitted), []
        for op in (op for job in jobs for op in job):
            about = msgspec.to_builtins(op)
            inner = about.pop("OP_ID")
            self.attempt(lambda: self.world.run(inner, **about))  # noqa: B023
