"""How a method depends on its number of neighbours: Fig. 3 of Gordo et al., ECCV 2020."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from landseer.ensemble.evaluation import Protocol
from landseer.ensemble.search.expansion.methods import DEFAULTS, limits
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.methods import Method
from landseer.ops.evaluate.specs import NEIGHBOURS


@dataclass(frozen=True, kw_only=True)
class Point:
    """The mAP of a method with one number of neighbours."""

    system: str
    method: Method
    protocol: Protocol
    map: float
    base: float
    """Without expansion."""


def counts(text: str) -> list[int]:
    """Read K,K,... in ascending order. OpsError."""
    found = text.split(",")
    if not all(one.strip().isdigit() and int(one) for one in found):
        raise OpsError(f"--sweep is {text!r}; expected numbers of neighbours of at least 1, such as {NEIGHBOURS}")
    return sorted({int(one) for one in found})


def swept(methods: Sequence[Method], neighbours: Sequence[int], *, positions: int) -> Iterator[Method]:
    """Yield each method that expands queries with each number of neighbours that it can take.

    The augmentation of the database stays as it is.
    """
    most = limits(positions)
    families = {method.family: method for method in methods if method.name in DEFAULTS}
    for method in families.values():
        for count in neighbours:
            if count <= most[method.name]:
                yield replace(method, neighbours=count)
