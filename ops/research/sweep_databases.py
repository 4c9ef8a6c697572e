"""LAttDBA, LAttQE behind it, and their rivals: augmented databases, each with numbers tuned on held-out things."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
import torch

from landseer.ensemble.search.expansion.augmentation import augmented
from landseer.ensemble.search.expansion.methods import AUGMENTATION_DEFAULTS, DEFAULTS, LATTQE, RANK_CURVE
from landseer.ensemble.search.expansion.recipe import PARAMETERS, Recipe
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.training.episodes import Episode, Mixture
from landseer.export.training.lattqe import TEMPERATURES, Form, behind_lattdba
from landseer.ops.evaluate.database import Database, Databases
from landseer.ops.evaluate.methods import DATABASE_NAMES, NO_EXPANSION, NONE, Method, answers
from landseer.ops.evaluate.space import Space
from landseer.ops.research.kept import Kept, digest
from landseer.ops.research.searched import Figures, Floats, Searched, by_rule, expander, of_episode

COUNTS = (1, 2, 4, 8, 16, 32, 64)
RIVALS = ("aqe", "aqewd-dir", "alphaqe", RANK_CURVE)
OF_LATTDBA = (4, 16, 48)
"""Numbers of neighbours of LAttDBA that are tried; its paper's is 48."""
WIDE = Recipe(method=LATTQE, neighbours=max(OF_LATTDBA), parameter=1.0)
"""What was the default before anything was tuned."""
DEFAULT = Recipe(method=LATTQE, neighbours=AUGMENTATION_DEFAULTS[LATTQE], parameter=PARAMETERS[LATTQE])
EXPANDED = DEFAULTS[LATTQE]
_EXPANDED = f"{LATTQE} {EXPANDED}"


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What is best on held-out things: mAP, the mean of as many episodes for each."""

    lattdba: Recipe
    rivals: Mapping[tuple[str, bool], int]
    """The number of neighbours by method, and by whether it expands the queries, too."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """A row of the table."""

    name: str
    tuned: Figures
    best: Figures | None = None
    """With the number of neighbours that is best on these very queries; None for rows of a network."""
    best_count: int = 0


def tuned(held: Sequence[tuple[ExpansionNetwork, Mixture]], episodes: Sequence[Episode], kept: Kept) -> Tuned:
    """Choose all numbers. held: networks, and what each did not learn from; episodes: of the same, for the rivals."""
    recipe = Form().recipe
    key = "".join(f"{digest(one)} {mixture.digest}" for one, mixture in held)

    def behind(count: int, temperature: float) -> float:
        some = (behind_lattdba(*one, temperature, recipe=recipe, neighbours=count) for one in held)
        return float(np.mean(list(some)))

    def reached(numbers: tuple[int, float]) -> float:
        return kept.number(f"lattdba {numbers} {key}", partial(behind, *numbers))

    count, temperature = max(product(OF_LATTDBA, TEMPERATURES), key=reached)
    rivals = {}
    for name, both in product(RIVALS, (False, True)):
        told = f"tuned {name} {both} {len(episodes)} {key}"
        mean = {
            count: kept.number(f"{told} {count}", partial(_rival_map, name, both, episodes, count)) for count in COUNTS
        }
        rivals[name, both] = max(mean, key=lambda one: mean[one])
    return Tuned(lattdba=Recipe(method=LATTQE, neighbours=count, parameter=temperature), rivals=rivals)


def _rival_map(name: str, both: bool, episodes: Sequence[Episode], count: int) -> float:
    """Return the mAP of episodes whose databases are augmented, and with `both` whose queries are expanded, too."""
    expand = by_rule(name, PARAMETERS.get(name, 1.0)) if both else None
    databases = (augmented(one.vectors, name, count, threads=1) for one in episodes)
    some = [replace(of_episode(one), database=rows) for one, rows in zip(episodes, databases, strict=True)]
    return float(np.mean([one.by(expand, count).aps.mean() for one in some]))


def in_databases(searched: Searched, network: ExpansionNetwork, chosen: Tuned, kept: Kept) -> Iterator[Row]:
    """Yield the rows of a data set: each database as if the query were not in it."""
    searching = _Searching(searched, network, kept)
    yield Row(name=NONE, tuned=searching.by(NO_EXPANSION))
    yield Row(name=_EXPANDED, tuned=searching.by(_lattqe(None)))
    for name in RIVALS:
        yield from _rivals(searching, name, chosen)
    for recipe in dict.fromkeys((WIDE, DEFAULT, chosen.lattdba)):
        told = f"{DATABASE_NAMES[LATTQE]} {recipe.neighbours}, T {recipe.parameter:g}"
        yield Row(name=told, tuned=searching.by(Method(name=NONE, database=recipe)))
        yield Row(name=f"{told}, then {_EXPANDED}", tuned=searching.by(_lattqe(recipe)))


def _lattqe(recipe: Recipe | None) -> Method:
    return Method(name=LATTQE, neighbours=EXPANDED, database=recipe)


def _rivals(searching: _Searching, name: str, chosen: Tuned) -> Iterator[Row]:
    """Yield the rows of a database augmented by a method, and of the same with expanded queries."""
    ways = ((False, DATABASE_NAMES[name]), (True, f"{DATABASE_NAMES[name]}, then {name}"))
    found: dict[bool, dict[int, Figures]] = {both: {} for both, _ in ways}
    behind: list[Row] = []
    for count in COUNTS:
        recipe = Recipe(method=name, neighbours=count, parameter=PARAMETERS.get(name, 0.0))
        found[False][count] = searching.by(Method(name=NONE, database=recipe))
        found[True][count] = searching.by(Method(name=name, neighbours=count, database=recipe))
        if count == chosen.rivals[name, False]:
            told = f"{DATABASE_NAMES[name]} {count}, then {_EXPANDED}"
            behind = [Row(name=told, tuned=searching.by(_lattqe(recipe)))]
    for both, told in ways:
        by_count, count = found[both], chosen.rivals[name, both]
        best = max(COUNTS, key=lambda one: float(by_count[one].aps.mean()))
        yield Row(name=f"{told} {count}", tuned=by_count[count], best=by_count[best], best_count=best)
    yield from behind


class _Searching:
    """Searches a data set by a database that is augmented for each query as if that were not in it."""

    def __init__(self, searched: Searched, network: ExpansionNetwork, kept: Kept) -> None:
        self._searched, self._kept = searched, kept
        self._network = digest(network)
        own = [int(row) for row in searched.hidden.argmax(axis=1)]
        self._space = Space(
            queries=searched.queries,
            database=Database(vectors=searched.database),
            own=own,
            lattqe=expander(network),
        )
        self._databases = Databases(searched.database, own, attention=lambda: _Attention(network), threads=1)

    def by(self, method: Method) -> Figures:
        """Return the figures of a method."""
        learned = LATTQE in {method.name, method.database and method.database.method}
        key = f"databases {self._searched.digest} {method!r} {self._network * learned}"
        return self._kept.figures(key, partial(self._figures, method))

    def _figures(self, method: Method) -> Figures:
        space = replace(self._space, database=self._databases.of(method.database, lambda what, steps: _nothing))
        return self._searched.figures(np.stack([one.order for one in answers(method, space)]))


class _Attention:
    """A network's weights, as an augmenter takes them."""

    def __init__(self, network: ExpansionNetwork) -> None:
        self._network = network.eval()

    @torch.no_grad()
    def __call__(self, queries: Floats, neighbours: Floats) -> Floats:
        tokens = torch.from_numpy(np.concatenate([queries[:, None], neighbours], axis=1))
        weights, _ = self._network.weights(tokens, torch.ones(neighbours.shape[:2], dtype=torch.bool))
        return np.asarray(weights[:, 1:].numpy(), np.float32)


def _nothing() -> None:
    """Report no progress."""
