"""The master daemon of a Ganeti cluster, as a Twisted application.

``docs/architecture.rst`` is the map of this package, ``docs/reading.rst`` a
walk through one job, from the bytes of its submission to its result.
"""

__version__ = "0.1.0"
