"""What TensorRT is given of the exported graphs; tests/export/test_tensorrt_plan.py has it on small ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from landseer.ensemble.inference.contracts import Sizes, graphs
from landseer.export.tensorrt.adapted import adapted
from landseer.export.tensorrt.precision import choose
from landseer.export.tensorrt.support import gaps, plugins

pytestmark = pytest.mark.stack


def exported(repository: Path, name: str) -> Any:
    return onnx.load(repository / name / "1" / "model.onnx")


def run(model: Any, image: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"image": image})


@pytest.mark.parametrize("name", sorted(graphs(Sizes(channels=1280))))
def test_the_exported_graphs_are_documented_once_adapted(repository: Path, name: str) -> None:
    model = adapted(exported(repository, name))
    assert gaps(model) == ()
    assert bool(plugins(model)) == (name == "detector")


def test_the_exported_backbone_says_the_same_adapted(repository: Path) -> None:
    model = exported(repository, "backbone")
    image = np.random.default_rng(1).integers(0, 256, (2, 96, 128, 3), dtype=np.uint8)
    for before, after in zip(run(model, image), run(adapted(model), image), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_exported_backbone_runs_its_convolutions_in_half(repository: Path) -> None:
    model = adapted(exported(repository, "backbone"))
    precision = choose(model)
    full, half = (
        Counter(node.op_type for node in model.graph.node if node.name in names)
        for names in (precision.full, precision.half)
    )
    assert half["Conv"] > 100
    assert full["Conv"] == 0
    assert half["MatMul"] == 2, "of the local features and of the patches; those of one vector a picture stay"
    assert not set(half) & {"Pow", "ReduceL2", "ReduceMean", "TopK", "Resize", "Einsum", "Div"}
