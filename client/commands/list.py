"""`landseer list`: print the ids of the indexed pictures."""

from __future__ import annotations

import argparse

from landseer.client.client import SearchClient
from landseer.client.commands import connection
from landseer.client.commands.fields import FIELDS_HELP, names
from landseer.client.commands.output import as_dict, print_json
from landseer.client.errors import UnusableInput
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
    parser.add_argument(
        "--filter", default="", metavar="TEXT", help='only pictures such as: place = "Ely" AND year > 1990'
    )
    parser.add_argument("--fields", type=names, default=[], metavar="NAMES", help=f"with --json: {FIELDS_HELP}")
    connection.add_arguments(parser, json_help=_JSON)


def run(args: argparse.Namespace) -> int:
    """Print one id a line, sorted by their bytes; with --json, the metadata, too."""
    if args.fields and not args.json:
        raise UnusableInput("--fields needs --json; without it only ids are printed")
    if args.json:
        found = connection.call(args, lambda client: _all(client, args))
        print_json({"pictures": [as_dict(picture) for picture in found]})
    else:
        connection.call(args, lambda client: _print(client, args))
    return 0


async def _all(client: SearchClient, args: argparse.Namespace) -> list[ListedPicture]:
    found = client.list(composed(args.prefix), include_metadata=True, filter=args.filter, fields=args.fields)
    return [picture async for picture in found]


async def _print(client: SearchClient, args: argparse.Namespace) -> None:
    async for picture in client.list(composed(args.prefix), filter=args.filter):
        print(one_line(picture.id))
