"""The `config.pbtxt` with which Triton serves an engine instead of the ONNX graph beside it.

Triton started with `--model-config-name=tensorrt` reads `<model>/configs/tensorrt.pbtxt` where there is one, and
`config.pbtxt` elsewhere: a graph without an engine, and the ensembles, stay as they are, in one repository.
"""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2 as pb

from landseer.ensemble.contracts import Graph
from landseer.export.config import graph_config, to_text

NAME = "tensorrt"
"""What to give Triton as --model-config-name."""
PLAN_FILE = "model.plan"


def config_path(graph: str) -> str:
    """Return where the configuration of a graph's engine lies in the repository."""
    return f"{graph}/configs/{NAME}.pbtxt"


def engine_config(graph: Graph, *, precision: str, profiles: int) -> pb.ModelConfig:
    """Return the configuration of one engine. precision: "fp16" or "fp32". profiles: how many it was built with."""
    config = graph_config(graph, precision=precision)
    config.platform, config.backend = "tensorrt_plan", "tensorrt"
    config.default_model_filename = PLAN_FILE
    # Those that are left choose among CPU engines; and every output of an engine is always computed.
    config.ClearField("optimization")
    config.parameters.pop("landseer_prepared_outputs", None)
    # Without it every profile would get memory for the greatest of all.
    config.parameters["execution_context_allocation_strategy"].string_value = "ON_PROFILE_CHANGE"
    config.ClearField("instance_group")
    config.instance_group.add(
        count=1, kind=pb.ModelInstanceGroup.KIND_GPU, profile=[str(place) for place in range(profiles)]
    )
    return config


def engine_text(graph: Graph, *, precision: str, profiles: int) -> str:
    """Return the configuration as protobuf text."""
    return to_text(engine_config(graph, precision=precision, profiles=profiles))
