"""trial TestCases; ``python -m twisted.trial tests`` and pytest both run them."""
