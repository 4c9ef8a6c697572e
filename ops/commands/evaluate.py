"""`landseer evaluate`: measure search quality on a data set."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from landseer.client.commands.connection import PATIENCE, add_credentials, credentials_of, not_negative
from landseer.client.errors import UnusableInput
from landseer.ops.arguments import options_of, positive, seed
from landseer.ops.commands.ending import failed
from landseer.ops.evaluate.specs import METHOD_SPECS, METHODS, NEIGHBOURS, REGIONS, SERVED_METHODS, SPECS

_DATA = f"""\
data sets:
{SPECS}

methods:
{METHOD_SPECS}

default methods:
  {METHODS.replace(",adba+", f",{chr(10)}  adba+")}
  with --server: {SERVED_METHODS}

A picture never finds itself (leave-one-out). By default this evaluates the models in --repository, in this process;
descriptions are cached in --cache. Each --backbone is exported first. --server evaluates a running service: references
that it lacks are indexed first, with their paths as ids. `landseer augment` and `landseer serve --vectors` decide how
the database of a service is augmented. See docs/evaluate.md."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _DATA
    parser.add_argument("data", metavar="DATA", help="the data set, see below")
    parser.add_argument("--methods", metavar="LIST", help="methods to compare: METHOD,METHOD,... (default: see below)")
    parser.add_argument(
        "--queries", type=positive, metavar="N", help="number of queries, drawn with --seed (default: all)"
    )
    parser.add_argument(
        "--turn",
        type=int,
        choices=(90, 180, 270),
        default=0,
        metavar="DEGREES",
        help="turn the pixels of every query clockwise by 90, 180 or 270 degrees",
    )
    parser.add_argument(
        "--distractors", metavar="DIR|N", help="a folder of distractors, or a number of synthetic vectors"
    )
    parser.add_argument(
        "--sweep",
        nargs="?",
        const=NEIGHBOURS,
        metavar="K,K,...",
        help=f"also measure with these numbers of neighbours (default {NEIGHBOURS}); K,K,... is optional, so put DATA "
        "before --sweep",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of random draws and intervals (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures and the AP of every query")
    parser.add_argument("--report", type=Path, metavar="DIR", help="write report.html with plots")
    _add_local(parser.add_argument_group("methods that rank by local features"))
    _add_systems(parser.add_argument_group("what is evaluated"))
    add_credentials(parser)


def _add_local(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--codebook", type=Path, metavar="FILE", help="visual words, written by landseer codebook")
    group.add_argument("--codebook-from", metavar="DATA", help="learn visual words from this data set instead")
    group.add_argument(
        "--regions",
        type=positive,
        default=REGIONS,
        metavar="N",
        help="maximum number of regions per picture (default %(default)s)",
    )


def _add_systems(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--repository", type=Path, metavar="DIR", help="folder of exported models (default model_repository)"
    )
    group.add_argument(
        "--backbone",
        action=_Backbone,
        default=[],
        dest="backbones",
        metavar="NAME",
        help="export and evaluate this backbone instead, kept in var/evaluate/models; may be repeated",
    )
    for name, what in (("weights", "its weights"), ("parts", "its trained parts")):
        group.add_argument(
            f"--{name}",
            action=_OfBackbone,
            default=[],
            type=Path,
            dest=name,
            metavar="FILE",
            help=f"{what}; write it after --backbone",
        )
    group.add_argument(
        "--descriptor", action=_OfBackbone, metavar="NAME", help="its descriptor; write it after --backbone"
    )
    group.add_argument("--server", metavar="HOST:PORT", help="evaluate a running service instead")
    group.add_argument(
        "--patience",
        type=not_negative,
        default=PATIENCE,
        metavar="SECONDS",
        help="how long to wait for a service that is still loading (default %(default)g)",
    )
    group.add_argument(
        "--cache",
        type=Path,
        default=Path("var/evaluate/vectors.sqlite"),
        metavar="FILE",
        help="cache of descriptions (default %(default)s)",
    )


class _Backbone(argparse.Action):
    """Starts a backbone; the options that follow belong to it."""

    def __call__(self, parser: Any, namespace: Any, values: str | Sequence[Any] | None, option: Any = None) -> None:
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), {"backbone": values}])


class _OfBackbone(argparse.Action):
    """An option of the backbone before it."""

    def __call__(self, parser: Any, namespace: Any, values: str | Sequence[Any] | None, option: Any = None) -> None:
        if not namespace.backbones:
            raise argparse.ArgumentError(self, f"got {values} before any --backbone; write --backbone NAME before it")
        *before, last = namespace.backbones
        if self.dest in last:
            raise argparse.ArgumentError(self, f"got two for {last['backbone']}: {last[self.dest]} and {values}")
        namespace.backbones = [*before, {**last, self.dest: values}]


def run(args: argparse.Namespace) -> int:
    """Evaluate and print. Returns 0, or 1 with one line on stderr if that fails."""
    # Imported here because it loads graph compilers, which `landseer --help` should not wait for.
    from landseer.client.commands.output import console
    from landseer.ops.errors import OpsError
    from landseer.ops.evaluate import evaluating as evaluation
    from landseer.ops.evaluate.exported_models import ExportRequest

    backbones = [ExportRequest(**backbone) for backbone in args.backbones]
    try:
        options = options_of(evaluation.EvaluationOptions, args, backbones=backbones, credentials=credentials_of(args))
        evaluation.run(options, console(sys.stderr, pipe_width=None))
    except (OpsError, OSError, UnusableInput) as error:
        return failed("evaluate", str(error))
    return 0
