"""Print what expansion by verified hits gains over the default search without it, by their number.

python -m landseer.ops.research.verified_hits --test covers=csv:covers.csv --distractors covers=photos/ --queries 150
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from landseer.ensemble.evaluation import Evaluation, Ids, evaluate
from landseer.ops.bench.report_parts import table
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.in_process import InProcessSystem
from landseer.ops.evaluate.methods import DEFAULT, Method, by_cosine
from landseer.ops.evaluate.space import FEW
from landseer.ops.evaluate.specs import SPECS
from landseer.ops.evaluate.verified_hits import Verifying
from landseer.ops.progress import bars, warn
from landseer.ops.research.cells import gain_cells
from landseer.ops.research.head_kinds import FIRST, Kind, kinds

COUNTS = (0, 1, 2, 4, 8, 16, 32, 64)
"""Numbers of verified hits; 0 is the search without expansion."""
SEED = 0
"""Of the draw of queries."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 0, or 1 with one line on stderr."""
    args = _parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        system = InProcessSystem(args.repository, cache=args.cache, seed=SEED)
        for kind in kinds(args.test, args.distractors):
            print(_section(system, kind, args.queries, console), flush=True)
    except OpsError as error:
        print(f"verified_hits: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", action="append", required=True, metavar="[NAME=]SPEC", help=f"a data set:\n{SPECS}")
    parser.add_argument("--distractors", action="append", default=[], metavar="NAME=FOLDER", help="searched with it")
    parser.add_argument("--queries", type=int, metavar="N", help="of each data set, drawn with a seed (all)")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="models (%(default)s)")
    parser.add_argument("--cache", type=Path, default=Path("var/evaluate.sqlite"), help="descriptions (%(default)s)")
    return parser


def _section(system: InProcessSystem, kind: Kind, queries: int | None, console: Console) -> str:
    """Return the table of a data set."""
    data = kind.data.sampled(queries, SEED)
    unreadable = system.prepare(data, [Method(name=DEFAULT)], console)
    warn((f"{path}: {why}" for path, why in unreadable.items()), console)
    one = replace(kind, data=data.without(unreadable))
    judged = _judged(system, one, console)
    head = ("verified hits", "mAP", "gain", "first hit right", "gain")
    return f"{kind.name}: {one.data.summary()}\n\n{table(head, _rows(judged, one))}\n"


def _judged(system: InProcessSystem, kind: Kind, console: Console) -> dict[int, Evaluation]:
    """Return the figures for each number of verified hits."""
    space = system.space(kind.data)
    orders: dict[int, list[Ids]] = {count: [] for count in COUNTS}
    verifying = Verifying(space, by_cosine)
    with bars(console) as progress:
        task = progress.add_task(f"searching {kind.name}", total=len(space.queries))
        for block in space.blocks(FEW):
            for count, rankings in verifying.rankings(block, COUNTS).items():
                orders[count] += [one.keys for one in rankings]
            progress.advance(task, len(block.queries))
    truths = kind.data.truths()
    return {count: evaluate(some, truths, ks=(FIRST,)) for count, some in orders.items()}


def _rows(judged: dict[int, Evaluation], kind: Kind) -> Iterator[Sequence[str]]:
    base = judged[0]
    for count, one in judged.items():
        gained, _ = gain_cells(one.aps, base.aps, kind.classes)
        firsts, before = one.precisions[:, 0], base.precisions[:, 0]
        first, _ = gain_cells(firsts, before if count else firsts, kind.classes)
        yield str(count or "none"), f"{100 * one.map:.1f}", gained, f"{100 * one.mean_precisions[0]:.1f}", first


if __name__ == "__main__":
    sys.exit(main())
