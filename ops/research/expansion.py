"""`make results-expansion`: train LAttQE and compare expansions (docs/reports/results-expansion.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.search.expansion.methods import LATTQE
from landseer.export.models.trunks import BACKBONES
from landseer.export.training.episodes import Kind
from landseer.export.training.lattqe import (
    PARTS,
    CrossValidated,
    Form,
    Learned,
    classes,
    learn,
)
from landseer.export.training.localisation import split
from landseer.ops.evaluate.labelled_vectors import LabelledVectors, describe_labelled
from landseer.ops.evaluate.methods import NO_EXPANSION, NONE, Method
from landseer.ops.research.cells import INTERVALS
from landseer.ops.research.expansion_report import ExpansionRow, sweep_table, table
from landseer.ops.research.expansion_search import (
    LATTQE_SEARCH,
    LabelledSearch,
    Tuning,
    tuned,
    tuned_behind_lattdba,
    tuned_database,
    tuned_lattdba,
    tuned_lattqe,
)
from landseer.ops.research.writing import add_report, made_by, written

PROGRAM = "python -m landseer.ops.research.expansion"
REPORT = Path("docs/reports/results-expansion.md")
SWEEP = (1, 2, 4, 8, 16, 32, 64)
TUNED_BY = 150
"""Number of queries of the training classes that methods are tuned on."""
RIVALS, AUGMENTED = ("aqe", "aqewd", "aqewd-dir", "alphaqe", "dqe"), ("aqe", "aqewd-dir", "alphaqe")
FULL = "LAttQE"
WHOLE = "the whole"
"""The full network, which ablations are compared with, whatever validation chose."""
SWEPT = {"aqe": "aqe", "aqewd-dir": "aqewd-dir", "alphaqe, alpha 3": "alphaqe"}


def ablations() -> list[Form]:
    """Return the ablations of the paper's table 2, and one without the simulated episodes.

    The paper's visual embedding corresponds to the cosines here: the network reads nothing else of a descriptor.
    """
    full = Form()
    return [
        replace(full, name="without attention", layers=0),
        replace(full, name="without positions", positions=False),
        replace(full, name="without cosines", cosines=False),
        replace(full, name="without the auxiliary loss", recipe=replace(full.recipe, relevance=0.0)),
        replace(full, name="without simulated episodes", ranges=replace(full.ranges, simulated=0.0)),
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """Training data and test data of different classes."""

    name: str
    training: LabelledVectors
    test: LabelledVectors


def main(argv: list[str] | None = None) -> int:
    """Run. Returns what `written` does."""
    args = _parser().parse_args(argv)
    return written(lambda: _report(args), args.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--test", required=True, metavar="SPEC", help="photographs by class")
    parser.add_argument("--train", metavar="SPEC", help="photographs of other classes, for a second split")
    parser.add_argument("--backbone", choices=BACKBONES, default="efficientnet_lite0")
    parser.add_argument("--weights", type=Path, help="weights of the backbone (default: those that come with it)")
    parser.add_argument("--parts", type=Path, help="trained parts (default: those that come with it)")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument(
        "--queries", type=int, default=400, help="queries of each test fold, drawn with the seed (%(default)s)"
    )
    parser.add_argument("--ablations", action="store_true", help="also train the ablations, once each")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each fold (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of random draws and of the first training (%(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("var/train"), help="folder for intermediate results (%(default)s)"
    )
    add_report(parser, REPORT)
    return parser


def _report(args: argparse.Namespace) -> str:
    test = _space(args.test, args)
    splits = {"Halves of the test classes": list(_halves(test, args))}
    if args.train:
        fold = Fold(name="by data set", training=_space(args.train, args), test=test.sampled(args.queries, args.seed))
        splits["Other classes"] = [fold]
    parts = [_split(name, folds, args) for name, folds in splits.items()]
    return "\n".join([_head(args, test), *parts])


def _halves(space: LabelledVectors, args: argparse.Namespace) -> Iterator[Fold]:
    """Yield both ways to train on half of the classes and test on the other half, which alone is searched."""
    one, other = split([str(label) for label in space.labels], held_out=0.5, seed=args.seed)
    for number, (learned, judged) in enumerate(((one, other), (other, one))):
        test = space.rows(judged).sampled(args.queries, args.seed)
        yield Fold(name=f"half-{number}", training=space.rows(learned), test=test)


def _space(spec: str, args: argparse.Namespace) -> LabelledVectors:
    """Describe a data set, or read the vectors of an earlier run."""
    return describe_labelled(
        spec,
        args.backbone,
        weights=args.weights,
        parts=args.parts,
        folder=args.folder / "vectors",
        console=plain_console(sys.stderr, pipe_width=None),
    )


def _learned(form: Form, fold: Fold, part: int, seed: int, args: argparse.Namespace) -> Learned:
    of = args.parts.stem if args.parts else args.backbone
    name = f"lattqe-{of}-{fold.name}-{form.name}-{args.epochs}-{seed}-{part}".replace(" ", "-")
    space, folder = fold.training, args.folder / name
    kinds = [Kind(space.vectors, space.labels)]
    return learn(kinds, folder, form=form, part=part, epochs=args.epochs, seed=seed)


def _trained(fold: Fold, seed: int, args: argparse.Namespace) -> CrossValidated:
    return CrossValidated([_learned(Form(), fold, part, seed, args) for part in range(PARTS)])


def _split(name: str, folds: Sequence[Fold], args: argparse.Namespace) -> str:
    found, left_out, swept = [], [], []
    for fold in folds:
        plain_console(sys.stderr, pipe_width=None).print(f"{name}: {fold.name}")
        rivals = LabelledSearch(fold.test)
        learned = [_trained(fold, seed, args) for seed in _seeds(args)]
        trained = [LabelledSearch(fold.test, one.network) for one in learned]
        found.append([*_rivals(fold, rivals, args), *_ours(fold, learned, trained, args)])
        left_out.append(list(_others(fold, rivals, args)) if args.ablations else [])
        swept.append(_swept(rivals, trained))
    tables = f"## {name}\n\n{table(found, against=FULL)}\n{sweep_table(SWEEP, swept)}"
    if not args.ablations:
        return tables
    return f"{tables}\n### Ablations, one training each\n\n{table(left_out, against=WHOLE)}"


def _seeds(args: argparse.Namespace) -> range:
    return range(args.seed, args.seed + args.seeds)


def _rivals(fold: Fold, searched: LabelledSearch, args: argparse.Namespace) -> Iterator[ExpansionRow]:
    """Yield the untrained methods, with the numbers that are best on the training classes."""
    tuning = [LabelledSearch(fold.training.sampled(TUNED_BY, args.seed))]
    rivals = {name: tuned(tuning, name) for name in RIVALS}
    methods = {"none": NO_EXPANSION, **rivals}
    for name in AUGMENTED:
        both = tuned_database(tuning, rivals[name])
        methods[f"database {name}"] = replace(NO_EXPANSION, database=both.database)
        methods[f"database {name}, then {name}"] = both
    for name, method in methods.items():
        yield _of_one(name, method, searched)


def _ours(
    fold: Fold, learned: Sequence[CrossValidated], trained: Sequence[LabelledSearch], args: argparse.Namespace
) -> Iterator[ExpansionRow]:
    """Yield the trained methods, with the figures of each seed."""
    by_seed = [_methods(_tuning(fold.training, one, seed)) for seed, one in zip(_seeds(args), learned, strict=True)]
    for name in by_seed[0]:
        methods = [methods[name] for methods in by_seed]
        figures = [one.by(method) for one, method in zip(trained, methods, strict=True)]
        yield ExpansionRow(name=name, methods=methods, figures=figures, classes=fold.test.classes())


def _tuning(space: LabelledVectors, learned: CrossValidated, seed: int) -> Tuning:
    """Return what the numbers of a trained method are tuned on: as many queries as for untrained ones.

    Each query is expanded by the network that was not trained on its class; the others may have memorised it.
    """
    held = (classes(space.labels.tolist(), part=part, seed=seed)[1] for part in range(PARTS))
    asked = (replace(space, queries=rows).sampled(TUNED_BY // PARTS, seed) for rows in held)
    return [LabelledSearch(some, one.network) for some, one in zip(asked, learned.parts, strict=True)]


def _methods(tuning: Tuning) -> dict[str, Method]:
    """Return the methods of one network: with the paper's numbers of neighbours, and with tuned ones."""
    lattdba, lattqe = tuned_lattdba(tuning), tuned_lattqe(tuning)
    return {
        FULL: LATTQE_SEARCH,
        f"{FULL}, tuned": lattqe,
        "LAttDBA": lattdba,
        f"LAttDBA, then {FULL}": replace(LATTQE_SEARCH, database=lattdba.database),
        f"LAttDBA, then {FULL}, tuned": tuned_behind_lattdba(tuning, lattqe),
    }


def _others(fold: Fold, rivals: LabelledSearch, args: argparse.Namespace) -> Iterator[ExpansionRow]:
    """Yield the full network and the ablations, each trained once with the first seed."""
    yield _of_one("none", NO_EXPANSION, rivals)
    forms = {WHOLE: Form(), **{form.name: form for form in ablations()}}
    for name, form in forms.items():
        yield _of_one(name, LATTQE_SEARCH, LabelledSearch(fold.test, _learned(form, fold, 0, args.seed, args).network))


def _of_one(name: str, method: Method, searched: LabelledSearch) -> ExpansionRow:
    return ExpansionRow(name=name, methods=[method], figures=[searched.by(method)], classes=searched.space.classes())


def _swept(rivals: LabelledSearch, trained: Sequence[LabelledSearch]) -> dict[str, list[float]]:
    """Return the mAP by number of neighbours of the methods in the paper's figure 3, the mean over seeds."""
    maps = {label: [_map([rivals], name, k) for k in SWEEP] for label, name in SWEPT.items()}
    return {**maps, FULL: [_map(trained, LATTQE, k) for k in SWEEP], "none": [_map([rivals], NONE, 1)] * len(SWEEP)}


def _map(searched: Sequence[LabelledSearch], name: str, neighbours: int) -> float:
    return float(np.mean([100 * one.by(Method(name=name, neighbours=neighbours)).map for one in searched]))


def _head(args: argparse.Namespace, test: LabelledVectors) -> str:
    return f"""# Query and database expansion compared

{made_by(PROGRAM, development=args.development)}

- Data: {args.test}, {len(test.vectors):,} photographs of {test.labels.max() + 1} classes; {test.how}. Each query is
  searched for among the other photographs of its fold, {args.queries} queries per fold.
- Untrained methods: neighbours and alpha are those that are best on the training classes.
- LAttQE is the mean of three networks, each trained on two thirds of the training classes. Its 64 neighbours and the 48
  of LAttDBA are the paper's, except in rows that say *tuned*. Those numbers and the temperature of LAttDBA are chosen
  on the training classes; each query is expanded by the network that was not trained on its class.
- A database is augmented for each query as if the query were not in it.
- *Seeds*: trainings of LAttQE. A row is their mean; the column gives the lowest and the highest.

{INTERVALS}
"""


if __name__ == "__main__":
    sys.exit(main())
