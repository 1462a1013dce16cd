"""How changes of NICs and disks are read, and which device they are about."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.objects import Nic
from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.logical_units.instances.device_changes import (
    DeviceChange,
    place_of,
    read_changes,
)

DEVICES = [Nic(mac="m", uuid="u0", name="front"), Nic(mac="m", uuid="u1"), Nic(mac="m", uuid="u2")]


class DeviceChangesTests(SynchronousTestCase):
    """Both forms of changes, and all ways to name a device."""

    def refused(self, *args: Any) -> tuple[Any, ...]:
        error: OpPrereqError = self.assertRaises(OpPrereqError, *args)
        return error.args

    def test_new_form(self) -> None:
        """Several changes, each with its device."""
        given = [["add", -1, {"a": 1}], ["remove", "front", {}], ["modify", 0, {}]]
        self.assertEqual(
            read_changes("disk", given),
            [
                DeviceChange("add", -1, {"a": 1}),
                DeviceChange("remove", "front", {}),
                DeviceChange("modify", 0, {}),
            ],
        )

    def test_old_form(self) -> None:
        """An index stands for a modification, an action is about the last device."""
        self.assertEqual(
            read_changes("NIC", [[1, {"ip": "x"}], ["remove", {}]]),
            [DeviceChange("modify", 1, {"ip": "x"}), DeviceChange("remove", -1, {})],
        )
        self.assertEqual(
            self.refused(read_changes, "NIC", [["add", {}], ["remove", {}]]),
            (
                "Only one NIC add/attach/remove/detach operation is supported at a time",
                "wrong_input",
            ),
        )

    def test_settings_for_nothing(self) -> None:
        """What goes has no settings."""
        for action in ("remove", "detach"):
            self.assertEqual(
                self.refused(read_changes, "disk", [[action, 0, {"mode": "ro"}]]),
                ("No settings should be passed when removing or detaching a disk", "wrong_input"),
            )

    def test_places(self) -> None:
        """By index, also as text, by name and by uuid; -1 is the last, or behind it."""
        for identifier, place in ((0, 0), ("2", 2), (-1, 2), ("-1", 2), ("front", 0), ("u1", 1)):
            change = DeviceChange("modify", identifier, {})
            self.assertEqual(place_of("NIC", change, DEVICES), place)
        for identifier, place in ((0, 0), (3, 3), (-1, 3)):
            change = DeviceChange("add", identifier, {})
            self.assertEqual(place_of("NIC", change, DEVICES), place)

    def test_no_such_place(self) -> None:
        """The message names kind, index and count."""
        for kind, change, error in (
            (
                "NIC",
                DeviceChange("modify", 5, {}),
                ("There is no NIC with the index 5: the instance has 3 of them", "wrong_input"),
            ),
            (
                "disk",
                DeviceChange("remove", -2, {}),
                ("There is no disk with the index -2: the instance has 3 of them", "wrong_input"),
            ),
            (
                "disk",
                DeviceChange("add", 4, {}),
                ("A disk can't be added at index 4: the instance has 3 of them", "wrong_input"),
            ),
            (
                "NIC",
                DeviceChange("add", "front", {}),
                (
                    "A NIC is added at an index, or at the end by -1, not at 'front'",
                    "wrong_input",
                ),
            ),
            (
                "NIC",
                DeviceChange("modify", "back", {}),
                ("Cannot find NIC with identifier back", "unknown_entity"),
            ),
            (
                "disk",
                DeviceChange("detach", "back", {}),
                ("Lookup of disk 'back' failed", "unknown_entity"),
            ),
        ):
            self.assertEqual(self.refused(place_of, kind, change, DEVICES), error)
        self.assertEqual(
            self.refused(place_of, "disk", DeviceChange("remove", -1, {}), []),
            ("There is no disk with the index -1: the instance has 0 of them", "wrong_input"),
        )
