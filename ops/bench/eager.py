"""Eager torch in fp32, from which the graph was exported: for scale only, so a few pictures are enough."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from landseer.ensemble.inference.contracts import graphs
from landseer.ensemble.inference.profile import Profile
from landseer.ops.bench.pictures import Picture
from landseer.ops.bench.statistics import Round


def eager_round(profile: Profile, requests: Sequence[Picture], *, threads: int) -> Round | None:
    """Run the exported module in torch, one picture at a time, after one to warm up.

    It computes all outputs. None if the models were exported from weights that this machine cannot load again.
    """
    # Import torch only after everything else was measured, so that its threads disturb nothing.
    import torch

    from landseer.export.build import Wanted, build
    from landseer.export.models.torch_file import WeightsError
    from landseer.export.parity import eager

    torch.set_num_threads(threads)
    try:
        networks = build(
            Wanted(
                backbone=profile.backbone,
                descriptor=profile.descriptor,
                long_side=profile.long_side,
                version=profile.version,
            )
        )
    except WeightsError:
        return None
    if networks.profile.weights_sha256 != profile.weights_sha256:
        return None
    module, graph = networks.modules["backbone"], graphs(profile.sizes)["backbone"]
    latencies = []
    for request in [requests[0], *requests]:
        began = time.perf_counter()
        eager(module, graph, {"image": np.array(request.pixels)})
        latencies.append(time.perf_counter() - began)
    return Round(seconds=sum(latencies[1:]), latencies=tuple(latencies[1:]))
