"""Inputs to export and check graphs with: random ones, and ones computed from real photographs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from landseer.ensemble.inference.contracts import DEFAULT_DETECTOR, MAX_SIDE, MIN_SIDE, Sizes
from landseer.export.models.backbone import Description, PatchDescription
from landseer.export.photographs import photographs
from landseer.export.to_onnx import Arrays

PHOTO_SIZES = ((480, 640), (640, 480), (640, 640), (352, 640), (MIN_SIDE, MIN_SIDE), (333, 417))
"""Height and width: the usual buckets, the least size, and an odd one."""

DETECTED = ((2, 320, 256), (1, 480, 640), (1, 333, 417), (1, MIN_SIDE, MIN_SIDE))
"""Batch, height and width for detectors that take pictures. Few, because they are the slowest in eager torch."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input to check a graph with."""

    name: str
    inputs: Arrays
    real: bool
    """Whether it comes from photographs; random pixels have many near-ties that photographs lack."""


def cases(graph: str, sizes: Sizes, modules: dict[str, nn.Module], detector: str = DEFAULT_DETECTOR) -> Iterator[Case]:
    """Yield the cases of a graph. The first, a batch of two, is also the exporter's example.

    modules: `backbone` and `cluster`, which compute the inputs of later graphs from photographs.
    detector: a key of `DETECTOR_INPUTS`.
    """
    makers = {
        "backbone": _backbone,
        "detector": _attention if detector == DEFAULT_DETECTOR else _detected,
        "cluster": _cluster,
        "lattqe": _lattqe,
        "coattention": _coattention,
    }
    return makers[graph](sizes, modules)


def photos(height: int, width: int, count: int) -> NDArray[np.uint8]:
    """Return `count` photographs resized to [count, height, width, 3]."""
    every = [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BICUBIC)) for p in photographs()]
    return np.stack([every[i % len(every)] for i in range(count)])


def _backbone(sizes: Sizes, modules: dict[str, nn.Module]) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    yield Case(name="2 photographs 320x256", inputs={"image": photos(320, 256, 2)}, real=True)
    noise = rng.integers(0, 256, (3, 224, 160, 3), dtype=np.uint8)
    yield Case(name="3 random 224x160", inputs={"image": noise}, real=False)
    for height, width in PHOTO_SIZES:
        yield Case(name=f"photograph {height}x{width}", inputs={"image": photos(height, width, 1)}, real=True)
    yield Case(name=f"strip {MIN_SIDE}x{MAX_SIDE}", inputs={"image": photos(MIN_SIDE, MAX_SIDE, 1)}, real=True)
    yield Case(name="flat grey 128x128", inputs={"image": np.full((1, 128, 128, 3), 127, np.uint8)}, real=False)
    yield Case(name="8 photographs 96x128", inputs={"image": photos(96, 128, 8)}, real=True)


def _detected(sizes: Sizes, modules: dict[str, nn.Module]) -> Iterator[Case]:
    for batch, height, width in DETECTED:
        inputs: Arrays = {"image": photos(height, width, batch)}
        yield Case(name=f"{batch} photographs {height}x{width}", inputs=inputs, real=True)


def _attention(sizes: Sizes, modules: dict[str, nn.Module]) -> Iterator[Case]:
    rng = np.random.default_rng(1)
    for batch, h, w in ((2, 15, 20), (1, 2, 2), (3, 50, 50), (8, 20, 20)):
        # Smoothed noise: regions of all sizes and windings.
        noise = torch.from_numpy(rng.random((batch, 1, h, w), dtype=np.float32))
        smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)[:, 0]
        span = smooth.amax((1, 2), keepdim=True) - smooth.amin((1, 2), keepdim=True)
        attention = ((smooth - smooth.amin((1, 2), keepdim=True)) / (span + 1e-6)).numpy()
        size = np.tile(np.array([[h * 32, w * 32]], np.int32), (batch, 1))
        yield Case(name=f"{batch} random {h}x{w}", inputs={"attention": attention, "image_size": size}, real=False)
    for height, width in PHOTO_SIZES[:3]:
        out = _described(modules["backbone"], photos(height, width, 2))
        inputs = {"attention": out.attention.numpy(), "image_size": out.image_size.contiguous().numpy()}
        yield Case(name=f"2 photographs {height}x{width}", inputs=inputs, real=True)


def _cluster(sizes: Sizes, modules: dict[str, nn.Module]) -> Iterator[Case]:
    rng = np.random.default_rng(2)
    # Around centres, like real features: in plain noise a rounding error would decide assignments.
    centres = rng.random((3, 12, sizes.channels), dtype=np.float32) ** 4
    features = np.stack([c[rng.integers(0, 12, sizes.locals)] for c in centres])
    features += 0.1 * rng.random(features.shape, dtype=np.float32)
    counts = np.array([[sizes.locals], [6], [0]], np.int32)  # fewer features than clusters, and none at all
    features *= np.arange(sizes.locals)[None, :, None] < counts[..., None]
    norms = np.linalg.norm(features, axis=-1)
    inputs: Arrays = {"local_features": features, "local_count": counts, "local_norms": norms}
    yield Case(name="3 random", inputs=inputs, real=False)
    for height, width in PHOTO_SIZES[:5]:
        out = _described(modules["backbone"], photos(height, width, 2))
        names = ("local_features", "local_count", "local_norms")
        inputs = {name: getattr(out, name).contiguous().numpy() for name in names}
        yield Case(name=f"2 photographs {height}x{width}", inputs=inputs, real=True)


def _lattqe(sizes: Sizes, modules: dict[str, nn.Module]) -> Iterator[Case]:
    rng = np.random.default_rng(3)
    for batch, k in ((2, 8), (1, 1), (4, sizes.neighbours)):
        query = _unit(rng, batch, sizes.channels)
        near = query[:, None] + 0.7 * _unit(rng, batch, k, sizes.channels)
        near /= np.linalg.norm(near, axis=-1, keepdims=True)
        mask = np.arange(k)[None] < rng.integers(0, k + 1, (batch, 1))
        inputs: Arrays = {"query": query, "neighbours": near.astype(np.float32), "neighbour_mask": mask}
        yield Case(name=f"{batch} random, {k} neighbours", inputs=inputs, real=False)
    described = _described(modules["backbone"], photos(256, 320, 6)).descriptor.numpy()
    inputs = {"query": described[:1], "neighbours": described[None, 1:], "neighbour_mask": np.ones((1, 5), bool)}
    yield Case(name="a photograph among 5", inputs=inputs, real=True)


def _coattention(sizes: Sizes, modules: dict[str, nn.Module]) -> Iterator[Case]:
    rng = np.random.default_rng(4)
    for batch, c in ((2, 16), (1, 1), (1, sizes.candidates)):
        counts = rng.integers(0, sizes.clusters + 1, (batch, c)).astype(np.int32)
        clusters = _unit(rng, batch, c, sizes.clusters, sizes.reduced)
        clusters *= np.arange(sizes.clusters)[:, None] < counts[..., None, None]
        inputs: Arrays = {
            "query_vector": _unit(rng, batch, sizes.reduced),
            "candidate_clusters": clusters.astype(np.float16),
            "candidate_counts": counts,
        }
        yield Case(name=f"{batch} random, {c} candidates", inputs=inputs, real=False)

    # The backbone's own query side and the same module's clusters: photographs against each other.
    described = _described(modules["backbone"], photos(256, 320, 4))
    with torch.no_grad():
        clustered = modules["cluster"](described.local_features, described.local_count, described.local_norms)
    inputs = {
        "query_vector": described.query_vector.numpy(),
        "candidate_clusters": np.repeat(clustered.clusters.numpy()[None], 4, axis=0),
        "candidate_counts": np.repeat(clustered.cluster_count.numpy().T, 4, axis=0),
    }
    yield Case(name="4 photographs against 4", inputs=inputs, real=True)


def _unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    x = rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), np.float32)


@torch.no_grad()
def _described(backbone: nn.Module, image: NDArray[np.uint8]) -> Description | PatchDescription:
    described: Description | PatchDescription = backbone(torch.from_numpy(image))
    return described
