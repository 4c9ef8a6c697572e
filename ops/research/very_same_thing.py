"""`make very-same-thing`: measure on a real stack whether the defaults find the very same thing, and what it costs.

Writes docs/reports/very-same-thing.md after every step, so a failure or Ctrl-C costs only what was not measured yet.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from landseer.client.commands.output import console as plain_console
from landseer.client.readable import one_line
from landseer.ops.arguments import positive
from landseer.ops.arguments import seed as natural
from landseer.ops.bench.bench_command import run_as_script
from landseer.ops.errors import OpsError
from landseer.ops.research.very_same_data import FLAT, THINGS, libraries
from landseer.ops.research.very_same_run import Run
from landseer.ops.research.very_same_steps import FAILURES
from landseer.ops.research.writing import STOPPED, add_report, made_by
from landseer.ops.scratch import scratch_folder

PROGRAM = "python -m landseer.ops.research.very_same_thing"
REPORT = Path("docs/reports/very-same-thing.md")
GENERATED = "20000,100000,300000,1000000"
"""A million pictures take 8.3 GB of memory, and some minutes to generate."""


def main(argv: list[str] | None = None) -> int:
    """Measure and write the report. Returns 0; 1 if something could not be measured; 130 after Ctrl-C."""
    args = _parser().parse_args(argv)
    console = plain_console(sys.stderr, pipe_width=None)
    try:
        found = libraries(_specs(args), distractors=args.distractors, queries=args.queries, seed=args.seed)
        run = Run(args, found, made_by(PROGRAM, development=args.development), console)
        with scratch_folder("very-same") as folder:
            run.measure(folder)
    except FAILURES as error:
        print(f"very-same-thing: {one_line(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"very-same-thing: interrupted; {args.out} has what was measured", file=sys.stderr)
        return STOPPED
    console.print(f"wrote {args.out}", soft_wrap=True)
    return 1 if run.steps.missing else 0


def _specs(args: argparse.Namespace) -> list[tuple[str, str]]:
    specs = [*((FLAT, spec) for spec in args.flat), *((THINGS, spec) for spec in args.things)]
    if not specs:
        raise OpsError("there is no data; name some with --flat or --things, such as --flat pairs:PHOTOS,REFERENCES")
    return specs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    add = parser.add_argument
    add("--flat", action="append", default=[], metavar="DATA", help="photographs of flat things; may be repeated")
    add("--things", action="append", default=[], metavar="DATA", help="photographs by class; may be repeated")
    distractors = "pictures to search beside the references of every data set; may be repeated"
    add("--distractors", action="append", type=Path, default=[], metavar="DIR", help=distractors)
    models = "folder of exported models (%(default)s)"
    add("--repository", type=Path, default=Path("model_repository"), metavar="DIR", help=models)
    add("--queries", type=positive, metavar="N", help="queries of each data set, drawn with the seed (all)")
    sift = "of those, how many the slow baseline answers; 0 leaves it out (%(default)s)"
    add("--sift-queries", type=natural, default=20, metavar="N", help=sift)
    rounds = "rounds of indexing with keypoints against without; 0 leaves it out (%(default)s)"
    add("--rounds", type=natural, default=10, metavar="N", help=rounds)
    generated = "numbers of generated pictures to search by words, as far as memory goes; 0 leaves it out (%(default)s)"
    add("--generated", type=_sizes, default=GENERATED, metavar="N,N,...", help=generated)
    cache = "file that keeps the keypoints of `sift` (%(default)s)"
    add("--cache", type=Path, default=Path("var/evaluate/vectors.sqlite"), help=cache)
    add("--seed", type=natural, default=0, metavar="N", help="of draws and intervals (%(default)s)")
    add_report(parser, REPORT)
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    if text.strip() == "0":
        return ()
    try:
        return tuple(sorted({positive(one.strip()) for one in text.split(",")}))
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected numbers such as 100000,300000, or 0") from error


if __name__ == "__main__":
    run_as_script(main)
