"""Runs the served graphs in process: for evaluation, and as the baseline of the serving benchmark.

It uses the code (`runner`) and the settings of serving, so that only serving itself differs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

from landseer.ensemble.inference.contracts import Step, ensembles
from landseer.ensemble.inference.profile import Profile
from landseer.ops.backend.model_settings import CONFIG_NAME, ModelSettings, from_triton
from landseer.ops.backend.runner import Job, RequestFailure, Runner
from landseer.ops.errors import OpsError

Vector = NDArray[np.float32]
Tensors = dict[str, NDArray[Any]]
OUTPUTS = frozenset(ensembles()["describe"].outputs)


class InProcessBackbone:
    """The backbone, with the two outputs of `describe`. For one thread."""

    def __init__(self, settings: ModelSettings) -> None:
        self._runner = Runner(settings)
        self.precision = self._runner.precision
        """The precision in which it runs."""

    def describe(self, pixels: NDArray[np.uint8]) -> Vector:
        """Return the descriptor [D] of pixels [1, H, W, 3]. OpsError if the inference fails."""
        return np.array(infer(self._runner, {"image": pixels}, tuple(OUTPUTS))["descriptor"][0])


class FullGraph:
    """The steps of `describe_full` that the wanted outputs need. For one thread."""

    def __init__(
        self, outputs: Sequence[str], settings: Callable[[str], ModelSettings], detector: str, *, patches: bool = False
    ) -> None:
        """outputs: the wanted outputs; settings: returns those of a graph by name; detector: its kind.

        patches: whether the backbone has `PATCH_OUTPUTS`. ValueError for an output that `describe_full` does not have.
        """
        self._wanted = frozenset(outputs)
        self._steps = needed_steps(self._wanted, ensembles(detector, patches=patches)["describe_full"].steps)
        self._runners = {step.graph: Runner(_of_step(step, settings(step.graph))) for step in self._steps}

    def describe(self, pixels: NDArray[np.uint8]) -> Tensors:
        """Return the outputs, without batch axis, for pixels [1, H, W, 3]. OpsError if an inference fails."""
        known: Tensors = {"image": pixels}
        for step in self._steps:
            inputs = {name: known[name] for name in step.inputs}
            known |= infer(self._runners[step.graph], inputs, step.outputs)
        return {name: known[name][0] for name in self._wanted}


def full_graph(repository: Path, profile: Profile, outputs: Sequence[str], *, threads: int) -> FullGraph:
    """Load the graphs that compute these outputs of `describe_full`."""

    def settings(graph: str) -> ModelSettings:
        return settings_of(graph, repository, profile.version, threads=threads)

    return FullGraph(outputs, settings, profile.detector, patches=bool(profile.sizes.patches))


def needed_steps(wanted: frozenset[str], steps: Sequence[Step]) -> list[Step]:
    """Return the steps that the wanted outputs need, each with only the outputs that are used.

    ValueError for an output that no step has.
    """
    unknown = wanted - {name for step in steps for name in step.outputs}
    if unknown:
        raise ValueError(f"got outputs {sorted(unknown)}; expected some of those of `describe_full`")
    needed, kept = set(wanted), list[Step]()
    for step in reversed(steps):
        outputs = tuple(name for name in step.outputs if name in needed)
        if outputs:
            needed |= set(step.inputs)
            kept.append(dataclasses.replace(step, outputs=outputs))
    return kept[::-1]


def infer(runner: Runner, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> Tensors:
    """Run a graph once. OpsError if the inference fails."""
    [answer] = runner.run([Job(inputs=inputs, outputs=frozenset(outputs))])
    if isinstance(answer, RequestFailure):
        raise OpsError(f"{runner.settings.path.parent.parent.name} failed in process: {answer.message}")
    return answer


def _of_step(step: Step, settings: ModelSettings) -> ModelSettings:
    return dataclasses.replace(settings, outputs=tuple(sorted(step.outputs)), prepared=(), warm_up=())


def read_profile(repository: Path) -> Profile:
    """Read the profile of the exported models; OpsError if there is none."""
    path = repository / "manifest.json"
    try:
        return Profile.from_json(json.dumps(json.loads(path.read_text())["profile"]))
    except (OSError, ValueError, KeyError) as error:
        raise OpsError(f"{path} cannot be read; run: python export/all.py") from error


def backbone_settings(repository: Path, version: str, *, threads: int) -> ModelSettings:
    """Read the backbone's settings, with only the two outputs of `describe`."""
    settings = settings_of("backbone", repository, version, threads=threads)
    return dataclasses.replace(settings, outputs=tuple(sorted(OUTPUTS)), prepared=(), warm_up=())


def settings_of(model: str, repository: Path, version: str, *, threads: int) -> ModelSettings:
    """Read a model's settings from the configuration that Triton reads."""
    folder = repository / model
    chosen = folder / "configs" / f"{CONFIG_NAME}.pbtxt"
    text = (chosen if chosen.exists() else folder / "config.pbtxt").read_text()
    message = text_format.Parse(text, model_config_pb2.ModelConfig())
    config = json_format.MessageToDict(message, preserving_proto_field_name=True)
    config["parameters"]["intra_op_thread_count"] = {"string_value": str(threads)}
    return from_triton(config, repository=folder, version=version)
