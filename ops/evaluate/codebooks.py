"""The codebook of an evaluation: a given one, or one learned from another data set and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from landseer.ensemble.asmk.codebook import ROUNDS, Codebook, fitting_words, train
from landseer.ensemble.errors import ProfileMismatch
from landseer.ensemble.index.deep_words import check_codebook
from landseer.ensemble.inference.profile import Profile
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset, Shot
from landseer.ops.evaluate.readers import read

PICTURES = 500
"""Default number of photographs to learn words from: with 500 features each, enough for 4,096 words."""
Halves = NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class CodebookSource:
    """Where the visual words come from."""

    file: Path | None = None
    learned_from: str | None = None
    """The data set to learn from, written like DATA."""
    pictures: int = PICTURES
    """Number of its photographs to learn from, drawn with the seed."""
    seed: int = 0

    def shots(self, searched: Dataset) -> list[Shot]:
        """Return the photographs to learn from. OpsError if some of them are also searched."""
        if self.learned_from is None:
            return []
        shots = list(dict.fromkeys(Shot(path=path) for path in read(self.learned_from).references))
        shared = {shot.path for shot in shots} & set(searched.references)
        if shared:
            raise OpsError(
                f"{len(shared)} photographs of --codebook-from {self.learned_from} are also searched, such as "
                f"{min(shared)}; learn words from others"
            )
        drawn = np.random.default_rng(self.seed).permutation(len(shots))[: self.pictures]
        return [shots[place] for place in np.sort(drawn)]


class CodebooksBySize:
    """Codebooks by number of words, each learned once."""

    def __init__(self, source: CodebookSource, profile: Profile, *, home: Path) -> None:
        """home: the folder for learned codebooks."""
        self._source, self._profile, self._home = source, profile, home
        self._learned: dict[int, Codebook] = {}

    def learn(
        self, counts: Iterable[int], features: Callable[[], Iterable[Halves]], key: bytes, console: Console
    ) -> None:
        """Learn the codebooks that do not exist yet from local descriptors [n, D] of pictures.

        counts: numbers of words; 0 for as many as the descriptors allow. key: identifies the descriptors.
        """
        rows: NDArray[np.float32] | None = None
        for words in dict.fromkeys(counts):
            path = self._home / f"{self._key(key, words)}.safetensors"
            if not path.exists():
                rows = _rows(features()) if rows is None else rows
                path.parent.mkdir(parents=True, exist_ok=True)
                found = _learned(rows, words, self._source, console)
                replace(found, card={**found.card, "locals_sha256": self._profile.locals_sha256}).save(path)
            self._learned[words] = Codebook.load(path)

    def of(self, words: int) -> Codebook:
        """Return the learned codebook, or else the given one. OpsError if its size differs or there is none."""
        if words in self._learned:
            return self._learned[words]
        if self._source.file is None:
            raise OpsError(
                "rows that rank by visual words need a codebook: give --codebook FILE or --codebook-from DATA"
            )
        book = _read(self._source.file, self._profile)
        if words not in (0, book.words):
            raise OpsError(
                f"{self._source.file} has {book.words:,} words; got a row of {words:,}: leave the number out"
            )
        return book

    def _key(self, key: bytes, words: int) -> str:
        what = f"{self._profile.locals_sha256} {words} {self._source.seed} {ROUNDS}".encode()
        return hashlib.sha256(what + key).hexdigest()[:24]


def _rows(features: Iterable[Halves]) -> NDArray[np.float32]:
    return np.concatenate([one.astype(np.float32) for one in features])


def _learned(rows: NDArray[np.float32], words: int, source: CodebookSource, console: Console) -> Codebook:
    count = words or fitting_words(len(rows))
    with console.status(f"learning {count:,} words") as status:
        try:
            return train(
                rows,
                words=count,
                seed=source.seed,
                report=lambda done: status.update(f"learning {count:,} words: round {done.number} of {ROUNDS}"),
            )
        except ValueError as error:
            raise OpsError(f"cannot learn {count:,} words from {source.learned_from}: {error}") from error


def _read(path: Path, profile: Profile) -> Codebook:
    try:
        book = Codebook.load(path)
    except (OSError, ValueError) as error:
        raise OpsError(f"--codebook {path} cannot be read: {error}") from error
    try:
        check_codebook(book, profile, str(path))
    except ProfileMismatch as error:
        raise OpsError(f"--codebook: {error}") from error
    return book
