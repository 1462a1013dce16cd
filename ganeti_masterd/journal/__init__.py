"""Durable state: group commit on SQLite, Ganeti's files that follow, recovery."""
