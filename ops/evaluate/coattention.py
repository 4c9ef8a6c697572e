"""Co-attention in process: with the served graph, or with the torch module that it is exported from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.cores import cores
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.search.coattention import OUTPUTS, Coattention, graph_inputs, of_outputs
from landseer.ops.backend.inprocess import infer, settings_of
from landseer.ops.backend.runner import Runner
from landseer.ops.errors import OpsError

MEAN = "reduction.mean"
"""Name of the reduction's mean in the `cluster` graph."""


class GraphCoattention:
    """The exported `coattention` graph. Not thread-safe."""

    def __init__(self, repository: Path, profile: Profile) -> None:
        self._runner = Runner(settings_of("coattention", repository, profile.version, threads=cores()))
        self._most = profile.sizes.candidates

    def __call__(
        self, query_vector: NDArray[np.float32], vectors: NDArray[np.float16], counts: NDArray[np.int32]
    ) -> Coattention:
        """Score candidates, padded as a search pads them. query_vector: [P]; vectors: [C, K, P]; counts: [C]."""
        inputs = graph_inputs(query_vector, vectors, counts, most=self._most)
        return of_outputs(infer(self._runner, inputs, OUTPUTS), len(counts))


class TorchCoattention:
    """The module that is exported, for any number of vectors per candidate and any temperature."""

    def __init__(self, profile: Profile, *, temperature: float = 10.0) -> None:
        self._sizes, self._temperature = profile.sizes, temperature

    def __call__(
        self, query_vector: NDArray[np.float32], vectors: NDArray[np.float16], counts: NDArray[np.int32]
    ) -> Coattention:
        """Score candidates. query_vector: [P]; vectors: [C, K, P]; counts: [C]."""
        import torch

        from landseer.export.models.coattention import CoAttention

        sizes = dataclasses.replace(self._sizes, clusters=vectors.shape[1])
        inputs = (torch.from_numpy(np.array(one))[None] for one in (query_vector, vectors, counts))
        with torch.inference_mode():
            scores, weights = CoAttention(sizes=sizes, temperature=self._temperature)(*inputs)
        return Coattention(scores=scores[0].numpy(), weights=weights[0].numpy())


def reduction_of(repository: Path, profile: Profile) -> Any:
    """Return the reduction of local features to co-attention vectors, a `Projection`, from the `cluster` graph.

    The exporter keeps the name of the mean and transposes the matrix, which is the only one of its shape. OpsError.
    """
    import onnx
    import torch

    from landseer.export.models.pooling import Projection

    path, sizes = repository / "cluster" / profile.version / "model.onnx", profile.sizes
    try:
        held = [(one.name, onnx.numpy_helper.to_array(one)) for one in onnx.load(path).graph.initializer]
    except OSError as error:
        raise OpsError(f"{path} cannot be read ({error.strerror}); run: python export/all.py") from error
    means = [value for name, value in held if name == MEAN]
    matrices = [value for _, value in held if value.shape == (sizes.channels, sizes.reduced)]
    if len(means) != 1 or len(matrices) != 1:
        raise OpsError(f"{path} holds {len(matrices)} matrices of a reduction; expected 1: run python export/all.py")
    return Projection(torch.from_numpy(np.array(means[0])), torch.from_numpy(np.array(matrices[0].T)))
