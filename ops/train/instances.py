"""What query expansion is learned from: kinds of data, all made of the photographs of one data set.

- The photographs by class, at most `OF_A_CLASS` of each. Many of a query's neighbours are right.
- Views of single photographs: crops, zooms, another viewpoint and light, half of them inside another photograph.
- Drawn flat targets, clean and as a camera sees them before another photograph. A handful of neighbours are right, and
  all others look much the same.

Their pooled vectors are computed once, in blocks, and an interrupted run resumes after the last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from landseer.export.datasets.readable import readable
from landseer.export.datasets.readers import read
from landseer.export.training.episodes import Kind
from landseer.export.training.flat_targets import flat_target, pictured
from landseer.export.training.shots import Shots, profile_of
from landseer.export.training.views import Pixels, ViewRanges
from landseer.export.training.worlds import whitened, worlds
from landseer.ops.evaluate.head_describer import Describer
from landseer.ops.evaluate.head_vectors import BLOCK, Vectors, write_vectors
from landseer.ops.progress import bars, warn

KINDS = ("targets", "views", "photographs")
NEW = ((1, 0), (0, 1), (0, 2))
"""Number of the world (`in_two_worlds`) and of the kind, for each of `KINDS` in the world whose whitening did not
learn from it."""
SIDE = 320
"""Longer side of the pictures: a quarter of the time of the served 640."""
OF_A_CLASS, BY_CLASS = 60, 2000
"""Most photographs of a class, and of all classes."""
VIEWED = 200
"""Photographs that are seen in views."""
TARGETS = 400
VIEWS = 5
"""Pictures of each photograph that is viewed, and of each target."""
ZOOMS = ViewRanges(crop=(0.3, 1.0))


def instances(data: str, describe: Describer, folder: Path, *, seed: int, console: Console) -> dict[str, Kind]:
    """Return `KINDS`, pooled but not whitened. DatasetError; TrainingError for a picture that is no longer readable.

    folder: keeps what was pooled.
    """
    whole = readable(read(data))
    warn(whole.skipped, console)
    shots = Shots(photographs=whole.photographs, profile=profile_of(SIDE))
    order, classes = np.random.default_rng(seed).permutation(len(shots)), np.array(shots.labels)
    rows = np.sort(np.concatenate([order[classes[order] == one][:OF_A_CLASS] for one in np.unique(classes)]))[:BY_CLASS]
    viewed = order[:VIEWED]
    made = (
        Drawn(lambda place: _target(shots, place, seed), np.arange(TARGETS).repeat(VIEWS)),
        Drawn(lambda place: _view(shots, viewed, place, seed), np.arange(len(viewed)).repeat(VIEWS)),
        Drawn(lambda place: shots.pixels(int(rows[place])), classes[rows]),
    )
    key = f"{describe.key} {shots.digest()} {seed} {SIDE}"
    return {
        name: _kind(name, one, describe, folder, key=key, console=console)
        for name, one in zip(KINDS, made, strict=True)
    }


def in_two_worlds(pooled: Mapping[str, Kind], describe: Describer, *, seed: int) -> list[list[Kind]]:
    """Return `KINDS` in two worlds (`worlds`).

    The whitening of the first learned from drawn targets, that of the second from views of photographs. `NEW` says
    which kinds are new to it. Where the served whitening is of no trained parts, as where there is none, it learned
    from neither: both worlds are as it makes them.
    """
    served = describe.variant.whitening
    if describe.learned_whitening:
        return [[kinds[name] for name in KINDS] for kinds in worlds(pooled, KINDS[:2], served, seed=seed)]
    return [[Kind(whitened(served, pooled[name].vectors), pooled[name].labels) for name in KINDS]] * 2


class Drawn(NamedTuple):
    """Pictures that are drawn one by one."""

    picture: Callable[[int], Pixels]
    labels: NDArray[np.int64]
    """What each of them shows, [n]."""


def _kind(name: str, drawn: Drawn, describe: Describer, folder: Path, *, key: str, console: Console) -> Kind:
    count, found = len(drawn.labels), list[Vectors]()
    digest = hashlib.sha256(f"{name} {key}".encode()).hexdigest()[:16]
    with bars(console) as progress:
        task = progress.add_task(f"describing {name}", total=count)
        for block in described(drawn.picture, count, describe, folder / f"{name}-{digest}.npy"):
            found.append(block[: count - BLOCK * len(found)])
            progress.advance(task, len(block))
    return Kind(np.concatenate(found), drawn.labels.astype(np.int64))


def described(make: Callable[[int], Pixels], count: int, describe: Describer, file: Path) -> Iterator[Vectors]:
    """Yield the pooled vectors of pictures 0 .. count - 1 in blocks, [n, P]. Blocks on disk are not computed again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for start in range(0, count, BLOCK):
        part = file.with_suffix(f".{start}.npy")
        if not part.exists():
            places = range(start, min(start + BLOCK, count))
            write_vectors(part, np.stack([describe(make(place)) for place in places]))
        yield np.load(part)


def _target(shots: Shots, place: int, seed: int) -> Pixels:
    """Return a picture of a drawn target, [SIDE, SIDE, 3]: of each `VIEWS` the first is clean, without surroundings."""
    thing, number = divmod(place, VIEWS)
    of_thing, draw = np.random.default_rng((seed, 0, thing)), np.random.default_rng((seed, 1, place))
    drawn = flat_target(int(of_thing.integers(2**31)), shots.pixels(int(of_thing.integers(len(shots)))))
    behind = shots.pixels(int(draw.integers(len(shots)))) if number else None
    return pictured(drawn, draw, side=SIDE, background=behind)


def _view(shots: Shots, viewed: NDArray[np.int64], place: int, seed: int) -> Pixels:
    """Return a view of one of the photographs `viewed`."""
    draw = np.random.default_rng((seed, 2, place))
    return shots.view(int(viewed[place // VIEWS]), (SIDE, SIDE), draw, ZOOMS)
