"""``gnt-luxi``, the command line of the master daemon: a LUXI client and nothing else."""
