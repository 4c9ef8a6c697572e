"""Processor time of a picture in the graph that a server runs, by trunk and head.

Processor time, because other work on the machine lengthens the time on the clock many times over. It still slows by
shared caches, so graphs take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.backbone import Backbone
from landseer.export.models.pooling import Projection
from landseer.export.models.trunk import Trunk
from landseer.ops.evaluate.head_variants import Variant, as_served

ENGINE = "OpenVINO in process, one thread, the `backbone` graph at five scales, without patches, 640 x 640 pixels"
"""What is timed, for people."""
Picture = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Time:
    """The processor time of one picture."""

    milliseconds: float
    """Median over rounds."""
    ratio: float
    """To the baseline's in the same round, median over rounds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """A graph to time."""

    trunk: Trunk
    variant: Variant
    precision: str
    """"f32" or "bf16"."""


Key = TypeVar("Key")


def times(contenders: Mapping[Key, Contender], *, baseline: Key, rounds: int) -> dict[Key, Time]:
    """Time each graph in turn, `rounds` times. baseline: the key of the one that the others are compared to."""
    runs = {key: _compiled(contender) for key, contender in contenders.items()}
    picture = np.random.default_rng(0).integers(0, 256, (1, 640, 640, 3), dtype=np.uint8)
    for run in runs.values():
        run(picture)  # the first call allocates
    taken = {key: np.empty(rounds) for key in runs}
    for number in range(rounds):
        for key, run in runs.items():
            started = time.process_time()
            run(picture)
            taken[key][number] = time.process_time() - started
    return {
        key: Time(milliseconds=1000 * float(np.median(seconds)), ratio=float(np.median(seconds / taken[baseline])))
        for key, seconds in taken.items()
    }


def _compiled(one: Contender) -> Callable[[Picture], object]:
    """Compile the graph that a server would run with this trunk and head, for pictures of 640 x 640."""
    import openvino as ov

    served, sizes = as_served(one.variant), Sizes(channels=one.trunk.channels)
    graph = Backbone(
        trunk=one.trunk,
        sizes=sizes,
        head=served.head,
        scales=served.scales,
        whitening=served.whitening,
        reduction=Projection.untrained(sizes.channels, sizes.reduced, seed=0),
        locals=Projection.untrained(sizes.channels, sizes.local, seed=0),
        two_maps=served.two_maps,
    ).eval()
    with torch.no_grad():
        program = torch.export.export(graph, (torch.zeros(1, 640, 640, 3, dtype=torch.uint8),))
    model = ov.convert_model(program)
    hints = {
        "INFERENCE_PRECISION_HINT": one.precision,
        "PERFORMANCE_HINT": "LATENCY",
        # Threads that wait for each other take processor time, too.
        "INFERENCE_NUM_THREADS": 1,
    }
    compiled: Callable[[Picture], object] = ov.Core().compile_model(model, "CPU", hints)
    return compiled
