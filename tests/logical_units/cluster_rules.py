"""Rules of the state machine about the cluster as a whole, and about verifying it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ganeti_masterd.config.candidates import pool
from ganeti_masterd.logical_units.context import JobKilled
from ganeti_masterd.simulation.faults import SimulatedFault
from tests.logical_units.world import MustWait, Refused, World

TEMPLATES = ["diskless", "drbd", "file", "plain"]

#: Parameters of the cluster with valid and invalid values.
PARAMETERS: dict[str, st.SearchStrategy[Any]] = {
    "candidate_pool_size": st.integers(1, 8),
    "max_running_jobs": st.integers(1, 50),
    "beparams": st.sampled_from([{"memory": "256"}, {"minmem": "4g"}, {"vcpus": 0}, {"x": 1}]),
    "ndparams": st.sampled_from([{"spindle_count": 2}, {"exclusive_storage": True}, {"ovs": "?"}]),
    "nicparams": st.sampled_from([{"link": "br1"}, {"mode": "routed"}, {"mode": "x"}]),
    "hvparams": st.sampled_from(
        [{"fake": {"migration_mode": "live"}}, {"fake": {"x": 1}}, {"kvm": {"acpi": False}}]
    ),
    "ipolicy": st.sampled_from(
        [{"vcpu-ratio": 2}, {"disk-templates": ["diskless", "drbd"]}, {"x": 1}, {"minmax": []}]
    ),
    "enabled_disk_templates": st.lists(st.sampled_from(TEMPLATES), max_size=4, unique=True),
    "enabled_hypervisors": st.lists(st.sampled_from(["fake", "kvm"]), max_size=2, unique=True),
    "vg_name": st.sampled_from(["", "xenvg", "other"]),
    "drbd_helper": st.sampled_from(["", "/bin/true", "/bin/false"]),
    "diskparams": st.sampled_from([{"drbd": {"resync-rate": 5}}, {"file": {"stripes": 1}}]),
    "uid_pool": st.sampled_from([[[5, 6]], [[6, 5]], []]),
    "add_uids": st.just([[7, 8]]),
    "remove_uids": st.just([[7, 8]]),
    "reserved_lvs": st.sampled_from([["x.*"], ["("], []]),
    "master_netdev": st.sampled_from(["lo", "eth0"]),
    "master_netmask": st.integers(0, 40),
    "instance_communication_network": st.sampled_from(["", "talk", "net1"]),
    "mac_prefix": st.sampled_from(["aa:00:01", "zz"]),
    "force": st.booleans(),
}

changes = st.lists(
    st.sampled_from(sorted(PARAMETERS)), min_size=1, max_size=3, unique=True
).flatmap(lambda names: st.fixed_dictionaries({name: PARAMETERS[name] for name in names}))


#: Calls of these opcodes that may fail, and how.
faults = st.builds(
    SimulatedFault,
    kind=st.sampled_from(["error", "unreachable", "garbage"]),
    node=st.sampled_from([None, "node1", "node2", "node3"]),
    call=st.sampled_from(
        [
            "blockdev_getdimensions",
            "blockdev_getmirrorstatus_multi",
            "drbd_helper",
            "drbd_needs_activation",
            "hypervisor_validate_params",
            "lv_list",
            "node_activate_master_ip",
            "node_change_master_netmask",
            "node_deactivate_master_ip",
            "node_verify",
            "upload_file",
            "vg_list",
        ]
    ),
    count=st.integers(1, 3),
    payload=st.sampled_from([None, [], {}, "text", [[1]], [[True, 5]], {"version": 5}]),
)


class ClusterRules:
    """Sets parameters, moves the master's address, renews keys, verifies."""

    world: World

    def set_params(self, change: dict[str, Any]) -> bool:
        """Changes parameters; returns whether that was done."""
        try:
            self.world.run("OP_CLUSTER_SET_PARAMS", **change)
        except MustWait:
            return False
        except Refused as refused:
            # A kill may also take effect after the change was made.
            return isinstance(refused.error, JobKilled)
        return True

    @rule(change=changes)
    def modify_cluster(self, change: dict[str, Any]) -> None:
        before, short = self.world.now, self.world.short()
        done = self.set_params(change)
        now = self.world.now
        if now is before:
            return
        assert done, "a request that was refused changed the cluster"
        if "candidate_pool_size" in change:
            assert now.cluster.candidate_pool_size == change["candidate_pool_size"]
            assert not self.world.short(), "the pool isn't full"
            assert not pool(now).surplus, "the pool is too large"
        else:
            assert self.world.short() == short

    @rule(change=changes, other=changes)
    def modify_cluster_twice_at_once(self, change: dict[str, Any], other: dict[str, Any]) -> None:
        self.world.meanwhile = [lambda: self.set_params(other)]
        self.set_params(change)
        self.world.meanwhile.clear()

    @rule(fault=faults)
    def calls_about_the_cluster_go_wrong(self, fault: SimulatedFault) -> None:
        self.world.nodes.faults.add(fault)

    @rule(up=st.booleans())
    def move_master_ip(self, up: bool) -> None:
        verb = "ACTIVATE" if up else "DEACTIVATE"
        self.world.try_run(f"OP_CLUSTER_{verb}_MASTER_IP")

    @rule(keys=st.booleans())
    def renew(self, keys: bool) -> None:
        self.world.try_run("OP_CLUSTER_RENEW_CRYPTO", node_certificates=True, renew_ssh_keys=keys)
        self.world.try_run("OP_CLUSTER_REDIST_CONF")
        self.world.try_run("OP_CLUSTER_POST_INIT")

    @rule()
    def destroy(self) -> None:
        before = self.world.now
        self.world.try_run("OP_CLUSTER_DESTROY")
        assert self.world.now is before

    def look(self, op_id: str, **parameters: Any) -> Any:
        """Runs an opcode that only a kill can stop; returns its result, None if killed."""
        try:
            return self.world.run(op_id, **parameters)
        except Refused as refused:
            if not isinstance(refused.error, JobKilled):
                raise
            return None

    @rule(codes=st.booleans(), clutter=st.booleans())
    def verify(self, codes: bool, clutter: bool) -> None:
        before = self.world.now
        done = self.look("OP_CLUSTER_VERIFY_CONFIG", error_codes=codes)
        assert done in (True, False, None)
        self.look("OP_CLUSTER_VERIFY", error_codes=codes, verbose=codes)
        self.look("OP_CLUSTER_VERIFY_DISKS")
        for uuid in self.world.now.groups:
            done = self.look(
                "OP_CLUSTER_VERIFY_GROUP", group_name=uuid, verbose=codes, verify_clutter=clutter
            )
            assert done in (True, False, None)
            self.look("OP_GROUP_VERIFY_DISKS", group_name=uuid)
        assert self.world.now is before, "looking changed something"

    @rule()
    def repair_sizes(self) -> None:
        self.look("OP_CLUSTER_REPAIR_DISK_SIZES")
