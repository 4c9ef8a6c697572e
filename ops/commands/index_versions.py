"""`landseer index-versions`: list, check, choose or build the index versions of a store."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from landseer.ops.arguments import positive
from landseer.ops.commands.ending import INTERRUPTED, failed

if TYPE_CHECKING:
    from landseer.ensemble.index.versions import Version, Versions
    from landseer.ensemble.store.store import Store

_MORE = """\
list      number, pictures, index, size and date of each; the active one has a star
verify    read every byte of all versions, or of version N; exits with 1 if one is damaged
activate  let version N serve from the server's next start on
rollback  activate the version before the active one
build     build a version from the store, with all cores, and activate it: a large store then starts at once, and
          needs no memory for its vectors

`list` and `verify` also work while a server uses the store. For the others it must be stopped, and they say so. The
server builds versions by itself, and deletes the oldest; `landseer serve --versions-kept` says how many stay. `build`
deletes none. All of them can be deleted (the folder `index` in the store) while no server runs: they are built again.

Give `build`, `activate` and `rollback` the same --index as `landseer serve`. A server that is to search exactly, as by
default below 200,000 pictures, does not use a version that is approximate."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    add = parser.add_argument
    add("action", choices=sorted(_ACTIONS), help="what to do")
    add("store", type=Path, metavar="STORE", help="folder of `landseer serve --store`")
    add("number", type=positive, nargs="?", metavar="N", help="number of a version, for verify and activate")
    add("--index", default="", metavar="FACTORY[:EFFORT[:RESCORED]]", help="the index, as of `landseer serve`")
    add("--vectors", choices=("raw", "augmented"), default="raw", help="what to build it of (default %(default)s)")
    kinds = parser.add_mutually_exclusive_group()
    of = "instead of those of vectors; not for build"
    kinds.add_argument("--words", action="store_true", help=f"the versions of visual words {of}")
    kinds.add_argument("--fields", action="store_true", help=f"the versions of indexed fields {of}")
    add("--allow-network-store", action="store_true", help="even where the store is on NFS, SMB or FUSE; unsafe")


def run(args: argparse.Namespace) -> int:
    """Do it. Returns 0; 1 with one line on stderr if it fails, 2 for a bad command, 130 after Ctrl-C."""
    # Imported here because it loads LMDB, numpy and FAISS, and `landseer --help` must stay fast.
    from landseer.ensemble.errors import LandseerError
    from landseer.ensemble.index.manifest import VersionDamaged
    from landseer.ensemble.store.folder import DATA, no_store

    if args.action == "build" and (args.words or args.fields):
        what = "words" if args.words else "fields"
        return failed("index-versions", f"{what} are written by `landseer serve`; build makes versions of vectors", 2)
    if args.action == "activate" and args.number is None:
        return failed("index-versions", f"activate needs a number: landseer index-versions activate {args.store} N", 2)
    try:
        if not (args.store / DATA).exists():
            raise no_store(args.store)
        return _ACTIONS[args.action](args)
    except ValueError as error:
        return failed("index-versions", str(error), 2)
    except (LandseerError, VersionDamaged, OSError) as error:
        return failed("index-versions", str(error))
    except KeyboardInterrupt:
        return failed("index-versions", "stopped; the active version is the one before", INTERRUPTED)


def _list(args: argparse.Namespace) -> int:
    from landseer.ensemble.index.manifest import VersionDamaged

    versions = _versions(args)
    if not versions.numbers:
        print(f"{args.store} has no index versions there: its server builds the index at each start")
        return 0
    print(f"{'version':>8} {'pictures':>10} {'up to change':>12} {'index':<20} {'MiB':>9} {'build s':>8}  built")
    for number in versions.numbers:
        star = "*" if number == versions.active else " "
        try:
            print(f"{star}{number:>7} {_line(versions.read(number))}")
        except VersionDamaged as error:
            print(f"{star}{number:>7} damaged: {error}")
    return 0


def _line(version: Version) -> str:
    made = version.manifest
    when = datetime.datetime.fromtimestamp(made.made_at).astimezone().isoformat(" ", "seconds")
    kind = made.setting.factory + ("" if made.built.vectors == "raw" else " augmented")
    return (
        f"{made.size:>10,} {made.built.sequence:>12,} {kind:<20} {made.bytes / 2**20:>9,.1f} {made.seconds:>8,.1f}  "
        f"{when}, {made.made_by}"
    )


def _verify(args: argparse.Namespace) -> int:
    from landseer.ensemble.index.manifest import VersionDamaged

    versions, damaged = _versions(args), False
    for number in versions.numbers if args.number is None else [args.number]:
        try:
            version = _there(versions, number)
            version.manifest.check(version.folder)
            print(f"version {number}: {len(version.manifest.files)} files are as they were written")
        except VersionDamaged as error:
            damaged = True
            print(f"version {number} is damaged: {error}")
    return 1 if damaged else 0


def _activate(args: argparse.Namespace) -> int:
    return _with_store(args, lambda store, versions: _serve_from(store, versions, args.number, args))


def _rollback(args: argparse.Namespace) -> int:
    def back(store: Store, versions: Versions) -> int:
        active = versions.active
        before = [number for number in versions.numbers if active is not None and number < active]
        if not before:
            there = ", ".join(map(str, versions.numbers)) or "none"
            return failed("index-versions", f"there is no version before the active one; there: {there}")
        return _serve_from(store, versions, before[-1], args)

    return _with_store(args, back)


def _serve_from(store: Store, versions: Versions, number: int, args: argparse.Namespace) -> int:
    """Activate a version that is whole, and that a server with the same --index would use."""
    from landseer.ensemble.index.opening import state_of

    version = _there(versions, number)
    version.manifest.check(version.folder)
    made = version.manifest.built
    if args.words or args.fields:
        # They may be of another codebook, or have other fields, than the server is started with: it sees that itself.
        state = replace(made, sequence=store.stats().sequence)
    else:
        state = state_of(store.stats(), store.fingerprint, augmented=made.vectors != "raw")
    if why := version.why_not(state, store.index_tokens.read()):
        return failed("index-versions", f"version {number} cannot serve this store: {why}")
    if not (args.words or args.fields):
        _require_fit(version, args)
    versions.activate(number)
    print(f"version {number} serves from the next start on: {version.manifest.size:,} pictures")
    return 0


def _require_fit(version: Version, args: argparse.Namespace) -> None:
    """StoreUnusable if a server with this --index would not use the version: it is approximate, and exact is wanted."""
    from landseer.ensemble.config import ServerConfig
    from landseer.ensemble.errors import StoreUnusable
    from landseer.ensemble.index.faiss_index import main_index_of
    from landseer.ensemble.index.setting_choice import named, setting_for

    made = version.manifest
    wanted = setting_for(made.size, ServerConfig(store=args.store, index=args.index), dimension=made.dimension)
    if main_index_of(wanted).exact and not main_index_of(made.setting).exact:
        option = f"--index {named(made.setting)}"
        raise StoreUnusable(
            f"version {version.number} is approximate ({made.setting.factory}), and `landseer serve` would search "
            f"{made.size:,} pictures exactly, not with it; to use it, give both this command and `landseer serve` "
            f"{option}"
        )


def _build(args: argparse.Namespace) -> int:
    def built(store: Store, versions: Versions) -> int:
        version = _published(store, versions, args)
        how = f", with `landseer serve --index {args.index}`" if args.index else ""
        print(f"version {version.number} serves from the next start on{how}:\n{_line(version)}")
        return 0

    return _with_store(args, built)


def _published(store: Store, versions: Versions, args: argparse.Namespace) -> Version:
    """Build a version and make it the active one."""
    from landseer.ensemble.config import ServerConfig
    from landseer.ensemble.errors import StoreUnusable
    from landseer.ensemble.index.building import BuildOrder, build
    from landseer.ensemble.index.opening import Opener
    from landseer.ensemble.index.setting_choice import setting_for

    augmented, stats = args.vectors == "augmented", store.stats()
    if not stats.pictures or (augmented and stats.augmentation is None):
        raise StoreUnusable(f"{args.store} has no {args.vectors} vectors; there is nothing to build")
    opener = Opener(
        versions, store, fingerprint=store.fingerprint, augmented=augmented, threads=0, damaged=lambda: None
    )
    config = ServerConfig(store=args.store, index=args.index)
    dimension = next(store.vectors.scan(batch=1))[1].shape[1]
    _sweep(versions)
    token, folder = versions.aside()
    order = BuildOrder(
        store=str(args.store),
        folder=str(folder),
        token=token,
        built=opener.state(),
        augmented=augmented,
        setting=setting_for(stats.pictures, config, dimension=dimension),
        dimension=dimension,
        expected=stats.pictures,
        threads=0,
    )
    try:
        build(order, store.vectors)
        version = opener.publish(folder)
    finally:
        _sweep(versions)
    return version


def _sweep(versions: Versions) -> None:
    """Delete what was half built. The server deletes versions: it knows how many are to stay."""
    versions.tidy(kept=len(versions.numbers))


def _with_store(args: argparse.Namespace, work: Callable[[Store, Versions], int]) -> int:
    """Do what nobody else may do at the same time. StoreUnusable while a server uses the store."""
    from landseer.ensemble.store.store import Store

    store = Store.open(args.store, fingerprint=None, network=args.allow_network_store)
    try:
        return work(store, _versions(args))
    finally:
        store.close()


def _versions(args: argparse.Namespace) -> Versions:
    from landseer.ensemble.index.versions import FIELDS, VECTORS, WORDS, Versions

    return Versions(args.store, WORDS if args.words else FIELDS if args.fields else VECTORS)


def _there(versions: Versions, number: int) -> Version:
    """Return a version. ValueError if there is none of that number; VersionDamaged."""
    if number not in versions.numbers:
        there = ", ".join(map(str, versions.numbers)) or "none"
        raise ValueError(f"there is no version {number}; there: {there}")
    return versions.read(number)


_ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "verify": _verify,
    "activate": _activate,
    "rollback": _rollback,
    "build": _build,
}
