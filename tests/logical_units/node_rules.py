"""Rules of the state machine about nodes."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ganeti_masterd.config.candidates import pool
from ganeti_masterd.simulation.faults import SimulatedFault
from tests.logical_units.world import World

NAMES = [f"node{number}" for number in range(1, 8)]

names = st.sampled_from(NAMES)
maybe = st.sampled_from([None, None, True, False])

#: Calls that may fail, and how.
faults = st.builds(
    SimulatedFault,
    kind=st.sampled_from(["error", "unreachable", "garbage"]),
    node=st.one_of(st.none(), names),
    call=st.sampled_from(
        [
            "hooks_runner",
            "node_crypto_tokens",
            "node_demote_from_mc",
            "node_ensure_daemon",
            "node_leave_cluster",
            "node_verify",
            "node_volumes",
            "storage_list",
            "version",
        ]
    ),
    count=st.integers(1, 3),
    payload=st.sampled_from([None, [], {}, "text", [[1]]]),
)

FLAGS = ("master_candidate", "drained", "offline", "master_capable", "vm_capable")

#: A node by its place; sometimes one that doesn't exist.
places = st.integers(0, 20)

#: Requests about a node: mostly few flags at once; other nodes may be promoted instead.
wishes = st.builds(
    lambda flags, more: {**flags, **more},
    st.dictionaries(st.sampled_from(FLAGS), st.booleans(), max_size=2),
    st.fixed_dictionaries(
        {
            "auto_promote": st.booleans(),
            "ndparams": st.sampled_from(
                [None, None, {"spindle_count": "3"}, {"exclusive_storage": True}]
            ),
        }
    ),
)


class NodeRules:
    """Adds, removes and modifies nodes, with faults and with each other in between."""

    world: World

    @rule(fault=faults)
    def nodes_misbehave(self, fault: SimulatedFault) -> None:
        self.world.nodes.faults.add(fault)

    @rule()
    def nodes_behave(self) -> None:
        self.world.nodes.faults.clear()

    @rule(checkpoints=st.integers(0, 8))
    def next_job_is_killed(self, checkpoints: int) -> None:
        self.world.kill_after = checkpoints

    @rule(name=names, group=st.sampled_from([None, "default", "other"]), capable=maybe)
    def add_node(self, name: str, group: str | None, capable: bool | None) -> None:
        self.world.try_run("OP_NODE_ADD", **_new(name, group=group, master_capable=capable))

    @rule(name=names, capable=maybe)
    def add_node_again(self, name: str, capable: bool | None) -> None:
        self.world.try_run("OP_NODE_ADD", **_new(name, readd=True, master_capable=capable))

    def node_at(self, place: int) -> str:
        """Returns the name of a node by its place, or of one that doesn't exist."""
        present = sorted(node.name for node in self.world.now.nodes.values())
        return [*present, "nosuch"][place % (len(present) + 1)]

    def modify(self, place: int, wish: dict[str, object]) -> object:
        """Modifies a node; returns the result, None if it was refused."""
        name = self.node_at(place)
        return self.world.try_run("OP_NODE_SET_PARAMS", node_name=name, **wish)

    def remove(self, place: int) -> object:
        """Removes a node, if that is allowed."""
        return self.world.try_run("OP_NODE_REMOVE", node_name=self.node_at(place))

    @rule(place=places)
    def remove_node(self, place: int) -> None:
        before, short = self.world.now, self.world.short()
        if self.remove(place) is None and self.world.now is before:
            return
        assert self.world.short() <= short, "the pool is shorter though others could join"

    @rule(place=places, wish=wishes)
    def modify_node(self, place: int, wish: dict[str, object]) -> None:
        before, short = self.world.now, self.world.short()
        if self.modify(place, wish) is None:
            assert self.world.now is before, "a request that was refused changed a node"
        elif wish["auto_promote"]:
            now = self.world.now
            node = now.node(self.node_at(place))
            missing = pool(now, without=() if node.master_candidate else {node.uuid}).missing
            assert missing <= short, "the pool is shorter though others could join"

    @rule(place=places, wish=wishes, others=st.lists(st.tuples(places, wishes), max_size=3))
    def modify_nodes_at_once(
        self,
        place: int,
        wish: dict[str, object],
        others: list[tuple[int, dict[str, object]]],
    ) -> None:
        self.world.meanwhile = [lambda one=one: self.modify(*one) for one in others]
        self.modify(place, wish)
        self.world.meanwhile.clear()

    @rule(name=names, others=st.lists(places, max_size=4), wish=wishes)
    def add_while_others_leave(self, name: str, others: list[int], wish: dict[str, object]) -> None:
        self.world.meanwhile = [lambda place=place: self.remove(place) for place in others]
        self.world.meanwhile.append(lambda: self.modify(0, wish))
        self.world.try_run("OP_NODE_ADD", **_new(name))
        self.world.meanwhile.clear()

    @rule(kind=st.sampled_from(["file", "lvm-vg", "lvm-pv", None]))
    def list_storage(self, kind: str | None) -> None:
        self.world.try_run(
            "OP_NODE_QUERY_STORAGE", storage_type=kind, output_fields=["node", "name", "free"]
        )
        self.world.try_run("OP_NODE_QUERYVOLS", output_fields=["node", "vg", "instance"])

    @rule(command=st.sampled_from(["health", "power-on", "power-off", "power-status"]))
    def out_of_band(self, command: str) -> None:
        self.world.try_run("OP_OOB_COMMAND", command=command)


def _new(name: str, **more: object) -> dict[str, object]:
    address = f"198.51.100.{name.removeprefix('node')}"
    return {"node_name": name, "primary_ip": address, **more}
