"""Generate the `config.pbtxt` with which Triton serves an engine instead of the ONNX graph beside it.

With `--model-config-name=tensorrt` Triton reads `<model>/configs/tensorrt.pbtxt` if it exists, else `config.pbtxt`. So
graphs without an engine and Triton's ensembles are served unchanged from the same repository.
"""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2 as pb

from landseer.ensemble.inference.contracts import Graph
from landseer.export.config import graph_config, to_text

NAME = "tensorrt"
"""The value for Triton's --model-config-name."""
PLAN_FILE = "model.plan"


def config_path(graph: str) -> str:
    """Return the path of an engine's configuration in the repository."""
    return f"{graph}/configs/{NAME}.pbtxt"


def engine_config(graph: Graph, *, precision: str, profiles: int) -> pb.ModelConfig:
    """Return the configuration of one engine. precision: "fp16" or "fp32". profiles: their number."""
    config = graph_config(graph, precision=precision)
    config.platform, config.backend = "tensorrt_plan", "tensorrt"
    config.default_model_filename = PLAN_FILE
    # The other settings select CPU engines, and an engine always computes all outputs.
    config.ClearField("optimization")
    config.parameters.pop("landseer_prepared_outputs", None)
    # By default every profile would get memory for the largest one.
    config.parameters["execution_context_allocation_strategy"].string_value = "ON_PROFILE_CHANGE"
    config.ClearField("instance_group")
    config.instance_group.add(
        count=1, kind=pb.ModelInstanceGroup.KIND_GPU, profile=[str(place) for place in range(profiles)]
    )
    return config


def engine_text(graph: Graph, *, precision: str, profiles: int) -> str:
    """Return the configuration as protobuf text."""
    return to_text(engine_config(graph, precision=precision, profiles=profiles))
