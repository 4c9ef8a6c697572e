"""Decide which layers may run in fp16, and why the others stay in fp32.

fp16 has 11 bits and ends at 65,504. It pays off in convolutions and matrix products, and is allowed there. Layers that
only move, add or clamp the results of fp16 layers follow them. Normalisation, softmax, powers and sums stay in fp32,
with everything that mixes with them:

- softmax and LayerNormalization (also in elementary operators: its mean, power and root break the chain);
- GeM: max(x, 1e-6)^3 overflows at x = 40.4, its clamp is below fp16's normal numbers, and its mean is a long sum;
- L2 norms, for the same reasons, and the divisions by them;
- a mask's -1e9, which is -infinity in fp16, and NaN when multiplied by 0;
- projections of one vector per picture (whitening, PCA): they cost little and give the final result;
- positions and counts: above 2,048 fp16 has only even numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from landseer.export.tensorrt.adapted import element_types

HALF_MAX, HALF_MIN_NORMAL = 65504.0, 2.0**-14
PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
FOLLOWERS = frozenset(
    {
        *("Add", "Sub", "Mul", "Max", "Min", "Clip", "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish"),
        *("BatchNormalization", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Split", "Slice", "Gather"),
        *("GatherND", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Identity", "Tile", "Pad"),
    }
)
"""Operators that follow the precision of their inputs."""
MEASURED = frozenset({"Add", "Sub", "Mul", "Max", "Min", "Clip", "Pad"})
"""Followers whose constants must lie within fp16; weights of products and batch norms are scaled by the builder."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One node with a floating-point output."""

    node: str
    op: str
    half: bool
    """Whether the builder may choose fp16; otherwise fp32 is required."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The choices of one graph, in node order."""

    choices: tuple[Choice, ...]

    @property
    def half(self) -> frozenset[str]:
        """Names of the nodes that may run in fp16."""
        return frozenset(choice.node for choice in self.choices if choice.half)

    @property
    def full(self) -> frozenset[str]:
        """Names of the nodes that must run in fp32."""
        return frozenset(choice.node for choice in self.choices if not choice.half)


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """Facts about tensors: element types, ranks, extremes of constants."""

    types: dict[str, int]
    ranks: dict[str, int]
    extremes: dict[str, float]
    """Largest magnitude of each constant."""


def choose(model: Any) -> Precision:
    """Choose for each node with a float32 output. model: an `onnx.ModelProto` with inferred shapes and named nodes."""
    from onnx import TensorProto

    facts, halves, choices = _facts(model.graph), set[str](), []
    for node in model.graph.node:
        if facts.types.get(node.output[0]) != TensorProto.FLOAT:
            continue
        why = _why_full(node, facts, halves)
        if not why:
            halves.update(node.output)
        choices.append(Choice(node=node.name, op=node.op_type, half=not why, why=why or "follows fp16 layers"))
    return Precision(choices=tuple(choices))


def _why_full(node: Any, facts: _Facts, halves: set[str]) -> str:
    """Return the reason for fp32, or "" if fp16 is allowed."""
    if node.op_type in PRODUCTS:
        rank = facts.ranks.get(node.output[0], 0)
        return "" if rank > 2 else "one vector per picture: costs little, and is the final result"
    if node.op_type not in FOLLOWERS:
        return REASONS.get(node.op_type, "not known to be safe in fp16")
    if beyond := [name for name in node.input if node.op_type in MEASURED and _beyond_half(name, facts)]:
        return f"constant {facts.extremes[beyond[0]]:g} is outside fp16's normal range"
    fed = _fed_by(node, facts)
    return "" if fed and fed <= halves else "follows fp32 layers or inputs"


REASONS = {
    "Softmax": "exponentials and their sum",
    "LayerNormalization": "mean and variance are sums; rounding them shifts every channel",
    "Pow": "powers overflow: the cube passes 65,504 at 40.4",
    **dict.fromkeys(("ReduceL2", "ReduceSumSquare"), "sums of squares overflow"),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "CumSum", "Einsum"), "a sum over many is rounded at every step"),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), "the ends of a range decide how all in it is scaled"),
    **dict.fromkeys(("Div", "Reciprocal"), "divides by a norm, a span or a count"),
    **dict.fromkeys(("Sqrt", "Exp", "Log"), "magnifies rounding of small or large values"),
    **dict.fromkeys(("TopK", "ScatterElements", "ScatterND", "GatherElements"), "chooses or counts: ties must stay"),
    **dict.fromkeys(("Cast", "Range", "Where", "ConstantOfShape"), "positions, counts and masks"),
    "Resize": "pixels, before anything is learned of them",
}


def _fed_by(node: Any, facts: _Facts) -> set[str]:
    """Return the float inputs of a follower, without constants."""
    from onnx import TensorProto

    return {t for t in node.input if t not in facts.extremes and facts.types.get(t) == TensorProto.FLOAT}


def _beyond_half(name: str, facts: _Facts) -> bool:
    largest = facts.extremes.get(name, 0.0)
    return largest > HALF_MAX or 0.0 < largest < HALF_MIN_NORMAL


def _facts(graph: Any) -> _Facts:
    values = (*graph.value_info, *graph.input, *graph.output)
    ranks = {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}
    return _Facts(types=element_types(graph), ranks=ranks, extremes=_extremes(graph))


def _extremes(graph: Any) -> dict[str, float]:
    import numpy as np
    from onnx import TensorProto, numpy_helper

    extremes = {weight.name: 0.0 for weight in graph.initializer}
    for weight in graph.initializer:
        if weight.data_type == TensorProto.FLOAT and math.prod(weight.dims) > 0:
            extremes[weight.name] = float(np.abs(numpy_helper.to_array(weight)).max())
    return extremes
