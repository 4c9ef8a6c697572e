"""Read checkpoints of the public landmark models, in the format of cnnimageretrieval-pytorch.

Radenović, Tolias and Chum 2018, "Fine-tuning CNN Image Retrieval with No Human Annotation"; the format is that of the
authors' code, {'meta': …, 'state_dict': …}. That code computes for one picture, with [·] for optional steps:

    features → [local whitening] → pooling → L2 → [whitening → L2] → [Lw: P (x - m) → L2]

Over several scales it takes the mean after `whitening → L2` of each scale, then L2, then Lw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from landseer.export.models.torch_file import WeightsError

CHANNELS: Mapping[str, int] = {"resnet50": 2048, "resnet101": 2048}
"""Supported architectures, with the channels of their last feature map."""
POOLINGS = ("gem", "spoc", "mac", "rmac")
CHILDREN: Mapping[str, str] = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}
"""Index among the features → torchvision's name; 2 and 3 are ReLU and pooling, without weights."""
EXPECTED = (
    "expected a file of cnnimageretrieval-pytorch: {'meta': {'architecture', 'pooling', 'mean', 'std', ...}, "
    "'state_dict': {'features.0.weight', ..., 'pool.p', ...}}"
)
Scales = Literal["ss", "ms"]
"""Learned from single-scale or multi-scale descriptors."""


@dataclass(frozen=True, kw_only=True)
class Affine:
    """W x + b."""

    weight: Tensor
    """[D, C]"""
    bias: Tensor
    """[D]"""


@dataclass(frozen=True, kw_only=True)
class LearnedWhitening:
    """Lw, learned whitening: P (x - m)."""

    mean: Tensor
    """m, [C], float64."""
    matrix: Tensor
    """P, [D, C], float64; rows in descending importance, so the first d reduce to d dimensions."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A public network with everything needed to describe a picture."""

    path: Path
    architecture: str
    pooling: str
    p: float | None
    """GeM's exponent; 1 for SPoC, which equals GeM with p = 1; None for MAC and R-MAC."""
    regional: bool
    """Whether pooling is applied to R-MAC's regions, which are then summed."""
    trunk: Mapping[str, Tensor]
    """By torchvision's names, without a classifier."""
    local_whitening: Affine | None
    whitening: Affine | None
    learned: Mapping[tuple[str, Scales], LearnedWhitening]
    """By training set, such as retrieval-SfM-120k."""
    mean: tuple[float, float, float]
    """Mean of RGB in 0..1, subtracted from the pixels."""
    std: tuple[float, float, float]


def is_checkpoint(contents: object) -> bool:
    """Return whether a file's contents have this format, rather than being a bare state dict."""
    return isinstance(contents, dict) and "meta" in contents and "state_dict" in contents


def parsed(contents: Any, path: Path) -> Checkpoint:
    """Parse a file's contents. WeightsError says what was found and expected."""
    if not is_checkpoint(contents) or not all(isinstance(contents[key], dict) for key in ("meta", "state_dict")):
        raise WeightsError(f"{path} holds {type(contents).__name__} without 'meta' and 'state_dict'; {EXPECTED}")
    meta = contents["meta"]
    missing = [key for key in ("architecture", "pooling", "mean", "std") if key not in meta]
    if missing:
        raise WeightsError(f"{path}: its 'meta' lacks {', '.join(missing)}; {EXPECTED}")
    _check_choice(path, "architecture", meta["architecture"], tuple(CHANNELS))
    _check_choice(path, "pooling", meta["pooling"], POOLINGS)
    return _checkpoint(meta, _Weights(path, contents["state_dict"]), path)


def exponent(checkpoint: Checkpoint) -> float:
    """Return the exponent p with which global GeM equals the checkpoint's pooling.

    WeightsError if there is none: MAC, R-MAC, regional pooling, or whitening of local features.
    """
    kinds = {"regional pooling": checkpoint.regional, "local whitening": checkpoint.local_whitening is not None}
    others = [kind for kind, there in kinds.items() if there]
    if checkpoint.p is None or others:
        got = " with ".join([checkpoint.pooling, *others])
        raise WeightsError(f"{checkpoint.path} pools by {got}; expected global gem or spoc")
    return checkpoint.p


class _Weights:
    """A state dict whose entries are taken one by one, so that unknown ones remain at the end."""

    def __init__(self, path: Path, state: Mapping[str, Any]) -> None:
        if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
            raise WeightsError(f"{path}: its 'state_dict' does not map names to tensors; {EXPECTED}")
        self.path = path
        # Some files are in half precision or were saved from DataParallel.
        self.left = {
            key.removeprefix("module."): value.float() if value.is_floating_point() else value
            for key, value in state.items()
        }

    def trunk(self) -> dict[str, Tensor]:
        taken = {}
        for key in [key for key in self.left if key.startswith("features.")]:
            _, place, *rest = key.split(".")
            if place in CHILDREN:
                taken[".".join([CHILDREN[place], *rest])] = self.left.pop(key)
        if not taken:
            raise WeightsError(f"{self.path}: its 'state_dict' has no features; {EXPECTED}")
        return taken

    def affine(self, name: str, *, expected: bool, columns: int) -> Affine | None:
        if not expected:
            return None
        weight, bias = self.take(f"{name}.weight"), self.take(f"{name}.bias")
        if weight.ndim != 2 or weight.shape[1] != columns or bias.shape != weight.shape[:1]:
            got = f"{list(weight.shape)} and {list(bias.shape)}"
            raise WeightsError(f"{self.path}: {name} has shapes {got}; expected [D, {columns}] and [D]")
        return Affine(weight=weight, bias=bias)

    def exponent(self, name: str) -> float:
        p = self.take(name)
        if p.numel() != 1 or not 0 < float(p) < float("inf"):
            got = f"shape {list(p.shape)}" if p.numel() != 1 else f"{float(p)}"
            raise WeightsError(f"{self.path}: {name} has {got}; expected one exponent above 0")
        return float(p)

    def take(self, key: str) -> Tensor:
        if key not in self.left:
            raise WeightsError(f"{self.path} lacks {key}, which its 'meta' declares; {EXPECTED}")
        taken: Tensor = self.left.pop(key)
        return taken


def _checkpoint(meta: Mapping[str, Any], weights: _Weights, path: Path) -> Checkpoint:
    channels, regional = CHANNELS[meta["architecture"]], bool(meta.get("regional", False))
    pool = "pool.rpool" if regional else "pool"
    own = bool(meta.get("whitening", False))
    whitening = weights.affine("whiten", expected=own, columns=channels)
    size = channels if whitening is None else len(whitening.bias)
    found = Checkpoint(
        path=path,
        architecture=meta["architecture"],
        pooling=meta["pooling"],
        p=weights.exponent(f"{pool}.p") if meta["pooling"] == "gem" else {"spoc": 1.0}.get(meta["pooling"]),
        regional=regional,
        trunk=weights.trunk(),
        local_whitening=weights.affine("lwhiten", expected=bool(meta.get("local_whitening")), columns=channels),
        whitening=whitening,
        learned=_learned(meta.get("Lw") or {}, size, path),
        mean=_colours(meta["mean"], "mean", path),
        std=_colours(meta["std"], "std", path),
    )
    weights.affine("pool.whiten", expected=regional, columns=channels)  # Known, but nothing here pools by regions.
    if weights.left:
        raise WeightsError(f"{path} has {len(weights.left)} unknown weights, such as {min(weights.left)}")
    return found


def _learned(given: Any, size: int, path: Path) -> dict[tuple[str, Scales], LearnedWhitening]:
    if not isinstance(given, dict) or not all(isinstance(entries, dict) for entries in given.values()):
        raise WeightsError(f"{path}: its Lw is not a dict of dicts; expected 'ss' and 'ms' for each data set")
    found: dict[tuple[str, Scales], LearnedWhitening] = {}
    for dataset, entries in given.items():
        for scales, entry in entries.items():
            if scales not in ("ss", "ms"):
                raise WeightsError(f"{path}: got Lw[{dataset!r}][{scales!r}]; expected 'ss' and 'ms' for each data set")
            found[dataset, scales] = _whitening(entry, size, f"{path}: Lw[{dataset!r}][{scales!r}]")
    return found


def _whitening(entry: Any, size: int, where: str) -> LearnedWhitening:
    if not isinstance(entry, dict) or not {"m", "P"} <= entry.keys():
        raise WeightsError(f"{where} is not {{'m': mean, 'P': matrix}}")
    mean, matrix = _real(entry["m"], where).flatten(), _real(entry["P"], where)
    if matrix.ndim != 2 or matrix.shape[1] != size or mean.shape != (size,):
        got = f"m {list(mean.shape)} and P {list(matrix.shape)}"
        raise WeightsError(f"{where} has {got}; expected m [{size}] and P [D, {size}]")
    return LearnedWhitening(mean=mean, matrix=matrix)


def _real(value: Any, where: str) -> Tensor:
    """Convert to float64. The public code may save eigenvectors as complex numbers with zero imaginary parts."""
    array = np.asarray(value)
    if array.dtype.kind not in "fciu" or (array.dtype.kind == "c" and bool(np.any(array.imag))):
        raise WeightsError(f"{where} holds {array.dtype}; expected real numbers")
    real = torch.from_numpy(np.ascontiguousarray(array.real, dtype=np.float64))
    if not bool(torch.isfinite(real).all()):
        raise WeightsError(f"{where} holds numbers that are not finite")
    return real


def _colours(given: Any, name: str, path: Path) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(value) for value in given)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{path}: got {name} {given!r}; expected three numbers, of RGB in 0..1") from error
    if max(abs(red), abs(green), abs(blue)) > 1 or (name == "std" and min(red, green, blue) <= 0):
        raise WeightsError(f"{path}: got {name} {given!r}; expected three numbers, of RGB in 0..1")
    return red, green, blue


def _check_choice(path: Path, name: str, got: object, choices: tuple[str, ...]) -> None:
    if got not in choices:
        raise WeightsError(f"{path} has {name} {got!r}; expected {' or '.join(choices)}")
