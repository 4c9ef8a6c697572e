"""The best weights of a training, kept apart from its state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from landseer.export.training.files import write_whole


def write_weights(weights: Mapping[str, Tensor], path: Path, *, epoch: int, measure: str, value: float) -> None:
    """Write safetensors atomically, from whatever device; the metadata say which validation they are the best of."""
    from safetensors.torch import save_file

    # One entry: the order of several is not decided, and equal runs should have equal files.
    about = {"landseer": json.dumps({"epoch": epoch, "measure": measure, "value": value})}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    write_whole(path, lambda staged: save_file(tensors, staged, metadata=about))
