"""Values of parameters: the same are accepted as by luxid 3.0.2, except those listed."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.errors import OpPrereqError
from ganeti_masterd.opcodes import decode_opcode, encode_opcode

from .facts import FACTS, VALUES, minimal

_HUGE = 2**70


def accepted(values: dict[str, Any]) -> bool:
    try:
        decode_opcode(values)
    except OpPrereqError:
        return False
    return True


class RecordedValueTests(SynchronousTestCase):
    def test_every_type_is_there(self) -> None:
        """There are recorded values for each type of parameter."""
        types = {
            parameter["type"]
            for facts in FACTS["opcodes"].values()
            for parameter in [*facts["params"], *FACTS["common"]]
        }
        self.assertEqual({entry["type"] for entry in VALUES}, types)

    def test_as_luxid(self) -> None:
        """A value is accepted or refused as recorded."""
        for entry in VALUES:
            for key, wanted in (
                ("both accept", True),
                ("both refuse", False),
                ("only luxid accepts", False),
                ("only we accept", True),
            ):
                for value in entry[key]:
                    self.assertEqual(
                        accepted({**entry["opcode"], entry["parameter"]: value}),
                        wanted,
                        f"{entry['type']}: {value!r}",
                    )

    def test_only_luxid(self) -> None:
        """Values that only luxid accepts: misread ones, and ones that the job then refuses."""
        for entry in VALUES:
            for value in entry["only luxid accepts"]:
                kind = entry["type"]
                odd = (
                    # a string as a list of its characters, a fraction rounded
                    ("String" in kind and value in ([], ["x"], [["x"]]))
                    or value in (1.5, -2.5)
                    or "1.5" in repr(value)
                    # 2**70 as 0, null as left out
                    or (value == _HUGE and kind.startswith(("OneOf 0", "EqualOrGreater")))
                    or (value is not None and "None" in repr(value) and "Disk" in kind)
                    # refused by the job itself, which knows the declared type
                    or "IPv" in kind
                    or (value == [{"": 1}] and "Disk" in kind)
                )
                self.assertTrue(odd, f"{kind}: {value!r}")

    def test_only_ours(self) -> None:
        """Values that only this daemon accepts, because they have Ganeti's declared type."""
        found = [
            (entry["parameter"], value) for entry in VALUES for value in entry["only we accept"]
        ]
        self.assertEqual(
            found,
            [
                ("ssh_key_bits", _HUGE),
                ("nicparams", {"link": ""}),
                ("disks", [{"size": 1, "mode": "zz"}]),
                ("what", "extstorage"),
                ("what", "lock"),
                ("what", "job"),
                ("what", "filter"),
            ],
        )


class WholeNumberTests(SynchronousTestCase):
    def test_inside(self) -> None:
        """A whole number may be a float, also inside lists; a fraction is refused."""
        for op_id, name, good, bad in (
            ("OP_TEST_DELAY", "reason", [["a", "b", 1e18]], [["a", "b", 1.5]]),
            ("OP_TEST_DELAY", "depends", [[1.0, ["success"]]], [[1.5, ["success"]]]),
            ("OP_TEST_DELAY", "repeat", 2.0, 2.5),
            ("OP_CLUSTER_SET_PARAMS", "uid_pool", [[1.0, 2]], [[1.5, 2]]),
        ):
            opcode = decode_opcode(minimal(op_id, **{name: good}))
            plain = encode_opcode(opcode)[name]
            self.assertEqual(plain, good)
            self.assertNotIn(".0", repr(plain))
            self.assertFalse(accepted(minimal(op_id, **{name: bad})), bad)

    def test_no_other_number(self) -> None:
        """A number that may have a fraction stays a float; strings and booleans are refused."""
        opcode = decode_opcode(minimal("OP_TEST_DELAY", duration=2.0, reason=[["a", "b", 3.0]]))
        self.assertIsInstance(getattr(opcode, "duration", None), float)
        for bad in ("1", True, float("inf"), float("nan")):
            self.assertFalse(accepted(minimal("OP_TEST_DELAY", repeat=bad)), bad)


class AddressTests(SynchronousTestCase):
    def test_networks_need_a_prefix_and_no_host_bits(self) -> None:
        """A network needs a prefix and no host bits, for either address family."""
        for good in ("192.0.2.0/24", "192.0.2.0/255.255.255.0", "0.0.0.0/0"):
            self.assertTrue(accepted(minimal("OP_NETWORK_ADD", network=good)), good)
        for bad in ("192.0.2.1/24", "192.0.2.0", "192.0.2.0/33", "2001:db8::/64", "", "/24"):
            self.assertFalse(accepted(minimal("OP_NETWORK_ADD", network=bad)), bad)
        for good in ("2001:db8::/64", "::/0"):
            self.assertTrue(accepted(minimal("OP_NETWORK_ADD", network6=good)), good)
        for bad in ("2001:db8::1/64", "2001:db8::", "fe80::%1/64", "192.0.2.0/24"):
            self.assertFalse(accepted(minimal("OP_NETWORK_ADD", network6=bad)), bad)

    def test_addresses_in_lists(self) -> None:
        """Each address of a list is checked; an empty list is accepted."""
        for good in ([], ["192.0.2.1", "192.0.2.2"], None):
            self.assertTrue(accepted(minimal("OP_NETWORK_ADD", add_reserved_ips=good)))
        self.assertFalse(
            accepted(minimal("OP_NETWORK_ADD", add_reserved_ips=["192.0.2.1", "192.0.2"]))
        )


class ChangeTests(SynchronousTestCase):
    def test_forms_are_not_mixed(self) -> None:
        """Changes to NICs and disks have one of two forms, which can't be mixed."""
        new: list[Any] = ["add", -1, {}]
        old: list[Any] = ["add", {}]
        wrong: list[list[Any]] = [
            [new, old],
            [old, new],
            [[]],
            [["add"]],
            [["modify", {}]],
            [[-1, {}]],
        ]
        for name in ("nics", "disks"):
            for good in ([new, new], [old, [0, {}], ["remove", {}]], []):
                self.assertTrue(accepted(minimal("OP_INSTANCE_SET_PARAMS", **{name: good})), good)
            for bad in wrong:
                self.assertFalse(accepted(minimal("OP_INSTANCE_SET_PARAMS", **{name: bad})), bad)

    def test_parameters_of_nics_and_disks(self) -> None:
        """NICs have known parameters, disks any; neither can have objects as values."""
        for name, good, bad in (
            ("nics", {"ip": None, "link": "br0"}, {"size": "1"}),
            ("disks", {"size": 1, "provider": "p"}, {"size": None}),
        ):
            for params, wanted in ((good, True), (bad, False), ({"name": {}}, False)):
                values = minimal("OP_INSTANCE_SET_PARAMS", **{name: [["modify", 0, params]]})
                self.assertEqual(accepted(values), wanted, params)
