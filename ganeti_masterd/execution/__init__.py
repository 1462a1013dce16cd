"""From a ready job to its result: locks, the thread, hooks, the context."""
