"""`landseer import-store`: make a store of a Parquet file that `landseer export-store` wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from landseer.ensemble.postgres_address import store_argument
from landseer.ops.commands.ending import INTERRUPTED, RESUMES, failed

_MORE = """\
STORE may be new, or a store that was filled by the same models: pictures with the same id are replaced, the others
stay. A folder must not be in use. A database may be, and its servers find what is imported within seconds. You can
interrupt it at any time: what was imported stays, and the same command goes on from there, as it leaves alone what the
store has already. Pictures keep their order, and get new sequence numbers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("file", type=Path, metavar="FILE", help="file that `landseer export-store` wrote")
    parser.add_argument(
        "store",
        type=store_argument,
        metavar="STORE",
        help="folder of the store, made if missing; or postgresql://[USER@]HOST[:PORT]/DATABASE",
    )
    parser.add_argument(
        "--store-limit", default="16GiB", metavar="SIZE", help="maximum size of the store (default %(default)s)"
    )
    parser.add_argument(
        "--allow-network-store", action="store_true", help="even where STORE is on NFS, SMB or FUSE; unsafe"
    )
    parser.add_argument("--insecure", action="store_true", help="also over a network, to a database, in plain text")


def run(args: argparse.Namespace) -> int:
    """Import. Returns 0; 1 with one line on stderr if it fails, 2 for a wrong size, 130 after Ctrl-C."""
    # Imported here because it loads LMDB and Arrow, and `landseer --help` must stay fast.
    from landseer.ensemble.config import parse_bytes
    from landseer.ensemble.errors import LandseerError, StoreFull, StoreUnavailable, Unfinished

    try:
        limit = parse_bytes(args.store_limit)
    except ValueError as error:
        return failed("import-store", str(error), 2)
    try:
        return _import(args, limit)
    except (StoreFull, StoreUnavailable, Unfinished) as error:
        return failed("import-store", f"{error}. What was imported before stays; {RESUMES}")
    except (LandseerError, OSError, ImportError) as error:
        return failed("import-store", str(error))
    except KeyboardInterrupt:
        return failed("import-store", f"stopped; {RESUMES}", INTERRUPTED)


def _import(args: argparse.Namespace, limit: int) -> int:
    from landseer.ensemble.store.importing import import_store
    from landseer.ops.commands.shown import shown

    with shown("importing") as progress:
        done = import_store(
            args.file,
            args.store,
            limit_bytes=limit,
            network=args.allow_network_store,
            insecure=args.insecure,
            progress=progress,
        )
    print(f"{args.store}: {done.written:,} of {done.pictures:,} pictures written, the others were there already")
    return 0
