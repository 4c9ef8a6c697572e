"""The stand-in for the onnxruntime backend, in a real Triton. Each test has a model that has run nothing yet."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import tritonclient.grpc as triton

from landseer.ops.backend.deadlines import TIMEOUT_PARAMETER
from landseer.ops.run.triton import TritonConfig, TritonServer

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def server(full_repository):
    with TritonServer(TritonConfig(repository=full_repository)) as server:
        server.wait_ready(90)
        yield server


@pytest.fixture(scope="module")
def client(server):
    with triton.InferenceServerClient(server.grpc_url) as client:
        yield client


def infer(client, model, image, outputs=("descriptor", "stripes"), **more):
    tensor = triton.InferInput("image", list(image.shape), "UINT8")
    tensor.set_data_from_numpy(image)
    asked = [triton.InferRequestedOutput(name) for name in outputs]
    result = client.infer(model, [tensor], outputs=asked, **more)
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}


def check(found, expected):
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-4)


def test_out_of_bounds_first_then_good_ones(client, picture, reference):
    with pytest.raises(triton.InferenceServerException, match=r"'image' has shape \[32, 8, 3\].*\[16 to 256") as raised:
        infer(client, "bounded", picture(32, 8))
    assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"
    for side in (32, 64, 32):
        image = picture(side, 48)
        check(infer(client, "bounded", image), reference(image))


@pytest.mark.parametrize("model", ["throws", "plain"])
def test_a_throwing_inference_first_then_good_ones(client, model, picture, reference):
    with pytest.raises(triton.InferenceServerException, match=r"inference failed for image \[1, 32, 20, 3\]"):
        infer(client, model, picture(32, 20))
    for number in range(50):
        image = picture(32, 24 + 8 * (number % 3))
        check(infer(client, model, image), reference(image))


def test_only_requested_outputs_are_computed_and_returned(client, picture, reference):
    # `stripes` throws at this width: an answer shows that it was not computed.
    assert set(infer(client, "loose", picture(32, 20), outputs=("descriptor",))) == {"descriptor"}
    image = picture(32, 24)
    check(infer(client, "loose", image, outputs=("stripes",)), reference(image))


def test_an_ensemble_that_maps_one_output_computes_only_that(client, picture, reference):
    found = infer(client, "brief", picture(32, 20), outputs=("descriptor",))
    assert set(found) == {"descriptor"}
    image = picture(32, 24)
    check(infer(client, "brief", image, outputs=("descriptor",)), reference(image))


def test_equal_shapes_are_executed_together(client, picture, reference):
    images = [picture(32, 24) for _ in range(8)]
    found = [None] * len(images)

    def ask(index):
        found[index] = infer(client, "patient", images[index])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer, image in zip(found, images, strict=True):
        check(answer, reference(image))
    # Booked when the execution has ended, a moment after its answers went out.
    end = time.monotonic() + 10
    while time.monotonic() < end:
        [statistics] = client.get_inference_statistics("patient").model_stats
        if statistics.inference_count == len(images):
            break
        time.sleep(0.05)
    assert statistics.inference_count == len(images)
    assert statistics.execution_count < len(images) / 2


def test_a_passed_deadline_is_not_run(client, picture):
    """By a clock that is a day ahead of Triton's."""
    now = time.monotonic() + 86_400

    def ask(model, *, ago):
        timeout = {TIMEOUT_PARAMETER: f"ours {int((now - ago) * 1e6)} 60000000"}
        return infer(client, model, picture(32, 24), ("descriptor",), parameters=timeout)

    for model in ("loose", "brief"):
        assert ask(model, ago=0)
        with pytest.raises(triton.InferenceServerException, match="timeout expired"):
            ask(model, ago=120)
        assert ask(model, ago=30)
