"""`make results-regional`: compare co-attention, ASMK*, R-ASMK* and spatial verification.

Writes docs/reports/results-regional.md. Chosen on the training data: the weight of co-attention beside the global
score, the distance below which local descriptors match, and the number of words. The rest is as in the papers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.verify.verification import VerificationSettings
from landseer.ensemble.verify.verifier import SETTINGS
from landseer.export.build import REDUCTION_SEED
from landseer.export.models.backbone import LOCAL_SCALES, SCALE_UNIT
from landseer.export.models.pooling import Projection
from landseer.export.models.trunks import BACKBONES
from landseer.export.parts import read_parts
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.arrays import FEATURES, NORMS, SCALES
from landseer.ops.evaluate.coattention import reduction_of
from landseer.ops.evaluate.codebooks import CodebookSource
from landseer.ops.evaluate.dataset import Dataset
from landseer.ops.evaluate.exported_models import ExportRequest, exported
from landseer.ops.evaluate.in_process import InProcessSystem
from landseer.ops.evaluate.methods import NO_EXPANSION, Method
from landseer.ops.evaluate.notation import parse_all
from landseer.ops.evaluate.readers import read
from landseer.ops.evaluate.regions import Boxes
from landseer.ops.evaluate.reranking import NAIVE
from landseer.ops.evaluate.words import ASMK, RASMK, WORDS
from landseer.ops.research.cells import INTERVALS
from landseer.ops.research.regional_report import table
from landseer.ops.research.regional_rows import FIRST, Judge, RegionalRow, attended
from landseer.ops.research.varied_coattention import Numbers
from landseer.ops.research.writing import add_report, made_by, written

PROGRAM = "python -m landseer.ops.research.regional"
REPORT = Path("docs/reports/results-regional.md")
WEIGHTS = (0.1, 0.25, 0.5, 0.75, 1.0)
MATCHING = tuple(
    VerificationSettings(distance=one, mutual=mutual) for one in (0.6, 0.75, 0.9) for mutual in (False, True)
)
CLUSTERS, STRONGEST, TEMPERATURES = (1, 5, 20), (100, 250), (1.0, 5.0, 20.0)
"""Tried besides the paper's 10, 500 and 10."""
ALL_SCALES = tuple(scale / SCALE_UNIT for scale in LOCAL_SCALES)
SCALED = {"scale 1": ALL_SCALES[3:4], "scales 0.71 to 1.41": ALL_SCALES[2:]}
"""Tried besides all five scales."""
THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
"""Lowest scores of boxes to try."""
TUNED_BY = 100
"""Number of queries of the training data that numbers are chosen on."""
SECTIONS = ("coattention", "reduction", "numbers", "words", "verification")
TUNED = ("coattention", "words", "verification")
"""Sections with numbers that are chosen on the training data."""
WHOLE, REDUCTION = "query vectors", "reduction"
EXPORTED, UNTRAINED = "as exported", "random rows"
Say = Callable[[str], None]
T = TypeVar("T")

COMPARED = {
    "asmk-max": "regional search by ASMK*, the best region",
    "asmk-mean": "regional search by ASMK*, their mean",
    "asmk-fp32": "ASMK in full",
    "rasmk-fp32": "R-ASMK in full",
    "rasmk-naive": "naive R-ASMK in full",
    "vlad": "VLAD",
    "rvlad": "R-VLAD",
}
"""Methods of `landseer evaluate`, and their names here."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The numbers that are best on the training data."""

    weight: float
    matching: VerificationSettings
    words: int
    by: str
    """The data that chose, for people."""


def main(argv: list[str] | None = None) -> int:
    """Run. Returns what `written` does."""
    args = _parser().parse_args(argv)
    return written(lambda: _report(args, plain_console(sys.stderr, pipe_width=None)), args.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument(
        "--test", required=True, action="append", metavar="SPEC", help="photographs by class, to test on; once for each"
    )
    parser.add_argument(
        "--train",
        metavar="SPEC",
        help=f"photographs of other classes, to choose numbers and learn words; needed for {', '.join(TUNED)}",
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="folder of exported models (%(default)s)"
    )
    parser.add_argument("--backbone", choices=BACKBONES, help="export this one instead")
    parser.add_argument("--weights", type=Path, help="weights of the backbone (default: those that come with it)")
    parser.add_argument("--parts", type=Path, help="trained parts (default: those that come with it)")
    parser.add_argument(
        "--reduction",
        action="append",
        default=[],
        metavar="[NAME=]PARTS",
        help="also try the co-attention reduction of these trained parts, such as of `landseer train coattention`",
    )
    parser.add_argument("--queries", type=int, help="queries of the test data, drawn with the seed (all)")
    parser.add_argument("--pictures", type=int, help="pictures of the test data, drawn with the seed (all)")
    parser.add_argument(
        "--learn", type=int, default=500, help="pictures of the training data, drawn with the seed (%(default)s)"
    )
    parser.add_argument(
        "--words", type=int, nargs="+", default=[256, 1024, 2048], help="numbers of words to choose from"
    )
    parser.add_argument("--regions", type=int, default=2, help="most regions per picture, 0 for none (%(default)s)")
    parser.add_argument(
        "--sections",
        nargs="+",
        choices=SECTIONS,
        default=SECTIONS,
        help="sections of the report (all)",
    )
    parser.add_argument("--cache", type=Path, default=Path("var/evaluate/vectors.sqlite"), help="cache of descriptions")
    parser.add_argument("--seed", type=int, default=0)
    add_report(parser, REPORT)
    return parser


def _report(args: argparse.Namespace, console: Console) -> str:
    if not args.train and (asked := [section for section in args.sections if section in TUNED]):
        raise OpsError(f"the sections {', '.join(asked)} need --train SPEC; or choose others with --sections")
    system = _system(args, console)
    others = dict(_other_reduction(text, system.profile) for text in args.reduction)
    train = read(args.train).drawn(args.learn, args.seed) if args.train else None
    # Preparing test data learns the words from the training data; both use them.
    judges = [_judge(system, _prepared_test(system, spec, args, console)) for spec in args.test]
    chosen = _chosen(system, train, args, console) if train else None
    lines = [_head(args, system, judges, chosen)]
    for spec, judge in zip(args.test, judges, strict=True):
        of = f": {spec}" if len(args.test) > 1 else ""
        lines += _sections(judge, chosen, others, args, console.print, of=of)
    return "\n".join(lines)


def _prepared_test(system: InProcessSystem, spec: str, args: argparse.Namespace, console: Console) -> Dataset:
    test = read(spec).drawn(args.pictures, args.seed).sampled(args.queries, args.seed)
    if args.train:
        return _prepared(system, test, [*(f"{ASMK}:{count}" for count in args.words), RASMK, NAIVE], console)
    more = [FEATURES, NORMS, *([SCALES] if "numbers" in args.sections else [])]
    return test.without(system.prepare(test, parse_all("coattention", positions=1), console, more=more))


def _chosen(system: InProcessSystem, train: Dataset, args: argparse.Namespace, console: Console) -> Chosen:
    """Choose the numbers on some queries of the training data."""
    tuned_on = _prepared(system, train, [], console).sampled(TUNED_BY, args.seed)
    return _choose(_judge(system, tuned_on), args.words, console.print, len(train.references))


def _system(args: argparse.Namespace, console: Console) -> InProcessSystem:
    repository = args.repository
    if args.backbone:
        repository = exported(ExportRequest(backbone=args.backbone, weights=args.weights, parts=args.parts), console)
    words = CodebookSource(learned_from=args.train, pictures=args.learn, seed=args.seed) if args.train else None
    return InProcessSystem(repository, cache=args.cache, seed=args.seed, words=words, boxes=Boxes(most=args.regions))


def _other_reduction(text: str, profile: Profile) -> tuple[str, Projection]:
    """Return a name and the reduction in a file of parts, from [NAME=]PARTS. WeightsError, or OpsError if none fits."""
    name, equals, rest = text.partition("=")
    file = Path(rest if equals else text)
    held = read_parts(file).section(REDUCTION)
    if not held:
        raise OpsError(f"{file} has no reduction for co-attention; learn one with --section reduction of export/all.py")
    expected = (profile.sizes.reduced, profile.sizes.channels)
    if (got := tuple(held["matrix"].shape)) != expected:
        raise OpsError(
            f"{file} has a reduction from {got[1]} to {got[0]} values; expected {expected[1]} to {expected[0]}"
        )
    return name if equals else file.name, Projection(held["mean"], held["matrix"])


def _judge(system: InProcessSystem, dataset: Dataset) -> Judge:
    return Judge(system, dataset, reduction_of(system.repository, system.profile))


def _prepared(system: InProcessSystem, dataset: Dataset, rows: Sequence[str], console: Console) -> Dataset:
    """Compute the arrays that these methods, co-attention and spatial verification need."""
    methods = parse_all(",".join(["coattention", "spatial", *rows]), positions=1)
    return dataset.without(system.prepare(dataset, methods, console, more=[NORMS, SCALES] if NAIVE in rows else []))


def _choose(judge: Judge, words: Sequence[int], say: Say, pictures: int) -> Chosen:
    """Return the numbers that are best on the training data: by mAP, for matching by the first hit."""
    none = judge.by(FIRST, NO_EXPANSION).figures
    say(f"none: mAP {100 * none.map:.1f}, first right {100 * none.mean_precisions[0]:.1f}%")
    weights = {one: judge.by("", attended(one)).figures.map for one in WEIGHTS}
    books = {count: judge.by("", Method(name=ASMK, words=count)).figures.map for count in words}
    rows = {one: judge.verified("", one) for one in MATCHING}
    firsts = {one: float(row.figures.mean_precisions[0]) for one, row in rows.items()}
    matching = {_told(one): value for one, value in firsts.items()}
    for what, found in (("weight", weights), ("words", books), ("matches", matching)):
        say(f"{what} on the training data: " + ", ".join(f"{one} {100 * value:.1f}" for one, value in found.items()))
    by = f"{pictures:,} photographs. The words are learned from them, and\n  {len(judge.dataset.queries):,} queries"
    return Chosen(weight=_best(weights), words=_best(books), matching=_best(firsts), by=by)


def _best(found: Mapping[T, float]) -> T:
    return max(found, key=lambda one: found[one])


def _told(settings: VerificationSettings) -> str:
    return f"within {settings.distance:g}{', mutual' if settings.mutual else ''}"


def _sections(
    judge: Judge,
    chosen: Chosen | None,
    others: Mapping[str, Projection],
    args: argparse.Namespace,
    say: Say,
    *,
    of: str = "",
) -> Iterator[str]:
    """Yield the tables. of: what their titles end with."""
    none = judge.by(FIRST, NO_EXPANSION)
    sections: list[tuple[str, str, Iterator[RegionalRow]]] = [
        ("reduction", "Co-attention by its reduction", _reduced(judge, others)),
        ("numbers", "Co-attention with other numbers", _varied(judge)),
    ]
    if chosen:
        sections = [
            ("coattention", "Co-attention over the global short list", _attended(judge, chosen)),
            *sections,
            ("words", "Words: ASMK* and R-ASMK* as the first search", _words(judge, args)),
            ("verification", "Spatial verification of the global short list", _verified(judge, chosen)),
        ]
    for section, title, rows in sections:
        if section in args.sections:
            say(f"{title}{of}")
            yield f"## {title}{of}\n\n{table(list(rows), judge.dataset.classes(), [none])}"
    if "words" not in args.sections:
        return
    shares = ", ".join(f"{100 * judge.sharing(count):.1f}% with {count:,} words" for count in args.words)
    yield f"Photographs that share a word with the query, the mean over queries: {shares}.\n"


def _attended(judge: Judge, chosen: Chosen) -> Iterator[RegionalRow]:
    yield judge.by(FIRST, NO_EXPANSION)
    yield judge.by("co-attention alone", attended())
    yield judge.by(f"co-attention, weight {chosen.weight:g}", attended(chosen.weight))
    yield judge.by("co-attention, weight 0.5", attended(0.5))
    yield judge.by("naive co-attention", attended(name=NAIVE))
    whole = judge.by_query_vectors()
    yield judge.by(WHOLE, NO_EXPANSION, space=whole)
    yield judge.by(f"{WHOLE}, then co-attention", attended(), space=whole, against=WHOLE)
    yield judge.by(f"{WHOLE}, then naive co-attention", attended(name=NAIVE), space=whole, against=WHOLE)
    filtered = replace(attended(chosen.weight), name=WORDS, words=chosen.words)
    yield judge.by(f"word filter, then co-attention, weight {chosen.weight:g}", filtered)


def _varied(judge: Judge) -> Iterator[RegionalRow]:
    paper = Numbers()
    forms = {
        "K 10, N 500, T 10": paper,
        **{f"K {count}": replace(paper, clusters=count) for count in CLUSTERS},
        **{f"N {count}": replace(paper, features=count) for count in STRONGEST},
        **{f"T {one:g}": replace(paper, temperature=one) for one in TEMPERATURES},
        **{name: replace(paper, scales=scales) for name, scales in SCALED.items()},
    }
    for name, numbers in forms.items():
        space = judge.varied(numbers)
        taken = f" ({judge.features_each(space):.0f} of the features)" if numbers.scales else ""
        yield judge.by(f"{name}{taken}, alone", attended(), space=space)
        yield judge.by(f"{name}{taken}, weight 0.5", attended(0.5), space=space)


def _reduced(judge: Judge, others: Mapping[str, Projection]) -> Iterator[RegionalRow]:
    yield judge.by(FIRST, NO_EXPANSION)
    own = judge.exported
    random = Projection.untrained(own.matrix.shape[1], own.matrix.shape[0], seed=REDUCTION_SEED)
    alone, half, listed = "co-attention alone", "co-attention, weight 0.5", f"{WHOLE}, then co-attention"
    for name, reduction in {EXPORTED: own, UNTRAINED: random, **others}.items():
        space, base = judge.reduced(reduction), name == EXPORTED
        for row, method in ((half, attended(0.5)), (alone, attended())):
            against = FIRST if base else f"{row}: {EXPORTED}"
            yield judge.by(f"{row}: {name}", method, space=space, against=against)
        whole = judge.by_query_vectors(space)
        yield judge.by(f"{WHOLE}: {name}", NO_EXPANSION, space=whole)
        yield judge.by(f"{listed}: {name}", attended(), space=whole, against=f"{WHOLE}: {name}")


def _words(judge: Judge, args: argparse.Namespace) -> Iterator[RegionalRow]:
    for count in args.words:
        of, boxes = f"{count:,} words", Boxes(most=args.regions)
        plain, united = f"ASMK*, {of}", f"ASMK* of all regions as one, {of}"
        regional = Method(name=RASMK, words=count)
        yield judge.by(plain, Method(name=ASMK, words=count))
        yield judge.regional(f"R-ASMK* without regions, {of}", regional, Boxes(most=0), against=plain)
        if not args.regions:
            continue
        yield replace(judge.united(united, count, boxes), against=plain)
        # Compared with ASMK* of all regions as one set, which has an index of the same size.
        yield judge.regional(f"R-ASMK*, {of}", regional, boxes, against=united)
        for least in THRESHOLDS if count == max(args.words) else ():
            some = replace(boxes, least=least)
            name = f"R-ASMK*, scores from {least:g} ({judge.regions_each(some):.1f} regions), {of}"
            yield judge.regional(name, regional, some, against=plain)
        if count == max(args.words):
            yield from _compared(judge, count, boxes, against=plain)


def _compared(judge: Judge, count: int, boxes: Boxes, *, against: str) -> Iterator[RegionalRow]:
    """Yield what D2R compares R-ASMK* with: one entry per region, and full-precision residuals."""
    for name, what in COMPARED.items():
        yield judge.regional(f"{what}, {count:,} words", Method(name=name, words=count), boxes, against=against)


def _verified(judge: Judge, chosen: Chosen) -> Iterator[RegionalRow]:
    yield judge.verified("settings of a search", SETTINGS)
    for settings in dict.fromkeys((VerificationSettings(), chosen.matching)):
        yield judge.verified(f"matches {_told(settings)}", settings)
    yield judge.verified(f"matches {_told(chosen.matching)}, MAGSAC++", replace(chosen.matching, method="magsac"))


def _regions(most: int, profile: Profile) -> str:
    return f"at most {most} crops per photograph, by the detector {profile.detector}" if most else "none"


def _head(args: argparse.Namespace, system: InProcessSystem, judges: Sequence[Judge], chosen: Chosen | None) -> str:
    tested = "\n".join(_tested(spec, judge.dataset, system) for spec, judge in zip(args.test, judges, strict=True))
    return f"""# Local features compared

{made_by(PROGRAM, development=args.development)}

{tested}
{_trained(args, chosen)}- Short list: 100. Regions: {_regions(args.regions, system.profile)}.
- *First right*: how often the first hit is right. *Bytes*: index size per photograph. *ms*: the median time of a
  search, without describing the query but with assigning words to its local descriptors.

{INTERVALS}
"""


def _tested(spec: str, test: Dataset, system: InProcessSystem) -> str:
    kinds = len({query.label for query in test.queries})
    return f"""- Test data: {spec}, {len(test.queries):,} queries of {kinds} classes, each searched for among
  {len(test.references):,} photographs; {system.about.title}."""


def _trained(args: argparse.Namespace, chosen: Chosen | None) -> str:
    if chosen is None:
        return ""
    return f"""- Training data: {args.train}, {chosen.by} choose the numbers: weight of co-attention beside the
  global score {chosen.weight:g}, {chosen.words:,} words, matches {_told(chosen.matching)}.
"""


if __name__ == "__main__":
    sys.exit(main())
