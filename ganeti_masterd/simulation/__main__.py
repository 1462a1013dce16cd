"""Sends a switch command to a simulated cluster: see :mod:`ganeti_masterd.simulation.control`."""

import sys

from ganeti_masterd.simulation.control import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
