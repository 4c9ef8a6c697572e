"""Reading the data sets of `landseer evaluate`: those of training, pairs of folders, and Revisited Oxford and Paris.

Every error names the file, the line and what was expected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from landseer.ensemble.pictures.pictures import Region
from landseer.export.datasets import folders
from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.folders import read_folders
from landseer.export.datasets.grocery import read_grocery
from landseer.export.datasets.listing import read_list
from landseer.export.datasets.photograph import Photographs
from landseer.export.datasets.revisited import RevisitedQuery, all_present, ground_truth
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset, Query, Shot
from landseer.ops.evaluate.specs import SPECS

SAME_LANDMARK = 0.4
"""Jaccard index of the pictures of two queries above which both show one landmark."""


def read(spec: str) -> Dataset:
    """Read the data set KIND:REST. OpsError says what is wrong and how to fix it."""
    kind, separator, rest = spec.partition(":")
    if not separator or kind not in READERS or not rest:
        raise OpsError(f"cannot read {spec!r} as a data set; expected one of\n{SPECS}")
    try:
        return READERS[kind](rest)
    except DatasetError as error:
        raise OpsError(str(error)) from error


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures below a folder, sorted. OpsError if there are none."""
    try:
        return folders.pictures_in(folder)
    except DatasetError as error:
        raise OpsError(str(error)) from error


def by_class(name: str, labelled: Sequence[tuple[Path, str]]) -> Dataset:
    """Make every picture a query whose right answers are the others of its class; a class of one is only searched."""
    members: dict[str, list[Path]] = defaultdict(list)
    for path, label in labelled:
        members[label].append(path)
    queries = [
        Query(shot=Shot(path=path), easy=frozenset(members[label]) - {path}, label=label, thing=label)
        for path, label in labelled
        if len(members[label]) > 1
    ]
    if not queries:
        raise OpsError(f"{name}: no class has two pictures, so no query has a right answer")
    return Dataset(name=name, queries=queries, references=[path for path, _ in labelled])


def _classes(reader: Callable[[str], Photographs]) -> Callable[[str], Dataset]:
    def read_classes(rest: str) -> Dataset:
        found = reader(rest)
        return by_class(found.name, [(photograph.path, photograph.label) for photograph in found.photographs])

    return read_classes


def _pairs(rest: str) -> Dataset:
    *asked, known = rest.split(",")
    if not asked:
        raise OpsError(f"pairs:{rest} names one folder; expected pairs:QUERIES,REFERENCES")
    queries = [path for folder in asked for path in pictures_in(Path(folder))]
    references = pictures_in(Path(known))
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in references:
        stems[path.stem].append(path)
    matched = [
        Query(shot=Shot(path=path), easy=frozenset(stems[path.stem]), label=path.stem, thing=path.stem)
        for path in queries
        if stems.get(path.stem)
    ]
    if not matched:
        raise OpsError(
            f"no picture of {', '.join(asked)} has the same file stem as one in {known}; equal stems are a match"
        )
    return Dataset(name=f"pairs:{rest}", queries=matched, references=references)


def _revisitop(rest: str) -> Dataset:
    truth = ground_truth(rest)
    all_present(truth.references, truth.folder)
    queries = [
        Query(
            shot=Shot(path=query.path, region=_region(query.corners)),
            label=query.path.stem,
            thing=landmark,
            **{degree: frozenset(truth.references[row] for row in rows) for degree, rows in query.rows.items()},
        )
        for query, landmark in zip(truth.queries, landmarks(truth.queries), strict=True)
    ]
    return Dataset(
        name=f"revisitop:{truth.name}",
        queries=queries,
        references=truth.references,
        protocols=("easy", "medium", "hard"),
    )


def landmarks(queries: Sequence[RevisitedQuery]) -> list[str]:
    """Return the landmark of each query, named by its first query: the ground truth has no names of landmarks.

    Queries show the same landmark if most of their pictures (easy, hard and junk) are the same, by the Jaccard index.
    This finds the 11 landmarks of both data sets for any threshold from 0.2 to 0.5; file names do not tell them
    (oxford_002985 shows All Souls).
    """
    pictures = [frozenset().union(*query.rows.values()) for query in queries]
    found: list[str] = []
    for place, (query, shown) in enumerate(zip(queries, pictures, strict=True)):
        same = (
            found[before]
            for before in range(place)
            if len(shown & pictures[before]) > SAME_LANDMARK * len(shown | pictures[before])
        )
        found.append(next(same, query.path.stem))
    return found


def _region(corners: Sequence[float]) -> Region:
    left, top, right, bottom = corners
    return Region(x=left, y=top, width=right - left, height=bottom - top)


# Data sets collected from the web are not here: photographs that are gone would change the figures unnoticed.
READERS: Mapping[str, Callable[[str], Dataset]] = {
    "folder": _classes(read_folders),
    "csv": _classes(read_list),
    "grocery": _classes(read_grocery),
    "pairs": _pairs,
    "revisitop": _revisitop,
}
