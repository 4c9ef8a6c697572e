"""The settings in a model's `config.pbtxt` for the engine that runs it."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from landseer.ensemble.cores import cores

EngineName = Literal["openvino", "onnxruntime"]
Precision = Literal["fp32", "bf16"]
Bounds = Mapping[str, tuple[tuple[int, int], ...]]
WarmUp = Mapping[str, tuple[str, tuple[int, ...]]]
"""A synthetic request: numpy type name and shape by input; the shape has a batch axis if the model has."""

TYPES = {
    "TYPE_BOOL": "bool",
    "TYPE_UINT8": "uint8",
    "TYPE_INT32": "int32",
    "TYPE_INT64": "int64",
    "TYPE_FP16": "float16",
    "TYPE_FP32": "float32",
}
"""numpy's names for Triton's types."""
THREADS_VARIABLE = "LANDSEER_THREADS"
"""Environment variable for the threads of models whose configuration sets none."""
LARGE_ROW = 2**18
"""Values of an input from which on rows are not run together: 500 local features have more."""
CONFIG_NAME = "pip"
"""Where <model>/configs/pip.pbtxt exists, Triton 2.51 of the wheel reads it instead of config.pbtxt.

The dynamic batcher of that release loses wake-ups when a queue policy has a bound or a timeout: requests then wait up
to 500 ms on an idle server (measured: 0.5 to 7 % of them). `dynamic_batching {}` does not have the fault.
"""


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """One served graph: the file and how to run it."""

    path: Path
    """Path of the ONNX file."""
    engine: EngineName = "onnxruntime"
    precision: Precision = "fp32"
    """The requested precision; an engine without bf16 runs in fp32."""
    threads: int = 1
    batching: bool = True
    """Whether the first axis of every tensor is the batch."""
    bounds: Bounds = field(default_factory=dict)
    """Minimum and maximum length of each axis except the batch, by input."""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    """Names of all tensors that the configuration declares."""
    row_values: int = 0
    """Values of a row of the largest input, of those without an axis of any length."""
    prepared: tuple[frozenset[str], ...] = ()
    """Sets of outputs to compile for when the model is loaded."""
    warm_up: tuple[WarmUp, ...] = ()
    """Requests to run on each of the `prepared` sets when the model is loaded."""

    @property
    def pictures(self) -> bool:
        """Whether it takes pictures: an input of two or more axes of any length besides the batch."""
        return any(sum(least < most for least, most in axes) > 1 for axes in self.bounds.values())

    @property
    def one_graph(self) -> bool:
        """Whether one graph answers for all sets of outputs.

        OpenVINO takes 0.5 GB or more for each graph of pictures, and the time that it spends on outputs which nobody
        wants was too short to be measured.
        """
        return self.pictures and self.engine == "openvino"

    @property
    def most(self) -> int:
        """Rows of one inference at most.

        The tensors between the nodes take about 200 MB for a picture, 28 MB for its local features, and stay as large
        as the largest batch needed. A batch saves no time on two threads, of neither: so one row for two threads.
        Models of smaller rows have no bound but `max_batch_size`.
        """
        return max(1, self.threads // 2) if self.pictures or self.row_values >= LARGE_ROW else sys.maxsize


def from_triton(config: Mapping[str, Any], *, repository: Path, version: str) -> ModelSettings:
    """Read the settings from Triton's model configuration (its JSON form).

    repository: the model's own folder. `execution_accelerators`, `intra_op_thread_count` and `model_warmup` have the
    same meaning as for the native onnxruntime backend. These are our own, and the native backend ignores them:
    `landseer_precision` (bf16 or fp32), `landseer_bounds` (JSON, {input: [[minimum, maximum], ...]}) and
    `landseer_prepared_outputs` (JSON, [[output, ...], ...]). ValueError names an invalid parameter.
    """
    return ModelSettings(
        path=repository / version / (config.get("default_model_filename") or "model.onnx"),
        engine=_engine(config),
        precision=_precision(config),
        threads=_threads(config),
        batching=int(config.get("max_batch_size", 0)) > 0,
        bounds=_bounds(config),
        inputs=tuple(tensor["name"] for tensor in config.get("input", ())),
        outputs=tuple(tensor["name"] for tensor in config.get("output", ())),
        row_values=_row_values(config),
        prepared=tuple(frozenset(names) for names in _json(config, "landseer_prepared_outputs", [])),
        warm_up=_warm_up(config),
    )


def _parameter(config: Mapping[str, Any], name: str) -> str | None:
    entry = config.get("parameters", {}).get(name)
    return None if entry is None else str(entry["string_value"])


def _json(config: Mapping[str, Any], name: str, default: Any) -> Any:
    text = _parameter(config, name)
    try:
        return default if text is None else json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"parameter {name} is not JSON ({error}): {text!r}") from error


def _engine(config: Mapping[str, Any]) -> EngineName:
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    names = [entry["name"] for entry in accelerators.get("cpu_execution_accelerator", ())]
    if unknown := [name for name in names if name != "openvino"]:
        raise ValueError(f"cpu_execution_accelerator {unknown[0]!r} is unknown; expected openvino")
    return "openvino" if names else "onnxruntime"


def _precision(config: Mapping[str, Any]) -> Precision:
    asked = _parameter(config, "landseer_precision") or "fp32"
    if asked == "bf16":
        return "bf16"
    if asked == "fp32":
        return "fp32"
    raise ValueError(f"parameter landseer_precision is {asked!r}; expected bf16 or fp32")


def _threads(config: Mapping[str, Any]) -> int:
    asked = _parameter(config, "intra_op_thread_count") or os.environ.get(THREADS_VARIABLE) or "0"
    if not asked.isdigit():
        raise ValueError(f"parameter intra_op_thread_count is {asked!r}; expected a whole number, 0 for all cores")
    return int(asked) or cores()


def _bounds(config: Mapping[str, Any]) -> dict[str, tuple[tuple[int, int], ...]]:
    declared = _json(config, "landseer_bounds", {})
    try:
        return {name: tuple((int(least), int(most)) for least, most in axes) for name, axes in declared.items()}
    except (AttributeError, TypeError, ValueError) as error:
        expected = "{input: [[least, most], ...]}"
        raise ValueError(f"parameter landseer_bounds is {declared!r}; expected {expected}") from error


def _row_values(config: Mapping[str, Any]) -> int:
    shapes = [[int(side) for side in tensor.get("dims", ())] for tensor in config.get("input", ())]
    return max((math.prod(shape) for shape in shapes if shape and min(shape) > 0), default=0)


def _warm_up(config: Mapping[str, Any]) -> tuple[WarmUp, ...]:
    """Read the shapes of `model_warmup`; samples with other types are left to Triton's own warm-up."""
    batching = int(config.get("max_batch_size", 0)) > 0
    requests = []
    for sample in config.get("model_warmup", ()):
        batch = (max(1, int(sample.get("batch_size", 0))),) if batching else ()
        inputs = sample.get("inputs", {})
        if inputs and all(tensor["data_type"] in TYPES for tensor in inputs.values()):
            requests.append({name: _made_up(tensor, batch) for name, tensor in inputs.items()})
    return tuple(requests)


def _made_up(tensor: Mapping[str, Any], batch: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    return TYPES[tensor["data_type"]], (*batch, *(int(side) for side in tensor.get("dims", ())))
