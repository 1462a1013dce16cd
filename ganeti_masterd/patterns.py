"""Regular expressions that clients send, in filters, filter rules and searches for tags.

They are RE2's, whose time grows with the length of the text alone, and whose
memory is bounded. Engines that try alternatives one after the other, such as
Python's own, may take hours for ``(a|aa)+$``, and let no other thread run
meanwhile. The price: RE2 has neither look-around nor back references.
"""

from __future__ import annotations

import re2

#: How many characters an expression may have.
LONGEST = 10_000

_OPTIONS = re2.Options()
# What is wrong is told to whoever sent the expression, not to standard error.
_OPTIONS.log_errors = False
# RE2 remembers 128 expressions, each of which may take this much.
_OPTIONS.max_mem = 1 << 20


class BadPattern(ValueError):
    """A text that is no regular expression; its message says why."""


class Pattern:
    """A regular expression, compiled. Raises :exc:`BadPattern` for a text that is none."""

    __slots__ = ("_compiled", "text")

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise BadPattern(f"it has {len(text):,} characters, more than {LONGEST:,}")
        self.text = text
        try:
            self._compiled = re2.compile(text, _OPTIONS)
        except re2.error as error:
            (fault,) = error.args  # bytes, which the class doesn't say
            raise BadPattern(fault.decode("utf-8", "replace")) from None
        except UnicodeEncodeError:
            raise BadPattern("it has a character that is not Unicode") from None

    def search(self, text: str) -> bool:
        """Whether it is found somewhere in a text."""
        return self._compiled.search(text) is not None

    def fullmatch(self, text: str) -> bool:
        """Whether it matches all of a text."""
        return self._compiled.fullmatch(text) is not None
