from __future__ import annotations

import csv
import hashlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from landseer.export.training.errors import Stopped, TrainingError
from landseer.export.training.loop import train
from landseer.export.training.settings import Settings
from landseer.export.training.state import read_state
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

    @torch.no_grad()
    def validate(self) -> float:
        return -float(F.mse_loss(self.module(torch.from_numpy(self.x)), torch.from_numpy(self.y)))

    def weights(self) -> Mapping[str, Tensor]:
        return self.module.state_dict()


SETTINGS = Settings(
    epochs=4, learning_rate=0.02, accumulate=2, warm_up=1, weight_decay=1e-3, log_every=3, device="cpu", seed=5
)
STEPS = 4 * 4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are split by threads: runs that are compared to the bit, those in children too, have the same number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    state = read_state(folder / "state.pt")
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
    task.module.load_state_dict(load_file(outcome.weights))
    task.module.eval()
    assert task.validate() == outcome.best


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pictures of curves nor the disk's certainty, where a test is of neither."""
    monkeypatch.setattr("landseer.export.training.curves._draw", lambda rows, path, measure: path.write_bytes(b""))
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.mark.parametrize("every", [0, 1, 3])
def test_a_run_that_was_killed_goes_on_to_the_same_end(fast: None, whole: Path, tmp_path: Path, every: int) -> None:
    """Killed at random steps, several times in one run."""
    draw = np.random.default_rng(every)
    settings = replace(SETTINGS, checkpoint_every=every)
    kills = trial = 0
    while kills < math.ceil(KILLS / 3):
        folder, done, trial = tmp_path / str(trial), False, trial + 1
        while not done:
            killer = Killer(int(draw.integers(1, STEPS)))
            try:
                train(Line(), settings, folder, resume=(folder / "state.pt").exists(), watcher=killer)
                done = True
            except Killed:
                kills += 1
        assert digest(folder) == digest(whole)


CHILD = """
import sys, time
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = [{here!r}]
from test_training_loop import SETTINGS, Line, Silent, train
from landseer.export.training import curves
from landseer.export.training.errors import Stopped

curves._draw = lambda rows, path, measure: path.write_bytes(b"")

class Slow(Silent):
    def step(self, loss):
        print("step", flush=True)
        time.sleep(0.02)

folder = Path(sys.argv[1])
try:
    train(Line(), replace(SETTINGS, checkpoint_every=1), folder, resume=(folder / "state.pt").exists(), watcher=Slow())
except Stopped as stopped:
    print(stopped)
    sys.exit(130)
"""


def child(folder: Path) -> subprocess.Popen[str]:
    code = CHILD.format(here=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)


def stopped_after(folder: Path, steps: int, number: int) -> tuple[int, str]:
    """Start a child, send it a signal after so many steps, and wait for it. → its status, what it said last."""
    process = child(folder)
    assert process.stdout is not None
    for _ in range(steps):
        process.stdout.readline()
    time.sleep(0.01)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said


def test_a_real_kill_and_a_real_ctrl_c_go_on_to_the_same_end(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stopped"
    assert stopped_after(folder, 6, signal.SIGKILL)[0] == -signal.SIGKILL
    status, said = stopped_after(folder, 4, signal.SIGINT)
    assert status == 130 and "stopped; the state is saved in" in said
    process = child(folder)
    assert process.wait(timeout=60) == 0
    left = process.communicate()[0].split()
    assert 0 < len(left) <= STEPS - 9, "it did again what was done"
    assert digest(folder) == digest(whole)


def test_ctrl_c_in_a_step_lets_the_step_end(fast: None, whole: Path, tmp_path: Path) -> None:
    class Presses(Silent):
        done = 0

        def step(self, loss: float) -> None:
            self.done += 1
            if self.done == 6:
                handler = signal.getsignal(signal.SIGINT)
                # A signal that nobody holds back would end the whole test run, not this test.
                assert callable(handler) and handler is not before, (handler, threading.current_thread())
                handler(signal.SIGINT, None)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped):
        train(Line(), SETTINGS, tmp_path, watcher=Presses())
    assert signal.getsignal(signal.SIGINT) is before
    assert read_state(tmp_path / "state.pt").progress.total == 6
    train(Line(), SETTINGS, tmp_path, resume=True)
    assert digest(tmp_path) == digest(whole)


def test_ctrl_c_while_it_validates_is_taken_up_there(fast: None, whole: Path, tmp_path: Path) -> None:
    class Impatient(Line):
        asked = 0

        def validate(self) -> float:
            self.asked += 1
            if self.asked == 3:
                raise KeyboardInterrupt
            return super().validate()

    with pytest.raises(Stopped):
        train(Impatient(), SETTINGS, tmp_path)
    assert read_state(tmp_path / "state.pt").progress.epoch == 1
    train(Line(), SETTINGS, tmp_path, resume=True)
    assert digest(tmp_path) == digest(whole)


def test_the_last_good_checkpoint_stays_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Silent):
        def step(self, loss: float) -> None:
            def broken(contents: Any, path: Path) -> None:
                path.write_bytes(b"half of it")
                raise OSError("no space left on device")

            monkeypatch.setattr(torch, "save", broken)

    with pytest.raises(OSError, match="no space left"):
        train(Line(), replace(SETTINGS, checkpoint_every=1), tmp_path, watcher=Full())
    assert read_state(tmp_path / "state.pt").progress.total == 0


def test_another_run_is_refused_with_all_that_differs(whole: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        train(Line(data=1), replace(SETTINGS, seed=6, learning_rate=0.1), whole, resume=True)
    for part in ("settings.learning_rate was 0.02, is 0.1", "settings.seed was 5, is 6", "data was 0, is 1"):
        assert part in str(caught.value)
    with pytest.raises(TrainingError, match="already holds a training; continue it with --resume"):
        train(Line(), SETTINGS, whole)
    train(Line(), replace(SETTINGS, checkpoint_every=7), whole, resume=True)


def test_a_state_is_read_without_running_it(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no .* to resume from; start without --resume"):
        train(Line(), SETTINGS, tmp_path, resume=True)
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[Any, Any]:
            return Path.touch, (marker,)

    torch.save({"format": Evil()}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match="is not a training state"):
        train(Line(), SETTINGS, tmp_path, resume=True)
    assert not marker.exists()
    torch.save({"format": "other"}, tmp_path / "state.pt")
    with pytest.raises(TrainingError, match=r"is of format 'other'; expected 'landseer training 1'"):
        train(Line(), SETTINGS, tmp_path, resume=True)


def test_a_loss_that_is_not_finite_stops_it_and_names_the_batch(fast: None, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan in epoch \d, step \d \(batch: rows \[.*\b3\b"):
        train(Line(poison=3), SETTINGS, tmp_path)
    weights = read_state(tmp_path / "state.pt").module
    assert all(torch.isfinite(value.float()).all() for value in weights.values())


def test_gradients_that_are_not_finite_never_reach_the_weights(fast: None, tmp_path: Path) -> None:
    class Steep(Line):
        def loss(self, batch: Any) -> Tensor:
            return super().loss(batch) + (self.module[0].weight.sum() * 0).sqrt()

    with pytest.raises(TrainingError, match=r"the norm of the gradients is nan in epoch 1, step 1"):
        train(Steep(), SETTINGS, tmp_path)


def test_curves_are_a_table_and_a_picture(whole: Path) -> None:
    with (whole / "curves.csv").open(newline="") as stream:
        head, *rows = csv.reader(stream)
    assert head == ["epoch", "step", "loss", "learning_rate", "validation"]
    assert [row[1] for row in rows if row[4]] == ["0", "4", "8", "12", "16"]
    assert [row[1] for row in rows if row[2]] == ["3", "4", "7", "8", "11", "12", "15", "16"]
    picture = np.asarray(Image.open(whole / "curves.png").convert("RGB"))
    assert picture.shape[0] > 400 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_other_optimisers_schedules_and_precisions_are_deterministic_too(fast: None, tmp_path: Path) -> None:
    settings = replace(SETTINGS, epochs=2, optimiser="adamw", schedule="exponential", clip=0.5, bf16=True)
    for name in ("a", "b"):
        train(Line(), settings, tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    train(Line(), replace(settings, seed=1), tmp_path / "c")
    assert digest(tmp_path / "a")["best.safetensors"] != digest(tmp_path / "c")["best.safetensors"]


def test_what_torch_was_set_to_is_put_back(fast: None, tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    train(Line(), replace(SETTINGS, epochs=1), tmp_path)
    assert torch.equal(torch.get_rng_state(), state) and not torch.are_deterministic_algorithms_enabled()


def test_learning_rates_rise_and_fall() -> None:
    cosine = Settings(epochs=12, learning_rate=1.0, warm_up=2)
    assert [cosine.rate(epoch) for epoch in (0, 1, 2, 7, 12)] == pytest.approx([0, 0.5, 1, 0.5, 0])
    exponential = Settings(epochs=5, learning_rate=1.0, schedule="exponential", decay=0.9)
    assert [exponential.rate(epoch) for epoch in (0, 0.9, 1, 2.5)] == pytest.approx([1, 1, 0.9, 0.81])
    assert Settings(epochs=5, learning_rate=1.0, schedule="constant").rate(3.3) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "got epochs 0; expected at least 1"),
        ({"learning_rate": math.nan}, "got learning_rate nan; expected a number above 0"),
        ({"optimiser": "lion"}, "got optimiser 'lion'; expected one of sgd, adamw"),
        ({"clip": 0.0}, "got clip 0.0; expected a number above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SETTINGS, **wrong)


def test_a_gpu_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="got device cuda, but torch finds no GPU"):
        train(Line(), replace(SETTINGS, device="cuda"), tmp_path)


def test_an_epoch_without_batches_is_said(fast: None, tmp_path: Path) -> None:
    class Empty(Line):
        def plan(self, epoch: int, mined: Any) -> Sequence[Any]:
            return []

    with pytest.raises(TrainingError, match="epoch 1 has no batches"):
        train(Empty(), SETTINGS, tmp_path)
