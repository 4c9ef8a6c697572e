"""Parses the filter language of AIP-160 (https://google.aip.dev/160), by recursive descent.

    filter:      expression, or nothing
    expression:  factor {["AND"] factor}
    factor:      term {"OR" term}                    OR binds tighter than AND
    term:        ["NOT" | "-"] simple
    simple:      "(" expression ")" | comparison
    comparison:  name operator value

A name is a field of the metadata, `metadata.NAME` for one that is called `id` or `metadata`, or `id`. Values alone,
functions and comparisons of two fields, which AIP-160 leaves to the service, are errors.
"""

from __future__ import annotations

from typing import NoReturn

from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.filters.expression import AllOf, AnyOf, Comparison, Expression, Filter, Not, Value
from landseer.ensemble.filters.tokens import Token, fail, tokens_of

MOST_CHARACTERS, MOST_DEPTH, MOST_COMPARISONS = 4096, 20, 100
"""Of a filter. Depth counts parentheses within parentheses."""
_WORDS = ("AND", "OR", "NOT")
_METADATA = "metadata"
_ANYTHING = ("", "")


def parse(text: str) -> Filter | None:
    """Return what a filter says; None for one that is blank. InvalidInput points at the column of a mistake."""
    if len(text) > MOST_CHARACTERS:
        raise InvalidInput("filter", f"got {len(text):,} characters; expected at most {MOST_CHARACTERS:,}")
    if not text.strip():
        return None
    return Filter(text=text, root=_Parser(text).whole())


class _Parser:
    """One pass over a filter."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(tokens_of(text))
        self._at = 0
        self._depth = 0
        self._comparisons = 0

    def whole(self) -> Expression:
        """Parse all of it."""
        found = self._expression()
        if self._next.sort != "end":
            self._expected("AND, OR or the end")
        return found

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        taken = self._next
        self._at += taken.sort != "end"
        return taken

    def _takes(self, text: str) -> bool:
        """Take the next token if it is this word or sign."""
        there = self._next.sort in ("text", "sign") and self._next.text == text
        self._at += there
        return there

    def _expression(self) -> Expression:
        terms = [self._factor()]
        while self._takes("AND") or (self._next.sort in ("text", "string") or self._next.text == "("):
            terms.append(self._factor())
        return terms[0] if len(terms) == 1 else AllOf(terms=tuple(terms))

    def _factor(self) -> Expression:
        terms = [self._term()]
        while self._takes("OR"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else AnyOf(terms=tuple(terms))

    def _term(self) -> Expression:
        if self._takes("NOT") or self._takes_minus():
            return Not(term=self._simple())
        return self._simple()

    def _takes_minus(self) -> bool:
        """Take a minus sign, which may be the first character of a word."""
        token = self._next
        if token.sort != "text" or not token.text.startswith("-"):
            return False
        if len(token.text) == 1:
            self._at += 1
        else:
            self._tokens[self._at] = Token(sort="text", text=token.text[1:], column=token.column + 1)
        return True

    def _simple(self) -> Expression:
        if not self._takes("("):
            return self._comparison()
        self._depth += 1
        if self._depth > MOST_DEPTH:
            self._fail(f"more than {MOST_DEPTH} parentheses within each other at column {self._next.column - 1}")
        found = self._expression()
        if not self._takes(")"):
            self._expected("AND, OR or )")
        self._depth -= 1
        return found

    def _comparison(self) -> Comparison:
        self._comparisons += 1
        if self._comparisons > MOST_COMPARISONS:
            self._fail(f"more than {MOST_COMPARISONS} comparisons at column {self._next.column}; ask for fewer")
        name, start = self._name(), self._tokens[self._at - 1]
        if self._next.sort != "operator":
            self._no_operator(start)
        operator = self._take().text
        value = self._value()
        if name == (_METADATA, False):
            return self._presence(operator, value)
        field, explicit = name
        return Comparison(field=None if field == "id" and not explicit else field, operator=operator, value=value)

    def _name(self) -> tuple[str, bool]:
        """Take the name of a field; return whether it is a key of the metadata for certain, too."""
        token = self._next
        if token.sort not in ("text", "string") or (token.sort == "text" and token.text in _WORDS):
            self._expected("a comparison")
        if not token.quoted and token.text.startswith("-"):
            # After a NOT or a minus: taken as a name, it would be that of a field which no picture has.
            self._fail(f"NOT comes once; put a name that begins with - in quotes, at column {token.column}")
        self._take()
        if token.quoted:
            return "*".join(token.pieces), True
        first, dot, rest = token.text.partition(".")
        if not dot or first != _METADATA:
            return token.text, False
        if not rest and self._next.quoted:
            rest = "*".join(self._take().pieces)
        if not rest:
            self._expected("the name of a field")
        return rest, True

    def _value(self) -> Value:
        token = self._next
        if token.sort not in ("text", "string") or (token.sort == "text" and token.text in _WORDS):
            hint = "; for one of several values write (a = 1 OR a = 2)" if token.text == "(" else ""
            self._expected("a value", hint)
        self._take()
        return Value(pieces=token.pieces, quoted=token.quoted, column=token.column)

    def _presence(self, operator: str, key: Value) -> Comparison:
        """Return the comparison that `metadata:KEY` is short for."""
        if operator != ":":
            self._fail(
                f"`metadata` is a map, at column {key.column}; write metadata:NAME to ask whether it has a field"
            )
        anything = Value(pieces=_ANYTHING, quoted=False, column=key.column)
        return Comparison(field=key.text, operator=":", value=anything)

    def _no_operator(self, name: Token) -> NoReturn:
        if name.text.upper() in _WORDS:
            self._fail(f"write {name.text.upper()} in capitals at column {name.column}")
        if self._next.text == "(":
            self._fail(f"there are no functions, at column {name.column}")
        hint = "; a value alone finds nothing, and one with blanks needs quotes"
        self._expected("= != < <= > >= or :", hint)

    def _expected(self, what: str, hint: str = "") -> NoReturn:
        token = self._next
        if token.sort == "end":
            self._fail(f"expected {what} after column {token.column}{hint}")
        self._fail(f"expected {what} at column {token.column}, got {token.text}{hint}")

    def _fail(self, message: str) -> NoReturn:
        fail(self._text, self._next.column, message)
