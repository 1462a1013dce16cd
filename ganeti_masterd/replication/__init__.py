"""Replication of the queue and the configuration to other nodes."""
