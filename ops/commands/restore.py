"""`landseer restore`: restore a store from a backup."""

from __future__ import annotations

import argparse
from pathlib import Path

from landseer.ops.commands.ending import INTERRUPTED, failed

_MORE = """\
STORE must be empty, or not exist yet; a store that is there is never overwritten. Every byte is compared with the
backup's checksums. You can interrupt it at any time: there is a complete store at the end, or none.

Then start the server on it. It is the store as it was: pictures that were written or deleted since have to be written
or deleted again. Augmented vectors are as they were, too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("backup", type=Path, metavar="BACKUP", help="folder that `landseer backup` made")
    parser.add_argument("store", type=Path, metavar="STORE", help="folder to restore into")
    parser.add_argument(
        "--allow-network-store", action="store_true", help="even where STORE is on NFS, SMB or FUSE; unsafe"
    )


def run(args: argparse.Namespace) -> int:
    """Restore. Returns 0; 1 with one line on stderr if it fails, 130 after Ctrl-C."""
    # Imported here because it loads LMDB and numpy, and `landseer --help` must stay fast.
    from landseer.ensemble.errors import LandseerError
    from landseer.ensemble.store.restoring import restore
    from landseer.ops.commands.shown import MIB, shown

    try:
        with shown("restoring, MiB", MIB) as progress:
            done = restore(args.backup, args.store, network=args.allow_network_store, progress=progress)
    except (LandseerError, OSError) as error:
        return failed("restore", str(error))
    except KeyboardInterrupt:
        return failed("restore", "stopped; nothing was restored", INTERRUPTED)
    print(f"{args.store}: {done.pictures:,} pictures after change {done.sequence:,}, as of {done.made_at}")
    return 0
