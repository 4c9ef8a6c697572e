"""Vision transformers as trunks: DINOv2, DINOv3 and SigLIP 2, through timm.

Their feature map is the grid of patch tokens after the last normalisation. Class token and registers (Darcet et al.
2024) take part in attention and are left out of the map.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.export.models.torch_file import WeightsError

INSTALL = "pip install 'landseer[vit]'"
PREFIXES = ("module.", "visual.trunk.")
"""Of names in files from DataParallel, and of OpenCLIP, whose files also hold a text encoder."""
PATCHES = "patch_embed.proj.weight"
POSITIONS = "pos_embed"
"""[1, g², C], or one more where the class token has a position too."""
REGISTERS = ("reg_token", "register_tokens", "storage_tokens")
"""Names of the registers: timm's, DINOv2's and DINOv3's."""
BIASED = re.compile(r"blocks\.0\.attn\.(qkv\.bias|q_bias)")
UNUSED = ("attn_pool.", "fc_norm.", "head.")
"""Beyond the patch tokens: SigLIP's pooling by attention, and classifiers."""
OTHERS_NAMES = ("embeddings.patch_embeddings.", "vision_model.", "encoder.layer.")
"""Names of the library transformers, which timm does not convert."""


@dataclass(frozen=True, kw_only=True)
class ViT:
    """A vision transformer: a line of `VITS`."""

    name: str
    """Its key in `BACKBONES`."""
    timm: str
    """timm's name of the architecture."""
    published: str
    """timm's name of the published weights."""
    patch: int
    """Side of a patch in pixels: the stride of the map."""
    width: int
    """Values of a token."""
    depth: int
    registers: int = 0
    class_token: bool = True
    positions: bool = True
    """Whether positions are learned, in a square grid; otherwise they are rotations (RoPE)."""
    smaller: Mapping[str, Any] | None = None
    """Changes to timm's architecture, for tests."""

    @property
    def channels(self) -> int:
        """Channels of the map: see `halves`."""
        return 2 * self.width

    def variant(self, state: Mapping[str, Tensor]) -> str:
        """Name the network that fits a file's weights.

        SigLIP 2 comes with grids of 14 to 32 positions a side, DINOv3 with and without biases of queries and values.
        """
        if self.positions:
            return f"grid{math.isqrt(state[POSITIONS].shape[1])}"
        return "biased" if any(BIASED.match(name) for name in state) else "unbiased"

    def network(self, variant: str) -> Any:
        """Return timm's network of a variant, with initial weights. WeightsError if timm is not installed."""
        timm = _timm()
        options: dict[str, Any] = dict(self.smaller or {})
        if self.positions:
            options["img_size"] = self.patch * int(variant.removeprefix("grid"))
        architecture = f"{self.timm}_qkvb" if variant == "biased" else self.timm
        return timm.create_model(architecture, pretrained=False, num_classes=0, **options)

    def colours(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Return mean and standard deviation of RGB in 0..1, by which pixels are normalised."""
        known = _timm().get_pretrained_cfg(self.published)
        return known.mean, known.std

    def converted(self, state: Mapping[str, Tensor], network: Any) -> dict[str, Tensor]:
        """Return the weights by timm's names, without those that patch tokens do not depend on."""
        convert = import_module(type(network).__module__).checkpoint_filter_fn
        found = convert(dict(state), network)
        return {name: value for name, value in found.items() if not name.startswith(UNUSED)}


VITS = (
    ViT(
        name="dinov2_vits14",
        timm="vit_small_patch14_dinov2",
        published="vit_small_patch14_dinov2.lvd142m",
        patch=14,
        width=384,
        depth=12,
    ),
    ViT(
        name="dinov2_vitb14",
        timm="vit_base_patch14_dinov2",
        published="vit_base_patch14_dinov2.lvd142m",
        patch=14,
        width=768,
        depth=12,
    ),
    ViT(
        name="dinov2_vits14_reg",
        timm="vit_small_patch14_reg4_dinov2",
        published="vit_small_patch14_reg4_dinov2.lvd142m",
        patch=14,
        width=384,
        depth=12,
        registers=4,
    ),
    ViT(
        name="dinov2_vitb14_reg",
        timm="vit_base_patch14_reg4_dinov2",
        published="vit_base_patch14_reg4_dinov2.lvd142m",
        patch=14,
        width=768,
        depth=12,
        registers=4,
    ),
    ViT(
        name="dinov3_vits16",
        timm="vit_small_patch16_dinov3",
        published="vit_small_patch16_dinov3.lvd1689m",
        patch=16,
        width=384,
        depth=12,
        registers=4,
        positions=False,
    ),
    ViT(
        name="dinov3_vitb16",
        timm="vit_base_patch16_dinov3",
        published="vit_base_patch16_dinov3.lvd1689m",
        patch=16,
        width=768,
        depth=12,
        registers=4,
        positions=False,
    ),
    ViT(
        name="siglip2_vitb16",
        timm="vit_base_patch16_siglip_gap_256",
        published="vit_base_patch16_siglip_256.v2_webli",
        patch=16,
        width=768,
        depth=12,
        class_token=False,
    ),
)


class PatchTokens(nn.Module):
    """The patch tokens of timm's network as a feature map, for pictures of any size.

    timm's own `forward_features` cannot be exported for any size: it resizes positions by a bicubic filter with
    antialiasing, and freezes the size of the grid that rotations are scaled by. Here positions are resized by two
    matrices computed from the size. `tests/export/test_vits.py` compares both.
    """

    def __init__(self, network: Any, patch: int) -> None:
        super().__init__()
        self.network, self.patch = network, patch

    def forward(self, x: Tensor) -> Tensor:
        """Compute. x: [B, 3, H, W], normalised → [B, 2 C, H/patch, W/patch] ≥ 0, sides rounded to the nearest."""
        network = self.network
        cells = network.patch_embed.norm(network.patch_embed.proj(whole_patches(x, self.patch)))  # [B, C, h, w]
        h, w = cells.shape[2:]
        tokens = self._attended(cells.flatten(2).transpose(1, 2), h, w)[:, network.num_prefix_tokens :]
        return halves(tokens.transpose(1, 2).reshape(x.shape[0], -1, h, w))

    def _attended(self, tokens: Tensor, h: int, w: int) -> Tensor:
        """tokens: [B, h w, C] → [B, prefix + h w, C]."""
        network = self.network
        special = [token for token in (network.cls_token, network.reg_token) if token is not None]
        places = network.pos_embed
        own = 0 if places is None or network.no_embed_class else network.num_prefix_tokens
        if places is not None:
            tokens = tokens + resized_positions(places[:, own:], h, w)
        if special:
            first = torch.cat(special, dim=1)
            first = first + places[:, :own] if own else first
            tokens = torch.cat([first.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = network.norm_pre(tokens)
        if getattr(network, "rope", None) is None:
            tokens = network.blocks(tokens)
        else:
            turned = rotations(network.rope.periods, h, w)
            for block in network.blocks:
                tokens = block(tokens, rope=turned)
        found: Tensor = network.norm(tokens)
        return found


def whole_patches(x: Tensor, patch: int) -> Tensor:
    """Resize bilinearly to the nearest whole number of patches, at least one. x: [B, 3, H, W]."""
    sides = [patch * torch.sym_max(1, (side + patch // 2) // patch) for side in x.shape[2:]]
    # Symbolic during export, as in `resized` of the backbone.
    return F.interpolate(x, size=cast("list[int]", sides), mode="bilinear", align_corners=False)


def halves(x: Tensor) -> Tensor:
    """Return positive and negative parts as channels of their own: [B, C, h, w] → [B, 2 C, h, w] ≥ 0.

    CReLU (Shang et al. 2016). GeM takes powers of a map that is not negative; cut off at 0, a signed one would lose
    half of what it holds. Norms stay as they are.
    """
    return torch.cat([F.relu(x), F.relu(-x)], dim=1)


def resized_positions(places: Tensor, h: int, w: int) -> Tensor:
    """Resize a square grid of positions [1, g², C] to [1, h w, C], bicubic with antialiasing, as torch does.

    A grid of the same size stays exactly as it is.
    """
    side = math.isqrt(places.shape[1])
    rows = cubic_weights(side, h, places.device) @ places.reshape(side, -1)  # [h, g C]
    found = cubic_weights(side, w, places.device) @ rows.reshape(-1, side, places.shape[2])  # [h, w, C]
    return found.flatten(0, 1)[None]


def rotations(periods: Tensor, h: int, w: int) -> Tensor:
    """Return sines and cosines by which DINOv3 turns queries and keys at each cell (Siméoni et al. 2025): [h w, 8 P].

    periods: [P], of a coordinate that runs from -1 to 1 along each side of the picture, whatever its size.
    """
    y, x = (2.0 * (torch.arange(side, device=periods.device) + 0.5) / side - 1.0 for side in (h, w))
    places = torch.stack([y[:, None].expand(h, w), x[None, :].expand(h, w)], dim=-1).flatten(0, 1)  # [h w, 2]
    angles = (2.0 * math.pi * places[:, :, None] / periods).flatten(1).repeat(1, 2)  # [h w, 4 P]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def cubic_weights(size: int, wanted: int, device: torch.device | None = None) -> Tensor:
    """Return the matrix [wanted, size] that resizes `size` values by Keys' cubic filter (1981, a = -1/2).

    Values outside count for nothing, and where fewer are wanted the filter is as much wider: antialiasing.
    """
    step = size / wanted
    stretch = cast("float", torch.sym_max(step, 1.0))
    centres = (torch.arange(wanted, device=device) + 0.5) * step
    away = (torch.arange(size, device=device) + 0.5 - centres[:, None]).abs() / stretch
    near = (1.5 * away - 2.5) * away * away + 1.0
    far = ((-0.5 * away + 2.5) * away - 4.0) * away + 2.0
    weights = torch.where(away < 1.0, near, torch.where(away < 2.0, far, torch.zeros_like(away)))
    return weights / weights.sum(dim=1, keepdim=True)


def stripped(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return a vision transformer's weights without the prefixes of `PREFIXES`, and without other encoders.

    WeightsError if there is none by timm's or its publishers' names.
    """
    for prefix in ("", *PREFIXES):
        if prefix + PATCHES in state:
            return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    foreign = any(part in name for name in state for part in OTHERS_NAMES)
    what = (
        "has names of the library transformers"
        if foreign
        else f"has no {PATCHES}, but such as {min(state, default='nothing')}"
    )
    raise WeightsError(
        f"{path} {what}; expected a vision transformer by timm's names, or by those of its publishers' own files "
        "(docs/export.md, vision transformers)"
    )


def check_shape(vit: ViT, state: Mapping[str, Tensor], path: Path) -> None:
    """Raise WeightsError, naming what the weights are of, unless they have this transformer's shape."""
    got = _found(state)
    if got != _Shape.of(vit):
        fits = [one.name for one in VITS if got == _Shape.of(one)]
        mend = f"; pass --backbone {' or '.join(fits)}" if fits else ""
        raise WeightsError(f"{path} holds {got}; --backbone {vit.name} is {_Shape.of(vit)}{mend}")
    places = state[POSITIONS].shape[1] if vit.positions else 0
    # Of the class token, too, but where timm's own weights leave it out beside registers.
    others = {1} if vit.class_token and not vit.registers else {0, 1} if vit.class_token else {0}
    if places and places - math.isqrt(places) ** 2 not in others:
        raise WeightsError(f"{path} has {places} positions; expected those of a square grid of patches")


@dataclass(frozen=True, kw_only=True)
class _Shape:
    patch: int
    width: int
    depth: int
    registers: int
    class_token: bool
    positions: bool

    @classmethod
    def of(cls, vit: ViT) -> _Shape:
        return cls(**{field.name: getattr(vit, field.name) for field in fields(cls)})

    def __str__(self) -> str:
        special = [*(["class token"] if self.class_token else []), f"{self.registers} registers"]
        kind = "learned" if self.positions else "rotary"
        return (
            f"a transformer of {self.depth} blocks, {self.width} wide, with patches of {self.patch} pixels, "
            f"{', '.join(special)} and {kind} positions"
        )


def _found(state: Mapping[str, Tensor]) -> _Shape:
    patches = state[PATCHES]
    return _Shape(
        patch=int(patches.shape[-1]),
        width=int(patches.shape[0]),
        depth=len({found[1] for name in state if (found := re.match(r"blocks\.(\d+)\.", name))}),
        registers=next((int(state[name].shape[1]) for name in REGISTERS if name in state), 0),
        class_token="cls_token" in state,
        positions=POSITIONS in state,
    )


def _timm() -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise WeightsError(f"vision transformers need timm, which is not installed: {INSTALL}") from error
