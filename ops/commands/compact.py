"""`landseer compact`: shrink the file of a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from landseer.ops.commands.ending import INTERRUPTED, failed

_MORE = """\
The store must not be in use: stop the server first. Its pages are copied without the free ones to a file beside it,
which then takes its place; until then that takes up to as much disk space again. You can interrupt it at any time: the
store is unchanged until the copy is complete and on disk."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("store", type=Path, metavar="STORE", help="folder of `landseer serve --store`")
    parser.add_argument(
        "--allow-network-store", action="store_true", help="even where its folder is on NFS, SMB or FUSE"
    )


def run(args: argparse.Namespace) -> int:
    """Compact. Returns 0; 1 with one line on stderr if it fails, 130 after Ctrl-C."""
    # Imported here because it loads LMDB and numpy, and `landseer --help` must stay fast.
    from landseer.ensemble.errors import LandseerError
    from landseer.ensemble.store.compaction import compact
    from landseer.ensemble.store.mounts import require_local

    try:
        if not args.allow_network_store:
            require_local(args.store)
        done = compact(args.store)
    except (LandseerError, OSError) as error:
        return failed("compact", str(error))
    except KeyboardInterrupt:
        return failed("compact", "stopped; the store is unchanged", INTERRUPTED)
    print(f"{args.store}: {done.before:,} bytes before, {done.after:,} after")
    return 0
