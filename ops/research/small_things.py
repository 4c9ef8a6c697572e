"""Databases in which photographs fill the frame, or are small parts of other pictures; described whole and by boxes.

Detect-to-Retrieve (Teichmann et al. 2019, section 5) stores the whole picture and its boxes, each cropped and described
again. Here a region has one descriptor instead of a VLAD.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from landseer.ensemble.config import Limits
from landseer.ensemble.inference.contracts import SIDE_MULTIPLE, Sizes
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import Prepared, Region, prepare
from landseer.ensemble.search.describe import whole_picture_boxes
from landseer.export.build import Wanted, find_parts, trunk_sha256
from landseer.export.models.backbone import SCALE_UNIT
from landseer.export.models.detector import AttentionRegions, Detection
from landseer.export.models.trunk import Loaded
from landseer.export.training.command import precision_of
from landseer.export.training.trunk_views import maps_runner
from landseer.ops.evaluate.head_variants import Level, Variant, variants
from landseer.ops.evaluate.head_vectors import MAPS, Run, Vectors, level

FRAME = 768
"""Longer side of the frame around a small thing, pixels. Photographs of the GroceryStore data set, 348 pixels wide, are
then never enlarged, so that a crop shows detail that the shrunk frame has lost."""
SHARE = (0.25, 0.45)
"""Range of the photograph's longer side, as a share of the frame's shorter side."""
BEST = 4
"""Most boxes of a picture that are described, in the detector's order."""
LEAST_SCORE = 0.1
"""Lowest score of a box, as in Detect-to-Retrieve."""
WINDOW = 0.6
"""Sides of a window, as a share of the picture's: four at the corners cover it and overlap."""
Places = NDArray[np.float32]
"""Boxes [n, 4]: x, y, width, height in pixels of the whole picture."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An encoded picture, and the place of the photograph in it."""

    data: bytes
    place: Region | None
    """In pixels of the picture; None if the photograph is the whole picture."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A picture of a database, made on demand."""

    name: str
    """Unique, and independent of the folder of the data set."""
    scene: Callable[[], Scene]


def as_they_are(photographs: Sequence[Path]) -> list[Entry]:
    """Return the photographs, unchanged."""
    return [Entry(name=_name(path), scene=partial(_whole, path)) for path in photographs]


def _whole(path: Path) -> Scene:
    return Scene(data=path.read_bytes(), place=None)


def made_small(
    photographs: Sequence[Path], backgrounds: Sequence[Path], *, seed: int, feather: float = 0.0
) -> list[Entry]:
    """Return each photograph, shrunk and pasted at a random place of a random background, by the seed.

    feather: see `laid`.
    """
    return [_small(path, backgrounds, (seed, row), feather) for row, path in enumerate(photographs)]


def _small(path: Path, backgrounds: Sequence[Path], seed: tuple[int, int], feather: float) -> Entry:
    behind = backgrounds[int(np.random.default_rng(seed).integers(len(backgrounds)))]
    edge = f", {feather:g}" if feather else ""
    name = f"{_name(path)} in {_name(behind)}, {seed}, {FRAME}, {SHARE}{edge}"
    return Entry(name=name, scene=lambda: laid(path, behind, np.random.default_rng((*seed, 1)), feather))


def laid(photograph: Path, background: Path, draw: np.random.Generator, feather: float = 0.0) -> Scene:
    """Paste a photograph, shrunk by `SHARE`, at a random place of a background whose longer side becomes `FRAME`.

    The picture is a BMP: no loss by a second compression, and quick to write and read. feather: standard deviation of
    the blur of the pasted edge, pixels; 0 for a sharp edge, which no photograph has.
    """
    frame = _resized(_read(background), FRAME)
    thing = _resized(_read(photograph), round(draw.uniform(*SHARE) * min(frame.size)))
    x, y = (int(draw.integers(whole - part + 1)) for whole, part in zip(frame.size, thing.size, strict=True))
    frame.paste(thing, (x, y), _soft(thing.size, feather) if feather else None)
    file = io.BytesIO()
    frame.save(file, "BMP")
    return Scene(data=file.getvalue(), place=Region(x=x, y=y, width=thing.width, height=thing.height))


def _soft(size: tuple[int, int], feather: float) -> Image.Image:
    """Return a mask that fades towards the edges, twice `feather` inside which half is left."""
    inset = round(2 * feather)
    mask = Image.new("L", size)
    mask.paste(255, (inset, inset, max(inset + 1, size[0] - inset), max(inset + 1, size[1] - inset)))
    return mask.filter(ImageFilter.GaussianBlur(feather))


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return ImageOps.exif_transpose(picture).convert("RGB")


def _resized(picture: Image.Image, longer: int) -> Image.Image:
    ratio = longer / max(picture.size)
    return picture.resize([max(1, round(side * ratio)) for side in picture.size], Image.Resampling.BICUBIC)


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name} {path.stat().st_size}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Finder:
    """Finds boxes in a picture."""

    places: Callable[[Seen], Places]
    fingerprint: str
    """Identifies what its boxes depend on besides trunk and descriptor."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxNetworks:
    """The networks that describe pictures and find boxes."""

    run: Run
    """The trunk, from pixels [1, H, W, 3] to `MAPS`."""
    trunk: str
    """Fingerprint and precision of the trunk."""
    variant: Variant
    profile: Profile
    stride: int = SIDE_MULTIPLE
    """Of the trunk, see `AttentionRegions`."""
    detectors: Mapping[str, Finder] = field(default_factory=dict)
    """Trained ones, by name."""

    @property
    def finders(self) -> Mapping[str, Finder]:
        """All that finds boxes, by name: besides the detectors the head's attention, windows, and the true place."""
        threshold = AttentionRegions(sizes=self.profile.sizes).threshold
        return {
            ATTENTION: Finder(places=attention_places, fingerprint=f"{threshold}"),
            WINDOWS: Finder(places=windows, fingerprint=f"{WINDOW}"),
            **self.detectors,
            TRUE: Finder(places=true_place, fingerprint=""),
        }


def load_networks(backbone: str, loaded: Loaded, parts: Path | None, detectors: Mapping[str, Finder]) -> BoxNetworks:
    """Return networks of a frozen trunk with a trained head. parts: None for the one that ships. WeightsError."""
    sizes, precision = Sizes(channels=loaded.trunk.channels), precision_of(backbone)
    trained = find_parts(loaded, Wanted(backbone=backbone, parts=parts))
    *_, variant = variants(sizes.channels, [trained] if trained else [])
    return BoxNetworks(
        run=maps_runner(loaded.trunk, precision, MAPS),
        trunk=f"{trunk_sha256(loaded)} {precision}",
        variant=variant,
        profile=Profile(backbone=backbone, weights_sha256="", sizes=sizes),
        stride=loaded.trunk.stride,
        detectors=detectors,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceRegions:
    """The regions that one source found in one picture."""

    places: Places
    vectors: Vectors
    """Unit, [n, C]."""
    truth: Places
    """Place of the photograph, [1, 4], or [0, 4] if it is the whole picture."""


class Seen:
    """A picture as the networks see it; each step is computed once, on first use."""

    def __init__(self, scene: Scene, networks: BoxNetworks) -> None:
        self.scene, self.networks = scene, networks

    @cached_property
    def whole(self) -> Prepared:
        """The picture, sized for the trunk."""
        return self.prepared(None)

    @cached_property
    def level(self) -> Level:
        """The maps of the whole picture."""
        return self._level(self.whole)

    def prepared(self, region: Region | None) -> Prepared:
        """Prepare a region as the orchestrator does."""
        data = self.scene.data
        return prepare(data, profile=self.networks.profile, limits=Limits(max_bytes=max(len(data), 1)), region=region)

    def vector(self, place: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the unit descriptor [C] of the crop at a box [4]."""
        x, y, width, height = map(float, place)
        return self._described(self._level(self.prepared(Region(x=x, y=y, width=width, height=height))))

    def whole_vector(self) -> NDArray[np.float32]:
        """Return the unit descriptor [C] of the whole picture."""
        return self._described(self.level)

    def places(self, detection: Detection) -> Places:
        """Return the best boxes of a detection in the whole picture, without those too small to crop."""
        corners = detection.boxes[0, : int(detection.box_count[0, 0])].numpy()
        scores = detection.box_scores[0, : len(corners)].numpy()
        boxes = whole_picture_boxes(corners, scores, self.whole)
        good = (boxes[:, 4] >= LEAST_SCORE) & (boxes[:, 2:4] >= 1).all(axis=1)
        return np.asarray(boxes[good][:BEST, :4], np.float32)

    def size(self) -> Tensor:
        """Return the height and width of the trunk's input, int32 [1, 2]."""
        return torch.tensor([self.whole.pixels.shape[:2]], dtype=torch.int32)

    def _level(self, prepared: Prepared) -> Level:
        return level(prepared.pixels[None], SCALE_UNIT, self.networks.run)

    def _described(self, described: Level) -> NDArray[np.float32]:
        return np.asarray(self.networks.variant.describe(described).numpy(), np.float32)


def attention_places(seen: Seen) -> Places:
    """Return boxes of the head's own attention."""
    _, attention = seen.networks.variant.pooled(seen.level)
    networks = seen.networks
    regions = AttentionRegions(sizes=networks.profile.sizes, stride=networks.stride)
    return seen.places(regions(attention, seen.size()))


def windows(seen: Seen) -> Places:
    """Return four windows at the corners of the picture: what as many boxes find without looking."""
    width, height = seen.whole.width, seen.whole.height
    sides = (WINDOW * width, WINDOW * height)
    corners = [(x, y) for y in (0.0, height - sides[1]) for x in (0.0, width - sides[0])]
    return np.array([(*corner, *sides) for corner in corners], np.float32)


def true_place(seen: Seen) -> Places:
    """Return the place of the pasted photograph; none if it is the whole picture."""
    place = seen.scene.place
    rows = [] if place is None else [(place.x, place.y, place.width, place.height)]
    return np.array(rows, np.float32).reshape(-1, 4)


WHOLE, ATTENTION, WINDOWS, TRUE = "whole picture", "attention", "windows", "true box"


@torch.inference_mode()
def found(entry: Entry, sources: Sequence[str], networks: BoxNetworks, folder: Path) -> list[SourceRegions]:
    """Return the regions of each source in a picture: `WHOLE`, or a key of `BoxNetworks.finders`.

    Known ones are read from disk.
    """
    files = [folder / f"{_key(entry, source, networks)}.npz" for source in sources]
    if not all(file.exists() for file in files):
        seen = Seen(entry.scene(), networks)
        for source, file in zip(sources, files, strict=True):
            if not file.exists():
                _keep(_regions(seen, source), file)
    return [_kept(file) for file in files]


def _regions(seen: Seen, source: str) -> SourceRegions:
    truth = true_place(seen)
    if source == WHOLE:
        place = np.array([[0, 0, seen.whole.width, seen.whole.height]], np.float32)
        return SourceRegions(places=place, vectors=seen.whole_vector()[None], truth=truth)
    places = seen.networks.finders[source].places(seen)
    vectors = np.array([seen.vector(place) for place in places], np.float32)
    return SourceRegions(
        places=places, vectors=vectors.reshape(len(places), seen.networks.profile.sizes.channels), truth=truth
    )


def _keep(regions: SourceRegions, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_suffix(".part.npz")
    np.savez(staged, places=regions.places, vectors=regions.vectors, truth=regions.truth)
    staged.replace(file)


def _kept(file: Path) -> SourceRegions:
    with np.load(file) as arrays:
        return SourceRegions(places=arrays["places"], vectors=arrays["vectors"], truth=arrays["truth"])


def _key(entry: Entry, source: str, networks: BoxNetworks) -> str:
    profile, variant = networks.profile, networks.variant.fingerprint
    described = (networks.trunk, variant, profile.long_side, profile.side_multiple)
    parts = (entry.name, source, *described, BEST, LEAST_SCORE, _found_by(source, networks))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def _found_by(source: str, networks: BoxNetworks) -> str:
    """Identify what the boxes of a source depend on besides the descriptor."""
    return "" if source == WHOLE else networks.finders[source].fingerprint
