"""The kinds of pictures that descriptors are judged on: a data set each, among distractors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.evaluation import Evaluation, Ids, evaluate
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.head_vectors import Vectors
from landseer.ops.evaluate.methods import NONE, Method, rankings
from landseer.ops.evaluate.readers import pictures_in, read

FIRST = 1
"""The number of first hits that precision is measured of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kind:
    """A data set of one kind of pictures."""

    name: str
    """For people, such as `covers`."""
    data: Dataset

    @property
    def pictures(self) -> list[Path]:
        """The pictures to describe, each once."""
        return [shot.path for shot in self.data.pictures()]

    @cached_property
    def classes(self) -> Ids:
        """The class of each query, [Q]."""
        return self.data.classes()

    def judged(self, vectors: Sequence[NDArray[np.float32]]) -> Evaluation:
        """Judge unit vectors, one of each of `pictures`, by what a search without expansion finds."""
        rows = {path: row for row, path in enumerate(self.pictures)}
        queries = np.stack([vectors[rows[query.shot.path]] for query in self.data.queries])
        references = np.stack([vectors[rows[path]] for path in self.data.references])
        ranked = rankings(Method(name=NONE), queries, references, self.data.own_rows(), lattqe=_no_lattqe)
        return evaluate(list(ranked), self.data.truths(), ks=(FIRST,))


def kinds(tests: Iterable[str], distractors: Iterable[str]) -> list[Kind]:
    """Read data sets [NAME=]SPEC, and folders of distractors NAME=FOLDER for them. OpsError."""
    more: dict[str, list[Path]] = defaultdict(list)
    for text in distractors:
        name, separator, folder = text.partition("=")
        if not separator:
            raise OpsError(f"got the distractors {text}; expected NAME=FOLDER, NAME being that of a --test NAME=SPEC")
        more[name] += pictures_in(Path(folder))
    found = []
    for text in tests:
        name, spec = _named(text)
        found.append(Kind(name=name, data=_whole(spec).with_distractors(more.pop(name, []))))
    if more:
        known = ", ".join(kind.name for kind in found)
        raise OpsError(f"got distractors for {min(more)}; expected the name of a test: {known}")
    if len({kind.name for kind in found}) < len(found):
        raise OpsError(f"two tests have one name among {', '.join(kind.name for kind in found)}; expected a name each")
    return found


def _named(text: str) -> tuple[str, str]:
    """Return the name and the data set of [NAME=]SPEC; the name is the data set by default."""
    name, separator, spec = text.partition("=")
    return (name, spec) if separator and ":" not in name else (text, text)


def _whole(spec: str) -> Dataset:
    data = read(spec)
    if any(query.shot.region for query in data.queries):
        raise OpsError(f"{spec} has queries that are parts of pictures; expected whole ones: `landseer evaluate` can")
    return data


def _no_lattqe(query: Vectors, neighbours: Vectors) -> Vectors:
    raise OpsError("no query is expanded here")
