"""`landseer get`: show what the index stores about a picture."""

from __future__ import annotations

import argparse

from landseer.client.client import SearchClient
from landseer.client.commands import connection
from landseer.client.commands.fields import FIELDS_HELP, names
from landseer.client.commands.output import as_dict, cell, console, print_json, table
from landseer.client.commands.spelling import as_indexed
from landseer.v1.index_pb2 import GetResponse

_JSON = """\
  The fields of landseer.v1.GetResponse (client/proto/landseer/v1/index.proto) without the thumbnail:
  {"id": "photos/a.jpg", "metadata": {"path": "/home/me/photos/a.jpg"}, "width": 640, "height": 480, "boxes": [...],
   "sequence": 3, "indexed_at": "2026-01-31T12:00:00Z", "cluster_count": 10, "descriptor": []}
  `descriptor` has values only with --vectors."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `landseer get`."""
    parser.add_argument(
        "id",
        metavar="ID",
        help="a picture's id: by default its path relative to the directory where `landseer index` ran",
    )
    parser.add_argument("--vectors", action="store_true", help="with --json, include the stored descriptor")
    parser.add_argument("--fields", type=names, default=[], metavar="NAMES", help=FIELDS_HELP)
    connection.add_arguments(parser, json_help=_JSON)


def run(args: argparse.Namespace) -> int:
    """Print the record."""
    found = connection.call(args, lambda client: _get(client, args))
    if args.json:
        print_json(as_dict(found))
        return 0
    made = table(("", "left"), ("", "left"))
    made.show_header = False
    for name, value in _rows(found):
        made.add_row(cell(name, "dim"), cell(value))
    console().print(made)
    return 0


async def _get(client: SearchClient, args: argparse.Namespace) -> GetResponse:
    return await as_indexed(args.id, lambda id: client.get(id, include_vectors=args.vectors, fields=args.fields))


def _rows(found: GetResponse) -> list[tuple[str, str]]:
    boxes = [f"{b.box.x:.0f},{b.box.y:.0f},{b.box.width:.0f},{b.box.height:.0f} ({b.score:.2f})" for b in found.boxes]
    return [
        ("id", found.id),
        ("size", f"{found.width} by {found.height} px"),
        ("indexed", f"{found.indexed_at.ToDatetime():%Y-%m-%d %H:%M:%S} UTC, change {found.sequence:,}"),
        ("boxes", "; ".join(boxes) or "none"),
        ("clusters", str(found.cluster_count)),
        *((f"metadata {key}", value) for key, value in sorted(found.metadata.items())),
    ]
