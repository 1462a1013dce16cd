"""The switch from luxid and wconfd to this daemon, and back: checks, then steps that undo."""
