"""Match many pairs of pictures on several threads, each only once."""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

from landseer.export.curation.errors import UnreadablePicture
from landseer.export.curation.features import Features, extract
from landseer.export.curation.settings import MatchSettings
from landseer.export.curation.store import MatchStore, match_store
from landseer.export.curation.verification import Match, verify

_Item = TypeVar("_Item")
CHUNK = 16
"""Pictures or pairs in flight per worker; Ctrl-C waits for these only."""
REMEMBERED = 2000
"""Pictures whose features stay in memory, about 140 KB each."""


class Matcher:
    """Verify pairs of pictures on a thread pool; results in the store are not computed again."""

    def __init__(self, store: MatchStore, settings: MatchSettings, pool: ThreadPoolExecutor, *, workers: int) -> None:
        self.settings = settings
        self.unreadable: dict[Path, str] = {}
        """Reason by file."""
        self._store, self._pool, self._chunk = store, pool, CHUNK * workers
        self._digests: dict[Path, bytes] = {}
        self._features: OrderedDict[bytes, Features] = OrderedDict()

    def prepare(self, paths: Iterable[Path], *, progress: Callable[[], None] = lambda: None) -> None:
        """Extract the keypoints of pictures; unreadable files go into `unreadable`."""
        for some in _chunks(dict.fromkeys(paths), self._chunk):
            fresh = [path for path in some if path not in self._digests and path not in self.unreadable]
            self._digest(fresh)
            self._extract([path for path in fresh if path in self._digests])
            for _ in some:
                progress()

    def readable(self, paths: Sequence[Path]) -> set[Path]:
        """Prepare pictures and return the readable ones."""
        self.prepare(paths)
        return {path for path in paths if path in self._digests}

    def match(self, pairs: Iterable[tuple[Path, Path]]) -> Iterator[Match | None]:
        """Yield the match of each pair of prepared pictures, in order. KeyError for an unprepared picture."""
        for some in _chunks(pairs, self._chunk):
            digests = [(self._digests[first], self._digests[second]) for first, second in some]
            known = {pair: self._store.match(*pair) for pair in digests}
            fresh = [pair for pair, (done, _) in known.items() if not done]
            features = [(self._known(first), self._known(second)) for first, second in fresh]
            found = self._pool.map(partial(_verify, self.settings), features)
            for pair, match in zip(fresh, found, strict=True):
                self._store.put_match(*pair, match)
                known[pair] = (True, match)
            yield from (known[pair][1] for pair in digests)

    def size(self, path: Path) -> tuple[int, int]:
        """Return the reduced width and height in pixels of a prepared picture. KeyError for an unprepared one."""
        size = self._store.size(self._digests[path])
        if size is None:
            raise KeyError(path)
        return size

    def _digest(self, paths: Sequence[Path]) -> None:
        for path, found in zip(paths, self._pool.map(_digest, paths), strict=True):
            if isinstance(found, bytes):
                self._digests[path] = found
            else:
                self.unreadable[path] = str(found.strerror or found)

    def _extract(self, paths: Sequence[Path]) -> None:
        fresh = [path for path in paths if self._store.size(self._digests[path]) is None]
        for path, found in zip(fresh, self._pool.map(partial(_extract, self.settings), fresh), strict=True):
            if isinstance(found, Features):
                self._store.put_features(self._digests[path], found)
            else:
                del self._digests[path]
                self.unreadable[path] = str(found)

    def _known(self, digest: bytes) -> Features:
        features = self._features.pop(digest, None) or self._store.features(digest)
        if features is None:
            raise KeyError(digest.hex())
        self._features[digest] = features
        while len(self._features) > REMEMBERED:
            self._features.popitem(last=False)
        return features


@contextmanager
def matcher(path: Path, settings: MatchSettings, *, workers: int) -> Iterator[Matcher]:
    """Open a matcher with a file as store. CurationError if the file cannot be used."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="match")
    try:
        with match_store(path, settings) as store:
            yield Matcher(store, settings, pool, workers=workers)
    finally:
        pool.shutdown(cancel_futures=True)


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    left = iter(items)
    while some := list(itertools.islice(left, size)):
        yield some


def _digest(path: Path) -> bytes | OSError:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:
        return error


def _verify(settings: MatchSettings, features: tuple[Features, Features]) -> Match | None:
    return verify(*features, settings)


def _extract(settings: MatchSettings, path: Path) -> Features | UnreadablePicture:
    try:
        return extract(path, settings)
    except UnreadablePicture as error:
        return error
