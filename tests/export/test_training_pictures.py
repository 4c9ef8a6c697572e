"""Each method on a small network and small pictures: it learns, by seed, and goes on after a kill."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from landseer.ensemble.inference.contracts import Sizes
from landseer.export.datasets.photograph import Box, Photograph, Photographs
from landseer.export.models.landmark_detectors import ssdlite
from landseer.export.models.trunk import Trunk
from landseer.export.training import box_task as module
from landseer.export.training.box_task import box_task
from landseer.export.training.describer import describe_rows
from landseer.export.training.errors import TrainingError
from landseer.export.training.heldout import check_apart, check_askable, hold_out, leave_one_out, some_of
from landseer.export.training.loop import train
from landseer.export.training.picture_task import Data, picture_task
from landseer.export.training.recipes import METHODS, Stage
from landseer.export.training.settings import Settings
from landseer.export.training.shots import Shots, grouped, profile_of, seen_size
from landseer.export.training.task import Task
from landseer.export.training.watcher import Silent

SIDE, CLASSES, EACH = 96, 6, 5


def tiny_trunk() -> Trunk:
    """Sixteen channels at stride 32, with BatchNorms whose statistics are not their first."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 4, 4),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 2, 2),
            nn.ReLU(),
        )
        features[1].running_mean.uniform_(-0.1, 0.1)
        return Trunk(features=features, classifier=nn.Linear(16, 3), channels=16, mean=(127.0,) * 3, std=(64.0,) * 3)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Photographs:
    """Six classes, each of one pattern in one colour, as landscapes and portraits."""
    folder, found = tmp_path_factory.mktemp("photographs"), []
    draw = np.random.default_rng(0)
    for number in range(CLASSES):
        colour, pattern = draw.integers(40, 255, 3), draw.normal(size=(12, 12, 1))
        for place in range(EACH):
            size = (120, 90) if place % 2 else (90, 120)
            grey = cv2.resize(pattern.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)[..., None]
            pixels = np.clip(colour * (0.6 + 0.3 * grey) + draw.normal(scale=8, size=(*size[::-1], 3)), 0, 255)
            path = folder / f"{number}-{place}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            found.append(Photograph(path=path, label=f"class {number}"))
    return Photographs(name="folder:test", photographs=tuple(found))


def data_of(photographs: Photographs) -> Data:
    split = hold_out(photographs, 0.3, seed=0)
    shots = [Shots(photographs=some, profile=profile_of(SIDE)) for some in (split.training, split.validation)]
    return Data(training=shots[0], validation=shots[1])


@pytest.fixture(scope="module")
def data(photographs: Photographs) -> Data:
    return data_of(photographs)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("landseer.export.training.curves._draw", lambda rows, path, measure: path.write_bytes(b""))
    monkeypatch.setattr("os.fsync", lambda handle: None)


def small(method: str, number: int = 0, **changes: Any) -> Stage:
    """A stage of a method with batches for a handful of pictures."""
    sizes = {"batch": 4, "accumulate": 1, "tuples": 16, "pool": 30, "warm_up": 0}
    return replace(METHODS[method][number], **sizes, **changes)


def settings_of(stage: Stage, **changes: Any) -> Settings:
    fields = {name: getattr(stage, name) for name in ("epochs", "learning_rate", "optimiser", "weight_decay")}
    return Settings(**(fields | {"schedule": "constant", "device": "cpu", "log_every": 1} | changes))


def losses(task: Task, settings: Settings, folder: Path) -> list[float]:
    rows = train(task, settings, folder).rows
    return [row.loss for row in rows if row.loss is not None]


@pytest.mark.parametrize(
    ("method", "number", "rate", "epochs"),
    [
        ("cider", 0, 0.03, 8),
        ("cider-ft", 0, 0.03, 8),
        ("cider-ft", 1, 0.05, 10),
        ("supcon", 0, 0.2, 16),
        ("contrastive", 0, 3e-3, 8),
        ("triplet", 0, 0.02, 8),
    ],
)
def test_each_method_learns(data: Data, tmp_path: Path, method: str, number: int, rate: float, epochs: int) -> None:
    extra = {"options": {"margin": 0.9}} if method == "contrastive" else {}
    stage = small(method, number, epochs=epochs, learning_rate=rate, **extra)
    if method == "triplet":
        stage = replace(stage, options={"margin": 0.3})
    trunk = tiny_trunk()
    task = picture_task(trunk, stage, data, seed=0)
    before = {name: value.clone() for name, value in trunk.state_dict().items()}
    values = losses(task, settings_of(stage, bf16=method == "cider"), tmp_path)
    early, late = (float(np.mean(some)) for some in (values[: len(values) // 4], values[-len(values) // 4 :]))
    assert late < 0.95 * early, f"{early} → {late}"
    after = trunk.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert bool(changed) != stage.frozen
    assert not any(name.startswith(("features.1.", "features.4.", "classifier.")) for name in changed), "BatchNorm"
    saved = load_file(tmp_path / "best.safetensors")
    assert {name.partition(".")[0] for name in saved} == {"trunk", "head"}


class Killed(BaseException):
    pass


class Killer(Silent):
    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, loss: float) -> None:
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize("method", ["cider", "triplet", "contrastive", "rpn"])
def test_a_killed_method_ends_with_the_same_weights(photographs: Photographs, tmp_path: Path, method: str) -> None:
    stage = small(method, epochs=2, learning_rate=0.01)
    settings = settings_of(stage, checkpoint_every=2)

    def task() -> Task:
        data = data_of(photographs)
        if stage.kind == "boxes":
            return box_task(tiny_trunk(), stage, data.training, data.validation, seed=3)
        return picture_task(tiny_trunk(), stage, data, seed=3)

    train(task(), settings, tmp_path / "whole")
    for after in (3, 2):
        with pytest.raises(Killed):
            folder = tmp_path / "killed"
            train(task(), settings, folder, resume=folder.exists(), watcher=Killer(after))
    train(task(), settings, folder, resume=True)
    for name in ("best.safetensors", "curves.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_other_data_weights_or_choices_are_refused(photographs: Photographs, data: Data, tmp_path: Path) -> None:
    stage = small("cider", epochs=1, learning_rate=0.01)
    train(picture_task(tiny_trunk(), stage, data, seed=0), settings_of(stage), tmp_path)
    fewer = replace(photographs, photographs=photographs.photographs[1:])
    trunk = tiny_trunk()
    with torch.no_grad():
        trunk.features[0].weight.mul_(2)
    for task, what in (
        (picture_task(tiny_trunk(), stage, data_of(fewer), seed=0), "data.training was"),
        (picture_task(tiny_trunk(), replace(stage, batch=3), data, seed=0), "method.batch was 4, is 3"),
        (picture_task(trunk, stage, data, seed=0), "first weights was"),
    ):
        with pytest.raises(TrainingError, match=what):
            train(task, settings_of(stage), tmp_path, resume=True)


def test_two_stages_the_second_keeps_the_trunk_of_the_first(data: Data, tmp_path: Path) -> None:
    first, second = (small("cider-ft", number, epochs=2, learning_rate=0.02) for number in (0, 1))
    assert (first.frozen, second.frozen) == (False, True)
    trunk = tiny_trunk()
    train(picture_task(trunk, first, data, seed=0), settings_of(first), tmp_path / "trunk")
    kept = {name: value.clone() for name, value in trunk.state_dict().items()}
    train(picture_task(trunk, second, data, seed=0), settings_of(second), tmp_path)
    assert all(torch.equal(value, kept[name]) for name, value in trunk.state_dict().items())


def test_the_power_of_gem_learns_faster_and_does_not_decay(data: Data) -> None:
    task = picture_task(tiny_trunk(), small("contrastive"), data, seed=0)
    others, powers = task.groups()
    assert [tuple(one.shape) for one in powers.parameters] == [()] and (powers.rate, powers.decay) == (10.0, False)
    assert others.decay and others.rate == 1.0


@pytest.mark.parametrize(("method", "rate", "epochs"), [("rpn", 3e-3, 6), ("ssdlite", 1e-3, 2)])
def test_detectors_learn(data: Data, tmp_path: Path, method: str, rate: float, epochs: int) -> None:
    stage = small(method, epochs=epochs, learning_rate=rate)
    trunk = tiny_trunk() if method == "rpn" else None
    task = box_task(trunk, stage, data.training, data.validation, seed=0)
    values = losses(task, settings_of(stage), tmp_path)
    assert np.mean(values[-3:]) < 0.9 * np.mean(values[:2])
    saved = load_file(tmp_path / "best.safetensors")
    if method == "rpn":
        assert {name.partition(".")[0] for name in saved} == {"rpn"}
        assert task.module.state_dict().keys() == saved.keys(), "the trunk is no part of the checkpoint"
    else:
        torch.save(saved, tmp_path / "best.pth")
        ssdlite(tmp_path / "best.pth", seed=1, sizes=Sizes(channels=1280))


def test_boxes_that_people_drew_are_used(photographs: Photographs) -> None:
    box = Box(x0=0.25, y0=0.25, x1=0.75, y1=0.5)
    drawn = [replace(photographs.photographs[row], boxes=(box,) if row == 0 else ()) for row in range(3)]
    shots = Shots(photographs=drawn, profile=profile_of(SIDE))
    picture = module.boxed(shots, 0, np.random.default_rng(0), "photographs")
    height, width = picture.pixels.shape[:2]
    np.testing.assert_allclose(picture.boxes, [[0.25 * width, 0.25 * height, 0.75 * width, 0.5 * height]])
    assert np.array_equal(picture.pixels, shots.pixels(0))
    pasted = module.boxed(shots, 1, np.random.default_rng(0), "photographs")
    assert pasted.boxes.shape == (1, 4) and not np.array_equal(pasted.pixels, shots.pixels(1))


def test_batches_have_one_size_and_pictures_their_own_aspect(data: Data) -> None:
    shots = data.training
    portrait = next(row for row, (width, height) in enumerate(shots.sizes) if width < height)
    landscape = next(row for row, (width, height) in enumerate(shots.sizes) if width > height)
    assert shots.common_size([portrait]) == (64, 96) and shots.common_size([landscape]) == (96, 64)
    assert shots.common_size([portrait, landscape]) == (96, 96)
    draw = np.random.default_rng(0)
    assert shots.view(portrait, (64, 96), draw).shape == (96, 64, 3)
    first, again = (shots.view(landscape, (96, 64), np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(first, again)


def test_descriptors_come_in_the_order_asked_for_whatever_the_batches(data: Data) -> None:
    shots = data.training
    describer = picture_task(tiny_trunk(), small("cider"), data, seed=0).describer.eval()
    rows = np.random.default_rng(0).permutation(len(shots)).tolist()
    together = describe_rows(describer, shots, rows, batch=7)
    for place in (0, 5, len(rows) - 1):
        np.testing.assert_allclose(
            together[place], describe_rows(describer, shots, [rows[place]], batch=1)[0], atol=1e-5
        )
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-4)
    with torch.no_grad():
        mixed = describer.described(grouped(shots.pixels(row) for row in rows)).numpy()
    np.testing.assert_allclose(mixed, together, atol=1e-5)


def test_leave_one_out_is_that_of_the_definition() -> None:
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.8, 0.6]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    # 0 and 1 find each other first; 2 finds 3 first, 3 finds 1, 0, 2: the area is (0 + 1/3) / 2.
    assert leave_one_out(vectors, [0, 0, 1, 1]) == pytest.approx(100 * (1 + 1 + 1 + 1 / 6) / 4)


def test_classes_that_are_held_out_are_never_trained_on(photographs: Photographs) -> None:
    split = hold_out(photographs, 0.3, seed=1)
    check_apart(split.training, split.validation)
    assert len(split.training) + len(split.validation) == CLASSES * EACH
    assert len({one.label for one in split.validation}) == 2
    assert hold_out(photographs, 0.3, seed=1) == split
    assert any(hold_out(photographs, 0.3, seed=seed) != split for seed in range(2, 9))
    some = some_of(split.validation, 7, seed=0)
    assert len(some) == 7 and set(some) <= set(split.validation)
    assert sorted(Counter(one.label for one in some).values()) == [3, 4]
    check_askable(some)
    for alone in (some_of(split.validation, 1, seed=0), split.validation[:4]):
        with pytest.raises(TrainingError, match="expected two classes or more"):
            check_askable(alone)
    with pytest.raises(TrainingError, match="training and validation share 2 classes and 10 files, such as class"):
        check_apart(photographs.photographs, split.validation)
    with pytest.raises(TrainingError, match=r"got 1\.5 of the classes for validation"):
        hold_out(photographs, 1.5, seed=0)
    few = replace(photographs, photographs=photographs.photographs[: 3 * EACH])
    with pytest.raises(
        TrainingError, match="has 3 classes, 3 of them with two photographs or more; expected at least 4"
    ):
        hold_out(few, 0.5, seed=0)


def test_sizes_are_those_that_people_see(tmp_path: Path) -> None:
    picture, exif = Image.new("RGB", (40, 20)), Image.Exif()
    exif[274] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert seen_size(tmp_path / "turned.jpg") == (20, 40)
    with pytest.raises(TrainingError, match="is no longer readable"):
        seen_size(tmp_path / "gone.jpg")


def test_a_batch_is_named_by_its_files(data: Data) -> None:
    labels, tuples = (picture_task(tiny_trunk(), small(name), data, seed=0) for name in ("cider", "triplet"))
    names = [photograph.path.name for photograph in data.training.photographs]
    assert labels.describe([0, 1]) == f"{names[0]}, {names[1]}"
    assert tuples.describe([[0, 1, 2]] * 3).endswith("and 3 more")
    assert math.isfinite(labels.validate())
