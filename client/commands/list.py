"""`landseer list`: print the ids of the indexed pictures."""

from __future__ import annotations

import argparse

from landseer.client.client import SearchClient
from landseer.client.commands import connection
from landseer.client.commands.output import as_dict, print_json
from landseer.client.picture_files import composed
from landseer.client.readable import one_line
from landseer.v1.index_pb2 import ListedPicture

_JSON = """\
  {"pictures": [{"id": "photos/a.jpg", "metadata": {"path": "/home/me/photos/a.jpg"}}]}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `landseer list`."""
    parser.add_argument(
        "prefix", nargs="?", default="", metavar="PREFIX", help="only ids that start with this, such as photos/2019/"
    )
    connection.add_arguments(parser, json_help=_JSON)


def run(args: argparse.Namespace) -> int:
    """Print one id a line, sorted by their bytes; with --json, the metadata, too."""
    if args.json:
        found = connection.call(args, lambda client: _all(client, args.prefix))
        print_json({"pictures": [as_dict(picture) for picture in found]})
    else:
        connection.call(args, lambda client: _print(client, args.prefix))
    return 0


async def _all(client: SearchClient, prefix: str) -> list[ListedPicture]:
    return [picture async for picture in client.list(composed(prefix), include_metadata=True)]


async def _print(client: SearchClient, prefix: str) -> None:
    async for picture in client.list(composed(prefix)):
        print(one_line(picture.id))
