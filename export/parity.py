"""Compare exported graphs with eager torch, each output by a measure that suits its use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.ops import box_iou

from landseer.ensemble.inference.contracts import DType, Graph
from landseer.export.engines import Run
from landseer.export.examples import Case
from landseer.export.to_onnx import Arrays

Array = NDArray[np.generic]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Minimum agreement; 1 is perfect."""

    fp32: float
    bf16: float


COSINE = Limit(fp32=0.99999, bf16=0.999)
EQUAL = Limit(fp32=1.0, bf16=1.0)
LIMITS: dict[str, Limit] = {
    "descriptor": COSINE,
    "query_vector": COSINE,
    "expanded": COSINE,
    # On average: a feature halfway between two centres may join either, and matters in a small cluster.
    "clusters": Limit(fp32=0.999, bf16=0.99),
    "scores": Limit(fp32=0.9999, bf16=0.999),
    "cluster_weights": Limit(fp32=0.9999, bf16=0.99),
    "weights": Limit(fp32=0.9999, bf16=0.98),
    "relevance": Limit(fp32=0.9999, bf16=0.98),
    "attention": Limit(fp32=0.999, bf16=0.9),
    # The selected set: near-ties at the 500th norm may resolve either way.
    "local_positions": Limit(fp32=0.99, bf16=0.9),
    # On average, at the locations that both selected: a feature near the mean has an unstable direction.
    "local_descriptors": Limit(fp32=0.99999, bf16=0.995),
    "patch_positions": Limit(fp32=0.99, bf16=0.9),
    # Bits, at the locations that both selected: a value near 0 may have either sign.
    "patch_codes": Limit(fp32=0.999, bf16=0.9),
    "boxes": Limit(fp32=0.999, bf16=0.7),
    "box_scores": Limit(fp32=0.999, bf16=0.9),
    "assignments": Limit(fp32=0.99, bf16=0.8),
    "local_count": EQUAL,
    "patch_count": EQUAL,
    "cluster_count": EQUAL,
    "box_count": EQUAL,
    "image_size": EQUAL,
}


SELECTED = ("local_positions", "patch_positions")
"""Compared on photographs only: on noise, many features are equally strong."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The worst agreement of each output over all cases, and its case."""

    worst: dict[str, tuple[float, str]]

    def failures(self, precision: str) -> list[str]:
        """Return a line for each output below its limit at "fp32" or "bf16"."""
        lines = []
        for output, (value, case) in self.worst.items():
            limit = getattr(LIMITS[output], precision)
            # Written so that NaN fails too.
            if not value >= limit:
                lines.append(f"{output}: {value:.6f} on {case}, expected at least {limit}")
        return lines

    def figures(self) -> dict[str, float]:
        """Return the worst agreement by output, for the manifest."""
        return {output: round(value, 7) for output, (value, _) in self.worst.items()}


def eager(module: nn.Module, graph: Graph, inputs: Arrays) -> Arrays:
    """Run a module in eager torch. Returns arrays by output name."""
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(inputs[tensor.name]) for tensor in graph.inputs))
    return {name: getattr(outputs, name).numpy() for name in outputs._fields}


def check(graph: Graph, expected: Iterable[tuple[Case, Arrays]], run: Run) -> Agreement:
    """Compare an engine with eager torch on every case. RuntimeError if a tensor breaks its contract."""
    worst: dict[str, tuple[float, str]] = {}
    for case, wanted in expected:
        got = run(case.inputs)
        for tensor in graph.outputs:
            _check_type(graph, tensor.name, tensor.dtype, wanted[tensor.name], got[tensor.name])
            measure = MEASURES.get(tensor.name)
            if measure is None or (tensor.name in SELECTED and not case.real):
                continue
            value = measure(wanted, got)
            if tensor.name not in worst or not value >= worst[tensor.name][0]:
                worst[tensor.name] = (value, case.name)
    return Agreement(worst=worst)


def _check_type(graph: Graph, name: str, dtype: DType, wanted: Array, got: Array) -> None:
    if got.dtype != np.dtype(dtype) or got.shape != wanted.shape:
        raise RuntimeError(
            f"{graph.name}.{name}: got {got.dtype}{list(got.shape)}; expected {dtype}{list(wanted.shape)}"
        )


def cosine(a: Array, b: Array) -> float:
    """Minimum cosine over the last axis; two zero vectors agree."""
    return float(_cosines(a, b).min(initial=1.0))


def mean_cosine(a: Array, b: Array) -> float:
    """Minimum over the batch of each item's mean cosine. a, b: [B, K, P]."""
    return float(_cosines(a, b).mean(axis=1).min())


def _cosines(a: Array, b: Array) -> NDArray[np.float64]:
    x, y = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    both_zero = (np.linalg.norm(x, axis=-1) < 1e-6) & (np.linalg.norm(y, axis=-1) < 1e-6)
    return np.where(both_zero, 1.0, (x * y).sum(-1) / np.maximum(norms, 1e-12))


def closeness(a: Array, b: Array) -> float:
    """One minus the maximum absolute difference."""
    return 1.0 - float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0))


def equality(a: Array, b: Array) -> float:
    """Share of equal elements."""
    return float((a == b).mean())


def selection_overlap(wanted: Arrays, got: Arrays, kind: str) -> float:
    """Minimum over the batch of the share of places (position and scale) that both selected. kind: local or patch."""
    shares = []
    for a, b in zip(_places(wanted, kind), _places(got, kind), strict=True):
        shares.append(len(a.keys() & b.keys()) / max(1, len(a)))
    return min(shares)


def same_bits(wanted: Arrays, got: Arrays) -> float:
    """Minimum over the batch of the share of equal bits of patches at locations both selected; 1 without any."""
    values = [1.0]
    for i, (a, b) in enumerate(zip(_places(wanted, "patch"), _places(got, "patch"), strict=True)):
        if common := sorted(a.keys() & b.keys()):
            mine, theirs = (
                np.unpackbits(out["patch_codes"][i, [rows[p] for p in common]].astype(np.uint8), axis=1)
                for out, rows in ((wanted, a), (got, b))
            )
            values.append(float((mine == theirs).mean()))
    return min(values)


def local_cosine(wanted: Arrays, got: Arrays) -> float:
    """Minimum over the batch of the mean cosine of local descriptors at locations both selected; 1 without any."""
    values = [1.0]
    for i, (a, b) in enumerate(zip(_places(wanted, "local"), _places(got, "local"), strict=True)):
        if common := sorted(a.keys() & b.keys()):
            mine, theirs = (
                wanted["local_descriptors"][i, [a[p] for p in common]],
                got["local_descriptors"][i, [b[p] for p in common]],
            )
            values.append(float(_cosines(mine, theirs).mean()))
    return min(values)


def _places(out: Arrays, kind: str) -> Iterator[dict[tuple[float, ...], int]]:
    """Yield for each picture a map from selected location (x, y, scale) to its row. kind: local or patch."""
    for count, positions, scales in zip(
        out[f"{kind}_count"][:, 0], out[f"{kind}_positions"], out[f"{kind}_scales"], strict=True
    ):
        found = np.c_[positions, scales][: int(count)].round(2).tolist()
        yield {tuple(place): row for row, place in enumerate(found)}


def boxes_iou(wanted: Arrays, got: Arrays) -> float:
    """Minimum IoU of the best boxes over the batch; 1 where neither side has one."""
    a, b = (torch.from_numpy(out["boxes"][:, 0].astype(np.float64)) for out in (wanted, got))
    return float(torch.where((a == b).all(dim=1), 1.0, box_iou(a, b).diagonal()).min())


def _named(name: str, measure: Callable[[Array, Array], float]) -> Callable[[Arrays, Arrays], float]:
    return lambda wanted, got: measure(wanted[name], got[name])


MEASURES: dict[str, Callable[[Arrays, Arrays], float]] = {
    **{name: _named(name, cosine) for name in ("descriptor", "query_vector", "expanded")},
    "clusters": _named("clusters", mean_cosine),
    **{
        name: _named(name, closeness)
        for name in ("scores", "cluster_weights", "weights", "relevance", "attention", "box_scores")
    },
    **{
        name: _named(name, equality)
        for name in ("local_count", "patch_count", "cluster_count", "box_count", "image_size")
    },
    "assignments": _named("assignments", equality),
    "local_positions": partial(selection_overlap, kind="local"),
    "patch_positions": partial(selection_overlap, kind="patch"),
    "patch_codes": same_bits,
    "local_descriptors": local_cosine,
    "boxes": boxes_iou,
}
