from __future__ import annotations

import csv
import itertools
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from landseer.client import cli
from landseer.ensemble.inference.contracts import Sizes
from landseer.export.build import Wanted, build, find_parts, load_descriptor, own_parts, trunk_sha256
from landseer.export.datasets.photograph import Photograph
from landseer.export.datasets.sfm import Pair
from landseer.export.lattqe_file import learned_on, read_lattqe
from landseer.export.models.heads import HEADS
from landseer.export.models.mean_lattqe import MeanLAttQE
from landseer.export.models.pooling import random_rows
from landseer.export.models.trained import backbone_of
from landseer.export.models.trained_trunk import or_trained
from landseer.export.models.trunk import BackboneKind, Loaded, Trunk
from landseer.export.models.trunks import BACKBONES, DEFAULT_BACKBONE
from landseer.export.parts import Parts, write_parts
from landseer.export.training import coattending, instance_tuning, look_alike_views, paired_views
from landseer.export.training.expansion import ExpansionRecipe
from landseer.export.training.lattqe import Form
from landseer.export.training.look_alike_views import LookAlikes
from landseer.export.training.recipes import METHODS
from landseer.export.training.weights import write_weights
from landseer.ops.commands import train as command
from landseer.ops.train import instances, split, train_coattention, train_instance
from landseer.ops.train import train_lattqe as lattqe

SMALL = ("--side", "64", "--epochs", "1", "--batch", "4", "--device", "cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six classes of three patterns each, and a file that is no picture."""
    folder, draw = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for number in range(6):
        pattern = draw.integers(0, 255, (6, 6, 3)).astype(np.uint8)
        for place in range(3):
            path = folder / f"class{number}" / f"{place}.png"
            path.parent.mkdir(exist_ok=True)
            pixels = cv2.resize(pattern, (80, 64), interpolation=cv2.INTER_CUBIC)
            Image.fromarray(np.clip(pixels + draw.normal(scale=9, size=pixels.shape), 0, 255).astype(np.uint8)).save(
                path
            )
    (folder / "class0" / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(*arguments) -> int:
    return cli.main(["train", *map(str, arguments)])


def test_it_writes_weights_curves_state_and_a_card(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("cider", f"folder:{data}", "--out", out, *SMALL, "--log-every", "1") == 0
    assert {path.name for path in out.iterdir()} == {
        "best.safetensors",
        "curves.csv",
        "curves.png",
        "state.pt",
        "README.md",
    }
    told = capsys.readouterr().err
    assert "training: 12 photographs of 4 classes" in told and "validation: 6 photographs of 2 classes" in told
    assert "broken.jpg" in told and "before the first step: validation (leave-one-out mAP, %)" in told
    with (out / "curves.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["step"] for row in rows if row["loss"]] == ["1", "2", "3"]
    text = (out / "README.md").read_text()
    for part in (f"landseer train cider folder:{data} --out {out}", "--log-every 1", "| seed | 0 |", "broken.jpg"):
        assert part in text
    best = max(float(row["validation"]) for row in rows if row["validation"])
    assert f"| {best:.2f} |" in text
    assert Image.open(out / "curves.png").size[0] > 400
    # The weights are those of the trunk and the head that are served.
    trunk, head = BACKBONES["efficientnet_lite0"].load(None, "auto").trunk, HEADS["cider"].make(1280, 32)
    with safe_open(out / "best.safetensors", framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, module in (("trunk", trunk), ("head", head)):
        module.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})
    # Twice into one folder is an error, going on with what is done none.
    assert run("cider", f"folder:{data}", "--out", out, *SMALL, "--log-every", "1") == 1
    assert "already holds a training; continue it with --resume" in capsys.readouterr().err
    assert run("cider", f"folder:{data}", "--out", out, *SMALL, "--log-every", "1", "--resume") == 0
    assert "finished before, 1 of 1 epochs: best validation (leave-one-out mAP, %)" in capsys.readouterr().err
    assert run("cider", f"folder:{data}", "--out", out, *SMALL, "--seed", "1", "--resume") == 1
    assert "settings.seed was 0, is 1" in capsys.readouterr().err


def test_two_stages_and_a_named_validation_set(data, tmp_path, capsys):
    training, held = tmp_path / "training", tmp_path / "held"
    for folder, numbers in ((training, (0, 1, 2)), (held, (3, 4))):
        for number in numbers:
            (folder / f"class{number}").mkdir(parents=True)
            for path in (data / f"class{number}").glob("*.png"):
                (folder / f"class{number}" / path.name).write_bytes(path.read_bytes())
    arguments = ("cider-ft", f"folder:{training}", "--validate", f"folder:{held}", "--out", tmp_path / "run", *SMALL)
    assert run(*arguments) == 0
    assert (tmp_path / "run/trunk/best.safetensors").is_file() and (tmp_path / "run/best.safetensors").is_file()
    text = (tmp_path / "run/README.md").read_text()
    assert "## Stage trunk" in text and "## Stage head" in text
    # As if it had been stopped between the stages.
    kept = (tmp_path / "run/best.safetensors").read_bytes()
    (tmp_path / "run/state.pt").unlink()
    assert run(*arguments, "--resume") == 0
    assert (tmp_path / "run/best.safetensors").read_bytes() == kept
    assert run("cider", f"folder:{data}", "--validate", f"folder:{held}", "--out", tmp_path / "no", *SMALL) == 1
    assert "share 2 classes" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(data, tmp_path, capsys):
    for method in METHODS:
        assert run(method, f"folder:{data}", "--out", tmp_path / "run", *SMALL, "--dry-run") == 0
        assert "stage" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def landmarks(tmp_path):
    """Google Landmarks in its layout, of five landmarks that are left and one that an evaluation set has, too."""
    images, lines, number = tmp_path / "gld/train", ["landmark_id,images"], 0
    for landmark in range(6):
        names = []
        for _ in range(4):
            number += 1
            names.append(f"{number:03x}{'e' * 13}")
            path = images / names[-1][0] / names[-1][1] / names[-1][2] / f"{names[-1]}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(landmark).integers(0, 255, (48, 64, 3)).astype(np.uint8)
            Image.fromarray(noise).save(path)
        lines.append(f"{landmark},{' '.join(names)}")
    (tmp_path / "gld/train_clean.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "gld/seen.txt").write_text("5  # in Revisited Oxford\n")
    return tmp_path / "gld"


@pytest.fixture
def reconstructions(tmp_path):
    """Retrieval-SfM in its layout: two reconstructions to train on, and two to validate on."""
    root, known = tmp_path / "retrieval-SfM-120k", {}
    for number, part in enumerate(("train", "val")):
        cids = [f"{'ab' * 13}{number:02d}{row:04d}" for row in range(8)]
        for row, cid in enumerate(cids):
            path = root / "ims" / cid[-2:] / cid[-4:-2] / cid[-6:-4] / cid
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng((number, row // 4)).integers(0, 255, (48, 64, 3)).astype(np.uint8)
            Image.fromarray(noise).save(path, format="JPEG")
        pairs = {"qidxs": list(range(8)), "pidxs": [row ^ 1 for row in range(8)]}
        known[part] = {"cids": cids, "cluster": [row // 4 for row in range(8)], **pairs}
    (root / "retrieval-SfM-120k.pkl").write_bytes(pickle.dumps(known))
    return tmp_path


def tried(capsys, *arguments) -> str:
    assert run(*arguments, "--dry-run", "--try-steps", "1", "--side", "64", "--device", "cpu") == 0
    return " ".join(capsys.readouterr().err.split())


def test_the_recipe_for_landmarks_is_tried_without_keeping_anything(landmarks, tmp_path, capsys):
    data = f"gld:{landmarks}/train_clean.csv,{landmarks}/train,without={landmarks}/seen.txt"
    told = tried(capsys, "cider", data, "--out", tmp_path / "run", "--batch", "4")
    assert "training: 12 photographs of 3 classes" in told and "validation: 8 photographs of 2 classes" in told
    assert re.search(r"stage cider: [\d.]+ s a step \(mean of 1 after a first\); 30 epochs of 3 steps: ", told)
    assert re.search(r"memory at most [\d.]+ GiB; checkpoint [\d]+ MiB", told)
    told = tried(capsys, "cider-ft", data, "--out", tmp_path / "run", "--batch", "4")
    assert "stage trunk: " in told and "stage head: " in told
    assert not (tmp_path / "run").exists()


def test_the_recipe_for_reconstructions_is_tried_with_their_pairs(reconstructions, tmp_path, capsys):
    name = f"sfm:{reconstructions},retrieval-SfM-120k"
    told = tried(
        capsys, "contrastive", f"{name},train", "--validate", f"{name},val", "--out", tmp_path / "run", "--tuples", "10"
    )
    assert "training: 8 photographs of 2 classes" in told and "validation: 8 photographs of 2 classes" in told
    assert re.search(r"stage contrastive: .* to mine before each epoch; 30 epochs of 2 steps: ", told)
    assert not (tmp_path / "run").exists()


def test_every_method_has_a_line_of_help():
    assert command.METHODS.keys() == METHODS.keys() | {"lattqe", "coattention", "instance"}
    assert {stage.head for stages in METHODS.values() for stage in stages} <= {*HEADS, "rpn", "ssdlite", "faster_rcnn"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cider", "folder:nowhere"), "nowhere is not a folder"),
        (("cider", "DATA", "--resume"), "to resume from; start without --resume"),
        (("cider", "DATA", "--backbone", "vgg"), "got backbone vgg; expected one of"),
        (("cider", "DATA", "--weights", "no.pth"), "no weights file at no.pth"),
        (("cider", "DATA", "--validate", "some"), "expected a share of the classes"),
        (("lattqe", "DATA", "--descriptor", "best"), "got descriptor best; expected one of gem, rmac"),
        (("cider", "DATA", "--parts", "mine.safetensors"), "got --parts for cider; only lattqe takes them"),
        (("cider", "DATA", "--validate", "0"), "expected a share above 0"),
        (("cider", "DATA", "--try-steps", "2"), "got --try-steps without --dry-run"),
        (
            ("cider", "DATA", "--paste", "targets"),
            "got --paste targets for cider; expected it with one of rpn, ssdlite",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(data, tmp_path, capsys, arguments, said):
    words = [word.replace("DATA", f"folder:{data}") for word in arguments]
    assert run(*words, "--out", tmp_path / "run", *SMALL) == 1
    last = [line for line in capsys.readouterr().err.splitlines() if line.startswith("landseer train:")]
    assert len(last) == 1 and said in last[0]


@pytest.mark.parametrize(
    ("option", "said"), [(("--side", "20"), "64 to 1600"), (("--rate", "-1"), "above 0"), (("--seed", "x"), "whole")]
)
def test_options_that_make_no_sense_end_with_2(data, tmp_path, capsys, option, said):
    with pytest.raises(SystemExit) as ended:
        run("cider", f"folder:{data}", "--out", tmp_path, *option)
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(data, tmp_path):
    out = tmp_path / "run"
    words = ["train", "contrastive", f"folder:{data}", "--out", str(out), *SMALL, "--epochs", "500"]
    process = subprocess.Popen(
        [sys.executable, "-m", "landseer.client.cli", *words],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 90
    while not _validated(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"stopped; the state is saved in {out / 'state.pt'}" in said
    again = said.splitlines()[-1].strip()
    assert again.startswith("landseer train contrastive") and again.endswith("--resume")
    assert run("contrastive", f"folder:{data}", "--out", out, *SMALL, "--epochs", "2", "--resume") == 1


def _validated(out: Path) -> bool:
    return (out / "curves.csv").is_file() and len((out / "curves.csv").read_text().splitlines()) > 3


def test_pairs_that_were_verified_are_the_positives(monkeypatch):
    names = [Photograph(path=Path(name), label="train/1") for name in "abcd"]
    pairs = [Pair(query=Path(q), positive=Path(p)) for q, p in ("ab", "ac", "da", "ax")]
    monkeypatch.setattr(split, "sfm_pairs", lambda rest: pairs)
    assert split.positives("sfm:root,name", names) == {0: [1, 2], 3: [0]}
    assert split.positives("folder:root", names) is None


@pytest.mark.usefixtures("eager_trunk")
def test_query_expansion_is_trained_on_the_descriptors_that_are_served(data, tmp_path, capsys, monkeypatch):
    small = Form(recipe=ExpansionRecipe(steps=3, validated=2, validated_at=(1, 2)))
    monkeypatch.setattr(lattqe, "learn", partial(lattqe.learn, form=small))
    monkeypatch.setattr(lattqe, "VECTORS", tmp_path / "vectors")
    for name, value in (("SIDE", 96), ("VIEWED", 7), ("TARGETS", 6), ("VIEWS", 2), ("OF_A_CLASS", 2)):
        monkeypatch.setattr(instances, name, value)
    out = tmp_path / "run"
    assert run("lattqe", f"folder:{data}", "--out", out, "--epochs", "1") == 0
    told = capsys.readouterr().err
    assert "broken.jpg" in told and "efficientnet_lite0_instance, R-MAC grid beside GeM" in told
    assert "12 of 6 things (targets), 14 of 7 things (views), 12 of 6 things (photographs)" in told
    network = read_lattqe(out / "lattqe.safetensors", Sizes(channels=99))
    assert isinstance(network, MeanLAttQE) and len(network.networks) == 3
    assert learned_on(out / "lattqe.safetensors") == load_descriptor(Wanted(backbone=DEFAULT_BACKBONE)).sha256
    card = json.loads((out / "README.md").read_text().split("```json")[1].split("```")[0])
    assert "landseer train lattqe" in card["command"] and card["network"] == "the mean of 3"
    assert card["validation"] == pytest.approx(np.mean(card["of which by part"]), abs=0.011)
    assert f"validation mAP {card['validation']:.2f}, no expansion {card['validation before']:.2f}" in told
    assert f"--method lattqe:4:{card['temperature of LAttDBA']:g}" in told
    assert "training, validated by part 2 of 3 of the things" in told
    parts = [out / f"part-{part}" for part in (1, 2, 3)]
    assert all((part / "curves.png").is_file() for part in parts)
    assert run("lattqe", f"folder:{data}", "--out", out, "--epochs", "1") == 1
    assert "holds a training; resume it with --resume" in capsys.readouterr().err
    written = load_file(out / "lattqe.safetensors")
    (parts[-1] / "state.pt").unlink()
    assert run("lattqe", f"folder:{data}", "--out", out, "--epochs", "1", "--resume") == 0
    told = capsys.readouterr().err
    assert told.count("finished before, 1 of 1 epochs: best validation") == 2 and "0/?" not in told
    again = load_file(out / "lattqe.safetensors")
    assert all(torch.equal(again[name], value) for name, value in written.items())
    for place in (tmp_path / "before", tmp_path / "forms" / "lattqe"):
        place.mkdir(parents=True)
        (place / "state.pt").touch()
    for name in ("before", "forms"):
        assert run("lattqe", f"folder:{data}", "--out", tmp_path / name, "--epochs", "1", "--resume") == 1
        assert f"{name} holds a training of an earlier version" in capsys.readouterr().err
    assert run("lattqe", f"folder:{data}", "--out", tmp_path / "none", "--dry-run") == 0
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("eager_trunk")
def test_query_expansion_is_trained_for_a_trunk_and_parts_of_ones_own(data, tmp_path, capsys, monkeypatch):
    load = or_trained("small", small_trunk, lambda variant: small_trunk(None, "auto").trunk, "one")
    monkeypatch.setitem(BACKBONES, "small", BackboneKind(channels=40, load=load))
    small = Form(recipe=ExpansionRecipe(steps=3, validated=2, validated_at=(1, 2)))
    monkeypatch.setattr(lattqe, "learn", partial(lattqe.learn, form=small))
    monkeypatch.setattr(lattqe, "VECTORS", tmp_path / "vectors")
    for name, value in (("SIDE", 96), ("VIEWED", 7), ("TARGETS", 6), ("VIEWS", 2), ("OF_A_CLASS", 2)):
        monkeypatch.setattr(instances, name, value)
    weights, parts = tmp_path / "best.safetensors", tmp_path / "parts.safetensors"
    trunk = small_trunk(None, "auto").trunk
    trunk.features[1][0].weight.data += 0.1
    state = {f"trunk.{name}": value for name, value in trunk.state_dict().items()}
    write_weights(state, weights, epoch=1, measure="mAP", value=1.0, about={"trunk": "small one"})
    whitening = {"whitening.mean": torch.full((40,), 0.05), "whitening.matrix": random_rows(40, 40, seed=0)}
    about = {"backbone": "small", "trunk_sha256": trunk_sha256(BACKBONES["small"].load(weights, "auto"))}
    write_parts(Parts(**about, descriptor="gem", learned=("whitening",), tensors=whitening, card={"seed": 0}), parts)

    given = ("lattqe", f"folder:{data}", "--weights", weights, "--parts", parts, "--epochs", "1", "--out")
    assert run(*given, tmp_path / "run", "--dry-run") == 0
    how = f"small, GeM + learned whitening, weights {weights}, parts {parts}"
    assert f"by {how}, and write lattqe.safetensors" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert run(*given, tmp_path / "run") == 0
    told, file = capsys.readouterr().err, tmp_path / "run" / "lattqe.safetensors"
    export = f"python export/all.py --backbone small --weights {weights} --parts {parts} --lattqe {file}"
    assert how in told and f"export with: {export}" in told
    assert how in (tmp_path / "run" / "README.md").read_text()
    networks = build(Wanted(backbone="small", weights=weights, parts=parts, lattqe=file))
    assert "lattqe" not in networks.profile.untrained and networks.profile.descriptor == "gem"

    # What does not fit is said before anything is described.
    other = ("lattqe", f"folder:{data}", "--backbone", "small", "--parts", parts, "--out", tmp_path / "other")
    assert run(*other, "--dry-run") == 1
    assert "pass the weights it was trained on with --weights" in capsys.readouterr().err
    assert run(*given, tmp_path / "other", "--descriptor", "rmac") == 1
    assert "holds a gem head; got --descriptor rmac" in capsys.readouterr().err
    assert run(*given, tmp_path / "other", "--whitening", "retrieval-SfM-120k:ms") == 1
    assert "only those have learned whitening" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_query_expansion_refuses_what_it_would_not_heed(data, tmp_path, capsys):
    out = tmp_path / "run"
    assert run("lattqe", f"folder:{data}", "--out", out, "--batch", "8", "--bf16", "--device", "auto") == 1
    assert "got --batch, --bf16 for lattqe, which takes only --out, " in capsys.readouterr().err
    assert not out.exists()


def test_query_expansion_needs_classes_to_hold_out(data, tmp_path, capsys):
    assert run("lattqe", f"folder:{data / 'class1'}", "--out", tmp_path / "run", "--dry-run") == 1
    assert "cannot learn to expand from 1 classes" in capsys.readouterr().err
    assert run("lattqe", f"folder:{data / 'class1'}", "--out", tmp_path / "run") == 1
    assert "cannot learn to expand from 1 classes" in capsys.readouterr().err


def test_proposals_learn_from_flat_targets(data, tmp_path, capsys):
    given = ("rpn", f"folder:{data}", "--out", tmp_path / "run", *SMALL, "--paste", "targets", "--dry-run")
    assert run(*given) == 0
    capsys.readouterr()
    assert run(*given[:-1]) == 0
    assert "--paste targets" in (tmp_path / "run/README.md").read_text()
    assert "| method.pasted | targets |" in (tmp_path / "run/README.md").read_text()
    assert run(*given[:-3], "--resume") == 1
    assert "method.pasted was targets, is photographs" in capsys.readouterr().err


def small_trunk(weights: Path | None, stride: str) -> Loaded:
    """A trunk of two convolutions, the second of which is its last block."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        front, back = nn.Conv2d(3, 8, 32, stride=32), nn.Sequential(nn.Conv2d(8, 40, 1), nn.ReLU())
    features, shape = nn.Sequential(front, back), {"channels": 40, "mean": (127.0,) * 3, "std": (60.0,) * 3}
    trunk = Trunk(features=features, classifier=nn.Identity(), split=lambda: (front, back), **shape)
    return Loaded(trunk=trunk.eval(), source="seeded", variant="one")


@pytest.mark.usefixtures("eager_trunk")
def test_the_last_blocks_are_trained_into_weights_that_export_and_training_take(data, tmp_path, capsys, monkeypatch):
    load = or_trained("small", small_trunk, lambda variant: small_trunk(None, "auto").trunk, "one")
    monkeypatch.setitem(BACKBONES, "small", BackboneKind(channels=40, load=load))
    monkeypatch.setattr(train_instance, "MAPS", tmp_path / "maps")
    monkeypatch.setattr(train_instance, "LookAlikes", partial(LookAlikes, families=(2, 1, 1), most=(3, 2, 2)))
    for module, name, value in (
        (look_alike_views, "SIDE", 96),
        (look_alike_views, "FEWEST", 5),
        (instance_tuning, "STEPS", 3),
        (instance_tuning, "CROPPED", 1),
        (instance_tuning, "fine_values", lambda channels: 8),
    ):
        monkeypatch.setattr(module, name, value)
    count = itertools.count()
    monkeypatch.setattr(instance_tuning.InstanceTuning, "validate", lambda self: float(next(count)))
    out = tmp_path / "run"
    given = ("instance", f"folder:{data}", "--out", out, "--epochs", "2", "--log-every", "1", "--backbone", "small")
    assert run(*given, "--dry-run") == 0 and not out.exists()
    told = " ".join(capsys.readouterr().err.split())
    assert "last blocks of small on drawn covers and at most 820 of 19 photographs" in told
    assert run(*given) == 0
    told = capsys.readouterr().err
    weights = out / "best.safetensors"
    assert "drawn covers and 7 photographs: learning from 11 of them" in " ".join(told.split())
    assert "broken.jpg" in told and f"--weights {weights} --train folder:{data}" in " ".join(told.split())
    text = (out / "README.md").read_text()
    assert "landseer train instance" in text and "small, seeded" in text and "mAP" in text
    with safe_open(weights, framework="pt") as file:
        about = json.loads(file.metadata()["landseer"])
    assert about["trunk"] == "small one" and backbone_of(weights) == "small"
    assert about["epoch"] == 2
    loaded = BACKBONES["small"].load(weights, "auto")
    assert loaded.trained is None
    first = small_trunk(None, "auto").trunk.state_dict()["features.1.0.weight"]
    assert not torch.allclose(loaded.trunk.state_dict()["features.1.0.weight"], first, atol=1e-4)
    assert run(*given) == 1
    assert "already holds a training; continue it with --resume" in capsys.readouterr().err
    assert run(*given, "--resume") == 0
    assert run(*given, "--bf16") == 1
    assert "got --bf16 for instance, which takes only --out, " in capsys.readouterr().err
    monkeypatch.setattr(look_alike_views, "FEWEST", 50)
    assert run(*given[:3], tmp_path / "few", "--backbone", "small") == 1
    assert "got 18 photographs; expected at least 50" in capsys.readouterr().err


@pytest.mark.usefixtures("eager_trunk")
def test_coattention_is_trained_into_parts_that_export_takes(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_coattention, "POOLS", tmp_path / "pools")
    monkeypatch.setattr(paired_views, "SIDE", 96)
    monkeypatch.setattr(coattending, "FEWEST", 2)
    out = tmp_path / "run"
    given = ("coattention", f"folder:{data}", "--out", out, "--pool", "8", "--epochs", "2", "--log-every", "1")
    assert run(*given, "--dry-run") == 0 and not out.exists()
    assert run(*given) == 0
    told = capsys.readouterr().err
    assert "broken.jpg" in told and "8 photographs and 8 drawn targets, two pictures of each" in told
    assert f"--parts {out / 'parts.safetensors'}" in told
    loaded = BACKBONES[DEFAULT_BACKBONE].load(None, "auto")
    parts = own_parts(out / "parts.safetensors", loaded, "two-map")
    ships = find_parts(loaded, Wanted(backbone=DEFAULT_BACKBONE))
    assert ships and parts.tensors.keys() == ships.tensors.keys() and parts.descriptor == "two-map"
    assert parts.section("reduction")["matrix"].shape == (512, 1280)
    assert not torch.equal(parts.section("reduction")["matrix"], ships.section("reduction")["matrix"])
    for name in ("whitening", "locals", "patches"):
        assert all(torch.equal(value, ships.section(name)[key]) for key, value in parts.section(name).items())
    assert "landseer train coattention" in (out / "README.md").read_text()
    assert run(*given) == 1
    assert "already holds a training; continue it with --resume" in capsys.readouterr().err
    assert run(*given, "--resume") == 0
    again = own_parts(out / "parts.safetensors", loaded, "two-map")
    assert again.card == parts.card and again.tensors.keys() == parts.tensors.keys()
    assert all(torch.equal(again.tensors[name], value) for name, value in parts.tensors.items())
    assert run(*given, "--batch", "8") == 1
    assert "got --batch for coattention, which takes only --out, " in capsys.readouterr().err
    monkeypatch.undo()
    assert run("coattention", f"folder:{data}", "--out", tmp_path / "few", "--pool", "8", "--dry-run") == 0
