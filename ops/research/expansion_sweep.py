"""Expansions by number of neighbours on data sets of every kind (docs/reports/expansion-sweep.md).

It trains the networks that `landseer train lattqe` trains, a free curve and the paper's network, searches every data
set by them and by their rivals, and says where an expansion costs more than it may. A run that was interrupted resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.fitted_curve import FittedCurve
from landseer.export.models.lattqe import ExpansionNetwork, LAttQE
from landseer.export.models.trunks import BACKBONES
from landseer.export.training.curves import CurveRow, read_table
from landseer.export.training.episodes import EpisodeRanges, Kind, unit
from landseer.export.training.expansion import ExpansionRecipe
from landseer.export.training.lattqe import PARTS, CrossValidated, Form, Learned, classes, learn
from landseer.export.training.worlds import whitened
from landseer.ops.evaluate.figures import Estimate
from landseer.ops.evaluate.head_describer import Describer
from landseer.ops.evaluate.in_process import InProcessSystem
from landseer.ops.evaluate.methods import NO_EXPANSION
from landseer.ops.evaluate.readers import read
from landseer.ops.evaluate.results import between
from landseer.ops.research.cells import INTERVALS
from landseer.ops.research.searched import (
    SURE,
    Expand,
    Figures,
    Floats,
    Searched,
    by_network,
    by_rule,
    by_svm,
    of_episode,
    of_labels,
)
from landseer.ops.research.writing import add_report, made_by, written
from landseer.ops.train.instances import KINDS, NEW, in_two_worlds, instances
from landseer.ops.train.train_lattqe import EPOCHS

PROGRAM = "python -m landseer.ops.research.expansion_sweep"
REPORT = Path("docs/reports/expansion-sweep.md")
COUNTS = (1, 2, 4, 8, 16, 32, 64)
ALPHAS = (1.0, 3.0, 6.0, 12.0)
DQE, CURVE, FREE = "dqe", "rank-curve", "free curve"
RULES = ("aqe", "aqewd", "alphaqe", CURVE)
NETWORK, GATED, PAPER = "lattqe", "lattqe, gated", "the paper's"
REDUCED = 512
"""Dimensions that the paper's network reads, after a PCA."""
MOST_LOST, MOST_FIRST_LOST = 0.3, 0.5
"""Percentage points of mAP and of first hits that an expansion may cost."""
STEPS = 50
"""Of an epoch of the paper's network."""
EPISODES, QUERIES = 4, 60
"""Of each part: episodes that numbers of neighbours are tuned on, and most queries of a kind that is learned from."""


class Piece(NamedTuple):
    """A data set, or a third of one, and the network that expands its queries."""

    searched: Searched
    network: ExpansionNetwork


Pieces = Sequence[Piece]
Ways = Mapping[str, Callable[[Piece], Expand]]
"""The methods by name."""


class Judged(NamedTuple):
    """What was measured."""

    sets: Mapping[str, Pieces]
    """The data sets by name."""
    rows: Mapping[str, Mapping[str, Sequence[Figures]]]
    """The figures of each data set and method by number of neighbours, `COUNTS`."""
    tuned: Mapping[str, int]
    """The number of neighbours of each method that is best on what the networks validate by."""
    spread: Mapping[str, Sequence[float]]
    """mAP of each of the three networks, of some of the data sets."""


def principal(kinds: Sequence[Kind], count: int) -> Floats:
    """Return the strongest directions of what was learned from, [D, count], without the mean."""
    vectors = np.concatenate([kind.vectors for kind in kinds])
    _, directions = np.linalg.eigh(np.cov(vectors, rowvar=False))
    return np.ascontiguousarray(directions[:, ::-1][:, :count], np.float32)


def free_curve() -> Form:
    """Return the training of a curve that is fitted freely."""
    return Form(make=lambda sizes: FittedCurve(sizes=sizes), learning_rate=1e-2)


def as_in_the_paper() -> Form:
    """Return the paper's network and its training; a step is of 32 queries in place of 64.

    The paper does not give the weight of the loss of relevance.
    """
    recipe = ExpansionRecipe(
        steps=STEPS, paper=True, relevance=0.1, least=32, average=1.0, validated=8, validated_at=(COUNTS[-1],)
    )
    ranges = EpisodeRanges(simulated=0.5, augmented=0.0)
    return Form(make=lambda sizes: LAttQE(sizes=sizes), paper=True, learning_rate=1e-4, recipe=recipe, ranges=ranges)


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
    parser.add_argument(
        "--paper-so-far", action="store_true", help="take what an unfinished training of the paper's network has kept"
    )
    parser.add_argument("--queries", type=int, default=10_000, help="most queries of each --test (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("var/train"), help="keeps what was computed (%(default)s)")
    add_report(parser, REPORT)
    return parser


def _report(args: argparse.Namespace) -> str:
    console = plain_console(sys.stderr, pipe_width=None)
    describe = Describer.of(args.backbone, None)
    pooled = instances(args.train, describe, args.folder / "vectors", seed=args.seed, console=console)
    worlds = in_two_worlds(pooled, describe.variant.whitening, seed=args.seed)
    parts = [
        learn(worlds, args.lattqe / f"part-{part + 1}", new=NEW, part=part, epochs=args.epochs, seed=args.seed)
        for part in range(PARTS)
    ]
    trained, notes = CrossValidated(parts), [_validated(parts)]
    held = [
        Piece(of_episode(part.held.draw(np.random.default_rng((1, seed)))), part.network)
        for part in parts
        for seed in range(EPISODES)
    ]
    ways = {**_rules(held), DQE: _same_for_all(by_svm)}
    free = learn(worlds, args.lattqe / "free-curve", new=NEW, form=free_curve(), epochs=args.epochs, seed=args.seed)
    ways[FREE] = _same_for_all(by_network(free.network))
    served = [Kind(whitened(describe.variant.whitening, kind.vectors), kind.labels) for kind in pooled.values()]
    if args.paper_epochs:
        ways[PAPER], note = _paper(served, args)
        notes.append(note)
    ways[NETWORK] = lambda piece: by_network(piece.network)
    ways[GATED] = lambda piece: by_network(piece.network, gated=True)
    tuned = {name: _count(way, held) for name, way in ways.items()}
    tests = {name: [Piece(one, trained.network)] for name, one in _sets(args, console)}
    learned_from = {name: worlds[world][number] for name, (world, number) in zip(KINDS, NEW, strict=True)}
    learned_from[f"{KINDS[-1]}, as served"] = served[-1]
    sets: dict[str, Pieces] = {**tests, **dict(_learned_from(learned_from, parts, args.seed))}
    rows = {name: _figures(pieces, ways) for name, pieces in sets.items()}
    spread = {
        name: [one.searched.by(by_network(part.network), tuned[NETWORK]).aps.mean() for part in parts]
        for name, [one] in tests.items()
    }
    return _text(args, Judged(sets, rows, tuned, spread), notes)


def _validated(parts: Sequence[Learned]) -> str:
    """Say what the trainings reached."""
    told = (f"{one.outcome.start:.1f} to {one.outcome.best:.1f} after {one.outcome.epoch} epochs" for one in parts)
    return f"Validation mAP of the three trainings, before and best: {'; '.join(told)}."


def _learned_from(kinds: Mapping[str, Kind], parts: Sequence[Learned], seed: int) -> Iterator[tuple[str, Pieces]]:
    """Yield the kinds of data that are learned from: each third of their things by the network that did not see it."""
    for name, kind in kinds.items():
        held = (kind.rows(classes(kind.labels.tolist(), part=part, seed=seed)[1]) for part in range(PARTS))
        yield (
            f"{name}, cross-validated",
            [Piece(of_labels(*some).drawn(QUERIES), one.network) for some, one in zip(held, parts, strict=True)],
        )


def _paper(kinds: Sequence[Kind], args: argparse.Namespace) -> tuple[Callable[[Piece], Expand], str]:
    """Return the paper's network, trained on the same data as the server describes it, and how far that came."""
    directions = principal(kinds, REDUCED)
    reduced = [[Kind(unit(kind.vectors @ directions), kind.labels) for kind in kinds]]
    folder = args.folder / f"lattqe-paper-{args.paper_epochs}-{args.seed}"
    if args.paper_so_far:
        network: ExpansionNetwork = LAttQE(sizes=Sizes(channels=REDUCED))
        network.load_state_dict(load_file(folder / "best.safetensors"))
        rows: Sequence[CurveRow] = read_table(folder / "curves.csv")
    else:
        found = learn(reduced, folder, form=as_in_the_paper(), epochs=args.paper_epochs, seed=args.seed)
        network, rows = found.network, found.outcome.rows
    judged = [row for row in rows if row.validation is not None]
    curve = ", ".join(f"{row.validation:.1f}" for row in judged)
    note = f"The paper's network: {judged[-1].step:,} steps; validation mAP, first before all of them: {curve}."
    return _same_for_all(by_network(network.eval(), directions=directions)), note


def _rules(held: Pieces) -> dict[str, Callable[[Piece], Expand]]:
    """Return the rules; alphaqe has the alpha that is best on what the networks validate by."""
    alpha = max(ALPHAS, key=lambda one: max(_reached(_same_for_all(by_rule("alphaqe", one)), held)))
    return {name: _same_for_all(by_rule(name, alpha)) for name in RULES}


def _reached(way: Callable[[Piece], Expand], held: Pieces) -> list[float]:
    """Return the mAP of held-out episodes by number of neighbours."""
    return [float(np.mean([one.searched.by(way(one), count).aps.mean() for one in held])) for count in COUNTS]


def _count(way: Callable[[Piece], Expand], held: Pieces) -> int:
    """Return the number of neighbours that is best on what the networks validate by."""
    return COUNTS[int(np.argmax(_reached(way, held)))]


def _sets(args: argparse.Namespace, console: Console) -> Iterator[tuple[str, Searched]]:
    system = InProcessSystem(args.models, cache=args.cache, seed=args.seed)
    for name, spec in (one.split("=", 1) for one in args.test):
        data = read(spec)
        data = data.without(system.prepare(data, [NO_EXPANSION], console))
        vectors = np.asarray(system.space(data).database.vectors)
        things = {query.shot.path: query.thing for query in data.queries}
        alone = (things.get(path, str(path)) for path in data.references)
        labels = np.unique(list(alone), return_inverse=True)[1].astype(np.int64)
        yield name, of_labels(vectors, labels).drawn(args.queries)
        if name in args.halve:
            half = np.random.default_rng(args.seed).permutation(int(labels.max()) + 1) % 2
            for side in (0, 1):
                rows = np.flatnonzero(half[labels] == side)
                yield f"{name}, half {side + 1}", of_labels(vectors[rows], labels[rows]).drawn(args.queries)


def _figures(pieces: Pieces, ways: Ways) -> dict[str, list[Figures]]:
    """Return the figures of each method by number of neighbours."""
    none = Figures.of([one.searched.by(None, 0) for one in pieces])
    found = {"none": [none] * len(COUNTS)}
    for name, way in ways.items():
        found[name] = [Figures.of([one.searched.by(way(one), count) for one in pieces]) for count in COUNTS]
    return found


def _same_for_all(expand: Expand) -> Callable[[Piece], Expand]:
    return lambda piece: expand


def _text(args: argparse.Namespace, judged: Judged, notes: Sequence[str]) -> str:
    tables = "\n".join(_table(name, pieces, judged.rows[name]) for name, pieces in judged.sets.items())
    told = "\n".join(f"- {note}" for note in notes)
    return f"""# Expansions by number of neighbours

{made_by(PROGRAM, development=args.development)}

- Learned from {args.train}: photographs by class, views of them and drawn targets, each described by a whitening that
  did not learn from it and by one that did. Data sets that are *cross-validated* are of these, each third of the things
  with the network that did not learn from it (at most {QUERIES} queries of each third). The whitening did not learn
  from these photographs either, but for those *as served*.
- `{NETWORK}` is the mean of three networks. `{GATED}` expands only by neighbours of a probability of {SURE} or more, of
  a weight above 0. `{FREE}` is one weight for each rank, learned from the same episodes; `{CURVE}` ships.
- Each method's number of neighbours *tuned*, and alphaqe's alpha, are best on what the networks validate by.
{told}

{INTERVALS}

## In short

{_short(judged)}
{tables}"""


def _short(judged: Judged) -> str:
    """Return the table of gains in mAP over no expansion: each method at its number of neighbours, and its worst."""
    sets, rows, tuned, spread = judged
    names = list(next(iter(rows.values())))[1:]
    lines = [
        "Gain in mAP over no expansion at the tuned number of neighbours, and the interval over things; in the second "
        "line the most that any number of neighbours costs, mAP and first hit right, in bold where it is more than "
        f"{MOST_LOST} or {MOST_FIRST_LOST}. *Over the best rival*: over the one with the highest mAP on this data.\n",
        f"| data | none | {' | '.join(f'{n}, {tuned[n]}' for n in names)} | {NETWORK} over the best rival "
        f"| {NETWORK}, three trainings |",
        "|---|---:|" + "---|" * (len(names) + 2),
    ]
    for data, found in rows.items():
        none, costs = found["none"][0], []
        things = np.concatenate([one.searched.classes for one in sets[data]])
        chosen = {name: found[name][COUNTS.index(tuned[name])].aps for name in names}
        cells = [_gain(chosen[name], none.aps, things) for name in names]
        for name in names:
            lost, first = (min((m.mean() - n.mean()) for m, n in _pairs(found[name], none, what)) for what in (0, 1))
            harm = lost < -MOST_LOST or first < -MOST_FIRST_LOST
            costs.append(f"{'**' * harm}{lost:+.1f}, {first:+.1f}{'**' * harm}")
        rivals = [name for name in names if name not in (NETWORK, GATED)]
        best = max(rivals, key=lambda one: float(chosen[one].mean()))
        over = f"{best}: {_gain(chosen[NETWORK], chosen[best], things)}"
        trainings = f"{min(spread[data]):.1f} to {max(spread[data]):.1f} mAP" if data in spread else "-"
        lines.append(f"| {data} | {none.aps.mean():.1f} | {' | '.join(cells)} | {over} | {trainings} |")
        lines.append(f"| | {none.first.mean():.1f} first | {' | '.join(costs)} | | |")
    return "\n".join(lines) + "\n"


def _gain(aps: NDArray[np.float64], base: NDArray[np.float64], things: NDArray[np.int64]) -> str:
    estimate = Estimate.of((aps - base) / 100, things)
    return f"{100 * estimate.value:+.1f} ({between(estimate.over_classes or estimate.over_queries, sign='+')})"


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
