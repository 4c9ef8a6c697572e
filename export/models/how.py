"""HOW: local descriptors for instances (Tolias, Jeníček and Chum 2020), from checkpoints of the authors' code.

For the figures of the paper, not for serving: seven scales of a picture of 1,024 pixels, and 1,000 or 2,000 descriptors
that are not normalised. `ops/research/published.py` runs them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.export.models.torch_file import WeightsError

SCALES = (2.0, 1.414, 1.0, 0.707, 0.5, 0.353, 0.25)
TRAINING_SCALES = (1.0,)
"""Of the photographs that the codebook is learned from."""
ARCHITECTURES = ("resnet18", "resnet50", "resnet101")
EXPECTED = "expected a file of the authors' code for HOW: {'net_params': {'architecture', ...}, 'state_dict': ...}"


class HOW(nn.Module):
    """A trunk, smoothing and a reduction; where features are long, the picture is strong."""

    mean: Tensor
    std: Tensor

    def __init__(
        self, *, architecture: str, skipped: int, size: int, kernel: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        """skipped: layers left out at the trunk's end; size: D; kernel: side of the smoothing; mean, std: of 0..1."""
        import torchvision.models

        super().__init__()
        network = torchvision.models.get_model(architecture)
        layers = list(network.children())[:-2]
        self.features = nn.Sequential(*layers[: len(layers) - skipped])
        self.dim_reduction = nn.Conv2d(network.fc.in_features // 2**skipped, size, 1)
        self.kernel = kernel
        self.register_buffer("mean", 255.0 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255.0 * torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, x: Tensor, *, scales: Sequence[float], count: int) -> Tensor:
        """Return the `count` strongest descriptors of one picture. x: [1, 3, H, W] RGB in 0..255 → [n, D]."""
        normal = (x - self.mean) / self.std
        found = [self._at(normal, scale) for scale in scales]
        return strongest([one for one, _ in found], [strength for _, strength in found], count)

    def _at(self, x: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        features = self.features(F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False))
        return self.dim_reduction(smoothed(features, self.kernel)), strengths(features)


def strengths(features: Tensor) -> Tensor:
    """Return the lengths of features. [1, C, h, w] → [h, w]."""
    return (features.square().sum(dim=1) + 1e-10).sqrt()[0]


def smoothed(features: Tensor, kernel: int) -> Tensor:
    """Return the mean of each neighbourhood of kernel x kernel cells, of those within the map. [B, C, h, w]."""
    return F.avg_pool2d(features, kernel, stride=1, padding=kernel // 2, count_include_pad=False)


def strongest(maps: Sequence[Tensor], lengths: Sequence[Tensor], count: int) -> Tensor:
    """Return the `count` descriptors of greatest strength over all scales. maps: [1, D, h, w], lengths: [h, w]."""
    every = torch.cat([one[0].flatten(1).T for one in maps])
    order = torch.cat([one.flatten() for one in lengths]).sort(descending=True, stable=True).indices
    return every[order[:count]]


def is_how(contents: object) -> bool:
    """Return whether a file's contents are a checkpoint of HOW, by its present or its first format."""
    if not isinstance(contents, dict) or "state_dict" not in contents:
        return False
    meta = contents.get("meta")
    return "net_params" in contents or (isinstance(meta, dict) and "skip_layer" in meta)


def read_how(contents: Any, path: Path) -> HOW:
    """Return the network of a checkpoint. WeightsError says what was found and expected."""
    try:
        options, state = _options(contents), dict(contents["state_dict"])
        for name in [name for name in state if name.startswith("whiten.")]:  # as the first format calls it
            state[name.replace("whiten", "dim_reduction")] = state.pop(name)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} lacks {error}; {EXPECTED}") from error
    if options["architecture"] not in ARCHITECTURES:
        raise WeightsError(f"{path} is of {options['architecture']}; expected {' or '.join(ARCHITECTURES)}")
    network = HOW(**options)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        why = " ".join(line.strip() for line in str(error).splitlines()[1:2])
        raise WeightsError(f"{path} does not fit HOW on {options['architecture']}: {why}") from error
    return network.eval()


def _options(contents: Mapping[str, Any]) -> dict[str, Any]:
    if "net_params" in contents:
        given = contents["net_params"]
        mean, std = given["runtime"]["mean_std"]
        size, kernel = given["dim_reduction"]["dim"], given["smoothing"]["kernel_size"]
    else:
        given = contents["meta"]
        mean, std, size, kernel = given["mean"], given["std"], given["dim"], given["feat_pool_k"]
    return {
        "architecture": given["architecture"],
        "skipped": int(given["skip_layer"]),
        "size": int(size),
        "kernel": int(kernel),
        "mean": mean,
        "std": std,
    }
