"""Expansions by number of neighbours on data sets of every kind (docs/reports/expansion-sweep.md).

It trains the networks that `landseer train lattqe` trains, and the paper's, searches every data set by them and by
their rivals, and says where an expansion costs more than it may. A run that was interrupted resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.evaluation import average_precision
from landseer.ensemble.search.expansion.weights import WEIGHTINGS
from landseer.export.models.lattqe import ExpansionNetwork
from landseer.export.models.trunks import BACKBONES
from landseer.export.training.episodes import Episode, EpisodeRanges, Kind, unit
from landseer.export.training.expansion import ExpansionRecipe
from landseer.export.training.lattqe import PARTS, CrossValidated, Form, Learned, classes, learn
from landseer.ops.evaluate.figures import Estimate
from landseer.ops.evaluate.head_describer import Describer
from landseer.ops.evaluate.in_process import InProcessSystem
from landseer.ops.evaluate.methods import NO_EXPANSION
from landseer.ops.evaluate.readers import read
from landseer.ops.evaluate.results import between
from landseer.ops.research.cells import INTERVALS
from landseer.ops.research.writing import add_report, made_by, written
from landseer.ops.train.instances import KINDS, instances
from landseer.ops.train.train_lattqe import EPOCHS

PROGRAM = "python -m landseer.ops.research.expansion_sweep"
REPORT = Path("docs/reports/expansion-sweep.md")
COUNTS = (1, 2, 4, 8, 16, 32, 64)
ALPHAS = (1.0, 3.0, 6.0, 12.0)
RIVALS = ("aqe", "alphaqe", "rank-curve")
NETWORK, GATED, PAPER = "lattqe", "lattqe, gated", "the paper's"
REDUCED = 512
"""Dimensions that the paper's network reads, after a PCA."""
SURE = 0.5
"""Probability from which the gated form expands by a neighbour."""
MOST_LOST, MOST_FIRST_LOST = 0.3, 0.5
"""Percentage points of mAP and of first hits that an expansion may cost."""
STEPS = 50
"""Of an epoch of the paper's network."""
AT_ONCE = 64
"""Queries that a network weighs at a time."""

Floats = NDArray[np.float32]
Weigh = Callable[[Floats, Floats], NDArray[np.floating[Any]]]
"""From queries [Q, D] and neighbours [Q, k, D], best first, to weights [Q, k]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Searched:
    """A data set as vectors."""

    queries: Floats
    """[Q, D], of unit norm."""
    database: Floats
    """[N, D]."""
    relevant: NDArray[np.bool_]
    """[Q, N]."""
    hidden: NDArray[np.bool_]
    """[Q, N]: the query's own picture."""
    classes: NDArray[np.int64]
    """[Q]."""

    def ranked(self, queries: Floats, count: int | None = None) -> NDArray[np.int64]:
        """Return the rows, best first, [Q, N], or the first `count`; the query's own is last."""
        scores = np.where(self.hidden, -np.inf, queries @ self.database.T)
        return np.argsort(-scores, axis=1, kind="stable")[:, :count]

    def by(self, weigh: Weigh | None, count: int) -> Figures:
        """Search, expanded by `count` neighbours; None does not expand."""
        queries = self.queries
        if weigh is not None:
            count = min(count, int((~self.hidden).sum(axis=1).min()))
            near = self.database[self.ranked(queries, count)]
            queries = queries + np.einsum("qk,qkd->qd", weigh(queries, near), near)
        right = np.take_along_axis(self.relevant, self.ranked(np.asarray(queries, np.float32)), axis=1)
        aps = [average_precision(np.flatnonzero(row), positives=int(row.sum())) for row in right]
        return Figures(aps=100.0 * np.array(aps, np.float64), first=100.0 * right[:, 0])


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """Average precision and first hit right, in percent, of each query, [Q]."""

    aps: NDArray[np.float64]
    first: NDArray[np.float64]

    @classmethod
    def of(cls, some: Sequence[Figures]) -> Figures:
        """Put those of several pieces one after the other."""
        return cls(aps=np.concatenate([one.aps for one in some]), first=np.concatenate([one.first for one in some]))


class Piece(NamedTuple):
    """A data set, or a third of one, and the network that expands its queries."""

    searched: Searched
    network: ExpansionNetwork


Pieces = Sequence[Piece]


def of_labels(vectors: Floats, labels: NDArray[np.int64]) -> Searched:
    """Return each vector [N, D] whose label [N] another has, searched among the others."""
    same = labels[:, None] == labels[None]
    rows = np.flatnonzero(same.sum(axis=1) > 1)
    own = np.eye(len(labels), dtype=bool)
    relevant = (same & ~own)[rows]
    return Searched(queries=vectors[rows], database=vectors, relevant=relevant, hidden=own[rows], classes=labels[rows])


def of_episode(episode: Episode) -> Searched:
    """Return a validation episode of a training."""
    relevant = episode.labels[None] == episode.wanted[:, None]
    hidden = np.zeros_like(relevant)
    queries, database = episode.queries, episode.vectors
    return Searched(queries=queries, database=database, relevant=relevant, hidden=hidden, classes=episode.wanted)


def by_rule(name: str, alpha: float, queries: Floats, near: Floats) -> NDArray[np.floating[Any]]:
    """Return the weights of a method without a network."""
    return WEIGHTINGS[name](np.einsum("qd,qkd->qk", queries, near), alpha)[:, 1:]


@torch.no_grad()
def by_network(
    network: ExpansionNetwork, directions: Floats | None, gated: bool, queries: Floats, near: Floats
) -> Floats:
    """Return the weights of a network. directions: [D, d] that it reads alone; gated: only relevant ones count."""
    found = []
    for start in range(0, len(queries), AT_ONCE):
        rows = slice(start, start + AT_ONCE)
        tokens = np.concatenate([queries[rows, None], near[rows]], axis=1)
        read = tokens if directions is None else unit_last(tokens @ directions)
        mask = torch.ones(read.shape[0], read.shape[1] - 1, dtype=torch.bool)
        weights, logits = network.weights(torch.from_numpy(read), mask)
        kept = (torch.sigmoid(logits) >= SURE) & (weights > 0) if gated else torch.ones_like(weights)
        found.append((weights * kept)[:, 1:].numpy())
    return np.concatenate(found)


def unit_last(vectors: Floats) -> Floats:
    """Return vectors [..., D] of unit norm."""
    return unit(vectors.reshape(-1, vectors.shape[-1])).reshape(vectors.shape)


def principal(kinds: Sequence[Kind], count: int) -> Floats:
    """Return the strongest directions of what was learned from, [D, count], without the mean."""
    vectors = np.concatenate([kind.vectors for kind in kinds])
    _, directions = np.linalg.eigh(np.cov(vectors, rowvar=False))
    return np.ascontiguousarray(directions[:, ::-1][:, :count], np.float32)


def as_in_the_paper() -> Form:
    """Return the paper's network and its training; a step is of 32 queries in place of 64.

    The paper does not give the weight of the loss of relevance.
    """
    recipe = ExpansionRecipe(
        steps=STEPS, paper=True, relevance=0.1, least=32, average=1.0, validated=8, validated_at=(COUNTS[-1],)
    )
    ranges = EpisodeRanges(simulated=0.5, augmented=0.0)
    return Form(name=PAPER, paper=True, learning_rate=1e-4, recipe=recipe, ranges=ranges)


def main(argv: list[str] | None = None) -> int:
    """Run. Returns what `written` does."""
    args = _parser().parse_args(argv)
    return written(lambda: _report(args), args.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--train", required=True, metavar="SPEC", help="photographs by class to learn from")
    parser.add_argument("--test", required=True, action="append", metavar="NAME=SPEC", help="a data set to search")
    parser.add_argument(
        "--halve", action="append", default=[], metavar="NAME", help="also search each half of it alone"
    )
    parser.add_argument("--models", type=Path, default=Path("model_repository"), help="describe --test (%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("var/evaluate/vectors.sqlite"), help="(%(default)s)")
    parser.add_argument("--backbone", choices=BACKBONES, default="efficientnet_lite0")
    parser.add_argument(
        "--lattqe", type=Path, default=Path("var/train/lattqe"), help="--out of `landseer train lattqe` (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of `landseer train lattqe` (%(default)s)")
    parser.add_argument(
        "--paper-epochs", type=int, default=0, help=f"of {STEPS} steps, 0 for no such row (slow on a CPU)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("var/train"), help="keeps what was computed (%(default)s)")
    add_report(parser, REPORT)
    return parser


def _report(args: argparse.Namespace) -> str:
    console = plain_console(sys.stderr, pipe_width=None)
    describe = Describer.of(args.backbone, None)
    vectors = args.folder / "vectors"
    kinds = instances(args.train, describe, vectors, seed=args.seed, console=console)
    parts = [
        learn(kinds, args.lattqe / f"part-{part + 1}", part=part, epochs=args.epochs, seed=args.seed)
        for part in range(PARTS)
    ]
    trained = CrossValidated(parts)
    held = [of_episode(part.held.draw(np.random.default_rng((1, seed)))) for part in parts for seed in range(8)]
    rules = {name: _tuned(name, held) for name in RIVALS}
    paper = _paper(kinds, args) if args.paper_epochs else None
    tests = {name: [Piece(one, trained.network)] for name, one in _sets(args, console)}
    sets: dict[str, Pieces] = {**tests, **dict(_learned_from(kinds, parts, args.seed))}
    rows = {name: _figures(pieces, rules, paper) for name, pieces in sets.items()}
    spread = {
        name: [one.searched.by(partial(by_network, part.network, None, False), COUNTS[-1]).aps.mean() for part in parts]
        for name, [one] in tests.items()
    }
    return _text(args, sets, rows, rules, spread)


def _learned_from(kinds: Sequence[Kind], parts: Sequence[Learned], seed: int) -> Iterator[tuple[str, Pieces]]:
    """Yield the kinds of data that are learned from: each third of their things by the network that did not see it."""
    for name, kind in zip(KINDS, kinds, strict=True):
        held = (kind.rows(classes(kind.labels.tolist(), part=part, seed=seed)[1]) for part in range(PARTS))
        yield (
            f"{name}, cross-validated",
            [Piece(of_labels(*some), one.network) for some, one in zip(held, parts, strict=True)],
        )


def _paper(kinds: Sequence[Kind], args: argparse.Namespace) -> Weigh:
    """Return the weights of the paper's network, trained on the same data."""
    directions = principal(kinds, REDUCED)
    reduced = [Kind(unit(kind.vectors @ directions), kind.labels) for kind in kinds]
    folder = args.folder / f"lattqe-paper-{args.paper_epochs}-{args.seed}"
    found = learn(reduced, folder, form=as_in_the_paper(), epochs=args.paper_epochs, seed=args.seed)
    return partial(by_network, found.network, directions, False)


def _tuned(name: str, held: Sequence[Searched]) -> tuple[int, float]:
    """Return the number of neighbours and the alpha that are best on what the trainings validate by."""
    grid = [(count, alpha) for count in COUNTS for alpha in (ALPHAS if name == "alphaqe" else ALPHAS[:1])]
    return max(
        grid, key=lambda one: np.mean([some.by(partial(by_rule, name, one[1]), one[0]).aps.mean() for some in held])
    )


def _sets(args: argparse.Namespace, console: Console) -> Iterator[tuple[str, Searched]]:
    system = InProcessSystem(args.models, cache=args.cache, seed=args.seed)
    for name, spec in (one.split("=", 1) for one in args.test):
        data = read(spec)
        data = data.without(system.prepare(data, [NO_EXPANSION], console))
        vectors = np.asarray(system.space(data).database.vectors)
        things = {query.shot.path: query.thing for query in data.queries}
        alone = (things.get(path, str(path)) for path in data.references)
        labels = np.unique(list(alone), return_inverse=True)[1].astype(np.int64)
        yield name, of_labels(vectors, labels)
        if name in args.halve:
            half = np.random.default_rng(args.seed).permutation(int(labels.max()) + 1) % 2
            for side in (0, 1):
                rows = np.flatnonzero(half[labels] == side)
                yield f"{name}, half {side + 1}", of_labels(vectors[rows], labels[rows])


def _figures(pieces: Pieces, rules: Mapping[str, tuple[int, float]], paper: Weigh | None) -> dict[str, list[Figures]]:
    """Return the figures of each method by number of neighbours."""
    none = Figures.of([one.searched.by(None, 0) for one in pieces])
    found = {"none": [none] * len(COUNTS)}
    ways: dict[str, Callable[[Piece], Weigh]] = {
        name: _same_for_all(partial(by_rule, name, alpha)) for name, (_, alpha) in rules.items()
    }
    ways[NETWORK] = lambda piece: partial(by_network, piece.network, None, False)
    ways[GATED] = lambda piece: partial(by_network, piece.network, None, True)
    if paper is not None:
        ways[PAPER] = _same_for_all(paper)
    for name, way in ways.items():
        found[name] = [Figures.of([one.searched.by(way(one), count) for one in pieces]) for count in COUNTS]
    return found


def _same_for_all(weigh: Weigh) -> Callable[[Piece], Weigh]:
    return lambda piece: weigh


def _text(
    args: argparse.Namespace,
    sets: Mapping[str, Pieces],
    rows: Mapping[str, Mapping[str, Sequence[Figures]]],
    rules: Mapping[str, tuple[int, float]],
    spread: Mapping[str, Sequence[float]],
) -> str:
    tables = "\n".join(_table(name, sets[name], rows[name]) for name in sets)
    tuned = "; ".join(f"{name}: {count}, alpha {alpha:g}" for name, (count, alpha) in rules.items())
    return f"""# Expansions by number of neighbours

{made_by(PROGRAM, development=args.development)}

- Learned from {args.train}: photographs by class, views of them and drawn targets. Data sets that are *cross-validated*
  are of these, each third of the things with the network that did not learn from it.
- `{NETWORK}` is the mean of three networks. `{GATED}` expands only by neighbours of a probability of {SURE} or more, of
  a weight above 0.
- Rivals have the alpha, and in the last table the number of neighbours, that is best on what the networks validate by:
  {tuned}.

{INTERVALS}

## In short

{_short(sets, rows, rules, spread)}
{tables}"""


def _short(
    sets: Mapping[str, Pieces],
    rows: Mapping[str, Mapping[str, Sequence[Figures]]],
    rules: Mapping[str, tuple[int, float]],
    spread: Mapping[str, Sequence[float]],
) -> str:
    """Return the table of gains in mAP over no expansion: each method at its number of neighbours, and its worst."""
    names = list(next(iter(rows.values())))[1:]
    at = {name: COUNTS.index(rules[name][0]) if name in rules else len(COUNTS) - 1 for name in names}
    lines = [
        "Gain in mAP over no expansion, and the interval over things; in the second line the most that any number of "
        "neighbours costs, mAP and first hit right.\n",
        f"| data | none | {' | '.join(f'{n}, {COUNTS[at[n]]}' for n in names)} | {NETWORK}, three trainings |",
        "|---|---:|" + "---|" * (len(names) + 1),
    ]
    for data, found in rows.items():
        none, cells, costs = found["none"][0], [], []
        for name in names:
            things = np.concatenate([one.searched.classes for one in sets[data]])
            estimate = Estimate.of((found[name][at[name]].aps - none.aps) / 100, things)
            interval = between(estimate.over_classes or estimate.over_queries, sign="+")
            cells.append(f"{100 * estimate.value:+.1f} ({interval})")
            lost, first = (min((m.mean() - n.mean()) for m, n in _pairs(found[name], none, what)) for what in (0, 1))
            harm = lost < -MOST_LOST or first < -MOST_FIRST_LOST
            costs.append(f"{'**' * harm}{lost:+.1f}, {first:+.1f}{'**' * harm}")
        trainings = f"{min(spread[data]):.1f} to {max(spread[data]):.1f} mAP" if data in spread else "-"
        lines.append(f"| {data} | {none.aps.mean():.1f} | {' | '.join(cells)} | {trainings} |")
        lines.append(f"| | {none.first.mean():.1f} first | {' | '.join(costs)} | |")
    return "\n".join(lines) + "\n"


def _pairs(
    found: Sequence[Figures], none: Figures, what: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    for one in found:
        yield ((one.aps, none.aps), (one.first, none.first))[what]


def _table(name: str, pieces: Pieces, rows: Mapping[str, Sequence[Figures]]) -> str:
    positives = np.concatenate([one.searched.relevant.sum(axis=1) for one in pieces])
    things = len(np.unique(np.concatenate([one.searched.classes for one in pieces])))
    among = " and ".join(f"{len(one.searched.database):,}" for one in pieces)
    answers = f"{int(positives.min())} to {int(positives.max())} right answers"
    size = f"{len(positives):,} queries of {things} things"
    lines = [
        f"\n## {name}\n",
        f"{size} among {among} pictures, {answers}. mAP / first hit right.\n",
        f"| neighbours | {' | '.join(map(str, COUNTS))} |",
        "|---|" + "---:|" * len(COUNTS),
    ]
    for method, found in rows.items():
        cells = (f"{one.aps.mean():.1f} / {one.first.mean():.1f}" for one in found)
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
