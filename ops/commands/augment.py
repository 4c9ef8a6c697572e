"""`landseer augment`: augment the vectors of a store for `landseer serve --vectors augmented`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from landseer.ops.arguments import positive
from landseer.ops.commands.ending import INTERRUPTED, RESUMES, failed

if TYPE_CHECKING:
    from landseer.ensemble.search.expansion.recipe import Recipe
    from landseer.ensemble.store.store import Store

NONE = "none"
_MORE = """\
methods: NAME[:NEIGHBOURS[:PARAMETER]], such as alphaqe:10:3
  aqe, aqewd, aqewd-dir, dqe, rank-curve
                               no parameter
  alphaqe                      parameter: alpha
  lattqe                       LAttDBA with the exported network; parameter: the temperature of its softmax
  none                         removes the augmented vectors from the store

The store must not be in use: stop the server, augment, and start it with `landseer serve --vectors augmented`. The raw
vectors do not change. You can interrupt it at any time: run the same command again to resume. Until it has finished,
the previous augmentation stays in effect."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("store", type=Path, metavar="STORE", help="store to augment")
    parser.add_argument("--method", required=True, metavar="METHOD", help="see below")
    parser.add_argument("--threads", type=positive, metavar="N", help="threads of the search (default: all cores)")
    parser.add_argument(
        "--store-limit", default="16GiB", metavar="SIZE", help="maximum size of the store (default %(default)s)"
    )
    parser.add_argument(
        "--allow-network-store",
        action="store_true",
        help="allow a store on NFS, SMB or FUSE (unsafe: locks and memory maps may fail)",
    )
    parser.add_argument(
        "--repository",
        type=Path,
        default=Path("model_repository"),
        metavar="DIR",
        help="model repository, for lattqe (default %(default)s)",
    )
    parser.add_argument(
        "--allow-untrained", action="store_true", help="use an untrained lattqe, whose weights are random"
    )


def run(args: argparse.Namespace) -> int:
    """Augment. Returns 0; 1 with one line on stderr if it fails, 2 for invalid options, 130 after Ctrl-C."""
    # Imported here because it loads LMDB, numpy and FAISS, and `landseer --help` must stay fast.
    from landseer.ensemble.errors import LandseerError
    from landseer.ops.errors import OpsError

    try:
        return _on_store(args, *_read(args))
    except ValueError as error:
        return failed("augment", str(error), 2)
    except (LandseerError, OpsError, OSError) as error:
        return failed("augment", str(error))
    except KeyboardInterrupt:
        return failed("augment", f"stopped; {RESUMES}", INTERRUPTED)


def _read(args: argparse.Namespace) -> tuple[Recipe | None, int]:
    """Return the recipe (None for `none`) and the store's limit in bytes. ValueError, OpsError."""
    from landseer.ensemble.config import parse_bytes
    from landseer.ensemble.search.expansion.recipe import recipe

    limit = parse_bytes(args.store_limit)
    if args.method == NONE:
        return None, limit
    return recipe(args.method, positions=_positions(args)), limit


def _positions(args: argparse.Namespace) -> int:
    """Return the maximum number of neighbours; only LAttQE reads it from the export. OpsError."""
    from landseer.ensemble.inference.contracts import Sizes
    from landseer.ensemble.search.expansion.methods import LATTQE

    if args.method.split(":")[0] != LATTQE:
        return Sizes.neighbours
    from landseer.ops.backend.inprocess import read_profile

    return read_profile(args.repository).sizes.neighbours


def _on_store(args: argparse.Namespace, recipe: Recipe | None, limit: int) -> int:
    from landseer.ensemble.store.store import Store

    network = _network(args, recipe)
    fingerprint, remote = network.pop("fingerprint", None), args.allow_network_store
    store = Store.open(args.store, fingerprint=fingerprint, limit_bytes=limit, network=remote)
    try:
        if recipe is None:
            store.augmented.drop()
            print(f"removed the augmented vectors from {args.store}; the raw vectors are unchanged")
        else:
            _augment(store, recipe, args, network)
    finally:
        store.close()
    return 0


def _augment(store: Store, recipe: Recipe, args: argparse.Namespace, network: dict[str, Any]) -> None:
    from landseer.client.commands.progress import display
    from landseer.ensemble.ingest.augmenting import augment_store

    pictures = store.stats().pictures
    with display("augmenting", pictures) as shown:
        done = augment_store(store, recipe, threads=args.threads or 0, progress=shown.update, **network)
    print(
        f"{done.pictures:,} vectors augmented by {done.method} after change {done.sequence:,}; "
        f"to serve them: landseer serve --store {args.store} --vectors augmented"
    )


def _network(args: argparse.Namespace, recipe: Recipe | None) -> dict[str, Any]:
    """Return the network's attention, its SHA-256 and the models' fingerprint; empty unless lattqe. OpsError."""
    from landseer.ensemble.search.expansion.methods import LATTQE

    if recipe is None or recipe.method != LATTQE:
        return {}
    from landseer.ensemble.cores import cores
    from landseer.ops.backend.inprocess import read_profile
    from landseer.ops.backend.lattdba_graph import GraphAttention
    from landseer.ops.errors import OpsError

    profile = read_profile(args.repository)
    if LATTQE in profile.untrained and not args.allow_untrained:
        raise OpsError(
            f"the `lattqe` in {args.repository} was never trained, its weights are random; use another method, export "
            "a trained network with --lattqe FILE, or add --allow-untrained to test it"
        )
    attention = GraphAttention(args.repository, profile, threads=args.threads or cores())
    return {"attention": attention, "network": attention.sha256, "fingerprint": profile.fingerprint}
