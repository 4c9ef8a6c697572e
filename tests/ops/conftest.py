from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 8
STRIPE = 8
"""`stripes` cuts the width into pieces of this many pixels, and throws when it cannot."""


def tiny_graph() -> onnx.ModelProto:
    """image uint8 [B, H, W, 3] -> descriptor [B, 8], stripes [B, W / 8, 24]; throws unless 8 divides W."""
    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(size=(CHANNELS, 3, 3, 3)).astype(np.float32),
        "scale": np.float32(1 / 255),
        "stripe_shape": np.array([0, -1, STRIPE * 3]),
    }
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["descriptor"], axis=1),
        helper.make_node("ReduceMean", ["scaled"], ["row"], axes=[1], keepdims=0),
        helper.make_node("Reshape", ["row", "stripe_shape"], ["stripes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", "H", "W", 3])],
        [
            helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, ["B", CHANNELS]),
            helper.make_tensor_value_info("stripes", TensorProto.FLOAT, ["B", "S", STRIPE * 3]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def config(name: str, *, batching: str = "dynamic_batching { }", openvino: bool = True, bounds: str = "") -> str:
    accelerators = 'optimization { execution_accelerators { cpu_execution_accelerator [{ name: "openvino" }] } }'
    escaped = bounds.replace('"', '\\"')
    return f"""
name: "{name}"
backend: "onnxruntime"
max_batch_size: 8
input [{{ name: "image" data_type: TYPE_UINT8 dims: [-1, -1, 3] }}]
output [
  {{ name: "descriptor" data_type: TYPE_FP32 dims: [{CHANNELS}] }},
  {{ name: "stripes" data_type: TYPE_FP32 dims: [-1, {STRIPE * 3}] }}
]
instance_group [{{ count: 1 kind: KIND_CPU }}]
{batching}
{accelerators if openvino else ""}
parameters {{ key: "intra_op_thread_count" value {{ string_value: "1" }} }}
{f'parameters {{ key: "landseer_bounds" value {{ string_value: "{escaped}" }} }}' if bounds else ""}
"""


ENSEMBLE = """
name: "brief"
platform: "ensemble"
max_batch_size: 8
input [{ name: "image" data_type: TYPE_UINT8 dims: [-1, -1, 3] }]
output [{ name: "descriptor" data_type: TYPE_FP32 dims: [8] }]
ensemble_scheduling { step [{
  model_name: "loose" model_version: -1
  input_map { key: "image" value: "image" }
  output_map { key: "descriptor" value: "descriptor" }
}] }
"""


def add_model(repository: Path, name: str, text: str) -> None:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(text)
    if "ensemble" not in text:
        onnx.save(tiny_graph(), version / "model.onnx")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "model.onnx"
    onnx.save(tiny_graph(), path)
    return path


@pytest.fixture(scope="session")
def reference(tiny_onnx: Path) -> Callable[[np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]:
    """The graph's outputs by plain ONNX Runtime."""
    import onnxruntime as ort

    session = ort.InferenceSession(tiny_onnx, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda image: dict(zip(names, session.run(names, {"image": image}), strict=True))


@pytest.fixture
def picture() -> Callable[..., np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    return lambda height, width, batch=1: rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def small_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small model: the quickest Triton to start."""
    repository = tmp_path_factory.mktemp("small")
    add_model(repository, "tiny", config("tiny", openvino=False))
    # Leftovers of a killed export, with and without a configuration; they are not models.
    (repository / "left-over").mkdir()
    (repository / ".export-x").mkdir()
    (repository / ".export-x" / "config.pbtxt").write_text('name: "half')
    return repository


@pytest.fixture(scope="session")
def full_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for each thing that is tested, so that every test meets a model that has run nothing yet."""
    repository = tmp_path_factory.mktemp("full")
    bounds = '{"image": [[16, 256], [16, 256], [3, 3]]}'
    # Until all eight of the test are there, however slow the machine; then at once.
    waits = "dynamic_batching { preferred_batch_size: [8], max_queue_delay_microseconds: 20000000 }"
    add_model(repository, "bounded", config("bounded", bounds=bounds))
    add_model(repository, "loose", config("loose"))
    add_model(repository, "throws", config("throws"))
    add_model(repository, "plain", config("plain", openvino=False))
    add_model(repository, "patient", config("patient", batching=waits))
    add_model(repository, "brief", ENSEMBLE)
    return repository


@pytest.fixture(scope="session")
def make_config() -> Callable[..., str]:
    return config


@pytest.fixture(scope="session")
def make_model() -> Callable[[Path, str, str], None]:
    return add_model


@pytest.fixture
def eventually() -> Callable[..., bool]:
    def wait(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
        until = time.monotonic() + seconds
        while not condition() and time.monotonic() < until:
            time.sleep(0.05)
        return condition()

    return wait


def running(pid: int) -> bool:
    """Whether a process exists and is not a zombie that nobody has reaped."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="session")
def is_running() -> Callable[[int], bool]:
    return running


@pytest.fixture(scope="session")
def session_of() -> Callable[[int], list[int]]:
    """The processes in the session of a process, which is itself its leader."""

    def belongs(pid: int, leader: int) -> bool:
        try:
            return os.getsid(pid) == leader
        except ProcessLookupError:
            return False

    def members(leader: int) -> list[int]:
        return [pid for pid in psutil.pids() if belongs(pid, leader) and running(pid)]

    return members


@pytest.fixture(scope="session")
def leftovers() -> Callable[[int], set[str]]:
    """What the launcher with this process id has left in shared memory and among the temporary files."""

    def left(launcher: int) -> set[str]:
        folders = (Path("/dev/shm"), Path(tempfile.gettempdir()))
        return {str(path) for folder in folders for path in folder.glob(f"landseer-{launcher}-*")}

    return left


@pytest.fixture
def eager_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trunks run in torch: to export one takes 20 s, and that the export says the same is tested elsewhere."""
    import torch

    from landseer.export.models.trunk import Trunk

    def runner(
        trunk: Trunk, precision: str, names: Sequence[str]
    ) -> Callable[[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
        def run(pixels: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
            with torch.no_grad():
                maps = trunk.maps(torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2))
            return [getattr(maps, name).half().numpy() for name in names]

        return run

    def of_pixels(
        module: torch.nn.Module, precision: str, names: Sequence[str]
    ) -> Callable[[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
        def run(pixels: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
            with torch.no_grad():
                return [one.half().numpy() for one in module.eval()(torch.from_numpy(pixels.astype(np.float32)))]

        return run

    monkeypatch.setattr("landseer.export.training.look_alike_views.pixel_runner", of_pixels)
    for user in ("evaluate.head_describer", "research.heads"):
        monkeypatch.setattr(f"landseer.ops.{user}.maps_runner", runner)
