"""One graph from pixels to everything that queries and the index need.

The scales are those of co-attention (Hu and Bors 2020): 1/(2√2), 1/2, 1/√2, 1, √2. The global descriptor pools the
three that LAttQE uses (Gordo et al. 2020), 1/√2, 1 and √2, or all five with CiDeR, whose paper has 0.4, 0.5, 0.7, 1 and
1.4. Both share one image pyramid, so the second use is nearly free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.models.patches import PatchFeatures, packed, strongest_patches
from landseer.export.models.pooling import Projection, l2n, masked_gem
from landseer.export.models.trunk import Maps, Trunk

SCALE_UNIT = 2**19
"""The finest that fits: OpenVINO computes int64 in 32 bits, so √2 of 1,600 pixels must stay below 2^31 units."""


def fixed_point(scale: float) -> int:
    """Return a scale in units of 1/SCALE_UNIT, so that sizes stay integer arithmetic in the exported graph.

    Rounded up: 0.4 of 65 pixels must give 26, not 25.
    """
    return math.ceil(scale * SCALE_UNIT)


LOCAL_SCALES = tuple(fixed_point(s) for s in (2**-1.5, 0.5, 2**-0.5, 1.0, 2**0.5))
GLOBAL_SCALES = LOCAL_SCALES[2:]
MIN_SCALED_SIDE = 32
"""Minimum side of a scaled picture: the trunk's stride."""


class Description(NamedTuple):
    """The outputs of `backbone`, in the contract's order."""

    descriptor: Tensor
    query_vector: Tensor
    local_features: Tensor
    local_count: Tensor
    local_positions: Tensor
    local_scales: Tensor
    local_norms: Tensor
    local_descriptors: Tensor
    attention: Tensor
    image_size: Tensor


class PatchDescription(NamedTuple):
    """The outputs of a `backbone` with patches, in the contract's order."""

    descriptor: Tensor
    query_vector: Tensor
    local_features: Tensor
    local_count: Tensor
    local_positions: Tensor
    local_scales: Tensor
    local_norms: Tensor
    local_descriptors: Tensor
    attention: Tensor
    image_size: Tensor
    patch_codes: Tensor
    patch_count: Tensor
    patch_positions: Tensor
    patch_scales: Tensor


class Backbone(nn.Module):
    """Trunk, image pyramid, global descriptor, local features, co-attention query vector, attention map."""

    def __init__(
        self,
        *,
        trunk: Trunk,
        sizes: Sizes,
        head: nn.Module,
        scales: tuple[int, ...],
        whitening: nn.Module,
        reduction: Projection,
        locals: Projection,
        patches: Projection | None = None,
        two_maps: bool = False,
        p: float = 3.0,
    ) -> None:
        """patches: the projection whose signs are the codes of patches; None for a backbone without patches.

        whitening: of the mean over scales, [B, what the head returns] → unit [B, C]. two_maps: whether the head takes
        the fine map, too.
        """
        super().__init__()
        self.trunk, self.sizes, self.p, self.two_maps = trunk, sizes, p, two_maps
        self.head, self.scales = head, scales
        self.whitening, self.reduction, self.locals = whitening, reduction, locals
        # Last, so that a fingerprint without it is that of a backbone without patches.
        self.patches = patches

    def forward(self, image: Tensor) -> Description | PatchDescription:
        """Describe. image: uint8 [B, H, W, 3] → its description, shapes in `ensemble.contracts`.

        In stages, which the exporter traces one by one.
        """
        pictures = dict(zip(LOCAL_SCALES, self.pyramid(image), strict=True))
        maps = {scale: self.maps(picture) for scale, picture in pictures.items()}
        pooled = [self.pool(pictures[scale], *self.pooled(maps[scale])) for scale in self.scales]
        shared = [(found.last, found.middle) for found in maps.values()]
        return self.finish(image, *(found for pair in (*shared, *pooled) for found in pair))

    def pyramid(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return image, uint8 [B, H, W, 3], as float [B, 3, ., .] at each of `LOCAL_SCALES`."""
        pixels = image.permute(0, 3, 1, 2).float()
        return tuple(resized(pixels, scale) for scale in LOCAL_SCALES)

    def maps(self, picture: Tensor) -> Maps:
        """Return the maps of one picture of the pyramid, [B, C, h, w] each."""
        return self.trunk.maps(picture)

    def pooled(self, maps: Maps) -> tuple[Tensor, ...]:
        """Return those of a picture's maps that the head takes."""
        return (maps.last, maps.fine) if self.two_maps else (maps.last,)

    def pool(self, picture: Tensor, *maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the head's descriptor [B, D] and attention [B, h, w] of one picture's maps, see `pooled`."""
        pooled: tuple[Tensor, Tensor] = self.head(*maps, *picture.shape[2:])
        return pooled

    def finish(self, image: Tensor, *found: Tensor) -> Description | PatchDescription:
        """Describe from the two maps of each of `LOCAL_SCALES`, in turn, then what is pooled at each of `scales`."""
        count = 2 * len(LOCAL_SCALES)
        last, middle, pooled = list(found[:count:2]), list(found[1:count:2]), found[count:]
        described = self._described(image, last, pooled[::2], pooled[1::2])
        if self.patches is None:
            return described
        picked = strongest_patches(middle, last, self.sizes.patches)
        return PatchDescription(*described, *self._patches(image, middle, picked, self.patches))

    def _patches(
        self, image: Tensor, maps: list[Tensor], found: PatchFeatures, projection: Projection
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        height, width = image.shape[1], image.shape[2]
        positions = torch.cat([cell_centres(middle, height, width) for middle in maps])
        scales = torch.cat([cell_scales(middle, scale) for scale, middle in zip(LOCAL_SCALES, maps, strict=True)])
        valid = found.valid
        return (
            packed(projection(l2n(found.features)), valid),
            valid.sum(dim=1, keepdim=True).to(torch.int32),
            positions[found.picked] * valid[..., None],
            scales[found.picked] * valid,
        )

    def _described(
        self, image: Tensor, maps: list[Tensor], descriptors: Sequence[Tensor], attentions: Sequence[Tensor]
    ) -> Description:
        height, width = image.shape[1], image.shape[2]
        feats = torch.cat([one.flatten(2).transpose(1, 2) for one in maps], dim=1)  # [B, L, C]
        positions = torch.cat([cell_centres(one, height, width) for one in maps])  # [L, 2]
        scales = torch.cat([cell_scales(one, scale) for scale, one in zip(LOCAL_SCALES, maps, strict=True)])  # [L]
        features, norms, picked, valid = strongest(feats, self.sizes.locals)
        query = self.reduction(masked_gem(features, valid, self.p))
        return Description(
            descriptor=self.whitening(multi_scale(list(descriptors))),
            query_vector=query,
            local_features=features,
            local_count=valid.sum(dim=1, keepdim=True).to(torch.int32),
            local_positions=positions[picked] * valid[..., None],
            local_scales=scales[picked] * valid,
            local_norms=norms,
            local_descriptors=(self.locals(l2n(features)) * valid[..., None]).to(torch.float16),
            attention=attentions[self.scales.index(SCALE_UNIT)],
            image_size=spatial_size(image),
        )


def resized(pixels: Tensor, scale: int) -> Tensor:
    """Bilinear resize by scale/SCALE_UNIT, sides rounded down, as cnnimageretrieval-pytorch does. [B, 3, H, W]."""
    if scale == SCALE_UNIT:
        return pixels
    sides = [torch.sym_max(MIN_SCALED_SIDE, scaled_side(side, scale)) for side in pixels.shape[2:]]
    # Symbolic during export: int() would freeze the example's size into the graph.
    return F.interpolate(pixels, size=cast("list[int]", sides), mode="bilinear", align_corners=False)


def scaled_side(side: int, scale: int) -> int:
    """Return a side of `side` pixels after scaling, rounded down."""
    return side * scale // SCALE_UNIT


def multi_scale(descriptors: list[Tensor]) -> Tensor:
    """Aggregate the L2-normalised descriptors of several scales: l2n of their mean. each [B, C] → [B, C].

    The published rule is mean(v^msp)^(1/msp) with msp = 1 whenever whitening follows, as it does here.
    """
    return l2n(torch.stack(descriptors).mean(dim=0))


def strongest(features: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the `count` features of largest L2 norm, zero-padded. features: [B, L, C].

    Returns features [B, N, C], norms [B, N], their indices into L [B, N] and validity [B, N] as 0 or 1. Norms are
    padded *before* TopK: in ONNX a K above the length is an error.
    """
    norms = torch.linalg.vector_norm(features, dim=-1)
    top, index = F.pad(norms, (0, count)).topk(count, dim=1)
    valid = (top > 0).to(features.dtype)
    index = index.clamp(max=features.shape[1] - 1)
    # One gather of whole rows is cheaper than gathering elements.
    row = torch.ones_like(index[:, :1]).cumsum(dim=0) - 1  # [B, 1]: 0 .. B-1
    picked = features.flatten(0, 1)[index + row * features.shape[1]]
    return picked * valid[..., None], top, index, valid


def cell_centres(feature_map: Tensor, height: int, width: int) -> Tensor:
    """Return the centres x, y of the cells of a feature map [B, C, h, w], in picture pixels. [h*w, 2]."""
    h, w = feature_map.shape[-2:]
    y = ((torch.arange(h) + 0.5) * (height / h))[:, None].expand(h, w)
    x = ((torch.arange(w) + 0.5) * (width / w))[None, :].expand(h, w)
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def cell_scales(feature_map: Tensor, scale: int) -> Tensor:
    """Return the scale factor of each cell of a feature map [B, C, h, w]. [h*w]."""
    h, w = feature_map.shape[-2:]
    return torch.full((h, w), scale / SCALE_UNIT).flatten()


def spatial_size(image: Tensor) -> Tensor:
    """Return height and width of image [B, H, W, 3] as int32 [B, 2]."""
    size = torch.cat([torch.full((1, 1), image.shape[i], dtype=torch.int32) for i in (1, 2)], dim=1)
    return size.expand(image.shape[0], 2)
