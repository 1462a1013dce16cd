"""What comes before the reactor runs: paths, locks, checks, a simulated root."""
