from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.export.build import Wanted, build
from landseer.export.models.checkpoints import Affine, Checkpoint, exponent, parsed
from landseer.export.models.folding import folded, learned_projection, network_projection
from landseer.export.models.pooling import gem, l2n
from landseer.export.models.torch_file import WeightsError, torch_file
from landseer.export.models.trunks import BACKBONES

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
LW = "retrieval-SfM-120k"
Contents = dict[str, Any]


class Published(nn.Module):
    """The network as the public code builds and runs it, written down again from its description."""

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(*list(resnet.children())[:-2])
        self.pool = nn.Module()
        self.pool.p = nn.Parameter(torch.ones(1) * 2.92)
        self.whiten = nn.Linear(2048, 2048)

    def forward(self, x: Tensor, *, whiten: bool) -> Tensor:
        """x: [1, 3, H, W] normalised → [2048]."""
        o = self.features(x)
        o = F.avg_pool2d(o.clamp(min=1e-6).pow(self.pool.p), (o.size(-2), o.size(-1))).pow(1.0 / self.pool.p)
        o = (o / (torch.norm(o, p=2, dim=1, keepdim=True) + 1e-6)).squeeze(-1).squeeze(-1)
        if whiten:
            o = self.whiten(o)
            o = o / (torch.norm(o, p=2, dim=1, keepdim=True) + 1e-6)
        return o[0]


def whitened(x: np.ndarray, lw: dict[str, np.ndarray], rows: int) -> np.ndarray:
    """Columns of x: [C, 1] → [rows, 1]."""
    y = lw["P"][:rows] @ (x - lw["m"])
    return y / (np.linalg.norm(y, axis=0, keepdims=True) + 1e-6)


@pytest.fixture(scope="module")
def network() -> Published:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        resnet = torchvision.models.resnet50()
        for module in resnet.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        net = Published(resnet).eval()
        # As it is initialised there: W = P, b = -P m.
        nn.init.orthogonal_(net.whiten.weight)
        net.whiten.weight.data *= torch.linspace(3, 0.1, 2048)[:, None]
        net.whiten.bias.data = -net.whiten.weight.data @ torch.full((2048,), 0.004)
    return net


def whitening(rows: int = 2048, columns: int = 2048, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {"m": np.full((columns, 1), 0.01), "P": generator.normal(size=(rows, columns)) / columns**0.5}


@pytest.fixture(scope="module")
def contents(network: Published) -> Contents:
    """A whole file: a network with its own whitening, and two learned after it."""
    meta = {
        "architecture": "resnet50",
        "local_whitening": False,
        "pooling": "gem",
        "regional": False,
        "whitening": True,
        "mean": MEAN,
        "std": STD,
        "outputdim": 2048,
        "Lw": {LW: {"ss": whitening(), "ms": whitening(rows=512, seed=1)}},
    }
    return {
        "epoch": 3,
        "meta": meta,
        "state_dict": network.state_dict(),
        "best_min_loss": np.float64(0.5),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-6}]},
    }


def without_whitening(contents: Contents) -> Contents:
    state = {key: value for key, value in contents["state_dict"].items() if not key.startswith("whiten.")}
    return {"meta": {**contents["meta"], "whitening": False}, "state_dict": state}


def read_checkpoint(path: Path) -> Checkpoint:
    return parsed(torch_file(path), path)


def saved(path: Path, contents: object, *, legacy: bool = False) -> Path:
    torch.save(contents, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.fixture(scope="module")
def file(contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("checkpoints") / "gl18-resnet50-gem-w.pth", contents)


@pytest.fixture(scope="module")
def plain(contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "resnet50-gem.pth"
    return saved(path, without_whitening(contents), legacy=True)


def picture() -> Tensor:
    return torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 255


def published(network: Published, *, whiten: bool) -> np.ndarray:
    x = (picture() / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    with torch.no_grad():
        return network(x, whiten=whiten).double().numpy()[:, None]


@pytest.fixture(scope="module")
def own_vectors(file: Path, plain: Path) -> dict[Path, Tensor]:
    """What our trunk and pooling make of each file, before any whitening. [1, 2048]."""
    with torch.no_grad():
        trunks = {path: BACKBONES["resnet50"].load(path, "auto").trunk for path in (file, plain)}
        return {path: l2n(gem(trunk(picture()), exponent(read_checkpoint(path)))) for path, trunk in trunks.items()}


def column(x: Tensor) -> np.ndarray:
    return x[0].double().numpy()[:, None]


def close(one: np.ndarray, other: np.ndarray) -> None:
    assert float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)) > 1 - 1e-8
    np.testing.assert_allclose(one, other, atol=2e-5)


def test_a_checkpoint_holds_what_was_saved(file: Path, contents: Contents) -> None:
    found = read_checkpoint(file)
    assert (found.architecture, found.pooling, found.regional) == ("resnet50", "gem", False)
    assert found.p == pytest.approx(2.92)
    assert (list(found.mean), list(found.std)) == (MEAN, STD)
    assert set(found.learned) == {(LW, "ss"), (LW, "ms")}
    np.testing.assert_array_equal(found.learned[LW, "ms"].matrix, contents["meta"]["Lw"][LW]["ms"]["P"])
    assert found.learned[LW, "ss"].mean.shape == (2048,)
    assert found.whitening is not None
    torch.testing.assert_close(found.whitening.bias, contents["state_dict"]["whiten.bias"], rtol=0, atol=0)
    torchvision_names = {key for key in torchvision.models.resnet50().state_dict() if not key.startswith("fc.")}
    assert set(found.trunk) == torchvision_names


def test_descriptors_are_those_of_the_public_code(
    file: Path, plain: Path, network: Published, own_vectors: dict[Path, Tensor]
) -> None:
    x, lw, found = own_vectors[plain], whitening(), read_checkpoint(plain)
    expected = published(network, whiten=False)
    assert network_projection(found) is None
    close(column(x), expected)
    close(column(learned_projection(found, f"{LW}:ss")(x)), whitened(expected, lw, 2048))
    close(column(learned_projection(found, f"{LW}:ss", size=64)(x)), whitened(expected, lw, 64))
    x, found = own_vectors[file], read_checkpoint(file)
    expected = published(network, whiten=True)
    own = network_projection(found)
    assert own is not None
    close(column(own(x)), expected)
    close(column(learned_projection(found, f"{LW}:ss")(own(x))), whitened(expected, lw, 2048))


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (3, 8)])
def test_a_bias_folds_into_the_mean(rows: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(5)
    affine = Affine(weight=torch.randn(rows, columns, generator=generator), bias=torch.randn(rows, generator=generator))
    x = torch.randn(20, columns, generator=generator)
    expected = l2n(x @ affine.weight.T + affine.bias)
    torch.testing.assert_close(folded(affine, Path("x"))(x), expected, rtol=0, atol=1e-5)


def test_a_bias_that_does_not_fold_is_refused() -> None:
    singular = Affine(weight=torch.tensor([[1.0, 0.0], [0.0, 0.0]]), bias=torch.tensor([0.0, 1.0]))
    with pytest.raises(WeightsError, match=r"does not fold into W \(x - m\)"):
        folded(singular, Path("x"))
    far = Affine(weight=torch.eye(2) * 1e-4, bias=torch.ones(2))
    with pytest.raises(WeightsError, match=r"got m of norm 1.41e\+04"):
        folded(far, Path("x"))


def test_a_checkpoint_is_a_trunk_with_its_own_colours(plain: Path, contents: Contents, tmp_path: Path) -> None:
    loaded = BACKBONES["resnet50"].load(plain, "auto")
    assert loaded.variant == "v1.5"
    assert loaded.source.startswith("resnet50-gem.pth, ResNet v1.5, sha256 ")
    assert BACKBONES["resnet50"].load(plain, "v1").variant == "v1"
    other = without_whitening(contents)
    other["meta"] = {**other["meta"], "mean": [0.5, 0.25, 0.125], "std": [0.5, 1.0, 0.25]}
    trunk = BACKBONES["resnet50"].load(saved(tmp_path / "other.pth", other), "auto").trunk
    assert trunk.mean.flatten().tolist() == [127.5, 63.75, 31.875]
    assert trunk.std.flatten().tolist() == [127.5, 255.0, 63.75]


def test_half_precision_and_data_parallel_are_read(contents: Contents, plain: Path, tmp_path: Path) -> None:
    half = without_whitening(contents)
    half["state_dict"] = {
        f"module.{key}": value.half() if value.is_floating_point() else value
        for key, value in half["state_dict"].items()
    }
    found, whole = read_checkpoint(saved(tmp_path / "half.pth", half)), read_checkpoint(plain)
    assert found.trunk.keys() == whole.trunk.keys()
    assert found.trunk["conv1.weight"].dtype == torch.float32
    assert found.p == pytest.approx(2.92, abs=1e-3)


SMALL: Contents = {
    "meta": {"architecture": "resnet101", "pooling": "gem", "mean": MEAN, "std": STD},
    "state_dict": {"features.0.weight": torch.zeros(1), "pool.p": torch.tensor([3.0])},
}
"""Enough to be read, not to be loaded."""


def small(meta: Contents | None = None, state: Contents | None = None) -> Contents:
    return {"meta": {**SMALL["meta"], **(meta or {})}, "state_dict": {**SMALL["state_dict"], **(state or {})}}


def test_regional_pooling_and_local_whitening_are_read_but_are_no_global_gem(tmp_path: Path) -> None:
    weight, bias = torch.eye(2048), torch.zeros(2048)
    state = {"features.0.weight": torch.zeros(1), "pool.rpool.p": torch.tensor([2.5])}
    for name in ("pool.whiten", "lwhiten", "whiten"):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    meta = {**SMALL["meta"], "regional": True, "local_whitening": True, "whitening": True}
    found = read_checkpoint(saved(tmp_path / "r.pth", {"meta": meta, "state_dict": state}))
    assert found.p == 2.5
    assert found.local_whitening is not None
    with pytest.raises(WeightsError, match=r"pools by gem with regional pooling with local whitening; expected global"):
        exponent(found)


@pytest.mark.parametrize(("pooling", "p"), [("spoc", 1.0), ("mac", None), ("rmac", None)])
def test_poolings_without_an_exponent(tmp_path: Path, pooling: str, p: float | None) -> None:
    state = {"features.0.weight": torch.zeros(1)}
    contents = {"meta": {**SMALL["meta"], "pooling": pooling}, "state_dict": state}
    found = read_checkpoint(saved(tmp_path / "p.pth", contents))
    assert found.p == p
    if p is None:
        with pytest.raises(WeightsError, match=f"pools by {pooling}; expected global gem or spoc"):
            exponent(found)


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        ([1, 2], "holds list without 'meta' and 'state_dict'; expected a file of cnnimageretrieval-pytorch"),
        ({"meta": {}, "state_dict": {}}, "'meta' lacks architecture, pooling, mean, std; expected"),
        (small({"architecture": "vgg16"}), "has architecture 'vgg16'; expected resnet50 or resnet101"),
        (small({"architecture": "alexnet"}), "has architecture 'alexnet'; expected resnet50 or resnet101"),
        (small({"pooling": "gemmp"}), "has pooling 'gemmp'; expected gem or spoc or mac or rmac"),
        (small({"whitening": True}), "lacks whiten.weight, which its 'meta' declares"),
        (small({"regional": True}), "lacks pool.rpool.p, which its 'meta' declares"),
        (small({"mean": [1, 2]}), r"got mean \[1, 2\]; expected three numbers"),
        (small({"mean": [124.0, 116.0, 103.0]}), r"expected three numbers, of RGB in 0..1"),
        (small({"std": [0, 0, 0]}), r"got std \[0, 0, 0\]; expected three numbers"),
        (small(state={"pool.p": torch.ones(2048)}), r"pool.p has shape \[2048\]; expected one exponent above 0"),
        (small(state={"pool.p": torch.zeros(1)}), r"pool.p has 0.0; expected one exponent above 0"),
        (small(state={"head.weight": torch.ones(1)}), "has 1 unknown weights, such as head.weight"),
        (small(state={"pool.p": 3.0}), "its 'state_dict' does not map names to tensors"),
        (small({"Lw": [1]}), "its Lw is not a dict of dicts"),
        (small({"Lw": {"d": {"m": 1}}}), r"got Lw\['d'\]\['m'\]; expected 'ss' and 'ms'"),
        (small({"Lw": {"d": {"ss": {"m": 1}}}}), r"Lw\['d'\]\['ss'\] is not \{'m': mean, 'P': matrix\}"),
        (small({"Lw": {"d": {"ss": whitening(2, 3)}}}), r"has m \[3\] and P \[2, 3\]; expected m \[2048\]"),
        (small({"Lw": {"d": {"ss": {"m": np.full((3, 1), np.nan), "P": 1}}}}), "numbers that are not finite"),
        (small({"Lw": {"d": {"ss": {"m": np.full((3, 1), 1j), "P": 1}}}}), "holds complex128; expected real numbers"),
    ],
)
def test_what_is_no_checkpoint_says_why(tmp_path: Path, contents: object, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        read_checkpoint(saved(tmp_path / "x.pth", contents))


def test_another_architecture_or_whitening_is_refused_by_name(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is a checkpoint of resnet50; expected resnet101"):
        BACKBONES["resnet101"].load(plain, "auto")
    with pytest.raises(WeightsError, match="has architecture 'vgg16'; expected resnet50 or resnet101"):
        BACKBONES["resnet50"].load(saved(tmp_path / "v.pth", small({"architecture": "vgg16"})), "auto")
    with pytest.raises(WeightsError, match="does not fit ResNet"):
        BACKBONES["resnet101"].load(saved(tmp_path / "s.pth", SMALL), "auto")
    with pytest.raises(WeightsError, match=f"no learned whitening {LW}; it has {LW}:ss, {LW}:ms"):
        learned_projection(read_checkpoint(plain), LW)
    with pytest.raises(WeightsError, match="got size 2049; expected 1 to 2048"):
        learned_projection(read_checkpoint(plain), f"{LW}:ss", size=2049)


# Nothing in a file is ever run.


class Evil:
    def __init__(self, function: Any, *arguments: object) -> None:
        self.parts = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["meta", "Lw", "state_dict"])
def test_a_checkpoint_never_runs_code(tmp_path: Path, legacy: bool, place: str) -> None:
    evil = Evil(os.mkdir, str(tmp_path / "made"))
    contents: Contents = {
        "meta": small({"mean": evil}),
        "Lw": small({"Lw": {"d": {"ss": {"m": evil, "P": np.eye(2)}}}}),
        "state_dict": small(state={"pool.p": evil}),
    }[place]
    path = saved(tmp_path / "evil.pth", contents, legacy=legacy)
    for read in (read_checkpoint, lambda path: BACKBONES["resnet101"].load(path, "auto")):
        with pytest.raises(WeightsError, match=r"references (posix|os)\.mkdir, which no weights need"):
            read(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "evil",
    [
        Evil(eval, "open('made', 'w')"),
        Evil(getattr, "text", "upper"),
        Evil(np.fromfile, "/etc/passwd", "u1"),
        Evil(np.load, "/etc/passwd"),
    ],
)
def test_only_what_makes_arrays_is_allowed(tmp_path: Path, legacy: bool, evil: Evil) -> None:
    with pytest.raises(WeightsError, match="which no weights need"):
        read_checkpoint(saved(tmp_path / "evil.pth", small({"mean": evil}), legacy=legacy))


def test_an_array_of_objects_brings_nothing_in(tmp_path: Path) -> None:
    array = np.array([Evil(os.mkdir, str(tmp_path / "made"))], dtype=object)
    with pytest.raises(WeightsError):
        read_checkpoint(saved(tmp_path / "evil.pth", small({"Lw": {"d": {"ss": {"m": array, "P": array}}}})))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [0, 10, 400, -30])
def test_a_file_cut_short_is_one_error(tmp_path: Path, legacy: bool, kept: int) -> None:
    path = saved(tmp_path / "x.pth", SMALL, legacy=legacy)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"is not a torch state dict: \S"):
        read_checkpoint(path)


def test_a_file_that_is_none_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file at"):
        read_checkpoint(tmp_path / "gone.pth")
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n(S'touch made'\ntR.")
    with pytest.raises(WeightsError, match="is not a torch state dict"):
        read_checkpoint(tmp_path / "x.pth")


def test_arrays_written_by_numpy_2_are_read(tmp_path: Path) -> None:
    """Its module has another name; the rest of the bytes are the same."""
    whole = io.BytesIO()
    lw = {"d": {"ss": {"m": np.zeros((2048, 1)), "P": np.ones((1, 2048), np.float32)}}}
    torch.save(small({"Lw": lw}), whole, _use_new_zipfile_serialization=False)
    renamed = whole.getvalue().replace(b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n")
    (tmp_path / "x.pth").write_bytes(renamed)
    assert read_checkpoint(tmp_path / "x.pth").learned["d", "ss"].matrix.shape == (1, 2048)


def test_the_exported_backbone_describes_as_the_public_code_does_over_scales(
    file: Path, network: Published, contents: Contents
) -> None:
    networks = build(Wanted(backbone="resnet50", weights=file, whitening=f"{LW}:ss"))
    assert networks.profile.descriptor == "gem" and "whitening" not in networks.profile.untrained
    pixels = torch.randint(0, 256, (1, 128, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    x = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    sizes = [(128, 96), *((int(128 * s), int(96 * s)) for s in (2**-0.5, 2**0.5))]
    with torch.no_grad():
        scaled = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for size in sizes]
        mean = torch.stack([network(one, whiten=True) for one in scaled]).mean(dim=0)
        got = networks.modules["backbone"](pixels).descriptor
    wanted = whitened((mean / (mean.norm() + 1e-6)).double().numpy()[:, None], contents["meta"]["Lw"][LW]["ss"], 2048)
    close(column(got), wanted)


def test_a_whitening_that_would_change_the_size_is_refused(file: Path) -> None:
    with pytest.raises(WeightsError, match="got size 2048; expected 1 to 512"):
        build(Wanted(backbone="resnet50", weights=file, whitening=f"{LW}:ms"))
    with pytest.raises(WeightsError, match="has its own GeM descriptor; got --descriptor cider"):
        build(Wanted(backbone="resnet50", weights=file, descriptor="cider"))


def test_trained_parts_beside_a_checkpoint_are_refused(file: Path) -> None:
    with pytest.raises(WeightsError, match="has its own descriptor; do not combine it with trained parts"):
        build(Wanted(backbone="resnet50", weights=file, parts=Path("mine.safetensors")))
