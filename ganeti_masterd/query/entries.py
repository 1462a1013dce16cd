"""Cells of a query's answer: a status and a value (protocol/luxi.rst, Methods).

A field's function returns the bare value of a normal cell, None for data that
doesn't exist (status 3), or an :class:`Entry` for any other status.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from ganeti_masterd.constants import RS_NODATA, RS_NORMAL, RS_OFFLINE, RS_UNAVAIL, RS_UNKNOWN


class Entry(Struct, frozen=True, array_like=True):
    """One cell, ``[status, value]`` on the wire."""

    status: int
    value: Any = None


#: The field doesn't exist.
UNKNOWN: Final = Entry(RS_UNKNOWN)
#: The node that has the data didn't return it: the call failed, or it could not be reached.
NO_DATA: Final = Entry(RS_NODATA)
#: The object has no such data.
UNAVAILABLE: Final = Entry(RS_UNAVAIL)
#: The node that has the data is marked offline.
OFFLINE: Final = Entry(RS_OFFLINE)
#: A normal cell whose value is None.
NULL: Final = Entry(RS_NORMAL)
