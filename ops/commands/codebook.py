"""`landseer codebook`: learn visual words, from the deep local features of a store or the keypoints of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from landseer.ops.arguments import positive, seed
from landseer.ops.commands.ending import INTERRUPTED, RESUMES, failed

if TYPE_CHECKING:
    from landseer.ensemble.ingest.vocabulary import FeatureSample

_MORE = """\
With --pictures: words of keypoints, for `landseer serve --codebook FILE`. No server and no models are needed. The
server ships with such words; learn your own only if your pictures differ much from photographs. Pictures that cannot be
read are named and skipped.

With STORE: words of deep local features, for `landseer serve --local-features deep --codebook FILE`. The store must
have been filled with --local-features deep (or both) and must not be in use: stop the server first.

Learn words from other pictures than those you search.

You can interrupt it at any time: finished rounds are kept next to FILE. Run the same command to resume; it extracts the
keypoints again, then continues after the last finished round. Without --words, the number of words is the largest power
of two with at least 39 features per word: at most 16,384 of keypoints, 65,536 of deep local features."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _MORE
    parser.add_argument("store", type=Path, nargs="?", metavar="STORE", help="store to learn from")
    parser.add_argument(
        "--pictures", type=Path, nargs="+", metavar="DIR", help="learn from the pictures in these folders instead"
    )
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
        metavar="N",
        help="learn from about N features, sampled from all pictures (default: 1048576 keypoints, 0.5 GB, or 2555904 "
        "deep local features, 1.3 GB)",
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="random seed (default %(default)s)")
    parser.add_argument(
        "--allow-network-store",
        action="store_true",
        help="allow a store on NFS, SMB or FUSE (unsafe: locks and memory maps may fail)",
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="number of threads (default: all cores)")


def run(args: argparse.Namespace) -> int:
    """Learn. Returns 0; 1 with one line on stderr if it fails, 2 for invalid options, 130 after Ctrl-C."""
    # Imported here because it loads LMDB, numpy and FAISS, and `landseer --help` must stay fast.
    from landseer.client.errors import UnusableInput
    from landseer.ensemble.errors import LandseerError

    try:
        _check(args)
        if not args.output.absolute().parent.is_dir():
            return failed("codebook", f"cannot write {args.output}: there is no folder {args.output.absolute().parent}")
        _learn(args, _of_pictures(args) if args.pictures else _of_store(args))
    except ValueError as error:
        return failed("codebook", str(error), 2)
    except (LandseerError, UnusableInput, OSError) as error:
        return failed("codebook", str(error))
    except KeyboardInterrupt:
        return failed("codebook", f"stopped; finished rounds are kept; {RESUMES}", INTERRUPTED)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.store is None and not args.pictures:
        raise ValueError(
            "got nothing to learn from; name folders of pictures with --pictures DIR, for words of keypoints, or a "
            "store, for words of deep local features"
        )
    if args.store is not None and args.pictures:
        raise ValueError(
            f"got the store {args.store} and --pictures; leave out the store to learn words of keypoints, or leave out "
            "--pictures to learn words of deep local features"
        )


def _of_store(args: argparse.Namespace) -> FeatureSample:
    """Read a sample of the features, and close the store."""
    from landseer.ensemble.ingest.store_features import MOST_FEATURES, sample
    from landseer.ensemble.store.store import Store

    store = Store.open(args.store, fingerprint=None, network=args.allow_network_store)
    try:
        return sample(store, name=str(args.store), most=args.features or MOST_FEATURES, seed=args.seed)
    finally:
        store.close()


def _of_pictures(args: argparse.Namespace) -> FeatureSample:
    """Find keypoints, and name the pictures that cannot be read."""
    import cv2

    from landseer.client.commands.progress import display
    from landseer.client.errors import UnusableInput
    from landseer.client.picture_files import check_found, find_pictures
    from landseer.ensemble.ingest.picture_features import MOST_FEATURES, sample_pictures

    if args.threads:
        cv2.setNumThreads(args.threads)
    found = find_pictures(args.pictures)
    check_found(found, args.pictures)
    for over in found.unreadable:
        if over.path in args.pictures:
            raise UnusableInput(f"{over.path}: {over.reason}")  # Words would lack what was asked for.
    files = [picture.path for picture in found.pictures]
    with display("finding keypoints, picture", len(files)) as shown:
        for over in found.unreadable:
            shown.note(f"skipped {over.path}: {over.reason}")
        return sample_pictures(
            files,
            folders=", ".join(map(str, args.pictures)),
            most=args.features or MOST_FEATURES,
            seed=args.seed,
            report=shown.update,
            skip=lambda file, why: shown.note(f"skipped {file}: {why}"),
        )


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
