"""Tests of instance policies."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.defaults import IPOLICY
from ganeti_masterd.config.parameters.policy import (
    PolicyDemand,
    check_policy,
    check_policy_templates,
    updated_policy,
    violations,
)
from ganeti_masterd.errors import ConfigurationError, OpPrereqError, TypeEnforcementError
from tests.config.parameters.facts import FACTS

LEAST = IPOLICY["minmax"][0]["min"]
MOST = IPOLICY["minmax"][0]["max"]

#: A change of the cluster's policy, and part of the error message.
WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"other": 1}, "Invalid key in new ipolicy: other"),
    ({"vcpu-ratio": 0}, "Can't unset ipolicy attribute 'vcpu-ratio' on the cluster"),
    ({"vcpu-ratio": "default"}, "Can't unset ipolicy attribute 'vcpu-ratio'"),
    ({"disk-templates": ["default"]}, "Can't unset ipolicy attribute 'disk-templates'"),
    ({"vcpu-ratio": "x"}, "Invalid value for attribute 'vcpu-ratio': 'x'"),
    ({"spindle-ratio": -1}, "Invalid value for attribute 'spindle-ratio': '-1'"),
    ({"disk-templates": ["x"]}, "Invalid disk template(s) x"),
    ({"minmax": [{"min": LEAST}]}, "Missing instance specification: max"),
    ({"minmax": [{"min": {}, "max": MOST}]}, "Missing instance specs parameters for min: cpu-"),
    ({"minmax": [{"min": MOST, "max": LEAST}]}, "Invalid specification of min/max values for"),
    ({"minmax": [1]}, "minmax must be a dictionary"),
    ({"minmax": {"min": LEAST, "max": MOST}}, "minmax must be a list"),
    ({"std": {"cpu-count": 9}}, "Invalid std specifications"),
    ({"std": [1]}, "std must be a dictionary"),
)


class PolicyTests(SynchronousTestCase):
    """A policy must be complete, with ordered bounds and the standard between them."""

    def test_defaults(self) -> None:
        """Ganeti's default policy is valid."""
        self.assertEqual(dict(IPOLICY), FACTS["IPOLICY_DEFAULTS"])
        check_policy(IPOLICY)
        self.assertEqual(updated_policy(IPOLICY, {}), dict(IPOLICY))

    def test_refused(self) -> None:
        """Changes that make no sense are refused."""
        for change, text in WRONG:
            error = self.assertRaises(OpPrereqError, updated_policy, IPOLICY, change)
            self.assertIn(text, error.args[0])
            self.assertEqual(error.args[1], "wrong_input")

    def test_wrong_types(self) -> None:
        """A size that isn't a number is a type error."""
        change = {"std": {"cpu-count": "x"}}
        self.assertRaises(TypeEnforcementError, updated_policy, IPOLICY, change)

    def test_changed(self) -> None:
        """Numbers may be strings; lists and bounds are replaced, the standard is updated."""
        bounds = {"min": LEAST, "max": {**MOST, "cpu-count": "16"}}
        new = updated_policy(
            IPOLICY,
            {
                "vcpu-ratio": "8",
                "minmax": [bounds],
                "std": {"cpu-count": "10"},
                "disk-templates": ("plain",),
            },
        )
        self.assertEqual(new["vcpu-ratio"], 8.0)
        self.assertEqual(new["std"], {**IPOLICY["std"], "cpu-count": 10})
        self.assertEqual(new["minmax"][0]["max"]["cpu-count"], 16)
        self.assertEqual(new["disk-templates"], ["plain"])
        self.assertEqual(IPOLICY["std"]["cpu-count"], 1)

    def test_standard_in_any_bounds(self) -> None:
        """The standard sizes must fit into one of the bounds, not into all."""
        large = {"min": {**LEAST, "cpu-count": 4}, "max": MOST}
        updated_policy(IPOLICY, {"minmax": [large, {"min": LEAST, "max": MOST}]})
        self.assertRaises(OpPrereqError, updated_policy, IPOLICY, {"minmax": [large]})

    def test_group(self) -> None:
        """Keys of a group's policy can be removed, and it has no standard sizes."""
        own = {"vcpu-ratio": 2.0, "disk-templates": ["plain"]}
        new = updated_policy(
            own, {"vcpu-ratio": "default", "disk-templates": ["default"]}, of_group=True
        )
        self.assertEqual(new, {})
        error = self.assertRaises(
            OpPrereqError, updated_policy, {}, {"std": {"cpu-count": 1}}, of_group=True
        )
        self.assertIn("std cannot appear in group instance specs", error.args[0])

    def test_check(self) -> None:
        """A configured policy is checked as a whole."""
        for policy, text in (
            ({"minmax": [{"min": LEAST, "max": MOST}]}, "Missing key in ipolicy: std"),
            ({**IPOLICY, "minmax": []}, "Empty minmax specifications"),
            ({**IPOLICY, "disk-templates": []}, "at least one disk template"),
            ({**IPOLICY, "vcpu-ratio": "x"}, "Invalid value for key 'vcpu-ratio'"),
            ({**IPOLICY, "x": 1}, "Invalid keys in ipolicy: x"),
        ):
            error = self.assertRaises(ConfigurationError, check_policy, policy)
            self.assertIn(text, str(error))

    def test_templates(self) -> None:
        """A policy can't allow disk templates that the cluster doesn't enable."""
        check_policy_templates(IPOLICY, IPOLICY["disk-templates"])
        error = self.assertRaises(OpPrereqError, check_policy_templates, IPOLICY, ["diskless"])
        self.assertIn("not enabled on the cluster: blockdev, drbd", error.args[0])


def demand(**change: Any) -> PolicyDemand:
    """Returns the demand of a small instance, with changes."""
    sizes = {"memory": 128, "cpus": 1, "disk_sizes": [1024], "disk_types": ["plain"]}
    return PolicyDemand(**{**sizes, "nics": 1, "spindles": 1, **change})


class ViolationTests(SynchronousTestCase):
    """An instance satisfies a policy if it fits into one of its bounds."""

    def test_kept(self) -> None:
        """An instance that fits has no violations; unknown values aren't checked."""
        self.assertEqual(violations(IPOLICY, demand()), [])
        self.assertEqual(violations(IPOLICY, demand(memory="auto", spindles=None)), [])

    def test_broken(self) -> None:
        """Every size that doesn't fit is reported."""
        found = violations(IPOLICY, demand(memory=64, disk_sizes=[1, 2], disk_types=["plain"] * 2))
        self.assertEqual(
            found,
            [
                "memory-size value 64 is not in range [128, 32768]",
                "disk-size/0 value 1 is not in range [1024, 1048576]",
                "disk-size/1 value 2 is not in range [1024, 1048576]",
            ],
        )

    def test_templates(self) -> None:
        """Templates that aren't allowed are reported, including diskless."""
        policy = {**IPOLICY, "disk-templates": ["plain"]}
        (text,) = violations(policy, demand(disk_types=["file"]))
        self.assertIn("Disk template file is not allowed", text)
        (text,) = violations(policy, demand(disk_types=[], disk_sizes=[]))
        self.assertIn("Disk template diskless is not allowed", text)

    def test_nearest_bounds(self) -> None:
        """Of several bounds, those with the fewest violations are reported."""
        none = {"min": {**LEAST, "memory-size": 4096, "cpu-count": 4}, "max": MOST}
        near = {"min": {**LEAST, "memory-size": 256}, "max": MOST}
        (text,) = violations({**IPOLICY, "minmax": [none, near]}, demand())
        self.assertIn("[256, 32768]", text)
