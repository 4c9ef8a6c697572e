"""Build a serialised engine from a plan with TensorRT's builder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from landseer.export.tensorrt import timing_cache
from landseer.export.tensorrt.errors import BuildError
from landseer.export.tensorrt.log import new_log, reasons
from landseer.export.tensorrt.plan import Plan
from landseer.export.tensorrt.precision import Precision
from landseer.export.tensorrt.profiles import ShapeProfile

if TYPE_CHECKING:
    import tensorrt as trt

ORIGIN = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
"""The parser's note in a layer's metadata of the node it comes from, one for each node."""


@dataclass(frozen=True, kw_only=True)
class BuilderSettings:
    """Options of the builder."""

    workspace_gib: float = 4.0
    """Scratch memory limit of one layer on the GPU."""
    version_compatible: bool = False
    """Whether later releases of TensorRT 10 can load the engine, at some cost in size and speed."""
    timing_cache: Path | None = None


def build(plan: Plan, settings: BuilderSettings, *, half: bool) -> bytes:
    """Build the engine of a plan; if `half`, with fp16 where the plan allows it. BuildError if it fails."""
    import tensorrt as trt

    log, errors = new_log()
    try:
        builder = trt.Builder(log)
    except TypeError as error:
        # This is how the binding reports that CUDA does not start.
        raise BuildError(f"TensorRT's builder does not start: {reasons(errors)}") from error
    network = builder.create_network(0)
    parser = _parsed(network, plan, log)  # Owns the weights, so it must live until the engine is built.
    config = builder.create_builder_config()
    _configure(config, settings, half=half)
    if settings.version_compatible:
        config.plugins_to_serialize = parser.get_used_vc_plugin_libraries()
    for profile in plan.profiles:
        _add_profile(builder, config, profile)
    if half and plan.precision is not None:
        constrain(network, plan.precision)
    timing_cache.use(config, settings.timing_cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BuildError(f"TensorRT builds no engine: {reasons(errors)}")
    timing_cache.keep(config, settings.timing_cache)
    return bytes(cast(Any, engine))


def constrain(network: trt.INetworkDefinition, precision: Precision) -> int:
    """Constrain floating-point layers to fp32 unless their nodes may run in fp16. Returns the number constrained.

    Layers without a known node are constrained too. Integers, shapes, constants, casts and plugins have fixed types.
    """
    import tensorrt as trt

    kinds = trt.LayerType
    own = (kinds.CONSTANT, kinds.SHAPE, kinds.CAST, kinds.PLUGIN, kinds.PLUGIN_V2, kinds.PLUGIN_V3)
    held = 0
    for place in range(network.num_layers):
        layer = network.get_layer(place)
        outputs = range(layer.num_outputs)
        floats = all(layer.get_output(i).dtype == trt.DataType.FLOAT for i in outputs)
        if layer.type in own or not floats or _nodes(layer.metadata, layer.name) <= precision.half:
            continue
        layer.precision = trt.DataType.FLOAT
        for i in outputs:
            layer.set_output_type(i, trt.DataType.FLOAT)
        held += 1
    return held


def _nodes(metadata: str, name: str) -> set[str]:
    """Return the nodes that a layer comes from: from its metadata, or else its own name."""
    return set(ORIGIN.findall(metadata or "")) or {name}


def _parsed(network: trt.INetworkDefinition, plan: Plan, log: trt.ILogger) -> trt.OnnxParser:
    import tensorrt as trt

    trt.init_libnvinfer_plugins(cast(Any, log), "")
    parser = trt.OnnxParser(network, log)
    if not parser.parse(plan.model):
        told: list[trt.ParserError] = [parser.get_error(i) for i in range(parser.num_errors)]
        lines = [f"{error.node_operator()} {error.node_name()!r}: {error.desc()}" for error in told]
        raise BuildError(f"TensorRT rejects the graph: {reasons(lines)}")
    return parser


def _configure(config: trt.IBuilderConfig, settings: BuilderSettings, *, half: bool) -> None:
    import tensorrt as trt

    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, int(settings.workspace_gib * 2**30))
    # TF32 rounds products to 11 bits, but layers are kept in fp32 because they need more.
    config.clear_flag(trt.BuilderFlag.TF32)
    if half:
        config.set_flag(trt.BuilderFlag.FP16)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)


def _add_profile(builder: trt.Builder, config: trt.IBuilderConfig, profile: ShapeProfile) -> None:
    import tensorrt as trt

    made = builder.create_optimization_profile()
    for span in profile.spans:
        made.set_shape(span.name, trt.Dims(span.least), trt.Dims(span.usual), trt.Dims(span.most))
    if config.add_optimization_profile(made) < 0:
        raise BuildError(f"TensorRT rejects the profile {profile}")
