"""Tells twistd about ``twistd gnt-masterd``."""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(
    "Ganeti master daemon",
    "ganeti_masterd.tap",
    "The master daemon of a Ganeti cluster, also on simulated nodes.",
    "gnt-masterd",
)
