"""What a filter says, as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Value:
    """What a field is compared with."""

    pieces: tuple[str, ...]
    """The text between its wildcards: one piece without any."""
    quoted: bool
    column: int

    @property
    def text(self) -> str:
        """The text, wildcards included."""
        return "*".join(self.pieces)

    @property
    def anything(self) -> bool:
        """Whether it is the wildcard alone."""
        return self.pieces == ("", "")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A field compared with a value."""

    field: str | None
    """Of the metadata; None for the picture's id."""
    operator: str
    """One of = != < <= > >= and the colon."""
    value: Value


@dataclass(frozen=True, kw_only=True)
class Not:
    """What its term is not."""

    term: Expression


@dataclass(frozen=True, kw_only=True)
class AllOf:
    """Terms that all hold."""

    terms: tuple[Expression, ...]


@dataclass(frozen=True, kw_only=True)
class AnyOf:
    """Terms of which at least one holds."""

    terms: tuple[Expression, ...]


Expression = Comparison | Not | AllOf | AnyOf


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A filter that was parsed."""

    text: str
    root: Expression

    @property
    def fields(self) -> frozenset[str]:
        """The fields of the metadata that it names."""
        return frozenset(one.field for one in _comparisons(self.root) if one.field is not None)

    @property
    def by_id(self) -> bool:
        """Whether it names the id."""
        return any(one.field is None for one in _comparisons(self.root))


def _comparisons(expression: Expression) -> Iterator[Comparison]:
    if isinstance(expression, Comparison):
        yield expression
        return
    terms = (expression.term,) if isinstance(expression, Not) else expression.terms
    for term in terms:
        yield from _comparisons(term)
