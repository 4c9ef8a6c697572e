"""Rehearse fp16 on the CPU: run the graph with the constants and results of fp16 layers rounded to fp16.

This shows the effect of rounding and where layers overflow. Products are summed in fp32 here, but in fp32 or fp16 on a
GPU, depending on the fastest kernel. So it is only an estimate and decides nothing.
"""

from __future__ import annotations

from typing import Any

from landseer.export.engines import Run
from landseer.export.tensorrt.plan import Plan
from landseer.export.to_onnx import Arrays


def rehearsal(plan: Plan) -> Run:
    """Return the planned graph, rounded where the plan allows fp16, as a function that runs on ONNX Runtime."""
    import onnx
    import onnxruntime

    half = plan.precision.half if plan.precision is not None else frozenset[str]()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    model = rounded(onnx.load_from_string(plan.model), half).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


def rounded(model: Any, half: frozenset[str]) -> Any:
    """Return a copy of an `onnx.ModelProto` that rounds outputs and constants of the named nodes to fp16."""
    copy, nodes = type(model)(), []
    copy.CopyFrom(model)
    _round_constants(copy.graph, half)
    for node in copy.graph.node:
        nodes.append(node)
        if node.name in half:
            nodes.extend(_round_outputs(node))
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _round_constants(graph: Any, half: frozenset[str]) -> None:
    import numpy as np
    from onnx import TensorProto, numpy_helper

    used = {name for node in graph.node if node.name in half for name in node.input}
    for weight in graph.initializer:
        if weight.name in used and weight.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):
                value = numpy_helper.to_array(weight).astype(np.float16).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(value, weight.name))


def _round_outputs(node: Any) -> list[Any]:
    """Rename a node's outputs, and return casts to fp16 and back under the original names."""
    from onnx import TensorProto, helper

    casts = []
    for place, name in enumerate(list(node.output)):
        exact, half = f"{name}_exact", f"{name}_half"
        node.output[place] = exact
        casts.append(helper.make_node("Cast", [exact], [half], name=f"{half}_cast", to=TensorProto.FLOAT16))
        casts.append(helper.make_node("Cast", [half], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    return casts
