"""The figures of public landmark models on Revisited Oxford and Paris, by their publishers' own protocol.

    python -m landseer.ops.research.published revisitop:data,roxford5k --weights gl18-tl-resnet101-gem-w-a4d43db.pth
    python -m landseer.ops.research.published revisitop:data,roxford5k --weights how_r50-.pth --features 2000 \\
        --codebook-from sfm:retrieval-SfM-120k

A server prepares pictures in its own way: it enlarges what is smaller, queries too, and rounds sides. These figures
tell whether weights are read and run as published; `landseer evaluate` tells what a server finds with them.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from landseer.client.commands.output import console as plain_console
from landseer.ensemble.asmk.aggregate import asmk
from landseer.ensemble.asmk.codebook import Codebook, train
from landseer.ensemble.asmk.inverted_file import InvertedFile
from landseer.ensemble.asmk.kernel import KERNELS
from landseer.ensemble.evaluation import Ids, Truth, evaluate
from landseer.export.datasets.errors import DatasetError
from landseer.export.datasets.readers import read
from landseer.export.datasets.revisited import GroundTruth, all_present, ground_truth
from landseer.export.models.checkpoints import exponent, is_checkpoint, parsed
from landseer.export.models.folding import learned_projection, network_projection
from landseer.export.models.heads import GeMHead
from landseer.export.models.how import HOW, SCALES, TRAINING_SCALES, is_how, read_how
from landseer.export.models.pooling import l2n
from landseer.export.models.torch_file import WeightsError, torch_file
from landseer.export.models.trunks import BACKBONES
from landseer.ops.progress import bars

SIDE = 1024
"""Longer side of a picture, at most, in pixels."""
WORDS, LEARNED_FROM, QUERY_WORDS = 65_536, 20_000, 5
"""Of HOW: words, photographs that they are learned from, and words that a query's descriptor is assigned."""
PUBLISHED: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "rSfM120k-tl-resnet50-gem-w": {"roxford5k": (64.7, 39.0), "rparis6k": (76.3, 54.9)},
    "rSfM120k-tl-resnet101-gem-w": {"roxford5k": (67.8, 41.7), "rparis6k": (77.6, 56.3)},
    "gl18-tl-resnet50-gem-w": {"roxford5k": (63.6, 40.9), "rparis6k": (78.0, 57.5)},
    "gl18-tl-resnet101-gem-w": {"roxford5k": (67.3, 44.3), "rparis6k": (80.6, 61.5)},
    "retrievalSfM120k-resnet101-gem retrieval-SfM-120k:ms": {"roxford5k": (65.4, 40.1), "rparis6k": (76.7, 55.2)},
    "how_r18 1000": {"roxford5k": (75.1, float("nan")), "rparis6k": (79.4, float("nan"))},
    "how_r50- 1000": {"roxford5k": (78.3, float("nan")), "rparis6k": (80.1, float("nan"))},
    "how_r50- 2000": {"roxford5k": (79.4, float("nan")), "rparis6k": (81.6, float("nan"))},
}
"""mAP, medium and hard, as the publishers' READMEs state it (HOW's has none of hard).

By the start of the file's name, and the learned whitening, or the number of HOW's descriptors, that it is for."""
Floats = NDArray[np.float32]
Describe = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture, or the part within x0, y0, x1, y1 in pixels."""

    path: Path
    corners: tuple[float, float, float, float] | None = None

    def pixels(self, side: int) -> Tensor:
        """Return RGB [1, 3, H, W] in 0..255. The whole picture is reduced to `side`, a part by the same factor."""
        with Image.open(self.path) as opened:
            picture = opened.convert("RGB")
        whole = max(picture.size)
        if self.corners is not None:
            picture = picture.crop(self.corners)
        wanted = side * max(picture.size) / whole
        picture.thumbnail((wanted, wanted), Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()


class Descriptions:
    """Arrays that a network computes of pictures, kept in a folder: an interrupted run goes on."""

    def __init__(self, describe: Describe, folder: Path, *, side: int) -> None:
        self._describe, self._folder, self._side = describe, folder, side
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, shots: Sequence[Shot], what: str) -> list[Floats]:
        """Return the array of each picture."""
        found = []
        with bars(plain_console(sys.stderr, pipe_width=None)) as bar:
            task = bar.add_task(what, total=len(shots))
            for shot in shots:
                found.append(self._one(shot))
                bar.update(task, advance=1)
        return found

    @torch.inference_mode()
    def _one(self, shot: Shot) -> Floats:
        name = hashlib.sha256(f"{shot.path.resolve()} {shot.corners}".encode()).hexdigest()[:32]
        path = self._folder / f"{name}.npy"
        if path.is_file():
            return np.asarray(np.load(path), np.float32)
        found = self._describe(shot.pixels(self._side)).numpy()
        staged = path.with_suffix(".part.npy")
        np.save(staged, found)
        staged.replace(path)
        return np.asarray(found, np.float32)


def of_gem(path: Path, whitening: str | None) -> Describe:
    """Return how a checkpoint of cnnimageretrieval-pytorch describes a picture: [1, 3, H, W] → [D].

    One with its own whitening at scales 1, √2 and 1/√2 and their mean; others at 1, 1/√2 and 1/2 and their generalised
    mean, then the learned whitening.
    """
    contents = torch_file(path)
    if not is_checkpoint(contents):
        raise WeightsError(f"{path} is neither a checkpoint of cnnimageretrieval-pytorch nor one of HOW")
    architecture = parsed(contents, path).architecture
    loaded = BACKBONES[architecture].load(path, "auto")
    checkpoint = loaded.checkpoint
    assert checkpoint is not None
    p, own = exponent(checkpoint), network_projection(checkpoint)
    head = GeMHead(loaded.trunk.channels, p=p, projection=own).eval()
    learned = learned_projection(checkpoint, whitening) if whitening else None
    scales, power = ((1.0, 2**0.5, 2**-0.5), 1.0) if own is not None else ((1.0, 2**-0.5, 0.5), p)

    def describe(x: Tensor) -> Tensor:
        found = []
        for scale in scales:
            sized = F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
            found.append(head(loaded.trunk(sized), *sized.shape[2:])[0][0])
        mean = l2n(torch.stack(found).pow(power).mean(dim=0).pow(1.0 / power))
        return mean if learned is None else learned(mean)

    return describe


def by_cosine(references: Sequence[Floats], queries: Sequence[Floats]) -> list[Ids]:
    """Return the ranking of the references for each query, by inner product of unit vectors."""
    scores = np.stack(queries) @ np.stack(references).T
    return [np.argsort(-row, kind="stable").astype(np.int64) for row in scores]


def by_words(references: Iterable[Floats], queries: Iterable[Floats], codebook: Codebook) -> list[Ids]:
    """Return the same by ASMK* of local descriptors [n, D]: HOW's kernel; those that share no word come last."""
    binary = [asmk(one, codebook).binarised() for one in references]
    file = InvertedFile(words=codebook.words, bits=codebook.dimension, kernel=KERNELS["how"])
    file.add(np.arange(len(binary), dtype=np.int64), binary)
    rankings = []
    for one in queries:
        keys, _ = file.search(asmk(one, codebook, multiple=QUERY_WORDS).binarised(), len(binary))
        rest = np.setdiff1d(np.arange(len(binary)), keys)
        rankings.append(np.concatenate([keys.astype(np.int64), rest.astype(np.int64)]))
    return rankings


def figures(truth: GroundTruth, rankings: Sequence[Ids]) -> tuple[float, float]:
    """Return mAP of medium and hard, in percent."""
    truths = [Truth(**{name: np.array(rows, np.int64) for name, rows in one.rows.items()}) for one in truth.queries]
    medium, hard = (evaluate(rankings, truths, protocol=one).map for one in ("medium", "hard"))
    return 100 * medium, 100 * hard


def published(weights: Path, option: str, name: str) -> tuple[float, float]:
    """Return the publishers' figures for a file, NaN where they are not known. option: see `PUBLISHED`."""
    for start, known in PUBLISHED.items():
        stem, _, needed = start.partition(" ")
        if weights.name.startswith(stem) and needed == option and name in known:
            return known[name]
    return float("nan"), float("nan")


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    p = argparse.ArgumentParser(prog="python -m landseer.ops.research.published", description=__doc__.splitlines()[0])
    p.add_argument("data", metavar="revisitop:ROOT,NAME", help="the benchmark, NAME roxford5k or rparis6k")
    p.add_argument("--weights", type=Path, required=True, metavar="FILE", help="the checkpoint")
    p.add_argument("--whitening", metavar="DATASET:ms", help="a learned whitening that it holds")
    p.add_argument("--features", type=int, default=1000, metavar="N", help="HOW: descriptors a picture (1000)")
    p.add_argument("--codebook-from", metavar="DATA", help="HOW: photographs to learn words from, 20,000 at most")
    p.add_argument("--words", type=int, default=WORDS, metavar="K", help="HOW: visual words (65536)")
    p.add_argument("--side", type=int, default=SIDE, metavar="PX", help="longer side at most (1024)")
    p.add_argument("--cache", type=Path, default=Path("var/published"), metavar="DIR", help="what was described")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run. Returns the exit status."""
    args = parser().parse_args(argv)
    try:
        truth = ground_truth(args.data.removeprefix("revisitop:"))
        all_present([*truth.references, *(one.path for one in truth.queries)], truth.folder)
        contents = torch_file(args.weights)
        how = read_how(contents, args.weights) if is_how(contents) else None
        rankings = _by_gem(args, truth) if how is None else _by_how(args, truth, how)
    except (DatasetError, WeightsError, ValueError, OSError) as error:
        print(f"published: error: {error}", file=sys.stderr)
        return 1
    known = published(args.weights, (args.whitening or "") if how is None else str(args.features), truth.name)
    for name, found, stated in zip(("medium", "hard"), figures(truth, rankings), known, strict=True):
        told = "not known" if np.isnan(stated) else f"{stated:.1f}"
        print(f"{truth.name} {name:6}  mAP {found:.1f}, published: {told}")
    return 0


def _shots(truth: GroundTruth) -> tuple[list[Shot], list[Shot]]:
    queries = [Shot(path=one.path, corners=one.corners) for one in truth.queries]
    return [Shot(path=path) for path in truth.references], queries


def _by_gem(args: argparse.Namespace, truth: GroundTruth) -> list[Ids]:
    described = Descriptions(of_gem(args.weights, args.whitening), _folder(args, args.whitening), side=args.side)
    references, queries = _shots(truth)
    return by_cosine(described.of(references, "references"), described.of(queries, "queries"))


def _by_how(args: argparse.Namespace, truth: GroundTruth, network: HOW) -> list[Ids]:
    if args.codebook_from is None:
        raise ValueError("HOW needs --codebook-from DATA: the paper's words are learned from retrieval-SfM-120k")

    def descriptions(scales: Sequence[float]) -> Descriptions:
        def describe(x: Tensor) -> Tensor:
            found: Tensor = network(x, scales=scales, count=args.features)
            return found

        return Descriptions(describe, _folder(args, scales, args.features), side=args.side)

    learned = [Shot(path=one.path) for one in read(args.codebook_from).photographs[:LEARNED_FROM]]
    sample = np.concatenate(descriptions(TRAINING_SCALES).of(learned, "photographs to learn words from"))
    codebook, described = train(sample, words=args.words), descriptions(SCALES)
    references, queries = _shots(truth)
    return by_words(described.of(references, "references"), described.of(queries, "queries"), codebook)


def _folder(args: argparse.Namespace, *options: Any) -> Path:
    digest = hashlib.sha256(args.weights.read_bytes() + repr((args.side, options)).encode())
    found: Path = args.cache / digest.hexdigest()[:16]
    return found


if __name__ == "__main__":
    sys.exit(main())
