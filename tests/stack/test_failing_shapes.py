"""A request that fails as the very first one on a fresh Triton must not spoil those that follow."""

from __future__ import annotations

import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from google.protobuf import text_format
from stack.photos import WHEEL, pixels_of, wheel
from stack.servers import TritonClient, cosines
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from landseer.ops.run.triton import TritonConfig, TritonServer

pytestmark = pytest.mark.stack

SHAPES = ((128, 160), (96, 96), (160, 128), (64, 320), (224, 224))
GOOD, DISTINCT = 50, 15


@pytest.fixture(scope="module")
def good(eager):
    """Parts of photographs in several shapes, each several times, and what torch says of each."""
    made = []
    for number in (at % DISTINCT for at in range(GOOD)):
        height, width = SHAPES[number % len(SHAPES)]
        picture = pixels_of(wheel(WHEEL[number % len(WHEEL)]))
        top, left = (number * 7) % (picture.shape[0] - height), (number * 11) % (picture.shape[1] - width)
        pixels = np.ascontiguousarray(picture[None, top : top + height, left : left + width])
        made.append((pixels, eager.backbone(pixels)))
    return made


@contextmanager
def fresh(repository):
    with TritonServer(TritonConfig(repository=repository)) as server:
        server.wait_ready()
        client = TritonClient(server)
        try:
            yield client
        finally:
            client.close()


@pytest.fixture
def bare_repository(repository, tmp_path):
    """The real backbone and `describe` without bounds and warm-up: what fails, fails in the graph, and nothing ran."""
    for name in ("backbone", "describe"):
        shutil.copytree(repository / name, tmp_path / name)
    for path in (tmp_path / "backbone").rglob("*.pbtxt"):
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
        del config.parameters["landseer_bounds"]
        del config.model_warmup[:]
        path.write_text(text_format.MessageToString(config))
    return tmp_path


def fails(triton, model, array):
    with pytest.raises(InferenceServerException) as caught:
        triton.infer(model, {"image": array})
    return caught.value


def all_equal_torch(triton, good):
    for number, (pixels, expected) in enumerate(good):
        served = triton.infer("describe", {"image": pixels})
        for name in ("descriptor", "query_vector"):
            assert cosines(served[name], expected[name]).min() >= 0.999, f"{name} of picture {number}, {pixels.shape}"


def test_a_shape_out_of_bounds_first(repository, good):
    bad = {
        "8 x 8": np.zeros((1, 8, 8, 3), np.uint8),
        "five axes": np.zeros((1, 1, 128, 128, 3), np.uint8),
        "no channels": np.zeros((1, 128, 128), np.uint8),
        "four channels": np.zeros((1, 128, 128, 4), np.uint8),
        "floats": np.zeros((1, 128, 128, 3), np.float32),
        "too wide": np.zeros((1, 64, 1601, 3), np.uint8),
        "too many": np.zeros((9, 64, 64, 3), np.uint8),
        "nothing": np.zeros((1, 0, 64, 3), np.uint8),
    }
    with fresh(repository) as triton:
        for array in bad.values():
            for model in ("describe", "backbone", "describe_full"):
                error = fails(triton, model, array)
                assert error.status() == "StatusCode.INVALID_ARGUMENT", error
        all_equal_torch(triton, good)


def test_an_inference_that_throws_first(bare_repository, good):
    tiny = np.zeros((1, 8, 8, 3), np.uint8)
    with fresh(bare_repository) as triton:
        assert "inference failed for image [1, 8, 8, 3]" in fails(triton, "describe", tiny).message()
        all_equal_torch(triton, good)
        # And between good ones: the requests that are now compiled and warm could be poisoned too.
        assert "inference failed" in fails(triton, "describe", tiny).message()
        all_equal_torch(triton, good[:10])
