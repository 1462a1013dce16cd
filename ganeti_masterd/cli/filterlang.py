r"""The filter language of the gnt-* tools: from text to the nested lists of LUXI's Query.

::

    not master and (mfree > 1024 or "spare" in tags)

A condition is a field by itself (true or false), a comparison ``= == != < <= > >=`` with an
integer or a quoted text, a membership ``VALUE in FIELD`` or ``VALUE not in FIELD``, a search
for a regular expression ``FIELD =~ m/EXPRESSION/FLAGS`` (``!~``: not found), or a match of a
host name with a pattern ``FIELD =* "web*"`` (``!*``: none). ``not`` binds closest, then
``and``, then ``or``; parentheses group. The lists are those that Ganeti 3.0.2 makes of the same
text, with its rules for quotes: a quoted text is taken as it stands, backslashes and all, while
in a regular expression a backslash only keeps the character after it (``\\.`` is a literal dot),
but for ``\t \n \r \f``.
Where those tools need parentheses after an expression without flags, none are needed here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import lark
from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedInput, UnexpectedToken

from ganeti_masterd.cli.patterns import pattern
from ganeti_masterd.patterns import BadPattern, Pattern

#: What a filter is on its way to the daemon.
FilterDocument = list[Any]

_GRAMMAR = r"""
?start: either
?either: both (_OR both)*
?both: negation (_AND negation)*
?negation: _NOT negation          -> refused
         | condition
?condition: "(" either ")"
          | FIELD                 -> true
          | FIELD COMPARE value   -> compared
          | value _IN FIELD       -> contained
          | value _NOT _IN FIELD  -> missing
          | FIELD FINDS EXPRESSION -> searched
          | FIELD MATCHES TEXT    -> matched
?value: NUMBER | TEXT

FIELD: /[A-Za-z][A-Za-z0-9_\/.]*/
_OR.1: /or(?![A-Za-z0-9_\/.$])/
_AND.1: /and(?![A-Za-z0-9_\/.$])/
_NOT.1: /not(?![A-Za-z0-9_\/.$])/
_IN.1: /in(?![A-Za-z0-9_\/.$])/
COMPARE: "==" | "=" | "!=" | "<=" | "<" | ">=" | ">"
FINDS.1: "=~" | "!~"
MATCHES.1: "=*" | "!*"
NUMBER: /[-+]?[0-9]+/
TEXT: /"(?:[^"\\\n\r]|""|\\x[0-9A-Fa-f]+|\\[^x])*"/
    | /'(?:[^'\\\n\r]|''|\\x[0-9A-Fa-f]+|\\[^x])*'/
EXPRESSION: /m?[ \t\n\r]*(?P<mark>[\/#^|])(?:(?!(?P=mark))[^\\\n\r]|\\.)*(?P=mark)[A-Za-z]*/
%ignore /[ \t\n\r]+/
"""

#: How errors call what may stand in a place.
_WORDS = {
    "FIELD": "a field",
    "COMPARE": "a comparison",
    "FINDS": "'=~'",
    "MATCHES": "'=*'",
    "NUMBER": "a number",
    "TEXT": "a quoted text",
    "EXPRESSION": "an expression such as /^web/",
    "LPAR": "'('",
    "RPAR": "')'",
    "_OR": "'or'",
    "_AND": "'and'",
    "_NOT": "'not'",
    "_IN": "'in'",
    "$END": "the end",
}

#: Numbers are below this, and not below its negative.
_BEYOND = 1 << 63
_DIGITS = 40

_FLAGS = frozenset("si")
#: What stands for white space after a backslash.
_SPACES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPED = re.compile(r"\\(.)")


class FilterSyntaxError(ValueError):
    """A text is no filter; ``place`` counts its characters from 0 to where it goes wrong."""

    def __init__(self, text: str, place: int, reason: str) -> None:
        super().__init__(text, place, reason)
        self.text = text
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        """The reason and, below the line of the filter, a mark at the place."""
        before = self.text[: self.place]
        line = self.text.split("\n")[before.count("\n")]
        column = self.place - (before.rfind("\n") + 1)
        # Tabs stay, so that the mark is below its place.
        margin = "".join("\t" if each == "\t" else " " for each in line[:column].ljust(column))
        return f"{self.reason}\n  {line}\n  {margin}^"


def parse_filter(text: str) -> FilterDocument:
    """Returns the nested lists that a filter's text means; raises :exc:`FilterSyntaxError`."""
    try:
        parsed: Any = _parser().parse(text)
    except _Fault as fault:
        raise FilterSyntaxError(text, fault.token.start_pos or 0, fault.reason) from None
    except UnexpectedInput as error:
        raise _syntax_error(text, error) from None
    return list(parsed)


class _Fault(Exception):
    """A token that fits its place, but is wrong in itself."""

    def __init__(self, token: Token, reason: str) -> None:
        super().__init__(token, reason)
        self.token = token
        self.reason = reason


@lark.v_args(inline=True)
class _Lists(Transformer[Token, Any]):
    """Makes the lists while the parser goes on, so that no depth of nesting is too deep."""

    def NUMBER(self, token: Token) -> int:
        # Longer ones would be slow to read, and the daemon takes no larger ones.
        if len(token) > _DIGITS or not -_BEYOND <= int(token) < _BEYOND:
            raise _Fault(token, "The number is too large")
        return int(token)

    def TEXT(self, token: Token) -> str:
        return str(token)[1:-1]

    def FIELD(self, token: Token) -> str:
        return str(token)

    def EXPRESSION(self, token: Token) -> str:
        mark = re.search("[/#^|]", token)
        assert mark is not None
        inner, _, flags = token[mark.end() :].rpartition(mark[0])
        unknown = sorted(set(flags) - _FLAGS)
        if unknown:
            raise _Fault(token, f"An expression's flags are s and i, not {', '.join(unknown)}")
        chosen = f"(?{''.join(sorted(set(flags)))})" if flags else ""
        expression = chosen + _ESCAPED.sub(lambda one: _SPACES.get(one[1], one[1]), inner)
        try:
            Pattern(expression)
        except BadPattern as error:
            raise _Fault(token, f"No regular expression: {error}") from None
        return expression

    def either(self, *parts: FilterDocument) -> FilterDocument:
        return ["|", *parts]

    def both(self, *parts: FilterDocument) -> FilterDocument:
        return ["&", *parts]

    def refused(self, part: FilterDocument) -> FilterDocument:
        return ["!", part]

    def true(self, field: str) -> FilterDocument:
        return ["?", field]

    def compared(self, field: str, operator: Token, value: str | int) -> FilterDocument:
        return ["==" if operator == "=" else str(operator), field, value]

    def contained(self, value: str | int, field: str) -> FilterDocument:
        return ["=[]", field, value]

    def missing(self, value: str | int, field: str) -> FilterDocument:
        return ["!", ["=[]", field, value]]

    def searched(self, field: str, operator: Token, expression: str) -> FilterDocument:
        return _unless(operator == "!~", ["=~", field, expression])

    def matched(self, field: str, operator: Token, glob: str) -> FilterDocument:
        return _unless(operator == "!*", ["=~", field, pattern(glob)])


def _unless(negated: bool, test: FilterDocument) -> FilterDocument:
    return ["!", test] if negated else test


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", transformer=_Lists(), maybe_placeholders=False)


def _syntax_error(text: str, error: UnexpectedInput) -> FilterSyntaxError:
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        place = len(text)
    else:
        place = error.pos_in_stream or 0
    # What the error itself says of it is too much: it joins places that look alike.
    before = _parser().parse_interactive(text[:place])
    before.exhaust_lexer()
    allowed = before.accepts()
    words = [word for name, word in _WORDS.items() if name in allowed]
    expected = f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else "".join(words)
    found = "but the filter ends" if place >= len(text) else f"not {_word_at(text, place)!r}"
    return FilterSyntaxError(text, place, f"Expected {expected}, {found}")


def _word_at(text: str, place: int) -> str:
    match = re.compile(r"\w+|[^\w\s]+").match(text, place)
    return match[0] if match is not None else text[place]
