"""Queries, the references that are searched, and the right answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from landseer.client.readable import plural
from landseer.ensemble.evaluation import Ids, Protocol, Truth
from landseer.ensemble.pictures.pictures import Region


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture, or a part of it."""

    path: Path
    region: Region | None = None
    """In pixels of the picture before it is turned."""
    turn: int = 0
    """Degrees by which its pixels are turned clockwise before it is described: 0, 90, 180 or 270."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """One search, and which references it should find."""

    shot: Shot
    easy: frozenset[Path]
    hard: frozenset[Path] = frozenset()
    junk: frozenset[Path] = frozenset()
    label: str = ""
    """What it shows, for display."""
    thing: str | None = None
    """The class, product or landmark that it shows; None where the data set does not say."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Queries over references. A query that is a reference itself never finds itself (leave-one-out)."""

    name: str
    queries: Sequence[Query]
    references: Sequence[Path]
    protocols: tuple[Protocol, ...] = ("medium",)
    """`medium` counts easy and hard as right; data sets without degrees have only easy answers."""
    distractors: int = 0
    """How many references, counted from the end, are distractors."""
    synthetic: int = 0
    """Number of generated vectors that follow the references as distractors (`synthetic.py`)."""
    skipped: tuple[Path, ...] = field(default=())
    """Pictures that could not be read."""

    def pictures(self) -> list[Shot]:
        """Return every picture that must be described, each once."""
        shots = [*(Shot(path=path) for path in self.references), *(query.shot for query in self.queries)]
        return list(dict.fromkeys(shots))

    def sampled(self, count: int | None, seed: int) -> Dataset:
        """Return it with `count` of its queries, drawn with a seed, in their order; None for all."""
        if count is None or count >= len(self.queries):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.queries), count, replace=False))
        return replace(self, queries=[self.queries[place] for place in chosen])

    def drawn(self, count: int | None, seed: int) -> Dataset:
        """Return it with `count` of its references, drawn with a seed; None for all.

        Drops queries without a right answer left, and queries that are references which were not drawn.
        """
        if count is None or count >= len(self.references):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.references), count, replace=False))
        references = [self.references[place] for place in chosen]
        kept = frozenset(references)
        gone = frozenset(self.references) - kept
        queries = [query for query in self.queries if query.shot.path not in gone and query.easy & kept]
        distractors = int(np.count_nonzero(chosen >= len(self.references) - self.distractors))
        return replace(self, queries=queries, references=references, distractors=distractors)

    def without(self, bad: Collection[Path]) -> Dataset:
        """Return it without unreadable pictures."""
        gone = frozenset(bad)
        if not gone:
            return self
        first = len(self.references) - self.distractors
        return replace(
            self,
            queries=[query for query in self.queries if query.shot.path not in gone],
            distractors=sum(path not in gone for path in self.references[first:]),
            references=[path for path in self.references if path not in gone],
            skipped=tuple(sorted(gone)),
        )

    def with_distractors(self, paths: Iterable[Path]) -> Dataset:
        """Return it with more references as distractors."""
        known = set(self.references)
        more = [path for path in paths if path not in known]
        return replace(self, references=[*self.references, *more], distractors=self.distractors + len(more))

    def turned(self, degrees: int) -> Dataset:
        """Return it with every query turned clockwise; references stay upright."""
        queries = [replace(query, shot=replace(query.shot, turn=degrees)) for query in self.queries]
        return replace(self, queries=queries)

    @property
    def turn(self) -> int:
        """Degrees by which the queries are turned."""
        return max((query.shot.turn for query in self.queries), default=0)

    def with_synthetic(self, count: int) -> Dataset:
        """Return it with more generated distractors."""
        return replace(self, synthetic=self.synthetic + count)

    def truths(self) -> list[Truth]:
        """Return what each query should find, as rows of `references`."""
        rows = {path: row for row, path in enumerate(self.references)}

        def ids(paths: frozenset[Path]) -> Ids:
            return np.array(sorted(rows[path] for path in paths if path in rows), np.int64)

        return [Truth(easy=ids(query.easy), hard=ids(query.hard), junk=ids(query.junk)) for query in self.queries]

    def classes(self) -> Ids:
        """Return a number for the class of each query, [Q]; a query whose thing is unknown is a class of its own."""
        things = [(query.thing or "", -1 if query.thing else place) for place, query in enumerate(self.queries)]
        numbers = {thing: number for number, thing in enumerate(dict.fromkeys(things))}
        return np.array([numbers[thing] for thing in things], np.int64)

    def summary(self) -> str:
        """Return the number of queries, their classes and the references, for people."""
        classes = len(np.unique(self.classes()))
        of = f" of {plural(classes, 'class', 'classes')}" if any(query.thing for query in self.queries) else ""
        parts = [plural(len(self.queries), "query", "queries") + (of or ", each counted as a class of its own")]
        parts += [f"turned by {self.turn} degrees"] if self.turn else []
        parts += [plural(len(self.references), "reference")]
        parts += [f"{self.distractors:,} of them distractors"] if self.distractors else []
        parts += [f"{self.synthetic:,} synthetic distractors (not pictures)"] if self.synthetic else []
        return ", ".join(parts)

    def own_rows(self) -> list[int | None]:
        """Return the row of each query among the references; None if it is not one, or only a part of one."""
        rows = {path: row for row, path in enumerate(self.references)}
        return [rows.get(query.shot.path) if query.shot.region is None else None for query in self.queries]
