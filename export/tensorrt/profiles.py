"""Optimisation profiles: the shapes that an engine is tuned for, and those that it accepts.

TensorRT chooses kernels for one shape (`usual`) of each profile and supports a range around it. We divide the lengths
that occur into bands of similar shape, one profile each, and a last profile accepts everything else in the contract.
For each batch Triton picks the fitting profile with the nearest usual shape.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from landseer.ensemble.inference.contracts import MAX_SIDE, MIN_SIDE, SIDE_MULTIPLE, Graph, Tensor
from landseer.ensemble.inference.profile import Profile as Served
from landseer.ensemble.search.coattention import BUCKETS as CANDIDATES
from landseer.ensemble.search.expansion import served_lattqe as lattqe
from landseer.export.tensorrt.sizes import PictureSizes

WIDE = 8.0
"""Maximum size ratio of the largest and the smallest shape of a band."""
RARE = 0.005
"""Bands with a smaller share of all shapes get no profile."""

Lengths = tuple[int, ...]
"""One length for each free axis of a graph: height and width, or neighbours, or candidates."""
Counts = Mapping[Lengths, int]


class ProfileError(RuntimeError):
    """Shapes without a possible profile. The message is one readable line."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The shapes of one input, batch first: TensorRT's min, opt and max."""

    name: str
    least: Lengths
    usual: Lengths
    most: Lengths

    def __post_init__(self) -> None:
        lengths = (self.least, self.usual, self.most)
        ordered = all(0 < low <= mid <= high for low, mid, high in zip(*lengths, strict=True))
        if not ordered:
            raise ProfileError(f"{self.name}: {self.least}, {self.usual}, {self.most} are not ascending from 1")

    def holds(self, shape: Lengths) -> bool:
        """Return whether the shape is in range."""
        bounds = zip(self.least, shape, self.most, strict=True)
        return len(shape) == len(self.least) and all(low <= length <= high for low, length, high in bounds)


@dataclass(frozen=True, kw_only=True)
class ShapeProfile:
    """The spans of all inputs of one profile."""

    spans: tuple[Span, ...]

    def holds(self, shapes: Mapping[str, Lengths]) -> bool:
        """Return whether every input is in range."""
        return all(span.holds(shapes[span.name]) for span in self.spans)

    def distance(self, shapes: Mapping[str, Lengths]) -> float:
        """Return the distance from the usual shapes as in Triton: squared, over all axes."""
        return sum(math.dist(span.usual, shapes[span.name]) ** 2 for span in self.spans)


def nearest(profiles: tuple[ShapeProfile, ...], shapes: Mapping[str, Lengths]) -> int:
    """Return the index of the nearest fitting profile. ProfileError if none fits."""
    fitting = [place for place, profile in enumerate(profiles) if profile.holds(shapes)]
    if not fitting:
        raise ProfileError(f"no profile accepts {dict(shapes)}; expected shapes within the contract's bounds")
    return min(fitting, key=lambda place: profiles[place].distance(shapes))


def profiles(graph: Graph, counts: Counts) -> tuple[ShapeProfile, ...]:
    """Return the profiles of a graph, the commonest shapes first and the contract's whole range last.

    counts: how often each combination of free lengths occurs (see `usual_lengths`). Profiles are tuned for full
    batches: when requests wait for a GPU there is a queue.
    """
    bounds = _bounds(graph)
    if not bounds:
        return (_profile(graph, (), (), ()),)
    inside = Counter({lengths: n for lengths, n in counts.items() if n > 0 and _within(lengths, bounds)})
    if not inside:
        raise ProfileError(f"{graph.name}: no length in {dict(counts)} lies within its bounds {bounds}")
    made = []
    for band in _bands(inside):
        axes = tuple(zip(*band, strict=True))
        made.append(_profile(graph, tuple(map(min, axes)), _commonest(band), tuple(map(max, axes))))
    low, high = (tuple(ends) for ends in zip(*bounds, strict=True))
    whole = _profile(graph, low, _commonest(inside), high)
    return (*(profile for profile in made if not _tuned_alike(profile, whole)), whole)


def usual_lengths(graph: Graph, sizes: PictureSizes, served: Served) -> Counter[Lengths]:
    """Return how often each combination of a graph's free lengths occurs.

    Pictures have the counts of their sizes, and so have attention maps, with one cell for SIDE_MULTIPLE pixels. The
    orchestrator pads neighbours and candidates to a few buckets, which count as equally common.
    """
    free = {tensor.name for tensor in graph.inputs if -1 in tensor.dims}
    pictures: Counter[Lengths] = Counter(dict(sizes.served(served).items()))
    if "image" in free:
        return pictures
    if "attention" in free:
        maps: Counter[Lengths] = Counter()
        for sides, count in pictures.items():
            maps[tuple(side // SIDE_MULTIPLE for side in sides)] += count
        return maps
    found = free & set(BUCKETS)
    return Counter({(length,): 1 for name in sorted(found)[:1] for length in BUCKETS[name]})


BUCKETS: dict[str, tuple[int, ...]] = {"neighbours": lattqe.BUCKETS, "candidate_clusters": CANDIDATES}
"""Lengths that the orchestrator pads an input to."""
MAP_BOUNDS = ((MIN_SIDE // SIDE_MULTIPLE, math.ceil(MAX_SIDE / SIDE_MULTIPLE)),) * 2
"""Bounds of attention maps, which the contract does not give: those of pictures, in cells."""


def _bounds(graph: Graph) -> tuple[tuple[int, int], ...]:
    """Return the bounds of a graph's free axes, which its inputs share in order."""
    free = [_free_bounds(graph, tensor) for tensor in graph.inputs if -1 in tensor.dims]
    if len({len(bounds) for bounds in free}) > 1:
        raise ProfileError(f"{graph.name}: its inputs have different numbers of free axes; expected shared ones")
    return tuple((max(low for low, _ in ends), min(high for _, high in ends)) for ends in zip(*free, strict=True))


def _free_bounds(graph: Graph, tensor: Tensor) -> tuple[tuple[int, int], ...]:
    if tensor.bounds:
        return tuple(bounds for bounds, length in zip(tensor.bounds, tensor.dims, strict=True) if length == -1)
    if tensor.name == "attention":
        return MAP_BOUNDS
    raise ProfileError(f"{graph.name}.{tensor.name} has free axes without bounds: name them in `contracts.py`")


def _within(lengths: Lengths, bounds: tuple[tuple[int, int], ...]) -> bool:
    if len(lengths) != len(bounds):
        raise ProfileError(f"got lengths {lengths}; expected one for each of {len(bounds)} free axes")
    return all(low <= length <= high for length, (low, high) in zip(lengths, bounds, strict=True))


def _bands(counts: Counter[Lengths]) -> list[Counter[Lengths]]:
    """Divide into bands of one orientation and a size ratio within WIDE, commonest first, without rare ones."""
    bands: dict[tuple[int, int], Counter[Lengths]] = {}
    starts: dict[int, float] = {}
    for lengths in sorted(counts, key=math.prod):
        turn = _orientation(lengths)
        if math.prod(lengths) > WIDE * starts.get(turn, 0.0):
            starts[turn] = math.prod(lengths)
        bands.setdefault((turn, int(starts[turn])), Counter())[lengths] += counts[lengths]
    common = [band for band in bands.values() if band.total() >= RARE * counts.total()]
    return sorted(common, key=lambda band: -band.total())


def _tuned_alike(one: ShapeProfile, other: ShapeProfile) -> bool:
    """Return whether two profiles differ only in their least shapes, which do not affect tuning."""
    return [(span.usual, span.most) for span in one.spans] == [(span.usual, span.most) for span in other.spans]


def _orientation(lengths: Lengths) -> int:
    """Return 0 for a square or single axis, else the sign of the longer side: landscape and portrait stay apart."""
    return (lengths[0] > lengths[-1]) - (lengths[0] < lengths[-1])


def _commonest(counts: Counter[Lengths]) -> Lengths:
    """Return the most frequent lengths; among equals the largest, which gain most from tuning."""
    return max(counts, key=lambda lengths: (counts[lengths], math.prod(lengths), lengths))


def _profile(graph: Graph, low: Lengths, usual: Lengths, high: Lengths) -> ShapeProfile:
    ends = ((1, low), (graph.max_batch, usual), (graph.max_batch, high))
    return ShapeProfile(
        spans=tuple(_span(t, *(_shape(t, size, lengths) for size, lengths in ends)) for t in graph.inputs)
    )


def _span(tensor: Tensor, least: Lengths, usual: Lengths, most: Lengths) -> Span:
    return Span(name=tensor.name, least=least, usual=usual, most=most)


def _shape(tensor: Tensor, batch: int, lengths: Lengths) -> Lengths:
    free = iter(lengths)
    return (batch, *(next(free) if length == -1 else length for length in tensor.dims))
