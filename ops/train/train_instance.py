"""`landseer train instance`: from photographs to a trunk whose last blocks tell look-alikes apart."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from rich.console import Console

from landseer.export.build import trunk_sha256
from landseer.export.models.trunk import Loaded
from landseer.export.models.trunks import BACKBONES
from landseer.export.training.command import precision_of
from landseer.export.training.errors import TrainingError
from landseer.export.training.files import write_whole
from landseer.export.training.instance_tuning import InstanceRecipe, InstanceTuning
from landseer.export.training.look_alike_views import EACH, LEARNING, PHOTOGRAPHS, LookAlikes, front_maps
from landseer.export.training.loop import Outcome, Settings, train
from landseer.ops.progress import bars
from landseer.ops.train.progress_bars import Bars
from landseer.ops.train.split import read_all
from landseer.ops.train.training import TrainingOptions

MAPS = Path("var/train/look-alikes")
EPOCHS, RATE = 10, 1e-4


def run(options: TrainingOptions, console: Console) -> None:
    """Draw views, train the last blocks, write the trunk and its card. TrainingError, DatasetError, WeightsError."""
    loaded = BACKBONES[options.backbone].load(options.weights, options.stride)
    if loaded.checkpoint is not None or loaded.trained is not None:
        raise TrainingError(f"{options.weights} has its own descriptor, which fits only its own trunk")
    photographs = read_all(options.data, console, decode=not options.dry_run).photographs
    if options.dry_run:
        told = f"drawn covers and at most {sum(PHOTOGRAPHS)} of {len(photographs):,} photographs"
        console.print(f"would train the last blocks of {options.backbone} on {told}, and write {options.out}")
        return
    things = LookAlikes(photographs, seed=options.seed)
    told = f"{EACH} views each of {things.covers:,} drawn covers and {len(things.things) - things.covers:,} photographs"
    learning = sum(thing.part == LEARNING for thing in things.things)
    console.print(f"{told}: learning from {learning:,} of them, validating by the others")
    task = _task(things, loaded, options, console)
    with Bars(console, task.measure) as watcher:
        outcome = train(task, _settings(options), options.out, resume=options.resume, watcher=watcher)
    text = _card(options, loaded, outcome, told)
    write_whole(options.out / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
    console.print(
        f"best {outcome.best:.2f} after {outcome.epoch} epochs (before: {outcome.start:.2f}); train its head with: "
        f"python export/all.py --backbone {options.backbone} --weights {outcome.weights} --train {options.data} "
        f"--parts {options.out / 'parts.safetensors'}",
        soft_wrap=True,
    )


def _task(things: LookAlikes, loaded: Loaded, options: TrainingOptions, console: Console) -> InstanceTuning:
    with bars(console) as progress:
        task = progress.add_task("things", total=len(things.things))
        maps = front_maps(
            things,
            loaded.trunk,
            fingerprint=trunk_sha256(loaded),
            precision=precision_of(options.backbone),
            folder=MAPS,
            progress=lambda done: progress.advance(task, done),
        )
    return InstanceTuning(maps, loaded.trunk, InstanceRecipe(seed=options.seed))


def _settings(options: TrainingOptions) -> Settings:
    return Settings(
        epochs=options.epochs or EPOCHS,
        learning_rate=options.rate or RATE,
        optimiser="adamw",
        schedule="constant",
        # Adam's first steps are as long as all others, and the whitening is steep.
        warm_up=1,
        device="cpu",
        seed=options.seed,
        log_every=options.log_every,
        checkpoint_every=options.checkpoint_every,
    )


def _card(options: TrainingOptions, loaded: Loaded, outcome: Outcome, told: str) -> str:
    rows = {
        "trained from": f"{options.backbone}, {loaded.source}, SHA-256 of its weights {trunk_sha256(loaded)}",
        "data": f"{options.data}: {told}",
        "command": options.command.replace(" --resume", ""),
        "machine": f"CPU, {platform.machine()}, torch {torch.__version__}",
        "seed": options.seed,
        "validation before, mAP": f"{outcome.start:.2f}",
        f"validation after {outcome.epoch} epochs, mAP": f"{outcome.best:.2f}",
    }
    return "\n".join(
        [
            f"# {options.backbone}, trained to tell instances apart",
            "",
            "A trunk whose last blocks learned by InfoNCE between views of look-alikes (`export/training/`,",
            "`instance_tuning.py`); all else is as it was. What it gains: `docs/research/descriptors.md`.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in rows.items()),
            "",
        ]
    )
