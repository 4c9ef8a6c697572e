"""`landseer index`: add pictures in files and folders to the index."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from landseer.client.client import SearchClient
from landseer.client.commands import connection
from landseer.client.commands.connection import positive
from landseer.client.commands.output import print_json, say, warn
from landseer.client.commands.progress import Display, display
from landseer.client.errors import LandseerClientError
from landseer.client.picture_files import FoundPictures, find_pictures
from landseer.client.readable import duration, one_line, plural
from landseer.client.uploads import Upload, UploadPlan, UploadTally

_JSON = """\
  {"found": 3, "indexed": 2, "replaced": 0, "skipped": 0, "not_sent": 0, "seconds": 1.4,
   "failed": [{"id": "photos/a.jpg", "path": "/home/me/photos/a.jpg", "code": "INVALID_ARGUMENT", "message": "..."}],
   "error": null}
  `error` is the reason if the run stopped early; `not_sent` counts the pictures it did not reach."""
_RESUME = "run it again with --skip-indexed to resume"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `landseer index`."""
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a picture, or a folder to search recursively"
    )
    parser.add_argument(
        "--prefix", default="", metavar="TEXT", help="prefix of every id; the rest of an id is the path as given here"
    )
    parser.add_argument(
        "--metadata",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="stored with every picture and returned with its hits, in addition to `path`; repeatable",
    )
    parser.add_argument("--skip-indexed", action="store_true", help="skip pictures whose id is already indexed")
    parser.add_argument(
        "--concurrency", type=positive, default=2, metavar="N", help="number of parallel uploads (default %(default)s)"
    )
    connection.add_arguments(parser, json_help=_JSON, patience=120.0)


def run(args: argparse.Namespace) -> int:
    """Index the pictures and print a summary; return 1 if any failed or was not sent."""
    found = find_pictures(args.paths, prefix=args.prefix)
    tally, start = UploadTally(total=len(found.pictures)), time.monotonic()
    error: LandseerClientError | None = None
    try:
        with display("indexing", tally.total) as shown:
            trouble = connection.waiting(args.patience, shown.note)
            upload = partial(_upload, args=args, found=found, tally=tally, shown=shown, trouble=trouble)
            connection.call(args, upload, on_wait=trouble)
    except LandseerClientError as stopped:
        if not tally.done:
            raise
        error = stopped
    except KeyboardInterrupt:
        warn(f"interrupted after {tally.done:,} of {tally.total:,} pictures; {_RESUME}")
        raise
    _report(args, found, tally, error, time.monotonic() - start)
    return 1 if error or tally.failures else 0


async def _upload(
    client: SearchClient,
    *,
    args: argparse.Namespace,
    found: FoundPictures,
    tally: UploadTally,
    shown: Display,
    trouble: Callable[[str], None],
) -> None:
    plan = UploadPlan(
        metadata=dict(args.metadata),
        skip_indexed=args.skip_indexed,
        concurrency=args.concurrency,
        patience=args.patience,
    )
    upload = Upload(
        client,
        plan,
        tally,
        on_progress=lambda: shown.update(tally.done),
        on_trouble=trouble,
    )
    await upload.run(found.pictures)


def _report(
    args: argparse.Namespace, found: FoundPictures, tally: UploadTally, error: LandseerClientError | None, took: float
) -> None:
    if args.json:
        print_json(_as_dict(tally, error, took))
        return
    say(_summary(found, tally, took))
    for failure in sorted(tally.failures, key=lambda failure: failure.picture.id):
        say(f"not indexed: {failure.picture.id}: {failure.message}", "red")
    if error:
        print(f"landseer index: {error}", file=sys.stderr)
        warn(f"{tally.total - tally.done:,} pictures were not sent; {_RESUME}")


def _summary(found: FoundPictures, tally: UploadTally, took: float) -> str:
    parts = [f"indexed {tally.indexed:,} of {plural(tally.total, 'picture')} in {duration(took)}"]
    counts = {"replaced": tally.replaced, "already indexed": tally.skipped, "failed": len(tally.failures)}
    parts += [f"{count:,} {what}" for what, count in counts.items() if count]
    if found.ignored:
        parts.append(f"{plural(found.ignored, 'other file')} ignored")
    return ", ".join(parts)


def _as_dict(tally: UploadTally, error: LandseerClientError | None, took: float) -> dict[str, Any]:
    return {
        "found": tally.total,
        "indexed": tally.indexed,
        "replaced": tally.replaced,
        "skipped": tally.skipped,
        "not_sent": tally.total - tally.done,
        "seconds": round(took, 3),
        "failed": [
            {"id": f.picture.id, "path": f.picture.absolute, "code": f.code, "message": one_line(f.message)}
            for f in tally.failures
        ],
        "error": str(error) if error else None,
    }


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected KEY=VALUE")
    return key, value
