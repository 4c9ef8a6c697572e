"""Comparisons as functions of values.

A value that is missing, or not of the field's kind, satisfies no comparison, not even `!=`; `NOT` turns that round.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.filters.expression import Comparison, Value
from landseer.ensemble.filters.kinds import Kind, items, json_items, moment, number, numeric, truth
from landseer.ensemble.filters.tokens import fail

NumberTest = Callable[[NDArray[np.float64]], NDArray[np.bool_]]
TextTest = Callable[[str], bool]
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    ":": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EXAMPLES = {"number": "1990", "bool": "true or false", "time": "2026-11-29 or 2026-11-29T12:00:00Z"}


def number_test(comparison: Comparison, kind: Kind, filter: str) -> NumberTest:
    """Return whether values [n] of a numeric kind, NaN where missing, satisfy a comparison.

    InvalidInput if it compares with a value of another kind; filter: its text, for the message.
    """
    value = comparison.value
    if comparison.operator == ":" and value.anything:
        return lambda values: ~np.isnan(values)
    asked = numeric(value.text, kind)
    if asked is None:
        message = f"{comparison.field} is a {kind}; expected {_EXAMPLES[kind]} at column {value.column}"
        fail(filter, value.column, f"{message}, got {value.text}")
    if kind == "bool" and comparison.operator in ("<", "<=", ">", ">="):
        fail(filter, value.column, f"{comparison.field} is a bool; compare it by = or !=, at column {value.column}")
    compare = _OPERATORS[comparison.operator]
    if comparison.operator == "!=":
        return lambda values: (values != asked) & ~np.isnan(values)
    return lambda values: np.asarray(compare(values, asked))


def text_test(comparison: Comparison, kind: Kind | None, filter: str) -> TextTest:
    """Return whether a text satisfies a comparison. kind: `text`, `list`, or None for a field that has none.

    A field without a kind is compared as what the value is: a number, a truth or a time without quotes, or else a text.
    InvalidInput for an operator that lists do not have.
    """
    value = comparison.value
    if comparison.operator == ":":
        return _has(value, kind)
    if kind == "list":
        message = f"{comparison.field} is a list; write {comparison.field}:{value.text} for one that has it"
        fail(filter, value.column, f"{message}, at column {value.column}")
    if kind is None and not value.quoted:
        for read in (number, truth, moment):
            asked = read(value.text)
            if asked is not None:
                return _as(read, asked, _OPERATORS[comparison.operator])
    if comparison.operator == "=":
        return _like(value.pieces)
    if comparison.operator == "!=":
        same = _like(value.pieces)
        return lambda text: not same(text)
    compare, limit = _OPERATORS[comparison.operator], value.text
    return lambda text: bool(compare(text, limit))


def exact_text(comparison: Comparison, kind: Kind | None) -> str | None:
    """Return the one text that satisfies a comparison; None if several may. kind: as for `text_test`."""
    value = comparison.value
    if comparison.operator != "=" or len(value.pieces) > 1 or kind == "list":
        return None
    as_text = kind == "text" or value.quoted or all(read(value.text) is None for read in (number, truth, moment))
    return value.text if as_text else None


def _has(value: Value, kind: Kind | None) -> TextTest:
    """Return the test of `:`: an element of a list, or a part of a text; with wildcards the whole of either."""
    if value.anything:
        return lambda text: True
    like, part = _like(value.pieces), value.text
    within = like if len(value.pieces) > 1 else lambda text: part in text
    if kind == "list":
        return lambda text: any(map(like, items(text)))
    if kind == "text":
        return within
    asked = None if value.quoted else number(part)
    single = within if asked is None else _as(number, asked, operator.eq)
    return lambda text: any(map(like, json_items(text) or ())) if text.startswith("[") else single(text)


def _as(read: Callable[[str], float | None], asked: float, compare: Callable[[Any, Any], Any]) -> TextTest:
    def test(text: str) -> bool:
        found = read(text)
        return found is not None and bool(compare(found, asked))

    return test


def _like(pieces: tuple[str, ...]) -> TextTest:
    """Return whether a text is the pieces, with anything between them. Takes time linear in the text and the pieces."""
    if len(pieces) == 1:
        return pieces[0].__eq__
    first, *middle, last = pieces

    def test(text: str) -> bool:
        if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
            return False
        at, end = len(first), len(text) - len(last)
        for piece in middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    return test
