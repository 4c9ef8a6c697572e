"""The visual words of a store's pictures, stored so that a server need not compute them at each start.

They depend on the local features and a codebook. The codebook's fingerprint is the stamp; with another codebook they
are deleted. If the server has a codebook, a picture's words are written in the transaction of its record, and they are
deleted with it; missing words are computed when they are first used.

On disk, by key: the number of bits of a code (uint16), then the words (uint32), then their codes, little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from landseer.ensemble.asmk.aggregate import Binary
from landseer.ensemble.store.folder import LOCALS, WORDS
from landseer.ensemble.store.record import pack_key, unpack_key

_STAMP = b"words"
_BITS, _WORD = struct.Struct("<H"), np.dtype("<u4")
Keys = npt.NDArray[np.int64]


class StoredWords:
    """The visual words in an open store. Threads may share it."""

    def __init__(
        self, environment: Any, databases: dict[bytes, Any], write: Callable[..., AbstractContextManager[Any]]
    ) -> None:
        self._environment, self._write = environment, write
        self._meta, self._database, self._locals = databases[b"meta"], databases[WORDS], databases[LOCALS]

    @property
    def codebook(self) -> str:
        """Fingerprint of the codebook of the stored words; empty if there was none yet."""
        with self._environment.begin() as transaction:
            return bytes(transaction.get(_STAMP, b"", db=self._meta)).decode()

    def stamp(self, codebook: str) -> None:
        """Switch to the codebook with this fingerprint; words of another codebook are deleted."""
        with self._environment.begin() as transaction:
            there = transaction.get(_STAMP, db=self._meta)
        if there == codebook.encode():
            return
        with self._write(grows=False) as transaction:
            transaction.drop(self._database, delete=False)
            transaction.put(_STAMP, codebook.encode(), db=self._meta)

    def put(self, transaction: Any, key: bytes, words: Binary) -> None:
        """Write a picture's words in the transaction of its record. ValueError without a stamp."""
        if transaction.get(_STAMP, db=self._meta) is None:
            raise ValueError("the store has no stamp for visual words; stamp it with the codebook's fingerprint first")
        transaction.put(key, pack_words(words), db=self._database)

    def add(self, keys: Sequence[int], pictures: Sequence[Binary]) -> None:
        """Write the words of stored pictures; those deleted meanwhile are skipped. StoreFull."""
        with self._write() as transaction:
            for key, words in zip(map(pack_key, keys), pictures, strict=True):
                if transaction.get(key, db=self._locals) is not None:
                    self.put(transaction, key, words)

    def scan(self, *, batch: int = 1024, after: int = 0) -> Iterator[tuple[Keys, list[Binary]]]:
        """Yield keys int64 [n] above `after` and words of all pictures that have any, in key order.

        Each batch is from one snapshot.
        """
        while True:
            with self._environment.begin(db=self._database, buffers=True) as transaction:
                cursor = transaction.cursor()
                there = cursor.set_range(pack_key(after + 1))
                pairs = [(unpack_key(key), unpack_words(data)) for key, data in islice(cursor, batch)] if there else []
            if not pairs:
                return
            yield np.array([key for key, _ in pairs], np.int64), [words for _, words in pairs]
            after = pairs[-1][0]

    def missing(self) -> list[int]:
        """Return the keys of pictures with local features but without words, ascending."""
        with self._environment.begin() as transaction:
            known = {bytes(key) for key in transaction.cursor(self._database).iternext(values=False)}
            every = transaction.cursor(self._locals).iternext(values=False)
            return [unpack_key(key) for key in every if bytes(key) not in known]


def pack_words(words: Binary) -> bytes:
    """Return the bytes for the store."""
    return _BITS.pack(words.bits) + words.words.astype(_WORD).tobytes() + words.codes.tobytes()


def unpack_words(data: bytes | memoryview) -> Binary:
    """Return what `pack_words` packed. ValueError for other bytes."""
    if len(data) < _BITS.size:
        raise ValueError(f"not visual words: {len(data)} bytes")
    (bits,) = _BITS.unpack_from(data)
    width = -(-bits // 8)
    count, rest = divmod(len(data) - _BITS.size, _WORD.itemsize + width)
    if rest or not bits:
        raise ValueError(f"not visual words: {len(data)} bytes with codes of {bits} bits")
    words = np.frombuffer(data, _WORD, count, _BITS.size).astype(np.int64)
    codes = np.frombuffer(data, np.uint8, count * width, _BITS.size + words.size * _WORD.itemsize)
    return Binary(words=words, codes=codes.reshape(count, width).copy(), bits=bits)
