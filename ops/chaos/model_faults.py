"""Faults of models: another version, or an optional one that is not loaded."""

from __future__ import annotations

import re
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tritonclient.grpc as tritonclient

from landseer.ops.chaos.calls import CLEAR, Call
from landseer.ops.chaos.fault import Fault
from landseer.ops.chaos.scene import Scene


class OtherVersion(Fault):
    """Triton restarted with models of other weights, and then with the former ones."""

    name = "Triton restarted with another model version"
    hold_s = 8.0
    allowed = CLEAR | {"FAILED_PRECONDITION"}

    def prepare(self, scene: Scene) -> None:
        """Copy the models and change their weights."""
        self._former, self._other = scene.triton.config.repository, scene.folder / "other-models"
        if not self._other.exists():
            other_models(self._former, self._other)

    def inject(self, scene: Scene) -> None:
        """Serve the changed models."""
        scene.exchange(self._other)

    def heal(self, scene: Scene) -> None:
        """Serve the former models."""
        scene.exchange(self._former)

    def complaints(self, scene: Scene, calls: Sequence[Call]) -> list[str]:
        """Callers must be told which models are wrong."""
        told = any(call.outcome == "FAILED_PRECONDITION" and "PROFILE_MISMATCH" in call.said for call in calls)
        return [] if told else ["nobody was told that Triton serves other models"]


class Unloaded(Fault):
    """An optional model unloaded: searches do without its stage."""

    hold_s = 5.0
    allowed = frozenset({"OK"})

    def __init__(self, model: str) -> None:
        self.name = f"model `{model}` not available"
        self._model = model

    def inject(self, scene: Scene) -> None:
        """Unload it."""
        _control(scene, self._model, "unload")

    def heal(self, scene: Scene) -> None:
        """Load it again."""
        _control(scene, self._model, "load")


def _control(scene: Scene, model: str, action: str) -> None:
    """Load or unload a model: by HTTP where Triton has it, since a relay before its gRPC need not pass this on."""
    if scene.triton.config.http_port:
        url = f"http://{scene.triton.http_url}/v2/repository/models/{model}/{action}"
        urllib.request.urlopen(urllib.request.Request(url, method="POST", data=b"{}"), timeout=120.0).close()
        return
    with tritonclient.InferenceServerClient(scene.triton.grpc_url) as client:
        getattr(client, f"{action}_model")(model)


def other_models(repository: Path, folder: Path) -> None:
    """Copy a repository as version 2, with a backbone of other weights and a profile that says so."""
    import onnx
    from onnx import numpy_helper

    shutil.copytree(repository, folder, symlinks=True, ignore=lambda _, names: {"model_repository"} & set(names))
    for first in sorted(folder.glob("*/1")):
        first.rename(first.with_name("2"))
    graph = folder / "backbone" / "2" / "model.onnx"
    model, draws = onnx.load(str(graph)), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.ndim >= 2 and weights.dtype in (np.float32, np.float16):
            noise = draws.normal(0.0, weights.std(), weights.shape).astype(weights.dtype)
            tensor.CopyFrom(numpy_helper.from_array(weights + noise / 2, tensor.name))
    onnx.save(model, str(graph))
    for config in folder.glob("describe*/config.pbtxt"):
        text = re.sub(r'(weights_sha256\\": \\")[0-9a-f]{8}', r"\g<1>00000000", config.read_text())
        config.write_text(text.replace('\\"version\\": \\"1\\"', '\\"version\\": \\"2\\"'))
