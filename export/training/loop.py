"""The training loop. A `Task` says what to train, `Settings` how. A run keeps its state in a folder, surviving kills.

state.pt         everything needed to resume
best.safetensors the weights with the best validation, including the initial one
curves.csv, .png losses, learning rates and validations

Randomness in a batch derives from the seed, the epoch and the batch's number only. So on a CPU (with the same number
of threads) a run that was killed at any step and resumed ends with the same bits as an uninterrupted one. On a GPU
batches, augmentation and order are the same, but some sums, such as the gradients of interpolation and RoI pooling,
have no fixed order: results agree as closely as two runs with one seed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landseer.export.training.curves import CurveRow, write_curves
from landseer.export.training.errors import Stopped, TrainingError
from landseer.export.training.interrupts import Interrupts
from landseer.export.training.loading import loaded
from landseer.export.training.optimising import optimiser
from landseer.export.training.settings import Device, Settings
from landseer.export.training.state import Progress, RunState, check_same, read_state, write_state
from landseer.export.training.task import Group, Task
from landseer.export.training.trial import Trial, peak_bytes, tensor_bytes, timed
from landseer.export.training.watcher import Silent, Watcher
from landseer.export.training.weights import write_weights

__all__ = ["Group", "Outcome", "Settings", "Silent", "Stopped", "Task", "TrainingError", "Watcher", "train", "tried"]

LOAD, STEP, MINE, VALIDATE = range(4)
"""Purposes of random states: part of the sequence that seeds each."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a training."""

    best: float
    """The best validation."""
    epoch: int
    """Epochs done at the best validation; 0 for the initial weights."""
    start: float
    """The validation before the first step."""
    weights: Path
    rows: Sequence[CurveRow]


def train(
    task: Task, settings: Settings, folder: Path, *, resume: bool = False, watcher: Watcher | None = None
) -> Outcome:
    """Train, or with `resume` continue from the folder's state; a finished run returns its result again.

    TrainingError for a folder with another run, a loss or gradient that is not finite, or a missing device. Stopped
    after Ctrl-C, once the state is saved.
    """
    device = chosen(settings.device)
    task.module.to(device)
    with _deterministic(device), Interrupts() as interrupts:
        run = _Run(task, settings, device=device, folder=folder, interrupts=interrupts, watcher=watcher or Silent())
        return run.run(resume)


def tried(task: Task, settings: Settings, folder: Path, *, steps: int, watcher: Watcher | None = None) -> Trial:
    """Take some steps of the first epoch and one before them; write nothing. TrainingError as of `train`."""
    device, asked = chosen(settings.device), replace(settings, checkpoint_every=0)
    task.module.to(device)
    with _deterministic(device), Interrupts() as interrupts:
        run = _Run(task, asked, device=device, folder=folder, interrupts=interrupts, watcher=watcher or Silent())
        return run.trial(steps)


def chosen(device: Device) -> torch.device:
    """Return the device; auto takes a GPU if there is one. TrainingError if the named device is missing."""
    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise TrainingError(
            "got device cuda, but torch finds no GPU; train on the cpu, or install a CUDA build of torch"
        )
    return torch.device("cuda" if there and device != "cpu" else "cpu")


def seeded(*numbers: int) -> int:
    """Derive a 63-bit seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """Make torch deterministic; restore its settings and generators afterwards."""
    before, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        # On a GPU some gradients have no deterministic version: torch uses them anyway and warns. cuBLAS reads this
        # variable at its first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before, warn_only=warn)


class _Run:
    """One training run, from its current state to the end."""

    def __init__(
        self,
        task: Task,
        settings: Settings,
        *,
        device: torch.device,
        folder: Path,
        interrupts: Interrupts,
        watcher: Watcher,
    ) -> None:
        self.task, self.settings, self.device, self.folder = task, settings, device, folder
        self.interrupts, self.watcher = interrupts, watcher
        groups = task.groups()
        self.optimiser = optimiser(groups, settings)
        self.rates = [group.rate for group in groups]
        self.parameters = [parameter for group in groups for parameter in group.parameters]
        self.progress = Progress()
        asked = asdict(settings) | {"device": device.type}
        self.about = {f"settings.{name}": value for name, value in asked.items()} | dict(task.about())
        self.path, self.weights = folder / "state.pt", folder / "best.safetensors"

    def run(self, resume: bool) -> Outcome:
        """Train to the end."""
        if resume:
            self._take_up()
        elif self.path.exists():
            raise TrainingError(
                f"{self.folder} already holds a training; continue it with --resume, or name another folder"
            )
        try:
            if self.progress.best is None:
                self._finish_epoch()
            while self.progress.epoch < self.settings.epochs:
                self._epoch()
        except KeyboardInterrupt:
            # After a second Ctrl-C within a step the weights are inconsistent.
            if not self.interrupts.torn:
                self._save()
            raise Stopped(self.path) from None
        return self._outcome()

    def trial(self, steps: int) -> Trial:
        """Take one step, and at most so many timed ones."""
        now = self.progress
        mining = timed(lambda: setattr(now, "mined", self._mined()))
        plan, of_epoch = self._planned()
        count = min(steps + 1, of_epoch)
        if count == 1:
            raise TrainingError("an epoch is a single step, too few to time; use more data, or a smaller --batch")
        self.watcher.epoch(0, 1, 0, count)
        self._steps(plan, 1)
        seconds = timed(lambda: self._steps(plan, count))
        return Trial(
            steps=count - 1,
            seconds=seconds / (count - 1),
            of_epoch=of_epoch,
            epochs=self.settings.epochs,
            mining=mining,
            peak=peak_bytes(self.device),
            checkpoint=tensor_bytes([self.task.module.state_dict(), self.optimiser.state_dict()]),
        )

    def _take_up(self) -> None:
        found = read_state(self.path)
        check_same(found.about, self.about, self.path)
        self.task.module.load_state_dict(found.module)
        self.optimiser.load_state_dict(dict(found.optimiser))
        self.progress = found.progress
        if self.progress.best is not None:
            self.watcher.resumed(self.progress.epoch, self.settings.epochs, self.progress.best)

    def _epoch(self) -> None:
        now = self.progress
        if not now.begun:
            now.mined, now.begun = self._mined(), True
        plan, steps = self._planned()
        self.watcher.epoch(now.epoch, self.settings.epochs, now.step, steps)
        self._steps(plan, steps)
        self._finish_epoch(done=1)

    def _planned(self) -> tuple[Sequence[Any], int]:
        """Return the batches of the epoch, and its number of steps."""
        now = self.progress
        plan = self.task.plan(now.epoch, now.mined)
        if not plan:
            raise TrainingError(f"epoch {now.epoch + 1} has no batches: too little data for the batch size")
        return plan, math.ceil(len(plan) / self.settings.accumulate)

    def _mined(self) -> Any:
        self.watcher.doing("mining")
        with self._aside(MINE, self.progress.epoch):
            return self.task.mine(self.progress.epoch)

    def _steps(self, plan: Sequence[Any], steps: int) -> None:
        now, size, every = self.progress, self.settings.accumulate, self.settings.checkpoint_every
        self.watcher.doing("")
        self.task.module.train()
        with loaded(self._load, plan, now.step * size) as batches:
            while now.step < steps:
                numbers = range(now.step * size, min((now.step + 1) * size, len(plan)))
                ready = [(number, plan[number], next(batches)) for number in numbers]
                with self.interrupts.held():
                    self._step(ready, steps)
                    if every and now.total % every == 0:
                        self._save()

    def _load(self, number: int, item: Any) -> Any:
        draw = np.random.default_rng((self.settings.seed, LOAD, self.progress.epoch, number))
        return self.task.load(item, draw)

    def _step(self, ready: Sequence[tuple[int, Any, Any]], steps: int) -> None:
        """Take one optimiser step from batches, given as (number, item of the plan, loaded batch)."""
        now = self.progress
        # Evaluated mid-step, so that neither the first nor the last step has rate 0.
        factor = self.settings.rate(now.epoch + (now.step + 0.5) / steps)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = self.settings.learning_rate * rate * factor
        self.optimiser.zero_grad(set_to_none=True)
        loss = sum(self._backward(number, item, batch, len(ready)) for number, item, batch in ready)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip or math.inf)
        self._finite(float(norm), "norm of the gradients", [item for _, item, _ in ready])
        self.optimiser.step()
        now.step, now.total = now.step + 1, now.total + 1
        self._log(loss, self.settings.learning_rate * factor, now.step == steps)

    def _backward(self, number: int, item: Any, batch: Any, parts: int) -> float:
        torch.manual_seed(seeded(self.settings.seed, STEP, self.progress.epoch, number))
        with self._computing():
            loss = self.task.loss(batch)
        value = float(loss.detach()) / parts
        self._finite(value, "loss", [item])
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        return value

    def _finite(self, value: float, what: str, items: Sequence[Any]) -> None:
        if not math.isfinite(value):
            names = "; ".join(self.task.describe(item) for item in items)
            place = f"epoch {self.progress.epoch + 1}, step {self.progress.step + 1}"
            raise TrainingError(
                f"the {what} is {value} in {place} (batch: {names}); expected a finite number. Lower the learning "
                f"rate, clip the gradients, or check that batch"
            )

    def _log(self, loss: float, learning_rate: float, last: bool) -> None:
        now = self.progress
        now.losses.append(loss)
        self.watcher.step(loss)
        if last or len(now.losses) == self.settings.log_every:
            mean = math.fsum(now.losses) / len(now.losses)
            now.rows.append(CurveRow(epoch=now.epoch, step=now.total, loss=mean, learning_rate=learning_rate))
            now.losses.clear()

    def _finish_epoch(self, *, done: int = 0) -> None:
        """Validate, save the best weights and advance to the next epoch, atomically with respect to kills."""
        now, epoch = self.progress, self.progress.epoch + done
        self.watcher.doing("validating")
        with self._aside(VALIDATE, epoch):
            value = self.task.validate()
        if not math.isfinite(value):
            raise TrainingError(
                f"the validation ({self.task.measure}) is {value}; expected a number. Is there enough validation data?"
            )
        with self.interrupts.held():
            best = now.best is None or value > now.best
            if best:
                now.best, now.best_epoch = value, epoch
                write_weights(
                    self.task.weights(),
                    self.weights,
                    epoch=epoch,
                    measure=self.task.measure,
                    value=value,
                    about=self.task.about(),
                )
            now.rows.append(CurveRow(epoch=epoch, step=now.total, validation=value))
            now.epoch, now.step, now.mined, now.begun = epoch, 0, None, False
            self._save()
            self.watcher.validated(value, best)
        self.watcher.doing("")

    def _save(self) -> None:
        checkpoint = RunState(
            about=self.about,
            progress=self.progress,
            module=self.task.module.state_dict(),
            optimiser=self.optimiser.state_dict(),
        )
        write_state(checkpoint, self.path)
        if not self.progress.begun:
            write_curves(self.progress.rows, self.folder, self.task.measure)

    @contextmanager
    def _aside(self, purpose: int, epoch: int) -> Iterator[None]:
        """Enter evaluation mode without gradients and with seeded randomness, for work outside steps."""
        self.task.module.eval()
        torch.manual_seed(seeded(self.settings.seed, purpose, epoch))
        with torch.no_grad(), self._computing():
            yield

    def _computing(self) -> AbstractContextManager[object]:
        stack = ExitStack()
        stack.enter_context(torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.bf16))
        if self.device.type != "cpu":
            # Heads create small index tensors on torch's default device.
            stack.enter_context(self.device)
        return stack

    def _outcome(self) -> Outcome:
        now = self.progress
        values = [row.validation for row in now.rows if row.validation is not None]
        return Outcome(
            best=max(values), epoch=now.best_epoch, start=values[0], weights=self.weights, rows=tuple(now.rows)
        )
