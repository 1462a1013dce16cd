"""Parameters of the cluster and its objects: types, limits, and how changes are applied.

Pure and table-driven, for the cluster, groups, nodes, instances, NICs and
disks alike. ``types`` has the tables and converts values to their types; ``merging``
applies changes to parameters; ``effective`` computes the parameters in effect for an
object; the other modules check what types can't express.
"""
