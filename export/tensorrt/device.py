"""The GPU and the TensorRT of this machine, or what is missing of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass

MAJOR = 10
"""TensorRT 11 has no fp16 flag and no precision constraints any more (`trt.BuilderFlag.FP16` is gone)."""
INSTALL = "pip install 'landseer[gpu]'"


class MissingError(RuntimeError):
    """Engines cannot be built on this machine. The lines say what is missing and how to get it."""


@dataclass(frozen=True, kw_only=True)
class Device:
    """What engines are built for: they run on this GPU model with this TensorRT."""

    gpu: str
    capability: str
    tensorrt: str


def find_device() -> Device:
    """Return the current GPU. MissingError names everything that is missing, each with how to get it."""
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
        yield f"there is no Python module {error.name}: {INSTALL}"
    except (ImportError, OSError) as error:
        yield f"TensorRT's libraries cannot be loaded ({error}): {INSTALL}, or put the folder of libnvinfer.so.{MAJOR} \
on LD_LIBRARY_PATH"
    else:
        if version.split(".", maxsplit=1)[0] != str(MAJOR):
            yield f"TensorRT {version} is installed, but {MAJOR} is needed, which takes precision by layer: {INSTALL}"


def _missing_gpu() -> Iterator[str]:
    import torch

    if torch.version.cuda is None:
        yield f"torch {torch.__version__} is built without CUDA: install the build from PyPI"
    elif not torch.cuda.is_available():
        yield (
            f"torch sees no CUDA device: nvidia-smi must list a GPU; install NVIDIA's driver for CUDA "
            f"{torch.version.cuda}, or in a container pass --gpus all"
        )
