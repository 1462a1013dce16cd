"""The shape of JSON, which is the same when two nodes answer the same call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The name of the type of all numbers.
NUMBER = "number"


def shape(value: Any, *, keys: bool = True) -> Any:
    """Returns the skeleton of a JSON value.

    A scalar becomes the name of its type. A list becomes the list of the
    different shapes of its items, in the order they are first met. A dict becomes
    a dict of shapes; with ``keys`` false its values count like a list's items
    (for dicts whose keys are names of things).
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return NUMBER
    if isinstance(value, str):
        return "text"
    if isinstance(value, Mapping):
        if keys:
            return {str(key): shape(item) for key, item in sorted(value.items())}
        return {"*": _different(shape(item) for item in value.values())}
    return _different(shape(item) for item in value)


def differences(expected: Any, found: Any, where: str = "payload") -> list[str]:
    """Returns the places where ``found`` doesn't have the shape of ``expected``.

    A list agrees if each item of ``found`` has the shape of some item of ``expected``; an empty
    list agrees with every list. Dicts must have the same keys. None agrees only with None.
    """
    left, right = shape(expected), shape(found)
    if left == right:
        return []
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        faults: list[str] = []
        for key in sorted(set(expected) - set(found)):
            faults.append(f"{where}.{key} is missing")
        for key in sorted(set(found) - set(expected)):
            faults.append(f"{where}.{key} is too much")
        for key in sorted(set(found) & set(expected)):
            faults += differences(expected[key], found[key], f"{where}.{key}")
        return faults
    if isinstance(left, list) and isinstance(right, list):
        if not expected or not found:
            return []
        faults = []
        for place, item in enumerate(found):
            here = f"{where}[{place}]"
            tries = sorted((differences(other, item, here) for other in expected), key=len)
            faults += tries[0]
        return faults
    return [f"{where} is {right}, expected {left}"]


def _different(shapes: Any) -> list[Any]:
    found: list[Any] = []
    for one in shapes:
        if one not in found:
            found.append(one)
    return found
