"""Trunks with the weights of files that `landseer train` wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from landseer.export.models.state_dicts import fill
from landseer.export.models.trained import SUFFIX, Trained, is_trained, read_trained
from landseer.export.models.trunk import Load, Loaded, Stride, Trunk


def or_trained(
    name: str, load: Load, empty: Callable[[str], Trunk], *variants: str, published_so: bool = False
) -> Load:
    """Extend a backbone's `load` to files of `landseer train`, and label its trunk.

    empty: makes the trunk without weights, for one of `variants`. published_so: whether `load` reads safetensors, too.
    """

    def either(weights: Path | None, stride: Stride) -> Loaded:
        if weights is None or weights.suffix != SUFFIX or (published_so and not is_trained(weights)):
            loaded = load(weights, stride)
        else:
            trained = read_trained(weights)
            variant = trained.variant(name, stride, variants)
            loaded = Loaded(
                trunk=filled(empty(variant), trained),
                source=trained.source,
                variant=variant,
                trained=None if trained.headless else trained,
            )
        loaded.trunk.backbone, loaded.trunk.variant = name, loaded.variant
        return loaded

    return either


def filled(trunk: Trunk, trained: Trained) -> Trunk:
    """Return a trunk with trained weights. WeightsError if they do not fit, or if the training improved nothing."""
    if trained.headless:
        trained.check_improved()
    if not any(key.startswith("classifier.") for key in trained.trunk):
        trunk.drop_classifier()
    fill(trunk, dict(trained.trunk), trained.path)
    return trunk.eval()
