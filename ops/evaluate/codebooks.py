"""The codebook of an evaluation: one that is given, or words learned from photographs of another data set, kept."""

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
from landseer.ensemble.index.word_index import check_codebook
from landseer.ensemble.inference.profile import Profile
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.dataset import Dataset, Shot
from landseer.ops.evaluate.readers import read

PICTURES = 500
"""Photographs that words are learned from, unless it is said otherwise: 4,096 words with 500 features each."""
Halves = NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class WordSource:
    """Where words come from."""

    file: Path | None = None
    learned_from: str | None = None
    """The data set to learn from, as DATA is named."""
    pictures: int = PICTURES
    """How many of its photographs, drawn with the seed."""
    seed: int = 0

    def shots(self, searched: Dataset) -> list[Shot]:
        """Return the photographs to learn from. OpsError if some are searched, too: words are of other pictures."""
        if self.learned_from is None:
            return []
        shots = list(dict.fromkeys(Shot(path=path) for path in read(self.learned_from).references))
        shared = {shot.path for shot in shots} & set(searched.references)
        if shared:
            raise OpsError(
                f"{len(shared)} photographs of --codebook-from {self.learned_from} are searched, too, such as "
                f"{min(shared)}; learn words from others"
            )
        drawn = np.random.default_rng(self.seed).permutation(len(shots))[: self.pictures]
        return [shots[place] for place in np.sort(drawn)]


class Codebooks:
    """Codebooks by their number of words, each learned once."""

    def __init__(self, source: WordSource, profile: Profile, *, home: Path) -> None:
        """home: the folder that keeps those that are learned."""
        self._source, self._profile, self._home = source, profile, home
        self._learned: dict[int, Codebook] = {}

    def learn(
        self, counts: Iterable[int], features: Callable[[], Iterable[Halves]], key: bytes, console: Console
    ) -> None:
        """Learn words from local descriptors [n, D] of pictures, those counts that are not there; 0 is what fits.

        key: what the descriptors are, so that words are known again.
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
        """Return the codebook given, or the one learned. OpsError if it is not of so many words, or there is none."""
        if words in self._learned:
            return self._learned[words]
        if self._source.file is None:
            raise OpsError("rows that rank by visual words need some: give --codebook FILE or --codebook-from DATA")
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


def _learned(rows: NDArray[np.float32], words: int, source: WordSource, console: Console) -> Codebook:
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
