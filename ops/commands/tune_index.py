"""`landseer tune-index`: measure indexes on a store's own vectors, and choose one for it."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from landseer.ops.arguments import positive, seed
from landseer.ops.commands.ending import INTERRUPTED, failed

if TYPE_CHECKING:
    from landseer.ensemble.store.store import Store
    from landseer.ops.bench.index_trial import BuiltIndex, TrialPoint

Tried = list[tuple["BuiltIndex", "list[TrialPoint]"]]
_MORE = """\
Builds each index from the vectors of the store, without some that become the queries, and compares what it finds with
exact search, for several efforts. Of the settings that find the target, the one that takes least processor time is
written into the store's folder; `landseer serve` uses it from its next start on. Run it again when the store has grown
several times over.

The store must not be in use: stop the server first. The indexes are built in a folder beside the store's files and
removed at the end: they take up to as much room as the vectors, 2.5 KB each. You can interrupt it at any time."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    add = parser.add_argument
    add("store", type=Path, metavar="STORE", help="folder of `landseer serve --store`")
    add("--target", type=_share, default=0.98, metavar="RECALL", help="recall to reach (default %(default)s)")
    add("--top-k", type=positive, default=10, metavar="K", help="hits that count (default %(default)s)")
    add("--queries", type=positive, default=300, metavar="N", help="vectors to search for (default %(default)s)")
    add(
        "--index",
        action="append",
        metavar="FACTORY",
        help="a FAISS factory string to try; may be repeated (default: several that suit the store's size)",
    )
    add("--vectors", choices=("raw", "augmented"), default="raw", help="as of `landseer serve` (default %(default)s)")
    add("--threads", type=positive, metavar="N", help="threads of FAISS (default: all cores)")
    add("--seed", type=seed, default=0, metavar="N", help="random seed of the queries (default %(default)s)")
    add("--plot", type=Path, metavar="FILE.png", help="draw recall against searches a second; needs matplotlib")
    add("--dry-run", action="store_true", help="only measure: do not write the setting")
    add("--allow-network-store", action="store_true", help="even where the store is on NFS, SMB or FUSE; unsafe")


def run(args: argparse.Namespace) -> int:
    """Measure and choose. Returns 0; 1 with one line on stderr if it fails, 2 for a bad index, 130 after Ctrl-C."""
    # Imported here because it loads LMDB, numpy and FAISS, and `landseer --help` must stay fast.
    from landseer.ensemble.errors import LandseerError
    from landseer.ensemble.store.store import Store
    from landseer.ops.errors import OpsError

    try:
        _check_plot(args.plot)
        store = Store.open(args.store, fingerprint=None, network=args.allow_network_store)
        try:
            return _tune(store, args)
        finally:
            store.close()
    except ValueError as error:
        return failed("tune-index", str(error), 2)
    except (LandseerError, OpsError, OSError) as error:
        return failed("tune-index", str(error))
    except KeyboardInterrupt:
        return failed("tune-index", "stopped; the setting of the store is unchanged", INTERRUPTED)


def _tune(store: Store, args: argparse.Namespace) -> int:
    from landseer.ops.bench.index_trial import fastest

    tried = _tried(store, args)
    points = [point for _, some in tried for point in some]
    found = fastest(points, target=args.target)
    _print(tried, args.top_k, found)
    if args.plot is not None:
        args.plot.write_bytes(_drawn(tried, args.top_k))
        print(f"drawn in {args.plot}")
    if found is None:
        best = max(point.recall for point in points)
        return failed("tune-index", f"no index found {args.target}, the best {best:.4f}; nothing is written")
    _write(args, found)
    return 0


def _write(args: argparse.Namespace, found: TrialPoint) -> None:
    """Write the setting, unless it is a dry run, and tell what it finds."""
    from landseer.ensemble.index.setting_choice import named, write_tuned

    told = f"{named(found.setting)} finds {found.recall:.4f} at {found.rate:,.0f} searches a second"
    if args.dry_run:
        print(f"{told}; to serve it: landseer serve --store {args.store} --index {named(found.setting)}")
    else:
        print(f"{told}; `landseer serve` uses it from its next start on: {write_tuned(args.store, found.setting)}")


def _tried(store: Store, args: argparse.Namespace) -> Tried:
    """Build and measure each index. ValueError for one that FAISS cannot make."""
    from landseer.client.commands.progress import display
    from landseer.ensemble.index.faiss_factory import made
    from landseer.ops.bench.index_trial import IndexTrial, folder_of, suiting

    trial = IndexTrial(
        store,
        queries=args.queries,
        k=args.top_k,
        seed=args.seed,
        threads=args.threads or 0,
        augmented=args.vectors == "augmented",
    )
    factories: Sequence[str] = args.index or suiting(len(trial.keys), trial.dimension)
    for factory in factories:
        made(factory, trial.dimension)
    asked, tried = trial.questions(), []
    with tempfile.TemporaryDirectory(prefix=".tune-index-", dir=args.store) as home:
        for factory in factories:
            with display(f"building {factory}", len(trial.keys)) as shown:
                built = trial.build(factory, folder_of(Path(home), factory), shown.update)
            tried.append((built, list(trial.sweep(built, asked))))
    return tried


def _print(tried: Tried, k: int, chosen: TrialPoint | None) -> None:
    """Print a line for each setting."""
    print(
        f"{'index':<36} {'effort':>6} {'rescored':>8} {f'recall@{k}':>9} "
        f"{'ms':>8} {'core ms':>8} {'searches/s':>10} {'build s':>8}"
    )
    for built, points in tried:
        for point in points:
            setting = point.setting
            print(
                f"{setting.factory:<36} {setting.effort or '-':>6} {setting.rescored:>8} {point.recall:>9.4f} "
                f"{1e3 * point.median_s:>8.2f} {1e3 * point.core_s:>8.2f} {point.rate:>10,.0f} "
                f"{built.cost.seconds:>8.1f}{'  <- chosen' if point is chosen else ''}"
            )
    for built, _ in tried:
        cost = built.cost
        print(
            f"{cost.name}: {cost.bytes / cost.size:,.0f} bytes a vector on disk, mapped; "
            f"{cost.own_bytes / cost.size:,.0f} of its own; first answer {1e3 * cost.start_s:,.0f} ms after its start"
        )


def _drawn(tried: Tried, k: int) -> bytes:
    from landseer.ops.evaluate.plots import trade_png

    curves = {built.index.setting.factory: [(one.recall, one.rate) for one in points] for built, points in tried}
    size = tried[0][0].cost.size
    return trade_png(curves, x=f"recall@{k}", y="searches a second", title=f"{size:,} vectors")


def _check_plot(plot: Path | None) -> None:
    """OpsError if it cannot be drawn, before anything is measured."""
    from landseer.ops.evaluate.plots import check_installed
    from landseer.ops.files import check_writable

    if plot is not None:
        check_installed("--plot")
        check_writable(plot, "--plot")


def _share(text: str) -> float:
    """Parse a recall above 0 and up to 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected a recall above 0, at most 1, such as 0.98")
    return value
