"""``gnt-luxi``, the master daemon's command line: a LUXI client."""
