"""A backup of the master: one file with all that another machine needs to become it."""
