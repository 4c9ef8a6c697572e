"""`make results`: train every head with several seeds and compare them (docs/reports/results.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.evaluation import Evaluation, evaluate
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import trunk_sha256
from landseer.export.datasets.photograph import Photographs
from landseer.export.datasets.readers import read as read_photographs
from landseer.export.models.trunks import BACKBONES, Loaded
from landseer.export.parts import Parts, read_parts, write_parts
from landseer.export.training.command import precision_of
from landseer.export.training.localisation import LocalisationRecipe
from landseer.export.training.part_trainers import TRAINERS, Training, train_head
from landseer.export.training.trunk_views import TrunkViews, ViewSpec, trunk_runner, trunk_views, views_key
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.head_variants import Variant, cost, variants
from landseer.ops.evaluate.head_vectors import Vectors, describe_by_heads
from landseer.ops.evaluate.methods import NONE, Method, rankings
from landseer.ops.evaluate.readers import read as read_dataset
from landseer.ops.progress import bars
from landseer.ops.research.cells import INTERVALS
from landseer.ops.research.heads_report import HeadRow, HeadTable
from landseer.ops.research.writing import add_report, made_by, written

PROGRAM = "python -m landseer.ops.research.heads"
REPORT = Path("docs/reports/results.md")


@dataclass(frozen=True, kw_only=True)
class BackboneSource:
    """One --backbone on the command line."""

    backbone: str
    weights: Path | None
    views: int
    """Views of each photograph that heads learn from."""
    photographs: int | None
    """Number of photographs that heads learn from, drawn at random; None for all."""

    def learns_from(self, found: Photographs) -> Photographs:
        """Return the photographs that heads learn from, the same for every seed of a head."""
        if self.photographs is None or self.photographs >= len(found.photographs):
            return found
        draw = np.random.default_rng(0)
        rows = np.sort(draw.choice(len(found.photographs), self.photographs, replace=False))
        return replace(found, photographs=tuple(found.photographs[row] for row in rows))


def main(argv: list[str] | None = None) -> int:
    """Run. Returns what `written` does."""
    args = _parser().parse_args(argv)
    return written(lambda: _report(args), args.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--train", required=True, metavar="SPEC", help="photographs that heads learn from")
    parser.add_argument("--test", required=True, metavar="SPEC", help="data set to search, with other classes")
    parser.add_argument(
        "--backbone",
        action="append",
        type=_source,
        required=True,
        metavar="NAME[=WEIGHTS[:VIEWS[:PHOTOGRAPHS]]]",
        help="may be repeated; VIEWS of each photograph (4) and number of PHOTOGRAPHS (all) to learn from",
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each head (%(default)s)")
    parser.add_argument("--heads", nargs="+", choices=TRAINERS, default=list(TRAINERS), help="heads to train (all)")
    parser.add_argument(
        "--folder", type=Path, default=Path("var/train"), help="folder for intermediate results (%(default)s)"
    )
    add_report(parser, REPORT)
    return parser


def _source(text: str) -> BackboneSource:
    name, _, rest = text.partition("=")
    weights, views, photographs, *_ = [*rest.split(":"), "", ""]
    if name not in BACKBONES:
        raise argparse.ArgumentTypeError(f"got {name}; expected one of {', '.join(BACKBONES)}")
    try:
        count, most = int(views or 4), int(photographs) if photographs else None
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text}; expected NAME=WEIGHTS:VIEWS:PHOTOGRAPHS") from error
    return BackboneSource(backbone=name, weights=Path(weights) if weights else None, views=count, photographs=most)


def _table(source: BackboneSource, learned: Photographs, test: Dataset, args: argparse.Namespace) -> HeadTable:
    loaded = BACKBONES[source.backbone].load(source.weights, "auto")
    trunk = loaded.trunk
    chosen = list(variants(trunk.channels, _trained(source, loaded, learned, args)))
    profile = Profile(backbone=source.backbone, weights_sha256="", sizes=Sizes(channels=trunk.channels))
    with bars(plain_console(sys.stderr, pipe_width=None)) as bar:
        task = bar.add_task(f"describing {source.backbone}", total=len(test.references))
        vectors = describe_by_heads(
            test.references,
            chosen,
            run=trunk_runner(trunk, precision_of(source.backbone)),
            trunk=trunk_sha256(loaded),
            profile=profile,
            folder=args.folder / "vectors",
            progress=lambda: bar.advance(task),
        )
    figures = [_judged(one, test) for one in vectors]
    names = dict.fromkeys(variant.name for variant in chosen)
    rows = [
        HeadRow(
            name=name,
            figures=[found for variant, found in zip(chosen, figures, strict=True) if variant.name == name],
            cost=cost(_first(chosen, name), trunk, side=profile.long_side),
        )
        for name in names
    ]
    learned_from = f"heads learned from {len(learned.photographs):,} photographs, {source.views} views of each"
    return HeadTable(
        backbone=source.backbone, source=f"{loaded.source}; {learned_from}", rows=rows, classes=test.classes()
    )


def _first(chosen: Sequence[Variant], name: str) -> Variant:
    return next(variant for variant in chosen if variant.name == name)


def _judged(vectors: Vectors, test: Dataset) -> Evaluation:
    rows = {path: row for row, path in enumerate(test.references)}
    queries = vectors[[rows[query.shot.path] for query in test.queries]]
    ranked = list(rankings(Method(name=NONE), queries, vectors, test.own_rows(), lattqe=_no_lattqe))
    return evaluate(ranked, test.truths(), ks=(1, 10))


def _no_lattqe(query: Vectors, neighbours: Vectors) -> Vectors:
    raise OpsError("no query is expanded here")


def _trained(source: BackboneSource, loaded: Loaded, learned: Photographs, args: argparse.Namespace) -> list[Parts]:
    """Return the trained parts of every head and seed; trains those that do not exist."""
    proposals = args.folder / f"{source.backbone}-rpn" / "best.safetensors"
    made = [descriptor for descriptor in args.heads if descriptor != "rmac-rpn" or proposals.exists()]
    wanted = [(descriptor, seed) for descriptor in made for seed in range(args.seeds)]
    key = views_key(
        learned.photographs, trunk_sha256(loaded), ViewSpec(views=source.views), precision_of(source.backbone)
    )
    names = {(kind, seed): f"{source.backbone}-{kind}-{seed}-{key[:8]}" for kind, seed in wanted}
    files = {one: args.folder / "parts" / f"{name}.safetensors" for one, name in names.items()}
    views = None
    for (descriptor, seed), path in files.items():
        if path.exists():
            continue
        views = views or _views(source, loaded, learned, args)
        training = Training(
            loaded=loaded,
            backbone=source.backbone,
            views=views,
            recipe=LocalisationRecipe(seed=seed),
            folder=args.folder / names[descriptor, seed],
            proposals=proposals,
            card={"data": args.train},
        )
        plain_console(sys.stderr, pipe_width=None).print(f"training {source.backbone} {descriptor}, seed {seed}")
        write_parts(train_head(descriptor, training), path)
    return [read_parts(path) for path in files.values()]


def _views(source: BackboneSource, loaded: Loaded, learned: Photographs, args: argparse.Namespace) -> TrunkViews:
    with bars(plain_console(sys.stderr, pipe_width=None)) as bar:
        task = bar.add_task(f"views {source.backbone}", total=len(learned.photographs))
        return trunk_views(
            learned.photographs,
            loaded.trunk,
            fingerprint=trunk_sha256(loaded),
            spec=ViewSpec(views=source.views),
            folder=args.folder / "views",
            precision=precision_of(source.backbone),
            progress=lambda done: bar.advance(task, done),
        )


def _report(args: argparse.Namespace) -> str:
    learned, test = read_photographs(args.train), read_dataset(args.test)
    shared = {photograph.path for photograph in learned.photographs} & set(test.references)
    if shared:
        raise OpsError(f"{len(shared)} photographs are in both sets, such as {min(shared)}; test on others")
    tables = [_table(source, source.learns_from(learned), test, args) for source in args.backbone]
    classes, kinds = len({one.label for one in learned.photographs}), len({query.label for query in test.queries})
    head = f"""# Descriptors side by side

{made_by(PROGRAM, development=args.development)}

- Training data: {args.train}, {len(learned.photographs):,} photographs of {classes} classes, or the number that a table
  states.
- Test data: {args.test}, {len(test.queries):,} queries of {kinds} classes. No head was trained on these classes. Each
  photograph is searched for among all others.
- One scale, long side 640 px. The trunk keeps its ImageNet weights; only heads are trained, on feature maps of views of
  the training photographs that were computed once.
- A head that was trained with several seeds has their mean as its row; *seeds* gives the lowest and the highest.
- GFLOPs are for one picture of 640 x 640; a multiplication and an addition count as two.

{INTERVALS}

"""
    return head + "\n".join(table.text() for table in tables)


if __name__ == "__main__":
    sys.exit(main())
