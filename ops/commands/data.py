"""`landseer data`: cleans a training set, and finds what it shares with an evaluation."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from landseer.export.datasets.specs import SPECS
from landseer.ops.arguments import positive

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
_CLEAN = f"""\
In each class all pairs of pictures are matched (SIFT, one affine model). Those that hang together stay, the largest
such group of the class, and the matched points tell where the thing is in each (Gordo et al. 2016, section 4).

data sets:
{SPECS}

--out lists path,class of what is kept, so that csv:FILE reads it; --boxes adds x0,y0,x1,y1 in fractions of the picture,
which csv:FILE reads, too.
Stop it at any time: what was matched is kept in --cache, and the same command goes on from there."""
_OVERLAP = f"""\
For each query the --top training pictures are ranked by descriptor and verified (SIFT, one affine model); classes of
those that show the query's thing are listed, one a line, for gld:CSV,IMAGES,without=FILE. Look at the sheet first:
things that share a logo match too.

data sets:
{SPECS}

Stop it at any time: what was done is kept in --cache and --vectors, and the same command goes on from there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the two tools and their options."""
    tools = parser.add_subparsers(dest="tool", required=True, metavar="TOOL")
    for name, what, more, add in (
        ("clean", "keep of each class what shows one thing", _CLEAN, _add_clean),
        ("overlap", "list the classes that an evaluation asks for", _OVERLAP, _add_overlap),
    ):
        raw = argparse.RawDescriptionHelpFormatter
        add(tools.add_parser(name, help=what, description=what, epilog=more, formatter_class=raw))


def run(args: argparse.Namespace) -> int:
    """Do it. 0; 1 with one line on stderr if it cannot be done; 130 and how to go on after Ctrl-C."""
    # OpenCV loads with it; `landseer --help` should not wait for it.
    from landseer.export.curation.errors import CurationError
    from landseer.export.datasets.errors import DatasetError
    from landseer.ops.errors import OpsError

    try:
        (_clean if args.tool == "clean" else _overlap)(args)
    except (OpsError, CurationError, DatasetError, OSError) as error:
        print(f"landseer data {args.tool}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        kept = f"what was done is kept in {args.cache}"
        print(f"landseer data {args.tool}: stopped; {kept}; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    return 0


def _add_clean(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="the data set, see below")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="CSV of what is kept")
    parser.add_argument("--boxes", type=Path, metavar="FILE", help="CSV of what is kept, with boxes")
    parser.add_argument("--summary", type=Path, metavar="FILE", help="CSV of the counts of each class")
    parser.add_argument("--classes", type=positive, metavar="N", help="only the first so many classes (all)")
    parser.add_argument(
        "--least", type=positive, default=3, metavar="N", help="pictures a class must keep (default %(default)s)"
    )
    _add_matching(parser)


def _add_overlap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("training", metavar="TRAINING", help="the data set to remove classes from, see below")
    parser.add_argument("queries", metavar="QUERIES", help="the data set whose pictures are asked for")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the classes to remove, one a line")
    parser.add_argument("--sheet", type=Path, required=True, metavar="FILE", help="the contact sheet, HTML")
    parser.add_argument("--evidence", type=Path, metavar="FILE", help="CSV of all verified pairs")
    parser.add_argument(
        "--top", type=positive, default=100, metavar="N", help="pictures verified for each query (default %(default)s)"
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="of the models"
    )
    parser.add_argument(
        "--vectors", type=Path, default=Path("var/evaluate/vectors.sqlite"), metavar="FILE", help="of descriptors"
    )
    _add_matching(parser)


def _add_matching(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--inliers", type=positive, default=12, metavar="N", help="points that must agree (default %(default)s)"
    )
    parser.add_argument(
        "--side", type=positive, default=640, metavar="PX", help="larger pictures are reduced (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of RANSAC (default %(default)s)")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--workers", type=positive, default=cores, metavar="N", help="threads (default %(default)s)")
    parser.add_argument(
        "--cache", type=Path, default=Path("var/data/matches.sqlite"), metavar="FILE", help="of matches"
    )


def _clean(args: argparse.Namespace) -> None:
    from landseer.client.commands.output import console
    from landseer.export.curation.settings import MatchSettings
    from landseer.ops.curate import clean

    _single_threaded()
    options = clean.CleanOptions(
        data=args.data,
        out=args.out,
        boxes=args.boxes,
        summary=args.summary,
        classes=args.classes,
        least=args.least,
        settings=MatchSettings(side=args.side, inliers=args.inliers, seed=args.seed),
        workers=args.workers,
        cache=args.cache,
    )
    clean.clean_data(options, console(sys.stderr, pipe_width=None))


def _overlap(args: argparse.Namespace) -> None:
    from landseer.client.commands.output import console
    from landseer.export.curation.settings import MatchSettings
    from landseer.ops.curate import overlap

    _single_threaded()
    options = overlap.OverlapOptions(
        training=args.training,
        queries=args.queries,
        out=args.out,
        sheet=args.sheet,
        evidence=args.evidence,
        top=args.top,
        settings=MatchSettings(side=args.side, inliers=args.inliers, seed=args.seed),
        workers=args.workers,
        cache=args.cache,
        repository=args.repository,
        vectors=args.vectors,
    )
    overlap.list_overlap(options, console(sys.stderr, pipe_width=None))


def _single_threaded() -> None:
    """Keep OpenCV to the thread it is called from: the pool has as many as there are cores."""
    import cv2

    cv2.setNumThreads(1)
