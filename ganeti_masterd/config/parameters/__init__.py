"""Parameters of all that has some: their types, their limits, and how changes are laid over them.

Pure and table-driven, for the cluster, groups, nodes, instances, NICs and
disks alike. ``types`` has the tables and gives values their types; ``merging``
makes the new parameters of the old ones and a change; the other modules check
what types can't say. Parameters as they take effect are in
``effective``.
"""
