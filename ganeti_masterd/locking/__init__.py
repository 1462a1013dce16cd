"""Locks: requests of jobs, the table of holders and waiting jobs, and the lock query."""
