"""Rewrite an exported graph to use only what TensorRT documents, with exactly equal results.

TensorRT's parser documents the types that each ONNX operator accepts (`support`). Four uses in our graphs are not
documented, and each has an equivalent that is: uint8 is allowed only as input (our graphs transpose and measure `image`
before the cast), CumSum and Clip accept no integers, and Equal no booleans (divisions of integers compare signs).
"""

from __future__ import annotations

from typing import Any

MOVES = frozenset({"Transpose", "Shape", "Reshape", "Squeeze", "Unsqueeze", "Slice", "Identity", "Flatten"})
"""Operators that treat float32 and uint8 alike, so that a cast may move in front of them."""


class GraphError(RuntimeError):
    """A graph that TensorRT cannot take. The message is one readable line."""


def adapted(model: Any) -> Any:
    """Return a copy of an `onnx.ModelProto` in documented operators. GraphError if something has no equivalent."""
    import onnx

    # Whether an operator is documented depends on its type, which not every graph declares.
    copy: Any = onnx.shape_inference.infer_shapes(model)
    _name_nodes(copy.graph)
    _cast_bytes_first(copy.graph)
    _rewrite(copy.graph)
    del copy.graph.value_info[:]
    inferred: Any = onnx.shape_inference.infer_shapes(copy, strict_mode=True)
    return inferred


def element_types(graph: Any) -> dict[str, int]:
    """Return the ONNX element type of every declared tensor, by name."""
    declared = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input)}
    declared |= {value.name: value.type.tensor_type.elem_type for value in graph.output}
    return declared | {weight.name: weight.data_type for weight in graph.initializer}


def _name_nodes(graph: Any) -> None:
    """Give every node a unique name, because precision is set by name."""
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
    """Follow a uint8 tensor to its casts. GraphError if any node computes with it first."""
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
    from onnx import TensorProto

    types, nodes = element_types(graph), []
    for node in graph.node:
        rewrite = REWRITES.get(node.op_type)
        whole = types.get(node.output[0]) in _whole_numbers()
        if node.op_type == "Equal" and TensorProto.BOOL in map(types.get, node.input):
            nodes.extend(_equal_as_not_different(node))
        else:
            nodes.extend(rewrite(node, types[node.output[0]]) if rewrite and whole else [node])
    del graph.node[:]
    graph.node.extend(nodes)


def _whole_numbers() -> tuple[int, int]:
    from onnx import TensorProto

    return TensorProto.INT32, TensorProto.INT64


def _cumsum_in_float(node: Any, whole: int) -> list[Any]:
    """Sum as float32, which is exact up to 2^24: these sums count the pictures of a batch."""
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


def _equal_as_not_different(node: Any) -> list[Any]:
    from onnx import helper

    different = f"{node.output[0]}_different"
    return [
        helper.make_node("Xor", list(node.input), [different], name=f"{node.name}_xor"),
        helper.make_node("Not", [different], [node.output[0]], name=f"{node.name}_not"),
    ]


REWRITES = {"CumSum": _cumsum_in_float, "Clip": _clip_as_bounds}
"""Replacements by operator, for integers."""
