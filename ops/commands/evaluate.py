"""`landseer evaluate`: how well pictures are found, on a data set named on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landseer.ops.arguments import positive, seed
from landseer.ops.evaluate.specs import METHOD_SPECS, METHODS, NEIGHBOURS, REGIONS, SERVED_METHODS, SPECS

HELP = "measure mAP on a data set, with and without query expansion"
_DATA = f"""\
data sets:
{SPECS}

methods:
{METHOD_SPECS}

  default: {METHODS.replace(",adba", f",{chr(10)}    adba")}
  of a --server: {SERVED_METHODS}

A picture never finds itself (leave-one-out). The pictures are described in process by the export in --repository, or by
one that is made for each --backbone; what was described before is kept in --cache. With --server a running service
indexes the references that it has not, under their paths, and is searched; how its database is augmented was decided
by `landseer augment` and `landseer serve --vectors`. See docs/evaluate.md."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _DATA
    parser.add_argument("data", metavar="DATA", help="the data set, see below")
    parser.add_argument("--methods", metavar="LIST", help="rows of the table, METHOD,METHOD,... (see below)")
    parser.add_argument("--queries", type=positive, metavar="N", help="so many of the queries, drawn with --seed (all)")
    parser.add_argument(
        "--distractors", metavar="DIR|N", help="pictures that nobody should find, or so many synthetic vectors"
    )
    parser.add_argument(
        "--sweep",
        nargs="?",
        const=NEIGHBOURS,
        metavar="K,K,...",
        help=f"also by number of neighbours ({NEIGHBOURS}); write DATA before it",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of draws and intervals (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures, with the AP of every query")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write report.html and its plots")
    _add_local(parser.add_argument_group("rows that rank by local features"))
    _add_systems(parser.add_argument_group("what is evaluated"))


def _add_local(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--codebook", type=Path, metavar="FILE", help="visual words, from landseer codebook")
    group.add_argument("--codebook-from", metavar="DATA", help="or learn them from these photographs")
    group.add_argument(
        "--regions", type=positive, default=REGIONS, metavar="N", help="regions of a picture at most (%(default)s)"
    )


def _add_systems(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--repository", type=Path, metavar="DIR", help="of exported models (model_repository)")
    group.add_argument(
        "--backbone",
        action=_Backbone,
        default=[],
        dest="backbones",
        metavar="NAME",
        help="export this one instead, kept in var/evaluate/models; may be given several times",
    )
    for name, what in (("weights", "its weights"), ("parts", "its trained parts")):
        group.add_argument(
            f"--{name}", action=_OfBackbone, default=[], type=Path, dest=name, metavar="FILE", help=f"{what}, after it"
        )
    group.add_argument("--descriptor", action=_OfBackbone, metavar="NAME", help="its descriptor, after it")
    group.add_argument("--server", metavar="HOST:PORT", help="evaluate a running service instead")
    group.add_argument("--cache", type=Path, default=Path("var/evaluate/vectors.sqlite"), metavar="FILE")


class _Backbone(argparse.Action):
    """Begins a backbone; what follows belongs to it."""

    def __call__(self, parser: Any, namespace: Any, values: str | Sequence[Any] | None, option: Any = None) -> None:
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), {"backbone": values}])


class _OfBackbone(argparse.Action):
    """Says something of the backbone before it."""

    def __call__(self, parser: Any, namespace: Any, values: str | Sequence[Any] | None, option: Any = None) -> None:
        if not namespace.backbones:
            raise argparse.ArgumentError(self, f"got {values} before any --backbone; write --backbone NAME before it")
        *before, last = namespace.backbones
        if self.dest in last:
            raise argparse.ArgumentError(self, f"got two for {last['backbone']}: {last[self.dest]} and {values}")
        namespace.backbones = [*before, {**last, self.dest: values}]


def run(args: argparse.Namespace) -> int:
    """Evaluate and print. 0; 1 with one line on stderr if it cannot be done."""
    # Compilers of graphs load with it; `landseer --help` should not wait for them.
    from landseer.client.commands.output import console
    from landseer.ops.errors import OpsError
    from landseer.ops.evaluate import evaluating as evaluation
    from landseer.ops.evaluate.exported_models import ExportRequest

    options = evaluation.EvaluationOptions(
        data=args.data,
        methods=args.methods,
        queries=args.queries,
        distractors=args.distractors,
        repository=args.repository,
        backbones=[ExportRequest(**backbone) for backbone in args.backbones],
        server=args.server,
        cache=args.cache,
        seed=args.seed,
        sweep=args.sweep,
        json=args.json,
        report=args.report,
        codebook=args.codebook,
        codebook_from=args.codebook_from,
        regions=args.regions,
    )
    try:
        evaluation.run(options, console(sys.stderr, pipe_width=None))
    except (OpsError, OSError) as error:
        print(f"landseer evaluate: {error}", file=sys.stderr)
        return 1
    return 0
