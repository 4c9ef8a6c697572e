"""Codebooks: visual words are the centroids of k-means over local features.

D2R trains on whole-picture features of *another* data set than the one searched: full Euclidean k-means, 1,024 or
65,536 words. `spherical` normalises the centroids.

Files are safetensors. `safetensors.numpy` copies what it reads, so a file is not memory-mapped; the largest codebook is
32 MB.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

Features = NDArray[np.float32]
Words = NDArray[np.int64]

MOST_WORDS = 65536
FEATURES_A_WORD = 39
"""Training features per word. With fewer, centroids follow single features; FAISS warns below the same number."""
ROUNDS = 25
_ABOUT = "codebook"
"""The entry of the file's metadata that holds card and checksum."""
_BLOCK = 2**22
"""Products of features and centroids computed at once: 16 MB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Codebook:
    """K visual words. Threads may share it."""

    centroids: Features
    """[K, D]."""
    card: Mapping[str, Any] = field(default_factory=dict)
    """How it was made; JSON values."""

    def __post_init__(self) -> None:
        if self.centroids.ndim != 2 or not self.centroids.size:
            raise ValueError(f"got centroids of shape {self.centroids.shape}; expected [words, values], both above 0")
        if not np.isfinite(self.centroids).all():
            raise ValueError("got centroids with values that are not finite; train the codebook again")

    @cached_property
    def _halves(self) -> Features:
        """Half the squared norms of the centroids, [K]."""
        halves: Features = 0.5 * np.square(self.centroids).sum(axis=1)
        return halves

    @property
    def words(self) -> int:
        """K, the number of words."""
        return len(self.centroids)

    @property
    def dimension(self) -> int:
        """D, the number of values of a feature."""
        return int(self.centroids.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the centroids."""
        return sha256(np.ascontiguousarray(self.centroids).data).hexdigest()[:16]

    def assign(self, features: Features, *, multiple: int = 1) -> Words:
        """Return the nearest words of features [N, D]: int64 [N, multiple], nearest first; ties go to the lower word.

        Exact, by comparison with all centroids in fp32. D2R assigns one word; HOW assigns five to query features and
        one to candidate features. ValueError if the features have another D, or `multiple` is not from 1 to K.
        """
        rows = checked(features, self.dimension)
        if not 1 <= multiple <= self.words:
            raise ValueError(f"got multiple = {multiple}; expected 1 to {self.words}, the words of the codebook")
        step = max(1, _BLOCK // self.words)
        blocks = [self._nearest(rows[first : first + step], multiple) for first in range(0, len(rows), step)]
        return np.concatenate(blocks) if blocks else np.empty((0, multiple), np.int64)

    def save(self, path: Path, *, half: bool = False) -> None:
        """Write centroids and card to one safetensors file, whole or not at all. OSError if it cannot be written.

        half: round the centroids to half precision, for a file of half the size. `load` returns the rounded ones.
        """
        centroids = np.ascontiguousarray(self.centroids, np.float16 if half else np.float32)
        about = {"card": dict(self.card), "crc32": {"centroids": zlib.crc32(centroids.data)}}
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with draft.open("wb") as file:
                # One entry of metadata: safetensors writes several in random order, so equal codebooks would differ.
                file.write(save({"centroids": centroids}, {_ABOUT: json.dumps(about)}))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> Codebook:
        """Read what `save` wrote and verify its checksum. ValueError if it is no codebook or damaged, OSError."""
        with path.open("rb"):
            pass  # safetensors reports an unreadable file without its path and errno
        try:
            with safe_open(path, framework="numpy") as file:
                names = file.keys()
                if "centroids" not in names:
                    raise ValueError(f"it holds {', '.join(names)}, but no centroids")
                centroids, about = file.get_tensor("centroids"), _about(file.metadata() or {})
            if zlib.crc32(centroids.data) != about["crc32"]["centroids"]:
                raise ValueError("its checksum is wrong")
            return cls(centroids=centroids.astype(np.float32, copy=False), card=dict(about["card"]))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            said = f"no {error} in its metadata" if isinstance(error, KeyError) else error
            raise ValueError(
                f"{path} is damaged or not a codebook ({said}); make it with `landseer codebook`"
            ) from error

    def _nearest(self, rows: Features, multiple: int) -> Words:
        # |f - c|^2 = |f|^2 - 2 (f c - |c|^2 / 2): the nearest has the largest bracket.
        nearness = rows @ self.centroids.T - self._halves  # [n, K]
        found = np.empty((len(rows), multiple), np.int64)
        for place in range(multiple):
            # For a few words, one pass each is cheaper than a partition.
            found[:, place] = nearness.argmax(axis=1)
            nearness[np.arange(len(rows)), found[:, place]] = -np.inf
        return found


def _about(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return card and checksums from a file's metadata. Earlier versions wrote them as two entries."""
    if _ABOUT in metadata:
        return dict(json.loads(metadata[_ABOUT]))
    return {name: json.loads(metadata[name]) for name in ("card", "crc32")}


@dataclass(frozen=True, kw_only=True, eq=False)
class KMeansRound:
    """The codebook after one round of k-means."""

    number: int
    """From 1."""
    centroids: Features
    """[K, D]."""
    error: float
    """The mean squared distance of the features to the centroids before the round."""


def fitting_words(features: int, *, most: int = MOST_WORDS) -> int:
    """Return the largest power of two with at least 39 features per word, from 1 to `most`.

    65,536 words need 2.6 million features, 5,100 pictures of 500; 1,024 words need 80 pictures.
    """
    return int(min(most, 2 ** max(0, (features // FEATURES_A_WORD).bit_length() - 1)))


def train(
    features: Features,
    *,
    words: int | None = None,
    seed: int = 0,
    rounds: int = ROUNDS,
    spherical: bool = False,
    report: Callable[[KMeansRound], None] | None = None,
) -> Codebook:
    """Train a codebook on features [N, D] by full k-means, started from `words` of them, drawn by `seed`.

    words: K; None for `fitting_words`. report: called after each round. The same features, settings and number of
    threads give the same codebook. ValueError if there are fewer features than words, or values are not finite.
    """
    rows = checked(features, features.shape[-1])
    words = fitting_words(len(rows)) if words is None else words
    centroids = start(rows, words, seed=seed)
    for done in refined(rows, centroids, rounds=rounds, seed=seed, spherical=spherical):
        centroids = done.centroids
        if report:
            report(done)
    card = {"words": words, "features": len(rows), "rounds": rounds, "seed": seed, "spherical": spherical}
    return Codebook(centroids=centroids, card=card)


def start(features: Features, words: int, *, seed: int = 0) -> Features:
    """Return `words` of the features [N, D], drawn by `seed`: the initial centroids [K, D]."""
    if not 1 <= words <= len(features):
        raise ValueError(f"got {len(features)} features for {words} words; use more features, or fewer words")
    chosen = np.random.default_rng(seed).choice(len(features), words, replace=False)
    return checked(features[np.sort(chosen)], features.shape[1])


def refined(
    features: Features, centroids: Features, *, rounds: int, after: int = 0, seed: int = 0, spherical: bool = False
) -> Iterator[KMeansRound]:
    """Yield rounds `after` + 1 to `rounds` of Lloyd's k-means over features [N, D], from centroids [K, D].

    Resuming from the centroids of round n with after = n gives the same result. An empty word takes half of the
    features of a large one (FAISS).
    """
    import faiss

    (count, dimension), words = features.shape, len(centroids)
    # Otherwise FAISS would draw a sample, or print a warning.
    limits = {"max_points_per_centroid": -(-count // words), "min_points_per_centroid": 1}
    for number in range(after + 1, rounds + 1):
        means: Any = faiss.Kmeans(dimension, words, niter=1, seed=seed + number, spherical=spherical, **limits)
        means.train(features, init_centroids=centroids)
        centroids = np.array(means.centroids, np.float32)
        yield KMeansRound(number=number, centroids=centroids, error=float(means.obj[0]) / count)


def checked(features: Features, dimension: int) -> Features:
    """Return features as contiguous fp32 rows [N, D]. ValueError for another D, or values that are not finite."""
    rows = np.ascontiguousarray(features, np.float32)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise ValueError(f"got features of shape {np.shape(features)}; expected rows of {dimension} values")
    if not np.isfinite(rows).all():
        raise ValueError("got features with values that are not finite; drop them, or describe the picture again")
    return rows
