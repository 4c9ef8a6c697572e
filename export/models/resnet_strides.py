"""ResNet v1 and v1.5: equal weight names and shapes, but strides at different convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from landseer.export.models.torch_file import WeightsError

VARIANTS = ("v1", "v1.5")
STRIDED = ("features.5", "features.6", "features.7")
"""Stages of a ResNet trunk that start with a stride."""


def stride_on_first(network: Any) -> Any:
    """Turn torchvision's v1.5 into v1 by moving each stage's stride to its first 1x1 convolution."""
    for stage in (network.layer2, network.layer3, network.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    return network


def likelier_variant(trunks: Mapping[str, nn.Module]) -> str:
    """Tell v1 from v1.5: which one's activations on photographs agree with the stored BatchNorm statistics.

    trunks: both, with the same weights, in evaluation mode. Both have the same keys and shapes: weights loaded into
    the wrong one run without error but give wrong features. WeightsError if the difference is too small.
    """
    gap = {name: _statistics_gap(trunk) for name, trunk in trunks.items()}
    if max(gap.values()) < 1.2 * min(gap.values()):
        raise WeightsError(
            f"cannot tell whether the weights are ResNet v1 or v1.5 (activations differ from their BatchNorm "
            f"statistics by {gap['v1']:.2f} and {gap['v1.5']:.2f}): say which with --stride v1 or --stride v1.5"
        )
    return min(gap, key=lambda name: gap[name])


@torch.no_grad()
def _statistics_gap(trunk: nn.Module) -> float:
    """Mean |log(variance on photographs / running variance)| over the BatchNorms that follow the first stride.

    Striding at the wrong convolution drops other features than in training. Variances show it clearly (0.17 for the
    right one, 0.35 for the wrong one), means hardly.
    """
    from landseer.export.photographs import photographs

    moments: dict[nn.BatchNorm2d, list[tuple[Tensor, Tensor]]] = {}

    def measure(module: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        moments.setdefault(module, []).append((x.mean(dim=(0, 2, 3)), x.pow(2).mean(dim=(0, 2, 3))))

    stages = [trunk.get_submodule(name) for name in STRIDED]
    norms = [module for stage in stages for module in stage.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    for pixels in photographs(side=448):
        trunk(torch.from_numpy(pixels).permute(2, 0, 1)[None].float())
    for hook in hooks:
        hook.remove()
    gaps = []
    for norm, seen in moments.items():
        mean, square = (torch.stack(part).mean(dim=0) for part in zip(*seen, strict=True))
        running = norm.running_var if norm.running_var is not None else torch.ones_like(mean)
        gaps.append(float(torch.log((square - mean.pow(2) + norm.eps) / (running + norm.eps)).abs().mean()))
    return sum(gaps) / len(gaps)
