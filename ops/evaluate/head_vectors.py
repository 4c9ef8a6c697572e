"""Descriptors of a data set by many heads at once: the trunk runs only once per picture."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from landseer.ensemble.config import Limits
from landseer.ensemble.errors import InvalidInput
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
from landseer.export.models.backbone import SCALE_UNIT, resized
from landseer.export.training.trunk_views import Levels
from landseer.export.training.views import Pixels
from landseer.ops.errors import OpsError
from landseer.ops.evaluate.head_variants import Level, Variant

Vectors = NDArray[np.float32]
Run = Callable[[Pixels | Levels], Sequence[NDArray[np.float16]]]
MAPS = ("last", "fine")
"""The maps that a `Run` returns, of `Maps`."""

BLOCK = 100
"""Pictures between two writes to disk: minutes with a large trunk on a CPU."""


def describe_by_heads(
    pictures: Sequence[Path],
    variants: Sequence[Variant],
    *,
    run: Run,
    trunk: str,
    profile: Profile,
    folder: Path,
    progress: Callable[[], None],
) -> list[Vectors]:
    """Return the vectors [N, C] of each variant, in the order of the pictures. Vectors on disk are not computed again.

    run: the trunk, from pixels [1, H, W, 3] to `MAPS`; trunk: its fingerprint. An interrupted run resumes
    after the last complete block of pictures. OpsError names a picture that cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{_key(pictures, variant, trunk, profile)}.npy" for variant in variants]
    missing = {file: variant for variant, file in zip(variants, files, strict=True) if not file.exists()}
    starts = range(0, len(pictures), BLOCK) if missing else range(0)
    for start in starts:
        block = pictures[start : start + BLOCK]
        wanted = {part: one for file, one in missing.items() if not (part := _part(file, start)).exists()}
        if not wanted:
            for _ in block:
                progress()
            continue
        for part, vectors in zip(wanted, _computed(block, list(wanted.values()), run, profile, progress), strict=True):
            write_vectors(part, vectors)
    for file in missing:
        parts = [_part(file, start) for start in starts]
        write_vectors(file, np.concatenate([np.load(part) for part in parts]))
        for part in parts:
            part.unlink()
    return [np.load(file) for file in files]


def _part(file: Path, start: int) -> Path:
    """Return the file of the block of pictures that begins at `start`, kept until all blocks are done."""
    return file.with_suffix(f".{start}.npy")


def write_vectors(file: Path, vectors: Vectors) -> None:
    """Write a file that is either complete or absent."""
    unfinished = file.with_suffix(".writing")
    with unfinished.open("wb") as out:
        np.save(out, vectors)
    unfinished.replace(file)


def _computed(
    pictures: Sequence[Path], variants: Sequence[Variant], run: Run, profile: Profile, progress: Callable[[], None]
) -> list[Vectors]:
    rows: list[list[Vectors]] = [[] for _ in variants]
    scales = dict.fromkeys(scale for variant in variants for scale in variant.scales)
    for path in pictures:
        data = path.read_bytes()
        try:
            pixels = prepare(data, profile=profile, limits=Limits(max_bytes=max(len(data), 1))).pixels[None]
        except InvalidInput as error:
            raise OpsError(f"cannot read {path}: {error.description}") from error
        levels = {scale: level(pixels, scale, run) for scale in scales}
        with torch.inference_mode():
            for row, variant in zip(rows, variants, strict=True):
                # Copied, because a view would keep some MB of torch's memory per picture.
                row.append(np.array(variant.describe_pyramid(levels).numpy(), np.float32))
        progress()
    return [np.stack(row) for row in rows]


def level(pixels: Pixels, scale: int, run: Run) -> Level:
    """Return the maps of pixels [1, H, W, 3] at a scale."""
    picture: Pixels | Levels = pixels
    if scale != SCALE_UNIT:
        resampled = resized(torch.tensor(pixels).permute(0, 3, 1, 2).float(), scale)
        picture = np.ascontiguousarray(resampled.permute(0, 2, 3, 1).numpy())
    last, fine = (torch.from_numpy(found.astype(np.float32)) for found in run(picture))
    return Level(last, fine, *picture.shape[1:3])


def _key(pictures: Sequence[Path], variant: Variant, trunk: str, profile: Profile) -> str:
    digest = hashlib.sha256(f"{trunk} {variant.fingerprint} {profile.long_side} {profile.side_multiple}".encode())
    for path in pictures:
        digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
    return digest.hexdigest()[:24]
