"""Which index versions belong to a store: their tokens, noted in it.

A store that was put back from a backup does not know the versions that were built after that, which hold other
pictures under the keys that it will give out again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

_NOTE = b"index_versions"
MOST = 64
"""Tokens: far more than versions are kept."""


class IndexTokens:
    """The tokens in an open store. Threads may share it."""

    def __init__(self, environment: Any, meta: Any, write: Callable[[], AbstractContextManager[Any]]) -> None:
        self._environment, self._meta, self._write = environment, meta, write

    def read(self) -> frozenset[str]:
        """Return the tokens of the versions that were built from this store."""
        with self._environment.begin() as transaction:
            return frozenset(json.loads(bytes(transaction.get(_NOTE, b"[]", db=self._meta))))

    def note(self, token: str) -> None:
        """Add a token; the latest `MOST` are kept. On disk when this returns. StoreFull; StoreUnusable."""
        with self._write() as transaction:
            known = json.loads(bytes(transaction.get(_NOTE, b"[]", db=self._meta)))
            transaction.put(_NOTE, json.dumps([*known, token][-MOST:]).encode(), db=self._meta)
