"""Regular expressions that clients send, in filters, filter rules and searches for tags.

They run in RE2, whose time grows linearly with the length of the text and whose
memory is bounded. Backtracking engines, such as Python's own, may take hours for
``(a|aa)+$``, and let no other thread run meanwhile. The price: RE2 has neither
look-around nor back references.
"""

from __future__ import annotations

import re2

#: The most characters that an expression may have.
LONGEST = 10_000

_OPTIONS = re2.Options()
# Errors are raised, and so reported to the client; RE2 need not write them to standard error.
_OPTIONS.log_errors = False
# Bytes; RE2 caches 128 compiled expressions, each of which may take this much.
_OPTIONS.max_mem = 1 << 20


class BadPattern(ValueError):
    """A text isn't a valid regular expression; the message says why."""


class Pattern:
    """A compiled regular expression; raises :exc:`BadPattern` if the text isn't valid."""

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
        """Whether the expression matches anywhere in ``text``."""
        return self._compiled.search(text) is not None

    def fullmatch(self, text: str) -> bool:
        """Whether the expression matches the whole of ``text``."""
        return self._compiled.fullmatch(text) is not None
