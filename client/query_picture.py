"""The query of a search as a picture, for the page of hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from landseer.client.markup import media_type
from landseer.v1.common_pb2 import Box, DetectedBox, Heatmap
from landseer.v1.index_pb2 import GetResponse
from landseer.v1.search_pb2 import SearchResponse

EMBED_LIMIT = 1_500_000
"""Largest query picture, in bytes, to embed as it is. For larger ones the server's thumbnail is shown."""


@dataclass(frozen=True, kw_only=True)
class QueryPicture:
    """The query picture and what to draw on it."""

    image: bytes
    """In a format that browsers show; empty if there is none."""
    width: int
    height: int
    """Size of the whole picture, in the pixels of `region` and `boxes`."""
    region: Box | None = None
    """The part searched for; None for the whole picture."""
    attention: Heatmap = field(default_factory=Heatmap)
    """Covers `region`."""
    boxes: Sequence[DetectedBox] = ()
    small: bytes = b""
    """A small copy of it, for the drawings of matches; empty if there is none."""

    @classmethod
    def of_query(cls, answer: SearchResponse, image: bytes) -> QueryPicture:
        """Build it from the server's explanation of a picture that was sent."""
        told = answer.query_explanation
        sharp = len(image) <= EMBED_LIMIT and media_type(image) in ("image/jpeg", "image/png", "image/webp")
        return cls(
            image=image if sharp else told.thumbnail,
            width=told.width,
            height=told.height,
            region=told.region if told.HasField("region") else None,
            attention=told.attention,
            boxes=tuple(told.boxes),
            small=told.thumbnail,
        )

    @classmethod
    def of_indexed(cls, found: GetResponse) -> QueryPicture:
        """Build it from the record of the indexed picture that was searched for."""
        image, boxes = found.thumbnail, tuple(found.boxes)
        return cls(image=image, width=found.width, height=found.height, boxes=boxes, small=image)
