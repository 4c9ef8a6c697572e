"""Join ONNX models into one, a model that is used several times keeping one copy of its weights.

Biases and other vectors are copied for each use: OpenVINO (2026.4) adds a bias within its convolution only if nothing
else uses that bias. Shared ones made the backbone 11% slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx


@dataclass(frozen=True, kw_only=True, eq=False)
class Use:
    """One use of a model within a larger one."""

    name: str
    """Prefix of its inner values and its vectors; uses differ in it."""
    model: onnx.ModelProto
    weights: str
    """Prefix of its weights of two or more dimensions: uses of the same model share it."""
    inputs: Sequence[str]
    """Names of its inputs in the larger model, in the model's order."""
    outputs: Sequence[str]
    """Names of its outputs in the larger model, in the model's order."""


def spliced(
    uses: Sequence[Use], inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    """Return one model of all uses, in this order. ValueError if a model has nested graphs or functions."""
    whole = onnx.ModelProto()
    whole.CopyFrom(uses[-1].model)
    whole.graph.Clear()
    whole.graph.name = uses[-1].model.graph.name
    whole.graph.input.extend(inputs)
    whole.graph.output.extend(outputs)
    weights: dict[str, onnx.TensorProto] = {}
    for use in uses:
        names = _names(use)
        for tensor in use.model.graph.initializer:
            if names[tensor.name] not in weights:
                weights[names[tensor.name]] = kept = onnx.TensorProto()
                kept.CopyFrom(tensor)
                kept.name = names[tensor.name]
        whole.graph.node.extend(_renamed(use, names))
    whole.graph.initializer.extend(weights.values())
    return whole


def _names(use: Use) -> dict[str, str]:
    """Return the names in the larger model of a model's inputs, outputs and weights."""
    graph = use.model.graph
    return (
        {
            tensor.name: f"{use.weights if len(tensor.dims) > 1 else use.name}/{tensor.name}"
            for tensor in graph.initializer
        }
        | {value.name: name for value, name in zip(graph.input, use.inputs, strict=True)}
        | {value.name: name for value, name in zip(graph.output, use.outputs, strict=True)}
    )


def _renamed(use: Use, names: Mapping[str, str]) -> Iterator[onnx.NodeProto]:
    if use.model.functions or any(_nested(node) for node in use.model.graph.node):
        raise ValueError(f"{use.weights} has functions or nested graphs, which cannot be joined")

    def name(old: str) -> str:
        # "" stands for an optional input or output that is left out.
        return names.get(old, f"{use.name}/{old}") if old else old

    for node in use.model.graph.node:
        made = onnx.NodeProto()
        made.CopyFrom(node)
        made.name = f"{use.name}/{node.name}"
        made.input[:] = [name(old) for old in node.input]
        made.output[:] = [name(old) for old in node.output]
        yield made


def _nested(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
