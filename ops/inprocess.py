"""The served graphs in a process of our own: for evaluation, and what serving is held against.

Through the very code that serves them (`ops.runner`), with the very settings, so that only serving differs.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from landseer.ensemble.contracts import ensembles
from landseer.ensemble.profile import Profile
from landseer.ops.model_settings import ModelSettings, from_triton
from landseer.ops.processes import OpsError
from landseer.ops.runner import Failure, Job, Runner
from landseer.ops.triton import CONFIG_NAME

Vector = NDArray[np.float32]
OUTPUTS = frozenset(ensembles()["describe"].outputs)


class Graph:
    """The backbone with the two outputs of `describe`. For one thread."""

    def __init__(self, settings: ModelSettings) -> None:
        self._runner = Runner(settings)
        self.precision = self._runner.precision
        """As it really runs."""

    def describe(self, pixels: NDArray[np.uint8]) -> Vector:
        """Return the descriptor [D] of pixels [1, H, W, 3]. OpsError if the inference fails."""
        [answer] = self._runner.run([Job(inputs={"image": pixels}, outputs=OUTPUTS)])
        if isinstance(answer, Failure):
            raise OpsError(f"the graph failed in process: {answer.message}")
        return np.array(answer["descriptor"][0])


def read_profile(repository: Path) -> Profile:
    """Read what was exported; OpsError if there is nothing."""
    path = repository / "manifest.json"
    try:
        return Profile.from_json(json.dumps(json.loads(path.read_text())["profile"]))
    except (OSError, ValueError, KeyError) as error:
        raise OpsError(f"{path} cannot be read; run: python export/all.py") from error


def backbone_settings(repository: Path, version: str, *, threads: int) -> ModelSettings:
    """Read how the backbone is served, of its outputs only the two of `describe`."""
    settings = settings_of("backbone", repository, version, threads=threads)
    return dataclasses.replace(settings, outputs=tuple(sorted(OUTPUTS)), prepared=(), warm_up=())


def settings_of(model: str, repository: Path, version: str, *, threads: int) -> ModelSettings:
    """Read how a model is served from the configuration that Triton reads."""
    folder = repository / model
    chosen = folder / "configs" / f"{CONFIG_NAME}.pbtxt"
    text = (chosen if chosen.exists() else folder / "config.pbtxt").read_text()
    message = text_format.Parse(text, model_config_pb2.ModelConfig())
    config = json_format.MessageToDict(message, preserving_proto_field_name=True)
    config["parameters"]["intra_op_thread_count"] = {"string_value": str(threads)}
    return from_triton(config, repository=folder, version=version)


def cores() -> int:
    """Return how many cores this process, and whatever it starts, may use."""
    return len(os.sched_getaffinity(0))
