"""Find this machine's GPU and TensorRT, or report what is missing."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

MAJOR = 10
"""TensorRT 11 removed the fp16 flag and precision constraints (`trt.BuilderFlag.FP16`)."""
INSTALL = "pip install 'landseer[gpu]'"


class MissingError(RuntimeError):
    """Engines cannot be built on this machine. The message lists what is missing and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """The GPU model and TensorRT version that engines are built for."""

    gpu: str
    capability: str
    tensorrt: str


def find_device() -> Device:
    """Return the current GPU. MissingError lists everything that is missing and how to get it."""
    missing = (*_missing_tensorrt(), *_missing_gpu())
    if missing:
        raise MissingError("\n".join(("engines cannot be built on this machine:", *(f"- {line}" for line in missing))))
    import tensorrt as trt
    import torch

    major, minor = torch.cuda.get_device_capability()
    return Device(gpu=torch.cuda.get_device_name(), capability=f"{major}.{minor}", tensorrt=trt.__version__)


def _missing_tensorrt() -> Iterator[str]:
    try:
        version = str(importlib.import_module("tensorrt").__version__)
    except ModuleNotFoundError as error:
        yield f"missing Python module {error.name}: {INSTALL}"
    except (ImportError, OSError) as error:
        yield f"TensorRT's libraries cannot be loaded ({error}): {INSTALL}, or add the folder of libnvinfer.so.{MAJOR} \
to LD_LIBRARY_PATH"
    else:
        if version.split(".", maxsplit=1)[0] != str(MAJOR):
            yield f"TensorRT {version} is installed, but {MAJOR} is needed for precision by layer: {INSTALL}"


def _missing_gpu() -> Iterator[str]:
    import torch

    if torch.version.cuda is None:
        yield f"torch {torch.__version__} is built without CUDA: install the build from PyPI"
    elif not torch.cuda.is_available():
        yield (
            f"torch sees no CUDA device: nvidia-smi must list a GPU; install NVIDIA's driver for CUDA "
            f"{torch.version.cuda}, or in a container pass --gpus all"
        )
