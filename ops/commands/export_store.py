"""`landseer export-store`: write a store to a Parquet file, also while a server uses it."""

from __future__ import annotations

import argparse
from pathlib import Path

from landseer.ensemble.postgres_address import store_argument
from landseer.ops.commands.ending import INTERRUPTED, failed

_MORE = """\
A row is a picture, with all that the store keeps about it: id, metadata (a map), descriptor (a list of float16), width,
height, clusters, boxes, thumbnail, keypoints and the rest; docs/operate.md has every column. pandas and DuckDB read it.
`landseer import-store` makes a store of it again, also in another release. Augmented vectors are left out, as `landseer
augment` makes them again.

Servers may run: the file holds the store as it was at one moment. While the export runs, what is written makes the
store's file, or the database, grow. FILE must not exist yet, and gets its name when all of it is on disk."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument(
        "store", type=store_argument, metavar="STORE", help="folder or database of `landseer serve --store`"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="file to write, such as pictures.parquet")
    parser.add_argument(
        "--allow-network-store", action="store_true", help="even where the store is on NFS, SMB or FUSE; unsafe"
    )
    parser.add_argument("--insecure", action="store_true", help="also over a network, from a database, in plain text")


def run(args: argparse.Namespace) -> int:
    """Export. Returns 0; 1 with one line on stderr if it fails, 130 after Ctrl-C."""
    # Imported here because it loads LMDB and Arrow, and `landseer --help` must stay fast.
    from landseer.ensemble.errors import LandseerError
    from landseer.ensemble.store.exporting import export_store
    from landseer.ops.commands.shown import shown

    try:
        with shown("exporting") as progress:
            done = export_store(
                args.store, args.file, network=args.allow_network_store, insecure=args.insecure, progress=progress
            )
    except (LandseerError, OSError, ImportError) as error:
        return failed("export-store", str(error))
    except KeyboardInterrupt:
        return failed("export-store", "stopped; the store is unchanged, and there is no file", INTERRUPTED)
    print(f"{args.file}: {done.about.pictures:,} pictures after change {done.about.sequence:,}; {done.bytes:,} bytes")
    return 0
