"""The last blocks of a trunk, trained on views of look-alikes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from landseer.export.models.rmac import GridRMAC
from landseer.export.models.trunk import Trunk
from landseer.export.models.trunks import BACKBONES, IMAGENET
from landseer.export.training import instance_tuning as module
from landseer.export.training.instance_tuning import InstanceRecipe, InstanceTuning, fold_norms, square_rmac
from landseer.export.training.look_alike_views import EACH, HELD, LEARNING, NO_FAMILY, WHITENING, FrontMaps, Thing
from landseer.export.training.loop import Settings, train

CHANNELS, INNER, CELLS = 48, 12, 5
SETTINGS = Settings(epochs=3, learning_rate=3e-3, optimiser="adamw", schedule="constant", device="cpu")


def small_trunk(seed: int = 0) -> Trunk:
    """A trunk whose front is a single convolution of stride 32."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        front = nn.Conv2d(3, INNER, 32, stride=32)
        norm = nn.BatchNorm2d(CHANNELS)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
        nn.init.normal_(norm.running_mean, std=0.3)
        nn.init.uniform_(norm.weight, 0.5, 2.0)
        back = nn.Sequential(nn.Conv2d(INNER, CHANNELS, 1, bias=False), norm, nn.ReLU())
    made = Trunk(
        features=nn.Sequential(front, back),
        classifier=nn.Identity(),
        channels=CHANNELS,
        mean=(127.0,) * 3,
        std=(60.0,) * 3,
        split=lambda: (front, back),
    )
    made.backbone, made.variant = "small", "one"
    return made.eval()


def maps(seed: int = 0) -> FrontMaps:
    """Covers of a family differ in one of the channels; light, which is stronger, changes between views."""
    draw = np.random.default_rng(seed)
    things, found, family = list[Thing](), [], 0
    for part, (families, photographs) in enumerate(((12, 8), (8, 4), (8, 4))):
        for _ in range(families):
            design = draw.random(INNER - 4)
            for place in range(4):
                things.append(Thing(part=part, family=family, place=place))
                found += _views(np.concatenate([design, 0.15 * np.eye(4)[place]]), draw)
            family += 1
        for place in range(photographs):
            things.append(Thing(part=part, family=NO_FAMILY, place=place))
            found += _views(draw.random(INNER), draw)
    return FrontMaps(maps=np.stack(found).astype(np.float16), things=tuple(things), key="key")


def _views(vector: np.ndarray, draw: np.random.Generator) -> list[np.ndarray]:
    light = 1.5 * draw.random((EACH, INNER)) * (np.arange(INNER) < 4)
    cells = (vector + light)[:, :, None, None] + 0.1 * draw.random((EACH, INNER, CELLS, CELLS))
    return list(cells)


def task(**recipe: float) -> InstanceTuning:
    return InstanceTuning(maps(), small_trunk(), InstanceRecipe(**recipe))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEPS", 20)
    monkeypatch.setattr(module, "CROPPED", 1)
    monkeypatch.setattr(module, "fine_values", lambda channels: 8)


def test_it_learns_and_writes_a_trunk_of_the_same_shape(tmp_path: Path) -> None:
    made, before = task(keep=0.0), small_trunk()
    outcome = train(made, SETTINGS, tmp_path)
    assert outcome.best > outcome.start + 2 and outcome.epoch > 0
    weights = made.weights()
    assert {name.removeprefix("trunk.") for name in weights} == set(before.state_dict())
    assert all(value.dtype == (torch.float16 if value.dim() > 1 else value.dtype) for value in weights.values())
    # The first part is as it was, the last is not; the mean is written, not the last step.
    assert torch.equal(weights["trunk.features.0.weight"], before.state_dict()["features.0.weight"].half())
    mean = made.module.get_submodule("mean").state_dict()
    assert torch.equal(weights["trunk.features.1.0.weight"], mean["0.weight"].half())
    assert not torch.equal(mean["0.weight"], made.trunk.state_dict()["features.1.0.weight"])
    assert made.about()["trunk"] == "small one" and made.about()["method.kind"] == "instance"


def test_folding_changes_no_map_and_square_rmac_is_that_of_serving() -> None:
    trunk, x = BACKBONES[IMAGENET].load(None, "auto").trunk, 255 * torch.rand(1, 3, 160, 160)
    with torch.inference_mode():
        before = trunk(x)
        front, back = trunk.split()
        assert torch.equal(back(front((x - trunk.mean) / trunk.std)), before)
    fold_norms(back)
    scales = [one.weight for one in back.modules() if isinstance(one, nn.BatchNorm2d)]
    assert len(scales) == 7 and all(torch.equal(one, torch.ones_like(one)) for one in scales)
    with torch.inference_mode():
        after = trunk(x)
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)
        expected, _ = GridRMAC(1280, projection=nn.Identity()).eval()(after, 160, 160)
        torch.testing.assert_close(square_rmac(after, 32), expected)


def test_batches_hold_whole_families_and_two_views_of_each_thing() -> None:
    made = task(families=2, photographs=3)
    plan = made.plan(1, None)
    assert len(plan) == 20 and plan == made.plan(1, None) and plan != made.plan(2, None)
    for rows in plan:
        numbers = np.array(rows) // EACH
        firsts, seconds = np.split(np.array(rows) % EACH, 2)
        assert np.array_equal(*np.split(numbers, 2)) and (firsts < EACH // 2).all() and (seconds >= EACH // 2).all()
        found = [made.maps.things[number] for number in numbers[: len(numbers) // 2]]
        assert all(one.part == LEARNING for one in found)
        families = [one.family for one in found if one.family != NO_FAMILY]
        assert len(families) == 8 and len(set(families)) == 2 and len(found) == 11
    cut, rows = made.load(plan[0], np.random.default_rng(0))
    assert cut.shape == (22, INNER, CELLS - 1, CELLS - 1) and rows.tolist() == plan[0]
    assert made.describe(plan[0]).endswith("and 18 more")


def test_parts_are_apart_and_the_distance_to_what_was_known_is_kept() -> None:
    made = task()
    rows = [set(made.maps.rows(part).tolist()) for part in (LEARNING, WHITENING, HELD)]
    assert sum(map(len, rows)) == len(set.union(*rows)) == len(made.maps.maps)
    batch = made.load(made.plan(0, None)[0], np.random.default_rng(0))
    held = InstanceTuning(maps(), small_trunk(), InstanceRecipe(keep=50.0))
    assert held.loss(batch).item() > made.loss(batch).item() > 0


def test_statistics_stay_as_they_were() -> None:
    made = task()
    batch = made.load(made.plan(0, None)[0], np.random.default_rng(0))
    still = made.loss(batch).item()
    made.module.train()
    assert not any(module.training for module in made.module.modules())
    assert made.loss(batch).item() == pytest.approx(still)


def test_equal_inputs_give_equal_weights(tmp_path: Path) -> None:
    first, second = (train(task(), SETTINGS, tmp_path / name) for name in ("a", "b"))
    assert first.weights.read_bytes() == second.weights.read_bytes()
