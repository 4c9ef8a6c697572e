"""Lists the pictures of a store in the order of their ids."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from landseer.ensemble.store.record import metadata_of, unpack_key
from landseer.ensemble.store.sums import Sums

METADATA_BYTES = 2**20
"""Bytes of metadata after which a page ends: a thousand pictures may have 64 MiB."""
LOOKED_AT = 50_000
"""Pictures after which a page ends even if few of them are among those wanted: 0.1 s."""


class Wanted(Protocol):
    """Which pictures are listed."""

    def wants(self, key: int, id: str, metadata: Callable[[], Mapping[str, str]]) -> bool:
        """Return whether a picture is one of them. metadata: reads its metadata."""


@dataclass(frozen=True, kw_only=True)
class ListedPicture:
    """A picture on a page."""

    id: str
    metadata: dict[str, str] = field(default_factory=dict)
    """Empty unless asked for."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some pictures, sorted by the bytes of their ids."""

    pictures: tuple[ListedPicture, ...]
    next: str = ""
    """The id behind which the next page begins; empty if this is the last one."""


@dataclass(frozen=True, kw_only=True)
class PageQuery:
    """What a page shows."""

    prefix: str = ""
    """Only ids that start with this."""
    after: str = ""
    """Only ids behind this one; empty for the first page."""
    size: int = 1000
    """Most pictures."""
    metadata: bool = False
    """Whether to read the metadata: a page of the disk each."""


Row = tuple[str, int, Callable[[], dict[str, str]]]
"""The id of a picture, its key, and what reads its metadata."""


def page_of(rows: Iterable[Row], query: PageQuery, among: Wanted | None) -> Page:
    """Make a page of the pictures that a query may show, by id. among: which of them; None for all.

    Errors of reading the rows, and their metadata.
    """
    found: list[ListedPicture] = []
    room, last = METADATA_BYTES, ""
    for looked_at, (id, key, read) in enumerate(rows):
        if len(found) == query.size or room <= 0 or looked_at == LOOKED_AT:
            return Page(pictures=tuple(found), next=last)
        last = id
        if among is not None and not among.wants(key, id, read):
            continue
        metadata = read() if query.metadata else {}
        room -= sum(len(name) + len(value) for name, value in metadata.items())
        found.append(ListedPicture(id=id, metadata=metadata))
    return Page(pictures=tuple(found))


def rows_of(transaction: Any, databases: dict[bytes, Any], sums: Sums, query: PageQuery) -> Iterator[Row]:
    """Yield the pictures that a query may show. StoreUnusable or ValueError for a record that is damaged."""
    for id, key in _ids(transaction.cursor(databases[b"ids"]), query):
        yield id, unpack_key(key), partial(_metadata, transaction, databases, sums, key)


def _ids(cursor: Any, query: PageQuery) -> Iterator[tuple[str, bytes]]:
    """Yield ids with their keys, from the first that the query wants."""
    prefix, after = query.prefix.encode(), query.after.encode()
    start = max(prefix, after)
    if not (cursor.set_range(start) if start else cursor.first()):
        return
    for id, key in cursor:
        if not bytes(id).startswith(prefix):
            return
        if bytes(id) > after:
            yield str(id, "utf-8"), bytes(key)


def _metadata(transaction: Any, databases: dict[bytes, Any], sums: Sums, key: bytes) -> dict[str, str]:
    data = transaction.get(key, db=databases[b"records"])
    sums.check(transaction, key, b"records", data)
    if data is None:
        raise ValueError(f"record {unpack_key(key)} is missing")
    return metadata_of(data)
