from pathlib import Path

import numpy as np
import pytest
import torch

from landseer.export.build import untrained_head
from landseer.export.models.cider import CiDeR
from landseer.export.training.localisation import Localisation, LocalisationRecipe, instance_map, split
from landseer.export.training.loop import Settings, train
from landseer.export.training.trunk_views import TrunkViews

CHANNELS, CELLS, OBJECT = 16, 6, slice(2, 4)
RECIPE = LocalisationRecipe(photographs=8, sample=60, validated=20, held_out=0.2)
SETTINGS = Settings(epochs=3, learning_rate=2e-2, optimiser="adamw", seed=0)


def planted(count: int = 120, views: int = 3) -> TrunkViews:
    """Maps in whose middle is what tells photographs apart, and around it what changes from view to view.

    One channel marks the object; one, stronger on average, the background.
    """
    draw = np.random.default_rng(0)
    own = draw.random((count, 1, CHANNELS, 1, 1)) ** 2
    maps = draw.random((count, views, CHANNELS, CELLS, CELLS)) ** 2
    maps[..., OBJECT, OBJECT] = own + 0.1 * draw.random((count, views, CHANNELS, 2, 2))
    maps[:, :, :2] = 0
    maps[:, :, 1] = 3
    maps[:, :, 0, OBJECT, OBJECT], maps[:, :, 1, OBJECT, OBJECT] = 3, 0
    return TrunkViews(maps=maps.astype(np.float16), side=128, labels=tuple(f"class {i // 6}" for i in range(count)))


def head() -> CiDeR:
    made = untrained_head("cider", CHANNELS)
    assert isinstance(made, CiDeR)
    return made


def test_it_learns_to_look_at_what_views_share(tmp_path: Path) -> None:
    task = Localisation(planted(), head(), RECIPE)
    outcome = train(task, SETTINGS, tmp_path)
    assert outcome.best > outcome.start + 5
    task.module.eval()
    with torch.no_grad():
        attention = task.module.localise(task.views.batch(np.arange(5)))[1]
    inside = attention[:, OBJECT, OBJECT].mean()
    assert inside > 0.9 and (attention.sum() - attention[:, OBJECT, OBJECT].sum()) / (15 * 32) < 0.4


def test_it_repeats_by_seed(tmp_path: Path) -> None:
    ends = []
    for name in ("a", "b"):
        task = Localisation(planted(60), head(), RECIPE)
        train(task, Settings(epochs=1, learning_rate=1e-2, optimiser="adamw"), tmp_path / name)
        ends.append(task.module.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])


def test_no_photograph_is_judged_by_a_whitening_that_has_seen_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task, seen = Localisation(planted(), head(), RECIPE), list[set[int]]()
    pooled = task.pooled
    monkeypatch.setattr(task, "pooled", lambda rows: (seen.append(set(rows.tolist())), pooled(rows))[1])
    plan = task.plan(0, task.mine(0))
    assert len(seen) == 2 and len(plan) >= 4
    for fold, rows in plan:
        assert not seen[fold] & set(rows)


def test_held_out_classes_are_never_learned_from() -> None:
    task = Localisation(planted(), head(), RECIPE)
    labels = np.array(task.views.labels)
    assert not set(labels[task.learning]) & set(labels[task.validating])
    assert task.plan(0, task.mine(0)) == task.plan(0, task.mine(0)) != task.plan(1, task.mine(1))


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1 classes"):
        split(["a", "a"], held_out=0.2, seed=0)


def test_the_map_of_instances() -> None:
    rows = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.6, 0.4]])
    # Of owner 0 each finds the other first. 2 ranks 3 first; 3 ranks 1, 0 and then 2: half of 0/2 + 1/3.
    assert instance_map(rows, np.array([0, 0, 1, 1])) == pytest.approx(100 * (1 + 1 + 1 + 1 / 6) / 4)
