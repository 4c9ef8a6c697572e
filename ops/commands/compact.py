"""`landseer compact`: shrink the file of a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from landseer.ops.commands.ending import INTERRUPTED, failed

_MORE = """\
The store must not be in use: stop the server first. This copies the used pages to a new file next to the old one and
then replaces it. It needs up to as much free disk space as the store takes now. You can interrupt it at any time: the
store is unchanged until the copy is complete and on disk."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("store", type=Path, metavar="STORE", help="folder of `landseer serve --store`")
    parser.add_argument(
        "--allow-network-store",
        action="store_true",
        help="allow a store on NFS, SMB or FUSE (unsafe: locks and memory maps may fail)",
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
