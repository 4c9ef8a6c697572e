"""`landseer prune`: remove pictures from the index whose files are gone."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from landseer.client.client import SearchClient
from landseer.client.commands import connection
from landseer.client.commands.output import print_json, say
from landseer.client.commands.progress import display
from landseer.client.errors import NotIndexed
from landseer.client.queries import utf8
from landseer.client.readable import plural
from landseer.client.vanished import KeptPicture, Vanished, find_vanished

_AT_ONCE = 16
_JSON = """\
  {"checked": 24, "gone": ["photos/a.jpg"], "deleted": 0,
   "doubtful": [{"id": "photos/usb/b.jpg", "reason": "..."}], "foreign": [{"id": "photos/c.jpg", "reason": "..."}]}
  `deleted` counts the pictures of `gone` that were deleted, 0 without --yes. Those of `doubtful` and `foreign` have no
  file here and are kept: its disk may not be mounted, or they were indexed from another place."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `landseer prune`."""
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="the folder that you indexed; run this in the same working directory as `landseer index`",
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="the --prefix that you indexed with")
    parser.add_argument(
        "--yes",
        action="store_true",
        help="delete the pictures whose files are gone; without --yes they are only listed",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="with --yes, also delete where FOLDER is missing, or it or a folder in it is empty or unreadable; check "
        "first that the disk is mounted",
    )
    connection.add_arguments(parser, json_help=_JSON)


def run(args: argparse.Namespace) -> int:
    """List the pictures whose files are gone, and delete them with --yes; return 1 if there was doubt about some."""
    utf8("FOLDER", str(args.folder))
    utf8("--prefix", args.prefix)
    find = partial(find_vanished, folder=args.folder, prefix=args.prefix, force=args.force)
    found = connection.call(args, find)
    deleted = 0
    if args.yes and found.gone:
        with display("deleting", len(found.gone)) as shown:
            deleted = connection.call(args, lambda client: _delete(client, found.gone, shown.update))
    if args.json:
        print_json(_as_dict(found, deleted))
    else:
        _report(args, found)
    return 1 if found.doubtful else 0


async def _delete(client: SearchClient, ids: Sequence[str], on_progress: Any) -> int:
    """Delete pictures; return how many were still indexed."""

    async def one(id: str) -> int:
        try:
            await client.delete(id)
        except NotIndexed:
            return 0
        return 1

    deleted = 0
    for at in range(0, len(ids), _AT_ONCE):
        deleted += sum(await asyncio.gather(*map(one, ids[at : at + _AT_ONCE])))
        on_progress(min(at + _AT_ONCE, len(ids)))
    return deleted


def _report(args: argparse.Namespace, found: Vanished) -> None:
    for id in found.gone:
        say(f"{'deleted' if args.yes else 'gone'}: {id}")
    for kept, colour in ((found.foreign, ""), (found.doubtful, "red")):
        for one in kept:
            say(f"kept: {one.id}: {one.reason}", colour)
    parts = [f"{plural(found.checked, 'picture')} of {args.folder} in the index", f"{len(found.gone):,} without a file"]
    if args.yes:
        parts[-1] += ", deleted"
    elif found.gone:
        parts[-1] += "; --yes deletes them"
    say(", ".join(parts))


def _as_dict(found: Vanished, deleted: int) -> dict[str, Any]:
    def told(kept: Sequence[KeptPicture]) -> list[dict[str, str]]:
        return [{"id": one.id, "reason": one.reason} for one in kept]

    return {
        "checked": found.checked,
        "gone": found.gone,
        "deleted": deleted,
        "doubtful": told(found.doubtful),
        "foreign": told(found.foreign),
    }
