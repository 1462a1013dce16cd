"""Tests of the tables of types, and of converting values to their types."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ganeti_masterd.config.parameters import types
from ganeti_masterd.config.parameters.types import enforce, parse_size
from ganeti_masterd.errors import TypeEnforcementError
from tests.config.parameters.facts import FACTS

TABLES = {
    "HVS_PARAMETER_TYPES": types.HYPERVISOR,
    "BES_PARAMETER_TYPES": types.BACKEND,
    "NDS_PARAMETER_TYPES": types.NODE,
    "NICS_PARAMETER_TYPES": types.NIC,
    "DISK_DT_TYPES": types.DISK_TEMPLATE,
    "ISPECS_PARAMETER_TYPES": types.INSTANCE_SPEC,
    "HVSTS_PARAMETER_TYPES": types.HYPERVISOR_STATE,
    "DSS_PARAMETER_TYPES": types.DISK_STATE,
}

ONE_OF_EACH = {
    "bool": "bool",
    "float": "float",
    "int": "int",
    "maybe": "maybe-string",
    "size": "size",
    "text": "string",
}


class TypesTests(SynchronousTestCase):
    """Values from clients are converted to the types of the configuration."""

    def test_tables(self) -> None:
        """Each table equals Ganeti's."""
        for name, table in TABLES.items():
            self.assertEqual(dict(table), FACTS[name], name)

    def test_values(self) -> None:
        """Strings are converted to the type of their parameter."""
        for name, value, expected in (
            ("bool", "True", True),
            ("bool", "FALSE", False),
            ("bool", 1, True),
            ("bool", "", False),
            ("bool", None, False),
            ("int", "12", 12),
            ("int", True, 1),
            ("int", 3.0, 3),
            ("float", "1.5", 1.5),
            ("size", "1g", 1024),
            ("size", 130, 132),
            ("text", False, ""),
            ("text", "x", "x"),
            ("maybe", None, None),
            ("maybe", "x", "x"),
        ):
            found = enforce({name: value}, ONE_OF_EACH)[name]
            self.assertEqual((found, type(found)), (expected, type(expected)), (name, value))

    def test_refused(self) -> None:
        """A value that can't be converted is refused; the error has its name and value."""
        for name, value, text in (
            ("bool", "maybe", "'bool' (value maybe) is not a valid boolean"),
            ("int", "x", "'int' (value x) is not a valid integer"),
            ("int", 1.5, "'int' (value 1.5) is not a valid integer"),
            ("int", None, "'int' (value None) is not a valid integer"),
            ("float", "nan", "'float' (value nan) is not a valid float"),
            ("text", 1, "'text' (value 1) is not a valid string"),
            ("text", None, "'text' (value None) is not a valid string"),
            ("maybe", 1, "'maybe' (value 1) is not a valid string"),
            ("size", "1x", "'size' (value 1x) is not a valid size. error: Unknown unit: x"),
            ("size", True, "'size' (value True) is not a valid size. error: Invalid format"),
            ("other", 1, "Unknown parameter 'other'"),
        ):
            error = self.assertRaises(TypeEnforcementError, enforce, {name: value}, ONE_OF_EACH)
            self.assertEqual(str(error), text)

    def test_no_dictionary(self) -> None:
        """Parameters that aren't a dictionary are refused."""
        not_one: Any = "x"
        error = self.assertRaises(TypeEnforcementError, enforce, not_one, ONE_OF_EACH)
        self.assertEqual(str(error), "Expected dictionary, got 'x'")

    def test_special(self) -> None:
        """A special value is kept whatever the parameter's type; one that only equals it isn't."""
        self.assertEqual(enforce({"int": "default"}, ONE_OF_EACH, ("default",)), {"int": "default"})
        self.assertEqual(enforce({"bool": None}, ONE_OF_EACH, (None,)), {"bool": None})
        self.assertIs(enforce({"bool": 1}, ONE_OF_EACH, (True,))["bool"], True)

    def test_nothing_changed(self) -> None:
        """The arguments aren't modified."""
        given_ = {"int": "1"}
        enforce(given_, ONE_OF_EACH)
        self.assertEqual(given_, {"int": "1"})

    def test_sizes(self) -> None:
        """Sizes are MiB, with a unit or without, and multiples of four."""
        for text, size in (
            ("1", 4),
            ("4m", 4),
            ("5M", 8),
            ("1.5GiB", 1536),
            ("2 TB", 2097152),
            ("0", 0),
            (12, 12),
        ):
            self.assertEqual(parse_size(text), size, text)
        for text in ("", "-1", "1 k", "b", "1.2.3", "m1", "1gigabyte"):
            self.assertRaises(ValueError, parse_size, text)

    @settings(deadline=None)
    @given(st.integers(0, 10**9))
    def test_sizes_never_less(self, size: int) -> None:
        """A size is rounded up, by less than four."""
        self.assertIn(parse_size(size) - size, range(4))
