"""Every logical unit of nodes, by being imported."""

from __future__ import annotations

from ganeti_masterd.logical_units.nodes.adding import AddNode
from ganeti_masterd.logical_units.nodes.commands import PowercycleNode, RunRestrictedCommand
from ganeti_masterd.logical_units.nodes.modifying import ModifyNode
from ganeti_masterd.logical_units.nodes.out_of_band import RunOutOfBand
from ganeti_masterd.logical_units.nodes.removing import RemoveNode
from ganeti_masterd.logical_units.nodes.storage import ListStorage, ModifyStorage, RepairStorage
from ganeti_masterd.logical_units.nodes.volumes import ListVolumes

__all__ = [
    "AddNode",
    "ListStorage",
    "ListVolumes",
    "ModifyNode",
    "ModifyStorage",
    "PowercycleNode",
    "RemoveNode",
    "RepairStorage",
    "RunOutOfBand",
    "RunRestrictedCommand",
]
