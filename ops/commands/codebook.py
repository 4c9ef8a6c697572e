"""`landseer codebook`: learns visual words from the local features of a store."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from landseer.ops.arguments import positive, seed

if TYPE_CHECKING:
    from landseer.ensemble.ingest.vocabulary import Sample

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""
_MORE = """\
The store must have been filled by `landseer serve --local-features`, and not be in use: stop the server first. Words
should come from other pictures than those searched; index some into a store of their own.

Stop it at any time: the rounds that are done are kept beside FILE, and the same command goes on from there. Without
--words their number follows the features: the largest power of two that leaves 39 of them to each, at most 65,536."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("store", type=Path, metavar="STORE", help="folder of indexed pictures to learn from")
    parser.add_argument(
        "--output", type=Path, default=Path("codebook.safetensors"), metavar="FILE", help="default %(default)s"
    )
    parser.add_argument("--words", type=positive, metavar="K", help="how many (default: as many as the features allow)")
    parser.add_argument("--rounds", type=positive, default=25, metavar="N", help="of k-means (default %(default)s)")
    parser.add_argument(
        "--features",
        type=positive,
        default=2_555_904,
        metavar="N",
        help="learn from about so many, drawn by the seed from all pictures (default %(default)s, 1.3 GB)",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="default %(default)s")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all cores")


def run(args: argparse.Namespace) -> int:
    """Learn. 0; 1 with one line on stderr if it cannot be done, 2 for options that cannot be, 130 after Ctrl-C."""
    # LMDB, numpy and FAISS load with it; `landseer --help` should not wait for them.
    from landseer.ensemble.errors import LandseerError

    try:
        if not args.output.absolute().parent.is_dir():
            return _say(f"cannot write {args.output}: there is no folder {args.output.absolute().parent}", 1)
        _learn(args, _sample(args))
    except ValueError as error:
        return _say(str(error), 2)
    except (LandseerError, OSError) as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        return _say("stopped; the rounds that are done are kept, and the same command goes on from there", INTERRUPTED)
    return 0


def _sample(args: argparse.Namespace) -> Sample:
    """Read the features. The store is free again when it returns."""
    from landseer.ensemble.ingest.vocabulary import sample
    from landseer.ensemble.store.store import Store

    store = Store.open(args.store, fingerprint=None)
    try:
        return sample(store, name=str(args.store), most=args.features, seed=args.seed)
    finally:
        store.close()


def _learn(args: argparse.Namespace, drawn: Sample) -> None:
    import faiss

    from landseer.client.commands.progress import display
    from landseer.ensemble.ingest.vocabulary import learn

    if args.threads:
        faiss.omp_set_num_threads(args.threads)
    with display("learning words, round", args.rounds) as shown:
        book = learn(
            drawn,
            args.output,
            words=args.words,
            rounds=args.rounds,
            report=lambda done: shown.update(done.number),
        )
    print(
        f"{book.words:,} words of {len(drawn.features):,} features of {drawn.source.pictures:,} pictures after "
        f"{book.card['rounds']} rounds, mean squared error {book.card['error']:.4f}: {args.output}"
    )


def _say(why: str, status: int) -> int:
    print(f"landseer codebook: {why}", file=sys.stderr)
    return status
