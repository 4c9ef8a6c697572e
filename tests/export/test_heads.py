"""Each head in the whole backbone graph, on the engines that may serve it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from landseer.ensemble.inference.contracts import Sizes, graphs
from landseer.export import to_onnx
from landseer.export.build import untrained_head
from landseer.export.engines import onnxruntime_fp32, openvino
from landseer.export.examples import Case
from landseer.export.models.backbone import GLOBAL_SCALES, LOCAL_SCALES, Backbone
from landseer.export.models.heads import HEADS
from landseer.export.models.pooling import Projection
from landseer.export.models.trunk import Maps, Trunk
from landseer.export.parity import check, eager
from landseer.export.to_onnx import Names, Shape, Stage, write_onnx

CHANNELS, FINE = 16, 8
SIZES = Sizes(channels=CHANNELS, reduced=8, locals=50, local=4)
SHAPES = ((2, 192, 256), (1, 256, 192), (3, 64, 64), (1, 64, 480), (2, 333, 417))


class Features(nn.Module):
    """A last map of stride 32, with the same ⌈⌉ as a ResNet's, after a finer one."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, FINE, 7, stride=4, padding=3), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(FINE, CHANNELS, 3, stride=8, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last: torch.Tensor = self.late(self.early(x))
        return last

    def maps(self, x: torch.Tensor) -> Maps:
        fine = self.early(x)
        last = self.late(fine)
        return Maps(last, last, fine)


def trunk() -> Trunk:
    features = Features()
    return Trunk(
        features=features,
        classifier=nn.Identity(),
        channels=CHANNELS,
        mean=(127.0,) * 3,
        std=(60.0,) * 3,
        maps=features.maps,
        fine_channels=FINE,
    )


def shaken(module: nn.Module) -> nn.Module:
    """Every weight away from where it starts, so that nothing is the identity by chance."""
    draw = torch.Generator().manual_seed(1)
    for name, value in module.named_parameters():
        if not name.endswith("pool.p"):
            value.data += 0.1 * value.abs().mean() * torch.randn(value.shape, generator=draw)
    return module


def backbone(kind: str) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Backbone(
            trunk=trunk(),
            sizes=SIZES,
            head=shaken(untrained_head(kind, CHANNELS)),
            scales=LOCAL_SCALES if HEADS[kind].all_scales else GLOBAL_SCALES,
            whitening=HEADS[kind].whitening(CHANNELS, FINE),
            reduction=Projection.untrained(CHANNELS, SIZES.reduced, seed=1),
            locals=Projection.untrained(CHANNELS, SIZES.local, seed=2),
            two_maps=HEADS[kind].two_maps,
        )
    return network.eval()


def cases() -> list[Case]:
    draw = np.random.default_rng(0)
    made = []
    for batch, height, width in SHAPES:
        # Blocks and not noise: regions must differ from each other.
        coarse = draw.integers(0, 256, (batch, height // 32 + 1, width // 32 + 1, 3), dtype=np.uint8)
        image = coarse.repeat(32, axis=1).repeat(32, axis=2)[:, :height, :width].copy()
        made.append(Case(name=f"{batch} of {height}x{width}", inputs={"image": image}, real=True))
    return made


@pytest.fixture(scope="module")
def stages() -> dict[object, onnx.ModelProto]:
    """What stages without a head were exported to."""
    return {}


@pytest.fixture
def once(stages: dict[object, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch) -> None:
    """Export the stages without a head once: `backbone` gives them the same weights whatever the head."""
    export = to_onnx._exported

    def exported(
        module: Stage, args: Sequence[torch.Tensor], shapes: Sequence[Shape], names: Names, opset: int
    ) -> onnx.ModelProto:
        if module.method == "pool":
            return export(module, args, shapes, names, opset)
        # A head of two maps has another whitening.
        key = (module.method, getattr(module.module, "two_maps", False), *names.inputs, *names.outputs)
        if key not in stages:
            stages[key] = export(module, args, shapes, names, opset)
        return stages[key]

    monkeypatch.setattr(to_onnx, "_exported", exported)


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_in_the_graph_says_what_torch_says(once: None, kind: str, tmp_path: Path) -> None:
    network, graph = backbone(kind), graphs(SIZES)["backbone"]
    expected = [(case, eager(network, graph, case.inputs)) for case in cases()]
    path = tmp_path / "model.onnx"
    write_onnx(network, graph, expected[0][0].inputs, path, opset=18)
    for load in (onnxruntime_fp32, openvino("f32")):
        assert check(graph, expected, load(path)).failures("fp32") == []


@pytest.mark.parametrize("kind", HEADS)
def test_a_picture_in_a_batch_is_described_as_it_is_alone(kind: str) -> None:
    network, image = backbone(kind), torch.from_numpy(cases()[4].inputs["image"])
    together, alone = network(image), network(image[1:])
    torch.testing.assert_close(together.descriptor[1:], alone.descriptor, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.attention[1:], alone.attention, atol=1e-4, rtol=1e-4)
