"""`landseer data`: clean a training set, and find what it shares with an evaluation set."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from landseer.ensemble.cores import cores
from landseer.export.datasets.specs import SPECS
from landseer.ops.arguments import options_of, positive
from landseer.ops.commands.ending import INTERRUPTED, RESUMES, failed

_CLEAN = f"""\
Matches all pairs of pictures in each class (SIFT, one affine model) and keeps the largest connected group. The matched
points locate the thing in each picture (Gordo et al. 2016, section 4).

data sets:
{SPECS}

--out lists path,class of the kept pictures; --boxes adds x0,y0,x1,y1 as fractions of the picture. csv:FILE reads both.

You can interrupt it at any time: matches are kept in --cache; run the same command again to resume."""
_OVERLAP = f"""\
Ranks the training pictures for each query by descriptor and verifies the best --top (SIFT, one affine model). Lists the
classes of those that show the query's thing, one per line, for gld:CSV,IMAGES,without=FILE. Check the contact sheet
first: things that share a logo match too.

data sets:
{SPECS}

You can interrupt it at any time: finished work is kept in --cache and --vectors; run the same command again to
resume."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the two tools and their options."""
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    for name, what, more, add in (
        ("clean", "keep the pictures of each class that show one thing", _CLEAN, _add_clean),
        ("overlap", "list the training classes that an evaluation set shows too", _OVERLAP, _add_overlap),
    ):
        raw = argparse.RawDescriptionHelpFormatter
        add(tools.add_parser(name, help=what, description=what, epilog=more, formatter_class=raw))


def run(args: argparse.Namespace) -> int:
    """Run a tool. Returns 0; 1 with one line on stderr if it fails; 130 after Ctrl-C."""
    # Imported here because it loads OpenCV, and `landseer --help` must stay fast.
    from landseer.export.curation.errors import CurationError
    from landseer.export.datasets.errors import DatasetError
    from landseer.ops.errors import OpsError

    try:
        _run(args)
    except (OpsError, CurationError, DatasetError, OSError) as error:
        return failed(f"data {args.tool}", str(error))
    except KeyboardInterrupt:
        return failed(f"data {args.tool}", f"stopped; finished work is kept in {args.cache}; {RESUMES}", INTERRUPTED)
    return 0


def _add_clean(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="data set, see below")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV of the kept pictures")
    parser.add_argument("--boxes", type=Path, metavar="FILE", help="CSV of the kept pictures, with boxes")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="CSV with counts per class")
    parser.add_argument("--classes", type=positive, metavar="N", help="use only the first N classes (default: all)")
    parser.add_argument(
        "--least",
        type=positive,
        default=3,
        metavar="N",
        help="minimum number of pictures per class (default %(default)s)",
    )
    _add_matching(parser)


def _add_overlap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("training", metavar="TRAINING", help="data set to remove classes from, see below")
    parser.add_argument("queries", metavar="QUERIES", help="data set of the evaluation's queries")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="classes to remove, one per line")
    parser.add_argument("--sheet", type=Path, required=True, metavar="FILE", help="contact sheet, HTML")
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="CSV of all verified pairs")
    parser.add_argument(
        "--top", type=positive, default=100, metavar="N", help="pictures to verify per query (default %(default)s)"
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="model repository (default %(default)s)",
    )
    parser.add_argument(
        "--vectors",
        type=Path,
        default=Path("var/evaluate/vectors.sqlite"),
        metavar="FILE",
        help="cache of descriptors (default %(default)s)",
    )
    _add_matching(parser)


def _add_matching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inliers",
        type=positive,
        default=12,
        metavar="N",
        help="minimum number of matching points (default %(default)s)",
    )
    parser.add_argument(
        "--side",
        type=positive,
        default=640,
        metavar="PX",
        help="maximum side; larger pictures are reduced (default %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="random seed of RANSAC (default %(default)s)")
    parser.add_argument(
        "--workers", type=positive, default=cores(), metavar="N", help="number of threads (default %(default)s)"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("var/data/matches.sqlite"),
        metavar="FILE",
        help="cache of matches (default %(default)s)",
    )


def _run(args: argparse.Namespace) -> None:
    import cv2

    from landseer.client.commands.output import console
    from landseer.export.curation.settings import MatchSettings
    from landseer.ops.curate import clean, overlap

    # Keep OpenCV in the calling thread: our own pool already uses all cores.
    cv2.setNumThreads(1)
    told = console(sys.stderr, pipe_width=None)
    settings = MatchSettings(side=args.side, inliers=args.inliers, seed=args.seed)
    if args.tool == "clean":
        clean.clean_data(options_of(clean.CleanOptions, args, settings=settings), told)
    else:
        overlap.list_overlap(options_of(overlap.OverlapOptions, args, settings=settings), told)
