"""Patches: where they lie, how they are packed, learned, exported, and what tells them apart."""

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

from landseer.ensemble.inference.contracts import PATCH_BITS, PATCH_OUTPUTS, Sizes, ensembles, graphs
from landseer.ensemble.inference.profile import Profile
from landseer.ensemble.pictures.pictures import prepare
from landseer.export.build import PATCH_COUNT, Wanted, build, trunk_sha256
from landseer.export.config import all_configs, graph_config
from landseer.export.engines import ENGINES
from landseer.export.examples import Case, photos
from landseer.export.exporter import ExportError, ExportOptions, _check_patches
from landseer.export.models.backbone import (
    GLOBAL_SCALES,
    LOCAL_SCALES,
    Backbone,
    Description,
    PatchDescription,
    resized,
)
from landseer.export.models.heads import GeMHead
from landseer.export.models.patches import packed, strongest_patches
from landseer.export.models.pooling import Projection
from landseer.export.models.resnets import resnet_trunk
from landseer.export.models.trunk import BackboneKind, Loaded, Maps, Trunk
from landseer.export.models.trunks import BACKBONES
from landseer.export.parity import LIMITS, MEASURES, SELECTED, check, eager, same_bits, selection_overlap
from landseer.export.parts import Parts, read_parts, write_parts
from landseer.export.to_onnx import Arrays, write_onnx
from landseer.export.training.command import TrainOptions, train_parts
from landseer.export.training.patch_projection import _rotated_whitening, _strongest, learned_patches

CHANNELS, MIDDLE = 520, 40
PATCHES = 60
"""More than a picture of 64 x 64 pixels has cells, fewer than one of 96 x 64."""
SIZES = Sizes(channels=CHANNELS, reduced=8, locals=12, local=6, patches=PATCHES)
QUIET = Console(quiet=True)


class SmallFeatures(nn.Module):
    """A middle map of stride 16 and a last one of stride 32, from seeded convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(nn.Conv2d(3, MIDDLE, 16, stride=16), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(MIDDLE, CHANNELS, 2, stride=2), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.late(self.early(x))
        return last

    def maps(self, x: Tensor) -> Maps:
        middle = self.early(x)
        return Maps(self.late(middle), middle, 2 * middle)


def small_trunk() -> Trunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        features = SmallFeatures()
    return Trunk(
        features=features,
        classifier=nn.Identity(),
        channels=CHANNELS,
        mean=(127.0,) * 3,
        std=(60.0,) * 3,
        maps=features.maps,
        middle_channels=MIDDLE,
        fine_channels=MIDDLE,
    ).eval()


def projected(seed: int = 0) -> Projection:
    draw = torch.Generator().manual_seed(seed)
    mean = 0.05 * torch.rand(MIDDLE, generator=draw)
    return Projection(mean, torch.rand(PATCH_BITS, MIDDLE, generator=draw) - 0.5)


def small_backbone(patches: Projection | None) -> Backbone:
    return Backbone(
        trunk=small_trunk(),
        sizes=SIZES,
        head=GeMHead(CHANNELS),
        scales=GLOBAL_SCALES,
        whitening=Projection.untrained(CHANNELS, CHANNELS, seed=0),
        reduction=Projection.untrained(CHANNELS, SIZES.reduced, seed=1),
        locals=Projection.untrained(CHANNELS, SIZES.local, seed=3),
        patches=patches,
    ).eval()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(weights: Path | None, stride: str) -> Loaded:
        return Loaded(trunk=small_trunk(), source="seeded", variant="small")

    monkeypatch.setitem(BACKBONES, "small", BackboneKind(channels=CHANNELS, load=load))


def lite() -> Trunk:
    return BACKBONES["efficientnet_lite0"].load(None, "auto").trunk


def resnet() -> Trunk:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return resnet_trunk(torchvision.models.resnet50(weights=None)).eval()


@pytest.mark.parametrize(
    ("make", "channels", "fine_channels"), [(lite, 112, 672), (resnet, 1024, 1024), (small_trunk, MIDDLE, MIDDLE)]
)
@torch.no_grad()
def test_the_last_map_is_the_trunks_and_the_others_have_stride_16(make: Any, channels: int, fine_channels: int) -> None:
    trunk, x = make(), 255 * torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(0))
    last, middle, fine = trunk.maps(x)
    torch.testing.assert_close(last, trunk(x), rtol=0, atol=0)
    assert last.shape == (2, trunk.channels, 3, 5)
    assert middle.shape == (2, channels, 6, 10) and trunk.middle_channels == channels
    assert fine.shape == (2, fine_channels, 6, 10) and trunk.fine_channels == fine_channels
    assert fine.min() >= 0 and fine.std() > 0
    assert middle.std() > 0


@pytest.mark.parametrize("make", [lite, resnet, small_trunk])
@torch.no_grad()
def test_the_copy_of_a_trunk_has_its_own_maps(make: Any) -> None:
    trunk, x = make(), torch.full((1, 3, 64, 64), 200.0)
    copied = copy.deepcopy(trunk)
    for weight in trunk.parameters():
        weight.zero_()
    torch.testing.assert_close(copied.maps(x)[0], copied(x), rtol=0, atol=0)
    torch.testing.assert_close(trunk.maps(x)[0], trunk(x), rtol=0, atol=0)
    assert not torch.equal(copied.maps(x)[1], trunk.maps(x)[1])


@torch.no_grad()
def test_a_trunk_with_one_map_gives_it_in_place_of_all() -> None:
    features = nn.Conv2d(3, 8, 32, stride=32)
    trunk = Trunk(features=features, classifier=nn.Identity(), channels=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    x = torch.rand(1, 3, 64, 64)
    last, middle, fine = trunk.maps(x)
    torch.testing.assert_close(last, trunk(x), rtol=0, atol=0)
    assert middle is last and fine is last and trunk.middle_channels == trunk.fine_channels == 8


def two_scales(batch: int, seed: int = 0) -> tuple[list[Tensor], list[Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    middle = [torch.rand(batch, 5, 4, 6, generator=draw), torch.rand(batch, 5, 2, 2, generator=draw)]
    return middle, [torch.rand(batch, 3, 4, 6, generator=draw), torch.rand(batch, 3, 2, 2, generator=draw)]


def test_patches_are_the_cells_where_the_last_map_is_strongest() -> None:
    middle, last = two_scales(2)
    found = strongest_patches(middle, last, 7)
    assert found.features.shape == (2, 7, 5) and found.valid.all()
    for row in range(2):
        norms = np.concatenate([one[row].norm(dim=0).flatten().numpy() for one in last])
        cells = np.concatenate([one[row].flatten(1).T.numpy() for one in middle])
        expected = np.argsort(-norms)[:7]
        np.testing.assert_array_equal(found.picked[row].numpy(), expected)
        np.testing.assert_array_equal(found.features[row].numpy(), cells[expected])


def test_the_norm_of_a_coarse_last_map_is_resized_to_the_middle_one() -> None:
    middle = torch.arange(16.0).reshape(1, 1, 4, 4)
    last = torch.tensor([[[[1.0, 1.0], [1.0, 9.0]]]])
    found = strongest_patches([middle], [last], 1)
    assert found.picked.item() == 15 and found.features.item() == 15


def test_more_patches_than_cells_are_padded_with_zeros() -> None:
    middle, last = two_scales(2)
    last[0][1, :, 1:] = 0  # nothing was found there
    found = strongest_patches(middle, last, 40)
    assert found.features.shape == (2, 40, 5)
    assert found.valid.sum(dim=1).tolist() == [28, 10]
    for valid, features in zip(found.valid, found.features, strict=True):
        there = int(valid.sum())
        assert valid[:there].all() and features[:there].any(dim=1).all()
        assert not features[there:].any()
    assert found.picked.max() < 28


def test_pictures_of_a_batch_do_not_affect_each_other() -> None:
    middle, last = two_scales(3)
    together = strongest_patches(middle, last, 9)
    for row in range(3):
        alone = strongest_patches([x[row : row + 1] for x in middle], [x[row : row + 1] for x in last], 9)
        for whole, one in zip(together, alone, strict=True):
            assert torch.equal(whole[row], one[0])


def test_signs_are_packed_as_numpy_packs_bits() -> None:
    values = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(0))
    values[0, 0, :4] = 0.0  # not above zero
    valid = torch.ones(2, 9)
    valid[1, 5:] = 0
    found = packed(values, valid)
    expected = np.packbits(values.numpy() > 0, axis=-1)
    expected[1, 5:] = 0
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found.numpy(), expected)


@torch.no_grad()
def test_a_backbone_returns_the_signs_of_projected_features_and_where_they_are() -> None:
    image, projection = noise(2, 96, 64, 3), projected()
    backbone = small_backbone(projection)
    found = backbone(image)
    assert isinstance(found, PatchDescription)
    for tensor in graphs(SIZES)["backbone"].outputs:
        out = getattr(found, tensor.name)
        assert str(out.dtype) == f"torch.{tensor.dtype}"
        assert all(wanted in (-1, got) for wanted, got in zip(tensor.dims, out.shape[1:], strict=True))
    assert found.patch_count.tolist() == [[PATCHES]] * 2
    maps = {s: backbone.trunk.maps(resized(image.permute(0, 3, 1, 2).float(), s)) for s in LOCAL_SCALES}
    chosen = strongest_patches([m.middle for m in maps.values()], [m.last for m in maps.values()], PATCHES)
    units = chosen.features / chosen.features.norm(dim=-1, keepdim=True)
    signs = (units.double() - projection.mean.double()) @ projection.matrix.T.double()
    bits = np.unpackbits(found.patch_codes.numpy(), axis=-1)
    # Only values near 0 may have another sign in double precision.
    assert (np.abs(signs.numpy()[bits != (signs.numpy() > 0)]) < 1e-5).all()
    assert 0.2 < bits.mean() < 0.8
    _on_centres(found, maps)


def _on_centres(found: PatchDescription, maps: dict[int, Maps]) -> None:
    """Every patch lies on the centre of a cell of its scale, and no two on the same."""
    cells = {
        (round((x + 0.5) * 64 / middle.shape[3], 2), round((y + 0.5) * 96 / middle.shape[2], 2), round(s / 2**19, 4))
        for s, (_, middle, _) in maps.items()
        for y in range(middle.shape[2])
        for x in range(middle.shape[3])
    }
    for positions, scales in zip(found.patch_positions.tolist(), found.patch_scales.tolist(), strict=True):
        places = {(round(x, 2), round(y, 2), round(s, 4)) for (x, y), s in zip(positions, scales, strict=True)}
        assert len(places) == PATCHES and places <= cells


@torch.no_grad()
def test_beyond_the_count_everything_is_zero() -> None:
    found = small_backbone(projected())(noise(1, 64, 64, 3))
    count = found.patch_count.item()
    assert 0 < count < PATCHES and found.patch_codes.shape == (1, PATCHES, PATCH_BITS // 8)
    for name in ("patch_codes", "patch_positions", "patch_scales"):
        assert not getattr(found, name)[0, count:].any()
    assert (found.patch_scales[0, :count] > 0).all()


@torch.no_grad()
def test_without_a_projection_the_other_outputs_are_the_same_and_there_are_no_patches() -> None:
    image = noise(1, 96, 64, 3)
    without, with_them = small_backbone(None)(image), small_backbone(projected())(image)
    assert type(without) is Description
    assert PatchDescription._fields == (*Description._fields, *PATCH_OUTPUTS)
    for name in Description._fields:
        assert torch.equal(getattr(without, name), getattr(with_them, name))


def parts_with(patches: Projection | None) -> Parts:
    others = Projection(0.01 * torch.ones(CHANNELS), torch.eye(CHANNELS)[:512])
    tensors = {f"reduction.{name}": value for name, value in others.state_dict().items()}
    if patches is not None:
        tensors |= {f"patches.{name}": value for name, value in patches.state_dict().items()}
    return Parts(
        backbone="small",
        trunk_sha256=trunk_sha256(BACKBONES["small"].load(None, "auto")),
        descriptor="gem",
        learned=("reduction", *(("patches",) if patches is not None else ())),
        tensors=tensors,
        card={"seed": 1},
    )


def built(path: Path, patches: Projection | None) -> tuple[Profile, Any]:
    write_parts(parts_with(patches), path)
    networks = build(Wanted(backbone="small", parts=path))
    return networks.profile, networks.modules["backbone"]


def test_a_store_is_compatible_whatever_the_patches(tmp_path: Path) -> None:
    without, plain = built(tmp_path / "without.safetensors", None)
    one, backbone = built(tmp_path / "one.safetensors", projected(0))
    other, _ = built(tmp_path / "other.safetensors", projected(1))
    assert (without.sizes.patches, without.patches_sha256, plain.patches) == (0, "", None)
    assert one.sizes.patches == other.sizes.patches == PATCH_COUNT
    assert len({without.patches_sha256, one.patches_sha256, other.patches_sha256}) == 3
    assert len(one.patches_sha256) == 64
    for profile in (one, other):
        assert profile.fingerprint == without.fingerprint
        assert profile.weights_sha256 == without.weights_sha256
        assert profile.locals_sha256 == without.locals_sha256
        assert profile.untrained == without.untrained, "they have no stand-in"
        assert Profile.from_json(profile.to_json()) == profile
    torch.testing.assert_close(backbone.patches.matrix, projected(0).matrix, rtol=1e-3, atol=1e-3)


def test_a_profile_from_before_patches_has_none() -> None:
    fields = json.loads(Profile(backbone="small", weights_sha256="", sizes=SIZES).to_json())
    del fields["patches_sha256"], fields["sizes"]["patches"]
    found = Profile.from_json(json.dumps(fields))
    assert (found.patches_sha256, found.sizes.patches) == ("", 0)


def test_the_contracts_have_them_only_if_the_models_do() -> None:
    for sizes, expected in ((SIZES, PATCH_OUTPUTS), (dataclasses.replace(SIZES, patches=0), ())):
        made = ensembles(patches=sizes.patches > 0)
        backbone = graphs(sizes)["backbone"]
        for outputs in (made["describe"].outputs, made["describe"].steps[0].outputs, made["describe_full"].outputs):
            assert tuple(name for name in outputs if name.startswith("patch")) == expected
            assert set(outputs) - {"boxes", "box_scores", "box_count", "clusters", "cluster_count", "assignments"} <= {
                tensor.name for tensor in backbone.outputs
            }
        assert tuple(tensor.name for tensor in backbone.outputs if tensor.name.startswith("patch")) == expected
    codes = graphs(SIZES)["backbone"].output("patch_codes")
    assert (codes.dtype, codes.dims) == ("uint8", (PATCHES, PATCH_BITS // 8))


@pytest.mark.parametrize("patches", [0, PATCHES])
def test_configurations_serve_and_prepare_them(patches: int) -> None:
    sizes = dataclasses.replace(SIZES, patches=patches)
    config = graph_config(graphs(sizes)["backbone"], precision="fp32")
    prepared = json.loads(config.parameters["landseer_prepared_outputs"].string_value)
    expected = set(PATCH_OUTPUTS) if patches else set()
    assert [set(PATCH_OUTPUTS) & set(outputs) for outputs in prepared] == [expected, expected]
    assert prepared[0] == ["descriptor", "query_vector", *(PATCH_OUTPUTS if patches else ())]
    files = all_configs(Profile(backbone="small", weights_sha256="", sizes=sizes), {})
    for name in ("describe", "describe_full", "backbone"):
        assert ("patch_codes" in files[f"{name}/config.pbtxt"]) == bool(patches)


def outputs(places: list[tuple[float, float, float]], codes: NDArray[np.generic]) -> Arrays:
    found = np.array(places, np.float32)
    return {
        "patch_count": np.array([[len(places)]], np.int32),
        "patch_positions": found[None, :, :2],
        "patch_scales": found[None, :, 2],
        "patch_codes": codes[None].astype(np.uint8),
    }


def test_parity_compares_the_bits_of_patches_at_the_same_place() -> None:
    places = [(8.0, 8.0, 1.0), (24.0, 8.0, 1.0), (8.0, 8.0, 0.5)]
    codes = np.random.default_rng(0).integers(0, 256, (3, PATCH_BITS // 8))
    wanted = outputs(places, codes)
    assert same_bits(wanted, outputs(places[::-1], codes[::-1])) == 1.0
    flipped = codes.copy()
    flipped[1, 0] ^= 0b11
    assert same_bits(wanted, outputs(places, flipped)) == pytest.approx(1 - 2 / (3 * PATCH_BITS))
    elsewhere = [*places[:2], (40.0, 8.0, 1.0)]
    assert same_bits(wanted, outputs(elsewhere, codes)) == 1.0
    assert same_bits(wanted, outputs([(0.0, 0.0, 2.0)] * 3, codes)) == 1.0
    assert selection_overlap(wanted, outputs(elsewhere, codes), kind="patch") == pytest.approx(2 / 3)
    assert selection_overlap(wanted, outputs(places[::-1], codes), kind="patch") == 1.0


def test_patches_have_limits_and_noise_does_not_decide_their_selection() -> None:
    names = {tensor.name for tensor in graphs(SIZES)["backbone"].outputs if tensor.name.startswith("patch")}
    # Scales follow the selection, which patch_positions measures.
    assert names - set(MEASURES) == {"patch_scales"} and set(MEASURES) == set(LIMITS)
    assert "patch_positions" in SELECTED


@pytest.mark.parametrize(("kept", "said"), [("", "with no patches"), ("f" * 64, "with other patches")])
def test_a_kept_backbone_with_other_patches_is_refused(kept: str, said: str, tmp_path: Path) -> None:
    wanted = Profile(backbone="small", weights_sha256="", sizes=SIZES, patches_sha256="e" * 64)
    options = ExportOptions(wanted=Wanted(backbone="small"), only=(), opset=18, out=tmp_path, dry_run=False)
    with pytest.raises(ExportError, match=f"{said}: export it too with --only backbone"):
        _check_patches(options, dataclasses.replace(wanted, patches_sha256=kept), wanted)
    _check_patches(options, wanted, wanted)


def pictures(folder: Path, count: int) -> list[Path]:
    """Coloured tiles with noise, larger than the models' smallest side."""
    files = []
    for seed in range(count):
        draw = np.random.default_rng(seed)
        tiles = np.kron(draw.integers(0, 256, (12, 16, 3)), np.ones((10, 10, 1)))
        pixels = np.clip(tiles + draw.normal(0, 30, tiles.shape), 0, 255).astype(np.uint8)
        (file := folder / f"{seed}.png").parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(file)
        files.append(file)
    return files


def test_the_projection_is_learned_from_pictures_and_balances_the_signs(tmp_path: Path) -> None:
    files, told = pictures(tmp_path, 4), list[int]()
    found, text = learned_patches(small_trunk(), files, seed=0, report=told.append)
    again, _ = learned_patches(small_trunk(), files, seed=0)
    assert found.mean.shape == (MIDDLE,) and found.matrix.shape == (PATCH_BITS, MIDDLE)
    assert found.mean.dtype == found.matrix.dtype == torch.float32
    assert torch.equal(found.mean, again.mean) and torch.equal(found.matrix, again.matrix)
    assert told == [1, 2, 3, 4]
    assert text == "whitening PCA and rotation of 4,000 features of 4 photographs, seed 0"

    seen = learned_from(files)
    values = (seen - found.mean.double()) @ found.matrix.double().T
    np.testing.assert_allclose(np.cov(values.T.numpy(), bias=True).trace(), MIDDLE, rtol=2e-2)
    shares = (values > 0).double().mean(dim=0)
    assert shares.min() > 0.3 and shares.max() < 0.7 and abs(shares.mean() - 0.5) < 0.05
    # No bit is of directions that hardly vary: each depends on all.
    deviations = values.std(dim=0)
    assert deviations.min() > 0.2 * deviations.max()


@torch.no_grad()
def learned_from(files: list[Path]) -> Tensor:
    """Return the strongest unit features of all pictures, as float64."""
    profile = Profile(backbone="none", weights_sha256="", sizes=SIZES)
    prepared = [torch.from_numpy(prepare(file.read_bytes(), profile=profile).pixels.copy()) for file in files]
    return torch.cat([_strongest(small_trunk(), pixels) for pixels in prepared]).double()


def test_more_channels_than_bits_keep_the_most_varying_directions() -> None:
    variances = np.linspace(1.0, 2.0, 200)
    matrix = _rotated_whitening(np.diag(variances)).double().numpy()
    assert matrix.shape == (PATCH_BITS, 200)
    assert not matrix[:, : 200 - PATCH_BITS].any()
    whitened = matrix @ np.diag(variances) @ matrix.T
    np.testing.assert_allclose(whitened, np.eye(PATCH_BITS), atol=1e-4)


def test_the_section_is_added_to_parts_that_stay_otherwise(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 3)
    path = tmp_path / "parts.safetensors"
    write_parts(parts_with(None), path)
    before = read_parts(path)
    options = TrainOptions(
        wanted=Wanted(backbone="small", descriptor="gem"),
        data=f"folder:{tmp_path / 'photos'}",
        out=path,
        section="patches",
        folder=tmp_path / "train",
        command="a command",
    )
    train_parts(options, QUIET)
    after = read_parts(path)
    assert after.learned == ("reduction", "patches")
    assert set(after.tensors) - set(before.tensors) == {"patches.mean", "patches.matrix"}
    assert all(torch.equal(after.tensors[name], value) for name, value in before.tensors.items())
    assert after.card["patches"].endswith(f"of 3 photographs, seed 0, folder:{tmp_path / 'photos'}, by a command")
    assert "| patches | whitening PCA and rotation of" in path.with_suffix(".md").read_text()
    assert build(Wanted(backbone="small", parts=path)).profile.sizes.patches == PATCH_COUNT


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Backbone]]:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    backbone = small_backbone(projected())
    write_onnx(backbone, graphs(SIZES)["backbone"], {"image": photos(128, 96, 2)}, path, opset=18)
    yield path, backbone


@pytest.mark.parametrize("engine", ["onnxruntime-fp32", "openvino-fp32"])
def test_the_exported_graph_agrees_with_torch(engine: str, exported: tuple[Path, Backbone]) -> None:
    path, backbone = exported
    graph = graphs(SIZES)["backbone"]
    sides = ((2, 128, 96), (1, 160, 224), (3, 64, 64))
    inputs = [Case(name=f"{b}x{h}x{w}", inputs={"image": photos(h, w, b)}, real=True) for b, h, w in sides]
    expected = [(case, eager(backbone, graph, case.inputs)) for case in inputs]
    counts = [out["patch_count"].max() for _, out in expected]
    assert counts[0] == counts[1] == PATCHES > counts[2] > 0
    agreement = check(graph, expected, run := ENGINES[engine](path))
    assert not agreement.failures("fp32")
    assert {"patch_codes", "patch_count", "patch_positions"} <= agreement.worst.keys()
    padded = run(inputs[2].inputs)
    for name in ("patch_codes", "patch_positions", "patch_scales"):
        assert not padded[name][:, counts[2] :].any()
