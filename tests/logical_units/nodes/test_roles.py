"""Roles, and the effects of requests on them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.newcluster import new_cluster
from ganeti_masterd.config.snapshot import Snapshot
from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.logical_units.nodes.roles import (
    Role,
    RoleDecision,
    check_power,
    decide,
    role_of,
    with_role,
)
from ganeti_masterd.opcodes.nodes import NodeSetParams
from tests.config.sample import EXAMPLES


def request(**parameters: Any) -> NodeSetParams:
    return NodeSetParams(node_name="node3", **parameters)


class RoleTests(SynchronousTestCase):
    """Tests of :func:`decide` and the checks, on node3 of three."""

    def cluster(self, role: Role, *, size: int = 10, **values: Any) -> Snapshot:
        snapshot = new_cluster("cluster", 3, 1000.0, candidate_pool_size=size)
        node = replace(with_role(snapshot.node("node3"), role), **values)
        return snapshot.with_object("nodes", node)

    def decide(self, role: Role, *, size: int = 10, **parameters: Any) -> RoleDecision:
        snapshot = self.cluster(role, size=size)
        return decide(snapshot, snapshot.node("node3"), request(**parameters))

    def test_plain(self) -> None:
        """Each flag that is set leads to its role, each that is unset away from it."""
        for before in Role:
            for after, flag in (
                (Role.DRAINED, "drained"),
                (Role.OFFLINE, "offline"),
                (Role.CANDIDATE, "master_candidate"),
            ):
                found = self.decide(before, size=2, **{flag: True})
                self.assertEqual((found.before, found.after), (before, after))
                unset = self.decide(after, size=2, **{flag: False})
                self.assertEqual((unset.before, unset.after), (after, Role.REGULAR))

    def test_other_parameters(self) -> None:
        """Without a requested role the node keeps its role."""
        for role in Role:
            self.assertIs(self.decide(role, size=2, vm_capable=False).after, role)

    def test_promotion(self) -> None:
        """A node that comes back becomes a candidate if the pool has room."""
        for role, flag in ((Role.DRAINED, "drained"), (Role.OFFLINE, "offline")):
            found = self.decide(role, **{flag: False})
            self.assertEqual(found.after, Role.CANDIDATE)
            self.assertEqual(found.lines, ("Auto-promoting node to master candidate",))
            self.assertIs(found.asked[0], True)

    def test_incapable_is_not_promoted(self) -> None:
        """A node that isn't master capable comes back as a regular node."""
        snapshot = self.cluster(Role.OFFLINE, master_capable=False)
        node = snapshot.node("node3")
        self.assertIs(decide(snapshot, node, request(offline=False)).after, Role.REGULAR)
        both = request(offline=False, master_capable=True)
        self.assertIs(decide(snapshot, node, both).after, Role.CANDIDATE)
        # Capable again, but still offline.
        capable = request(master_capable=True)
        self.assertIs(decide(snapshot, node, capable).after, Role.OFFLINE)

    def test_becomes_incapable(self) -> None:
        """A candidate that is no longer capable is demoted; others keep their role."""
        found = self.decide(Role.CANDIDATE, master_capable=False)
        self.assertEqual(found.after, Role.REGULAR)
        self.assertEqual(found.lines, ("Demoting from master candidate",))
        self.assertIs(self.decide(Role.DRAINED, master_capable=False).after, Role.DRAINED)

    def test_ineffective(self) -> None:
        """Flags that are unset already are logged, and count as not requested."""
        found = self.decide(Role.DRAINED, offline=False, master_candidate=False)
        self.assertEqual(found.after, Role.DRAINED)
        self.assertEqual(
            found.lines,
            (
                "Ignoring request to unset flag master_candidate, already unset",
                "Ignoring request to unset flag offline, already unset",
            ),
        )
        self.assertEqual(found.asked, (None, None, None))

    def test_contradiction(self) -> None:
        """A node whose flags exclude each other is left alone."""
        node = replace(self.cluster(Role.DRAINED).node("node3"), offline=True)
        error = self.assertRaises(OpPrereqError, role_of, node)
        self.assertEqual(
            error.args,
            ("Node node3 has flags that exclude each other: drained, offline", "wrong_state"),
        )

    def test_power(self) -> None:
        """A node that is off can't go online; one without power control has no power state."""
        node = replace(self.cluster(Role.OFFLINE).node("node3"), powered=False)
        error = self.assertRaises(OpPrereqError, check_power, node, request(offline=False), "/oob")
        self.assertIn("needs to be turned on", error.args[0])
        check_power(node, request(offline=False, powered=True), "/oob")
        check_power(node, request(offline=False), "")
        error = self.assertRaises(OpPrereqError, check_power, node, request(powered=True), "")
        self.assertIn("does not support out-of-band", error.args[0])

    @settings(deadline=None, max_examples=EXAMPLES)
    @given(
        st.sampled_from(Role),
        st.integers(1, 4),
        st.fixed_dictionaries(
            {
                name: st.sampled_from([None, True, False])
                for name in (
                    "master_candidate",
                    "drained",
                    "offline",
                    "master_capable",
                    "auto_promote",
                )
            }
        ),
    )
    def test_any_request(self, role: Role, size: int, flags: dict[str, bool | None]) -> None:
        """What is asked for in the end, and only that, leads from the one role to the other."""
        parameters = {**flags, "auto_promote": bool(flags["auto_promote"])}
        try:
            found = self.decide(role, size=size, **parameters)
        except OpPrereqError:
            return
        self.assertIs(found.before, role)
        wanted = dict(zip(("CANDIDATE", "DRAINED", "OFFLINE"), found.asked, strict=True))
        if found.after is not Role.REGULAR and found.after is not role:
            self.assertTrue(wanted[found.after.name])
        if wanted.get(found.after.name) is False:
            self.fail("a flag that was to be unset is set")
