"""Feature maps of views of photographs by a frozen trunk, computed once and kept on disk.

Heads are then trained without running the trunk, which takes most of the time and never changes. The maps are one
half-precision file [photographs, views, C, h, w]; an interrupted run resumes.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from landseer.export.datasets.photograph import Photograph
from landseer.export.engines import openvino
from landseer.export.models.trunk import Trunk
from landseer.export.training.views import Pixels, view

Levels = NDArray[np.float32]
"""Pixels between two levels of 8 bits."""
LEAST_SIDE = 32
"""Of a picture that the trunk is run on, in pixels."""
SAVED_EVERY = 50
"""Photographs between two saves of the progress."""


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """Settings of the views."""

    side: int = 384
    """Side of a view in pixels."""
    views: int = 4
    """Views of each photograph; every second one lies inside another photograph."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class TrunkViews:
    """Feature maps of views, with the classes of their photographs."""

    maps: NDArray[np.float16]
    """[N, V, C, h, w], on disk."""
    labels: tuple[str, ...]
    """Classes of the N photographs."""
    side: int
    """Side of a view in pixels."""
    key: str = ""
    """Identifies photographs, trunk and draws."""

    def batch(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the maps of all views of some photographs. → float32 [len(rows) · V, C, h, w]."""
        return torch.from_numpy(np.array(self.maps[rows])).flatten(0, 1).float()


def trunk_views(
    photographs: Sequence[Photograph],
    trunk: Trunk,
    *,
    fingerprint: str,
    spec: ViewSpec,
    folder: Path,
    precision: str,
    progress: Callable[[int], None],
) -> TrunkViews:
    """Return the maps of the views of all photographs, computing those that are not on disk.

    fingerprint: of the trunk's weights. precision: "f32" or "bf16", of OpenVINO. progress: called with
    the number of photographs done since the last call.
    """
    key = views_key(photographs, fingerprint, spec, precision)
    path = folder / f"{key}.npy"
    cells = (spec.side + trunk.stride // 2) // trunk.stride
    shape = (len(photographs), spec.views, trunk.channels, cells, cells)
    folder.mkdir(parents=True, exist_ok=True)
    done = _done(path)
    if not done:
        _check_room(folder, 2 * math.prod(shape))
    maps: np.memmap[Any, np.dtype[np.float16]] = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        path, "r+" if done else "w+", np.float16, shape
    )
    progress(done)
    if done < len(photographs):
        run = trunk_runner(trunk, precision)
        for row, pixels in _drawn(photographs, spec, start=done):
            maps[row] = run(pixels)
            if (row + 1) % SAVED_EVERY == 0 or row + 1 == len(photographs):
                maps.flush()
                _note(path, row + 1)
            progress(1)
    labels = tuple(photograph.label for photograph in photographs)
    return TrunkViews(maps=maps, labels=labels, side=spec.side, key=key)


def _drawn(photographs: Sequence[Photograph], spec: ViewSpec, *, start: int) -> Iterator[tuple[int, Pixels]]:
    """Yield each photograph's row and views, drawn one photograph ahead in another thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="views") as drawer:
        ahead = drawer.submit(_views, photographs, start, spec)
        for row in range(start, len(photographs)):
            pixels = ahead.result()
            ahead = drawer.submit(_views, photographs, min(row + 1, len(photographs) - 1), spec)
            yield row, pixels


def _views(photographs: Sequence[Photograph], row: int, spec: ViewSpec) -> Pixels:
    """Draw all views of one photograph, deterministically. → [V, side, side, 3]."""
    picture = _read(photographs[row].path, spec.side)
    made = []
    for number in range(spec.views):
        draw = np.random.default_rng((spec.seed, row, number))
        other = int(draw.integers(len(photographs)))
        background = _read(photographs[other].path, spec.side) if number % 2 else None
        made.append(view(picture, draw, side=spec.side, background=background))
    return np.stack(made)


def _read(path: Path, side: int) -> Pixels:
    with Image.open(path) as picture:
        picture.draft("RGB", (2 * side, 2 * side))
        pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    longest = max(pixels.shape[:2])
    if longest <= 2 * side:
        return pixels
    shape = (pixels.shape[1] * 2 * side // longest, pixels.shape[0] * 2 * side // longest)
    return np.asarray(cv2.resize(pixels, shape, interpolation=cv2.INTER_AREA), np.uint8)


class _FromPixels(torch.nn.Module):
    def __init__(self, trunk: Trunk, names: Sequence[str]) -> None:
        super().__init__()
        self.trunk, self.names = trunk, names

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.trunk.maps(image.permute(0, 3, 1, 2).float())
        return tuple(getattr(maps, name) for name in self.names)


def trunk_runner(trunk: Trunk, precision: str) -> Callable[[Pixels | Levels], NDArray[np.float16]]:
    """Return a function that runs the trunk on pixels [V, H, W, 3]: its last map, see `maps_runner`."""
    run = maps_runner(trunk, precision, ["last"])
    return lambda pixels: run(pixels)[0]


def maps_runner(
    trunk: Trunk, precision: str, names: Sequence[str]
) -> Callable[[Pixels | Levels], list[NDArray[np.float16]]]:
    """Return a function that runs the trunk on pixels [V, H, W, 3], see `pixel_runner`.

    names: the maps wanted, of `Maps`; a trunk with one map returns it for each.
    """
    return pixel_runner(_FromPixels(trunk, names), precision, names)


def pixel_runner(
    module: torch.nn.Module, precision: str, names: Sequence[str]
) -> Callable[[Pixels | Levels], list[NDArray[np.float16]]]:
    """Return a function that runs a module on pixels [V, H, W, 3]: torch on a GPU, else OpenVINO (faster).

    Pixels are 0..255, of 8 bits or, of a resized picture, float32. module: takes them as they are. names: of its
    outputs.
    """
    module.eval()
    if torch.cuda.is_available():
        module.cuda()

        def on_gpu(pixels: Pixels | Levels) -> list[NDArray[np.float16]]:
            with torch.inference_mode():
                return [np.asarray(one.half().cpu().numpy()) for one in module(torch.from_numpy(pixels).cuda())]

        return on_gpu
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "trunk.onnx")
        free = torch.export.Dim.DYNAMIC(min=LEAST_SIDE, max=4096)
        example = torch.zeros(1, 2 * LEAST_SIDE, 3 * LEAST_SIDE, 3)
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({1: free, 2: free},),
            input_names=["image"],
            output_names=names,
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing for the trunk")
        program.save(path)
        run = openvino(precision)(path)

    def on_cpu(pixels: Pixels | Levels) -> list[NDArray[np.float16]]:
        # One at a time: one map fits the caches, four do not.
        found = [run({"image": one[None]}) for one in pixels.astype(np.float32)]
        return [np.concatenate([one[name] for one in found]).astype(np.float16) for name in names]

    return on_cpu


def _check_room(folder: Path, needed: int) -> None:
    """Raise OSError if the disk is too full: a mapped file that cannot grow would kill the process silently."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"the views' maps need {needed / 1e9:.1f} GB in {folder}, which has {free / 1e9:.1f} GB free: "
            "free some space, or use fewer photographs"
        )


def views_key(photographs: Sequence[Photograph], fingerprint: str, spec: ViewSpec, precision: str) -> str:
    """Return a key of the views' maps: photographs, trunk, draws, precision."""
    digest = hashlib.sha256(f"{fingerprint} {spec} {precision}".encode())
    for photograph in photographs:
        # Not the whole path: a moved or renamed folder holds the same photographs.
        digest.update(f"{photograph.label}/{photograph.path.name} {photograph.path.stat().st_size}\n".encode())
    return digest.hexdigest()[:24]


def _done(path: Path) -> int:
    note = path.with_suffix(".json")
    return int(json.loads(note.read_text())["photographs"]) if path.is_file() and note.is_file() else 0


def _note(path: Path, photographs: int) -> None:
    staged = path.with_suffix(".part")
    staged.write_text(json.dumps({"photographs": photographs}))
    staged.replace(path.with_suffix(".json"))
