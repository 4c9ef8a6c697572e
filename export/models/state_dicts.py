"""State dicts: read from files, and filled into networks."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from landseer.export.models.torch_file import WeightsError, torch_file
from landseer.export.models.trained import SUFFIX, read_tensors


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, as written by `landseer train`, or from a `torch.save` file.

    WeightsError if it is neither. Never runs code from the file.
    """
    return read_tensors(path)[0] if path.suffix == SUFFIX else read_state_dict(path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, bare or under `state_dict`, as fp32. Never runs code from the file."""
    return tensors_of(torch_file(path), path)


def tensors_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict that a file held, bare or under `state_dict`, as fp32. WeightsError if it is none."""
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds {type(loaded).__name__}, not a state dict of tensors by name")
    # Some files are in half precision or were saved from DataParallel.
    return {k.removeprefix("module."): v.float() if v.is_floating_point() else v for k, v in state.items()}


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load strictly; only BatchNorm's step counters may be missing, because inference never reads them."""
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        why = str(error).splitlines()[1].strip()
        raise WeightsError(f"{path} does not fit {type(network).__name__}: {why}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"{path} does not fit {type(network).__name__}: {len(missing)} weights are missing (such as "
            f"{missing[:1]}), {len(unexpected)} are unknown (such as {unexpected[:1]})"
        )


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
