"""trial TestCases; ``python -m twisted.trial tests`` and pytest both run them."""

from __future__ import annotations

import signal

# A shell has what it runs in the background ignore SIGINT, and processes that tests start
# would inherit that: those that are interrupted have to see it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
