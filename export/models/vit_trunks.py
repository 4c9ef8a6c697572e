"""Vision transformers as trunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from landseer.export.models.state_dicts import fill, read_weights, sha256_of
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trained_trunk import or_trained
from landseer.export.models.trunk import BackboneKind, Loaded, Stride, Trunk, levels
from landseer.export.models.vits import PatchTokens, ViT, check_shape, stripped


def either_vit(vit: ViT) -> BackboneKind:
    """Return a vision transformer, whose weights are always a file."""

    def load(weights: Path | None, stride: Stride) -> Loaded:
        if weights is None:
            raise WeightsError(
                f"no package carries weights of {vit.name}: pass those of {vit.published} with --weights FILE "
                "(docs/export.md, vision transformers)"
            )
        state = stripped(read_weights(weights), weights)
        check_shape(vit, state, weights)
        variant = vit.variant(state)
        network = vit.network(variant)
        fill(network, vit.converted(state, network), weights)
        source = f"file {weights.name}, {variant}, sha256 {sha256_of(weights)[:16]}"
        return Loaded(trunk=_vit_trunk(vit, network).eval(), source=source, variant=variant)

    def empty(variant: str) -> Trunk:
        return _vit_trunk(vit, vit.network(variant))

    return BackboneKind(channels=vit.channels, load=or_trained(vit.name, load, empty, published_so=True))


def _vit_trunk(vit: ViT, network: Any) -> Trunk:
    mean, std = vit.colours()
    return Trunk(
        features=PatchTokens(network, vit.patch),
        classifier=nn.Identity(),
        channels=vit.channels,
        mean=levels(mean),
        std=levels(std),
        stride=vit.patch,
    )
