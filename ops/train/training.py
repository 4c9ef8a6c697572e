"""A training, from the name of the method to weights, curves and card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import load_file

from landseer.export.models.trunk import Loaded, Stride
from landseer.export.models.trunks import BACKBONES
from landseer.export.training.box_task import BoxTask, box_task
from landseer.export.training.command import precision_of
from landseer.export.training.detection import TrunkRun
from landseer.export.training.errors import TrainingError
from landseer.export.training.files import write_whole
from landseer.export.training.loop import Outcome, Settings, Task, chosen, train, tried
from landseer.export.training.picture_task import Data, picture_task
from landseer.export.training.recipes import METHODS, Pasted, Stage
from landseer.export.training.settings import Device
from landseer.export.training.shots import Shots, profile_of
from landseer.export.training.trunk_views import trunk_runner
from landseer.ops.train import split
from landseer.ops.train.card import FinishedStage, card, machine
from landseer.ops.train.progress_bars import Bars


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """The options of `landseer train`; None where the method decides."""

    method: str
    data: str
    out: Path
    backbone: str
    weights: Path | None
    stride: Stride
    descriptor: str | None
    parts: Path | None
    whitening: str | None
    validate: str
    validate_most: int
    side: int
    epochs: int | None
    batch: int | None
    accumulate: int | None
    rate: float | None
    tuples: int | None
    pool: int | None
    paste: Pasted | None
    bf16: bool
    device: Device
    seed: int
    checkpoint_every: int
    log_every: int
    resume: bool
    dry_run: bool
    try_steps: int | None
    command: str
    """The command line that repeats it, for the card."""


def run_training(options: TrainingOptions, console: Console) -> None:
    """Train all stages and write the card. Raises TrainingError, DatasetError or WeightsError."""
    stages = [_asked(stage, options) for stage in METHODS[options.method]]
    if options.paste and stages[-1].kind != "boxes":
        kinds = ", ".join(name for name, (stage, *_) in METHODS.items() if stage.kind == "boxes")
        raise TrainingError(f"got --paste {options.paste} for {options.method}; expected it with one of {kinds}")
    found = split.chosen(
        options.data,
        options.validate,
        most=options.validate_most,
        seed=options.seed,
        console=console,
        decode=not options.dry_run or bool(options.try_steps),
    )
    for name, count in found.counts().items():
        console.print(f"{name}: {count}", highlight=False)
    if options.dry_run:
        _tell(stages, options, console)
        if not options.try_steps:
            return
    training, held = (
        Shots(photographs=some, profile=profile_of(options.side)) for some in (found.training, found.validation)
    )
    wanted = Data(training=training, validation=held, positives=split.positives(options.data, found.training))
    if options.dry_run:
        _try(stages, wanted, options, console)
        return
    done = _stages(stages, wanted, options, console)
    facts = _facts(options, found, done.source)
    text = card(method=options.method, command=options.command, facts=facts, stages=done.stages, skipped=found.skipped)
    write_whole(options.out / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
    last = done.stages[-1].outcome
    console.print(f"best {last.best:.2f} after {last.epoch} epochs (before: {last.start:.2f}); see {options.out}")


@dataclass(frozen=True, kw_only=True)
class _Trained:
    stages: Sequence[FinishedStage]
    source: str
    """Origin of the initial weights."""


def _stages(stages: Sequence[Stage], data: Data, options: TrainingOptions, console: Console) -> _Trained:
    """Train the stages in turn, each on the best trunk of the previous one."""
    loaded = _trunk(stages[0], options, console)
    done: list[FinishedStage] = []
    for stage in stages:
        task = _task(stage, data, loaded, options)
        last = stage is stages[-1]
        if len(stages) > 1:
            console.print(f"stage {stage.name}")
        # A later stage may not have started when the command was interrupted.
        folder = options.out if last else options.out / stage.name
        resume = options.resume and (not done or (folder / "state.pt").exists())
        settings = _settings(stage, options)
        with Bars(console, task.measure) as watcher:
            outcome = train(task, settings, folder, resume=resume, watcher=watcher)
        done.append(FinishedStage(name=stage.name, measure=task.measure, outcome=outcome, about=task.about()))
        if not last and loaded is not None:
            _take_over(loaded, outcome)
    if isinstance(task, BoxTask) and stages[-1].head != "rpn":
        _write_detector(options.out)
    return _Trained(stages=done, source=loaded.source if loaded else str(options.weights or "random, by seed"))


def _try(stages: Sequence[Stage], data: Data, options: TrainingOptions, console: Console) -> None:
    """Take some steps of each stage and print what the training would take, without writing anything."""
    loaded, steps = _trunk(stages[0], options, console), options.try_steps or 1
    for stage in stages:
        task = _task(stage, data, loaded, options)
        with Bars(console, task.measure) as watcher:
            trial = tried(task, _settings(stage, options), options.out, steps=steps, watcher=watcher)
        mining = f"{_lasting(trial.mining)} to mine before each epoch; " if stage.kind == "tuples" else ""
        where = " of the GPU" if chosen(options.device).type == "cuda" else ""
        console.print(
            f"stage {stage.name}: {trial.seconds:.3g} s a step (mean of {trial.steps} after a first); {mining}"
            f"{trial.epochs} epochs of {trial.of_epoch:,} steps: {_lasting(trial.total)}, without validation; "
            f"memory{where} at most {trial.peak / 2**30:.1f} GiB; checkpoint {trial.checkpoint / 2**20:,.0f} MiB",
            highlight=False,
            soft_wrap=True,
        )


def _lasting(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    for most, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "hours")):
        if seconds < most:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 86_400:,.0f} days"


def _trunk(stage: Stage, options: TrainingOptions, console: Console) -> Loaded | None:
    if stage.kind == "boxes" and stage.head != "rpn":
        return None
    with console.status("loading the trunk"):
        return BACKBONES[options.backbone].load(options.weights, options.stride)


def _task(stage: Stage, data: Data, loaded: Loaded | None, options: TrainingOptions) -> Task:
    if stage.kind == "boxes":
        task = box_task(
            loaded.trunk if loaded else None,
            stage,
            data.training,
            data.validation,
            seed=options.seed,
            start=options.weights if loaded is None else None,
            run=_runner(loaded, options),
        )
        return task
    if loaded is None:
        raise ValueError(f"stage {stage.name} needs a trunk")
    return picture_task(loaded.trunk, stage, data, seed=options.seed)


def _runner(loaded: Loaded | None, options: TrainingOptions) -> TrunkRun | None:
    """Return a faster way than torch to run a frozen trunk on a CPU; None on a GPU."""
    if loaded is None or chosen(options.device).type != "cpu":
        return None
    return trunk_runner(loaded.trunk, precision_of(options.backbone))


def _take_over(loaded: Loaded, outcome: Outcome) -> None:
    """Load the best weights of a stage into the trunk, which may have been trained further since."""
    state = load_file(outcome.weights)
    loaded.trunk.load_state_dict(
        {name.removeprefix("trunk."): value for name, value in state.items() if name.startswith("trunk.")}
    )


def _write_detector(folder: Path) -> None:
    """Write the best weights of a detector in torchvision's format, from which the detectors are built."""
    state = load_file(folder / "best.safetensors")
    write_whole(folder / "best.pth", lambda path: torch.save(state, path))


def _asked(stage: Stage, options: TrainingOptions) -> Stage:
    """Return a stage with the given options in place of its own."""
    asked = {
        "epochs": options.epochs,
        "batch": options.batch,
        "accumulate": options.accumulate,
        "learning_rate": options.rate,
        "tuples": options.tuples,
        "pool": options.pool,
        "pasted": options.paste,
    }
    changed = replace(stage, **{name: value for name, value in asked.items() if value is not None})  # type: ignore[arg-type]
    # Keep a short trial from being all warm-up.
    return replace(changed, warm_up=min(changed.warm_up, changed.epochs // 2))


def _settings(stage: Stage, options: TrainingOptions) -> Settings:
    return Settings(
        epochs=stage.epochs,
        learning_rate=stage.learning_rate,
        optimiser=stage.optimiser,
        weight_decay=stage.weight_decay,
        schedule=stage.schedule,
        decay=stage.decay,
        warm_up=stage.warm_up,
        accumulate=stage.accumulate,
        bf16=options.bf16,
        device=options.device,
        seed=options.seed,
        log_every=options.log_every,
        checkpoint_every=options.checkpoint_every,
    )


def _facts(options: TrainingOptions, found: split.TrainingSplit, source: str) -> dict[str, str]:
    return {
        "data": options.data,
        **found.counts(),
        "held out for validation": options.validate,
        "initial weights": source,
        "long side": f"{options.side} px",
        "seed": str(options.seed),
        "machine": machine(chosen(options.device).type),
        "finished": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _tell(stages: Sequence[Stage], options: TrainingOptions, console: Console) -> None:
    """Print what would be done, without decoding or writing anything."""
    for stage in stages:
        settings = _settings(stage, options)
        what = "the head, with the trunk frozen" if stage.frozen else "trunk and head"
        what = "the detector" if stage.kind == "boxes" else what
        console.print(
            f"stage {stage.name}: {settings.epochs} epochs on {chosen(options.device).type}, {stage.head}"
            f"{' by ' + stage.loss if stage.loss else ''}, training {what}; batches of {stage.batch} x "
            f"{stage.accumulate}, {settings.optimiser} at {settings.learning_rate:g}, {settings.schedule}, warm-up "
            f"{settings.warm_up}, weight decay {settings.weight_decay:g}",
            highlight=False,
        )
    console.print(f"would write best.safetensors, curves.csv, curves.png, state.pt and README.md to {options.out}")
