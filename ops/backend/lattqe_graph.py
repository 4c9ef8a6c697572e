"""LAttQE in process, by the served graph; loaded on first use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landseer.ensemble.cores import cores
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.search.expansion.served_lattqe import graph_inputs
from landseer.ops.backend.inprocess import infer, settings_of
from landseer.ops.backend.runner import Runner

Floats = NDArray[np.float32]


class Lattqe:
    """The exported model."""

    def __init__(self, repository: Path, profile: Profile) -> None:
        self._repository = repository
        self._profile = profile
        self._runner: Runner | None = None

    def __call__(self, query: Floats, neighbours: Floats) -> Floats:
        """Return the expanded query [D] of a query [D] and its neighbours [k, D], nearest first."""
        inputs = graph_inputs(query, neighbours, most=self._profile.sizes.neighbours)
        return np.array(infer(self._loaded(), inputs, ("expanded",))["expanded"][0])

    def _loaded(self) -> Runner:
        if self._runner is None:
            settings = settings_of("lattqe", self._repository, self._profile.version, threads=cores())
            self._runner = Runner(settings)
        return self._runner
