"""Which layers may run in fp16, and why the others stay in fp32.

fp16 has 11 bits and ends at 65,504. It pays in convolutions and matrix products, and that is where it is allowed;
everything else has to earn it: a layer that only moves, adds or clamps what fp16 layers gave goes along with them.
Normalisation, softmax, powers and sums stay in fp32, and so does whatever mixes with them:

- softmax and LayerNormalization (also one that is spelled out: its mean, power and root break the chain);
- GeM: max(x, 1e-6)^3 overflows at x = 40.4, its clamp lies below fp16's normal numbers, and its mean is a long sum;
- L2 norms, for the same reasons, and the divisions by them;
- a mask's -1e9, which is -infinity in fp16, and times 0 no number at all;
- projections of one vector a picture (whitening, PCA): they cost nothing and are the answer itself;
- positions and all that is counted: fp16 knows only even numbers above 2,048.
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
"""Operators that follow what feeds them."""
MEASURED = frozenset({"Add", "Sub", "Mul", "Max", "Min", "Clip", "Pad"})
"""Followers whose constants must lie within fp16; weights of products and batch norms are scaled by the builder."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One node with a floating-point output."""

    node: str
    op: str
    half: bool
    """Whether the builder may choose fp16; else it must be fp32."""
    why: str


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The choices of one graph, in its order."""

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
    """What is known of tensors: element types, ranks, the constants' extremes."""

    types: dict[str, int]
    ranks: dict[str, int]
    extremes: dict[str, float]
    """Largest magnitude of each constant."""


def choose(model: Any) -> Precision:
    """Choose for every node with a float32 output. model: an `onnx.ModelProto` with shapes inferred, nodes named."""
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
    """Return the reason for fp32, or nothing where fp16 may do."""
    if node.op_type in PRODUCTS:
        rank = facts.ranks.get(node.output[0], 0)
        return "" if rank > 2 else "one vector a picture costs nothing, and is the answer"
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
    """Return the float tensors that a follower takes, without constants."""
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
