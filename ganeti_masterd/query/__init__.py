"""Queries: the fields of every resource, filters, and the engine that answers queries.

Each resource declares its fields in a table. To answer a query, the engine takes one
snapshot of the configuration, selects rows by name or filter, asks the nodes only for
what the fields and the filter need, and computes the cells.
"""
