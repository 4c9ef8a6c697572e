"""`landseer index`: add pictures in files and folders to the index."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from landseer.client.client import SearchClient
from landseer.client.commands import connection, labels
from landseer.client.commands.connection import positive
from landseer.client.commands.output import print_json, say, tell, warn
from landseer.client.commands.progress import Display, display
from landseer.client.errors import LandseerClientError
from landseer.client.picture_files import FoundPictures, PictureFile, check_found, find_pictures, picture_id
from landseer.client.readable import duration, one_line, plural
from landseer.client.sidecar import Sidecar
from landseer.client.uploads import FailedPicture, Upload, UploadPlan, UploadTally

_JSON = """\
  {"found": 3, "indexed": 2, "replaced": 0, "skipped": 0, "not_sent": 0, "seconds": 1.4,
   "failed": [{"id": "photos/a.jpg", "path": "/home/me/photos/a.jpg", "code": "INVALID_ARGUMENT", "message": "..."}],
   "ignored": [{"path": "/home/me/photos/notes.txt", "reason": "..."}], "linked_folders": 0, "error": null}
  `found` counts pictures; `failed` also names files and folders that cannot be read, `ignored` what is no picture.
  `error` is the reason if the run stopped early; `not_sent` counts the pictures it did not reach."""
_RESUME = "run it again with --skip-indexed to resume"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `landseer index`."""
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a picture, or a folder to search recursively"
    )
    labels.add_arguments(parser)
    parser.add_argument(
        "--skip-indexed", action="store_true", help="skip pictures that are already indexed and have not changed"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="name each file that is ignored because it is no picture"
    )
    parser.add_argument(
        "--concurrency", type=positive, default=2, metavar="N", help="number of parallel uploads (default %(default)s)"
    )
    connection.add_arguments(parser, json_help=_JSON, patience=120.0)


def run(args: argparse.Namespace) -> int:
    """Index the pictures and print a summary; return 1 if any failed or was not sent."""
    sidecar = labels.read(args)
    found = find_pictures(args.paths, prefix=args.prefix)
    if args.verbose:
        for over in found.ignored:
            tell(f"ignored: {over.path}: {over.reason}")
    check_found(found, args.paths)
    if unused := sidecar.unused(found.pictures):
        warn(f"{plural(unused, 'row')} of {args.metadata_file} name no picture that was found; check the ids or paths")
    tally, start = UploadTally(total=len(found.pictures)), time.monotonic()
    error: LandseerClientError | None = None
    try:
        with display("indexing", tally.total) as shown:
            trouble = connection.waiting(args.patience, shown.note)
            upload = partial(
                _upload, args=args, sidecar=sidecar, found=found, tally=tally, shown=shown, trouble=trouble
            )
            connection.call(args, upload, on_wait=trouble)
    except LandseerClientError as stopped:
        if not tally.done:
            raise
        error = stopped
    except KeyboardInterrupt:
        warn(f"interrupted after {tally.done:,} of {tally.total:,} pictures; {_RESUME}")
        raise
    _report(args, found, tally, error, time.monotonic() - start)
    return 1 if error or tally.failures or found.unreadable else 0


async def _upload(
    client: SearchClient,
    *,
    args: argparse.Namespace,
    sidecar: Sidecar,
    found: FoundPictures,
    tally: UploadTally,
    shown: Display,
    trouble: Callable[[str], None],
) -> None:
    plan = UploadPlan(
        metadata=dict(args.metadata),
        sidecar=sidecar,
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
        print_json(_as_dict(args, found, tally, error, took))
        return
    say(_summary(args, found, tally, took))
    for failure in sorted(_failures(args, found, tally), key=lambda failure: failure.picture.id):
        say(f"not indexed: {failure.picture.id}: {failure.message}", "red")
    if error:
        print(f"landseer index: {error}", file=sys.stderr)
        warn(f"{tally.total - tally.done:,} pictures were not sent; {_RESUME}")


def _summary(args: argparse.Namespace, found: FoundPictures, tally: UploadTally, took: float) -> str:
    parts = [f"indexed {tally.indexed:,} of {plural(tally.total, 'picture')} in {duration(took)}"]
    counts = {
        "replaced": tally.replaced,
        "already indexed": tally.skipped,
        "failed": len(_failures(args, found, tally)),
    }
    parts += [f"{count:,} {what}" for what, count in counts.items() if count]
    if found.linked:
        parts.append(f"{plural(found.linked, 'link')} to folders followed")
    if found.ignored:
        named = "" if args.verbose else " (--verbose names them)"
        parts.append(f"{plural(len(found.ignored), 'other file')} ignored{named}")
    return ", ".join(parts)


def _failures(args: argparse.Namespace, found: FoundPictures, tally: UploadTally) -> list[FailedPicture]:
    """Return what was not indexed: what cannot be read, and what failed later."""
    unreadable = [
        FailedPicture(
            picture=PictureFile(id=picture_id(over.path, prefix=args.prefix), path=over.path),
            code="INVALID_ARGUMENT",
            message=over.reason,
        )
        for over in found.unreadable
    ]
    return unreadable + tally.failures


def _as_dict(
    args: argparse.Namespace, found: FoundPictures, tally: UploadTally, error: LandseerClientError | None, took: float
) -> dict[str, Any]:
    return {
        "found": tally.total,
        "indexed": tally.indexed,
        "replaced": tally.replaced,
        "skipped": tally.skipped,
        "not_sent": tally.total - tally.done,
        "seconds": round(took, 3),
        "failed": [
            {"id": f.picture.id, "path": f.picture.absolute, "code": f.code, "message": one_line(f.message)}
            for f in _failures(args, found, tally)
        ],
        "ignored": [{"path": os.path.normpath(over.path.absolute()), "reason": over.reason} for over in found.ignored],
        "linked_folders": found.linked,
        "error": str(error) if error else None,
    }
