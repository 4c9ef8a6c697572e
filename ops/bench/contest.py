"""Which contenders the serving benchmark compares, and the rounds in which they take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from landseer.client.blocking import BlockingSearchClient
from landseer.ensemble.inference.profile import Profile
from landseer.ops.backend.inprocess import Vector, backbone_settings
from landseer.ops.bench.contenders import Contender
from landseer.ops.bench.direct import DirectDescribe, DirectSearch
from landseer.ops.bench.pictures import Picture, sequence
from landseer.ops.bench.served import ServedSearch, TritonDescribe
from landseer.ops.bench.statistics import Round, turns
from landseer.ops.errors import OpsError

MANY = 4
"""Concurrent callers, besides the case of one."""
AGREEMENT = 0.9999
"""Minimum cosine between a served descriptor and the one computed in process; below it a comparison is meaningless."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Contenders that are compared on the same requests."""

    title: str
    direct: tuple[Contender, ...]
    """In process. The first one uses the cores as Triton does and is the baseline."""
    served: tuple[Contender, ...]
    requests: int
    """Per turn."""

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """Return all of them."""
        return (*self.direct, *self.served)


def graphs(repository: Path, profile: Profile, *, cores: int) -> list[list[DirectDescribe]]:
    """Return the graphs for each way to use all cores in process: one caller, or two with half the cores each."""
    ways = [[cores], [cores // 2, cores - cores // 2]] if cores > 1 else [[cores]]
    version = profile.version
    return [
        [DirectDescribe(backbone_settings(repository, version, threads=threads)) for threads in way] for way in ways
    ]


def describe_contest(ways: Sequence[Sequence[DirectDescribe]], triton: str, *, requests: int) -> Contest:
    """Compare the graph in process with Triton's `describe` at an address: pixels to vectors."""
    callers = tuple(TritonDescribe(triton) for _ in range(MANY))
    return Contest(
        title="pixels → vectors",
        direct=tuple(Contender(name=f"graph in process, {_callers(len(way))}", callers=tuple(way)) for way in ways),
        served=tuple(Contender(name=f"Triton `describe`, {_callers(n)}", callers=callers[:n]) for n in (1, MANY)),
        requests=requests,
    )


def search_contest(
    ways: Sequence[Sequence[DirectDescribe]],
    client: BlockingSearchClient,
    pictures: Sequence[Picture],
    profile: Profile,
    *,
    requests: int,
) -> Contest:
    """Compare decoding, describing and exact search in process with the orchestrator's Search: JPEG to hits."""
    vectors, ids = [ways[0][0](picture) for picture in pictures], [picture.id for picture in pictures]
    searches = [tuple(DirectSearch(graph, vectors, ids, profile) for graph in way) for way in ways]
    served = ServedSearch(client)
    return Contest(
        title="JPEG → hits",
        direct=tuple(Contender(name=f"search in process, {_callers(len(some))}", callers=some) for some in searches),
        served=tuple(Contender(name=f"orchestrator `Search`, {_callers(n)}", callers=(served,) * n) for n in (1, MANY)),
        requests=requests,
    )


def check_vectors(contest: Contest, pictures: Sequence[Picture]) -> float:
    """Return the lowest cosine between served and in-process descriptors; OpsError if it is below `AGREEMENT`."""
    direct, served = contest.direct[0].callers[0], contest.served[0].callers[0]
    worst = min(_cosine(direct(picture), served(picture)) for picture in pictures)
    if worst < AGREEMENT:
        raise OpsError(f"a served descriptor has cosine {worst:.5f} to the one in process; export the models again")
    return worst


def check_hits(contest: Contest, pictures: Sequence[Picture]) -> None:
    """Check that all contenders get the same hits, with the picture itself first; OpsError if not."""
    for picture in pictures:
        direct, served = contest.direct[0].callers[0](picture), contest.served[0].callers[0](picture)
        if direct != served or direct[0] != picture.id:
            raise OpsError(
                f"{picture.id} found {served} served and {direct} in process; expected the same, itself first"
            )


def play(
    contests: Sequence[Contest],
    pictures: Sequence[Picture],
    *,
    rounds: int,
    around: Callable[[Contender, Callable[[], Round]], Round],
) -> dict[str, list[Round]]:
    """Let all contenders take turns, for `rounds` rounds after a warm-up round, which is dropped.

    Within a round all contenders of a contest get the same requests. `around` is called with each contender and turn.
    """
    entries = [(contest, contender) for contest in contests for contender in contest.contenders]
    measured: dict[str, list[Round]] = {contender.name: [] for _, contender in entries}
    for number, order in enumerate(turns(entries, rounds + 1)):
        for contest, contender in order:
            requests = sequence(pictures, contest.requests, start=number * contest.requests)
            taken = around(contender, lambda one=contender, some=requests: one.turn(some))  # type: ignore[misc]
            if number:
                measured[contender.name].append(taken)
    return measured


def _callers(count: int) -> str:
    return f"{count} caller{'s' if count > 1 else ''}"


def _cosine(one: Vector, other: Vector) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
