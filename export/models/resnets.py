"""ResNets as trunks, with torchvision's weights, those of a file, or a public checkpoint of landmarks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from landseer.export.models.checkpoints import Checkpoint, is_checkpoint, parsed
from landseer.export.models.resnet_strides import VARIANTS, likelier_variant, stride_on_first
from landseer.export.models.state_dicts import fill, sha256_of, tensors_of
from landseer.export.models.torch_file import WeightsError, torch_file
from landseer.export.models.trained_trunk import or_trained
from landseer.export.models.trunk import BackboneKind, Load, Loaded, Maps, Stride, Trunk, levels

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


def either_resnet(name: str) -> BackboneKind:
    """Return a ResNet of torchvision."""
    return BackboneKind(channels=2048, load=or_trained(name, _resnet(name), _empty_resnet(name), *VARIANTS))


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


def _resnet(name: str) -> Load:
    def load(weights: Path | None, stride: Stride) -> Loaded:
        import torchvision.models

        path = weights or _download(torchvision.models.get_model_weights(name).DEFAULT)
        contents = torch_file(path)
        if is_checkpoint(contents):
            return _resnet_of(_checkpoint(contents, name, path), stride)
        state = tensors_of(contents, path)
        trunks = {}
        for variant in VARIANTS:
            network = torchvision.models.get_model(name)
            fill(network, state, path)
            trunks[variant] = resnet_trunk(stride_on_first(network) if variant == "v1" else network).eval()
        variant = likelier_variant(trunks) if stride == "auto" else stride
        found = " (detected from its statistics)" if stride == "auto" else ""
        source = f"{path.name}, ResNet {variant}{found}, sha256 {sha256_of(path)[:16]}"
        return Loaded(trunk=trunks[variant], source=source, variant=variant)

    return load


def _empty_resnet(name: str) -> Callable[[str], Trunk]:
    def empty(variant: str) -> Trunk:
        import torchvision.models

        network = torchvision.models.get_model(name)
        return resnet_trunk(stride_on_first(network) if variant == "v1" else network)

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
    trunk = resnet_trunk(
        stride_on_first(network) if variant == "v1" else network,
        mean=levels(checkpoint.mean),
        std=levels(checkpoint.std),
    )
    source = f"{checkpoint.path.name}, ResNet {variant}, sha256 {sha256_of(checkpoint.path)[:16]}"
    return Loaded(trunk=trunk.eval(), source=source, variant=variant, checkpoint=checkpoint)


def resnet_trunk(
    network: Any,
    *,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> Trunk:
    """Return a trunk of torchvision's network. mean and std: of RGB in 0..255."""
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
