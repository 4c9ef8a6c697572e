"""`make results-boxes`: whether boxes help if things fill the picture, and if they are small in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from torchvision.ops import box_iou

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.evaluation import Evaluation, Ids, evaluate
from landseer.export.datasets.readers import read as read_photographs
from landseer.export.models.trunks import BACKBONES, DEFAULT_BACKBONE
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.figures import Estimate
from landseer.ops.evaluate.head_vectors import Vectors
from landseer.ops.evaluate.readers import read as read_dataset
from landseer.ops.research import small_things
from landseer.ops.research.box_finders import detector_spec, finder
from landseer.ops.research.cells import INTERVALS, QUERIES, estimate_cells, gain_cells, mean_cells
from landseer.ops.research.small_things import ATTENTION, TRUE, WHOLE, WINDOWS, BoxNetworks, Entry, SourceRegions, found
from landseer.ops.research.writing import add_report, made_by, written

PROGRAM = "python -m landseer.ops.research.boxes"
REPORT = Path("docs/reports/results-boxes.md")
OVERLAP = 0.5
"""IoU from which a box counts as having found the photograph."""
SAME = 0.9
"""IoU from which a box counts as the whole picture."""
MAIN = "best region"
"""The pooling that decides, chosen before measuring: the first one of Detect-to-Retrieve."""

Similarities = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class RegionVectors:
    """The vectors of all regions of N pictures; those of a picture are consecutive."""

    vectors: Vectors
    """[R, C]"""
    starts: NDArray[np.int64]
    """Row of the first region of each picture, [N]; every picture has at least one."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of regions of each picture, [N]."""
        return np.diff(self.starts, append=len(self.vectors))


def together(sources: Sequence[Sequence[SourceRegions]]) -> RegionVectors:
    """Join the regions of several sources in the same pictures."""
    pictures = [np.concatenate([one.vectors for one in picture]) for picture in zip(*sources, strict=True)]
    starts = np.cumsum([0, *map(len, pictures[:-1])])
    return RegionVectors(vectors=np.concatenate(pictures), starts=starts)


def best(queries: Vectors, regions: RegionVectors) -> Similarities:
    """Return the highest similarity [Q, N] of a picture's regions to the query [Q, C]."""
    return np.asarray(np.maximum.reduceat(queries @ regions.vectors.T, regions.starts, axis=1), np.float32)


def mean(queries: Vectors, regions: RegionVectors) -> Similarities:
    """Return the mean similarity [Q, N] of a picture's regions to the query [Q, C]."""
    return np.asarray(np.add.reduceat(queries @ regions.vectors.T, regions.starts, axis=1) / regions.counts, np.float32)


POOLINGS: Mapping[str, Callable[[Vectors, RegionVectors], Similarities]] = {
    "best region": best,
    "mean of regions": mean,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxRow:
    """One way to search one database."""

    source: str
    pooling: str
    figures: Evaluation
    classes: Ids
    """The class of each query, [Q]."""
    vectors: float
    """Vectors stored per picture, the mean."""

    def gain(self, base: BoxRow) -> Estimate:
        """Return the gain in mAP over another way, paired by query."""
        return Estimate.of(self.figures.aps - base.figures.aps, self.classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class DatabaseFigures:
    """The figures on one database."""

    name: str
    rows: Sequence[BoxRow]
    """The first has one vector per picture."""
    boxes: Sequence[str]
    """One line about the boxes of each source."""


def judged(
    name: str, described: Mapping[str, Sequence[SourceRegions]], queries: Vectors, test: Dataset
) -> DatabaseFigures:
    """Search a database in every way. queries: [Q, C], of `test.queries`; described: by source, for each reference."""
    rows = [_row(WHOLE, MAIN, together([described[WHOLE]]), queries, test)]
    for source in [source for source in described if source != WHOLE]:
        regions = together([described[WHOLE], described[source]])
        rows += [_row(source, pooling, regions, queries, test) for pooling in POOLINGS]
    whole = described[WHOLE]
    boxes = [_boxes(source, ones, whole) for source, ones in described.items() if source not in (WHOLE, TRUE)]
    return DatabaseFigures(name=name, rows=rows, boxes=boxes)


def _row(source: str, pooling: str, regions: RegionVectors, queries: Vectors, test: Dataset) -> BoxRow:
    orders = np.argsort(-POOLINGS[pooling](queries, regions), axis=1, kind="stable")
    ranked = [order[order != row] for order, row in zip(orders, test.own_rows(), strict=True)]
    figures = evaluate(ranked, test.truths(), ks=(1,))
    return BoxRow(
        source=source, pooling=pooling, figures=figures, classes=test.classes(), vectors=float(regions.counts.mean())
    )


def _boxes(source: str, ones: Sequence[SourceRegions], whole: Sequence[SourceRegions]) -> str:
    """Say how many boxes a source found, and where they are."""
    count = np.mean([len(one.places) for one in ones])
    all_of_it = [(overlaps(a.places[:1], b.places) >= SAME).any() for a, b in zip(ones, whole, strict=True)]
    whole_first = f"the first is the whole picture (IoU {SAME} or more) in {_share(all_of_it)}"
    line = f"{source}: {count:.2f} boxes per picture; {whole_first}"
    met = [overlaps(one.places, one.truth)[:, 0] >= OVERLAP for one in ones if len(one.truth)]
    if not met:
        return line
    first, any_of = _share([one[:1].any() for one in met]), _share([one.any() for one in met])
    return f"{line}; the photograph is found (IoU {OVERLAP} or more) by the first in {first}, by any in {any_of}"


def _share(ones: Sequence[np.bool_]) -> str:
    return f"{100 * np.mean(ones):.1f}%"


def overlaps(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the IoU of every pair of places. a: x, y, width, height [n, 4]; b: [m, 4] → [n, m]."""
    corners = [torch.from_numpy(np.concatenate([one[:, :2], one[:, :2] + one[:, 2:]], axis=1)) for one in (a, b)]
    return np.asarray(box_iou(*corners).numpy(), np.float32)


def table(database: DatabaseFigures) -> str:
    """Return the figures of a database as Markdown."""
    base = database.rows[0]
    lines = [
        f"## {database.name}",
        "",
        f"| stored | pooled by | mAP | {QUERIES} | against the whole picture alone | {QUERIES} | first right | "
        "vectors per picture |",
        "|---|---|---:|---|---|---|---:|---:|",
        *(_line(row, base) for row in database.rows),
        "",
        *(f"- {line}." for line in database.boxes),
    ]
    return "\n".join(lines) + "\n"


def _line(row: BoxRow, base: BoxRow) -> str:
    stored, pooled = (WHOLE, "-") if row is base else (f"{WHOLE} + {row.source}", row.pooling)
    found = mean_cells(row.figures.aps, row.classes)
    gained = gain_cells(row.figures.aps, base.figures.aps, row.classes)
    first = 100 * float(row.figures.mean_precisions[0])
    return f"| {' | '.join((stored, pooled, *found, *gained))} | {first:.1f}% | {row.vectors:.2f} |"


def reading(database: DatabaseFigures) -> str:
    """Say for which boxes, pooled by `MAIN`, the finding holds: where the interval over classes is above zero."""
    gains = {row.source: row.gain(database.rows[0]) for row in database.rows[1:] if row.pooling == MAIN}
    return "; ".join(
        f"with {source} it {_verdict(one)}, {estimate_cells(one, sign='+')[0]} mAP" for source, one in gains.items()
    )


def _verdict(gained: Estimate) -> str:
    if gained.over_classes is None:
        return "**cannot be judged**"
    low, high = gained.over_classes
    return "**holds**" if low > 0 else "**fails** and harms" if high < 0 else "**fails**: no significant difference"


def main(argv: list[str] | None = None) -> int:
    """Run. Returns what `written` does."""
    args = _parser().parse_args(argv)
    return written(lambda: _report(args), args.out)


def _report(args: argparse.Namespace) -> str:
    test = read_dataset(args.test)
    backgrounds = [one.path for one in read_photographs(args.backgrounds).photographs]
    shared = set(backgrounds) & set(test.references)
    if shared:
        raise OpsError(f"{len(shared)} photographs are in both sets, such as {min(shared)}; use other backgrounds")
    test = test.drawn(args.pictures, args.seed).sampled(args.queries, args.seed)
    if not test.queries:
        raise OpsError(f"none of the {len(test.references)} drawn pictures shows the same thing as another; draw more")
    loaded = BACKBONES[args.backbone].load(args.weights, "auto")
    detectors = {one.name: finder(one, loaded) for one in args.detector}
    networks = small_things.load_networks(args.backbone, loaded, args.parts, detectors)
    databases = _databases(test, backgrounds, networks, args)
    return "\n".join([_head(args, test, databases), *map(table, databases)])


def _databases(
    test: Dataset, backgrounds: Sequence[Path], networks: BoxNetworks, args: argparse.Namespace
) -> list[DatabaseFigures]:
    detected = [WHOLE, ATTENTION, WINDOWS, *networks.detectors]
    large = _described("as they are", small_things.as_they_are(test.references), detected, networks, args)
    entries = small_things.made_small(test.references, backgrounds, seed=args.seed, feather=args.feather)
    tiny = _described("small", entries, [*detected, TRUE], networks, args)
    rows = {path: row for row, path in enumerate(test.references)}
    queries = np.concatenate([large[WHOLE][rows[query.shot.path]].vectors for query in test.queries])
    return [
        judged("Photographs as they are", large, queries, test),
        judged("Photographs made small", tiny, queries, test),
    ]


def _described(
    what: str, entries: Sequence[Entry], sources: Sequence[str], networks: BoxNetworks, args: argparse.Namespace
) -> dict[str, list[SourceRegions]]:
    bar = track(entries, what, console=plain_console(sys.stderr, pipe_width=None))
    pictures = [found(entry, sources, networks, args.folder / "boxes") for entry in bar]
    return {source: list(ones) for source, ones in zip(sources, zip(*pictures, strict=True), strict=True)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument(
        "--test", required=True, metavar="SPEC", help="photographs by class; each is searched for among the others"
    )
    parser.add_argument("--backgrounds", required=True, metavar="SPEC", help="other photographs, as backgrounds")
    parser.add_argument("--parts", type=Path, help="a trained head (default: the one that ships with the backbone)")
    parser.add_argument(
        "--detector",
        type=detector_spec,
        action="append",
        default=[],
        metavar="NAME=KIND[:FILE]",
        help="a detector of `landseer train rpn|ssdlite|faster_rcnn`: its best.safetensors; once for each",
    )
    parser.add_argument(
        "--feather",
        type=float,
        default=0.0,
        metavar="PX",
        help="blur of the pasted edges of small things (%(default)g)",
    )
    parser.add_argument("--backbone", choices=BACKBONES, default=DEFAULT_BACKBONE)
    parser.add_argument("--weights", type=Path, help="weights of the backbone (default: those that come with it)")
    parser.add_argument("--pictures", type=int, help="pictures of the test set, drawn with the seed (all)")
    parser.add_argument("--queries", type=int, default=400, help="queries, drawn with the seed (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, default=Path("var/train"), help="folder for intermediate results (%(default)s)"
    )
    add_report(parser, REPORT)
    return parser


def _head(args: argparse.Namespace, test: Dataset, databases: Sequence[DatabaseFigures]) -> str:
    low, high = (round(100 * share) for share in small_things.SHARE)
    frame, most, least = small_things.FRAME, small_things.BEST, small_things.LEAST_SCORE
    window = f"{round(100 * small_things.WINDOW)}%"
    readings = "\n".join(f"- {one.name}: {reading(one)}." for one in databases)
    return f"""# Do boxes help?

{made_by(PROGRAM, development=args.development)}

Detect-to-Retrieve finds that it helps to describe the boxes of a picture as well as the whole, most of all where the
thing is small. Does that hold here? Against the whole picture alone, with similarities pooled by the {MAIN}, which was
chosen before measuring:

{readings}

- Data: {args.test}, {len(test.references):,} photographs. {len(test.queries):,} of them, as they are, are the
  queries; a query never finds itself.
- Model: {args.backbone} with {f"the head {args.parts.name}" if args.parts else "the head that ships"}, at one scale.
- *Made small*: each photograph is shrunk to {low} to {high}% of the shorter side of a background from
  {args.backgrounds}, which is {frame} pixels long, and pasted at a random place{_edges(args)}. The background
  shows things of its own.
- *Attention*: the boxes of the head's attention, the default detector. *Windows*: four, {window} of each side, at the
  corners of the picture: what as many boxes find without looking.{_detectors(args)}
- Boxes: at most {most} for each picture, with a score of {least} or more, each cropped and described again. The
  similarity of a picture is that of its best region, or the mean over its regions.
- *True box*: where the photograph was pasted, which is what a perfect detector would find.

{INTERVALS}
"""


def _edges(args: argparse.Namespace) -> str:
    if args.feather:
        return f", its edges blurred by {args.feather:g} pixels"
    return ", with sharp edges, which no photograph has"


def _detectors(args: argparse.Namespace) -> str:
    told = [f"*{one.name}*: {one.kind}, {one.weights or 'random weights'}" for one in args.detector]
    return "".join(f"\n- {line}." for line in told)


if __name__ == "__main__":
    sys.exit(main())
