"""Export a torch module to an ONNX file with exactly the tensors of its contract."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from landseer.ensemble.inference.contracts import Graph
from landseer.ensemble.inference.contracts import Tensor as Spec
from landseer.export.models.backbone import LOCAL_SCALES, Backbone
from landseer.export.models.trunk import Maps
from landseer.export.splice import Use, spliced

OPSETS = (18, 19, 20, 21)
"""18 is the exporter's minimum; 21 is the maximum of ONNX Runtime 1.19, which Triton 2.51 (24.10) includes."""
MAX_IR_VERSION = 10
"""The same release's limit."""

Arrays = dict[str, NDArray[np.generic]]
Shape = dict[int, object]
"""The dynamic axes of a tensor."""


def write_onnx(module: nn.Module, graph: Graph, example: Arrays, path: Path, *, opset: int) -> None:
    """Export `module` with a dynamic batch and dynamic -1 axes. example: a batch of two by input name."""
    args = [torch.from_numpy(example[tensor.name]) for tensor in graph.inputs]
    shapes = [_dynamic(tensor, graph.max_batch) for tensor in graph.inputs]
    names = Names([tensor.name for tensor in graph.inputs], [tensor.name for tensor in graph.outputs])
    with torch.no_grad():
        if isinstance(module, Backbone):
            model = _backbone(module, args[0], shapes[0], names, opset)
        else:
            model = _exported(module, args, shapes, names, opset)
    onnx.save(model, path)
    check_format(path, opset)


class Names(NamedTuple):
    """Names of a graph's tensors, in order."""

    inputs: list[str]
    outputs: list[str]


class Stage(nn.Module):
    """A method of a module, as a module."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *args: Tensor) -> tuple[Tensor, ...]:
        """Call the method."""
        found: tuple[Tensor, ...] = getattr(self.module, self.method)(*args)
        return found


def _backbone(backbone: Backbone, image: Tensor, shape: Shape, names: Names, opset: int) -> onnx.ModelProto:
    """Export a backbone in stages, its trunk and its head once, and join them.

    In one graph the sizes at each scale would be formulas of the picture's size, about which torch asks sympy at every
    operation, and trunk and head would be traced for every scale.
    """
    cells, batch = {0: shape[0], 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, {0: shape[0]}
    pictures = backbone.pyramid(image)
    maps = [backbone.maps(picture) for picture in pictures]
    places = [LOCAL_SCALES.index(scale) for scale in backbone.scales]
    pooled = [backbone.pool(pictures[place], *backbone.pooled(maps[place])) for place in places]

    def stage(method: str, args: Sequence[Tensor], shapes: Sequence[Shape], stage_names: Names) -> onnx.ModelProto:
        return _exported(Stage(backbone, method), args, shapes, stage_names, opset)

    picture_names = [f"picture_{place}" for place in range(len(pictures))]
    map_names = [[f"{one}_{place}" for one in Maps._fields] for place in range(len(pictures))]
    shared_names = [names_of[:2] for names_of in map_names]
    pooled_names = [(f"pooled_{place}", f"attention_{place}") for place in places]
    described = [*names.inputs, *itertools.chain(*shared_names, *pooled_names)]

    pyramid = stage("pyramid", [image], [shape], Names(names.inputs, picture_names))
    trunk = stage("maps", [pictures[0]], [cells], Names(["picture"], list(Maps._fields)))
    heads_maps = backbone.pooled(maps[0])
    taken = ["picture", *["last", "fine"][: len(heads_maps)]]
    pool = stage("pool", [pictures[0], *heads_maps], [cells] * len(taken), Names(taken, ["pooled", "attention"]))
    finish = stage(
        "finish",
        [image, *itertools.chain(*(one[:2] for one in maps)), *itertools.chain(*pooled)],
        [shape, *[cells] * (2 * len(maps)), *[batch, {**batch, 1: Dim.DYNAMIC, 2: Dim.DYNAMIC}] * len(pooled)],
        Names(described, names.outputs),
    )
    uses = [Use(name="pyramid", model=pyramid, weights="pyramid", inputs=names.inputs, outputs=picture_names)]
    for picture, made in zip(picture_names, map_names, strict=True):
        uses.append(Use(name=f"trunk_{picture}", model=trunk, weights="trunk", inputs=[picture], outputs=made))
    for place, found in zip(places, pooled_names, strict=True):
        inputs = [picture_names[place], *(f"{name}_{place}" for name in taken[1:])]
        uses.append(Use(name=f"head_{place}", model=pool, weights="head", inputs=inputs, outputs=found))
    uses.append(Use(name="finish", model=finish, weights="finish", inputs=described, outputs=names.outputs))
    return spliced(uses, pyramid.graph.input, finish.graph.output)


def _exported(
    module: nn.Module, args: Sequence[Tensor], shapes: Sequence[Shape], names: Names, opset: int
) -> onnx.ModelProto:
    with warnings.catch_warnings():
        # It warns about axes that share a name, as equal axes should.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            tuple(args),
            dynamo=True,
            dynamic_shapes=(tuple(shapes),) if isinstance(module, Stage) else tuple(shapes),
            input_names=names.inputs,
            output_names=names.outputs,
            opset_version=opset,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"torch.onnx.export returned nothing for {', '.join(names.outputs)}")
    return program.model_proto


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


def _dynamic(spec: Spec, max_batch: int) -> Shape:
    shape: Shape = {0: Dim.DYNAMIC(min=1, max=max_batch)}
    for axis, length in enumerate(spec.dims):
        if length == -1:
            low, high = spec.bounds[axis] if spec.bounds else (1, None)
            shape[axis + 1] = Dim.DYNAMIC(min=low, max=high)
    return shape
