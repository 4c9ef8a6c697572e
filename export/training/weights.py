"""Write the best weights of a training, and hash its initial ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from landseer.export.training.files import write_whole


def write_weights(
    weights: Mapping[str, Tensor],
    path: Path,
    *,
    epoch: int,
    measure: str,
    value: float,
    about: Mapping[str, str | int | float] | None = None,
) -> None:
    """Write safetensors atomically from any device, with the validation they are the best of in the metadata.

    about: the identity of the training, see `Task.about`; `models.trained` reads it.
    """
    from safetensors.torch import save

    # One entry: the order of several is undefined, and equal runs should give equal files.
    told = {"landseer": json.dumps({"epoch": epoch, "measure": measure, "value": value} | dict(about or {}))}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    contents = save(tensors, metadata=told)
    write_whole(path, lambda staged: staged.write_bytes(contents))


def state_digest(module: nn.Module) -> str:
    """Hash a module's weights to 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
