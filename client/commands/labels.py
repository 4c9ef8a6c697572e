"""Options for the ids and the metadata of pictures that are indexed."""

from __future__ import annotations

import argparse
from pathlib import Path

from landseer.client.queries import utf8
from landseer.client.sidecar import Sidecar, read_sidecar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--prefix",
        default="",
        metavar="TEXT",
        help="put TEXT before every id; the rest is the path relative to the current directory, or the URL",
    )
    parser.add_argument(
        "--metadata",
        action="append",
        default=[],
        type=_pair,
        metavar="KEY=VALUE",
        help="stored with every picture, beside `path` and `file_version`, and returned with its hits; repeatable",
    )
    parser.add_argument(
        "--metadata-file",
        type=Path,
        metavar="FILE",
        help="metadata of single pictures: a .csv, or a .jsonl of one object a line, with a column `id`, or `path`",
    )


def read(args: argparse.Namespace) -> Sidecar:
    """Return the metadata of single pictures. UnusableInput for these, or for what no picture's record could hold."""
    utf8("--prefix", args.prefix)
    for pair in args.metadata:
        utf8("--metadata", "=".join(pair))
    return read_sidecar(args.metadata_file) if args.metadata_file else Sidecar()


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected KEY=VALUE")
    return key, value
