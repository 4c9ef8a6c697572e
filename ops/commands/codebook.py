"""`landseer codebook`: learn visual words from the local features of a store."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from landseer.ops.arguments import positive, seed
from landseer.ops.commands.ending import INTERRUPTED, RESUMES, failed

if TYPE_CHECKING:
    from landseer.ensemble.ingest.vocabulary import FeatureSample

_MORE = """\
The store must have been filled with `landseer serve --local-features deep` and must not be in use: stop the server
first. Learn words from other pictures than those you search: index some into a separate store.

You can interrupt it at any time: finished rounds are kept next to FILE; run the same command again to resume. Without
--words, the number of words is the largest power of two with at least 39 features per word, at most 65,536."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("store", type=Path, metavar="STORE", help="store to learn from")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("codebook.safetensors"),
        metavar="FILE",
        help="output file (default %(default)s)",
    )
    parser.add_argument("--words", type=positive, metavar="K", help="number of words (default: see below)")
    parser.add_argument(
        "--rounds", type=positive, default=25, metavar="N", help="rounds of k-means (default %(default)s)"
    )
    parser.add_argument(
        "--features",
        type=positive,
        default=2_555_904,
        metavar="N",
        help="learn from about N features, sampled from all pictures (default %(default)s, 1.3 GB)",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="random seed (default %(default)s)")
    parser.add_argument("--threads", type=positive, metavar="N", help="number of threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Learn. Returns 0; 1 with one line on stderr if it fails, 2 for invalid options, 130 after Ctrl-C."""
    # Imported here because it loads LMDB, numpy and FAISS, and `landseer --help` must stay fast.
    from landseer.ensemble.errors import LandseerError

    try:
        if not args.output.absolute().parent.is_dir():
            return failed("codebook", f"cannot write {args.output}: there is no folder {args.output.absolute().parent}")
        _learn(args, _sample(args))
    except ValueError as error:
        return failed("codebook", str(error), 2)
    except (LandseerError, OSError) as error:
        return failed("codebook", str(error))
    except KeyboardInterrupt:
        return failed("codebook", f"stopped; finished rounds are kept; {RESUMES}", INTERRUPTED)
    return 0


def _sample(args: argparse.Namespace) -> FeatureSample:
    """Read a sample of the features, and close the store."""
    from landseer.ensemble.ingest.vocabulary import sample
    from landseer.ensemble.store.store import Store

    store = Store.open(args.store, fingerprint=None)
    try:
        return sample(store, name=str(args.store), most=args.features, seed=args.seed)
    finally:
        store.close()


def _learn(args: argparse.Namespace, drawn: FeatureSample) -> None:
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
        f"{book.words:,} words from {len(drawn.features):,} features of {drawn.source.pictures:,} pictures after "
        f"{book.card['rounds']} rounds, mean squared error {book.card['error']:.4f}: {args.output}"
    )
