"""Host names of instances: looked up, and whether their addresses are in use. Blocks."""

from __future__ import annotations

from ganeti_masterd.errors import ECODE_INVAL, ECODE_NOTUNIQUE, prereq
from ganeti_masterd.logical_units.cluster.renaming import answers, resolve
from ganeti_masterd.logical_units.context import Context
from ganeti_masterd.logical_units.nodes.addresses import ResolvedHost, normal_name


def resolved_name(ctx: Context, given: str) -> ResolvedHost:
    """Returns the full name and the address of a new instance, given its name.

    Raises ``OpPrereqError``: ``resolver_error`` for a name that doesn't resolve,
    ``wrong_input`` for one that resolves to quite another.
    """
    wanted = normal_name(given)
    name, address = resolve(wanted, ctx.snapshot().cluster.primary_ip_family)
    name = normal_name(name)
    if name != wanted:
        ctx.info(f"Resolved given name '{given}' to '{name}'")
    if name != wanted and not name.startswith(f"{wanted}."):
        raise prereq(
            f"Resolved hostname '{name}' does not look the same as given hostname '{given}'",
            ECODE_INVAL,
        )
    return ResolvedHost(name, address)


def check_address_unused(address: str, name: str) -> None:
    """Raises ``OpPrereqError`` with ``resource_not_unique`` if a machine has an address."""
    if answers(address):
        raise prereq(f"IP {address} of instance {name} already in use", ECODE_NOTUNIQUE)
