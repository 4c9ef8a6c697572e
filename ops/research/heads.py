"""`make results`: train every head with several seeds and compare them (docs/reports/results.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from landseer.ensemble.evaluation import Evaluation
from landseer.ensemble.inference.contracts import Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.export.build import trunk_sha256
from landseer.export.datasets.readers import read as read_photographs
from landseer.export.models.backbone import LOCAL_SCALES
from landseer.export.models.trunks import BACKBONES
from landseer.export.training.command import precision_of
from landseer.export.training.part_trainers import TRAINERS
from landseer.export.training.trunk_views import maps_runner
from landseer.export.training.two_maps import TWO_MAP
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.attended_rmac import ATTENDED_RMAC
from landseer.ops.evaluate.head_variants import BASELINE, ONE_SCALE, Variant, as_served, cost
from landseer.ops.evaluate.head_vectors import MAPS, Vectors, describe_by_heads
from landseer.ops.progress import bars
from landseer.ops.research.cells import INTERVALS
from landseer.ops.research.head_kinds import Kind, kinds
from landseer.ops.research.head_parts import BackboneSource, HeadParts, console
from landseer.ops.research.head_times import ENGINE, Contender, Time, times
from landseer.ops.research.heads_report import HeadRow, HeadTable
from landseer.ops.research.writing import add_report, made_by, written

PROGRAM = "python -m landseer.ops.research.heads"
REPORT = Path("docs/reports/results.md")
HEADS = [*TRAINERS, ATTENDED_RMAC, TWO_MAP]
SIDE = 640
"""Long side of pictures, as served by default."""
SERVED = "served"
SCALES = {
    SERVED: "At the scales that a server pools: five for CiDeR's attention, the middle three for the others.",
    "one": "At one scale; a server pools three, or five for CiDeR's attention.",
}
"""Choices of --scales, and what the report says of them."""
GraphKey = tuple[str, str]


def main(argv: list[str] | None = None) -> int:
    """Run. Returns what `written` does."""
    args = _parser().parse_args(argv)
    return written(lambda: _report(args), args.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--train", required=True, metavar="SPEC", help="photographs that heads learn from")
    parser.add_argument(
        "--test",
        action="append",
        required=True,
        metavar="[NAME=]SPEC",
        help="data set to search, with other classes; may be repeated, one for each kind of pictures",
    )
    parser.add_argument(
        "--distractors",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="pictures that are searched beside those of the test NAME; may be repeated",
    )
    parser.add_argument(
        "--backbone",
        action="append",
        type=_source,
        required=True,
        metavar="NAME[=WEIGHTS[:VIEWS[:PHOTOGRAPHS]]]",
        help="may be repeated; VIEWS of each photograph (4) and number of PHOTOGRAPHS (all) to learn from",
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each head, 0 for none (%(default)s)")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS, help="heads to train (all)")
    parser.add_argument(
        "--scales", choices=tuple(SCALES), default=SERVED, help="describe pictures at the scales of (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=30, help="rounds of timing, 0 for no times (%(default)s)")
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """One backbone, its variants, and their figures."""

    parts: HeadParts
    chosen: Sequence[Variant]
    figures: Mapping[str, Sequence[Evaluation]]
    """By kind of pictures, then one of each of `chosen`."""

    def first(self, name: str) -> Variant:
        """Return the first variant of a name: seeds share it."""
        return next(variant for variant in self.chosen if variant.name == name)

    def key(self, variant: Variant) -> GraphKey:
        """Return what graphs that take the same time share: the backbone and the kind of head."""
        return self.parts.source.backbone, type(variant.head).__name__


def _judged(parts: HeadParts, tests: Sequence[Kind], args: argparse.Namespace) -> Judged:
    plain = list(parts.variants(args.heads, args.seeds))
    chosen = [as_served(variant) for variant in plain] if args.scales == SERVED else plain
    found = _described(parts, chosen, tests, args.folder / "vectors")
    figures = {kind.name: [kind.judged([of[path] for path in kind.pictures]) for of in found] for kind in tests}
    return Judged(parts=parts, chosen=chosen, figures=figures)


def _table(
    judged: Judged, tests: Sequence[Kind], timed: Mapping[GraphKey, Time], args: argparse.Namespace
) -> HeadTable:
    parts, source = judged.parts, judged.parts.source
    scales = LOCAL_SCALES if args.scales == SERVED else ONE_SCALE
    rows = [
        HeadRow(
            name=name,
            figures={
                kind: [one for variant, one in zip(judged.chosen, every, strict=True) if variant.name == name]
                for kind, every in judged.figures.items()
            },
            cost=cost(judged.first(name), parts.loaded.trunk, side=SIDE, scales=scales),
            time=timed.get(judged.key(judged.first(name))),
        )
        for name in dict.fromkeys(variant.name for variant in judged.chosen)
    ]
    learned_from = f"heads learned from {len(parts.learned.photographs):,} photographs, {source.views} views of each"
    return HeadTable(
        backbone=source.backbone,
        source=f"{parts.loaded.source}; {learned_from}" if args.seeds else parts.loaded.source,
        rows=rows,
        classes={kind.name: kind.classes for kind in tests},
    )


def _described(
    parts: HeadParts, chosen: Sequence[Variant], tests: Sequence[Kind], folder: Path
) -> list[dict[Path, Vectors]]:
    """Return the vector of every picture of all tests, by variant. Each test's are kept on disk for themselves."""
    found: list[dict[Path, Vectors]] = [{} for _ in chosen]
    loaded, backbone = parts.loaded, parts.source.backbone
    run = maps_runner(loaded.trunk, precision_of(backbone), MAPS)
    profile = Profile(backbone=backbone, weights_sha256="", sizes=Sizes(channels=loaded.trunk.channels), long_side=SIDE)
    with bars(console()) as bar:
        for kind in tests:
            fresh = [path for path in kind.pictures if path not in found[0]]
            task = bar.add_task(f"describing {kind.name} by {backbone}", total=len(fresh))
            vectors = describe_by_heads(
                fresh,
                chosen,
                run=run,
                trunk=trunk_sha256(loaded),
                profile=profile,
                folder=folder,
                progress=partial(bar.advance, task),
            )
            for known, more in zip(found, vectors, strict=True):
                known.update(zip(fresh, more, strict=True))
    return found


def _timed(all_judged: Sequence[Judged], rounds: int) -> dict[GraphKey, Time]:
    """Return the time of each backbone with each kind of head."""
    if not rounds:
        return {}
    graphs = {
        one.key(variant): Contender(
            trunk=one.parts.loaded.trunk, variant=variant, precision=precision_of(one.parts.source.backbone)
        )
        for one in all_judged
        for variant in one.chosen
    }
    console().print(f"timing {len(graphs)} graphs")
    return times(graphs, baseline=all_judged[0].key(all_judged[0].first(BASELINE)), rounds=rounds)


def _report(args: argparse.Namespace) -> str:
    learned, tests = read_photographs(args.train), kinds(args.test, args.distractors)
    shared = {photograph.path for photograph in learned.photographs} & {path for one in tests for path in one.pictures}
    if shared:
        raise OpsError(f"{len(shared)} photographs are in both sets, such as {min(shared)}; test on others")
    sources = [
        HeadParts(source=source, learned=source.learns_from(learned), data=args.train, folder=args.folder)
        for source in args.backbone
    ]
    judged = [_judged(parts, tests, args) for parts in sources]
    timed = _timed(judged, args.rounds)
    tables = [_table(one, tests, timed, args) for one in judged]
    classes = len({one.label for one in learned.photographs})
    head = f"""# Descriptors side by side

{made_by(PROGRAM, development=args.development)}

- Training data: {args.train}: {len(learned.photographs):,} photographs of {classes} classes, or as many of them as a
  table states.
{_told(tests)}
- No head was trained on the classes of the test data. A query never finds itself.
- {SCALES[args.scales]}
- Long side {SIDE} px. The trunk keeps its ImageNet weights; only heads are trained, on feature maps of views of the
  training photographs that were computed once.
- A head that was trained with several seeds has their mean as its row; *seeds* gives the lowest and the highest mAP.
- GFLOPs are for one picture of {SIDE} x {SIDE}; a multiplication and an addition count as two.
{_times_told(sources[0].source.backbone, args.rounds)}
{INTERVALS}

"""
    return head + "\n".join(table.text() for table in tables)


def _times_told(backbone: str, rounds: int) -> str:
    if not rounds:
        return ""
    return f"""\
- Milliseconds of processor time: {ENGINE}.
  Graphs take turns, so that other work on the machine slows all alike; medians of {rounds} rounds. The ratio is to GeM
  on {backbone}, round by round.
"""


def _told(tests: Sequence[Kind]) -> str:
    return "\n".join(f"- Test data, *{kind.name}*: {kind.data.name}: {kind.data.summary()}." for kind in tests)


if __name__ == "__main__":
    sys.exit(main())
