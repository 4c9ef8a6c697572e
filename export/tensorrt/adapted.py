"""An exported graph, rewritten with what TensorRT documents instead of what it does not. Exactly equal results.

TensorRT's parser documents for every ONNX operator the types that it takes (`support`). Three uses in our graphs fall
outside, and each has an equal inside: uint8 may only enter (`image` is turned and measured before it is cast), CumSum
and Clip take no integers.
"""

from __future__ import annotations

from typing import Any

MOVES = frozenset({"Transpose", "Shape", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Identity", "Flatten"})
"""Operators that do the same to float32 as to uint8, so that a cast may come before them instead of after."""


class GraphError(RuntimeError):
    """A graph that TensorRT cannot be given; one readable line."""


def adapted(model: Any) -> Any:
    """Return a copy of an `onnx.ModelProto` in documented terms. GraphError if there is no equal for something."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    _name_nodes(copy.graph)
    _cast_bytes_first(copy.graph)
    _rewrite(copy.graph)
    del copy.graph.value_info[:]
    inferred: Any = onnx.shape_inference.infer_shapes(copy, strict_mode=True)
    return inferred


def element_types(graph: Any) -> dict[str, int]:
    """Return the ONNX element type of every tensor that a graph declares, by name."""
    declared = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    declared |= {value.name: value.type.tensor_type.elem_type for value in graph.output}
    return declared | {weight.name: weight.data_type for weight in graph.initializer}


def _name_nodes(graph: Any) -> None:
    """Give every node a name of its own: precision is asked for by name."""
    seen: set[str] = set()
    for place, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_at_{place}"
        seen.add(node.name)


def _cast_bytes_first(graph: Any) -> None:
    from onnx import TensorProto, helper

    images = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.UINT8]
    for name in images:
        _check_only_moved(graph, name)
        cast = f"{name}_as_float"
        for node in graph.node:
            node.input[:] = [cast if tensor == name else tensor for tensor in node.input]
        graph.node.insert(0, helper.make_node("Cast", [name], [cast], name=f"node_{cast}", to=TensorProto.FLOAT))


def _check_only_moved(graph: Any, name: str) -> None:
    """Follow a uint8 tensor to its casts. GraphError if anything computes with it on the way."""
    from onnx import TensorProto

    moved = {name}
    for node in graph.node:
        if not moved & set(node.input):
            continue
        to = {attribute.name: attribute.i for attribute in node.attribute}.get("to")
        if node.op_type in MOVES - {"Shape"}:
            moved |= set(node.output)
        elif node.op_type != "Shape" and not (node.op_type == "Cast" and to == TensorProto.FLOAT):
            raise GraphError(
                f"{node.op_type} {node.name!r} computes with the uint8 input {name!r}, which TensorRT cannot: "
                f"cast it to float32 in the module first"
            )


def _rewrite(graph: Any) -> None:
    types, nodes = element_types(graph), []
    for node in graph.node:
        rewrite = REWRITES.get(node.op_type)
        whole = types.get(node.output[0]) in _whole_numbers()
        nodes.extend(rewrite(node, types[node.output[0]]) if rewrite and whole else [node])
    del graph.node[:]
    graph.node.extend(nodes)


def _whole_numbers() -> tuple[int, int]:
    from onnx import TensorProto

    return TensorProto.INT32, TensorProto.INT64


def _cumsum_in_float(node: Any, whole: int) -> list[Any]:
    """Sum as float32, which is exact up to 2^24: our sums count the pictures of a batch."""
    from onnx import TensorProto, helper

    before, after = f"{node.output[0]}_from_float", f"{node.output[0]}_in_float"
    summed = type(node)()
    summed.CopyFrom(node)
    summed.input[0], summed.output[0] = before, after
    return [
        helper.make_node("Cast", [node.input[0]], [before], name=f"{node.name}_from", to=TensorProto.FLOAT),
        summed,
        helper.make_node("Cast", [after], [node.output[0]], name=f"{node.name}_to", to=whole),
    ]


def _clip_as_bounds(node: Any, _: int) -> list[Any]:
    from onnx import helper

    steps = [(op, bound) for op, bound in zip(("Max", "Min"), node.input[1:], strict=False) if bound]
    nodes, tensor = [], node.input[0]
    for place, (op, bound) in enumerate(steps, start=1):
        out = node.output[0] if place == len(steps) else f"{node.output[0]}_{op.lower()}"
        nodes.append(helper.make_node(op, [tensor, bound], [out], name=f"{node.name}_{op.lower()}"))
        tensor = out
    return nodes or [helper.make_node("Identity", [tensor], [node.output[0]], name=node.name)]


REWRITES = {"CumSum": _cumsum_in_float, "Clip": _clip_as_bounds}
"""By operator, what replaces its use on whole numbers."""
