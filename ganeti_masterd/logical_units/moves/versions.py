"""Between which versions of a hypervisor instances can be migrated. Pure.

The rules are those of real daemon 3.0.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def is_safe(hypervisor: str, source: Any, target: Any) -> bool:
    """Whether an instance can go from one version to another, given as nodes tell them."""
    return _RULES.get(hypervisor, _same)(source, target)


def _same(source: Any, target: Any) -> bool:
    return bool(source == target)


def _any(source: Any, target: Any) -> bool:
    return True


def _next_minor(source: Any, target: Any) -> bool:
    """Of Xen the minor version may be the next one."""
    if source == target:
        return True
    try:
        return bool(source[0] == target[0] and target[1] - source[1] in (0, 1))
    except (IndexError, KeyError, TypeError):
        return False


_RULES: Mapping[str, Callable[[Any, Any], bool]] = {
    "kvm": _any,
    "xen-hvm": _next_minor,
    "xen-pvm": _next_minor,
}
