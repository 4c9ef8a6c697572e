import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from landseer.export.build import (
    OF_ANY_HEAD,
    PATCHES,
    Wanted,
    build,
    find_parts,
    own_parts,
    trunk_sha256,
    untrained_head,
)
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunk import Loaded
from landseer.export.models.trunks import BACKBONES
from landseer.export.parts import SHIPPED, Parts, read_parts, shipped, write_parts


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return BACKBONES["efficientnet_lite0"].load(None, "auto")


@pytest.fixture(scope="module")
def parts(loaded: Loaded) -> Parts:
    head = untrained_head("cider", 1280)
    torch.nn.init.constant_(head.get_parameter("localisation.attend.bias"), 0.25)
    return Parts(
        backbone="efficientnet_lite0",
        trunk_sha256=trunk_sha256(loaded),
        descriptor="cider",
        learned=("attention", "whitening"),
        tensors={f"head.{k}": v for k, v in head.state_dict().items()},
        card={"seed": 7},
    )


def test_parts_come_back_as_they_were_but_for_half_precision(parts: Parts, tmp_path: Path) -> None:
    write_parts(parts, tmp_path / "a.safetensors")
    back = read_parts(tmp_path / "a.safetensors")
    assert dataclasses.replace(back, tensors={}) == dataclasses.replace(parts, tensors={})
    assert back.tensors.keys() == parts.tensors.keys()
    for name, x in parts.tensors.items():
        torch.testing.assert_close(back.tensors[name], x, rtol=1e-3, atol=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_the_export_takes_parts_of_ones_own(parts: Parts, tmp_path: Path) -> None:
    write_parts(parts, tmp_path / "a.safetensors")
    networks = build(Wanted(backbone="efficientnet_lite0", parts=tmp_path / "a.safetensors"))
    assert networks.profile.descriptor == "cider"
    # What depends on the trunk alone is the shipped one if the file lacks it.
    assert networks.profile.untrained == ("lattqe",)
    head = networks.modules["backbone"].get_submodule("head")
    assert head.get_parameter("localisation.attend.bias").item() == 0.25


def test_by_default_the_head_of_two_maps_comes_with_what_the_others_share(loaded: Loaded) -> None:
    files = {head: read_parts(path) for head, path in shipped(trunk_sha256(loaded)).items()}
    assert set(files) == {"two-map", "cider"}
    for asked, head in ((None, "two-map"), ("cider", "cider")):
        found = find_parts(loaded, Wanted(backbone="efficientnet_lite0", descriptor=asked))
        assert found is not None and found.descriptor == head
        assert set(found.learned) == {*files[head].learned, *OF_ANY_HEAD, PATCHES}
        for section in ("head", "whitening"):
            assert found.section(section).keys() == files[head].section(section).keys()
        for section in (*OF_ANY_HEAD, PATCHES):
            mine, theirs = found.section(section), files["cider"].section(section)
            assert mine and all(torch.equal(value, theirs[name]) for name, value in mine.items())


def test_what_parts_of_ones_own_have_is_kept(parts: Parts, loaded: Loaded, tmp_path: Path) -> None:
    own = {"reduction.mean": torch.full((1280,), 0.5), "reduction.matrix": torch.zeros(512, 1280)}
    mine = dataclasses.replace(parts, learned=("reduction",), tensors=own)
    write_parts(mine, tmp_path / "a.safetensors")
    found = find_parts(loaded, Wanted(backbone="efficientnet_lite0", parts=tmp_path / "a.safetensors"))
    assert found is not None and torch.equal(found.section("reduction")["mean"], own["reduction.mean"])
    assert found.section("locals") and not found.section("whitening")
    # As they are, without the shipped ones: what a section is added to.
    assert own_parts(tmp_path / "a.safetensors", loaded, None).learned == ("reduction",)


def test_parts_of_another_trunk_are_refused(parts: Parts, loaded: Loaded, tmp_path: Path) -> None:
    write_parts(dataclasses.replace(parts, trunk_sha256="0" * 64), tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="was trained on other weights of efficientnet_lite0"):
        find_parts(loaded, Wanted(backbone="efficientnet_lite0", parts=tmp_path / "a.safetensors"))


def test_parts_of_another_head_are_refused(parts: Parts, loaded: Loaded, tmp_path: Path) -> None:
    write_parts(parts, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="holds a cider head; got --descriptor gem"):
        find_parts(loaded, Wanted(backbone="efficientnet_lite0", descriptor="gem", parts=tmp_path / "a.safetensors"))


@pytest.mark.parametrize("kind", ["gem", "rmac", "rmac-rpn"])
def test_another_descriptor_takes_the_shipped_parts_that_depend_on_the_trunk_alone(loaded: Loaded, kind: str) -> None:
    there = shipped(trunk_sha256(loaded), SHIPPED)
    assert kind not in there
    networks = build(Wanted(backbone="efficientnet_lite0", descriptor=kind))
    default = build(Wanted(backbone="efficientnet_lite0"))
    profile = networks.profile
    assert profile.descriptor == kind
    assert not {*OF_ANY_HEAD, PATCHES} & set(profile.untrained)
    assert profile.sizes.patches and profile.patches_sha256 == default.profile.patches_sha256
    assert profile.locals_sha256 == default.profile.locals_sha256
    mine, others = networks.modules["backbone"], default.modules["backbone"]
    for name in (*OF_ANY_HEAD, PATCHES):
        expected = others.get_submodule(name).state_dict()
        assert all(torch.equal(x, expected[key]) for key, x in mine.get_submodule(name).state_dict().items())
    assert "trained: reduction, locals" in networks.source


def test_without_parts_for_the_default_head_the_descriptor_is_gem(
    parts: Parts, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = read_parts(shipped(trunk_sha256(loaded))["cider"])
    folder = tmp_path / "trained"
    write_parts(dataclasses.replace(default, descriptor="rmac"), folder / "of_rmac.safetensors")
    monkeypatch.setattr("landseer.export.build.shipped", lambda trunk: shipped(trunk, folder))
    found = find_parts(loaded, Wanted(backbone="efficientnet_lite0"))
    assert found is not None and found.descriptor == "gem" and not found.section("head")
    assert find_parts(dataclasses.replace(loaded, variant="other"), Wanted(backbone="efficientnet_lite0")) is None


def test_parts_that_do_not_fit_say_why(parts: Parts) -> None:
    odd = dataclasses.replace(parts, tensors={"head.pool.q": torch.zeros(1)})
    with pytest.raises(WeightsError, match="the trained head does not fit a cider head"):
        odd.fill("head", untrained_head("cider", 1280))


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", None])
def test_what_is_no_file_of_parts_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    if content is None:
        save_file({"x": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.safetensors"):
        read_parts(path)


def test_a_learned_whitening_needs_a_checkpoint_that_has_one() -> None:
    with pytest.raises(WeightsError, match="not a checkpoint of cnnimageretrieval-pytorch"):
        build(Wanted(backbone="efficientnet_lite0", descriptor="gem", whitening="x:ms"))
