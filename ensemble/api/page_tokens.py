"""Page tokens of searches (AIP-158): where the next page begins, of which request, and in which collection.

Whoever changes a token gets another page of the same search, or an error: it grants nothing, so it is not signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from landseer.ensemble.errors import InvalidInput
from landseer.v1 import search_pb2

_TOKEN = struct.Struct("<BIQ16s")
_FORMAT = 1
_MOST_CHARACTERS = 100


@dataclass(frozen=True, kw_only=True)
class PageToken:
    """What a page token says."""

    offset: int
    """Hits on the pages before."""
    sequence: int
    """Number of changes of the store at the first page."""
    digest: bytes
    """Of the request: 16 bytes."""

    @classmethod
    def read(cls, text: str, digest: Callable[[], bytes]) -> PageToken:
        """Read a token. InvalidInput if it is none, or of a request with another digest.

        digest: returns that of the request; only asked of what has the form of a token, as it reads the whole picture.
        """
        try:
            if len(text) > _MOST_CHARACTERS:
                raise ValueError(f"{len(text)} characters")
            form, offset, sequence, of = _TOKEN.unpack(base64.b64decode(text, altchars=b"-_", validate=True))
            if form != _FORMAT:
                raise ValueError(f"format {form}")
        except (ValueError, binascii.Error, struct.error) as error:
            said = "it is no page token; send next_page_token of the page before, or none for the first page"
            raise InvalidInput("page_token", said) from error
        if of != digest():
            said = "it belongs to another request; keep everything but page_size the same from page to page"
            raise InvalidInput("page_token", said)
        return cls(offset=offset, sequence=sequence, digest=of)

    def __str__(self) -> str:
        packed = _TOKEN.pack(_FORMAT, self.offset, self.sequence, self.digest)
        return base64.urlsafe_b64encode(packed).decode()


def digest_of(request: search_pb2.SearchRequest) -> bytes:
    """Return what pages of one search have in common: 16 bytes, of all but the page. The picture is not copied."""
    found = hashlib.blake2b(request.image, digest_size=16)
    bare = search_pb2.SearchRequest()
    for field, value in request.ListFields():
        if field.name not in ("image", "page_size", "page_token"):
            _set(bare, field.name, value)
    found.update(bare.SerializeToString(deterministic=True))
    return found.digest()


def _set(message: search_pb2.SearchRequest, name: str, value: Any) -> None:
    if isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
