"""Metrics and status over HTTP, for Prometheus and for people.

Read only. Counters are updated by events (``jobs``, ``activity``), all other metrics are
read at each scrape (``readings``), ``declarations`` is the table of all metrics, ``pages``
and ``service`` serve them. Nothing here is imported unless monitoring is configured.
"""
