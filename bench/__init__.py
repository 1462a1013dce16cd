"""Measures the daemon beside the limits of the machine it runs on: ``python -m bench``.

Three kinds of process take part, so that none slows another: this one, which
starts and stops and prints; the daemon, or whatever is measured; and the load
generator (:mod:`bench.load`).
"""
