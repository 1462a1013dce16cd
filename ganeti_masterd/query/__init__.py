"""Queries: the fields of every resource, filters, and the engine that answers.

Each resource declares its fields in a table. The engine takes one snapshot of
the configuration, chooses rows by name or filter, asks the nodes only for what
the fields and the filter need, and computes the cells.
"""
