"""Export a torch module to an ONNX file with exactly the tensors of its contract."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim

from landseer.ensemble.inference.contracts import Graph
from landseer.ensemble.inference.contracts import Tensor as Spec

OPSETS = (18, 19, 20, 21)
"""18 is the exporter's minimum; 21 is the maximum of ONNX Runtime 1.19, which Triton 2.51 (24.10) includes."""
MAX_IR_VERSION = 10
"""The same release's limit."""

Arrays = dict[str, NDArray[np.generic]]


def write_onnx(module: nn.Module, graph: Graph, example: Arrays, path: Path, *, opset: int) -> None:
    """Export `module` with a dynamic batch and dynamic -1 axes. example: a batch of two by input name."""
    args = tuple(torch.from_numpy(example[tensor.name]) for tensor in graph.inputs)
    shapes = tuple(_dynamic(tensor, graph.max_batch) for tensor in graph.inputs)
    with warnings.catch_warnings(), torch.no_grad():
        # It warns about axes that share a name, as equal axes should.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            args,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=[tensor.name for tensor in graph.inputs],
            output_names=[tensor.name for tensor in graph.outputs],
            opset_version=opset,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"torch.onnx.export returned nothing for {graph.name}")
    program.save(path, external_data=False)
    check_format(path, opset)


def check_format(path: Path, opset: int) -> None:
    """Raise RuntimeError unless the oldest supported Triton release can load the file."""
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model)
    found = {entry.domain: entry.version for entry in model.opset_import}
    if found != {"": opset} or model.ir_version > MAX_IR_VERSION:
        raise RuntimeError(
            f"{path.name} has opsets {found} and IR {model.ir_version}; expected only opset {opset} and at most IR "
            f"{MAX_IR_VERSION}, the limits of Triton 2.51's ONNX Runtime"
        )


def _dynamic(spec: Spec, max_batch: int) -> dict[int, object]:
    shape: dict[int, object] = {0: Dim.DYNAMIC(min=1, max=max_batch)}
    for axis, length in enumerate(spec.dims):
        if length == -1:
            low, high = spec.bounds[axis] if spec.bounds else (1, None)
            shape[axis + 1] = Dim.DYNAMIC(min=low, max=high)
    return shape
