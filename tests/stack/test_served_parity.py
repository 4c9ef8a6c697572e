"""What Triton serves is what eager fp32 torch says, on every photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stack.photos import GROCERY, WHEEL, grocery, wheel
from stack.servers import cosines

from landseer.ensemble.inference.contracts import PATCH_OUTPUTS, ensembles
from landseer.ensemble.pictures.pictures import prepare
from landseer.export.parity import LIMITS, MEASURES

pytestmark = pytest.mark.stack

LEAST = 0.999
"""The least cosine of a served vector with torch's."""


@pytest.fixture(params=[*WHEEL, *GROCERY], ids=lambda one: one if isinstance(one, str) else f"grocery{one}")
def photo(request) -> Path:
    return wheel(request.param) if isinstance(request.param, str) else grocery(request.param)


@pytest.fixture
def pixels(photo, eager):
    """The photograph as the orchestrator prepares it, [1, H, W, 3]."""
    return np.array(prepare(photo.read_bytes(), profile=eager.profile).pixels[None])


def test_describe(triton, eager, pixels):
    expected, served = eager.backbone(pixels), triton.infer("describe", {"image": pixels})
    assert set(served) == {"descriptor", "query_vector", *PATCH_OUTPUTS}
    for name in ("descriptor", "query_vector"):
        vectors = served[name]
        assert vectors.dtype == np.float32 and vectors.shape == expected[name].shape
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1.0, atol=1e-3)
        assert cosines(vectors, expected[name]).min() >= LEAST, name


def test_describe_full(triton, eager, pixels):
    expected, served = eager.full(pixels), triton.infer("describe_full", {"image": pixels})
    assert set(served) == set(ensembles(patches=True)["describe_full"].outputs)
    for name in ("descriptor", "query_vector"):
        assert cosines(served[name], expected[name]).min() >= LEAST, name
    for name in ("local_count", "patch_count", "cluster_count", "image_size"):
        assert (served[name] == expected[name]).all(), name
    # What bf16 may change is bounded as it is at export.
    local = ("local_positions", "local_descriptors", "patch_positions", "patch_codes")
    for name in ("attention", "boxes", "box_scores", "clusters", *local):
        assert MEASURES[name](expected, served) >= LIMITS[name].bf16, name


def test_describe_over_grpc(landseer, eager, photo, pixels):
    expected = eager.full(pixels)
    answer = landseer.client.describe(photo)
    for name in ("descriptor", "query_vector"):
        served = np.array([getattr(answer, name).values])
        assert cosines(served, expected[name]).min() >= LEAST, name
    assert len(answer.clusters) == expected["cluster_count"].item()
    assert len(answer.boxes) == expected["box_count"].item()
    for found in answer.boxes:
        assert found.box.x >= -0.01 and found.box.x + found.box.width <= answer.width + 0.01
        assert found.box.y >= -0.01 and found.box.y + found.box.height <= answer.height + 0.01
