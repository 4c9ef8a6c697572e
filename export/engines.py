"""The inference engines that may serve a graph; parity is checked on each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from landseer.export.to_onnx import Arrays

Run = Callable[[Arrays], Arrays]


def onnxruntime_fp32(path: Path) -> Run:
    """ONNX Runtime on the CPU, which every Triton has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def openvino(precision: str) -> Callable[[Path], Run]:
    """OpenVINO on the CPU at "f32" or "bf16"."""

    def load(path: Path) -> Run:
        import openvino as ov

        hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        model = ov.Core().compile_model(str(path), "CPU", hints)
        # OpenVINO computes what is equal once, and gives the result the names of both.
        names = [output.name for output in onnx.load(path, load_external_data=False).graph.output]

        def run(inputs: Arrays) -> Arrays:
            found = model(inputs)
            return {name: np.array(found[name]) for name in names}

        return run

    return load


ENGINES: dict[str, Callable[[Path], Run]] = {
    "onnxruntime-fp32": onnxruntime_fp32,
    "openvino-fp32": openvino("f32"),
    "openvino-bf16": openvino("bf16"),
}


def cpu_has_bf16() -> bool:
    """Whether OpenVINO supports bf16 on this machine."""
    import openvino as ov

    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
