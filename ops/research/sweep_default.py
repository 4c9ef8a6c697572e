"""What expansions by nearest neighbours do in the default search: by descriptor and words, verified by keypoints."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from landseer.ensemble.evaluation import Evaluation, Ids, evaluate
from landseer.ensemble.search.expansion.methods import DEFAULTS, LATTQE, RANK_CURVE, VERIFIED_NEIGHBOURS
from landseer.ensemble.search.ranking import Ranking, verified
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.ops.evaluate.in_process import InProcessSystem
from landseer.ops.evaluate.methods import DEFAULT, RANKERS, Method, by_cosine
from landseer.ops.evaluate.space import FEW, Space
from landseer.ops.evaluate.verified_hits import Asked, Verifying
from landseer.ops.progress import bars, warn
from landseer.ops.research.head_kinds import FIRST, Kind
from landseer.ops.research.kept import Kept, digest
from landseer.ops.research.searched import Figures, expander

FEWER = 8
"""Neighbours of LAttQE in one of the rows."""
NONE, TRUSTED = "none", "verified"
"""Rows: a search without expansion, and the default where LAttQE is untrained."""
Keys = list[Ids]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A row of the table."""

    name: str
    neighbours: Method | None = None
    """Expands by nearest neighbours before verification, in place of verified hits; None does not."""
    by_own: bool = False
    """Whether candidates near the query itself count as near, in place of those near the expanded query."""
    after: int = 0
    """Verified hits that expand afterwards, at most."""
    nearest: int = 0
    """Neighbours by which LAttQE expands the query that verified hits are added to; 0 for the query itself."""
    only_unverified: bool = False
    """Whether nearest neighbours expand only queries without a verified hit."""


_NETWORK = Method(name=LATTQE, neighbours=DEFAULTS[LATTQE])
_CURVE = Method(name=RANK_CURVE, neighbours=DEFAULTS[RANK_CURVE])
WAYS = (
    Way(name=NONE),
    Way(name=TRUSTED, after=VERIFIED_NEIGHBOURS),
    Way(name=f"verified, on {_NETWORK}", after=VERIFIED_NEIGHBOURS, nearest=_NETWORK.neighbours),
    Way(name=str(_NETWORK), neighbours=_NETWORK),
    Way(name=f"{LATTQE}:{FEWER}", neighbours=replace(_NETWORK, neighbours=FEWER)),
    Way(name=str(_CURVE), neighbours=_CURVE, by_own=True),
    Way(name=f"{_NETWORK}, near the query itself", neighbours=_NETWORK, by_own=True),
    Way(name=f"{_CURVE}, near the expanded query", neighbours=_CURVE),
    Way(name=f"{_NETWORK}, then verified", neighbours=_NETWORK, after=VERIFIED_NEIGHBOURS),
    Way(
        name=f"verified; without a verified hit {_NETWORK}",
        neighbours=_NETWORK,
        after=VERIFIED_NEIGHBOURS,
        only_unverified=True,
    ),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class ByDefault:
    """The figures of a data set."""

    kind: Kind
    rows: Mapping[str, Figures]
    unverified: int
    """Queries without a verified hit."""


def by_default(
    system: InProcessSystem, kind: Kind, network: ExpansionNetwork, kept: Kept, console: Console
) -> ByDefault:
    """Search a data set in all `WAYS`; network: that of `lattqe`."""
    unreadable = system.prepare(kind.data, [Method(name=DEFAULT)], console)
    warn((f"{path}: {why}" for path, why in unreadable.items()), console)
    one = replace(kind, data=kind.data.without(unreadable))
    searching = _Searching(system, one, network, console)
    models = hashlib.sha256((system.repository / "manifest.json").read_bytes()).hexdigest()
    pictures = [[str(path) for path in one.data.references], [str(query.shot.path) for query in one.data.queries]]
    key = f"default {models} {digest(network)} {pictures}"
    rows = {way.name: kept.figures(f"{key} {way}", partial(searching.figures, way)) for way in WAYS}
    unsure = kept.figures(f"{key} unverified", searching.unverified)
    return ByDefault(kind=one, rows=rows, unverified=int(unsure.first.sum()))


class _Searching:
    """Searches a data set in all ways at once, when the first of them is asked for."""

    def __init__(self, system: InProcessSystem, kind: Kind, network: ExpansionNetwork, console: Console) -> None:
        self._system, self._kind, self._network, self._console = system, kind, network, console
        self._found: dict[Way, Figures] = {}
        self._unverified: list[bool] = []

    def figures(self, way: Way) -> Figures:
        """Return the figures of a way."""
        if not self._found:
            self._search()
        return self._found[way]

    def unverified(self) -> Figures:
        """Return, as `first`, which queries have no verified hit."""
        if not self._found:
            self._search()
        return Figures(aps=np.zeros(len(self._unverified)), first=np.array(self._unverified, np.float64))

    def _search(self) -> None:
        space = replace(self._system.space(self._kind.data), lattqe=expander(self._network))
        verifying, orders = Verifying(space, by_cosine), {way: Keys() for way in WAYS}
        with bars(self._console) as progress:
            task = progress.add_task(f"searching {self._kind.name}", total=len(space.queries))
            for block in space.blocks(FEW):
                found = searched(verifying, verifying.asked(block), space)
                for way, rankings in found.items():
                    orders[way] += [one.keys for one in rankings]
                self._unverified += [not verified(one, 1) for one in found[WAYS[0]]]
                progress.advance(task, len(block.queries))
        truths = self._kind.data.truths()
        self._found = {way: _figures(evaluate(some, truths, ks=(FIRST,))) for way, some in orders.items()}


def searched(verifying: Verifying, asked: Asked, space: Space) -> dict[Way, list[Ranking]]:
    """Return the rankings of a block in all `WAYS`. What several of them verify is verified once."""
    plain, found = verifying.once(asked), dict[Way, list[Ranking]]()
    before: dict[tuple[Method, bool], list[Ranking]] = {}
    for way in WAYS:
        first = plain
        if way.neighbours is not None:
            key = way.neighbours, way.by_own
            if key not in before:
                expand = RANKERS[way.neighbours.name](way.neighbours, space).rank
                before[key] = verifying.once(asked, expanded=expand, by_own=way.by_own)
            first = before[key]
        if way.only_unverified:
            first = [one if verified(one, 1) else other for one, other in zip(plain, first, strict=True)]
        found[way] = verifying.again(asked, first, way.after, nearest=way.nearest)
    return found


def _figures(one: Evaluation) -> Figures:
    firsts: NDArray[np.float64] = one.precisions[:, 0]
    return Figures(aps=100 * one.aps, first=100 * firsts)
