"""Metrics and status over HTTP: what the daemon does, for Prometheus and for people.

Read only. Events feed the counts (``jobs``, ``activity``), a scrape reads the
rest (``readings``), ``declarations`` is the table of all metrics, ``pages`` and
``service`` serve them. Nothing here is imported unless it is asked for.
"""
