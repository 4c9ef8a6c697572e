"""The contenders of the serving benchmark that call a server: Triton's `describe`, and the orchestrator's Search."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray

from landseer.client.blocking import BlockingSearchClient
from landseer.ops.backend.inprocess import OUTPUTS
from landseer.ops.bench.direct import TOP_K
from landseer.ops.bench.pictures import Picture
from landseer.v1.search_pb2 import SearchResponse

Vector = NDArray[np.float32]


class TritonDescribe:
    """Calls Triton's ensemble `describe` over gRPC: pixels in, vectors out."""

    def __init__(self, address: str) -> None:
        self.client = triton.InferenceServerClient(address)
        self._outputs = [triton.InferRequestedOutput(name) for name in sorted(OUTPUTS)]

    def __call__(self, picture: Picture) -> Vector:
        """Return the descriptor [D]."""
        image = triton.InferInput("image", list(picture.pixels.shape), "UINT8")
        image.set_data_from_numpy(picture.pixels)
        answer: Any = self.client.infer("describe", [image], outputs=self._outputs)
        vector: Vector = answer.as_numpy("descriptor")[0]
        return vector


class ServedSearch:
    """Calls the orchestrator's Search: an encoded picture in, hits out."""

    def __init__(self, client: BlockingSearchClient) -> None:
        self._client = client

    def __call__(self, picture: Picture) -> list[str]:
        """Return the ids of the nearest pictures, best first."""
        return [hit.id for hit in self._search(picture).hits]

    def _search(self, picture: Picture) -> SearchResponse:
        # What the contender in process does, and nothing more.
        return self._client.search(picture.data, top_k=TOP_K, first_stage="global", reranking="none")


def index(client: BlockingSearchClient, some: Iterable[Picture]) -> None:
    """Index pictures."""
    for picture in some:
        client.upsert(picture.id, picture.data)
