"""The types that TensorRT documents for the operators in our graphs.

From the operator table of TensorRT 10.15's ONNX parser (docs/operators.md of onnx-tensorrt), which covers
opsets 9 to 24. The builder on the machine decides in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from landseer.export.tensorrt.adapted import element_types

FLOATS = frozenset({"float32", "float16"})
NUMBERS = FLOATS | {"int32", "int64"}
MOVABLE = NUMBERS | {"bool"}
MAX_TOP_K = 3840

_FLOATS_ONLY = (
    "AveragePool", "BatchNormalization", "Ceil", "Clip", "Conv", "ConvTranspose", "CumSum", "Einsum", "Erf", "Exp",
    "Floor", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "LayerNormalization", "Log",
    "MatMul", "MaxPool", "NonMaxSuppression", "Reciprocal", "Resize", "RoiAlign", "Round", "Sigmoid", "Softmax",
    "Softplus", "Sqrt", "Tanh",
)  # fmt: skip
_ANY_NUMBER = (
    "Abs", "Add", "ArgMax", "ArgMin", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max",
    "Min", "Mod", "Mul", "Neg", "Pad", "Pow", "Range", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "ScatterElements", "ScatterND", "Sign", "Sub",
    "TopK",
)  # fmt: skip
_ANY_TYPE = (
    "Concat", "Constant", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity",
    "OneHot", "Reshape", "Shape", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
)  # fmt: skip
TYPES: dict[str, frozenset[str]] = {
    **dict.fromkeys(_FLOATS_ONLY, FLOATS),
    **dict.fromkeys(_ANY_NUMBER, NUMBERS),
    **dict.fromkeys(_ANY_TYPE, MOVABLE),
    **dict.fromkeys(("And", "Or", "Not", "Xor"), frozenset({"bool"})),
    "Cast": MOVABLE | {"uint8"},
}
"""Types of the first input (of the second for Where, whose first is the condition)."""


def gaps(model: Any) -> tuple[str, ...]:
    """Return a line for each undocumented use of an operator.

    model: an `onnx.ModelProto` with inferred shapes.
    """
    return tuple(dict.fromkeys(_gaps(model.graph)))


def plugins(model: Any) -> tuple[str, ...]:
    """Return the operators that need TensorRT's plugin library at run time."""
    reduced = (n for n in model.graph.node if n.op_type == "ScatterElements" and _attribute(n, "reduction") != b"none")
    return tuple(sorted({f"ScatterElements, reduction {_attribute(n, 'reduction').decode()}" for n in reduced}))


def _gaps(graph: Any) -> Iterator[str]:
    from onnx import helper, numpy_helper

    types = element_types(graph)
    weights = {weight.name: weight for weight in graph.initializer}
    for node in graph.node:
        tensor = node.input[int(node.op_type == "Where")] if node.input else node.output[0]
        kind = helper.tensor_dtype_to_np_dtype(types[tensor]).name if types.get(tensor) else "unknown"
        if kind not in TYPES.get(node.op_type, ()):
            yield f"{node.op_type} of {kind}"
        if node.op_type == "TopK":
            count = weights.get(node.input[1])
            if count is None or int(numpy_helper.to_array(count).item()) >= MAX_TOP_K:
                yield f"TopK {node.name!r} whose k is not a constant below {MAX_TOP_K}"
        if node.op_type == "ScatterND" and _attribute(node, "reduction") not in (None, b"none"):
            yield "ScatterND with a reduction"
        if node.op_type == "Resize" and _attribute(node, "antialias"):
            yield "Resize with antialiasing"


def _attribute(node: Any, name: str) -> Any:
    from onnx import helper

    found = [attribute for attribute in node.attribute if attribute.name == name]
    return helper.get_attribute_value(found[0]) if found else None
