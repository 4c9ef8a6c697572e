"""`landseer backup`: back up a store, also while a server uses it."""

from __future__ import annotations

import argparse
from pathlib import Path

from landseer.ops.commands.ending import INTERRUPTED, failed

_MORE = """\
The server may run: it goes on reading and writing, and the backup is the store as it was at one moment, between two
changes. Run this on the server's machine, as the server's user; in containers, in the server's container.

TARGET must not exist yet. It is written as TARGET.partial, and gets its name when all of it is on disk, so a backup
that has its name is complete. What did not change since the newest backup beside it takes no room: they share it, by
hard links. Each backup is whole, and can be deleted on its own. So make each a new folder in one place:

  landseer backup var/store /backup/$(date +%F)
  landseer restore /backup/2026-11-29 var/restored

While a backup runs, what is written makes the store's file grow, since pages that become free are not used again until
it has ended. `landseer restore` compares every byte with its checksum, and so does --verify."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "%(prog)s STORE TARGET [--whole] [--allow-network-store]\n       %(prog)s --verify BACKUP"
    parser.epilog = _MORE
    parser.add_argument("store", nargs="?", type=Path, metavar="STORE", help="folder of `landseer serve --store`")
    parser.add_argument("target", nargs="?", type=Path, metavar="TARGET", help="folder to make")
    parser.add_argument("--verify", type=Path, metavar="BACKUP", help="check a backup, byte by byte")
    parser.add_argument("--whole", action="store_true", help="share nothing with the backup before")
    parser.add_argument(
        "--allow-network-store", action="store_true", help="even where the store is on NFS, SMB or FUSE; unsafe"
    )


def run(args: argparse.Namespace) -> int:
    """Back up, or verify. Returns 0; 1 with one line on stderr if it fails, 2 for wrong options, 130 after Ctrl-C."""
    # Imported here because it loads LMDB and numpy, and `landseer --help` must stay fast.
    from landseer.ensemble.errors import LandseerError

    if args.verify is not None and args.store is not None:
        return failed("backup", "got --verify and a store; give either --verify BACKUP, or STORE and TARGET", 2)
    if args.verify is None and args.target is None:
        return failed("backup", "expected STORE and TARGET, or --verify BACKUP (see landseer backup --help)", 2)
    try:
        return _verify(args.verify) if args.verify is not None else _back_up(args)
    except (LandseerError, OSError) as error:
        return failed("backup", str(error))
    except KeyboardInterrupt:
        return failed("backup", "stopped; the store is unchanged, and there is no new backup", INTERRUPTED)


def _back_up(args: argparse.Namespace) -> int:
    from landseer.ensemble.store.backup import back_up
    from landseer.ops.commands.shown import MIB, shown

    with shown("copying, MiB", MIB) as progress:
        done = back_up(args.store, args.target, whole=args.whole, network=args.allow_network_store, progress=progress)
    made = done.manifest
    print(
        f"{args.target}: {made.pictures:,} pictures after change {made.sequence:,}; {made.bytes:,} bytes, of which "
        f"{done.new_bytes:,} are new"
    )
    return 0


def _verify(backup: Path) -> int:
    from landseer.ensemble.store.manifest import verify
    from landseer.ops.commands.shown import MIB, shown

    with shown("reading, MiB", MIB) as progress:
        found = verify(backup, progress)
    print(
        f"{backup} is sound: {found.pictures:,} pictures after change {found.sequence:,}, made at {found.made_at} by "
        f"release {found.release}"
    )
    return 0
