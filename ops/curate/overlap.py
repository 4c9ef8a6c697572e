"""`landseer data overlap`, from the names of two data sets to the list of classes and the contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from landseer.client.readable import plural
from landseer.ensemble.cores import cores
from landseer.ensemble.pictures.orientation import TURNS, Turn
from landseer.ensemble.pictures.pictures import Region
from landseer.export.curation.matcher import Matcher, matcher
from landseer.export.curation.overlap import Overlap, Shortlist, find_overlap, shortlist, shortlisted
from landseer.export.curation.settings import MatchSettings
from landseer.export.curation.sheet import sheet
from landseer.export.datasets.photograph import Photograph, Photographs
from landseer.export.datasets.readers import read
from landseer.ops.backend.inprocess import InProcessBackbone, backbone_settings, read_profile
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.cache import vector_cache
from landseer.ops.evaluate.dataset import Shot
from landseer.ops.evaluate.describe import Described, describe_all
from landseer.ops.files import check_writable, named_from, write_rows, write_text
from landseer.ops.progress import bars, warn

ORIENTATION = 0x0112
"""The EXIF tag."""
Describe = Callable[[Sequence[Shot]], Described]
"""Returns the descriptors of pictures, and why some have none."""


@dataclass(frozen=True, kw_only=True)
class OverlapOptions:
    """The options of `landseer data overlap`."""

    training: str
    queries: str
    out: Path
    sheet: Path
    evidence: Path | None
    top: int
    settings: MatchSettings
    workers: int
    cache: Path
    repository: Path
    vectors: Path


@dataclass(frozen=True, kw_only=True, eq=False)
class _Known:
    """Pictures that could be described."""

    photographs: Sequence[Photograph]
    vectors: NDArray[np.float32]
    """[N, D]."""


def list_overlap(options: OverlapOptions, console: Console, *, describe: Describe | None = None) -> Overlap:
    """Find the classes to remove; write the list and the contact sheet. Raises OpsError, CurationError or DatasetError.

    describe: replaces the exported backbone.
    """
    for path, option in ((options.out, "--out"), (options.sheet, "--sheet"), (options.evidence, "--evidence")):
        check_writable(path, option)
    training, queries = read(options.training), read(options.queries)
    warn((*training.skipped, *queries.skipped), console)
    described = describe or (lambda shots: _described(shots, options, console))
    asked = _known(queries, [_shot(photograph) for photograph in queries.photographs], described, console)
    shots = [Shot(path=photograph.path) for photograph in training.photographs]
    known = _known(training, shots, described, console)
    ranked = shortlist(asked.vectors, known.vectors, options.top)
    with matcher(options.cache, options.settings, workers=options.workers) as pairs:
        overlap = _verified(asked.photographs, known.photographs, ranked, pairs, console)
    _write(overlap, training, queries, options)
    _tell(overlap, training, options)
    return overlap


def _known(data: Photographs, shots: Sequence[Shot], describe: Describe, console: Console) -> _Known:
    found = describe(shots)
    warn((f"{path}: {why}" for path, why in sorted(found.unreadable.items())), console)
    pairs = zip(data.photographs, shots, strict=True)
    known = [(photograph, found.vectors[shot]) for photograph, shot in pairs if shot in found.vectors]
    if not known:
        raise OpsError(f"{data.name} has no readable picture, so there is nothing to compare")
    return _Known(photographs=[one for one, _ in known], vectors=np.stack([vector for _, vector in known]))


def _described(shots: Sequence[Shot], options: OverlapOptions, console: Console) -> Described:
    profile = read_profile(options.repository)
    with console.status("compiling the backbone"):
        graph = InProcessBackbone(backbone_settings(options.repository, profile.version, threads=cores()))
    with vector_cache(options.vectors, profile.fingerprint) as cache, bars(console) as progress:
        task = progress.add_task("describing", total=len(shots))
        return describe_all(shots, graph, profile, cache, progress=lambda: progress.advance(task))


def _shot(photograph: Photograph) -> Shot:
    """Return the part of a query to search for: its box if it has exactly one, else the whole picture."""
    from PIL import Image

    if len(photograph.boxes) != 1:
        return Shot(path=photograph.path)
    [box] = photograph.boxes
    try:
        with Image.open(photograph.path) as picture:
            width, height = TURNS.get(picture.getexif().get(ORIENTATION, 1), Turn()).size(*picture.size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return Shot(path=photograph.path)  # Describing it will report it as unreadable.
    return Shot(
        path=photograph.path,
        region=Region(
            x=box.x0 * width, y=box.y0 * height, width=(box.x1 - box.x0) * width, height=(box.y1 - box.y0) * height
        ),
    )


def _verified(
    queries: Sequence[Photograph],
    training: Sequence[Photograph],
    ranked: Shortlist,
    pairs: Matcher,
    console: Console,
) -> Overlap:
    needed = [one.path for one in (*queries, *shortlisted(training, ranked))]
    with bars(console) as progress:
        pictures = progress.add_task("keypoints", total=len(set(needed)))
        compared = progress.add_task("pairs", total=ranked.rows.size)
        pairs.prepare(needed, progress=lambda: progress.advance(pictures))
        return find_overlap(queries, training, ranked, pairs, progress=lambda: progress.advance(compared))


def _write(overlap: Overlap, training: Photographs, queries: Photographs, options: OverlapOptions) -> None:
    write_text(options.out, "".join(f"{label}\n" for label in overlap.by_class()))
    write_text(options.sheet, sheet(overlap, training=training.name, queries=queries.name))
    if options.evidence is None:
        return
    rows = [
        (
            one.training.label,
            named_from(options.evidence, one.query),
            named_from(options.evidence, one.training),
            f"{one.similarity:.4f}",
            one.match.inliers,
        )
        for some in overlap.by_class().values()
        for one in some
    ]
    write_rows(options.evidence, [("class", "query", "training", "cosine", "inliers"), *rows])


def _tell(overlap: Overlap, training: Photographs, options: OverlapOptions) -> None:
    classes, members = overlap.by_class(), training.by_label()
    pictures = sum(len(members[label]) for label in classes)
    shared = f"{plural(len(classes), 'class', 'classes')} of {len(members):,} show the thing of a query"
    print(f"{shared}, with {plural(pictures, 'picture')}; listed in {options.out}; check them in {options.sheet}")
