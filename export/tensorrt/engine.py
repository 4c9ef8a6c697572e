"""Run a serialised engine to check it against torch. torch owns the memory, so no CUDA binding is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from landseer.export.engines import Run
from landseer.export.tensorrt.errors import BuildError
from landseer.export.tensorrt.log import new_log, reasons
from landseer.export.tensorrt.profiles import ShapeProfile, nearest
from landseer.export.to_onnx import Arrays

if TYPE_CHECKING:
    import tensorrt as trt

TORCH_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
"""torch's names for TensorRT's types."""


def load(engine: bytes, profiles: tuple[ShapeProfile, ...], *, version_compatible: bool = False) -> Run:
    """Return the engine as a function on arrays by name. BuildError if it does not load.

    profiles: the profiles it was built with, in order.
    """
    import tensorrt as trt

    log, errors = new_log()
    trt.init_libnvinfer_plugins(cast(Any, log), "")
    runtime = trt.Runtime(log)
    # A version-compatible engine contains code; this one was just built here, so it is trusted.
    runtime.engine_host_code_allowed = version_compatible
    loaded = runtime.deserialize_cuda_engine(engine)
    context = loaded.create_execution_context() if loaded is not None else None
    if context is None:
        raise BuildError(f"TensorRT cannot load the engine it built: {reasons(errors)}")

    def run(inputs: Arrays) -> Arrays:
        outputs = _run(loaded, context, profiles, inputs)
        if outputs is None:
            raise BuildError(f"TensorRT cannot run the engine it built: {reasons(errors)}")
        return outputs

    # The runtime must outlive its engine.
    run.runtime = runtime  # type: ignore[attr-defined]
    return run


def _run(
    engine: trt.ICudaEngine, context: trt.IExecutionContext, profiles: tuple[ShapeProfile, ...], inputs: Arrays
) -> Arrays | None:
    """Run once on a new stream. None if TensorRT refuses; the log has the reason."""
    import torch

    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call,unused-ignore]
    place = nearest(profiles, {name: array.shape for name, array in inputs.items()})
    with torch.cuda.stream(stream):
        ready = context.set_optimization_profile_async(place, stream.cuda_stream)
        sent = {name: torch.from_numpy(np.ascontiguousarray(array)).cuda() for name, array in inputs.items()}
        for name, tensor in sent.items():
            ready &= context.set_input_shape(name, tuple(tensor.shape))
            ready &= context.set_tensor_address(name, tensor.data_ptr())
        received = _outputs(engine, context)
        for name, tensor in received.items():
            ready &= context.set_tensor_address(name, tensor.data_ptr())
        ready = ready and context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    return {name: tensor.cpu().numpy() for name, tensor in received.items()} if ready else None


def _outputs(engine: trt.ICudaEngine, context: trt.IExecutionContext) -> dict[str, Any]:
    """Allocate every output, with the shape that follows from the inputs' shapes."""
    import tensorrt as trt
    import torch

    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    outputs = {}
    for name in (name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT):
        shape = context.get_tensor_shape(name)
        kind = getattr(torch, TORCH_TYPES[engine.get_tensor_dtype(name).name])
        outputs[name] = torch.empty([max(0, shape[i]) for i in range(len(shape))], dtype=kind, device="cuda")
    return outputs
