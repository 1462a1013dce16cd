"""The one-line summary of an opcode that job lists show."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ganeti_masterd.opcodes.base import Opcode


def summary(opcode: Opcode) -> str:
    """Returns the opcode's name and its ``SUMMARY`` parameter: ``TEST_DELAY(3.0)``.

    Numbers are formatted like luxid 3.0.2's: ``5.0e-2`` below 0.1, ``1.0e7`` from ten
    million on. A value of None is shown as ``None``.
    """
    name = opcode.op_id.removeprefix("OP_")
    if opcode.SUMMARY is None:
        return name
    return f"{name}({_text(getattr(opcode, opcode.SUMMARY))})"


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    if isinstance(value, float):
        return _float_text(value)
    return str(value)


def _float_text(value: float) -> str:
    """Returns a float in luxid's notation: the fewest digits that give the same float."""
    if value == 0 or 0.1 <= abs(value) < 1e7:
        return repr(value)
    exact = Decimal(repr(abs(value)))
    digits = "".join(map(str, exact.as_tuple().digits)).rstrip("0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[0]}.{digits[1:] or '0'}e{exact.adjusted()}"
