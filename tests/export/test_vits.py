"""Vision transformers: timm's own features, any size, the served graph, and files that do not fit."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.export import Dim
from torch.nn import functional as F

from landseer.export.build import Wanted, build, trunk_sha256
from landseer.export.datasets.photograph import Photograph
from landseer.export.engines import onnxruntime_fp32, openvino
from landseer.export.examples import photos
from landseer.export.models.torch_file import WeightsError
from landseer.export.models.trunk import Loaded, Maps
from landseer.export.models.trunks import BACKBONES
from landseer.export.models.vit_trunks import either_vit
from landseer.export.models.vits import VITS, ViT, cubic_weights, halves, resized_positions, whole_patches
from landseer.export.to_onnx import Names, Stage, _exported
from landseer.export.training.trunk_views import ViewSpec, trunk_views
from landseer.export.training.weights import write_weights

timm = pytest.importorskip("timm")

BY_NAME = {vit.name: vit for vit in VITS}
WIDTH, DEPTH = 128, 2
"""Heads of 64 values, as the published ones have. OpenVINO 2026.4 ends the process with heads of 12 on AVX2."""
VARIANTS = {"dinov2_vits14": "grid5", "dinov2_vits14_reg": "grid5", "dinov3_vits16": "unbiased"}
VARIANTS |= {"siglip2_vitb16": "grid4"}


def tiny(name: str) -> ViT:
    """The same code path, a thousandth of the weights."""
    smaller = {"embed_dim": WIDTH, "depth": DEPTH, "num_heads": 2}
    return dataclasses.replace(BY_NAME[name], name="tiny", width=WIDTH, depth=DEPTH, smaller=smaller)


def seeded(network: Any) -> Any:
    """Weights that let positions, registers and every block show in the tokens."""
    draw = torch.Generator().manual_seed(0)
    for name, weight in network.named_parameters():
        spread = weight[0].numel() ** -0.5 if weight.ndim > 1 and not name.endswith(("embed", "token")) else 0.3
        weight.data = spread * torch.randn(weight.shape, generator=draw)
        weight.data += float(name.endswith(("norm.weight", "norm1.weight", "norm2.weight")) or "gamma" in name)
    return network.eval()


def published(vit: ViT, variant: str) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in seeded(vit.network(variant)).state_dict().items()}


@pytest.fixture
def backbones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The smaller ones in place of the published."""
    for name in VARIANTS:
        monkeypatch.setitem(BACKBONES, name, either_vit(dataclasses.replace(tiny(name), name=name)))
    yield


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {}
    for name, variant in VARIANTS.items():
        made[name] = tmp_path / f"{name}.safetensors"
        save_file(published(tiny(name), variant), made[name], metadata={"format": "pt"})
    return made


def by_timm(network: Any, x: Tensor, patch: int) -> Tensor:
    tokens = network.forward_features(x)[:, network.num_prefix_tokens :]
    return halves(tokens.transpose(1, 2).unflatten(2, (x.shape[2] // patch, x.shape[3] // patch)))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_map_is_timms_patch_tokens_at_the_native_and_at_other_sizes(
    backbones: None, files: dict[str, Path], name: str
) -> None:
    vit, variant = tiny(name), VARIANTS[name]
    loaded = BACKBONES[name].load(files[name], "auto")
    assert loaded.variant == variant and loaded.trunk.channels == 2 * WIDTH
    sized = {"img_size": vit.patch * int(variant[4:])} if vit.positions else {}
    network = timm.create_model(vit.timm, num_classes=0, dynamic_img_size=True, **sized, **vit.smaller).eval()
    network.load_state_dict(published(vit, variant))
    for height, width in ((5, 5), (4, 4), (3, 7), (9, 2)):
        x = torch.rand(2, 3, height * vit.patch, width * vit.patch)
        with torch.no_grad():
            found, expected = loaded.trunk.features(x), by_timm(network, x, vit.patch)
        assert found.shape == (2, 2 * WIDTH, height, width)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_a_published_architecture_computes_what_timm_does(tmp_path: Path) -> None:
    vit = BY_NAME["dinov2_vits14"]
    state = published(vit, "grid37")
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save({**state, "mask_token": torch.zeros(1, 384)}, path)  # as its publishers' file has it
    loaded = BACKBONES[vit.name].load(path, "auto")
    network = timm.create_model(vit.timm, num_classes=0, img_size=518, dynamic_img_size=True).eval()
    network.load_state_dict(state)
    for height, width in ((37, 37), (8, 11)):
        x = torch.rand(1, 3, height * 14, width * 14)
        with torch.no_grad():
            found = loaded.trunk.features(x)
            torch.testing.assert_close(found, by_timm(network, x, 14), atol=1e-4, rtol=1e-4)


def test_pictures_are_resized_to_whole_patches() -> None:
    assert [whole_patches(torch.zeros(1, 3, side, 32), 14).shape[2] for side in (32, 34, 35, 640)] == [28, 28, 42, 644]
    x = torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(whole_patches(x, 16), x, atol=0, rtol=0)


@pytest.mark.parametrize(("side", "h", "w"), [(37, 37, 37), (37, 16, 46), (16, 40, 30), (14, 1, 80)])
def test_positions_are_resized_as_torch_does(side: int, h: int, w: int) -> None:
    places = torch.randn(1, side * side, 6)
    square = places.transpose(1, 2).unflatten(2, (side, side))
    expected = F.interpolate(square, size=(h, w), mode="bicubic", antialias=True).flatten(2).transpose(1, 2)
    torch.testing.assert_close(resized_positions(places, h, w), expected, atol=2e-5, rtol=1e-4)
    if (h, w) == (side, side):
        assert torch.equal(cubic_weights(side, side), torch.eye(side))


def test_halves_lose_nothing_and_keep_norms() -> None:
    x = torch.randn(2, 5, 3, 4)
    found = halves(x)
    assert (found >= 0).all() and torch.equal(found[:, :5] - found[:, 5:], x)
    torch.testing.assert_close(found.norm(dim=1), x.norm(dim=1))


@pytest.mark.parametrize("name", ["dinov2_vits14", "dinov3_vits16"])
def test_the_exported_trunk_takes_any_size(backbones: None, files: dict[str, Path], name: str, tmp_path: Path) -> None:
    """The whole graph, with the same head as other trunks, is checked by every export."""
    trunk = BACKBONES[name].load(files[name], "auto").trunk
    pictures, path = Names(["picture"], list(Maps._fields)), tmp_path / "model.onnx"
    every = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    onnx.save(_exported(Stage(trunk, "maps"), [torch.rand(2, 3, 96, 64)], [every], pictures, 18), path)
    for load in (onnxruntime_fp32, openvino("f32")):
        run = load(path)
        for shape in ((1, 3, 32, 32), (2, 3, 171, 222)):
            x = 255 * torch.rand(shape)
            with torch.no_grad():
                expected = trunk(x).numpy()
            np.testing.assert_allclose(run({"picture": x.numpy()})["last"], expected, atol=1e-3)


def test_each_has_its_own_normalisation() -> None:
    assert BY_NAME["siglip2_vitb16"].colours() == ((0.5,) * 3, (0.5,) * 3)
    for name in ("dinov2_vits14", "dinov3_vitb16"):
        assert BY_NAME[name].colours() == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("vit", VITS, ids=lambda vit: vit.name)
def test_timm_knows_the_architecture_and_the_published_weights(vit: ViT) -> None:
    # Of the published shape, in two blocks: the rest are the same again.
    network = dataclasses.replace(vit, smaller={"depth": 2}).network("grid16" if vit.positions else "unbiased")
    assert network.embed_dim == vit.width and network.patch_embed.patch_size == (vit.patch, vit.patch)
    assert network.num_prefix_tokens == vit.registers + vit.class_token
    assert (network.pos_embed is not None) == vit.positions
    assert timm.get_pretrained_cfg(vit.published).architecture in (vit.timm, vit.timm.replace("_gap", ""))


def by_meta(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename timm's weights as DINOv2's and DINOv3's publishers name them."""
    names = {"reg_token": "register_tokens" if "pos_embed" in state else "storage_tokens"}
    made = {names.get(name, name): value for name, value in state.items()}
    if "pos_embed" in state:
        # Theirs has a position for the class token, which timm adds to the token.
        made["pos_embed"] = torch.cat([torch.ones(1, 1, WIDTH), made["pos_embed"]], dim=1)
        made["cls_token"] = made["cls_token"] - 1
        return made | {"mask_token": torch.zeros(1, WIDTH)}
    for place in range(DEPTH):
        q, v = (made.pop(f"blocks.{place}.attn.{one}_bias") for one in "qv")
        made[f"blocks.{place}.attn.qkv.bias"] = torch.cat([q, torch.zeros(WIDTH), v])
        made[f"blocks.{place}.attn.qkv.bias_mask"] = torch.full((3 * WIDTH,), float("nan"))
        for one in (1, 2):
            made[f"blocks.{place}.ls{one}.gamma"] = made.pop(f"blocks.{place}.gamma_{one}")
    return made | {"rope_embed.periods": torch.ones(3), "mask_token": torch.zeros(1, WIDTH)}


@pytest.mark.parametrize(("name", "variant"), [("dinov2_vits14_reg", "grid5"), ("dinov3_vits16", "biased")])
def test_the_publishers_own_names_are_read(backbones: None, tmp_path: Path, name: str, variant: str) -> None:
    state = published(tiny(name), variant)
    mine, theirs = tmp_path / "timm.safetensors", tmp_path / "theirs.pth"
    save_file(state, mine)
    torch.save(by_meta(state), theirs)
    x = torch.rand(1, 3, 64, 96) * 255
    found = [BACKBONES[name].load(path, "auto") for path in (mine, theirs)]
    assert [one.variant for one in found] == [variant, variant]
    with torch.no_grad():
        torch.testing.assert_close(found[0].trunk(x), found[1].trunk(x))


def test_the_picture_half_of_an_openclip_file_is_read(backbones: None, files: dict[str, Path], tmp_path: Path) -> None:
    state = {f"visual.trunk.{name}": value for name, value in published(tiny("siglip2_vitb16"), "grid4").items()}
    state |= {"visual.trunk.attn_pool.latent": torch.zeros(1, 1, WIDTH), "text.token_embedding.weight": torch.zeros(3)}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    found = BACKBONES["siglip2_vitb16"].load(tmp_path / "open_clip_model.safetensors", "auto").trunk
    expected = BACKBONES["siglip2_vitb16"].load(files["siglip2_vitb16"], "auto").trunk
    torch.testing.assert_close(found.state_dict(), expected.state_dict(), atol=0, rtol=0)


def test_what_training_wrote_comes_back(backbones: None, files: dict[str, Path], tmp_path: Path) -> None:
    loaded = BACKBONES["dinov2_vits14"].load(files["dinov2_vits14"], "auto")
    path = tmp_path / "best.safetensors"
    state = {f"trunk.{name}": value + 1 for name, value in loaded.trunk.state_dict().items()}
    about = {"trunk": "dinov2_vits14 grid5", "method.head": "gem"}
    write_weights(state, path, epoch=1, measure="mAP", value=0.5, about=about)
    found = BACKBONES["dinov2_vits14"].load(path, "auto")
    assert found.trained is not None and found.variant == "grid5"
    torch.testing.assert_close(found.trunk.state_dict()["mean"], loaded.trunk.mean + 1)


def test_what_is_exported_has_no_patches_and_its_parts_are_untrained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # 528 channels: co-attention reduces to 512.
    smaller = {"embed_dim": 264, "depth": 1, "num_heads": 3}
    vit = dataclasses.replace(BY_NAME["dinov2_vits14"], width=264, depth=1, smaller=smaller)
    monkeypatch.setitem(BACKBONES, vit.name, either_vit(vit))
    save_file(published(vit, "grid3"), tmp_path / "one.safetensors")
    networks = build(Wanted(backbone=vit.name, weights=tmp_path / "one.safetensors"))
    assert networks.profile.sizes.channels == 528 and networks.profile.sizes.patches == 0
    assert networks.profile.descriptor == "gem"
    assert networks.profile.untrained == ("whitening", "reduction", "locals", "lattqe")
    assert networks.modules["detector"].rounds == 14  # a map of 114 x 114 cells


def test_views_have_as_many_cells_as_the_trunk_makes(backbones: None, files: dict[str, Path], tmp_path: Path) -> None:
    Image.fromarray(photos(96, 128, 1)[0]).save(tmp_path / "one.png")
    found = trunk_views(
        [Photograph(path=tmp_path / "one.png", label="one")],
        BACKBONES["dinov2_vits14"].load(files["dinov2_vits14"], "auto").trunk,
        fingerprint="some",
        spec=ViewSpec(side=96, views=2),
        folder=tmp_path / "views",
        precision="f32",
        progress=lambda done: None,
    )
    assert found.maps.shape == (1, 2, 2 * WIDTH, 7, 7) and found.side == 96  # 96 / 14 = 6.9


def refused(name: str, path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        BACKBONES[name].load(path, "auto")
    return str(caught.value)


def test_without_weights_it_says_which_to_get() -> None:
    with pytest.raises(WeightsError, match=r"pass those of vit_small_patch14_dinov2.lvd142m with --weights FILE"):
        BACKBONES["dinov2_vits14"].load(None, "auto")


def test_weights_of_another_transformer_are_named_with_the_backbone_they_fit(
    backbones: None, files: dict[str, Path], tmp_path: Path
) -> None:
    base = {"patch_embed.proj.weight": torch.zeros(768, 3, 16, 16), "pos_embed": torch.zeros(1, 256, 768)}
    base |= {f"blocks.{place}.norm1.weight": torch.zeros(768) for place in range(12)}
    save_file(base, tmp_path / "siglip.safetensors")
    said = refused("dinov2_vits14", tmp_path / "siglip.safetensors")
    assert "a transformer of 12 blocks, 768 wide, with patches of 16 pixels, 0 registers and learned positions" in said
    assert said.endswith("; pass --backbone siglip2_vitb16")
    assert "4 registers" in refused("dinov2_vits14", files["dinov2_vits14_reg"])
    assert "rotary positions" in refused("dinov2_vits14_reg", files["dinov3_vits16"])


def test_files_that_do_not_fit_say_why(backbones: None, files: dict[str, Path], tmp_path: Path) -> None:
    state, path = published(tiny("dinov2_vits14"), "grid5"), tmp_path / "some.safetensors"
    save_file({name: value for name, value in state.items() if name != "blocks.1.norm2.bias"}, path)
    assert "1 weights are missing (such as ['blocks.1.norm2.bias'])" in refused("dinov2_vits14", path)
    save_file({**state, "blocks.0.attn.extra": torch.zeros(1)}, path)
    assert "1 are unknown (such as ['blocks.0.attn.extra'])" in refused("dinov2_vits14", path)
    save_file({**state, "norm.weight": torch.zeros(3)}, path)
    assert "does not fit VisionTransformer: size mismatch for norm.weight" in refused("dinov2_vits14", path)
    save_file({**state, "pos_embed": torch.zeros(1, 28, WIDTH)}, path)
    assert "has 28 positions; expected those of a square grid" in refused("dinov2_vits14", path)
    save_file({"embeddings.patch_embeddings.projection.weight": torch.zeros(1)}, path)
    assert "has names of the library transformers" in refused("dinov2_vits14", path)
    save_file({"conv1.weight": torch.zeros(1)}, path)
    assert "has no patch_embed.proj.weight, but such as conv1.weight" in refused("dinov2_vits14", path)
    path.write_bytes(b"nothing")
    assert "cannot be read as safetensors" in refused("dinov2_vits14", path)
    assert "no weights file at" in refused("dinov2_vits14", tmp_path / "absent.safetensors")
    (tmp_path / "text.pth").write_text("nothing")
    assert "is not a torch state dict" in refused("dinov2_vits14", tmp_path / "text.pth")


def test_without_timm_it_says_what_to_install(
    backbones: None, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert re.search(r"need timm.*pip install 'landseer\[vit\]'", refused("dinov2_vits14", files["dinov2_vits14"]))


def test_a_copy_of_the_weights_is_another_network(backbones: None, files: dict[str, Path], tmp_path: Path) -> None:
    def loaded(path: Path) -> Loaded:
        return BACKBONES["dinov2_vits14"].load(path, "auto")

    state = published(tiny("dinov2_vits14"), "grid5")
    state["norm.bias"] = state["norm.bias"] + np.float32(0.1)
    save_file(state, tmp_path / "other.safetensors")
    first, again, other = files["dinov2_vits14"], files["dinov2_vits14"], tmp_path / "other.safetensors"
    assert trunk_sha256(loaded(first)) == trunk_sha256(loaded(again)) != trunk_sha256(loaded(other))
