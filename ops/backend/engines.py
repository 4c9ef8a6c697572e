"""The libraries that run a graph on a CPU, OpenVINO and ONNX Runtime, behind one protocol.

An engine belongs to one thread. After a failed inference the caller must drop it and create another: with OpenVINO
2026.4, a request that threw on its first shape answered later, valid pictures with wrong unit-norm descriptors
(measured: cosine 0.16).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from landseer.ops.backend.model_settings import EngineName, ModelSettings, Precision
from landseer.ops.backend.variants import Variants

Array = npt.NDArray[Any]


class LoadedGraph(Protocol):
    """A loaded graph."""

    precision: Precision
    """The precision in which it runs."""
    inputs: frozenset[str]
    outputs: frozenset[str]
    """Names of all inputs and outputs of the graph."""

    def prepare(self, outputs: frozenset[str]) -> None:
        """Do in advance what the first `infer` of exactly these outputs would do."""

    def infer(self, inputs: Mapping[str, Array], outputs: frozenset[str]) -> dict[str, Array]:
        """Run the graph once, computing only what `outputs` need. The next call overwrites the arrays."""


class OnnxRuntimeEngine:
    """ONNX Runtime on the CPU, always in fp32."""

    precision: Precision = "fp32"

    def __init__(self, settings: ModelSettings) -> None:
        self._settings = settings
        session = self._load(str(settings.path))
        self.inputs = frozenset(tensor.name for tensor in session.get_inputs())
        self.outputs = frozenset(tensor.name for tensor in session.get_outputs())
        self._variants = Variants(lambda names: session if names == self.outputs else self._cut(names), self.outputs)

    def prepare(self, outputs: frozenset[str]) -> None:
        """See LoadedGraph.prepare."""
        self._variants.add(outputs)

    def infer(self, inputs: Mapping[str, Array], outputs: frozenset[str]) -> dict[str, Array]:
        """See LoadedGraph.infer."""
        names = sorted(outputs)
        return dict(zip(names, self._variants.get(outputs).run(names, dict(inputs)), strict=True))

    def _cut(self, outputs: frozenset[str]) -> Any:
        """Load only the part of the graph for these outputs: a session always runs all its nodes."""
        import onnx

        model = onnx.load(self._settings.path)
        cut = onnx.utils.Extractor(model).extract_model(sorted(self.inputs), sorted(outputs))
        return self._load(cut.SerializeToString())

    def _load(self, model: str | bytes) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = self._settings.threads
        options.inter_op_num_threads = 1
        # Threads that spin between inferences would take cores from the other models.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # failed inferences are reported to the caller, not logged
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OpenVinoEngine:
    """OpenVINO on the CPU, in bf16 if requested and supported by the CPU.

    What it does about memory is in docs/research/triton-memory.md; landseer.ops.bench.triton_memory measures it.
    """

    def __init__(self, settings: ModelSettings) -> None:
        import openvino as ov

        self._settings = settings
        self._core = ov.Core()
        capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision: Precision = "bf16" if settings.precision == "bf16" and "BF16" in capabilities else "fp32"
        model = self._core.read_model(settings.path)
        self.inputs = frozenset(name for tensor in model.inputs for name in tensor.get_names())
        self.outputs = frozenset(name for tensor in model.outputs for name in tensor.get_names())
        self._variants = Variants(self._request, self.outputs, most=1 if settings.one_graph else 4)

    def prepare(self, outputs: frozenset[str]) -> None:
        """See LoadedGraph.prepare."""
        self._variants.get(outputs)

    def infer(self, inputs: Mapping[str, Array], outputs: frozenset[str]) -> dict[str, Array]:
        """See LoadedGraph.infer."""
        results = self._variants.get(outputs).infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {name: results[name] for name in outputs}

    def _request(self, outputs: frozenset[str]) -> Any:
        """Compile the graph with only these results, and create the request that runs it."""
        model = self._core.read_model(self._settings.path)
        for output in model.outputs:
            if not output.get_names() & outputs:
                model.remove_result(output.get_node())
        return self._core.compile_model(model, "CPU", self._properties()).create_infer_request()

    def _properties(self) -> dict[str, Any]:
        # By default OpenVINO keeps what it prepared for the last 5,000 shapes of a kind of node: 40 MB for each size of
        # picture, of which there are hundreds.
        kept = {"CPU_RUNTIME_CACHE_CAPACITY": 0} if self._settings.pictures else {}
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._settings.threads,
            # Several models share the cores, each in its own process: pinned threads would queue for the same core.
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision == "bf16" else "f32",
            **kept,
        }


ENGINES: Mapping[EngineName, Callable[[ModelSettings], LoadedGraph]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
}


def copied(results: Mapping[str, Array]) -> dict[str, Array]:
    """Return copies of the results, which the next inference cannot overwrite."""
    return {name: np.array(value) for name, value in results.items()}


def batched(values: Sequence[Array]) -> Array:
    """Concatenate arrays along the first axis; a single array is returned unchanged."""
    return values[0] if len(values) == 1 else np.concatenate(values)
