"""The data of the report on the very same thing. Data sets with the same references are searched in one library."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.pictures.pictures import upright
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.readers import pictures_in, read

FLAT, THINGS = "flat things", "things"
"""Kinds of data sets: photographs of flat things and their references, and photographs by class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sought:
    """A data set: queries, and the pictures that they are searched for in."""

    kind: str
    """`FLAT` or `THINGS`."""
    spec: str
    """As on the command line."""
    data: Dataset


@dataclass(frozen=True, kw_only=True, eq=False)
class Library:
    """Pictures that are indexed together, and the data sets that are searched for in them."""

    references: Sequence[Path]
    sets: Sequence[Sought]

    def without(self, bad: Collection[Path]) -> Library:
        """Return it without unreadable pictures. OpsError if a data set has no query left."""
        gone = frozenset(bad)
        sets = [replace(one, data=one.data.without(gone & frozenset(_paths(one.data)))) for one in self.sets]
        for one in sets:
            if not any(len(truth.easy) + len(truth.hard) for truth in one.data.truths()):
                raise OpsError(f"{one.spec}: no query has a right answer among the readable pictures")
        return Library(references=[path for path in self.references if path not in gone], sets=sets)

    def unreadable_queries(self) -> Iterator[tuple[Path, str]]:
        """Yield the queries that cannot be decoded and are no references, which indexing checks, with the reason."""
        known = set(self.references)
        for path in dict.fromkeys(query.shot.path for one in self.sets for query in one.data.queries):
            try:
                if path not in known:
                    upright(path.read_bytes())
            except InvalidInput as error:
                yield path, error.description
            except OSError as error:
                yield path, str(error.strerror or error)


def libraries(
    specs: Iterable[tuple[str, str]], *, distractors: Sequence[Path], queries: int | None, seed: int
) -> list[Library]:
    """Read data sets, (kind, spec) each. OpsError.

    distractors: folders whose pictures are searched beside the references of every data set; queries: how many of each
    to draw with the seed, None for all.
    """
    more = [path for folder in distractors for path in pictures_in(folder)]
    together: dict[tuple[Path, ...], list[Sought]] = {}
    for kind, spec in dict.fromkeys(specs):
        data = read(spec).sampled(queries, seed).with_distractors(more)
        together.setdefault(tuple(data.references), []).append(Sought(kind=kind, spec=spec, data=data))
    return [Library(references=references, sets=sets) for references, sets in together.items()]


def _paths(data: Dataset) -> Iterator[Path]:
    yield from data.references
    yield from (query.shot.path for query in data.queries)
