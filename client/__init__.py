"""The Landseer client: the API's messages, an async and a blocking client, and the command line.

Names are imported on first use: `landseer --help` stays fast, and the command line can configure gRPC before it loads.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from landseer.client.blocking import BlockingSearchClient
    from landseer.client.client import SearchClient
    from landseer.client.credentials import Credentials
    from landseer.client.errors import LandseerClientError
    from landseer.v1.common_pb2 import Box
    from landseer.v1.index_pb2 import Picture
    from landseer.v1.search_pb2 import Descriptor, Expansion, Reranking

__all__ = [
    "BlockingSearchClient",
    "Box",
    "Credentials",
    "Descriptor",
    "Expansion",
    "LandseerClientError",
    "Picture",
    "Reranking",
    "SearchClient",
]

_HOMES = {
    "BlockingSearchClient": "landseer.client.blocking",
    "Box": "landseer.v1.common_pb2",
    "Credentials": "landseer.client.credentials",
    "Descriptor": "landseer.v1.search_pb2",
    "Expansion": "landseer.v1.search_pb2",
    "LandseerClientError": "landseer.client.errors",
    "Picture": "landseer.v1.index_pb2",
    "Reranking": "landseer.v1.search_pb2",
    "SearchClient": "landseer.client.client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
