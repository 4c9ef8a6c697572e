"""Joining models: what they compute in turn, with one copy of shared weights."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from landseer.export.splice import Use, spliced


def affine(scale: float, shift: float) -> onnx.ModelProto:
    """Return y = scale x + shift, scale a matrix and shift a vector. All have the same names within."""
    nodes = [
        helper.make_node("Mul", ["x", "scale"], ["inner"], name="mul"),
        helper.make_node("Add", ["inner", "shift"], ["y"], name="add"),
    ]
    weights = [
        numpy_helper.from_array(np.float32(value), name) for name, value in (("scale", [[scale]]), ("shift", [shift]))
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n"]) for name in "xy")
    model = helper.make_model(helper.make_graph(nodes, "affine", [x], [y], weights))
    model.opset_import[0].version, model.ir_version = 18, 10
    return model


def use(name: str, model: onnx.ModelProto, weights: str, source: str, target: str) -> Use:
    return Use(name=name, model=model, weights=weights, inputs=[source], outputs=[target])


def named(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n"])


def test_models_run_one_after_the_other_and_uses_of_one_share_its_weights() -> None:
    twice, last = affine(2.0, 1.0), affine(-1.0, 0.5)
    uses = [use("a", twice, "twice", "in", "p"), use("b", twice, "twice", "p", "q"), use("c", last, "last", "q", "out")]
    whole = spliced(uses, [named("in")], [named("out")])
    onnx.checker.check_model(whole, full_check=True)
    assert [len(tensor.dims) for tensor in whole.graph.initializer].count(2) == 2
    assert len(whole.graph.initializer) == 5
    (out,) = ort.InferenceSession(whole.SerializeToString()).run(None, {"in": np.float32([[0.0, 3.0]])})
    assert np.array_equal(out, np.float32([[-2.5, -14.5]]))


def test_nested_graphs_are_refused() -> None:
    model = affine(1.0, 0.0)
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], [], then_branch=inner, else_branch=inner))
    with pytest.raises(ValueError, match="odd has functions or nested graphs"):
        spliced([use("a", model, "odd", "in", "out")], [named("in")], [named("out")])
