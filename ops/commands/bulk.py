"""`landseer bulk`: index very many pictures into a store, with all cores of a machine or of several."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from landseer.client.commands import labels
from landseer.ops.arguments import positive
from landseer.ops.commands.ending import INTERRUPTED, RESUMES, failed

if TYPE_CHECKING:
    from landseer.ensemble.config import ServerConfig
    from landseer.ops.bulk.describer import DescribingOrder
    from landseer.ops.bulk.filling import Filling, Tally
    from landseer.ops.bulk.sources import FoundSources

_MORE = """\
The store must not be in use: no server runs on it meanwhile. Pictures for a store that is served go through its server,
with `landseer index`. The records are those that the server would write, with the same ids.

You can interrupt it, or kill it, at any time: what was written stays, and the same command resumes. It skips pictures
that the store has and that have not changed since, with their metadata. Pictures that failed are tried again.

On several machines: start Ray on each (`ray start`), with the same release of Landseer, the same folder of models and
the same --codebook, and pass --ray ADDRESS. Pictures must be where each machine can read them, under the same path or
URL. The store is on the machine where you run the command."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    add = parser.add_argument
    add("sources", nargs="+", metavar="SOURCE", help="a picture, a folder, a URL of either, or @FILE: a list of these")
    add("store", type=Path, metavar="STORE", help="folder of the store; made if missing")
    add("--repository", type=Path, default=Path("model_repository"), metavar="DIR", help="models (default %(default)s)")
    labels.add_arguments(parser)
    add("--replace", action="store_true", help="describe again pictures that the store has and that have not changed")
    add("--workers", type=positive, metavar="N", help="processes that describe (default: one for each core)")
    add("--threads", type=positive, default=1, metavar="N", help="threads of each (default %(default)s)")
    add("--ray", metavar="ADDRESS", help="use the Ray cluster there, as HOST:PORT (default: this machine alone)")
    _add_stored(parser)


def _add_stored(parser: argparse.ArgumentParser) -> None:
    """Declare the options that `landseer serve` has, too."""
    from landseer.ensemble.config import KEYPOINTS, LOCAL_FEATURES

    add = parser.add_argument
    add("--local-features", default=KEYPOINTS, choices=LOCAL_FEATURES, help="stored ones (default %(default)s)")
    add("--codebook", type=Path, metavar="FILE", help="visual words of keypoints (default: those that ship)")
    add("--no-thumbnails", action="store_true", help="store no small pictures")
    add("--max-image-bytes", default="20MiB", metavar="SIZE", help="largest picture (default %(default)s)")
    add("--store-limit", default="16GiB", metavar="SIZE", help="maximum size of the store (default %(default)s)")
    add("--allow-network-store", action="store_true", help="even where STORE is on NFS, SMB or FUSE; unsafe")


def run(args: argparse.Namespace) -> int:
    """Index. Returns 0; 1 if a picture failed, or with one line on stderr if it stops; 2 for a wrong option; 130."""
    # Imported here because they load much, and `landseer --help` must stay fast. Ray first: if it is missing, that is
    # said before anything is done.
    import ray  # noqa: F401

    from landseer.ensemble.errors import LandseerError, StoreFull
    from landseer.ops.errors import OpsError

    try:
        return _bulk(args)
    except ValueError as error:
        return failed("bulk", str(error), 2)
    except StoreFull as error:
        return failed("bulk", f"{error}. What was written before stays; {RESUMES}")
    except (LandseerError, OpsError, OSError) as error:
        return failed("bulk", str(error))
    except KeyboardInterrupt:
        return failed("bulk", f"stopped; {RESUMES}", INTERRUPTED)


def _bulk(args: argparse.Namespace) -> int:
    from landseer.client.commands.output import warn
    from landseer.client.readable import plural
    from landseer.ensemble.index.codebooks import codebooks_of
    from landseer.ensemble.index.configured_store import open_store
    from landseer.ops.backend.inprocess import read_profile
    from landseer.ops.bulk.describer import DescribingOrder
    from landseer.ops.bulk.filling import Filling

    start, sidecar = time.monotonic(), labels.read(args)
    config, profile = _config(args), read_profile(args.repository)
    codebooks, found = codebooks_of(config), _found(args)
    if unused := sidecar.unused(found.pictures):
        warn(f"{plural(unused, 'row')} of {args.metadata_file} name no picture that was found; check the ids or paths")
    store = open_store(config, profile, codebooks)
    try:
        filling = Filling(
            store, found.pictures, lambda one: {**dict(args.metadata), **sidecar.of(one)}, replace=args.replace
        )
        order = DescribingOrder(
            repository=args.repository.absolute(),
            profile=profile,
            config=config,
            codebook=codebooks.keypoints.fingerprint if codebooks.keypoints else "",
            threads=args.threads,
        )
        if filling.waiting:
            _fill(filling, order, args)
    finally:
        store.close()
    return _report(filling.tally, found, time.monotonic() - start)


def _config(args: argparse.Namespace) -> ServerConfig:
    """Return what a server with the same options would have. ValueError."""
    from landseer.ensemble.config import Limits, ServerConfig, parse_bytes

    return ServerConfig(
        store=args.store,
        limits=Limits(max_bytes=parse_bytes(args.max_image_bytes)),
        store_limit_bytes=parse_bytes(args.store_limit),
        network_store=args.allow_network_store,
        thumbnails=not args.no_thumbnails,
        local_features=args.local_features,
        codebook=args.codebook and args.codebook.absolute(),
    )


def _found(args: argparse.Namespace) -> FoundSources:
    """Find the pictures. OpsError if there are none."""
    from landseer.ops.bulk.sources import find_sources, read_list
    from landseer.ops.errors import OpsError

    sources = list[str]()
    for given in args.sources:
        sources += read_list(Path(given[1:])) if given.startswith("@") else [given]
    found = find_sources(sources, prefix=args.prefix)
    if not found.pictures:
        first = found.unreadable[0] if found.unreadable else None
        why = f"{first.id}: {first.why}" if first else f"{found.ignored:,} other files are there"
        raise OpsError(f"no pictures in {', '.join(args.sources)}: {why}")
    return found


def _fill(filling: Filling, order: DescribingOrder, args: argparse.Namespace) -> None:
    """Describe the pictures that the store lacks, and write them."""
    from landseer.client.commands.output import tell
    from landseer.client.commands.progress import display
    from landseer.client.readable import plural
    from landseer.ops.bulk.ray_workers import cluster, outcomes

    pictures = filling.waiting
    with cluster(args.ray, workers=args.workers, threads=args.threads) as workers:
        tell(f"describing {plural(len(pictures), 'picture')} with {plural(workers, 'worker')}, which load the models")
        with display("describing", len(pictures)) as shown:
            for part in outcomes(pictures, order, workers=workers):
                filling.write(part)
                shown.update(filling.settled, len(filling.tally.failures))
    filling.give_up()


def _report(tally: Tally, found: FoundSources, took: float) -> int:
    """Print the counts and each failure. Returns 1 if there is one."""
    from landseer.client.commands.output import say
    from landseer.client.readable import duration, plural

    failures = [*found.unreadable, *tally.failures]
    counts = {
        "replaced": tally.replaced,
        "already indexed": tally.skipped,
        "failed": len(failures),
        "other files ignored": found.ignored,
    }
    parts = [f"indexed {tally.indexed:,} of {plural(tally.found, 'picture')} in {duration(took)}"]
    say(", ".join(parts + [f"{count:,} {what}" for what, count in counts.items() if count]))
    for failure in sorted(failures, key=lambda failure: failure.id):
        say(f"not indexed: {failure.id}: {failure.why}", "red")
    return 1 if failures else 0
