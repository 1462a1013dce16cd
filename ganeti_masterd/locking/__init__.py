"""Locks: what jobs want, who holds what, who waits, and what the lock query shows."""
