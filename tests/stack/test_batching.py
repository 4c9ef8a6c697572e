"""Dynamic batching, and what `describe` leaves undone, both told by Triton's own figures."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from stack.photos import WHEEL, pixels_of, strips, wheel
from stack.servers import cosines

from landseer.ensemble.inference.contracts import PATCH_OUTPUTS, ensembles

pytestmark = pytest.mark.stack

CALLERS = 24
SHAPES = ((64, 96), (96, 64), (128, 128))
LOCAL = {"local_features", "local_positions", "local_scales", "local_norms", "local_descriptors"}


def parts(height, width, count):
    """Return parts of photographs, [1, height, width, 3] each."""
    every = [pixels_of(wheel(name)) for name in WHEEL]
    return [
        np.ascontiguousarray(every[i % len(every)][None, 17 * i % 100 :, 23 * i % 150 :][:, :height, :width])
        for i in range(count)
    ]


def at_once(triton, images):
    """Describe all pictures at the same time; return descriptors in their order."""
    with ThreadPoolExecutor(len(images)) as callers:
        asked = [callers.submit(triton.infer, "describe", {"image": image}) for image in images]
        return [one.result()["descriptor"] for one in asked]


def test_equal_shapes_are_executed_together(triton, eager):
    images = parts(*SHAPES[0], CALLERS)
    inferences, executions = triton.counts("backbone")
    for served, image in zip(at_once(triton, images), images, strict=True):
        assert cosines(served, eager.backbone(image)["descriptor"]).min() >= 0.999
    now = triton.counts("backbone", reaching=inferences + CALLERS)
    assert now[0] - inferences == CALLERS
    assert now[1] - executions <= CALLERS / 2


def test_different_shapes_at_once_are_each_right(triton, eager):
    images = [
        image for group in zip(*(parts(*shape, CALLERS // 3) for shape in SHAPES), strict=True) for image in group
    ]
    for served, image in zip(at_once(triton, images), images, strict=True):
        assert cosines(served, eager.backbone(image)["descriptor"]).min() >= 0.999


def test_searches_at_once_are_executed_together(triton, landseer):
    """Through the whole stack: pictures of one shape that are searched for at the same time."""
    images = strips(CALLERS, width=512, height=64)
    alone = [landseer.client.describe(image).descriptor.values for image in images[:3]]
    landseer.put({f"batching/{number}": image for number, image in enumerate(images)})
    inferences, executions = triton.counts("backbone")
    with ThreadPoolExecutor(CALLERS) as callers:
        how = {"top_k": 50, "first_stage": "global", "reranking": "none"}
        answers = list(callers.map(lambda image: landseer.client.search(image, **how), images))
    for number, answer in enumerate(answers):
        assert f"batching/{number}" in {hit.id for hit in answer.hits if hit.score > 0.999}
    now = triton.counts("backbone", reaching=inferences + CALLERS)
    assert now[0] - inferences == CALLERS
    assert now[1] - executions < CALLERS
    again = [landseer.client.describe(image).descriptor.values for image in images[:3]]
    assert cosines(np.array(alone), np.array(again)).min() > 0.9999


def test_describe_does_not_copy_local_features(triton):
    """Of eight small pictures the 20 MB of local features, which would be copied, are much of the work there is."""
    assert not LOCAL & set(ensembles()["describe"].outputs)
    images = {"image": np.concatenate(parts(64, 64, 8))}
    assert set(triton.infer("backbone", images)) >= LOCAL
    assert set(triton.infer("describe", images)) == {"descriptor", "query_vector", *PATCH_OUTPUTS}
    took = {"describe": [], "backbone": []}
    # The quickest of many is what the work takes when nothing else runs on the machine. Measured: 37 ms and 82 ms.
    # Beside other tests it takes more than 15 of each until both have had a quiet moment.
    for _ in range(100):
        for model, times in took.items():
            began = time.perf_counter()
            triton.infer(model, images)
            times.append(time.perf_counter() - began)
        quickest = {model: min(times) for model, times in took.items()}
        if len(took["describe"]) >= 15 and quickest["describe"] < 0.7 * quickest["backbone"]:
            break
    assert quickest["describe"] < 0.7 * quickest["backbone"], quickest
