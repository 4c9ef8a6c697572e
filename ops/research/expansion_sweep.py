"""Expansions by number of neighbours on data sets of every kind (docs/reports/expansion-sweep.md).

It judges the LAttQE that ships, others trained as it was, a free curve and the paper's network, and their rivals: by
the global descriptor alone, in augmented databases, and in the default search. It says where an expansion costs more
than it may. A run that was interrupted resumes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.inference.contracts import Sizes
from landseer.export.build import Wanted
from landseer.export.lattqe_file import read_lattqe, shipped_lattqe
from landseer.export.models.fitted_curve import FittedCurve
from landseer.export.models.lattqe import ExpansionNetwork, LAttQE
from landseer.export.models.mean_lattqe import MeanLAttQE
from landseer.export.models.relational import RelationalLAttQE
from landseer.export.models.trunks import BACKBONES, DEFAULT_BACKBONE
from landseer.export.training.curves import CurveRow, read_table
from landseer.export.training.episodes import EpisodeRanges, Kind, unit
from landseer.export.training.expansion import ExpansionRecipe
from landseer.export.training.lattqe import PARTS, Form, classes, learn, mixtures
from landseer.export.training.worlds import whitened
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.head_describer import Describer
from landseer.ops.evaluate.in_process import InProcessSystem
from landseer.ops.evaluate.methods import NO_EXPANSION
from landseer.ops.research.head_kinds import kinds
from landseer.ops.research.kept import Kept, digest
from landseer.ops.research.searched import (
    Expand,
    Figures,
    Floats,
    by_network,
    by_rule,
    by_svm,
    of_episode,
    of_labels,
)
from landseer.ops.research.sweep_databases import Row, in_databases, tuned
from landseer.ops.research.sweep_default import ByDefault, by_default
from landseer.ops.research.sweep_text import (
    COUNTS,
    CURVE,
    DQE,
    FREE,
    GATED,
    NETWORK,
    NONE,
    PAPER,
    Judged,
    Piece,
    Pieces,
    Sweep,
    text,
)
from landseer.ops.research.writing import add_report, made_by, written
from landseer.ops.train.instances import KINDS, NEW, in_two_worlds, instances
from landseer.ops.train.train_lattqe import EPOCHS

PROGRAM = "python -m landseer.ops.research.expansion_sweep"
REPORT = Path("docs/reports/expansion-sweep.md")
ALPHAS = (1.0, 3.0, 6.0, 12.0)
RULES = ("aqe", "aqewd", "alphaqe", CURVE)
REDUCED = 512
"""Dimensions that the paper's network reads, after a PCA."""
STEPS = 50
"""Of an epoch of the paper's network."""
EPISODES, QUERIES = 4, 60
"""Of each part: episodes that numbers of neighbours are tuned on, and most queries of a kind that is learned from."""
Way = Callable[[Piece], tuple[str, Expand]]
"""From a data set to what identifies the method, and the method."""


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
    parser.add_argument(
        "--train", required=True, metavar="SPEC", help="photographs by class that the network learned from"
    )
    parser.add_argument("--test", required=True, action="append", metavar="NAME=SPEC", help="a data set to search")
    parser.add_argument(
        "--halve", action="append", default=[], metavar="NAME", help="also search each half of its things alone"
    )
    parser.add_argument(
        "--distractors",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="pictures beside those of --test NAME in the default search",
    )
    parser.add_argument("--models", type=Path, default=Path("model_repository"), help="describe --test (%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("var/evaluate/vectors.sqlite"), help="(%(default)s)")
    parser.add_argument("--backbone", choices=BACKBONES, default=DEFAULT_BACKBONE)
    parser.add_argument(
        "--lattqe", type=Path, metavar="FILE", help="written by `landseer train lattqe` (the one that ships)"
    )
    parser.add_argument(
        "--trainings", type=int, default=3, help="of LAttQE: its own, and others with other seeds (%(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of these others, and of the curve (%(default)s)")
    parser.add_argument(
        "--paper-epochs", type=int, default=0, help=f"of {STEPS} steps, 0 for no such row (slow on a CPU)"
    )
    parser.add_argument(
        "--paper-so-far", action="store_true", help="take what an unfinished training of the paper's network has kept"
    )
    parser.add_argument("--queries", type=int, default=10_000, help="most queries of each --test (%(default)s)")
    parser.add_argument(
        "--database-queries", type=int, default=300, help="the same in augmented databases (%(default)s)"
    )
    parser.add_argument("--default-queries", type=int, default=150, help="the same in the default search (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="that --lattqe was trained with (%(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("var/train"), help="keeps what was computed (%(default)s)")
    add_report(parser, REPORT)
    return parser


def _report(args: argparse.Namespace) -> str:
    sweeping = Sweeping(args, plain_console(sys.stderr, pipe_width=None))
    sweep = sweeping.globally()
    judged = Judged(sweep=sweep, databases=sweeping.in_databases(sweep), default=list(sweeping.by_default()))
    return text(made_by(PROGRAM, development=args.development), args.train, sweeping.notes, judged)


class Sweeping:
    """The measurements of a report. What was computed before is taken from the folder."""

    def __init__(self, args: argparse.Namespace, console: Console) -> None:
        """Describe the photographs to learn from, and read the network. OpsError, DatasetError, WeightsError."""
        self.args, self.console, self.kept = args, console, Kept(args.folder / "figures")
        self.notes: list[str] = []
        """Sentences for the report."""
        describe = Describer.of(Wanted(backbone=args.backbone))
        self.system = InProcessSystem(args.models, cache=args.cache, seed=args.seed)
        pooled = instances(args.train, describe, args.folder / "vectors", seed=args.seed, console=console)
        self.worlds = in_two_worlds(pooled, describe, seed=args.seed)
        self.served = [
            Kind(whitened(describe.variant.whitening, kind.vectors), kind.labels) for kind in pooled.values()
        ]
        self.network = _network(args, self.system, self.served[0].vectors.shape[1])
        self.parts = [MeanLAttQE.of([one]) for one in self.network.networks if isinstance(one, RelationalLAttQE)]
        self.mixed = [mixtures(self.worlds, new=NEW, part=part, seed=args.seed)[1] for part in range(PARTS)]
        """What each of the parts did not learn from."""
        self.episodes = [one.draw(np.random.default_rng((1, seed))) for one in self.mixed for seed in range(EPISODES)]
        self.held = [Piece(of_episode(one), self.parts[number // EPISODES]) for number, one in enumerate(self.episodes)]

    def globally(self) -> Sweep:
        """Search every data set by expanded descriptors alone."""
        ways = self._ways()
        tuned = {name: COUNTS[int(np.argmax(self._reached(way)))] for name, way in ways.items()}
        tests = dict(self._tests())
        sets: dict[str, Pieces] = {**tests, **dict(self._learned_from())}
        rows = {name: self._figures(pieces, ways) for name, pieces in sets.items()}
        for name, way in self._others():
            for data, [piece] in tests.items():
                rows[data][name] = [self._measured(piece, way, count) for count in COUNTS]
        return Sweep(sets=sets, rows=rows, tuned=tuned)

    def in_databases(self, sweep: Sweep) -> dict[str, list[Row]]:
        """Search the data sets of --test in augmented databases."""
        chosen = tuned(list(zip(self.parts, self.mixed, strict=True)), self.episodes, self.kept)
        names = [kind.name for kind in kinds(self.args.test, [])]
        some = {name: sweep.sets[name][0].searched.drawn(self.args.database_queries) for name in names}
        return {name: list(in_databases(one, self.network, chosen, self.kept)) for name, one in some.items()}

    def by_default(self) -> Iterator[ByDefault]:
        """Search the data sets of --test as a server does by default."""
        for kind in kinds(self.args.test, self.args.distractors):
            some = kind.data.sampled(self.args.default_queries, self.args.seed)
            yield by_default(self.system, replace(kind, data=some), self.network, self.kept, self.console)

    def _ways(self) -> dict[str, Way]:
        """Return the methods by name; alphaqe has the alpha that is best on what the networks validate by."""
        alpha = max(ALPHAS, key=lambda one: max(self._reached(_rule("alphaqe", one))))
        ways = {name: _rule(name, alpha) for name in RULES}
        self.notes.append(f"alphaqe has alpha {alpha:g}, the best of {', '.join(f'{one:g}' for one in ALPHAS)} there.")
        ways[DQE] = _same_for_all(DQE, by_svm)
        form, folder = free_curve(), self.args.folder / "free-curve"
        free = learn(self.worlds, folder, new=NEW, form=form, epochs=self.args.epochs, seed=self.args.seed).network
        ways[FREE] = _same_for_all(digest(free), by_network(free))
        if self.args.paper_epochs:
            ways[PAPER] = self._paper()
        ways[NETWORK] = lambda piece: (digest(piece.network), by_network(piece.network))
        ways[GATED] = lambda piece: (f"gated {digest(piece.network)}", by_network(piece.network, gated=True))
        return ways

    def _paper(self) -> Way:
        """Return the paper's network, trained on the same data as the server describes it."""
        directions = principal(self.served, REDUCED)
        reduced = [[Kind(unit(kind.vectors @ directions), kind.labels) for kind in self.served]]
        epochs, seed = self.args.paper_epochs, self.args.seed
        folder = self.args.folder / f"lattqe-paper-{epochs}-{seed}"
        if self.args.paper_so_far:
            network: ExpansionNetwork = LAttQE(sizes=Sizes(channels=REDUCED))
            network.load_state_dict(load_file(folder / "best.safetensors"))
            rows: Sequence[CurveRow] = read_table(folder / "curves.csv")
        else:
            found = learn(reduced, folder, form=as_in_the_paper(), epochs=epochs, seed=seed)
            network, rows = found.network, found.outcome.rows
        self.notes.append(_how_far(rows, epochs))
        return _same_for_all(digest(network), by_network(network.eval(), directions=directions))

    def _others(self) -> Iterator[tuple[str, Way]]:
        """Yield further trainings of LAttQE, with seeds of their own."""
        for number in range(1, self.args.trainings):
            seed = self.args.seed + number
            folders = [self.args.folder / f"lattqe-{seed}" / f"part-{part + 1}" for part in range(PARTS)]
            parts = [
                learn(self.worlds, folder, new=NEW, part=part, epochs=self.args.epochs, seed=seed).network
                for part, folder in enumerate(folders)
            ]
            mean = MeanLAttQE.of([one for one in parts if isinstance(one, RelationalLAttQE)])
            yield f"{NETWORK}, training {number + 1}", _same_for_all(digest(mean), by_network(mean))

    def _tests(self) -> Iterator[tuple[str, Pieces]]:
        for kind in kinds(self.args.test, []):
            data = kind.data.without(self.system.prepare(kind.data, [NO_EXPANSION], self.console))
            vectors, labels = np.asarray(self.system.space(data).database.vectors), _labels(data)
            yield kind.name, [self._piece(vectors, labels)]
            if kind.name in self.args.halve:
                half = np.random.default_rng(self.args.seed).permutation(int(labels.max()) + 1) % 2
                for side in (0, 1):
                    rows = np.flatnonzero(half[labels] == side)
                    yield f"{kind.name}, half {side + 1}", [self._piece(vectors[rows], labels[rows])]

    def _piece(self, vectors: Floats, labels: NDArray[np.int64]) -> Piece:
        return Piece(of_labels(vectors, labels).drawn(self.args.queries), self.network)

    def _learned_from(self) -> Iterator[tuple[str, Pieces]]:
        """Yield the data that was learned from: each third of its things with the network that did not see it."""
        some = {name: self.worlds[world][number] for name, (world, number) in zip(KINDS, NEW, strict=True)}
        some[f"{KINDS[-1]}, as served"] = self.served[-1]
        for name, kind in some.items():
            labels = kind.labels.tolist()
            thirds = [kind.rows(classes(labels, part=part, seed=self.args.seed)[1]) for part in range(PARTS)]
            pieces = [of_labels(*one).drawn(QUERIES) for one in thirds]
            yield f"{name}, cross-validated", [Piece(*one) for one in zip(pieces, self.parts, strict=True)]

    def _reached(self, way: Way) -> list[float]:
        """Return the mAP of held-out episodes by number of neighbours."""
        return [float(np.mean([self._measured(one, way, count).aps.mean() for one in self.held])) for count in COUNTS]

    def _figures(self, pieces: Pieces, ways: Mapping[str, Way]) -> dict[str, list[Figures]]:
        """Return the figures of each method by number of neighbours."""
        none = Figures.of([one.searched.by(None, 0) for one in pieces])
        found = {NONE: [none] * len(COUNTS)}
        for name, way in ways.items():
            found[name] = [Figures.of([self._measured(one, way, count) for one in pieces]) for count in COUNTS]
        return found

    def _measured(self, piece: Piece, way: Way, count: int) -> Figures:
        key, expand = way(piece)
        searched = piece.searched
        return self.kept.figures(f"{searched.digest} {key} {count}", partial(searched.by, expand, count))


def _network(args: argparse.Namespace, system: InProcessSystem, size: int) -> MeanLAttQE:
    """Return the network that is judged. OpsError if none ships for the descriptor, or it has no parts."""
    path = args.lattqe or shipped_lattqe(system.profile.backbone, system.profile.descriptor)
    if path is None:
        raise OpsError(f"no LAttQE ships for {system.profile.descriptor}; name one with --lattqe FILE")
    network = read_lattqe(path, Sizes(channels=size))
    if not isinstance(network, MeanLAttQE) or len(network.networks) != PARTS:
        raise OpsError(f"{path} is not the mean of {PARTS} networks, as `landseer train lattqe` writes it")
    return network


def _how_far(rows: Sequence[CurveRow], epochs: int) -> str:
    """Say how far the training of the paper's network came."""
    judged = [(row.step, row.validation) for row in rows if row.validation is not None]
    step, reached = max(judged, key=lambda one: one[1])
    curve = ", ".join(f"{validation:.1f}" for _, validation in judged)
    return (
        f"`{PAPER}` network reads {REDUCED} dimensions. Trained for {judged[-1][0]:,} of {epochs * STEPS:,} steps; "
        f"judged as after {step:,}, validation mAP {reached:.1f}. Every {STEPS} steps, first before all: {curve}."
    )


def _rule(name: str, alpha: float) -> Way:
    return _same_for_all(f"{name} {alpha}", by_rule(name, alpha))


def _same_for_all(key: str, expand: Expand) -> Way:
    return lambda piece: (key, expand)


def _labels(data: Dataset) -> NDArray[np.int64]:
    """Return a number for what each reference shows; one that no query shows is alone."""
    things = {query.shot.path: query.thing for query in data.queries}
    alone = [things.get(path) or str(path) for path in data.references]
    return np.unique(alone, return_inverse=True)[1].astype(np.int64)


if __name__ == "__main__":
    sys.exit(main())
