from __future__ import annotations

import csv
import hashlib
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.export.training.errors import Stopped, TrainingError
from landseer.export.training.loop import train
from landseer.export.training.settings import Settings
from landseer.export.training.state import read_checkpoint
from landseer.export.training.task import Group
from landseer.export.training.watcher import Silent

KILLS = int(os.environ.get("LANDSEER_KILLS", "20"))


class Line:
    """A task with all that a task can have: dropout, chance in loading, something mined, a buffer that changes."""

    measure = "nearness"

    def __init__(self, data: int = 0, poison: int | None = None) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.module = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.data, self.poison = data, poison
        draw = np.random.default_rng(data)
        self.x = draw.normal(size=(40, 6)).astype(np.float32)
        self.y = self.x[:, :1] * 2 - self.x[:, 1:2]

    def about(self) -> Mapping[str, str | int | float]:
        return {"data": self.data}

    def groups(self) -> Sequence[Group]:
        first, *others = self.module.parameters()
        return [Group(parameters=others), Group(parameters=[first], rate=2.0, decay=False)]

    def mine(self, epoch: int) -> Any:
        error = (self.module(torch.from_numpy(self.x)) - torch.from_numpy(self.y)).abs()[:, 0]
        return {"order": (error + 0.1 * torch.rand(40)).argsort(descending=True)}

    def plan(self, epoch: int, mined: Any) -> Sequence[Any]:
        return [mined["order"][i : i + 4].tolist() for i in range(0, 28, 4)]

    def load(self, item: Any, draw: np.random.Generator) -> Any:
        return item, self.x[item] + draw.normal(scale=0.05, size=(len(item), 6)).astype(np.float32)

    def loss(self, batch: Any) -> Tensor:
        rows, x = batch
        if self.poison in rows:
            return self.module(torch.from_numpy(x)).sum() * math.nan
        return F.mse_loss(self.module(torch.from_numpy(x)), torch.from_numpy(self.y[rows]))

    def describe(self, item: Any) -> str:
        return f"rows {item}"

    def validate(self) -> float:
        return -float(F.mse_loss(self.module(torch.from_numpy(self.x)), torch.from_numpy(self.y)))

    def weights(self) -> Mapping[str, Tensor]:
        return self.module.state_dict()


SETTINGS = Settings(
    epochs=4, learning_rate=0.02, accumulate=2, warm_up=1, weight_decay=1e-3, log_every=3, device="cpu", seed=5
)
STEPS = 4 * 4


class Killed(BaseException):
    pass


class Killer(Silent):
    """Ends the run after so many steps, as a kill does: nothing is saved."""

    def __init__(self, after: int, error: type[BaseException] = Killed) -> None:
        self.left, self.error = after, error

    def step(self, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


def digest(folder: Path) -> dict[str, str]:
    """The files of a run by their contents; of the state, what is in it, as zip archives carry their names."""
    found = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("best.safetensors", "curves.csv")
    }
    state = read_checkpoint(folder / "state.pt")
    for part in (state.module, state.optimiser["state"]):
        for name, value in _flat(part):
            found[name] = hashlib.sha256(value.numpy().tobytes()).hexdigest()
    return found | {"progress": repr(state.progress)}


def _flat(tree: Any, name: str = "") -> list[tuple[str, Tensor]]:
    if isinstance(tree, Tensor):
        return [(name, tree)]
    items = tree.items() if isinstance(tree, Mapping) else ()
    return [pair for key, value in items for pair in _flat(value, f"{name}/{key}")]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(Line(), SETTINGS, folder)
    return folder


def test_it_learns_and_keeps_the_best_weights(whole: Path) -> None:
    outcome = train(Line(), SETTINGS, whole, resume=True)
    assert outcome.best > 0.5 * outcome.start and outcome.epoch >= 1
    values = [row.validation for row in outcome.rows if row.validation is not None]
    assert len(values) == 5 and outcome.best == max(values)
    task = Line()
    with safe_open(outcome.weights, framework="pt") as file:
        task.module.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    task.module.eval()
    assert task.validate() == outcome.best


@pytest.mark.parametrize("every", [0, 1, 3])
def test_a_run_that_was_killed_goes_on_to_the_same_end(whole: Path, tmp_path: Path, every: int) -> None:
    """Killed at random steps, several times in one run."""
    draw = np.random.default_rng(every)
    kills, trial = 0, 0
    while kills < math.ceil(KILLS / 3):
        folder, resume = tmp_path / str(trial), False
        trial += 1
        while True:
            try:
                train(
                    Line(),
                    replace(SETTINGS, checkpoint_every=every),
                    folder,
                    resume=resume,
                    watcher=Killer(int(draw.integers(1, STEPS))),
                )
                break
            except Killed:
                kills, resume = kills + 1, (folder / "state.pt").exists()
        assert digest(folder) == digest(whole)
