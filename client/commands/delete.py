"""`landseer delete`: remove pictures from the index."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from landseer.client.client import SearchClient
from landseer.client.commands import connection
from landseer.client.commands.output import print_json, say
from landseer.client.commands.spelling import as_indexed
from landseer.client.errors import NotIndexed

_JSON = """\
  {"deleted": ["photos/a.jpg"], "not_indexed": ["photos/b.jpg"]}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `landseer delete`."""
    parser.add_argument(
        "ids",
        nargs="+",
        metavar="ID",
        help="a picture's id: by default its path relative to the directory where `landseer index` ran",
    )
    connection.add_arguments(parser, json_help=_JSON)


def run(args: argparse.Namespace) -> int:
    """Delete each id; return 1 if any was not indexed."""
    there = connection.call(args, lambda client: _delete(client, args.ids))
    deleted, missing = ([id for id, was in there.items() if was is wanted] for wanted in (True, False))
    if args.json:
        print_json({"deleted": deleted, "not_indexed": missing})
    else:
        for id, was in there.items():
            say(f"deleted {id}" if was else f"not indexed: {id}", "" if was else "red")
    return 1 if missing else 0


async def _delete(client: SearchClient, ids: Sequence[str]) -> dict[str, bool]:
    """Return for each id whether it was indexed."""
    there = {}
    for id in ids:
        try:
            await as_indexed(id, client.delete)
            there[id] = True
        except NotIndexed:
            there.setdefault(id, False)
    return there
