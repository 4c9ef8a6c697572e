"""`landseer evaluate`: how well pictures are found, on a data set named on the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from landseer.ops.arguments import positive
from landseer.ops.evaluate.specs import SPECS

HELP = "measure mAP on a data set, with and without query expansion"
METHODS = "none,aqe,aqewd,aqewd-dir,alphaqe,alphaqe:10,dqe"
_DATA = f"""\
data sets:
{SPECS}

A picture never finds itself (leave-one-out). The pictures are described in process by the exported backbone; what was
described before is kept in --cache."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _DATA
    parser.add_argument("data", metavar="DATA", help="the data set, see below")
    parser.add_argument(
        "--methods", default=METHODS, metavar="LIST", help="NAME[:NEIGHBOURS[:ALPHA]],... (default %(default)s)"
    )
    parser.add_argument("--queries", type=positive, metavar="N", help="so many of the queries, drawn with --seed (all)")
    parser.add_argument("--distractors", metavar="DIR", help="pictures to add that nobody should find")
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="of the models"
    )
    parser.add_argument("--cache", type=Path, default=Path("var/evaluate/vectors.sqlite"), metavar="FILE")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of draws and intervals (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, with the AP of every query")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print. 0; 1 with one line on stderr if it cannot be done."""
    # Compilers of graphs load with it; `landseer --help` should not wait for them.
    from rich.console import Console

    from landseer.ops.evaluate import run as evaluation
    from landseer.ops.processes import OpsError

    options = evaluation.Options(
        data=args.data,
        methods=args.methods,
        queries=args.queries,
        distractors=args.distractors,
        repository=args.repository,
        cache=args.cache,
        seed=args.seed,
        json=args.json,
    )
    try:
        evaluation.run(options, Console(stderr=True))
    except (OpsError, OSError) as error:
        print(f"landseer evaluate: {error}", file=sys.stderr)
        return 1
    return 0
