"""A search by the global descriptor alone, which is not the default of a server with keypoints."""

from __future__ import annotations

from typing import Any

from landseer.v1 import search_pb2

NOT_RERANKED = search_pb2.Reranking(method=search_pb2.RERANKING_METHOD_NONE)
PLAIN: dict[str, Any] = {"first_stage": search_pb2.FIRST_STAGE_GLOBAL, "reranking": NOT_RERANKED}
"""Fields of a SearchRequest: it names every stage."""
