"""Tests of queries: fields, filters, the engine, and what luxid answered."""
