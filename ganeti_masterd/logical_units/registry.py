"""Imports every logical unit, which registers it."""

from __future__ import annotations

# ruff: noqa: F401  (a unit registers itself when its module is imported)
from ganeti_masterd.logical_units.backups import exporting, preparing
from ganeti_masterd.logical_units.backups import removing as removing_exports
from ganeti_masterd.logical_units.base import UNITS, unit_for
from ganeti_masterd.logical_units.cluster import (
    crypto,
    lifecycle,
    master_ip,
    redistribution,
    renaming,
    set_params,
    tags,
)
from ganeti_masterd.logical_units.groups import assigning, declaring, parameters
from ganeti_masterd.logical_units.instances import (
    console,
    creating,
    creating_many,
    data,
    disk_activation,
    growing,
    rebooting,
    recreating,
    reinstalling,
    starting,
    stopping,
)
from ganeti_masterd.logical_units.instances import modifying as modifying_instances
from ganeti_masterd.logical_units.instances import removing as removing_instances
from ganeti_masterd.logical_units.instances import renaming as renaming_instances
from ganeti_masterd.logical_units.moves import (
    changing_groups,
    copying,
    evacuating,
    failing_over,
    migrating,
    replacing,
)
from ganeti_masterd.logical_units.networks import changing, connecting
from ganeti_masterd.logical_units.networks import declaring as declaring_networks
from ganeti_masterd.logical_units.nodes import (
    adding,
    commands,
    modifying,
    out_of_band,
    removing,
    storage,
    volumes,
)
from ganeti_masterd.logical_units.queries import cluster, resources
from ganeti_masterd.logical_units.trials import allocator, delay, queue
from ganeti_masterd.logical_units.verification import (
    configuration,
    disks,
    group,
    overview,
    sizes,
)

__all__ = ["UNITS", "unit_for"]
