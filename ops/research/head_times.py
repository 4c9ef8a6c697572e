"""The time of a picture in the graph that a server runs, by head: interleaved, so that other work slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.backbone import Backbone
from landseer.export.models.pooling import Projection
from landseer.export.models.trunks import Trunk
from landseer.ops.evaluate.head_variants import Variant, as_served

ENGINE = "OpenVINO in process, the whole `backbone` graph at five scales, without patches, one picture of 640 x 640"
"""What is timed, for people."""
Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Time:
    """The time of one picture."""

    milliseconds: float
    """Median over rounds."""
    ratio: float
    """To the baseline's in the same round, median over rounds."""


def times(heads: Mapping[str, Variant], trunk: Trunk, *, baseline: str, precision: str, rounds: int) -> dict[str, Time]:
    """Time each head in turn, `rounds` times. baseline: the key of the head that the others are compared to."""
    runs = {name: _compiled(variant, trunk, precision) for name, variant in heads.items()}
    picture = np.random.default_rng(0).integers(0, 256, (1, 640, 640, 3), dtype=np.uint8)
    for run in runs.values():
        run(picture)  # the first call allocates
    taken = {name: np.empty(rounds) for name in runs}
    for number in range(rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            run(picture)
            taken[name][number] = time.perf_counter() - started
    return {
        name: Time(milliseconds=1000 * float(np.median(seconds)), ratio=float(np.median(seconds / taken[baseline])))
        for name, seconds in taken.items()
    }


def _compiled(variant: Variant, trunk: Trunk, precision: str) -> Callable[[Picture], object]:
    """Compile the served graph with a variant's head, for pictures of 640 x 640."""
    import openvino as ov

    served, sizes = as_served(variant), Sizes(channels=trunk.channels)
    graph = Backbone(
        trunk=trunk,
        sizes=sizes,
        head=served.head,
        scales=served.scales,
        whitening=served.whitening,
        reduction=Projection.untrained(sizes.channels, sizes.reduced, seed=0),
        locals=Projection.untrained(sizes.channels, sizes.local, seed=0),
    ).eval()
    shape = (1, 640, 640, 3)
    with torch.no_grad():
        model = ov.convert_model(graph, example_input=torch.zeros(shape, dtype=torch.uint8), input=[list(shape)])
    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled: Callable[[Picture], object] = ov.Core().compile_model(model, "CPU", hints)
    return compiled
