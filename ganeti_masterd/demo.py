"""The demonstration, as ``python -m ganeti_masterd.demo``; see :mod:`ganeti_masterd.cli.demo`."""

from ganeti_masterd.cli.demo import main

if __name__ == "__main__":
    main()
